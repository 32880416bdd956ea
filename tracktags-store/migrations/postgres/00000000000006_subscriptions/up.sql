-- What is known of subscriptions: a customer's, and a business's own with the platform. The latter is a record only.
ALTER TABLE customers ADD COLUMN subscription_status text COLLATE "C"
    CHECK (subscription_status IN (
        'active', 'trialing', 'past_due', 'incomplete', 'unpaid', 'canceled', 'incomplete_expired', 'paused'));
ALTER TABLE businesses ADD COLUMN plan_type text COLLATE "C";
ALTER TABLE businesses ADD COLUMN stripe_customer_id text COLLATE "C";
ALTER TABLE businesses ADD COLUMN subscription_status text COLLATE "C"
    CHECK (subscription_status IN (
        'active', 'trialing', 'past_due', 'incomplete', 'unpaid', 'canceled', 'incomplete_expired', 'paused'));
ALTER TABLE businesses ADD COLUMN override_ends_at timestamptz
    CHECK (override_ends_at BETWEEN '0001-01-01 00:00Z' AND '9999-12-31 00:00Z');

CREATE OR REPLACE TRIGGER customers_changed_update AFTER UPDATE ON customers
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION config_changed('customer_id', 'customer_id', '',
        'business_id customer_id customer_name email description plan_id stripe_customer_id '
        'stripe_subscription_id stripe_price_id subscription_ends_at billing_anchor_day metadata deleted_at '
        'subscription_status');
ALTER TABLE customers ENABLE ALWAYS TRIGGER customers_changed_update;

CREATE OR REPLACE TRIGGER businesses_changed_update AFTER UPDATE ON businesses
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION config_changed('', 'business_id', '',
        'business_id business_name email user_id timezone default_metric enforcement target_policy deleted_at '
        'max_customer_keys plan_type stripe_customer_id subscription_status override_ends_at');
ALTER TABLE businesses ENABLE ALWAYS TRIGGER businesses_changed_update;
