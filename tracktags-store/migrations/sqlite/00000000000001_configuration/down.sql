-- Dropping a table drops its triggers and indexes.
DROP TABLE plan_limits;
DROP TABLE metrics;
DROP TABLE plans;
DROP TABLE plans_displaced;
DROP TABLE customer_keys;
DROP TABLE business_keys;
DROP TABLE customers;
DROP TABLE businesses;
DROP VIEW config_touch;
DROP TABLE config_changes;
DROP TABLE config_versions;
DROP TABLE server_state;
