CREATE OR REPLACE TRIGGER businesses_changed_update AFTER UPDATE ON businesses
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION config_changed('', 'business_id', '',
        'business_id business_name email user_id timezone default_metric enforcement target_policy deleted_at '
        'max_customer_keys');
ALTER TABLE businesses ENABLE ALWAYS TRIGGER businesses_changed_update;
CREATE OR REPLACE TRIGGER customers_changed_update AFTER UPDATE ON customers
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION config_changed('customer_id', 'customer_id', '',
        'business_id customer_id customer_name email description plan_id stripe_customer_id '
        'stripe_subscription_id stripe_price_id subscription_ends_at billing_anchor_day metadata deleted_at');
ALTER TABLE customers ENABLE ALWAYS TRIGGER customers_changed_update;
ALTER TABLE businesses DROP COLUMN override_ends_at;
ALTER TABLE businesses DROP COLUMN subscription_status;
ALTER TABLE businesses DROP COLUMN stripe_customer_id;
ALTER TABLE businesses DROP COLUMN plan_type;
ALTER TABLE customers DROP COLUMN subscription_status;
