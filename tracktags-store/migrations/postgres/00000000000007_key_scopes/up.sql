-- What a key may do; NULL is everything its kind may. Part of what `row_mac` proves, so SQL widens nothing.
ALTER TABLE business_keys ADD COLUMN scopes text COLLATE "C" CHECK (scopes <> '');
ALTER TABLE customer_keys ADD COLUMN scopes text COLLATE "C" CHECK (scopes <> '');

CREATE OR REPLACE TRIGGER business_keys_changed_update AFTER UPDATE ON business_keys
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION config_changed('', 'id', 'key_hash hash_alg row_mac',
        'id business_id key_name description hint slot expires_at revoked_at scopes');
ALTER TABLE business_keys ENABLE ALWAYS TRIGGER business_keys_changed_update;

CREATE OR REPLACE TRIGGER customer_keys_changed_update AFTER UPDATE ON customer_keys
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION config_changed('customer_id', 'id', 'key_hash hash_alg row_mac',
        'id business_id customer_id key_name description hint slot expires_at revoked_at scopes');
ALTER TABLE customer_keys ENABLE ALWAYS TRIGGER customer_keys_changed_update;

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'tracktags_config') THEN
        GRANT SELECT (scopes) ON customer_keys TO tracktags_config;
    END IF;
END
$$;

-- When a key was last used, to the minute and without a promise: no trigger, no version.
CREATE TABLE key_uses (
    key_id text COLLATE "C" PRIMARY KEY,
    business_id text COLLATE "C" NOT NULL,
    last_used_at timestamptz NOT NULL
) WITH (fillfactor = 80);
CREATE INDEX key_uses_business ON key_uses (business_id);
