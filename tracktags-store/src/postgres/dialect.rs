//! What the rows of configuration need of this engine: its connection, how it keeps times, and the statements that the
//! query builder does not say alike for every engine.

use super::error::store_error;
use super::schema::key_uses;
use diesel::deserialize::{self, FromSql, FromSqlRow};
use diesel::dsl::ILike;
use diesel::expression::AsExpression;
use diesel::pg::{Pg, PgValue};
use diesel::prelude::*;
use diesel::serialize::{self, Output, ToSql};
use diesel::sql_types::{BigInt, Text, Timestamptz};
use diesel_async::AsyncPgConnection;
use diesel_async::async_connection_wrapper::{AsyncConnectionWrapper, BlockOn};
use tokio::runtime::Handle;
use tracktags_core::accounts::BusinessId;
use tracktags_core::error::StoreError;
use tracktags_core::time::{MICROS_PER_SECOND, Timestamp};

/// A connection that blocks, as code about rows wants it.
pub(crate) type Conn = AsyncConnectionWrapper<AsyncPgConnection, OnRuntime>;
/// What is at its other end.
pub(crate) type Db = Pg;

/// Waits on the runtime that was current where the connection was made.
pub(crate) struct OnRuntime(Handle);

impl BlockOn for OnRuntime {
    fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.0.block_on(future)
    }

    fn get_runtime() -> Self {
        Self(Handle::current())
    }
}

/// PostgreSQL counts microseconds from 2000-01-01.
const EPOCH_SECONDS: i64 = 946_684_800;

/// A time as rows keep it.
#[derive(Clone, Debug, PartialEq, Eq, AsExpression, FromSqlRow)]
#[diesel(sql_type = Timestamptz)]
pub(crate) struct Time(Timestamp);

impl Time {
    pub(crate) const fn of(at: Timestamp) -> Self {
        Self(at)
    }

    /// The instant. Whatever a row of this engine holds is one.
    pub(crate) const fn read(&self) -> Option<Timestamp> {
        Some(self.0)
    }

    pub(crate) const fn read_or_start(&self) -> Timestamp {
        self.0
    }

    /// Its canonical text, six decimals.
    pub(crate) fn text(&self) -> String {
        crate::time_text(self.0)
    }
}

impl ToSql<Timestamptz, Pg> for Time {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        let micros = self.0.as_micros().saturating_sub(EPOCH_SECONDS * MICROS_PER_SECOND);
        ToSql::<BigInt, Pg>::to_sql(&micros, &mut out.reborrow())
    }
}

impl FromSql<Timestamptz, Pg> for Time {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        let micros = <i64 as FromSql<BigInt, Pg>>::from_sql(value)?;
        Ok(Self(Timestamp::from_micros(micros.saturating_add(EPOCH_SECONDS * MICROS_PER_SECOND))))
    }
}

/// Patterns that take small letters for capital ones.
pub(crate) trait AnyCase: PgTextExpressionMethods + Sized {
    fn like_any_case<T>(self, pattern: T) -> ILike<Self, T>
    where
        T: AsExpression<Text>,
    {
        self.ilike(pattern)
    }
}

impl<E: PgTextExpressionMethods> AnyCase for E {}

/// The hours of a metric, those of all accounts of a business added up; takes business, metric, and where the span begins
/// and ends. A sum beyond all units is the largest, and no error.
pub(crate) const HOURS_OF_ALL: &str = "SELECT bucket, max(operation) AS operation, \
    greatest(least(sum(units), 9223372036854775807), -9223372036854775808)::bigint AS units, \
    least(sum(samples), 9223372036854775807)::bigint AS samples, \
    least(sum(overage), 9223372036854775807)::bigint AS overage, \
    least(sum(denied), 9223372036854775807)::bigint AS denied FROM usage_history \
    WHERE business_id = $1 AND metric_name = $2 AND bucket >= $3 AND bucket < $4 GROUP BY bucket ORDER BY bucket";

/// Writes down when a key was used, over what was written before.
pub(crate) fn put_key_use(
    conn: &mut Conn,
    key: &str,
    business: &BusinessId,
    at: Timestamp,
) -> Result<(), StoreError> {
    let at = Time::of(at);
    diesel::insert_into(key_uses::table)
        .values((
            key_uses::key_id.eq(key),
            key_uses::business_id.eq(business.as_str()),
            key_uses::last_used_at.eq(&at),
        ))
        .on_conflict(key_uses::key_id)
        .do_update()
        .set(key_uses::last_used_at.eq(&at))
        .execute(conn)
        .map(drop)
        .map_err(store_error)
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
    let rows = format!("SELECT {columns} FROM {table} WHERE business_id = $1 LIMIT $2");
    diesel::sql_query(format!("DELETE FROM {table} WHERE {names} IN ({rows})"))
        .bind::<Text, _>(business)
        .bind::<BigInt, _>(rows_max)
        .execute(conn)
        .map_err(store_error)
}
