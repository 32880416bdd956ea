//! Both engines keep the same rows: the same tables with the same columns, but for what is named here.

use crate::postgres::testing as postgres;
use diesel::prelude::*;
use diesel::sql_types::{Bool, Text};
use std::collections::BTreeMap;

/// How far the folds are is each engine's own, and which changes a row of the trail explains.
const OWN: [&str; 11] = [
    "__diesel_schema_migrations.",
    "audit_logs.change_first",
    "audit_logs.change_last",
    "audit_logs.transaction_id",
    "config_changes.transaction_id",
    "ledger_position.",
    "node_boots.",
    "plans_displaced.",
    "sqlite_",
    "usage_ledger.seq",
    "clock.",
];

#[derive(QueryableByName)]
struct Column {
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Text)]
    kind: String,
    #[diesel(sql_type = Bool)]
    is_required: bool,
}

/// Columns by `table.column`: of which kind, and whether a row must have it.
type Columns = BTreeMap<String, (String, bool)>;

fn columns(rows: Vec<Column>) -> Columns {
    let is_own = |name: &str| OWN.iter().any(|own| name.starts_with(own));
    let kind = |kind: &str| match kind.to_ascii_lowercase().as_str() {
        "text" | "timestamp with time zone" => "text",
        "integer" | "bigint" | "boolean" => "integer",
        "blob" | "bytea" => "bytes",
        other => panic!("what is {other}?"),
    };
    let rows = rows.into_iter().filter(|row| !is_own(&row.name));
    rows.map(|row| (row.name, (kind(&row.kind).to_owned(), row.is_required))).collect()
}

#[test]
fn both_engines_keep_the_same_columns() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tracktags.db");
    std::fs::write(&path, "").unwrap();
    crate::migrate(&format!("sqlite:{}", path.display())).unwrap();
    let sqlite = diesel::sql_query(
        "SELECT t.name || '.' || c.name AS name, c.type AS kind, c.\"notnull\" <> 0 OR c.pk > 0 AS is_required \
         FROM sqlite_schema AS t, pragma_table_info(t.name) AS c WHERE t.type = 'table'",
    )
    .load::<Column>(&mut SqliteConnection::establish(path.to_str().unwrap()).unwrap())
    .unwrap();
    let server = diesel::sql_query(
        "SELECT table_name || '.' || column_name AS name, data_type::text AS kind, is_nullable = 'NO' AS is_required \
         FROM information_schema.columns WHERE table_schema = 'public'",
    )
    .load::<Column>(&mut *postgres::database())
    .unwrap();
    assert_eq!(columns(sqlite), columns(server));
}

#[test]
fn both_engines_have_the_same_migrations() {
    let names = |folder: &str| {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(folder);
        let entries = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names("sqlite"), names("postgres"));
}
