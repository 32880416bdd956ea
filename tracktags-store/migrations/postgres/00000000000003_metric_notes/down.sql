ALTER TABLE metrics DROP COLUMN cleanup_after;
ALTER TABLE metrics DROP COLUMN tags;
ALTER TABLE metrics DROP COLUMN metadata;
