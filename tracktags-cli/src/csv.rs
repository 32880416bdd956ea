//! Answers as CSV (RFC 4180): the columns of the tables, with the API's own values in them.

use crate::output::{USAGE_LIMIT_COLUMNS, View};
use csv::{Terminator, WriterBuilder};
use serde_json::Value;
use std::io::{self, Write};

/// The columns that stand before a limit's.
const USAGE_COLUMNS: [&str; 4] = ["customer_id", "metric_name", "current_value", "held"];
const BOOKS_COLUMNS: [&str; 3] = ["counters", "entries", "batches"];

/// Writes rows.
pub(crate) fn write<Row>(out: &mut dyn Write, rows: impl IntoIterator<Item = Row>) -> io::Result<()>
where
    Row: IntoIterator,
    Row::Item: AsRef<[u8]>,
{
    let mut writer = WriterBuilder::new().terminator(Terminator::Any(b'\n')).from_writer(out);
    for row in rows {
        writer.write_record(row).map_err(io::Error::from)?;
    }
    writer.flush()
}

/// An answer as rows, the head first.
pub(crate) fn rows(view: &View, value: &Value) -> Vec<Vec<String>> {
    match view {
        View::Record(fields) => {
            let known: Vec<&str> =
                fields.iter().copied().filter(|field| value.get(field).is_some()).collect();
            vec![head(&known), row(&known, value)]
        }
        View::List { items, columns } => {
            let rows = items_of(value, items).iter().map(|item| row(columns, item));
            std::iter::once(head(columns)).chain(rows).collect()
        }
        View::Usage => usage(value),
        View::Books => {
            let differences = items_of(value, "differences").len();
            let mut rows = [head(&BOOKS_COLUMNS), row(&BOOKS_COLUMNS, value)];
            rows[0].push("differences".to_owned());
            rows[1].push(differences.to_string());
            rows.into()
        }
    }
}

/// A row a limit; a metric without one has a row of its own.
fn usage(value: &Value) -> Vec<Vec<String>> {
    let mut rows = vec![[head(&USAGE_COLUMNS), head(&USAGE_LIMIT_COLUMNS)].concat()];
    for metric in items_of(value, "metrics") {
        let own = [row(&["customer_id"], value), row(&USAGE_COLUMNS[1..], metric)].concat();
        let limits = items_of(metric, "limits");
        let of = |limit: &Value| [own.clone(), row(&USAGE_LIMIT_COLUMNS, limit)].concat();
        if limits.is_empty() {
            rows.push(of(&Value::Null));
        }
        rows.extend(limits.iter().map(of));
    }
    rows
}

fn items_of<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn head(columns: &[&str]) -> Vec<String> {
    columns.iter().map(|column| (*column).to_owned()).collect()
}

fn row(columns: &[&str], value: &Value) -> Vec<String> {
    columns.iter().map(|column| cell(value.get(column))).collect()
}

fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}
