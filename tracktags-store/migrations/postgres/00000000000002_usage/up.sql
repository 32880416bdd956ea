-- Usage. Only the server writes here; usage is corrected through the API, so that every change stands in the ledger. No
-- foreign keys to the configuration: a batch waits for nobody who changes that.

-- One row a batch: what it did, packed and checksummed (tracktags-store/src/ledger.rs), and the marker that it
-- committed. Each start of a node (`boot`) numbers the batches of each of its lanes.
CREATE TABLE usage_ledger (
    batch bigint NOT NULL,
    boot text COLLATE "C" NOT NULL,
    lane integer NOT NULL DEFAULT 0,
    written_at bigint NOT NULL,
    open_calls bigint NOT NULL,
    open_units bigint NOT NULL,
    entries bytea NOT NULL,
    PRIMARY KEY (boot, lane, batch)
);
-- Packed already: compressing it once more would only hold the batch up.
ALTER TABLE usage_ledger ALTER COLUMN entries SET STORAGE EXTERNAL;
CREATE INDEX usage_ledger_written_at ON usage_ledger (written_at);

-- The counters as of the last batch. `customer_id` is '' for a business's own account. Every batch writes some of them
-- anew: half of each page is left free, so that a new version stays on it and touches no index, and the old ones are
-- cleared away early.
CREATE TABLE counters (
    business_id text COLLATE "C" NOT NULL,
    customer_id text COLLATE "C" NOT NULL,
    metric_name text COLLATE "C" NOT NULL,
    state bytea NOT NULL,
    PRIMARY KEY (business_id, customer_id, metric_name)
) WITH (
    fillfactor = 50,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_analyze_threshold = 10000,
    autovacuum_analyze_scale_factor = 0.5
);

-- Usage by hour (`bucket`: its first second, Unix time), folded from the ledger. `units` is the value of the metric's
-- operation, for AVG the sum of `samples` samples. `overage` is that of the longest window that has any.
CREATE TABLE usage_history (
    business_id text COLLATE "C" NOT NULL,
    customer_id text COLLATE "C" NOT NULL,
    metric_name text COLLATE "C" NOT NULL,
    bucket bigint NOT NULL,
    operation text COLLATE "C" NOT NULL,
    units bigint NOT NULL,
    samples bigint NOT NULL,
    overage bigint NOT NULL,
    denied bigint NOT NULL,
    PRIMARY KEY (business_id, customer_id, metric_name, bucket)
) WITH (fillfactor = 80);

-- How far the folds are. Batches of several nodes do not commit in one order, those of one boot and lane do: so the
-- position is kept for each, until all of it is folded and nobody writes there any more.
CREATE TABLE ledger_position (
    boot text COLLATE "C" NOT NULL,
    lane integer NOT NULL,
    folded_to bigint NOT NULL,
    PRIMARY KEY (boot, lane)
) WITH (fillfactor = 50);

-- The starts of nodes: when each was last heard of, and whether it stopped in order. One that did, or that is not heard
-- of any more, goes with its positions once all it wrote is folded.
CREATE TABLE node_boots (
    boot text COLLATE "C" PRIMARY KEY,
    started_at bigint NOT NULL,
    seen_at bigint NOT NULL,
    clean_stop boolean NOT NULL DEFAULT false
);
