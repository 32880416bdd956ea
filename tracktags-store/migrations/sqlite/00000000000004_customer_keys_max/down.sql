DROP TRIGGER businesses_customer_keys_max;
ALTER TABLE businesses DROP COLUMN max_customer_keys;
