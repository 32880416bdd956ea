-- What a business notes about its metrics. Nothing decides by it; the trail sees it since 00000000000005_audit.
ALTER TABLE metrics ADD COLUMN cleanup_after TEXT NOT NULL DEFAULT '1d'
    CHECK (cleanup_after IN ('5s', '1m', '1h', '6h', '1d', '7d', '30d', 'never'));
ALTER TABLE metrics ADD COLUMN tags TEXT NOT NULL DEFAULT '{}'
    CHECK (length(tags) <= 4096 AND json_valid(tags) AND json_type(tags) = 'object');
ALTER TABLE metrics ADD COLUMN metadata TEXT NOT NULL DEFAULT '{}'
    CHECK (length(metadata) <= 4096 AND json_valid(metadata) AND json_type(metadata) = 'object');
