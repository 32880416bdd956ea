-- How many live keys a customer may have: the business's choice.
ALTER TABLE businesses ADD COLUMN max_customer_keys integer NOT NULL DEFAULT 2
    CHECK (max_customer_keys BETWEEN 1 AND 50);

CREATE OR REPLACE TRIGGER businesses_changed_update AFTER UPDATE ON businesses
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION config_changed('', 'business_id', '',
        'business_id business_name email user_id timezone default_metric enforcement target_policy deleted_at '
        'max_customer_keys');
ALTER TABLE businesses ENABLE ALWAYS TRIGGER businesses_changed_update;
