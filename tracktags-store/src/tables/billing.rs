//! A business's own subscription with the platform: a record that no limit depends on.

use super::accounts::{BusinessRow, require_business};
use super::dialect::{Conn, Time};
use super::error::store_error;
use super::schema::businesses;
use diesel::prelude::*;
use tracktags_core::accounts::{Billing, BusinessId, SubscriptionStatus};
use tracktags_core::error::{Entity, StoreError};
use tracktags_core::traits::BillingOverride;

type Columns = (Option<String>, Option<String>, Option<String>);

/// What is known of it; of a deleted business, too.
pub(crate) fn billing(conn: &mut Conn, id: &BusinessId) -> Result<Billing, StoreError> {
    let found: Option<(BusinessRow, Columns)> = businesses::table
        .filter(businesses::business_id.eq(id.as_str()))
        .select((
            BusinessRow::as_select(),
            (businesses::plan_type, businesses::stripe_customer_id, businesses::subscription_status),
        ))
        .get_result(conn)
        .optional()
        .map_err(store_error)?;
    let read = |(business, (plan_type, stripe_customer_id, status)): (BusinessRow, Columns)| {
        Some(Billing {
            business: business.read()?,
            plan_type,
            stripe_customer_id,
            subscription_status: status.as_deref().and_then(SubscriptionStatus::from_word),
        })
    };
    found.and_then(read).ok_or_else(|| StoreError::not_found(Entity::Business, id.as_str()))
}

/// Sets it by hand.
pub(crate) fn override_billing(
    conn: &mut Conn,
    id: &BusinessId,
    set: BillingOverride,
) -> Result<Billing, StoreError> {
    require_business(conn, id)?;
    let values = (
        businesses::subscription_status.eq(set.status.as_str()),
        set.price_id.map(|price| businesses::plan_type.eq(price)),
        businesses::override_ends_at.eq(set.ends_at.map(Time::of)),
    );
    diesel::update(businesses::table.filter(businesses::business_id.eq(id.as_str())))
        .set(values)
        .execute(conn)
        .map_err(store_error)?;
    billing(conn, id)
}
