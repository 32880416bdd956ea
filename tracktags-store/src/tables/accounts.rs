//! ② Businesses and their settings. Customers stand in `customers`.

use super::dialect::{AnyCase, Conn, Time};
use super::error::store_error;
use super::metrics::metric_exists;
use super::pages::{holds, page_of, page_rows};
use super::schema::businesses;
use diesel::prelude::*;
use tracktags_core::accounts::{
    Business, BusinessId, CUSTOMER_KEYS_MAX, Enforcement, MetricName, Settings, TargetChoice,
};
use tracktags_core::error::{Entity, StoreError};
use tracktags_core::time::Timestamp;
use tracktags_core::traits::{BusinessQuery, Change, NewBusiness, Page, SettingsChange};

// ---- businesses ----

#[derive(Queryable, Selectable)]
#[diesel(table_name = businesses)]
pub(crate) struct BusinessRow {
    seq: i64,
    business_id: String,
    business_name: String,
    email: String,
    user_id: Option<String>,
    created_at: Time,
    deleted_at: Option<Time>,
}

impl BusinessRow {
    pub(crate) fn read(self) -> Option<Business> {
        Some(Business {
            business_id: BusinessId::parse(&self.business_id).ok()?,
            business_name: self.business_name,
            email: self.email,
            user_id: self.user_id,
            created_at: self.created_at.read_or_start(),
            deleted_at: self.deleted_at.as_ref().map(Time::read_or_start),
        })
    }
}

/// Refuses a business that is not there.
pub(crate) fn require_business(conn: &mut Conn, id: &BusinessId) -> Result<(), StoreError> {
    let there = businesses::table
        .filter(businesses::business_id.eq(id.as_str()))
        .filter(businesses::deleted_at.is_null());
    let there: bool = diesel::select(diesel::dsl::exists(there)).get_result(conn).map_err(store_error)?;
    if there { Ok(()) } else { Err(StoreError::not_found(Entity::Business, id.as_str())) }
}

/// Creates a business.
pub(crate) fn create_business(
    conn: &mut Conn,
    now: Timestamp,
    business: NewBusiness,
) -> Result<Business, StoreError> {
    let values = (
        businesses::business_name.eq(business.business_name),
        businesses::email.eq(business.email),
        businesses::user_id.eq(business.user_id),
        businesses::created_at.eq(Time::of(now)),
    );
    let row = diesel::insert_into(businesses::table)
        .values(values)
        .returning(BusinessRow::as_returning())
        .get_result(conn)
        .map_err(store_error)?;
    row.read().ok_or_else(|| StoreError::Corrupt("a new business has no good id".to_owned()))
}

/// One business.
pub(crate) fn business(conn: &mut Conn, id: &BusinessId) -> Result<Business, StoreError> {
    let row = businesses::table
        .filter(businesses::business_id.eq(id.as_str()))
        .filter(businesses::deleted_at.is_null())
        .select(BusinessRow::as_select())
        .get_result(conn)
        .optional()
        .map_err(store_error)?;
    row.and_then(BusinessRow::read).ok_or_else(|| StoreError::not_found(Entity::Business, id.as_str()))
}

/// Businesses, oldest first.
pub(crate) fn businesses(conn: &mut Conn, query: &BusinessQuery) -> Result<Page<Business>, StoreError> {
    let page = query.page;
    let mut rows = businesses::table
        .filter(businesses::deleted_at.is_null().ne(query.deleted))
        .filter(businesses::seq.gt(page.after.unwrap_or(0)))
        .order(businesses::seq)
        .select(BusinessRow::as_select())
        .limit(page_rows(page))
        .into_boxed();
    if let Some(text) = &query.text {
        let pattern = holds(text);
        rows = rows.filter(
            businesses::business_id
                .like_any_case(pattern.clone())
                .escape('\\')
                .or(businesses::business_name.like_any_case(pattern.clone()).escape('\\'))
                .or(businesses::email.like_any_case(pattern).escape('\\')),
        );
    }
    let rows = rows.load(conn).map_err(store_error)?;
    Ok(page_of(rows, page, |row| row.seq, BusinessRow::read))
}

/// Changes name or email.
pub(crate) fn update_business(
    conn: &mut Conn,
    _now: Timestamp,
    id: &BusinessId,
    business_name: Option<String>,
    email: Option<String>,
) -> Result<Business, StoreError> {
    require_business(conn, id)?;
    let fields = (
        business_name.map(|name| businesses::business_name.eq(name)),
        email.map(|email| businesses::email.eq(email)),
    );
    if fields.0.is_some() || fields.1.is_some() {
        diesel::update(businesses::table.filter(businesses::business_id.eq(id.as_str())))
            .set(fields)
            .execute(conn)
            .map_err(store_error)?;
    }
    business(conn, id)
}

