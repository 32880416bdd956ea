//! What an operator should look at in any database: its schema, and settings of businesses that are seldom meant.

use super::dialect::Conn;
use super::error::store_error;
use super::schema::{businesses, customer_keys};
use crate::OpenError;
use crate::findings::Finding;
use diesel::prelude::*;
use tracktags_core::accounts::Enforcement;
use tracktags_core::error::StoreError;

/// Businesses named at most for each finding.
const NAMED_MAX: i64 = 20;

/// What is to be said of the steps that a schema has not taken yet.
pub(crate) fn schema(
    subject: &str,
    pending: Result<Vec<String>, OpenError>,
) -> Result<Option<Finding>, OpenError> {
    match pending {
        Ok(pending) if pending.is_empty() => Ok(None),
        Ok(pending) => {
            let message = format!(
                "its schema is older than this program; the next start, or migrate, takes {} steps",
                pending.len()
            );
            Ok(Some(Finding::warning(subject, message)))
        }
        Err(newer @ OpenError::SchemaNewer { .. }) => Ok(Some(Finding::problem(subject, newer.to_string()))),
        Err(error) => Err(error),
    }
}

/// What businesses have set, or have not.
pub(crate) fn settings(conn: &mut Conn) -> Result<Vec<Finding>, StoreError> {
    let with_live_keys = customer_keys::table
        .filter(customer_keys::revoked_at.is_null())
        .select(customer_keys::business_id)
        .distinct();
    let uncounted: Vec<String> = businesses::table
        .filter(businesses::deleted_at.is_null())
        .filter(businesses::default_metric.is_null())
        .filter(businesses::business_id.eq_any(with_live_keys))
        .select(businesses::business_id)
        .limit(NAMED_MAX)
        .load(conn)
        .map_err(store_error)?;
    let watching: Vec<String> = businesses::table
        .filter(businesses::deleted_at.is_null())
        .filter(businesses::enforcement.eq(Enforcement::Observe.as_str()))
        .select(businesses::business_id)
        .limit(NAMED_MAX)
        .load(conn)
        .map_err(store_error)?;
    let uncounted = uncounted.into_iter().map(|id| {
        let message =
            "customers have keys and there is no default_metric: a call that names no metric is not counted";
        Finding::warning(id, message)
    });
    let watching = watching
        .into_iter()
        .map(|id| Finding::warning(id, "enforcement is observe: everything is counted, nothing is denied"));
    Ok(uncounted.chain(watching).collect())
}
