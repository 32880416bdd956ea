DROP TABLE node_boots;
DROP TABLE ledger_position;
DROP TABLE usage_history;
DROP TABLE counters;
DROP TABLE usage_ledger;
