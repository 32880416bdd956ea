-- Configuration: businesses, customers, keys, plans, limits and metrics. SQL users may change it directly
-- (docs/SECURITY.md, SQL writers); so everything here runs on a plain sqlite3 without functions of our own.
--
-- * `seq` pages lists; it is given once and never taken over from another row.
-- * Times are UTC, `2026-01-31T23:00:00.000Z` or `2026-01-31 23:00:00`.
-- * Names of unique keys begin with `business_id`: a row that INSERT OR REPLACE displaces, without running its
--   delete triggers, then belongs to the business whose version moves. Where one cannot, BEFORE triggers say so.
-- * No trigger relies on INSERT OR IGNORE or an upsert: the conflict clause of the outer statement overrides it.

-- How often a business's configuration changed, and what changed in the last day.
CREATE TABLE config_versions (
    business_id TEXT PRIMARY KEY NOT NULL,
    version INTEGER NOT NULL CHECK (version >= 0)
) STRICT;

-- `columns`: {"column": [before, after]}, without secrets. `customer_id`: whom it concerns; NULL is everybody.
CREATE TABLE config_changes (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    business_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    customer_id TEXT,
    table_name TEXT NOT NULL,
    row_id TEXT NOT NULL,
    columns TEXT NOT NULL,
    changed_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
) STRICT;
CREATE INDEX config_changes_version ON config_changes (business_id, version);
CREATE INDEX config_changes_changed_at ON config_changes (changed_at);

-- Inserting here notes a change: the version moves and its row is written, in the transaction of the cause.
CREATE VIEW config_touch (business_id, customer_id, table_name, row_id, columns) AS
    SELECT business_id, customer_id, table_name, row_id, columns FROM config_changes WHERE 0;
CREATE TRIGGER config_touch_insert INSTEAD OF INSERT ON config_touch BEGIN
    INSERT INTO config_versions (business_id, version)
        SELECT NEW.business_id, 0
        WHERE NOT EXISTS (SELECT 1 FROM config_versions WHERE business_id = NEW.business_id);
    UPDATE config_versions SET version = version + 1 WHERE business_id = NEW.business_id;
    INSERT INTO config_changes (business_id, version, customer_id, table_name, row_id, columns)
        SELECT NEW.business_id, version, NEW.customer_id, NEW.table_name, NEW.row_id, NEW.columns
        FROM config_versions WHERE business_id = NEW.business_id;
END;

-- What the server keeps for itself: its deployment, what tells a wrong master key.
CREATE TABLE server_state (
    name TEXT PRIMARY KEY NOT NULL,
    value TEXT NOT NULL
) STRICT;

