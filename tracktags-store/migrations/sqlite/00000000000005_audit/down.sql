DROP TRIGGER metrics_notes_update;
DELETE FROM server_state WHERE name = 'audited_change';
DROP TABLE audit_logs;
