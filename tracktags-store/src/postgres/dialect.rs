//! What the rows of configuration need of this engine: its connection, and how it keeps times.

use diesel::deserialize::{self, FromSql, FromSqlRow};
use diesel::expression::AsExpression;
use diesel::pg::{Pg, PgValue};
use diesel::serialize::{self, Output, ToSql};
use diesel::sql_types::{BigInt, Timestamptz};
use diesel_async::AsyncPgConnection;
use diesel_async::async_connection_wrapper::{AsyncConnectionWrapper, BlockOn};
use tokio::runtime::Handle;
use tracktags_core::time::{MICROS_PER_SECOND, Timestamp};

/// A connection that blocks, as code about rows wants it.
pub(crate) type Conn = AsyncConnectionWrapper<AsyncPgConnection, OnRuntime>;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, AsExpression, FromSqlRow)]
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
