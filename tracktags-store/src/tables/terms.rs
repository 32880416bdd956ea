//! Whom a key speaks for and what holds for an account, each read in the snapshot of the caller's transaction
//! together with the configuration version.
//!
//! An account's terms cost the same with a million customers: only the business-wide limits, those of the plan in
//! force and the customer's own are read, each by its index. A row that makes no sense (written with checks off)
//! refuses its metric and raises an alert; it never stops a read.

use super::accounts::find_settings;
use super::changes::version;
use super::claims::{ClaimRow, claim, owner_of};
use super::customers::{find_customer, free_plan};
use super::dialect::Conn;
use super::limits::{LimitRow, customer_rows, plan_rows, wide_rows};
use super::metrics::metric_rows;
use super::plans::plan;
use crate::secrets::{KeyFacts, Secrets, is_hash};
use tracktags_core::accounts::{Account, BusinessId, CustomerId, Identity, MetricName};
use tracktags_core::error::StoreError;
use tracktags_core::keys::{KeyHash, Scopes};
use tracktags_core::limits::{Attachment, Limit, LimitSet, Terms, resolve};
use tracktags_core::metrics::{Metric, Units};
use tracktags_core::time::Timestamp;
use tracktags_core::windows::{Calendar, Period};

/// Whom the key of this hash speaks for; `None` for an unknown, revoked, expired or forged one, or a deleted owner.
/// `claimed` is the customer that stands in the key.
pub(crate) fn identify(
    conn: &mut Conn,
    now: Timestamp,
    secrets: &Secrets,
    hash: KeyHash,
    claimed: Option<&CustomerId>,
) -> Result<Option<Identity>, StoreError> {
    let Some(row) = claim(conn, &hash, claimed.is_some())? else { return Ok(None) };
    let Some((business, customer, expires_at)) = proved(&row, secrets, &hash) else { return Ok(None) };
    let Some(scopes) = Scopes::from_text(row.scopes.as_deref()) else { return Ok(None) };
    let lives =
        row.revoked_at.is_none() && expires_at.is_none_or(|at| now < at) && customer.as_ref() == claimed;
    if !lives || find_settings(conn, &business)?.is_none() {
        return Ok(None);
    }
    if let Some(customer) = &customer
        && find_customer(conn, &business, customer)?.is_none()
    {
        return Ok(None);
    }
    let version = version(conn, &business)?;
    let account = Account { business, customer };
    Ok(Some(Identity { key_id: row.id.into(), account, scopes, expires_at, version }))
}

/// What the row says, if it is a row of ours.
fn proved(
    row: &ClaimRow,
    secrets: &Secrets,
    hash: &KeyHash,
) -> Option<(BusinessId, Option<CustomerId>, Option<Timestamp>)> {
    let (business, customer) = owner_of(row)?;
    let expires_at = match &row.expires_at {
        Some(end) => Some(end.read()?),
        None => None,
    };
    let facts = KeyFacts {
        id: &row.id,
        hash: &row.key_hash,
        business: &business,
        customer: customer.as_ref(),
        expires_at,
        scopes: row.scopes.as_deref(),
    };
    let proved = is_hash(&row.key_hash, hash) && secrets.proves(row.row_mac.as_deref()?, &facts);
    proved.then_some((business, customer, expires_at))
}

/// Which plan holds for a customer, and until when.
#[derive(Default)]
struct Standing {
    plan_id: Option<String>,
    in_force: Option<String>,
    good_until: Option<Timestamp>,
    anchor_day: Option<u8>,
}

/// What holds for an account; `None` where business or customer do not exist.
pub(crate) fn terms(conn: &mut Conn, now: Timestamp, account: &Account) -> Result<Option<Terms>, StoreError> {
    let business = &account.business;
    let Some(settings) = find_settings(conn, business)? else { return Ok(None) };
    let standing = match &account.customer {
        None => Standing::default(),
        Some(customer) => match standing(conn, now, business, customer)? {
            Some(standing) => standing,
            None => return Ok(None),
        },
    };
    let calendar = calendar(business, &settings.timezone, standing.anchor_day);
    let (metrics, mut limits) = read_metrics(conn, account)?;
    // Those that refuse come first: of equals, the first one wins.
    read_limits(conn, account, standing.in_force.as_deref(), &mut limits)?;
    let rules = resolve(account, &calendar, standing.in_force.as_deref(), metrics, limits);
    Ok(Some(Terms {
        account: account.clone(),
        version: version(conn, business)?,
        plan_id: standing.plan_id.map(Into::into),
        plan_in_force: standing.in_force.map(Into::into),
        good_until: standing.good_until,
        calendar,
        enforcement: settings.enforcement,
        default_metric: settings.default_metric,
        target_policy: settings.target_policy,
        limits: LimitSet::new(account, rules),
    }))
}

