CREATE OR REPLACE TRIGGER businesses_changed_update AFTER UPDATE ON businesses
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION config_changed('', 'business_id', '',
        'business_id business_name email user_id timezone default_metric enforcement target_policy deleted_at');
ALTER TABLE businesses ENABLE ALWAYS TRIGGER businesses_changed_update;
ALTER TABLE businesses DROP COLUMN max_customer_keys;
