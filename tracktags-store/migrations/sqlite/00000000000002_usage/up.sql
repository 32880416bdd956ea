-- Usage. Only the server writes here; usage is corrected through the API, so that every change stands in the ledger.

-- One row a batch: what it did, packed and checksummed (tracktags-store/src/ledger.rs), and the marker that it
-- committed. Numbers of batches never repeat, also after pruning.
CREATE TABLE usage_ledger (
    batch INTEGER PRIMARY KEY NOT NULL,
    boot TEXT NOT NULL,
    lane INTEGER NOT NULL DEFAULT 0,
    written_at INTEGER NOT NULL,
    open_calls INTEGER NOT NULL,
    open_units INTEGER NOT NULL,
    entries BLOB NOT NULL
) STRICT;

-- The counters as of the batch that `ledger_position` names; what the ledger holds beyond it is not in here yet.
CREATE TABLE counters (
    business_id TEXT NOT NULL,
    customer_id TEXT NOT NULL,
    metric_name TEXT NOT NULL,
    state BLOB NOT NULL,
    PRIMARY KEY (business_id, customer_id, metric_name)
) STRICT, WITHOUT ROWID;

-- Usage by hour (`bucket`: its first second, Unix time), folded like the counters. `units` is the value of the
-- metric's operation, for AVG the sum of `samples` samples. `overage` is that of the longest window that has any.
CREATE TABLE usage_history (
    business_id TEXT NOT NULL,
    customer_id TEXT NOT NULL,
    metric_name TEXT NOT NULL,
    bucket INTEGER NOT NULL,
    operation TEXT NOT NULL,
    units INTEGER NOT NULL,
    samples INTEGER NOT NULL,
    overage INTEGER NOT NULL,
    denied INTEGER NOT NULL,
    PRIMARY KEY (business_id, customer_id, metric_name, bucket)
) STRICT, WITHOUT ROWID;

-- How far the folds are, and how the last stop went. One row. Everything up to batch `folded_to` is folded; while a
-- pass runs, so are the batches up to `pass_to` of all counters up to the one named, in key order.
CREATE TABLE ledger_position (
    id INTEGER PRIMARY KEY NOT NULL CHECK (id = 1),
    folded_to INTEGER NOT NULL,
    pass_to INTEGER,
    pass_business TEXT,
    pass_customer TEXT,
    pass_metric TEXT,
    clean_stop INTEGER NOT NULL
) STRICT;
INSERT INTO ledger_position (id, folded_to, clean_stop) VALUES (1, 0, 1);
