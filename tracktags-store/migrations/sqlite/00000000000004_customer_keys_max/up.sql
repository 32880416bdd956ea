-- How many live keys a customer may have: the business's choice.
ALTER TABLE businesses ADD COLUMN max_customer_keys INTEGER NOT NULL DEFAULT 2
    CHECK (max_customer_keys BETWEEN 1 AND 50);

CREATE TRIGGER businesses_customer_keys_max AFTER UPDATE OF max_customer_keys ON businesses
    WHEN NEW.max_customer_keys IS NOT OLD.max_customer_keys BEGIN
    INSERT INTO config_touch (business_id, customer_id, table_name, row_id, columns)
        VALUES (NEW.business_id, NULL, 'businesses', NEW.business_id,
            json_object('max_customer_keys', json_array(OLD.max_customer_keys, NEW.max_customer_keys)));
END;
