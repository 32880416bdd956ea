//! Where an account stands, and whether the server does.

use super::Answer;
use crate::call::standing::LimitStatus;
use crate::call::writer::Json;
use crate::error::{ApiError, Code};
use crate::identity::{Anonymous, Observer, Reader, Scraper};
use crate::request::Input;
use actix_web::HttpResponse;
use actix_web::http::header::ContentType;
use serde_json::json;
use std::sync::Arc;
use tracktags_core::accounts::{Account, CustomerId};
use tracktags_core::error::Entity;
use tracktags_core::limits::Terms;
use tracktags_core::traits::AccountUsage;

/// `GET /api/v1/usage`
pub(crate) async fn read(reader: Reader, input: Input) -> Answer {
    let account = account_of(&reader, input.query("customer_id"))?;
    let terms = terms_of(&input, &reader, account).await?;
    let place = match input.query("metric_name") {
        None => None,
        Some(name) => Some(terms.limits.find(&name).ok_or_else(|| ApiError::not_found(Entity::Metric))?),
    };
    let usage = input.app.store.usage(Arc::clone(&terms), place).await?;
    Ok(HttpResponse::Ok().content_type(ContentType::json()).body(shown(&terms, &usage)))
}

/// The refusal of a customer's key that asks for another account's usage.
pub(super) fn own_usage_only() -> ApiError {
    ApiError::new(Code::CustomerMismatch, "This key reads its own customer's usage only.")
}

/// Whose usage is asked for.
pub(super) fn account_of(reader: &Reader, asked: Option<String>) -> Result<Account, ApiError> {
    let business = reader.business.clone();
    match (&reader.customer, asked) {
        (Some(own), Some(asked)) if own.as_str() != asked => Err(own_usage_only()),
        (Some(own), _) => Ok(Account::customer(business, own.clone())),
        (None, Some(asked)) => {
            let customer = CustomerId::parse(&asked);
            let customer = customer.map_err(|_against_grammar| ApiError::not_found(Entity::Customer))?;
            Ok(Account::customer(business, customer))
        }
        (None, None) => Ok(Account::business(business)),
    }
}

/// What holds for the account that is asked for.
pub(super) async fn terms_of(
    input: &Input,
    reader: &Reader,
    account: Account,
) -> Result<Arc<Terms>, ApiError> {
    let is_customer = account.customer.is_some();
    let terms = input.app.store.read_terms(account).await?;
    terms.ok_or_else(|| match (&reader.customer, is_customer) {
        // Deleted since its key was read.
        (Some(_), _) => ApiError::invalid_key(),
        (None, true) => ApiError::not_found(Entity::Customer),
        (None, false) => ApiError::not_found(Entity::Business),
    })
}

fn shown(terms: &Terms, usage: &AccountUsage) -> Vec<u8> {
    let mut json = Json::new(SHOWN_BYTES);
    json.field("customer_id", &terms.account.customer.as_ref().map(CustomerId::as_str));
    json.field("business_id", terms.account.business.as_str());
    json.field("plan_id", &terms.plan_id);
    json.field("plan_in_force", &terms.plan_in_force);
    json.field_time("as_of", Some(usage.as_of));
    let metrics =
        usage.metrics.iter().filter_map(|metric| Some((terms.limits.get(metric.state.place)?, metric)));
    json.objects("metrics", metrics, |json, (entry, usage)| {
        json.field("metric_name", entry.metric.name.as_str());
        json.field_word("scope", entry.metric.scope.as_str());
        json.field_word("operation", entry.metric.operation.as_str());
        json.field_number("current_value", usage.state.value);
        json.field_number("held", usage.held);
        let limits = entry.limits.iter().zip(&usage.state.limits);
        json.objects("limits", limits, |json, (limit, state)| LimitStatus::of(limit, state).write(json));
    });
    json.finish()
}

/// Room for an account with a few metrics.
const SHOWN_BYTES: usize = 2_048;

/// `GET /health`
pub(crate) async fn health(_: Anonymous, _: Input) -> Answer {
    std::future::ready(Ok(HttpResponse::Ok().content_type(ContentType::plaintext()).body("OK"))).await
}

/// `GET /openapi.json`
pub(crate) async fn openapi(_: Anonymous, input: Input) -> Answer {
    let answer = HttpResponse::Ok().content_type(ContentType::json()).body(input.app.contract.clone());
    std::future::ready(Ok(answer)).await
}

/// `GET /metrics`
pub(crate) async fn meters(_: Scraper, input: Input) -> Answer {
    let shown = input.app.meters.shown(&input.app).map_err(|_format| ApiError::internal("meters"))?;
    let answer = HttpResponse::Ok().content_type(OPEN_METRICS).body(shown);
    std::future::ready(Ok(answer)).await
}

/// What `/metrics` is written in.
pub(crate) const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

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
