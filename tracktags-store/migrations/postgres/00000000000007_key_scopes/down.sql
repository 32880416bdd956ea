DROP TABLE key_uses;
CREATE OR REPLACE TRIGGER customer_keys_changed_update AFTER UPDATE ON customer_keys
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION config_changed('customer_id', 'id', 'key_hash hash_alg row_mac',
        'id business_id customer_id key_name description hint slot expires_at revoked_at');
ALTER TABLE customer_keys ENABLE ALWAYS TRIGGER customer_keys_changed_update;
CREATE OR REPLACE TRIGGER business_keys_changed_update AFTER UPDATE ON business_keys
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION config_changed('', 'id', 'key_hash hash_alg row_mac',
        'id business_id key_name description hint slot expires_at revoked_at');
ALTER TABLE business_keys ENABLE ALWAYS TRIGGER business_keys_changed_update;
ALTER TABLE customer_keys DROP COLUMN scopes;
ALTER TABLE business_keys DROP COLUMN scopes;
