DROP TRIGGER businesses_subscription;
DROP TRIGGER customers_subscription_status;
ALTER TABLE businesses DROP COLUMN override_ends_at;
ALTER TABLE businesses DROP COLUMN subscription_status;
ALTER TABLE businesses DROP COLUMN stripe_customer_id;
ALTER TABLE businesses DROP COLUMN plan_type;
ALTER TABLE customers DROP COLUMN subscription_status;