-- Businesses and their settings.
CREATE TABLE businesses (
    seq INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    business_id TEXT NOT NULL UNIQUE DEFAULT ('biz_' || lower(hex(randomblob(16))))
        CHECK (length(business_id) BETWEEN 1 AND 64 AND business_id GLOB '[A-Za-z0-9]*'
            AND business_id NOT GLOB '*[^A-Za-z0-9_.-]*'),
    business_name TEXT NOT NULL CHECK (length(business_name) BETWEEN 1 AND 200),
    email TEXT NOT NULL,
    user_id TEXT,
    timezone TEXT NOT NULL DEFAULT 'UTC' CHECK (length(timezone) BETWEEN 1 AND 64),
    default_metric TEXT
        CHECK (length(default_metric) BETWEEN 1 AND 64 AND default_metric GLOB '[A-Za-z0-9]*'
            AND default_metric NOT GLOB '*[^A-Za-z0-9_.-]*'),
    enforcement TEXT NOT NULL DEFAULT 'enforce' CHECK (enforcement IN ('enforce', 'observe')),
    target_policy TEXT NOT NULL DEFAULT 'auto' CHECK (target_policy IN ('auto', 'public', 'allowlist')),
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
        CHECK (created_at GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*' AND datetime(created_at) IS NOT NULL),
    deleted_at TEXT
        CHECK (deleted_at IS NULL
            OR (deleted_at GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*' AND datetime(deleted_at) IS NOT NULL))
) STRICT;

-- Customers. One that is deleted keeps its row (`deleted_at`) and its usage.
CREATE TABLE customers (
    seq INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    business_id TEXT NOT NULL,
    customer_id TEXT NOT NULL
        CHECK (length(customer_id) BETWEEN 1 AND 64 AND customer_id GLOB '[A-Za-z0-9]*'
            AND customer_id NOT GLOB '*[^A-Za-z0-9_.-]*'),
    customer_name TEXT CHECK (length(customer_name) <= 200),
    email TEXT,
    description TEXT CHECK (length(description) <= 1000),
    plan_id TEXT,
    stripe_customer_id TEXT,
    stripe_subscription_id TEXT,
    stripe_price_id TEXT,
    subscription_ends_at TEXT
        CHECK (subscription_ends_at IS NULL
            OR (subscription_ends_at GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*' AND datetime(subscription_ends_at) IS NOT NULL)),
    billing_anchor_day INTEGER CHECK (billing_anchor_day BETWEEN 1 AND 31),
    metadata TEXT NOT NULL DEFAULT '{}'
        CHECK (json_valid(metadata) AND json_type(metadata) = 'object'
            AND length(CAST(metadata AS BLOB)) <= 4096),
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
        CHECK (created_at GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*' AND datetime(created_at) IS NOT NULL),
    updated_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
        CHECK (updated_at GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*' AND datetime(updated_at) IS NOT NULL),
    deleted_at TEXT
        CHECK (deleted_at IS NULL
            OR (deleted_at GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*' AND datetime(deleted_at) IS NOT NULL)),
    UNIQUE (business_id, customer_id)
) STRICT;
CREATE INDEX customers_page ON customers (business_id);
CREATE INDEX customers_plan ON customers (business_id, plan_id) WHERE plan_id IS NOT NULL;

-- Keys. `row_mac` binds a row to the server's master key: SQL can take a key's power away, never give it. A live key
-- holds a `slot`, so that no owner has more than it may; one that expired gives it up when another is made.
CREATE TABLE business_keys (
    seq INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    id TEXT NOT NULL,
    business_id TEXT NOT NULL,
    key_name TEXT NOT NULL CHECK (length(key_name) BETWEEN 1 AND 100),
    description TEXT,
    key_hash BLOB NOT NULL UNIQUE CHECK (length(key_hash) = 32),
    hash_alg TEXT NOT NULL,
    hint TEXT NOT NULL,
    row_mac BLOB CHECK (length(row_mac) = 32),
    slot INTEGER CHECK (slot BETWEEN 1 AND 50),
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
        CHECK (created_at GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*' AND datetime(created_at) IS NOT NULL),
    expires_at TEXT
        CHECK (expires_at IS NULL
            OR (expires_at GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*' AND datetime(expires_at) IS NOT NULL)),
    revoked_at TEXT
        CHECK (revoked_at IS NULL
            OR (revoked_at GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*' AND datetime(revoked_at) IS NOT NULL)),
    UNIQUE (business_id, id)
) STRICT;
CREATE UNIQUE INDEX business_keys_slot ON business_keys (business_id, slot) WHERE slot IS NOT NULL;
CREATE UNIQUE INDEX business_keys_name ON business_keys (business_id, key_name) WHERE slot IS NOT NULL;
CREATE INDEX business_keys_page ON business_keys (business_id);

CREATE TABLE customer_keys (
    seq INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    id TEXT NOT NULL,
    business_id TEXT NOT NULL,
    customer_id TEXT NOT NULL,
    key_name TEXT NOT NULL CHECK (length(key_name) BETWEEN 1 AND 100),
    description TEXT,
    key_hash BLOB NOT NULL UNIQUE CHECK (length(key_hash) = 32),
    hash_alg TEXT NOT NULL,
    hint TEXT NOT NULL,
    row_mac BLOB CHECK (length(row_mac) = 32),
    slot INTEGER CHECK (slot BETWEEN 1 AND 50),
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
        CHECK (created_at GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*' AND datetime(created_at) IS NOT NULL),
    expires_at TEXT
        CHECK (expires_at IS NULL
            OR (expires_at GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*' AND datetime(expires_at) IS NOT NULL)),
    revoked_at TEXT
        CHECK (revoked_at IS NULL
            OR (revoked_at GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*' AND datetime(revoked_at) IS NOT NULL)),
    UNIQUE (business_id, id)
) STRICT;
CREATE UNIQUE INDEX customer_keys_slot ON customer_keys (business_id, customer_id, slot) WHERE slot IS NOT NULL;
CREATE UNIQUE INDEX customer_keys_name ON customer_keys (business_id, customer_id, key_name) WHERE slot IS NOT NULL;
CREATE INDEX customer_keys_page ON customer_keys (business_id, customer_id);

CREATE TABLE plans (
    seq INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    id TEXT NOT NULL DEFAULT (lower(hex(randomblob(16)))) CHECK (length(id) BETWEEN 1 AND 64),
    business_id TEXT NOT NULL,
    plan_name TEXT NOT NULL CHECK (length(plan_name) BETWEEN 1 AND 100),
    stripe_price_id TEXT,
    is_free INTEGER NOT NULL DEFAULT 0 CHECK (is_free IN (0, 1)),
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
        CHECK (created_at GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*' AND datetime(created_at) IS NOT NULL),
    UNIQUE (business_id, id),
    UNIQUE (business_id, plan_name)
) STRICT;
CREATE UNIQUE INDEX plans_price ON plans (business_id, stripe_price_id) WHERE stripe_price_id IS NOT NULL;
CREATE UNIQUE INDEX plans_free ON plans (business_id) WHERE is_free = 1;
CREATE INDEX plans_page ON plans (business_id);
CREATE INDEX plans_is_free ON plans (business_id, is_free);

-- Limits: of a plan, of a customer, or (neither) of the whole business.
CREATE TABLE plan_limits (
    seq INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    id TEXT NOT NULL DEFAULT (lower(hex(randomblob(16)))) CHECK (length(id) BETWEEN 1 AND 64),
    business_id TEXT NOT NULL,
    metric_name TEXT NOT NULL
        CHECK (length(metric_name) BETWEEN 1 AND 64 AND metric_name GLOB '[A-Za-z0-9]*'
            AND metric_name NOT GLOB '*[^A-Za-z0-9_.-]*'),
    limit_value INTEGER NOT NULL CHECK (limit_value BETWEEN 0 AND 9007199254740991),
    limit_period TEXT NOT NULL DEFAULT 'monthly'
        CHECK (limit_period IN ('minutely', 'hourly', 'daily', 'weekly', 'monthly', 'yearly', 'realtime')),
    breach_operator TEXT NOT NULL DEFAULT 'gte' CHECK (breach_operator IN ('gte', 'gt', 'lte', 'lt', 'eq')),
    breach_action TEXT NOT NULL DEFAULT 'deny'
        CHECK (breach_action IN ('deny', 'allow_overage', 'webhook', 'allow', 'scale', 'disabled')),
    plan_id TEXT,
    customer_id TEXT,
    alert_thresholds TEXT NOT NULL DEFAULT '[]'
        CHECK (json_valid(alert_thresholds) AND json_type(alert_thresholds) = 'array'
            AND json_array_length(alert_thresholds) <= 10),
    webhook_urls TEXT,
    overage_meter TEXT,
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
        CHECK (created_at GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*' AND datetime(created_at) IS NOT NULL),
    updated_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
        CHECK (updated_at GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*' AND datetime(updated_at) IS NOT NULL),
    UNIQUE (business_id, id),
    CHECK (plan_id IS NULL OR customer_id IS NULL)
) STRICT;
CREATE UNIQUE INDEX plan_limits_one ON plan_limits
    (business_id, coalesce(plan_id, ''), coalesce(customer_id, ''), metric_name, limit_period);
CREATE INDEX plan_limits_page ON plan_limits (business_id);
CREATE INDEX plan_limits_wide ON plan_limits (business_id) WHERE plan_id IS NULL AND customer_id IS NULL;
CREATE INDEX plan_limits_plan ON plan_limits (business_id, plan_id) WHERE plan_id IS NOT NULL;
CREATE INDEX plan_limits_customer ON plan_limits (business_id, customer_id) WHERE customer_id IS NOT NULL;

CREATE TABLE metrics (
    seq INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    business_id TEXT NOT NULL,
    metric_name TEXT NOT NULL
        CHECK (length(metric_name) BETWEEN 1 AND 64 AND metric_name GLOB '[A-Za-z0-9]*'
            AND metric_name NOT GLOB '*[^A-Za-z0-9_.-]*'),
    scope TEXT NOT NULL DEFAULT 'customer' CHECK (scope IN ('customer', 'business')),
    operation TEXT NOT NULL DEFAULT 'SUM' CHECK (operation IN ('SUM', 'COUNT', 'MAX', 'MIN', 'LAST', 'AVG')),
    metric_type TEXT NOT NULL DEFAULT 'checkpoint'
        CHECK (metric_type IN ('reset', 'checkpoint', 'stripe_billing')),
    flush_interval TEXT NOT NULL DEFAULT '1h' CHECK (flush_interval IN (
        '5s', '15s', '30s', '1m', '5m', '15m', '30m', '1h', '6h', '1d',
        'minutely', 'hourly', 'daily', 'weekly', 'monthly', 'yearly')),
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
        CHECK (created_at GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*' AND datetime(created_at) IS NOT NULL),
    updated_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
        CHECK (updated_at GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*' AND datetime(updated_at) IS NOT NULL),
    UNIQUE (business_id, metric_name, scope)
) STRICT;
CREATE INDEX metrics_page ON metrics (business_id);

-- References: checked here, since foreign keys are off in sqlite3 unless asked for, and only where one is set: what
-- goes with a deleted owner must still be writable.

CREATE TRIGGER customers_business_insert BEFORE INSERT ON customers BEGIN
    SELECT RAISE(ABORT, 'no such business') WHERE NOT EXISTS (SELECT 1 FROM businesses WHERE business_id = NEW.business_id);
END;

CREATE TRIGGER customers_business_update BEFORE UPDATE ON customers
    WHEN NEW.business_id IS NOT OLD.business_id BEGIN
    SELECT RAISE(ABORT, 'no such business') WHERE NOT EXISTS (SELECT 1 FROM businesses WHERE business_id = NEW.business_id);
END;

CREATE TRIGGER business_keys_business_insert BEFORE INSERT ON business_keys BEGIN
    SELECT RAISE(ABORT, 'no such business') WHERE NOT EXISTS (SELECT 1 FROM businesses WHERE business_id = NEW.business_id);
END;

CREATE TRIGGER business_keys_business_update BEFORE UPDATE ON business_keys
    WHEN NEW.business_id IS NOT OLD.business_id BEGIN
    SELECT RAISE(ABORT, 'no such business') WHERE NOT EXISTS (SELECT 1 FROM businesses WHERE business_id = NEW.business_id);
END;

CREATE TRIGGER customer_keys_business_insert BEFORE INSERT ON customer_keys BEGIN
    SELECT RAISE(ABORT, 'no such business') WHERE NOT EXISTS (SELECT 1 FROM businesses WHERE business_id = NEW.business_id);
END;

CREATE TRIGGER customer_keys_business_update BEFORE UPDATE ON customer_keys
    WHEN NEW.business_id IS NOT OLD.business_id BEGIN
    SELECT RAISE(ABORT, 'no such business') WHERE NOT EXISTS (SELECT 1 FROM businesses WHERE business_id = NEW.business_id);
END;

CREATE TRIGGER plans_business_insert BEFORE INSERT ON plans BEGIN
    SELECT RAISE(ABORT, 'no such business') WHERE NOT EXISTS (SELECT 1 FROM businesses WHERE business_id = NEW.business_id);
END;

CREATE TRIGGER plans_business_update BEFORE UPDATE ON plans
    WHEN NEW.business_id IS NOT OLD.business_id BEGIN
    SELECT RAISE(ABORT, 'no such business') WHERE NOT EXISTS (SELECT 1 FROM businesses WHERE business_id = NEW.business_id);
END;

CREATE TRIGGER plan_limits_business_insert BEFORE INSERT ON plan_limits BEGIN
    SELECT RAISE(ABORT, 'no such business') WHERE NOT EXISTS (SELECT 1 FROM businesses WHERE business_id = NEW.business_id);
END;

CREATE TRIGGER plan_limits_business_update BEFORE UPDATE ON plan_limits
    WHEN NEW.business_id IS NOT OLD.business_id BEGIN
    SELECT RAISE(ABORT, 'no such business') WHERE NOT EXISTS (SELECT 1 FROM businesses WHERE business_id = NEW.business_id);
END;

CREATE TRIGGER metrics_business_insert BEFORE INSERT ON metrics BEGIN
    SELECT RAISE(ABORT, 'no such business') WHERE NOT EXISTS (SELECT 1 FROM businesses WHERE business_id = NEW.business_id);
END;

CREATE TRIGGER metrics_business_update BEFORE UPDATE ON metrics
    WHEN NEW.business_id IS NOT OLD.business_id BEGIN
    SELECT RAISE(ABORT, 'no such business') WHERE NOT EXISTS (SELECT 1 FROM businesses WHERE business_id = NEW.business_id);
END;

CREATE TRIGGER customers_plan_insert BEFORE INSERT ON customers
    WHEN NEW.plan_id IS NOT NULL BEGIN
    SELECT RAISE(ABORT, 'no such plan in this business') WHERE NOT EXISTS (
            SELECT 1 FROM plans WHERE business_id = NEW.business_id AND id = NEW.plan_id);
END;

CREATE TRIGGER customers_plan_update BEFORE UPDATE ON customers
    WHEN NEW.plan_id IS NOT NULL AND (NEW.business_id, NEW.plan_id) IS NOT (OLD.business_id, OLD.plan_id) BEGIN
    SELECT RAISE(ABORT, 'no such plan in this business') WHERE NOT EXISTS (
            SELECT 1 FROM plans WHERE business_id = NEW.business_id AND id = NEW.plan_id);
END;

CREATE TRIGGER customer_keys_customer_insert BEFORE INSERT ON customer_keys BEGIN
    SELECT RAISE(ABORT, 'no such customer in this business') WHERE NOT EXISTS (
            SELECT 1 FROM customers WHERE business_id = NEW.business_id AND customer_id = NEW.customer_id);
END;

CREATE TRIGGER customer_keys_customer_update BEFORE UPDATE ON customer_keys
    WHEN (NEW.business_id, NEW.customer_id) IS NOT (OLD.business_id, OLD.customer_id) BEGIN
    SELECT RAISE(ABORT, 'no such customer in this business') WHERE NOT EXISTS (
            SELECT 1 FROM customers WHERE business_id = NEW.business_id AND customer_id = NEW.customer_id);
END;

CREATE TRIGGER plan_limits_plan_insert BEFORE INSERT ON plan_limits
    WHEN NEW.plan_id IS NOT NULL BEGIN
    SELECT RAISE(ABORT, 'no such plan in this business') WHERE NOT EXISTS (
            SELECT 1 FROM plans WHERE business_id = NEW.business_id AND id = NEW.plan_id);
END;

CREATE TRIGGER plan_limits_plan_update BEFORE UPDATE ON plan_limits
    WHEN NEW.plan_id IS NOT NULL AND (NEW.business_id, NEW.plan_id) IS NOT (OLD.business_id, OLD.plan_id) BEGIN
    SELECT RAISE(ABORT, 'no such plan in this business') WHERE NOT EXISTS (
            SELECT 1 FROM plans WHERE business_id = NEW.business_id AND id = NEW.plan_id);
END;

CREATE TRIGGER plan_limits_customer_insert BEFORE INSERT ON plan_limits
    WHEN NEW.customer_id IS NOT NULL BEGIN
    SELECT RAISE(ABORT, 'no such customer in this business') WHERE NOT EXISTS (
            SELECT 1 FROM customers WHERE business_id = NEW.business_id AND customer_id = NEW.customer_id);
END;

CREATE TRIGGER plan_limits_customer_update BEFORE UPDATE ON plan_limits
    WHEN NEW.customer_id IS NOT NULL AND (NEW.business_id, NEW.customer_id) IS NOT (OLD.business_id, OLD.customer_id) BEGIN
    SELECT RAISE(ABORT, 'no such customer in this business') WHERE NOT EXISTS (
            SELECT 1 FROM customers WHERE business_id = NEW.business_id AND customer_id = NEW.customer_id);
END;

CREATE TRIGGER plan_limits_metric_insert BEFORE INSERT ON plan_limits BEGIN
    SELECT RAISE(ABORT, 'limits take SUM and COUNT metrics, realtime ones also LAST') WHERE EXISTS (
            SELECT 1 FROM metrics
            WHERE business_id = NEW.business_id AND metric_name = NEW.metric_name
                AND operation NOT IN ('SUM', 'COUNT')
                AND NOT (operation = 'LAST' AND NEW.limit_period = 'realtime'));
END;

CREATE TRIGGER plan_limits_metric_update BEFORE UPDATE ON plan_limits
    WHEN (NEW.business_id, NEW.metric_name, NEW.limit_period) IS NOT (OLD.business_id, OLD.metric_name, OLD.limit_period) BEGIN
    SELECT RAISE(ABORT, 'limits take SUM and COUNT metrics, realtime ones also LAST') WHERE EXISTS (
            SELECT 1 FROM metrics
            WHERE business_id = NEW.business_id AND metric_name = NEW.metric_name
                AND operation NOT IN ('SUM', 'COUNT')
                AND NOT (operation = 'LAST' AND NEW.limit_period = 'realtime'));
END;

CREATE TRIGGER plan_limits_thresholds_insert BEFORE INSERT ON plan_limits
    WHEN json_valid(NEW.alert_thresholds) BEGIN
    SELECT RAISE(ABORT, 'alert_thresholds are distinct whole numbers from 1 to 1000') WHERE EXISTS (
            SELECT 1 FROM json_each(NEW.alert_thresholds)
            WHERE type <> 'integer' OR value NOT BETWEEN 1 AND 1000)
        OR (SELECT count(*) <> count(DISTINCT value) FROM json_each(NEW.alert_thresholds));
END;

CREATE TRIGGER plan_limits_thresholds_update BEFORE UPDATE ON plan_limits
    WHEN json_valid(NEW.alert_thresholds) BEGIN
    SELECT RAISE(ABORT, 'alert_thresholds are distinct whole numbers from 1 to 1000') WHERE EXISTS (
            SELECT 1 FROM json_each(NEW.alert_thresholds)
            WHERE type <> 'integer' OR value NOT BETWEEN 1 AND 1000)
        OR (SELECT count(*) <> count(DISTINCT value) FROM json_each(NEW.alert_thresholds));
END;

CREATE TRIGGER businesses_default_metric_insert BEFORE INSERT ON businesses
    WHEN NEW.default_metric IS NOT NULL BEGIN
    SELECT RAISE(ABORT, 'no such metric in this business') WHERE NOT EXISTS (SELECT 1 FROM metrics WHERE business_id = NEW.business_id AND metric_name = NEW.default_metric);
END;

CREATE TRIGGER businesses_default_metric_update BEFORE UPDATE ON businesses
    WHEN NEW.default_metric IS NOT NULL AND NEW.default_metric IS NOT OLD.default_metric BEGIN
    SELECT RAISE(ABORT, 'no such metric in this business') WHERE NOT EXISTS (SELECT 1 FROM metrics WHERE business_id = NEW.business_id AND metric_name = NEW.default_metric);
END;

-- `seq` never passes from one row to another: REPLACE would displace a stranger without running its triggers.

CREATE TRIGGER businesses_seq_insert BEFORE INSERT ON businesses BEGIN
    SELECT RAISE(ABORT, 'this seq belongs to another row')
        FROM businesses WHERE seq = NEW.seq AND (business_id) IS NOT (NEW.business_id);
END;
CREATE TRIGGER businesses_seq_update BEFORE UPDATE ON businesses WHEN NEW.seq IS NOT OLD.seq BEGIN
    SELECT RAISE(ABORT, 'seq is fixed');
END;

CREATE TRIGGER customers_seq_insert BEFORE INSERT ON customers BEGIN
    SELECT RAISE(ABORT, 'this seq belongs to another row')
        FROM customers WHERE seq = NEW.seq AND (business_id, customer_id) IS NOT (NEW.business_id, NEW.customer_id);
END;
CREATE TRIGGER customers_seq_update BEFORE UPDATE ON customers WHEN NEW.seq IS NOT OLD.seq BEGIN
    SELECT RAISE(ABORT, 'seq is fixed');
END;

CREATE TRIGGER business_keys_seq_insert BEFORE INSERT ON business_keys BEGIN
    SELECT RAISE(ABORT, 'this seq belongs to another row')
        FROM business_keys WHERE seq = NEW.seq AND (business_id, id) IS NOT (NEW.business_id, NEW.id);
END;
CREATE TRIGGER business_keys_seq_update BEFORE UPDATE ON business_keys WHEN NEW.seq IS NOT OLD.seq BEGIN
    SELECT RAISE(ABORT, 'seq is fixed');
END;

CREATE TRIGGER customer_keys_seq_insert BEFORE INSERT ON customer_keys BEGIN
    SELECT RAISE(ABORT, 'this seq belongs to another row')
        FROM customer_keys WHERE seq = NEW.seq AND (business_id, id) IS NOT (NEW.business_id, NEW.id);
END;
CREATE TRIGGER customer_keys_seq_update BEFORE UPDATE ON customer_keys WHEN NEW.seq IS NOT OLD.seq BEGIN
    SELECT RAISE(ABORT, 'seq is fixed');
END;

CREATE TRIGGER plans_seq_insert BEFORE INSERT ON plans BEGIN
    SELECT RAISE(ABORT, 'this seq belongs to another row')
        FROM plans WHERE seq = NEW.seq AND (business_id, id) IS NOT (NEW.business_id, NEW.id);
END;
CREATE TRIGGER plans_seq_update BEFORE UPDATE ON plans WHEN NEW.seq IS NOT OLD.seq BEGIN
    SELECT RAISE(ABORT, 'seq is fixed');
END;

CREATE TRIGGER plan_limits_seq_insert BEFORE INSERT ON plan_limits BEGIN
    SELECT RAISE(ABORT, 'this seq belongs to another row')
        FROM plan_limits WHERE seq = NEW.seq AND (business_id, id) IS NOT (NEW.business_id, NEW.id);
END;
CREATE TRIGGER plan_limits_seq_update BEFORE UPDATE ON plan_limits WHEN NEW.seq IS NOT OLD.seq BEGIN
    SELECT RAISE(ABORT, 'seq is fixed');
END;

CREATE TRIGGER metrics_seq_insert BEFORE INSERT ON metrics BEGIN
    SELECT RAISE(ABORT, 'this seq belongs to another row')
        FROM metrics WHERE seq = NEW.seq AND (business_id, metric_name, scope) IS NOT (NEW.business_id, NEW.metric_name, NEW.scope);
END;
CREATE TRIGGER metrics_seq_update BEFORE UPDATE ON metrics WHEN NEW.seq IS NOT OLD.seq BEGIN
    SELECT RAISE(ABORT, 'seq is fixed');
END;

-- Changes move the version of the business: of both, where a row moves from one to another.

CREATE TRIGGER businesses_changed_insert AFTER INSERT ON businesses BEGIN
    INSERT INTO config_touch (business_id, customer_id, table_name, row_id, columns)
        SELECT NEW.business_id, NULL, 'businesses', NEW.business_id, json_patch('{}', json_object(
            'business_id', json(CASE WHEN NEW.business_id IS NOT NULL THEN json_array(NULL, NEW.business_id) END),
            'business_name', json(CASE WHEN NEW.business_name IS NOT NULL THEN json_array(NULL, NEW.business_name) END),
            'email', json(CASE WHEN NEW.email IS NOT NULL THEN json_array(NULL, NEW.email) END),
            'user_id', json(CASE WHEN NEW.user_id IS NOT NULL THEN json_array(NULL, NEW.user_id) END),
            'timezone', json(CASE WHEN NEW.timezone IS NOT NULL THEN json_array(NULL, NEW.timezone) END),
            'default_metric', json(CASE WHEN NEW.default_metric IS NOT NULL THEN json_array(NULL, NEW.default_metric) END),
            'enforcement', json(CASE WHEN NEW.enforcement IS NOT NULL THEN json_array(NULL, NEW.enforcement) END),
            'target_policy', json(CASE WHEN NEW.target_policy IS NOT NULL THEN json_array(NULL, NEW.target_policy) END),
            'deleted_at', json(CASE WHEN NEW.deleted_at IS NOT NULL THEN json_array(NULL, NEW.deleted_at) END)));
END;

CREATE TRIGGER businesses_changed_update AFTER UPDATE OF
    business_id, business_name, email, user_id, timezone, default_metric, enforcement, target_policy,
    deleted_at
ON businesses BEGIN
    INSERT INTO config_touch (business_id, customer_id, table_name, row_id, columns)
        SELECT NEW.business_id, NULL, 'businesses', NEW.business_id, json_patch('{}', json_object(
            'business_id', json(CASE WHEN OLD.business_id IS NOT NEW.business_id THEN json_array(OLD.business_id, NEW.business_id) END),
            'business_name', json(CASE WHEN OLD.business_name IS NOT NEW.business_name THEN json_array(OLD.business_name, NEW.business_name) END),
            'email', json(CASE WHEN OLD.email IS NOT NEW.email THEN json_array(OLD.email, NEW.email) END),
            'user_id', json(CASE WHEN OLD.user_id IS NOT NEW.user_id THEN json_array(OLD.user_id, NEW.user_id) END),
            'timezone', json(CASE WHEN OLD.timezone IS NOT NEW.timezone THEN json_array(OLD.timezone, NEW.timezone) END),
            'default_metric', json(CASE WHEN OLD.default_metric IS NOT NEW.default_metric THEN json_array(OLD.default_metric, NEW.default_metric) END),
            'enforcement', json(CASE WHEN OLD.enforcement IS NOT NEW.enforcement THEN json_array(OLD.enforcement, NEW.enforcement) END),
            'target_policy', json(CASE WHEN OLD.target_policy IS NOT NEW.target_policy THEN json_array(OLD.target_policy, NEW.target_policy) END),
            'deleted_at', json(CASE WHEN OLD.deleted_at IS NOT NEW.deleted_at THEN json_array(OLD.deleted_at, NEW.deleted_at) END)));
    INSERT INTO config_touch (business_id, customer_id, table_name, row_id, columns)
        SELECT OLD.business_id, NULL, 'businesses', OLD.business_id, '{}'
        WHERE OLD.business_id IS NOT NEW.business_id;
END;

CREATE TRIGGER businesses_changed_delete AFTER DELETE ON businesses BEGIN
    INSERT INTO config_touch (business_id, customer_id, table_name, row_id, columns)
        SELECT OLD.business_id, NULL, 'businesses', OLD.business_id, json_patch('{}', json_object(
            'business_id', json(CASE WHEN OLD.business_id IS NOT NULL THEN json_array(OLD.business_id, NULL) END),
            'business_name', json(CASE WHEN OLD.business_name IS NOT NULL THEN json_array(OLD.business_name, NULL) END),
            'email', json(CASE WHEN OLD.email IS NOT NULL THEN json_array(OLD.email, NULL) END),
            'user_id', json(CASE WHEN OLD.user_id IS NOT NULL THEN json_array(OLD.user_id, NULL) END),
            'timezone', json(CASE WHEN OLD.timezone IS NOT NULL THEN json_array(OLD.timezone, NULL) END),
            'default_metric', json(CASE WHEN OLD.default_metric IS NOT NULL THEN json_array(OLD.default_metric, NULL) END),
            'enforcement', json(CASE WHEN OLD.enforcement IS NOT NULL THEN json_array(OLD.enforcement, NULL) END),
            'target_policy', json(CASE WHEN OLD.target_policy IS NOT NULL THEN json_array(OLD.target_policy, NULL) END),
            'deleted_at', json(CASE WHEN OLD.deleted_at IS NOT NULL THEN json_array(OLD.deleted_at, NULL) END)));
END;

CREATE TRIGGER customers_changed_insert AFTER INSERT ON customers BEGIN
    INSERT INTO config_touch (business_id, customer_id, table_name, row_id, columns)
        SELECT NEW.business_id, NEW.customer_id, 'customers', NEW.customer_id, json_patch('{}', json_object(
            'business_id', json(CASE WHEN NEW.business_id IS NOT NULL THEN json_array(NULL, NEW.business_id) END),
            'customer_id', json(CASE WHEN NEW.customer_id IS NOT NULL THEN json_array(NULL, NEW.customer_id) END),
            'customer_name', json(CASE WHEN NEW.customer_name IS NOT NULL THEN json_array(NULL, NEW.customer_name) END),
            'email', json(CASE WHEN NEW.email IS NOT NULL THEN json_array(NULL, NEW.email) END),
            'description', json(CASE WHEN NEW.description IS NOT NULL THEN json_array(NULL, NEW.description) END),
            'plan_id', json(CASE WHEN NEW.plan_id IS NOT NULL THEN json_array(NULL, NEW.plan_id) END),
            'stripe_customer_id', json(CASE WHEN NEW.stripe_customer_id IS NOT NULL THEN json_array(NULL, NEW.stripe_customer_id) END),
            'stripe_subscription_id', json(CASE WHEN NEW.stripe_subscription_id IS NOT NULL THEN json_array(NULL, NEW.stripe_subscription_id) END),
            'stripe_price_id', json(CASE WHEN NEW.stripe_price_id IS NOT NULL THEN json_array(NULL, NEW.stripe_price_id) END),
            'subscription_ends_at', json(CASE WHEN NEW.subscription_ends_at IS NOT NULL THEN json_array(NULL, NEW.subscription_ends_at) END),
            'billing_anchor_day', json(CASE WHEN NEW.billing_anchor_day IS NOT NULL THEN json_array(NULL, NEW.billing_anchor_day) END),
            'metadata', json(CASE WHEN NEW.metadata IS NOT NULL THEN json_array(NULL, NEW.metadata) END),
            'deleted_at', json(CASE WHEN NEW.deleted_at IS NOT NULL THEN json_array(NULL, NEW.deleted_at) END)));
END;

CREATE TRIGGER customers_changed_update AFTER UPDATE OF
    business_id, customer_id, customer_name, email, description, plan_id, stripe_customer_id,
    stripe_subscription_id, stripe_price_id, subscription_ends_at, billing_anchor_day, metadata, deleted_at
ON customers BEGIN
    INSERT INTO config_touch (business_id, customer_id, table_name, row_id, columns)
        SELECT NEW.business_id, NEW.customer_id, 'customers', NEW.customer_id, json_patch('{}', json_object(
            'business_id', json(CASE WHEN OLD.business_id IS NOT NEW.business_id THEN json_array(OLD.business_id, NEW.business_id) END),
            'customer_id', json(CASE WHEN OLD.customer_id IS NOT NEW.customer_id THEN json_array(OLD.customer_id, NEW.customer_id) END),
            'customer_name', json(CASE WHEN OLD.customer_name IS NOT NEW.customer_name THEN json_array(OLD.customer_name, NEW.customer_name) END),
            'email', json(CASE WHEN OLD.email IS NOT NEW.email THEN json_array(OLD.email, NEW.email) END),
            'description', json(CASE WHEN OLD.description IS NOT NEW.description THEN json_array(OLD.description, NEW.description) END),
            'plan_id', json(CASE WHEN OLD.plan_id IS NOT NEW.plan_id THEN json_array(OLD.plan_id, NEW.plan_id) END),
            'stripe_customer_id', json(CASE WHEN OLD.stripe_customer_id IS NOT NEW.stripe_customer_id THEN json_array(OLD.stripe_customer_id, NEW.stripe_customer_id) END),
            'stripe_subscription_id', json(CASE WHEN OLD.stripe_subscription_id IS NOT NEW.stripe_subscription_id THEN json_array(OLD.stripe_subscription_id, NEW.stripe_subscription_id) END),
            'stripe_price_id', json(CASE WHEN OLD.stripe_price_id IS NOT NEW.stripe_price_id THEN json_array(OLD.stripe_price_id, NEW.stripe_price_id) END),
            'subscription_ends_at', json(CASE WHEN OLD.subscription_ends_at IS NOT NEW.subscription_ends_at THEN json_array(OLD.subscription_ends_at, NEW.subscription_ends_at) END),
            'billing_anchor_day', json(CASE WHEN OLD.billing_anchor_day IS NOT NEW.billing_anchor_day THEN json_array(OLD.billing_anchor_day, NEW.billing_anchor_day) END),
            'metadata', json(CASE WHEN OLD.metadata IS NOT NEW.metadata THEN json_array(OLD.metadata, NEW.metadata) END),
            'deleted_at', json(CASE WHEN OLD.deleted_at IS NOT NEW.deleted_at THEN json_array(OLD.deleted_at, NEW.deleted_at) END)));
    INSERT INTO config_touch (business_id, customer_id, table_name, row_id, columns)
        SELECT OLD.business_id, OLD.customer_id, 'customers', OLD.customer_id, '{}'
        WHERE OLD.business_id IS NOT NEW.business_id OR OLD.customer_id IS NOT NEW.customer_id;
END;

CREATE TRIGGER customers_changed_delete AFTER DELETE ON customers BEGIN
    INSERT INTO config_touch (business_id, customer_id, table_name, row_id, columns)
        SELECT OLD.business_id, OLD.customer_id, 'customers', OLD.customer_id, json_patch('{}', json_object(
            'business_id', json(CASE WHEN OLD.business_id IS NOT NULL THEN json_array(OLD.business_id, NULL) END),
            'customer_id', json(CASE WHEN OLD.customer_id IS NOT NULL THEN json_array(OLD.customer_id, NULL) END),
            'customer_name', json(CASE WHEN OLD.customer_name IS NOT NULL THEN json_array(OLD.customer_name, NULL) END),
            'email', json(CASE WHEN OLD.email IS NOT NULL THEN json_array(OLD.email, NULL) END),
            'description', json(CASE WHEN OLD.description IS NOT NULL THEN json_array(OLD.description, NULL) END),
            'plan_id', json(CASE WHEN OLD.plan_id IS NOT NULL THEN json_array(OLD.plan_id, NULL) END),
            'stripe_customer_id', json(CASE WHEN OLD.stripe_customer_id IS NOT NULL THEN json_array(OLD.stripe_customer_id, NULL) END),
            'stripe_subscription_id', json(CASE WHEN OLD.stripe_subscription_id IS NOT NULL THEN json_array(OLD.stripe_subscription_id, NULL) END),
            'stripe_price_id', json(CASE WHEN OLD.stripe_price_id IS NOT NULL THEN json_array(OLD.stripe_price_id, NULL) END),
            'subscription_ends_at', json(CASE WHEN OLD.subscription_ends_at IS NOT NULL THEN json_array(OLD.subscription_ends_at, NULL) END),
            'billing_anchor_day', json(CASE WHEN OLD.billing_anchor_day IS NOT NULL THEN json_array(OLD.billing_anchor_day, NULL) END),
            'metadata', json(CASE WHEN OLD.metadata IS NOT NULL THEN json_array(OLD.metadata, NULL) END),
            'deleted_at', json(CASE WHEN OLD.deleted_at IS NOT NULL THEN json_array(OLD.deleted_at, NULL) END)));
END;

CREATE TRIGGER business_keys_changed_insert AFTER INSERT ON business_keys BEGIN
    INSERT INTO config_touch (business_id, customer_id, table_name, row_id, columns)
        SELECT NEW.business_id, NULL, 'business_keys', NEW.id, json_patch('{}', json_object(
            'id', json(CASE WHEN NEW.id IS NOT NULL THEN json_array(NULL, NEW.id) END),
            'business_id', json(CASE WHEN NEW.business_id IS NOT NULL THEN json_array(NULL, NEW.business_id) END),
            'key_name', json(CASE WHEN NEW.key_name IS NOT NULL THEN json_array(NULL, NEW.key_name) END),
            'description', json(CASE WHEN NEW.description IS NOT NULL THEN json_array(NULL, NEW.description) END),
            'hint', json(CASE WHEN NEW.hint IS NOT NULL THEN json_array(NULL, NEW.hint) END),
            'slot', json(CASE WHEN NEW.slot IS NOT NULL THEN json_array(NULL, NEW.slot) END),
            'expires_at', json(CASE WHEN NEW.expires_at IS NOT NULL THEN json_array(NULL, NEW.expires_at) END),
            'revoked_at', json(CASE WHEN NEW.revoked_at IS NOT NULL THEN json_array(NULL, NEW.revoked_at) END)));
END;

CREATE TRIGGER business_keys_changed_update AFTER UPDATE OF
    id, business_id, key_name, description, hint, slot, expires_at, revoked_at, key_hash, hash_alg, row_mac
ON business_keys BEGIN
    INSERT INTO config_touch (business_id, customer_id, table_name, row_id, columns)
        SELECT NEW.business_id, NULL, 'business_keys', NEW.id, json_patch('{}', json_object(
            'id', json(CASE WHEN OLD.id IS NOT NEW.id THEN json_array(OLD.id, NEW.id) END),
            'business_id', json(CASE WHEN OLD.business_id IS NOT NEW.business_id THEN json_array(OLD.business_id, NEW.business_id) END),
            'key_name', json(CASE WHEN OLD.key_name IS NOT NEW.key_name THEN json_array(OLD.key_name, NEW.key_name) END),
            'description', json(CASE WHEN OLD.description IS NOT NEW.description THEN json_array(OLD.description, NEW.description) END),
            'hint', json(CASE WHEN OLD.hint IS NOT NEW.hint THEN json_array(OLD.hint, NEW.hint) END),
            'slot', json(CASE WHEN OLD.slot IS NOT NEW.slot THEN json_array(OLD.slot, NEW.slot) END),
            'expires_at', json(CASE WHEN OLD.expires_at IS NOT NEW.expires_at THEN json_array(OLD.expires_at, NEW.expires_at) END),
            'revoked_at', json(CASE WHEN OLD.revoked_at IS NOT NEW.revoked_at THEN json_array(OLD.revoked_at, NEW.revoked_at) END)));
    INSERT INTO config_touch (business_id, customer_id, table_name, row_id, columns)
        SELECT OLD.business_id, NULL, 'business_keys', OLD.id, '{}'
        WHERE OLD.business_id IS NOT NEW.business_id;
END;

CREATE TRIGGER business_keys_changed_delete AFTER DELETE ON business_keys BEGIN
    INSERT INTO config_touch (business_id, customer_id, table_name, row_id, columns)
        SELECT OLD.business_id, NULL, 'business_keys', OLD.id, json_patch('{}', json_object(
            'id', json(CASE WHEN OLD.id IS NOT NULL THEN json_array(OLD.id, NULL) END),
            'business_id', json(CASE WHEN OLD.business_id IS NOT NULL THEN json_array(OLD.business_id, NULL) END),
            'key_name', json(CASE WHEN OLD.key_name IS NOT NULL THEN json_array(OLD.key_name, NULL) END),
            'description', json(CASE WHEN OLD.description IS NOT NULL THEN json_array(OLD.description, NULL) END),
            'hint', json(CASE WHEN OLD.hint IS NOT NULL THEN json_array(OLD.hint, NULL) END),
            'slot', json(CASE WHEN OLD.slot IS NOT NULL THEN json_array(OLD.slot, NULL) END),
            'expires_at', json(CASE WHEN OLD.expires_at IS NOT NULL THEN json_array(OLD.expires_at, NULL) END),
            'revoked_at', json(CASE WHEN OLD.revoked_at IS NOT NULL THEN json_array(OLD.revoked_at, NULL) END)));
END;

CREATE TRIGGER customer_keys_changed_insert AFTER INSERT ON customer_keys BEGIN
    INSERT INTO config_touch (business_id, customer_id, table_name, row_id, columns)
        SELECT NEW.business_id, NEW.customer_id, 'customer_keys', NEW.id, json_patch('{}', json_object(
            'id', json(CASE WHEN NEW.id IS NOT NULL THEN json_array(NULL, NEW.id) END),
            'business_id', json(CASE WHEN NEW.business_id IS NOT NULL THEN json_array(NULL, NEW.business_id) END),
            'customer_id', json(CASE WHEN NEW.customer_id IS NOT NULL THEN json_array(NULL, NEW.customer_id) END),
            'key_name', json(CASE WHEN NEW.key_name IS NOT NULL THEN json_array(NULL, NEW.key_name) END),
            'description', json(CASE WHEN NEW.description IS NOT NULL THEN json_array(NULL, NEW.description) END),
            'hint', json(CASE WHEN NEW.hint IS NOT NULL THEN json_array(NULL, NEW.hint) END),
            'slot', json(CASE WHEN NEW.slot IS NOT NULL THEN json_array(NULL, NEW.slot) END),
            'expires_at', json(CASE WHEN NEW.expires_at IS NOT NULL THEN json_array(NULL, NEW.expires_at) END),
            'revoked_at', json(CASE WHEN NEW.revoked_at IS NOT NULL THEN json_array(NULL, NEW.revoked_at) END)));
END;

CREATE TRIGGER customer_keys_changed_update AFTER UPDATE OF
    id, business_id, customer_id, key_name, description, hint, slot, expires_at, revoked_at, key_hash,
    hash_alg, row_mac
ON customer_keys BEGIN
    INSERT INTO config_touch (business_id, customer_id, table_name, row_id, columns)
        SELECT NEW.business_id, NEW.customer_id, 'customer_keys', NEW.id, json_patch('{}', json_object(
            'id', json(CASE WHEN OLD.id IS NOT NEW.id THEN json_array(OLD.id, NEW.id) END),
            'business_id', json(CASE WHEN OLD.business_id IS NOT NEW.business_id THEN json_array(OLD.business_id, NEW.business_id) END),
            'customer_id', json(CASE WHEN OLD.customer_id IS NOT NEW.customer_id THEN json_array(OLD.customer_id, NEW.customer_id) END),
            'key_name', json(CASE WHEN OLD.key_name IS NOT NEW.key_name THEN json_array(OLD.key_name, NEW.key_name) END),
            'description', json(CASE WHEN OLD.description IS NOT NEW.description THEN json_array(OLD.description, NEW.description) END),
            'hint', json(CASE WHEN OLD.hint IS NOT NEW.hint THEN json_array(OLD.hint, NEW.hint) END),
            'slot', json(CASE WHEN OLD.slot IS NOT NEW.slot THEN json_array(OLD.slot, NEW.slot) END),
            'expires_at', json(CASE WHEN OLD.expires_at IS NOT NEW.expires_at THEN json_array(OLD.expires_at, NEW.expires_at) END),
            'revoked_at', json(CASE WHEN OLD.revoked_at IS NOT NEW.revoked_at THEN json_array(OLD.revoked_at, NEW.revoked_at) END)));
    INSERT INTO config_touch (business_id, customer_id, table_name, row_id, columns)
        SELECT OLD.business_id, OLD.customer_id, 'customer_keys', OLD.id, '{}'
        WHERE OLD.business_id IS NOT NEW.business_id OR OLD.customer_id IS NOT NEW.customer_id;
END;

CREATE TRIGGER customer_keys_changed_delete AFTER DELETE ON customer_keys BEGIN
    INSERT INTO config_touch (business_id, customer_id, table_name, row_id, columns)
        SELECT OLD.business_id, OLD.customer_id, 'customer_keys', OLD.id, json_patch('{}', json_object(
            'id', json(CASE WHEN OLD.id IS NOT NULL THEN json_array(OLD.id, NULL) END),
            'business_id', json(CASE WHEN OLD.business_id IS NOT NULL THEN json_array(OLD.business_id, NULL) END),
            'customer_id', json(CASE WHEN OLD.customer_id IS NOT NULL THEN json_array(OLD.customer_id, NULL) END),
            'key_name', json(CASE WHEN OLD.key_name IS NOT NULL THEN json_array(OLD.key_name, NULL) END),
            'description', json(CASE WHEN OLD.description IS NOT NULL THEN json_array(OLD.description, NULL) END),
            'hint', json(CASE WHEN OLD.hint IS NOT NULL THEN json_array(OLD.hint, NULL) END),
            'slot', json(CASE WHEN OLD.slot IS NOT NULL THEN json_array(OLD.slot, NULL) END),
            'expires_at', json(CASE WHEN OLD.expires_at IS NOT NULL THEN json_array(OLD.expires_at, NULL) END),
            'revoked_at', json(CASE WHEN OLD.revoked_at IS NOT NULL THEN json_array(OLD.revoked_at, NULL) END)));
END;

CREATE TRIGGER plans_changed_insert AFTER INSERT ON plans BEGIN
    INSERT INTO config_touch (business_id, customer_id, table_name, row_id, columns)
        SELECT NEW.business_id, NULL, 'plans', NEW.id, json_patch('{}', json_object(
            'id', json(CASE WHEN NEW.id IS NOT NULL THEN json_array(NULL, NEW.id) END),
            'business_id', json(CASE WHEN NEW.business_id IS NOT NULL THEN json_array(NULL, NEW.business_id) END),
            'plan_name', json(CASE WHEN NEW.plan_name IS NOT NULL THEN json_array(NULL, NEW.plan_name) END),
            'stripe_price_id', json(CASE WHEN NEW.stripe_price_id IS NOT NULL THEN json_array(NULL, NEW.stripe_price_id) END),
            'is_free', json(CASE WHEN NEW.is_free IS NOT NULL THEN json_array(NULL, NEW.is_free) END)));
END;

CREATE TRIGGER plans_changed_update AFTER UPDATE OF
    id, business_id, plan_name, stripe_price_id, is_free
ON plans BEGIN
    INSERT INTO config_touch (business_id, customer_id, table_name, row_id, columns)
        SELECT NEW.business_id, NULL, 'plans', NEW.id, json_patch('{}', json_object(
            'id', json(CASE WHEN OLD.id IS NOT NEW.id THEN json_array(OLD.id, NEW.id) END),
            'business_id', json(CASE WHEN OLD.business_id IS NOT NEW.business_id THEN json_array(OLD.business_id, NEW.business_id) END),
            'plan_name', json(CASE WHEN OLD.plan_name IS NOT NEW.plan_name THEN json_array(OLD.plan_name, NEW.plan_name) END),
            'stripe_price_id', json(CASE WHEN OLD.stripe_price_id IS NOT NEW.stripe_price_id THEN json_array(OLD.stripe_price_id, NEW.stripe_price_id) END),
            'is_free', json(CASE WHEN OLD.is_free IS NOT NEW.is_free THEN json_array(OLD.is_free, NEW.is_free) END)));
    INSERT INTO config_touch (business_id, customer_id, table_name, row_id, columns)
        SELECT OLD.business_id, NULL, 'plans', OLD.id, '{}'
        WHERE OLD.business_id IS NOT NEW.business_id;
END;

CREATE TRIGGER plans_changed_delete AFTER DELETE ON plans BEGIN
    INSERT INTO config_touch (business_id, customer_id, table_name, row_id, columns)
        SELECT OLD.business_id, NULL, 'plans', OLD.id, json_patch('{}', json_object(
            'id', json(CASE WHEN OLD.id IS NOT NULL THEN json_array(OLD.id, NULL) END),
            'business_id', json(CASE WHEN OLD.business_id IS NOT NULL THEN json_array(OLD.business_id, NULL) END),
            'plan_name', json(CASE WHEN OLD.plan_name IS NOT NULL THEN json_array(OLD.plan_name, NULL) END),
            'stripe_price_id', json(CASE WHEN OLD.stripe_price_id IS NOT NULL THEN json_array(OLD.stripe_price_id, NULL) END),
            'is_free', json(CASE WHEN OLD.is_free IS NOT NULL THEN json_array(OLD.is_free, NULL) END)));
END;

CREATE TRIGGER plan_limits_changed_insert AFTER INSERT ON plan_limits BEGIN
    INSERT INTO config_touch (business_id, customer_id, table_name, row_id, columns)
        SELECT NEW.business_id, NEW.customer_id, 'plan_limits', NEW.id, json_patch('{}', json_object(
            'id', json(CASE WHEN NEW.id IS NOT NULL THEN json_array(NULL, NEW.id) END),
            'business_id', json(CASE WHEN NEW.business_id IS NOT NULL THEN json_array(NULL, NEW.business_id) END),
            'metric_name', json(CASE WHEN NEW.metric_name IS NOT NULL THEN json_array(NULL, NEW.metric_name) END),
            'limit_value', json(CASE WHEN NEW.limit_value IS NOT NULL THEN json_array(NULL, NEW.limit_value) END),
            'limit_period', json(CASE WHEN NEW.limit_period IS NOT NULL THEN json_array(NULL, NEW.limit_period) END),
            'breach_operator', json(CASE WHEN NEW.breach_operator IS NOT NULL THEN json_array(NULL, NEW.breach_operator) END),
            'breach_action', json(CASE WHEN NEW.breach_action IS NOT NULL THEN json_array(NULL, NEW.breach_action) END),
            'plan_id', json(CASE WHEN NEW.plan_id IS NOT NULL THEN json_array(NULL, NEW.plan_id) END),
            'customer_id', json(CASE WHEN NEW.customer_id IS NOT NULL THEN json_array(NULL, NEW.customer_id) END),
            'alert_thresholds', json(CASE WHEN NEW.alert_thresholds IS NOT NULL THEN json_array(NULL, NEW.alert_thresholds) END),
            'webhook_urls', json(CASE WHEN NEW.webhook_urls IS NOT NULL THEN json_array(NULL, NEW.webhook_urls) END),
            'overage_meter', json(CASE WHEN NEW.overage_meter IS NOT NULL THEN json_array(NULL, NEW.overage_meter) END)));
END;

CREATE TRIGGER plan_limits_changed_update AFTER UPDATE OF
    id, business_id, metric_name, limit_value, limit_period, breach_operator, breach_action, plan_id,
    customer_id, alert_thresholds, webhook_urls, overage_meter
ON plan_limits BEGIN
    INSERT INTO config_touch (business_id, customer_id, table_name, row_id, columns)
        SELECT NEW.business_id, NEW.customer_id, 'plan_limits', NEW.id, json_patch('{}', json_object(
            'id', json(CASE WHEN OLD.id IS NOT NEW.id THEN json_array(OLD.id, NEW.id) END),
            'business_id', json(CASE WHEN OLD.business_id IS NOT NEW.business_id THEN json_array(OLD.business_id, NEW.business_id) END),
            'metric_name', json(CASE WHEN OLD.metric_name IS NOT NEW.metric_name THEN json_array(OLD.metric_name, NEW.metric_name) END),
            'limit_value', json(CASE WHEN OLD.limit_value IS NOT NEW.limit_value THEN json_array(OLD.limit_value, NEW.limit_value) END),
            'limit_period', json(CASE WHEN OLD.limit_period IS NOT NEW.limit_period THEN json_array(OLD.limit_period, NEW.limit_period) END),
            'breach_operator', json(CASE WHEN OLD.breach_operator IS NOT NEW.breach_operator THEN json_array(OLD.breach_operator, NEW.breach_operator) END),
            'breach_action', json(CASE WHEN OLD.breach_action IS NOT NEW.breach_action THEN json_array(OLD.breach_action, NEW.breach_action) END),
            'plan_id', json(CASE WHEN OLD.plan_id IS NOT NEW.plan_id THEN json_array(OLD.plan_id, NEW.plan_id) END),
            'customer_id', json(CASE WHEN OLD.customer_id IS NOT NEW.customer_id THEN json_array(OLD.customer_id, NEW.customer_id) END),
            'alert_thresholds', json(CASE WHEN OLD.alert_thresholds IS NOT NEW.alert_thresholds THEN json_array(OLD.alert_thresholds, NEW.alert_thresholds) END),
            'webhook_urls', json(CASE WHEN OLD.webhook_urls IS NOT NEW.webhook_urls THEN json_array(OLD.webhook_urls, NEW.webhook_urls) END),
            'overage_meter', json(CASE WHEN OLD.overage_meter IS NOT NEW.overage_meter THEN json_array(OLD.overage_meter, NEW.overage_meter) END)));
    INSERT INTO config_touch (business_id, customer_id, table_name, row_id, columns)
        SELECT OLD.business_id, OLD.customer_id, 'plan_limits', OLD.id, '{}'
        WHERE OLD.business_id IS NOT NEW.business_id OR OLD.customer_id IS NOT NEW.customer_id;
END;

CREATE TRIGGER plan_limits_changed_delete AFTER DELETE ON plan_limits BEGIN
    INSERT INTO config_touch (business_id, customer_id, table_name, row_id, columns)
        SELECT OLD.business_id, OLD.customer_id, 'plan_limits', OLD.id, json_patch('{}', json_object(
            'id', json(CASE WHEN OLD.id IS NOT NULL THEN json_array(OLD.id, NULL) END),
            'business_id', json(CASE WHEN OLD.business_id IS NOT NULL THEN json_array(OLD.business_id, NULL) END),
            'metric_name', json(CASE WHEN OLD.metric_name IS NOT NULL THEN json_array(OLD.metric_name, NULL) END),
            'limit_value', json(CASE WHEN OLD.limit_value IS NOT NULL THEN json_array(OLD.limit_value, NULL) END),
            'limit_period', json(CASE WHEN OLD.limit_period IS NOT NULL THEN json_array(OLD.limit_period, NULL) END),
            'breach_operator', json(CASE WHEN OLD.breach_operator IS NOT NULL THEN json_array(OLD.breach_operator, NULL) END),
            'breach_action', json(CASE WHEN OLD.breach_action IS NOT NULL THEN json_array(OLD.breach_action, NULL) END),
            'plan_id', json(CASE WHEN OLD.plan_id IS NOT NULL THEN json_array(OLD.plan_id, NULL) END),
            'customer_id', json(CASE WHEN OLD.customer_id IS NOT NULL THEN json_array(OLD.customer_id, NULL) END),
            'alert_thresholds', json(CASE WHEN OLD.alert_thresholds IS NOT NULL THEN json_array(OLD.alert_thresholds, NULL) END),
            'webhook_urls', json(CASE WHEN OLD.webhook_urls IS NOT NULL THEN json_array(OLD.webhook_urls, NULL) END),
            'overage_meter', json(CASE WHEN OLD.overage_meter IS NOT NULL THEN json_array(OLD.overage_meter, NULL) END)));
END;

CREATE TRIGGER metrics_changed_insert AFTER INSERT ON metrics BEGIN
    INSERT INTO config_touch (business_id, customer_id, table_name, row_id, columns)
        SELECT NEW.business_id, NULL, 'metrics', NEW.metric_name, json_patch('{}', json_object(
            'business_id', json(CASE WHEN NEW.business_id IS NOT NULL THEN json_array(NULL, NEW.business_id) END),
            'metric_name', json(CASE WHEN NEW.metric_name IS NOT NULL THEN json_array(NULL, NEW.metric_name) END),
            'scope', json(CASE WHEN NEW.scope IS NOT NULL THEN json_array(NULL, NEW.scope) END),
            'operation', json(CASE WHEN NEW.operation IS NOT NULL THEN json_array(NULL, NEW.operation) END),
            'metric_type', json(CASE WHEN NEW.metric_type IS NOT NULL THEN json_array(NULL, NEW.metric_type) END),
            'flush_interval', json(CASE WHEN NEW.flush_interval IS NOT NULL THEN json_array(NULL, NEW.flush_interval) END)));
END;

CREATE TRIGGER metrics_changed_update AFTER UPDATE OF
    business_id, metric_name, scope, operation, metric_type, flush_interval
ON metrics BEGIN
    INSERT INTO config_touch (business_id, customer_id, table_name, row_id, columns)
        SELECT NEW.business_id, NULL, 'metrics', NEW.metric_name, json_patch('{}', json_object(
            'business_id', json(CASE WHEN OLD.business_id IS NOT NEW.business_id THEN json_array(OLD.business_id, NEW.business_id) END),
            'metric_name', json(CASE WHEN OLD.metric_name IS NOT NEW.metric_name THEN json_array(OLD.metric_name, NEW.metric_name) END),
            'scope', json(CASE WHEN OLD.scope IS NOT NEW.scope THEN json_array(OLD.scope, NEW.scope) END),
            'operation', json(CASE WHEN OLD.operation IS NOT NEW.operation THEN json_array(OLD.operation, NEW.operation) END),
            'metric_type', json(CASE WHEN OLD.metric_type IS NOT NEW.metric_type THEN json_array(OLD.metric_type, NEW.metric_type) END),
            'flush_interval', json(CASE WHEN OLD.flush_interval IS NOT NEW.flush_interval THEN json_array(OLD.flush_interval, NEW.flush_interval) END)));
    INSERT INTO config_touch (business_id, customer_id, table_name, row_id, columns)
        SELECT OLD.business_id, NULL, 'metrics', OLD.metric_name, '{}'
        WHERE OLD.business_id IS NOT NEW.business_id;
END;

CREATE TRIGGER metrics_changed_delete AFTER DELETE ON metrics BEGIN
    INSERT INTO config_touch (business_id, customer_id, table_name, row_id, columns)
        SELECT OLD.business_id, NULL, 'metrics', OLD.metric_name, json_patch('{}', json_object(
            'business_id', json(CASE WHEN OLD.business_id IS NOT NULL THEN json_array(OLD.business_id, NULL) END),
            'metric_name', json(CASE WHEN OLD.metric_name IS NOT NULL THEN json_array(OLD.metric_name, NULL) END),
            'scope', json(CASE WHEN OLD.scope IS NOT NULL THEN json_array(OLD.scope, NULL) END),
            'operation', json(CASE WHEN OLD.operation IS NOT NULL THEN json_array(OLD.operation, NULL) END),
            'metric_type', json(CASE WHEN OLD.metric_type IS NOT NULL THEN json_array(OLD.metric_type, NULL) END),
            'flush_interval', json(CASE WHEN OLD.flush_interval IS NOT NULL THEN json_array(OLD.flush_interval, NULL) END)));
END;

-- A row that REPLACE is about to displace concerns others than the new one does: note it too.

CREATE TRIGGER business_keys_displaced_insert BEFORE INSERT ON business_keys BEGIN
    INSERT INTO config_touch (business_id, customer_id, table_name, row_id, columns)
        SELECT business_id, NULL, 'business_keys', id, '{}' FROM business_keys
        WHERE key_hash = NEW.key_hash AND business_id <> NEW.business_id;
END;

CREATE TRIGGER business_keys_displaced_update BEFORE UPDATE ON business_keys BEGIN
    INSERT INTO config_touch (business_id, customer_id, table_name, row_id, columns)
        SELECT business_id, NULL, 'business_keys', id, '{}' FROM business_keys
        WHERE key_hash = NEW.key_hash AND business_id <> NEW.business_id AND seq IS NOT OLD.seq;
END;

CREATE TRIGGER customer_keys_displaced_insert BEFORE INSERT ON customer_keys BEGIN
    INSERT INTO config_touch (business_id, customer_id, table_name, row_id, columns)
        SELECT business_id, customer_id, 'customer_keys', id, '{}' FROM customer_keys
        WHERE (key_hash = NEW.key_hash OR (business_id = NEW.business_id AND id = NEW.id))
            AND (business_id, customer_id) IS NOT (NEW.business_id, NEW.customer_id);
END;

CREATE TRIGGER customer_keys_displaced_update BEFORE UPDATE ON customer_keys BEGIN
    INSERT INTO config_touch (business_id, customer_id, table_name, row_id, columns)
        SELECT business_id, customer_id, 'customer_keys', id, '{}' FROM customer_keys
        WHERE (key_hash = NEW.key_hash OR (business_id = NEW.business_id AND id = NEW.id))
            AND (business_id, customer_id) IS NOT (NEW.business_id, NEW.customer_id) AND seq IS NOT OLD.seq;
END;

CREATE TRIGGER plan_limits_displaced_insert BEFORE INSERT ON plan_limits BEGIN
    INSERT INTO config_touch (business_id, customer_id, table_name, row_id, columns)
        SELECT business_id, customer_id, 'plan_limits', id, '{}' FROM plan_limits
        WHERE business_id = NEW.business_id AND id = NEW.id AND customer_id IS NOT NEW.customer_id;
END;

CREATE TRIGGER plan_limits_displaced_update BEFORE UPDATE ON plan_limits BEGIN
    INSERT INTO config_touch (business_id, customer_id, table_name, row_id, columns)
        SELECT business_id, customer_id, 'plan_limits', id, '{}' FROM plan_limits
        WHERE business_id = NEW.business_id AND id = NEW.id AND customer_id IS NOT NEW.customer_id AND seq IS NOT OLD.seq;
END;

-- A plan that goes takes its limits along and leaves its customers without one. One displaced by REPLACE runs no
-- delete trigger: it is noted before and, where it is gone after, treated the same way.
CREATE TABLE plans_displaced (
    business_id TEXT NOT NULL,
    id TEXT NOT NULL
) STRICT;
CREATE TRIGGER plans_gone_delete AFTER DELETE ON plans BEGIN
    DELETE FROM plan_limits WHERE business_id = OLD.business_id AND plan_id = OLD.id;
    UPDATE customers SET plan_id = NULL WHERE business_id = OLD.business_id AND plan_id = OLD.id;
END;

CREATE TRIGGER plans_displaced_insert BEFORE INSERT ON plans BEGIN
    DELETE FROM plans_displaced;
    INSERT INTO plans_displaced (business_id, id)
        SELECT business_id, id FROM plans
        WHERE business_id = NEW.business_id AND id <> NEW.id
            AND (plan_name = NEW.plan_name OR stripe_price_id = NEW.stripe_price_id
                OR (is_free = 1 AND NEW.is_free = 1));
END;
CREATE TRIGGER plans_gone_insert AFTER INSERT ON plans BEGIN
    DELETE FROM plans_displaced
        WHERE EXISTS (
            SELECT 1 FROM plans AS p WHERE p.business_id = plans_displaced.business_id AND p.id = plans_displaced.id);
    DELETE FROM plan_limits
        WHERE plan_id IS NOT NULL AND (business_id, plan_id) IN (SELECT business_id, id FROM plans_displaced);
    UPDATE customers SET plan_id = NULL
        WHERE plan_id IS NOT NULL AND (business_id, plan_id) IN (SELECT business_id, id FROM plans_displaced);
    DELETE FROM plans_displaced;
END;

CREATE TRIGGER plans_displaced_update BEFORE UPDATE ON plans BEGIN
    DELETE FROM plans_displaced;
    INSERT INTO plans_displaced (business_id, id)
        SELECT business_id, id FROM plans
        WHERE business_id = NEW.business_id AND seq <> OLD.seq AND id <> NEW.id
            AND (plan_name = NEW.plan_name OR stripe_price_id = NEW.stripe_price_id
                OR (is_free = 1 AND NEW.is_free = 1));
    INSERT INTO plans_displaced (business_id, id) VALUES (OLD.business_id, OLD.id);
END;
CREATE TRIGGER plans_gone_update AFTER UPDATE ON plans BEGIN
    DELETE FROM plans_displaced
        WHERE EXISTS (
            SELECT 1 FROM plans AS p WHERE p.business_id = plans_displaced.business_id AND p.id = plans_displaced.id);
    DELETE FROM plan_limits
        WHERE plan_id IS NOT NULL AND (business_id, plan_id) IN (SELECT business_id, id FROM plans_displaced);
    UPDATE customers SET plan_id = NULL
        WHERE plan_id IS NOT NULL AND (business_id, plan_id) IN (SELECT business_id, id FROM plans_displaced);
    DELETE FROM plans_displaced;
END;

-- A customer that goes loses its keys for good; one whose row goes loses its limits too.

CREATE TRIGGER customers_deleted_update AFTER UPDATE OF deleted_at ON customers
    WHEN NEW.deleted_at IS NOT NULL BEGIN
    UPDATE customer_keys SET row_mac = NULL, slot = NULL, revoked_at = coalesce(revoked_at, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
        WHERE business_id = NEW.business_id AND customer_id = NEW.customer_id AND row_mac IS NOT NULL;
END;
CREATE TRIGGER customers_deleted_insert AFTER INSERT ON customers
    WHEN NEW.deleted_at IS NOT NULL BEGIN
    UPDATE customer_keys SET row_mac = NULL, slot = NULL, revoked_at = coalesce(revoked_at, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
        WHERE business_id = NEW.business_id AND customer_id = NEW.customer_id AND row_mac IS NOT NULL;
END;
CREATE TRIGGER customers_moved AFTER UPDATE OF business_id, customer_id ON customers
    WHEN (OLD.business_id, OLD.customer_id) IS NOT (NEW.business_id, NEW.customer_id) BEGIN
    UPDATE customer_keys SET row_mac = NULL, slot = NULL, revoked_at = coalesce(revoked_at, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
        WHERE business_id = OLD.business_id AND customer_id = OLD.customer_id AND row_mac IS NOT NULL;
    DELETE FROM plan_limits WHERE business_id = OLD.business_id AND customer_id = OLD.customer_id;
END;
CREATE TRIGGER customers_deleted_delete AFTER DELETE ON customers BEGIN
    UPDATE customer_keys SET row_mac = NULL, slot = NULL, revoked_at = coalesce(revoked_at, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
        WHERE business_id = OLD.business_id AND customer_id = OLD.customer_id AND row_mac IS NOT NULL;
    DELETE FROM plan_limits WHERE business_id = OLD.business_id AND customer_id = OLD.customer_id;
END;

-- So does a business.
CREATE TRIGGER businesses_deleted_update AFTER UPDATE OF deleted_at ON businesses
    WHEN NEW.deleted_at IS NOT NULL BEGIN
    UPDATE business_keys SET row_mac = NULL, slot = NULL, revoked_at = coalesce(revoked_at, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
        WHERE business_id = NEW.business_id AND row_mac IS NOT NULL;
    UPDATE customer_keys SET row_mac = NULL, slot = NULL, revoked_at = coalesce(revoked_at, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
        WHERE business_id = NEW.business_id AND row_mac IS NOT NULL;
END;
CREATE TRIGGER businesses_deleted_insert AFTER INSERT ON businesses
    WHEN NEW.deleted_at IS NOT NULL BEGIN
    UPDATE business_keys SET row_mac = NULL, slot = NULL, revoked_at = coalesce(revoked_at, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
        WHERE business_id = NEW.business_id AND row_mac IS NOT NULL;
    UPDATE customer_keys SET row_mac = NULL, slot = NULL, revoked_at = coalesce(revoked_at, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
        WHERE business_id = NEW.business_id AND row_mac IS NOT NULL;
END;
CREATE TRIGGER businesses_moved AFTER UPDATE OF business_id ON businesses
    WHEN OLD.business_id IS NOT NEW.business_id BEGIN
    UPDATE business_keys SET row_mac = NULL, slot = NULL, revoked_at = coalesce(revoked_at, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
        WHERE business_id = OLD.business_id AND row_mac IS NOT NULL;
    UPDATE customer_keys SET row_mac = NULL, slot = NULL, revoked_at = coalesce(revoked_at, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
        WHERE business_id = OLD.business_id AND row_mac IS NOT NULL;
END;
CREATE TRIGGER businesses_deleted_delete AFTER DELETE ON businesses BEGIN
    UPDATE business_keys SET row_mac = NULL, slot = NULL, revoked_at = coalesce(revoked_at, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
        WHERE business_id = OLD.business_id AND row_mac IS NOT NULL;
    UPDATE customer_keys SET row_mac = NULL, slot = NULL, revoked_at = coalesce(revoked_at, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
        WHERE business_id = OLD.business_id AND row_mac IS NOT NULL;
END;

-- Revoking is for good: it erases what proves the row, and nothing but a new key brings that back.

CREATE TRIGGER business_keys_revoked_insert AFTER INSERT ON business_keys
    WHEN (NEW.revoked_at IS NOT NULL OR NEW.row_mac IS NULL)
        AND (NEW.row_mac IS NOT NULL OR NEW.slot IS NOT NULL) BEGIN
    UPDATE business_keys SET row_mac = NULL, slot = NULL WHERE seq = NEW.seq;
END;
CREATE TRIGGER business_keys_revoked_update AFTER UPDATE OF revoked_at, row_mac, slot ON business_keys
    WHEN (NEW.revoked_at IS NOT NULL OR NEW.row_mac IS NULL)
        AND (NEW.row_mac IS NOT NULL OR NEW.slot IS NOT NULL) BEGIN
    UPDATE business_keys SET row_mac = NULL, slot = NULL WHERE seq = NEW.seq;
END;
CREATE TRIGGER business_keys_proof BEFORE UPDATE OF row_mac ON business_keys
    WHEN NEW.row_mac IS NOT NULL AND NEW.row_mac IS NOT OLD.row_mac BEGIN
    SELECT RAISE(ABORT, 'row_mac is given once');
END;

CREATE TRIGGER customer_keys_revoked_insert AFTER INSERT ON customer_keys
    WHEN (NEW.revoked_at IS NOT NULL OR NEW.row_mac IS NULL)
        AND (NEW.row_mac IS NOT NULL OR NEW.slot IS NOT NULL) BEGIN
    UPDATE customer_keys SET row_mac = NULL, slot = NULL WHERE seq = NEW.seq;
END;
CREATE TRIGGER customer_keys_revoked_update AFTER UPDATE OF revoked_at, row_mac, slot ON customer_keys
    WHEN (NEW.revoked_at IS NOT NULL OR NEW.row_mac IS NULL)
        AND (NEW.row_mac IS NOT NULL OR NEW.slot IS NOT NULL) BEGIN
    UPDATE customer_keys SET row_mac = NULL, slot = NULL WHERE seq = NEW.seq;
END;
CREATE TRIGGER customer_keys_proof BEFORE UPDATE OF row_mac ON customer_keys
    WHEN NEW.row_mac IS NOT NULL AND NEW.row_mac IS NOT OLD.row_mac BEGIN
    SELECT RAISE(ABORT, 'row_mac is given once');
END;

-- A limit creates its metric: for customers always, for the business too where it holds for all of it.

CREATE TRIGGER plan_limits_metric_made_insert AFTER INSERT ON plan_limits BEGIN
    INSERT INTO metrics (business_id, metric_name, scope, operation, metric_type, flush_interval)
        SELECT NEW.business_id, NEW.metric_name, scope, 'SUM',
            CASE NEW.limit_period WHEN 'realtime' THEN 'checkpoint' ELSE 'reset' END,
            CASE WHEN NEW.limit_period IN ('minutely', 'hourly', 'daily', 'weekly', 'yearly')
                THEN NEW.limit_period ELSE 'monthly' END
        FROM (SELECT 'customer' AS scope UNION ALL SELECT 'business') AS made
        WHERE (scope = 'customer' OR (NEW.plan_id IS NULL AND NEW.customer_id IS NULL))
            AND NOT EXISTS (
                SELECT 1 FROM metrics AS m
                WHERE m.business_id = NEW.business_id AND m.metric_name = NEW.metric_name AND m.scope = made.scope);
END;

CREATE TRIGGER plan_limits_metric_made_update AFTER UPDATE OF business_id, metric_name, limit_period, plan_id, customer_id ON plan_limits BEGIN
    INSERT INTO metrics (business_id, metric_name, scope, operation, metric_type, flush_interval)
        SELECT NEW.business_id, NEW.metric_name, scope, 'SUM',
            CASE NEW.limit_period WHEN 'realtime' THEN 'checkpoint' ELSE 'reset' END,
            CASE WHEN NEW.limit_period IN ('minutely', 'hourly', 'daily', 'weekly', 'yearly')
                THEN NEW.limit_period ELSE 'monthly' END
        FROM (SELECT 'customer' AS scope UNION ALL SELECT 'business') AS made
        WHERE (scope = 'customer' OR (NEW.plan_id IS NULL AND NEW.customer_id IS NULL))
            AND NOT EXISTS (
                SELECT 1 FROM metrics AS m
                WHERE m.business_id = NEW.business_id AND m.metric_name = NEW.metric_name AND m.scope = made.scope);
END;

-- When a row last changed, also where a SQL user did not say so.

CREATE TRIGGER customers_updated_at AFTER UPDATE OF
    business_id, customer_id, customer_name, email, description, plan_id, stripe_customer_id,
    stripe_subscription_id, stripe_price_id, subscription_ends_at, billing_anchor_day, metadata, deleted_at
ON customers WHEN NEW.updated_at IS OLD.updated_at BEGIN
    UPDATE customers SET updated_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now') WHERE seq = NEW.seq;
END;

CREATE TRIGGER plan_limits_updated_at AFTER UPDATE OF
    id, business_id, metric_name, limit_value, limit_period, breach_operator, breach_action, plan_id,
    customer_id, alert_thresholds, webhook_urls, overage_meter
ON plan_limits WHEN NEW.updated_at IS OLD.updated_at BEGIN
    UPDATE plan_limits SET updated_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now') WHERE seq = NEW.seq;
END;

CREATE TRIGGER metrics_updated_at AFTER UPDATE OF
    business_id, metric_name, scope, operation, metric_type, flush_interval
ON metrics WHEN NEW.updated_at IS OLD.updated_at BEGIN
    UPDATE metrics SET updated_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now') WHERE seq = NEW.seq;
END;
