//! What a fold writes: rows of counters, and what their hours gained. Many go in one statement: what a statement costs by
//! itself is more than what a row does, and a fold of many counters is mostly that.

use super::error::store_error;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, QueryFragment, QueryId};
use diesel::sql_types::{BigInt, Binary, Text};
use diesel::sqlite::Sqlite;
use tracktags_core::error::StoreError;
use tracktags_core::history::Gain;
use tracktags_core::metrics::Operation;
use tracktags_core::time::Timestamp;

/// Rows of one statement. What is left over goes one by one, so that two statements are prepared, not one for each
/// count.
const ROWS: usize = 32;

/// A counter's business, customer (empty: the business's own account) and metric.
type Names<'a> = [&'a str; 3];

/// A row that a fold writes.
pub(super) trait Row {
    /// The same row with a life of its own, to know the prepared statement by.
    type Static: 'static;
    /// The statement before the rows. A failure takes the whole fold back, so SQLite need keep nothing to take back the
    /// one statement (`OR FAIL`, `OR REPLACE`).
    const INTO: &'static str;
    /// The statement behind the rows: what becomes of the row that was there.
    const MERGED: &'static str;

    /// The values of the columns, with a comma between them.
    fn push_values<'b>(&'b self, out: &mut AstPass<'_, 'b, Sqlite>) -> QueryResult<()>;
}

fn push_names<'b>(out: &mut AstPass<'_, 'b, Sqlite>, names: &Names<'b>) -> QueryResult<()> {
    for name in names {
        out.push_bind_param::<Text, str>(name)?;
        out.push_sql(", ");
    }
    Ok(())
}

/// A counter's row.
pub(super) struct CounterRow<'a> {
    pub(super) names: Names<'a>,
    pub(super) state: Vec<u8>,
}

impl Row for CounterRow<'_> {
    type Static = CounterRow<'static>;
    /// A table whose only index is its key, with neither triggers nor foreign keys: a row is put in the place of the one
    /// before without a look whether there is one.
    const INTO: &'static str =
        "INSERT OR REPLACE INTO counters (business_id, customer_id, metric_name, state) VALUES ";
    const MERGED: &'static str = "";

    fn push_values<'b>(&'b self, out: &mut AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        push_names(out, &self.names)?;
        out.push_bind_param::<Binary, [u8]>(&self.state)
    }
}

/// What an hour of a counter gained.
pub(super) struct HourRow<'a> {
    names: Names<'a>,
    operation: &'static str,
    numbers: [i64; 5],
}

impl<'a> HourRow<'a> {
    pub(super) fn new(names: Names<'a>, bucket: Timestamp, operation: Operation, gain: &Gain) -> Self {
        let numbers = [bucket.as_seconds(), gain.units, gain.samples, gain.overage, gain.denied];
        Self { names, operation: operation.as_str(), numbers }
    }
}

impl Row for HourRow<'_> {
    type Static = HourRow<'static>;
    const INTO: &'static str = "INSERT OR FAIL INTO usage_history (business_id, customer_id, metric_name, \
        bucket, units, samples, overage, denied, operation) VALUES ";
    /// By the rules of [`Gain::merged`]. A sum that passes all numbers becomes a float in SQLite, and the greatest
    /// number as it is cast back.
    const MERGED: &'static str = " ON CONFLICT (business_id, customer_id, metric_name, bucket) DO UPDATE SET \
        operation = excluded.operation, \
        units = CASE \
            WHEN excluded.operation IN ('SUM', 'COUNT', 'AVG') THEN CAST(units + excluded.units AS INTEGER) \
            WHEN excluded.samples = 0 THEN units \
            WHEN samples = 0 OR excluded.operation = 'LAST' THEN excluded.units \
            WHEN excluded.operation = 'MAX' THEN max(units, excluded.units) \
            ELSE min(units, excluded.units) END, \
        samples = CAST(samples + excluded.samples AS INTEGER), \
        overage = CAST(overage + excluded.overage AS INTEGER), \
        denied = CAST(denied + excluded.denied AS INTEGER)";

    fn push_values<'b>(&'b self, out: &mut AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        push_names(out, &self.names)?;
        for number in &self.numbers {
            out.push_bind_param::<BigInt, i64>(number)?;
            out.push_sql(", ");
        }
        out.push_bind_param::<Text, str>(self.operation)
    }
}

/// One statement with so many rows.
struct Write<'a, R, const COUNT: usize>(&'a [R; COUNT]);

impl<R: Row, const COUNT: usize> QueryId for Write<'_, R, COUNT> {
    type QueryId = Write<'static, R::Static, COUNT>;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl<R: Row, const COUNT: usize> QueryFragment<Sqlite> for Write<'_, R, COUNT> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        out.push_sql(R::INTO);
        for (place, row) in self.0.iter().enumerate() {
            out.push_sql(if place == 0 { "(" } else { ", (" });
            row.push_values(&mut out)?;
            out.push_sql(")");
        }
        out.push_sql(R::MERGED);
        Ok(())
    }
}

impl<R, const COUNT: usize> RunQueryDsl<SqliteConnection> for Write<'_, R, COUNT> {}

/// Writes rows: a counter in place of the one before, what an hour gained on top of what it holds.
pub(super) fn write<R: Row>(conn: &mut SqliteConnection, rows: &[R]) -> Result<(), StoreError> {
    let (many, rest) = rows.as_chunks::<ROWS>();
    for rows in many {
        Write(rows).execute(conn).map_err(store_error)?;
    }
    for row in rest {
        Write(std::array::from_ref(row)).execute(conn).map_err(store_error)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::schema::usage_history;
    use super::*;
    use diesel::connection::SimpleConnection;
    use proptest::prelude::*;

    const NAMES: Names<'_> = ["b1", "c1", "api_calls"];

    fn gain() -> impl Strategy<Value = Gain> {
        let number = || prop_oneof![Just(0), Just(i64::MAX), Just(i64::MIN), -9_i64..9, any::<i64>()];
        let count = || prop_oneof![Just(0), 0_i64..9, Just(i64::MAX)];
        (number(), count(), number(), count()).prop_map(|(units, samples, overage, denied)| Gain {
            units,
            samples,
            overage,
            denied,
        })
    }

    proptest! {
        #[test]
        fn hours_are_merged_as_the_core_merges_them(
            operation in proptest::sample::select(Operation::ALL),
            first in gain(),
            then in proptest::collection::vec(gain(), 0..2 * ROWS),
        ) {
            let mut conn = SqliteConnection::establish(":memory:").unwrap();
            conn.batch_execute(include_str!("../../migrations/sqlite/00000000000002_usage/up.sql")).unwrap();
            let (mut wanted, hour) = (first, Timestamp::from_seconds(3_600));
            let row = |gain: &Gain| HourRow::new(NAMES, hour, operation, gain);
            write(&mut conn, &[row(&first)]).unwrap();
            write(&mut conn, &then.iter().map(row).collect::<Vec<_>>()).unwrap();
            for gain in then {
                wanted = wanted.merged(operation, gain);
            }
            let kept: Vec<(i64, i64, i64, i64)> = usage_history::table
                .select((
                    usage_history::units,
                    usage_history::samples,
                    usage_history::overage,
                    usage_history::denied,
                ))
                .load(&mut conn)
                .unwrap();
            prop_assert_eq!(kept, [(wanted.units, wanted.samples, wanted.overage, wanted.denied)]);
        }
    }
}
