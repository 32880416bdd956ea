-- What a key may do; NULL is everything its kind may. Part of what `row_mac` proves, so SQL widens nothing.
ALTER TABLE business_keys ADD COLUMN scopes TEXT CHECK (scopes <> '');
ALTER TABLE customer_keys ADD COLUMN scopes TEXT CHECK (scopes <> '');

-- When a key was last used, to the minute and without a promise: no trigger, no version.
CREATE TABLE key_uses (
    key_id TEXT PRIMARY KEY NOT NULL,
    business_id TEXT NOT NULL,
    last_used_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX key_uses_business ON key_uses (business_id);
