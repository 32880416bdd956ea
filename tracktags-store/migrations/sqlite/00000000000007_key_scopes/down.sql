DROP TABLE key_uses;
ALTER TABLE customer_keys DROP COLUMN scopes;
ALTER TABLE business_keys DROP COLUMN scopes;
