//! What the rows of configuration need of this engine: its connection, how it keeps times, and the statements that the
//! query builder does not say alike for every engine.

use super::error::store_error;
use super::schema::key_uses;
use super::time::read_time;
use crate::time_text;
use diesel::deserialize::{self, FromSql, FromSqlRow};
use diesel::dsl::Like;
use diesel::expression::AsExpression;
use diesel::prelude::*;
use diesel::serialize::{self, IsNull, Output, ToSql};
use diesel::sql_types::{BigInt, SqlType, Text};
use diesel::sqlite::{Sqlite, SqliteValue};
use tracktags_core::accounts::BusinessId;
use tracktags_core::error::StoreError;
use tracktags_core::time::Timestamp;

/// A connection, as code about rows wants it.
pub(crate) type Conn = SqliteConnection;
/// What is at its other end.
pub(crate) type Db = Sqlite;

/// A time as rows keep it: a text, and one that SQL wrote may be of any form.
#[derive(Clone, Debug, PartialEq, Eq, AsExpression, FromSqlRow)]
#[diesel(sql_type = Text)]
pub(crate) struct Time(String);

impl Time {
    pub(crate) fn of(at: Timestamp) -> Self {
        Self(time_text(at))
    }

    /// The instant; `None` for one that cannot be read (written with checks off).
    pub(crate) fn read(&self) -> Option<Timestamp> {
        read_time(&self.0)
    }

    /// A time that must be there; an unreadable one is the beginning of time.
    pub(crate) fn read_or_start(&self) -> Timestamp {
        self.read().unwrap_or(Timestamp::MIN)
    }

    /// The text that the row has, whoever wrote it. One of ours is canonical: six decimals.
    pub(crate) fn text(&self) -> String {
        self.0.clone()
    }
}

impl ToSql<Text, Sqlite> for Time {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
        out.set_value(self.0.as_str());
        Ok(IsNull::No)
    }
}

impl FromSql<Text, Sqlite> for Time {
    fn from_sql(value: SqliteValue<'_, '_, '_>) -> deserialize::Result<Self> {
        <String as FromSql<Text, Sqlite>>::from_sql(value).map(Self)
    }
}

/// Patterns that take small letters for capital ones, as this engine's `LIKE` does of itself.
pub(crate) trait AnyCase: TextExpressionMethods + Sized {
    fn like_any_case<T>(self, pattern: T) -> Like<Self, T>
    where
        Self::SqlType: SqlType,
        T: AsExpression<Self::SqlType>,
    {
        self.like(pattern)
    }
}

impl<E: TextExpressionMethods> AnyCase for E {}

/// The hours of a metric, those of all accounts of a business added up; takes business, metric, and where the span begins
/// and ends. `total` adds as floats do, so a sum beyond all units is large and no error; one within them is exact.
pub(crate) const HOURS_OF_ALL: &str = "SELECT bucket, max(operation) AS operation, \
    CAST(total(units) AS INTEGER) AS units, CAST(total(samples) AS INTEGER) AS samples, \
    CAST(total(overage) AS INTEGER) AS overage, CAST(total(denied) AS INTEGER) AS denied FROM usage_history \
    WHERE business_id = ? AND metric_name = ? AND bucket >= ? AND bucket < ? GROUP BY bucket ORDER BY bucket";

/// Writes down when a key was used, over what was written before.
pub(crate) fn put_key_use(
    conn: &mut Conn,
    key: &str,
    business: &BusinessId,
    at: Timestamp,
) -> Result<(), StoreError> {
    let row = (
        key_uses::key_id.eq(key),
        key_uses::business_id.eq(business.as_str()),
        key_uses::last_used_at.eq(Time::of(at)),
    );
    diesel::replace_into(key_uses::table).values(row).execute(conn).map(drop).map_err(store_error)
}

/// Removes so many of a business's rows at most; how many went. `names`: the columns that name a row of the table.
pub(crate) fn delete_some(
    conn: &mut Conn,
    table: &str,
    names: &str,
    business: &str,
    rows_max: i64,
) -> Result<usize, StoreError> {
    let columns = names.trim_matches(['(', ')']);
    let rows = format!("SELECT {columns} FROM {table} WHERE business_id = ? LIMIT ?");
    diesel::sql_query(format!("DELETE FROM {table} WHERE {names} IN ({rows})"))
        .bind::<Text, _>(business)
        .bind::<BigInt, _>(rows_max)
        .execute(conn)
        .map_err(store_error)
}
