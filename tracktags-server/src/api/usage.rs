//! Where an account stands, and whether the server does.

use super::Answer;
use crate::call::standing::LimitStatus;
use crate::error::{ApiError, Code};
use crate::identity::{Anonymous, Observer, Reader};
use crate::request::Input;
use actix_web::HttpResponse;
use actix_web::http::header::ContentType;
use serde::Serialize;
use serde_json::json;
use std::sync::Arc;
use tracktags_core::accounts::{Account, CustomerId};
use tracktags_core::error::Entity;
use tracktags_core::limits::Terms;
use tracktags_core::time::Timestamp;
use tracktags_core::traits::{AccountUsage, MetricUsage};

#[derive(Serialize)]
struct Shown<'a> {
    customer_id: Option<&'a str>,
    business_id: &'a str,
    plan_id: Option<&'a str>,
    plan_in_force: Option<&'a str>,
    as_of: Timestamp,
    metrics: Vec<ShownMetric<'a>>,
}

#[derive(Serialize)]
struct ShownMetric<'a> {
    metric_name: &'a str,
    scope: &'static str,
    operation: &'static str,
    current_value: i64,
    held: i64,
    limits: Vec<LimitStatus<'a>>,
}

/// `GET /api/v1/usage`
pub(crate) async fn read(reader: Reader, input: Input) -> Answer {
    let account = account_of(&reader, input.query("customer_id"))?;
    let Some(terms) = input.app.store.read_terms(account).await? else {
        return Err(match (reader.customer, input.query("customer_id")) {
            // Deleted since its key was read.
            (Some(_), _) => ApiError::invalid_key(),
            (None, Some(_)) => ApiError::not_found(Entity::Customer),
            (None, None) => ApiError::not_found(Entity::Business),
        });
    };
    let place = match input.query("metric_name") {
        None => None,
        Some(name) => Some(terms.limits.find(&name).ok_or_else(|| ApiError::not_found(Entity::Metric))?),
    };
    let usage = input.app.store.usage(Arc::clone(&terms), place).await?;
    Ok(HttpResponse::Ok().json(shown(&terms, &usage)))
}

/// Whose usage is asked for.
fn account_of(reader: &Reader, asked: Option<String>) -> Result<Account, ApiError> {
    let business = reader.business.clone();
    match (&reader.customer, asked) {
        (Some(own), Some(asked)) if own.as_str() != asked => {
            Err(ApiError::new(Code::CustomerMismatch, "This key reads its own customer's usage only."))
        }
        (Some(own), _) => Ok(Account::customer(business, own.clone())),
        (None, Some(asked)) => {
            let customer = CustomerId::parse(&asked);
            let customer = customer.map_err(|_against_grammar| ApiError::not_found(Entity::Customer))?;
            Ok(Account::customer(business, customer))
        }
        (None, None) => Ok(Account::business(business)),
    }
}

fn shown<'a>(terms: &'a Terms, usage: &'a AccountUsage) -> Shown<'a> {
    Shown {
        customer_id: terms.account.customer.as_ref().map(CustomerId::as_str),
        business_id: terms.account.business.as_str(),
        plan_id: terms.plan_id.as_deref(),
        plan_in_force: terms.plan_in_force.as_deref(),
        as_of: usage.as_of,
        metrics: usage.metrics.iter().filter_map(|metric| shown_metric(terms, metric)).collect(),
    }
}

fn shown_metric<'a>(terms: &'a Terms, usage: &'a MetricUsage) -> Option<ShownMetric<'a>> {
    let entry = terms.limits.get(usage.state.place)?;
    let limits = entry.limits.iter().zip(&usage.state.limits);
    Some(ShownMetric {
        metric_name: entry.metric.name.as_str(),
        scope: entry.metric.scope.as_str(),
        operation: entry.metric.operation.as_str(),
        current_value: usage.state.value,
        held: usage.held,
        limits: limits.map(|(limit, state)| LimitStatus::of(limit, state)).collect(),
    })
}

/// `GET /health`
pub(crate) async fn health(_: Anonymous, _: Input) -> Answer {
    std::future::ready(Ok(HttpResponse::Ok().content_type(ContentType::plaintext()).body("OK"))).await
}

/// `GET /ready`
pub(crate) async fn ready(observer: Observer, input: Input) -> Answer {
    let answer = match input.app.not_ready() {
        None => HttpResponse::Ok().json(json!({"status": "ready"})),
        Some(reason) if observer.is_admin => {
            HttpResponse::ServiceUnavailable().json(json!({"status": "not_ready", "reason": reason}))
        }
        Some(_) => HttpResponse::ServiceUnavailable().json(json!({"status": "not_ready"})),
    };
    std::future::ready(Ok(answer)).await
}
