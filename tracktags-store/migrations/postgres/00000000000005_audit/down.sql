CREATE OR REPLACE TRIGGER metrics_changed_update AFTER UPDATE ON metrics
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION config_changed('', 'metric_name', '',
        'business_id metric_name scope operation metric_type flush_interval');
ALTER TABLE metrics ENABLE ALWAYS TRIGGER metrics_changed_update;
DELETE FROM server_state WHERE name = 'audited_change';
DROP TABLE audit_logs;
