-- What a business notes about its metrics. Nothing decides by it; the trail sees it since 00000000000005_audit.
ALTER TABLE metrics ADD COLUMN cleanup_after text COLLATE "C" NOT NULL DEFAULT '1d'
    CHECK (cleanup_after IN ('5s', '1m', '1h', '6h', '1d', '7d', '30d', 'never'));
ALTER TABLE metrics ADD COLUMN tags text COLLATE "C" NOT NULL DEFAULT '{}'
    CHECK (length(tags) <= 4096 AND json_typeof(tags::json) = 'object');
ALTER TABLE metrics ADD COLUMN metadata text COLLATE "C" NOT NULL DEFAULT '{}'
    CHECK (length(metadata) <= 4096 AND json_typeof(metadata::json) = 'object');
