-- What is known of subscriptions: a customer's, and a business's own with the platform. The latter is a record only.
ALTER TABLE customers ADD COLUMN subscription_status TEXT
    CHECK (subscription_status IS NULL OR subscription_status IN (
        'active', 'trialing', 'past_due', 'incomplete', 'unpaid', 'canceled', 'incomplete_expired', 'paused'));
ALTER TABLE businesses ADD COLUMN plan_type TEXT;
ALTER TABLE businesses ADD COLUMN stripe_customer_id TEXT;
ALTER TABLE businesses ADD COLUMN subscription_status TEXT
    CHECK (subscription_status IS NULL OR subscription_status IN (
        'active', 'trialing', 'past_due', 'incomplete', 'unpaid', 'canceled', 'incomplete_expired', 'paused'));
ALTER TABLE businesses ADD COLUMN override_ends_at TEXT
    CHECK (override_ends_at IS NULL
        OR (override_ends_at GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*' AND datetime(override_ends_at) IS NOT NULL));

CREATE TRIGGER customers_subscription_status AFTER UPDATE OF subscription_status ON customers
    WHEN NEW.subscription_status IS NOT OLD.subscription_status BEGIN
    INSERT INTO config_touch (business_id, customer_id, table_name, row_id, columns)
        VALUES (NEW.business_id, NEW.customer_id, 'customers', NEW.customer_id,
            json_object('subscription_status', json_array(OLD.subscription_status, NEW.subscription_status)));
END;
CREATE TRIGGER businesses_subscription
    AFTER UPDATE OF plan_type, stripe_customer_id, subscription_status, override_ends_at ON businesses
    WHEN (NEW.plan_type, NEW.stripe_customer_id, NEW.subscription_status, NEW.override_ends_at)
        IS NOT (OLD.plan_type, OLD.stripe_customer_id, OLD.subscription_status, OLD.override_ends_at) BEGIN
    INSERT INTO config_touch (business_id, customer_id, table_name, row_id, columns)
        SELECT NEW.business_id, NULL, 'businesses', NEW.business_id, json_patch('{}', json_object(
            'plan_type', json(CASE WHEN OLD.plan_type IS NOT NEW.plan_type THEN json_array(OLD.plan_type, NEW.plan_type) END),
            'stripe_customer_id', json(CASE WHEN OLD.stripe_customer_id IS NOT NEW.stripe_customer_id THEN json_array(OLD.stripe_customer_id, NEW.stripe_customer_id) END),
            'subscription_status', json(CASE WHEN OLD.subscription_status IS NOT NEW.subscription_status THEN json_array(OLD.subscription_status, NEW.subscription_status) END),
            'override_ends_at', json(CASE WHEN OLD.override_ends_at IS NOT NEW.override_ends_at THEN json_array(OLD.override_ends_at, NEW.override_ends_at) END)));
END;
