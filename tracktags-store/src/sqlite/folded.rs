//! What a fold writes of a counter: its row, and what its hours gained. Each statement is prepared once and bound by
//! hand: a fold of many counters is mostly these two.

use super::error::store_error;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, QueryFragment, QueryId};
use diesel::sql_types::{BigInt, Binary, Text};
use diesel::sqlite::Sqlite;
use tracktags_core::error::StoreError;
use tracktags_core::history::Gain;
use tracktags_core::metrics::Operation;
use tracktags_core::time::Timestamp;

/// A counter's business, customer (empty: the business's own account) and metric.
type Names<'a> = [&'a str; 3];

fn push_names<'b>(out: &mut AstPass<'_, 'b, Sqlite>, names: &Names<'b>) -> QueryResult<()> {
    for name in names {
        out.push_bind_param::<Text, str>(name)?;
        out.push_sql(", ");
    }
    Ok(())
}

/// A counter's row, in place of the one before.
struct PutCounter<'a> {
    names: Names<'a>,
    state: &'a [u8],
}

impl QueryId for PutCounter<'_> {
    type QueryId = PutCounter<'static>;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl QueryFragment<Sqlite> for PutCounter<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        out.push_sql("REPLACE INTO counters (business_id, customer_id, metric_name, state) VALUES (");
        push_names(&mut out, &self.names)?;
        out.push_bind_param::<Binary, [u8]>(self.state)?;
        out.push_sql(")");
        Ok(())
    }
}

impl RunQueryDsl<SqliteConnection> for PutCounter<'_> {}

/// What an hour gained, merged with what it holds by the rules of [`Gain::merged`]. A sum that passes all numbers becomes
/// a float in SQLite, and the greatest number as it is cast back.
struct AddHour<'a> {
    names: Names<'a>,
    operation: &'static str,
    numbers: [i64; 5],
}

const MERGED: &str = ") ON CONFLICT (business_id, customer_id, metric_name, bucket) DO UPDATE SET \
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

impl QueryId for AddHour<'_> {
    type QueryId = AddHour<'static>;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl QueryFragment<Sqlite> for AddHour<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        out.push_sql(
            "INSERT INTO usage_history (business_id, customer_id, metric_name, \
             bucket, units, samples, overage, denied, operation) VALUES (",
        );
        push_names(&mut out, &self.names)?;
        for number in &self.numbers {
            out.push_bind_param::<BigInt, i64>(number)?;
            out.push_sql(", ");
        }
        out.push_bind_param::<Text, str>(self.operation)?;
        out.push_sql(MERGED);
        Ok(())
    }
}

impl RunQueryDsl<SqliteConnection> for AddHour<'_> {}

/// Writes a counter's row.
pub(super) fn put_counter(
    conn: &mut SqliteConnection,
    names: Names<'_>,
    state: &[u8],
) -> Result<(), StoreError> {
    PutCounter { names, state }.execute(conn).map(drop).map_err(store_error)
}

/// Adds what an hour of a counter gained.
pub(super) fn add_hour(
    conn: &mut SqliteConnection,
    names: Names<'_>,
    bucket: Timestamp,
    operation: Operation,
    gain: &Gain,
) -> Result<(), StoreError> {
    let numbers = [bucket.as_seconds(), gain.units, gain.samples, gain.overage, gain.denied];
    AddHour { names, operation: operation.as_str(), numbers }.execute(conn).map(drop).map_err(store_error)
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
            then in proptest::collection::vec(gain(), 0..4),
        ) {
            let mut conn = SqliteConnection::establish(":memory:").unwrap();
            conn.batch_execute(include_str!("../../migrations/sqlite/00000000000002_usage/up.sql")).unwrap();
            let (mut wanted, hour) = (first, Timestamp::from_seconds(3_600));
            add_hour(&mut conn, NAMES, hour, operation, &first).unwrap();
            for gain in then {
                wanted = wanted.merged(operation, gain);
                add_hour(&mut conn, NAMES, hour, operation, &gain).unwrap();
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
