-- The trail of changes. `change_first` … `change_last`: the rows of config_changes that this row explains; those that
-- none explains were caused by SQL, and get rows with the actor `sql`.
CREATE TABLE audit_logs (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    business_id TEXT,
    at TEXT NOT NULL,
    actor_type TEXT NOT NULL,
    actor_id TEXT,
    action TEXT NOT NULL,
    resource_id TEXT NOT NULL,
    before TEXT CHECK (before IS NULL OR json_valid(before)),
    after TEXT CHECK (after IS NULL OR json_valid(after)),
    request_id TEXT,
    change_first INTEGER,
    change_last INTEGER,
    row_mac BLOB CHECK (length(row_mac) = 32)
) STRICT;
CREATE INDEX audit_logs_page ON audit_logs (business_id, id);
CREATE INDEX audit_logs_changes ON audit_logs (change_last) WHERE change_last IS NOT NULL;

CREATE TRIGGER audit_logs_update BEFORE UPDATE ON audit_logs BEGIN
    SELECT RAISE(ABORT, 'the trail of changes is not rewritten');
END;

-- Up to which row config_changes is explained. What was changed before there was a trail stays unexplained.
INSERT INTO server_state (name, value)
    SELECT 'audited_change', CAST(coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'config_changes'), 0) AS TEXT);

-- Notes on metrics concern no decision; they move the version all the same, so that the trail sees them.
CREATE TRIGGER metrics_notes_update AFTER UPDATE OF cleanup_after, tags, metadata ON metrics
    WHEN (NEW.cleanup_after, NEW.tags, NEW.metadata) IS NOT (OLD.cleanup_after, OLD.tags, OLD.metadata) BEGIN
    INSERT INTO config_touch (business_id, customer_id, table_name, row_id, columns)
        SELECT NEW.business_id, NULL, 'metrics', NEW.metric_name, json_patch('{}', json_object(
            'cleanup_after', json(CASE WHEN OLD.cleanup_after IS NOT NEW.cleanup_after THEN json_array(OLD.cleanup_after, NEW.cleanup_after) END),
            'tags', json(CASE WHEN OLD.tags IS NOT NEW.tags THEN json_array(OLD.tags, NEW.tags) END),
            'metadata', json(CASE WHEN OLD.metadata IS NOT NEW.metadata THEN json_array(OLD.metadata, NEW.metadata) END)));
END;
