-- Dropping a table drops its triggers and indexes. The role stays: it is the cluster's, not this database's.
DROP TABLE plan_limits;
DROP TABLE metrics;
DROP TABLE customer_keys;
DROP TABLE business_keys;
DROP TABLE customers;
DROP TABLE plans;
DROP TABLE businesses;
DROP TABLE server_state;
DROP TABLE config_changes;
DROP TABLE config_versions;
DROP FUNCTION updated_now();
DROP FUNCTION businesses_checked();
DROP FUNCTION plan_limits_follow();
DROP FUNCTION plan_limits_checked();
DROP FUNCTION customers_moved();
DROP FUNCTION plans_moved();
DROP FUNCTION plans_follow();
DROP FUNCTION customers_follow();
DROP FUNCTION businesses_follow();
DROP FUNCTION customer_keys_checked();
DROP FUNCTION business_keys_checked();
DROP FUNCTION erase_proof();
DROP FUNCTION refuse();
DROP FUNCTION config_changed();
DROP FUNCTION are_thresholds(text);

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'tracktags_config') THEN
        EXECUTE format('REVOKE USAGE ON SCHEMA %I FROM tracktags_config', current_schema());
    END IF;
END
$$;
