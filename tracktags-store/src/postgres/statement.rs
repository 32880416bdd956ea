//! Statements that the query builder cannot say, prepared once for each connection. (diesel's own `sql_query` is
//! prepared anew each time, which costs a round trip and keeps statements from being sent together.)

use diesel::pg::Pg;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::result::QueryResult;
use diesel::sql_types::{Array, BigInt, Binary, Text};
use std::marker::PhantomData;

/// A value in the place of a `?`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bind<'a> {
    Text(&'a str),
    Number(i64),
    Bytes(&'a [u8]),
    Texts(&'a [&'a str]),
    Numbers(&'a [i64]),
    Blobs(&'a [&'a [u8]]),
}

/// A statement with its values; `ST` is what its rows hold.
#[derive(Debug)]
pub(crate) struct Statement<'a, ST = ()> {
    sql: &'static str,
    binds: &'a [Bind<'a>],
    rows: PhantomData<fn() -> ST>,
}

/// A statement with these values for its `?`, in order.
pub(crate) const fn statement<'a, ST>(sql: &'static str, binds: &'a [Bind<'a>]) -> Statement<'a, ST> {
    Statement { sql, binds, rows: PhantomData }
}

impl<ST> QueryFragment<Pg> for Statement<'_, ST> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        let mut pieces = self.sql.split('?');
        out.push_sql(pieces.next().unwrap_or_default());
        for (bind, piece) in self.binds.iter().zip(pieces) {
            match bind {
                Bind::Text(text) => out.push_bind_param::<Text, _>(*text)?,
                Bind::Number(number) => out.push_bind_param::<BigInt, _>(number)?,
                Bind::Bytes(bytes) => out.push_bind_param::<Binary, _>(*bytes)?,
                Bind::Texts(texts) => out.push_bind_param::<Array<Text>, _>(*texts)?,
                Bind::Numbers(numbers) => out.push_bind_param::<Array<BigInt>, _>(*numbers)?,
                Bind::Blobs(blobs) => out.push_bind_param::<Array<Binary>, _>(*blobs)?,
            }
            out.push_sql(piece);
        }
        Ok(())
    }
}

impl<ST> QueryId for Statement<'_, ST> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<ST> Query for Statement<'_, ST> {
    type SqlType = ST;
}

/// Also where the caller blocks. (Those that await need no such line.)
impl<ST> diesel::RunQueryDsl<super::dialect::Conn> for Statement<'_, ST> {}