fn standing(
    conn: &mut Conn,
    now: Timestamp,
    business: &BusinessId,
    customer: &CustomerId,
) -> Result<Option<Standing>, StoreError> {
    let Some(row) = find_customer(conn, business, customer)? else { return Ok(None) };
    let ends_at = row.ends_at();
    let free = if ends_at.is_some() { free_plan(conn, business)? } else { None };
    let another = free.is_some() && free != row.plan_id;
    Ok(Some(Standing {
        in_force: row.plan_in_force(free.as_deref(), now),
        good_until: ends_at.filter(|end| now < *end && another),
        anchor_day: row.anchor_day(),
        plan_id: row.plan_id,
    }))
}

/// The calendar; a zone that is none (SQL users can write one) is read as UTC, so that windows still are cut.
fn calendar(business: &BusinessId, zone: &str, anchor_day: Option<u8>) -> Calendar {
    let calendar = Calendar::in_zone(zone).unwrap_or_else(|error| {
        tracing::error!(%business, %error, "businesses.timezone is no time zone: UTC is used");
        Calendar::utc()
    });
    calendar.clone().anchored(anchor_day).unwrap_or(calendar)
}

/// The metrics of the account's scope, and a refusal for each that makes no sense.
fn read_metrics(conn: &mut Conn, account: &Account) -> Result<(Vec<Metric>, Vec<Limit>), StoreError> {
    let (mut metrics, mut denials) = (Vec::new(), Vec::new());
    for row in metric_rows(conn, &account.business, account.scope())? {
        if let Some(metric) = row.read(account.scope()) {
            metrics.push(metric);
            continue;
        }
        let business = &account.business;
        tracing::error!(%business, metric = row.metric_name, "a row of metrics makes no sense: it is refused");
        if let Ok(name) = MetricName::parse(&row.metric_name) {
            let mut denial = Limit::new(name, Units::ZERO, Period::Realtime);
            denial.attachment = closest(account);
            denials.push(denial);
        }
    }
    Ok((metrics, denials))
}

/// The attachment that no other overrules.
fn closest(account: &Account) -> Attachment {
    account.customer.clone().map_or(Attachment::Business, Attachment::Customer)
}

/// Adds the limits that may apply, those first that stand in for rows that make no sense.
fn read_limits(
    conn: &mut Conn,
    account: &Account,
    plan_in_force: Option<&str>,
    limits: &mut Vec<Limit>,
) -> Result<(), StoreError> {
    let business = &account.business;
    let mut good = Vec::new();
    let mut take = |rows: Vec<LimitRow>, orphans: bool| {
        for row in rows {
            match row.read().filter(|_| !orphans) {
                Some(limit) => good.push(limit),
                None => {
                    let (id, metric) = (&row.id, &row.metric_name);
                    tracing::error!(%business, id, metric, "a row of plan_limits makes no sense: its metric is refused");
                    limits.extend(row.deny(closest(account)));
                }
            }
        }
    };
    take(wide_rows(conn, business)?, false);
    if let Some(customer) = &account.customer {
        take(customer_rows(conn, business, customer)?, false);
        if let Some(id) = plan_in_force {
            let orphans = match plan(conn, business, id) {
                Ok(_) => false,
                Err(StoreError::NotFound { .. }) => true,
                Err(error) => return Err(error),
            };
            if orphans {
                tracing::error!(%business, %customer, plan = id, "customers.plan_id names no plan");
            }
            take(plan_rows(conn, business, id)?, orphans);
        }
    }
    limits.append(&mut good);
    Ok(())
}