/// Deletes a business. Triggers end its keys.
pub(crate) fn delete_business(
    conn: &mut Conn,
    now: Timestamp,
    id: &BusinessId,
) -> Result<Business, StoreError> {
    require_business(conn, id)?;
    set_deleted_at(conn, id, Some(Time::of(now)))
}

/// Brings a deleted business back; its keys stay revoked.
pub(crate) fn restore_business(conn: &mut Conn, id: &BusinessId) -> Result<Business, StoreError> {
    set_deleted_at(conn, id, None)
}

fn set_deleted_at(conn: &mut Conn, id: &BusinessId, at: Option<Time>) -> Result<Business, StoreError> {
    diesel::update(businesses::table.filter(businesses::business_id.eq(id.as_str())))
        .set(businesses::deleted_at.eq(at))
        .returning(BusinessRow::as_returning())
        .get_result(conn)
        .optional()
        .map_err(store_error)?
        .and_then(BusinessRow::read)
        .ok_or_else(|| StoreError::not_found(Entity::Business, id.as_str()))
}

// ---- settings ----

/// The settings' columns as they stand.
#[derive(Queryable, Selectable)]
#[diesel(table_name = businesses)]
struct SettingsRow {
    timezone: String,
    default_metric: Option<String>,
    enforcement: String,
    target_policy: String,
    max_customer_keys: i32,
}

impl SettingsRow {
    /// A word that makes no sense (written with checks off) is read as the stricter choice.
    fn read(self) -> Settings {
        let enforcement = match self.enforcement.as_str() {
            "observe" => Enforcement::Observe,
            _ => Enforcement::Enforce,
        };
        let target_policy = match self.target_policy.as_str() {
            "auto" => TargetChoice::Auto,
            "public" => TargetChoice::Public,
            _ => TargetChoice::Allowlist,
        };
        let default_metric = self.default_metric.and_then(|name| MetricName::parse(&name).ok());
        let max_customer_keys = u8::try_from(self.max_customer_keys.clamp(1, i32::from(CUSTOMER_KEYS_MAX)));
        Settings {
            timezone: self.timezone,
            default_metric,
            enforcement,
            target_policy,
            max_customer_keys: max_customer_keys.unwrap_or(1),
        }
    }
}

/// A live business's settings, if there is such a business.
pub(crate) fn find_settings(conn: &mut Conn, id: &BusinessId) -> Result<Option<Settings>, StoreError> {
    let row = businesses::table
        .filter(businesses::business_id.eq(id.as_str()))
        .filter(businesses::deleted_at.is_null())
        .select(SettingsRow::as_select())
        .get_result(conn)
        .optional()
        .map_err(store_error)?;
    Ok(row.map(SettingsRow::read))
}

/// A business's settings.
pub(crate) fn settings(conn: &mut Conn, id: &BusinessId) -> Result<Settings, StoreError> {
    find_settings(conn, id)?.ok_or_else(|| StoreError::not_found(Entity::Business, id.as_str()))
}

/// Changes settings.
pub(crate) fn update_settings(
    conn: &mut Conn,
    _now: Timestamp,
    id: &BusinessId,
    change: SettingsChange,
) -> Result<Settings, StoreError> {
    let mut settings = settings(conn, id)?;
    match change.default_metric {
        Change::Keep => {}
        Change::Clear => settings.default_metric = None,
        Change::Set(metric) => {
            if !metric_exists(conn, id, &metric)? {
                return Err(StoreError::not_found(Entity::Metric, metric.as_str()));
            }
            settings.default_metric = Some(metric);
        }
    }
    settings.timezone = change.timezone.unwrap_or(settings.timezone);
    settings.enforcement = change.enforcement.unwrap_or(settings.enforcement);
    settings.target_policy = change.target_policy.unwrap_or(settings.target_policy);
    settings.max_customer_keys = change.max_customer_keys.unwrap_or(settings.max_customer_keys);
    let values = (
        businesses::max_customer_keys.eq(i32::from(settings.max_customer_keys)),
        businesses::timezone.eq(&settings.timezone),
        businesses::default_metric.eq(settings.default_metric.as_ref().map(MetricName::as_str)),
        businesses::enforcement.eq(settings.enforcement.as_str()),
        businesses::target_policy.eq(settings.target_policy.as_str()),
    );
    diesel::update(businesses::table.filter(businesses::business_id.eq(id.as_str())))
        .set(values)
        .execute(conn)
        .map_err(store_error)?;
    Ok(settings)
}
