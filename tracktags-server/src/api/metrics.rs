//! Metrics: what a business measures, where an account stands with each, and usage recorded or corrected by hand.

use super::usage::{account_of, own_usage_only, terms_of};
use super::{Answer, Shape, shape};
use crate::call::standing::LimitStatus;
use crate::call::writer::Json;
use crate::error::{ApiError, Code};
use crate::form::{Form, RANGE_ADVICE};
use crate::identity::{Business, Reader};
use crate::lists::List;
use crate::request::Input;
use actix_web::HttpResponse;
use actix_web::http::header::ContentType;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;
use tracktags_core::accounts::{Account, CustomerId, MetricName, Scope};
use tracktags_core::audit::{Correction, Event};
use tracktags_core::batch::Outcome;
use tracktags_core::demand::Operation;
use tracktags_core::error::Entity;
use tracktags_core::limits::Terms;
use tracktags_core::metrics::{self, Units};
use tracktags_core::time::Timestamp;
use tracktags_core::traits::{MetricRecord, MetricUsage};

/// Room for a metric with a few limits.
pub(super) const SHOWN_BYTES: usize = 2_048;

/// Whose metrics are asked for: which scope's, and of which account, if one is named.
pub(super) struct Whose {
    pub(super) scope: Scope,
    pub(super) account: Option<Account>,
}

impl Whose {
    pub(super) fn asked(reader: &Reader, input: &Input) -> Result<Self, ApiError> {
        let customer = input.query("customer_id");
        let named = reader.customer.is_some() || customer.is_some();
        let scope = match input.query("scope") {
            None if named => Scope::Customer,
            None => Scope::Business,
            Some(word) => Scope::from_word(&word)
                .ok_or_else(|| ApiError::field("scope", "must be one of customer, business"))?,
        };
        let account = match scope {
            Scope::Business if reader.customer.is_some() => return Err(own_usage_only()),
            Scope::Business if named => {
                return Err(ApiError::field("customer_id", "leave it out, or choose scope customer"));
            }
            Scope::Customer if !named => None,
            Scope::Business | Scope::Customer => Some(account_of(reader, customer)?),
        };
        Ok(Self { scope, account })
    }
}

/// `GET /api/v1/metrics`
pub(crate) async fn list(reader: Reader, input: Input) -> Answer {
    let whose = Whose::asked(&reader, &input)?;
    let list = List::asked(&input, "metrics", reader.business.as_str())?;
    let named = whose.account.is_some();
    let values = match whose.account {
        Some(account) => values(&input, &reader, account).await?,
        None => HashMap::new(),
    };
    // Without a scope a business sees the definitions of both.
    let scope = (input.query("scope").is_some() || whose.scope == Scope::Customer).then_some(whose.scope);
    let page = input.app.store.metrics(reader.business, scope, list.page).await?;
    Ok(list.answer(page, |record| {
        let value = named.then(|| values.get(&record.metric.name).copied().unwrap_or_default());
        let value = value.filter(|_| record.metric.scope == whose.scope);
        let shown = definition(&record);
        match value {
            Some(value) => shown.and(shape! {"current_value": value}),
            None => shown,
        }
    }))
}

/// What is kept of a metric, as it is printed.
pub(super) fn definition(record: &MetricRecord) -> Shape {
    shape! {
        "metric_name": record.metric.name,
        "scope": record.metric.scope,
        "operation": record.metric.operation,
        "metric_type": record.metric.metric_type,
        "flush_interval": record.metric.interval,
        "cleanup_after": record.cleanup_after,
        "tags": object(&record.tags),
        "metadata": object(&record.metadata),
    }
}

/// The values that an account's metrics have.
async fn values(
    input: &Input,
    reader: &Reader,
    account: Account,
) -> Result<HashMap<MetricName, i64>, ApiError> {
    let terms = terms_of(input, reader, account).await?;
    let usage = input.app.store.usage(Arc::clone(&terms), None).await?;
    let value = |metric: &MetricUsage| {
        Some((terms.limits.get(metric.state.place)?.metric.name.clone(), metric.state.value))
    };
    Ok(usage.metrics.iter().filter_map(value).collect())
}

/// `GET /api/v1/metrics/{name}`
pub(crate) async fn read(reader: Reader, input: Input) -> Answer {
    let whose = Whose::asked(&reader, &input)?;
    let name = name_of(&input)?;
    let standing = match whose.account {
        None => None,
        Some(account) => {
            let terms = terms_of(&input, &reader, account).await?;
            let place =
                terms.limits.find(name.as_str()).ok_or_else(|| ApiError::not_found(Entity::Metric))?;
            let usage = input.app.store.usage(Arc::clone(&terms), Some(place)).await?;
            let first = usage.metrics.into_iter().next();
            Some((terms, first.ok_or_else(|| ApiError::not_found(Entity::Metric))?, usage.as_of))
        }
    };
    let records = input.app.store.metric(reader.business.clone(), name).await?;
    let record = records.into_iter().find(|record| record.metric.scope == whose.scope);
    let record = record.ok_or_else(|| ApiError::not_found(Entity::Metric))?;
    let now = input.app.clock.now();
    let mut json = Json::new(SHOWN_BYTES);
    shown(&mut json, &reader, &record, standing.as_ref(), now);
    Ok(HttpResponse::Ok().content_type(ContentType::json()).body(json.finish()))
}

pub(super) fn name_of(input: &Input) -> Result<MetricName, ApiError> {
    MetricName::parse(&input.segment("name")).map_err(|_against_grammar| ApiError::not_found(Entity::Metric))
}

fn object(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_default()
}

/// Writes a metric, and where an account stands with it.
pub(super) fn shown(
    json: &mut Json,
    reader: &Reader,
    record: &MetricRecord,
    standing: Option<&(Arc<Terms>, MetricUsage, Timestamp)>,
    now: Timestamp,
) {
    let metric = &record.metric;
    json.field("metric_name", metric.name.as_str());
    json.field("business_id", reader.business.as_str());
    if metric.scope == Scope::Customer {
        let customer = standing.and_then(|(terms, _, _)| terms.account.customer.as_ref());
        json.field("customer_id", &customer.map(CustomerId::as_str));
    }
    json.field_word("scope", metric.scope.as_str());
    json.field_word("operation", metric.operation.as_str());
    json.field_word("metric_type", metric.metric_type.as_str());
    json.field_word("flush_interval", metric.interval.as_str());
    json.field("cleanup_after", &record.cleanup_after);
    json.field("tags", &object(&record.tags));
    json.field("metadata", &object(&record.metadata));
    let usage = standing.map(|(_, usage, _)| usage);
    json.field_maybe("current_value", usage.map(|usage| usage.state.value));
    let limits = standing.and_then(|(terms, usage, _)| terms.limits.get(usage.state.place));
    let limits = limits.into_iter().flat_map(|entry| entry.limits);
    let limits: Vec<_> = limits.zip(usage.into_iter().flat_map(|usage| &usage.state.limits)).collect();
    // The one that is printed where there is room for one: that with the least left.
    let printed = limits.iter().min_by_key(|(_, state)| state.remaining.unwrap_or(i64::MAX));
    json.field_maybe("limit_value", printed.map(|(limit, _)| limit.value.get()));
    json.field("limit_operator", &printed.map(|(limit, _)| limit.operator));
    json.field_flag("limit_breached", printed.is_some_and(|(_, state)| state.is_breached));
    json.field("breach_action", &printed.map(|(limit, _)| limit.action));
    json.objects("limits", &limits, |json, (limit, state)| LimitStatus::of(limit, state).write(json));
    json.field_time("timestamp", Some(standing.map_or(now, |(_, _, as_of)| *as_of)));
}

/// How usage is to be changed by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Update {
    /// It happened: counted, without asking.
    Record(Units),
    /// Less happened than was counted.
    TakeOff(Units),
    /// The value is to be this.
    SetTo(Units),
}

impl Update {
    /// Reads it.
    pub(crate) fn read(mut form: Form) -> Result<Self, ApiError> {
        match (form.has("value"), form.has("set_to")) {
            (true, true) => form.problem("set_to", "send it alone, or value alone"),
            (false, false) => form.problem("value", "is required, or set_to"),
            (true, false) | (false, true) => {}
        }
        let value = form.signed_units("value");
        let set_to = form.units("set_to");
        form.finish()?;
        let units = Units::new(value.unwrap_or_default().saturating_abs()).unwrap_or_default();
        Ok(match (set_to, value) {
            (Some(units), _) => Self::SetTo(units),
            (None, Some(value)) if value < 0 => Self::TakeOff(units),
            (None, _) => Self::Record(units),
        })
    }

    /// What the ledger is to do. Only what adds up can be corrected; the latest sample is simply replaced.
    fn operation(self, terms: Arc<Terms>, place: usize) -> Result<Operation, ApiError> {
        let operation = terms.limits.get(place).map(|entry| entry.metric.operation);
        let adds_up = operation.is_some_and(metrics::Operation::is_releasable);
        let is_last = operation == Some(metrics::Operation::Last);
        match self {
            Self::TakeOff(units) if adds_up => Ok(Operation::Correct { terms, place, units }),
            Self::SetTo(units) if adds_up => Ok(Operation::SetTo { terms, place, units }),
            Self::Record(units) => Ok(Operation::Record { terms, place, units, when: None }),
            Self::SetTo(units) if is_last => Ok(Operation::Record { terms, place, units, when: None }),
            Self::TakeOff(_) => Err(ApiError::field("value", "only SUM and COUNT metrics can be taken back")),
            Self::SetTo(_) => Err(ApiError::field("set_to", "only SUM, COUNT and LAST metrics can be set")),
        }
    }

    /// What to say where the ledger cannot.
    fn impossible(self) -> ApiError {
        match self {
            Self::TakeOff(_) => ApiError::new(
                Code::UsageBelowZero,
                "This would take the metric's value below 0; take off less, or send set_to.",
            ),
            Self::Record(_) => ApiError::field("value", RANGE_ADVICE),
            Self::SetTo(_) => ApiError::field("set_to", RANGE_ADVICE),
        }
    }
}

/// How the trail names an account's usage of a metric.
fn corrected(terms: &Terms, name: &MetricName) -> String {
    match &terms.account.customer {
        Some(customer) => format!("{customer}/{name}"),
        None => name.to_string(),
    }
}

/// `PUT /api/v1/metrics/{name}`
pub(crate) async fn update(business: Business, mut input: Input) -> Answer {
    let Business { id, by } = business;
    let reader = Reader { business: id, customer: None };
    let whose = Whose::asked(&reader, &input)?;
    let update = Update::read(input.form().await?)?;
    let name = name_of(&input)?;
    let Some(account) = whose.account else {
        return Err(ApiError::field("customer_id", "is required with scope customer"));
    };
    let terms = terms_of(&input, &reader, account).await?;
    let place = terms.limits.find(name.as_str()).ok_or_else(|| ApiError::not_found(Entity::Metric))?;
    let operation = update.operation(Arc::clone(&terms), place)?;
    let done = match update {
        Update::Record(_) => input.app.store.commit(vec![operation]).await?,
        Update::TakeOff(_) | Update::SetTo(_) => {
            let event = Event {
                business: Some(reader.business.clone()),
                action: "usage.correct",
                resource_id: corrected(&terms, &name),
                after: None,
            };
            input.app.store.correct(by, Correction { event, operations: vec![operation] }).await?
        }
    };
    let Some(Outcome::Done { value, .. }) = done.into_iter().next() else { return Err(update.impossible()) };
    let mut json = Json::new(SHOWN_BYTES);
    json.field_word("status", "updated");
    json.field("business_id", reader.business.as_str());
    if let Some(customer) = &terms.account.customer {
        json.field("customer_id", customer.as_str());
    }
    json.field("metric_name", name.as_str());
    json.field_number("new_value", value);
    json.field_time("timestamp", Some(input.app.clock.now()));
    Ok(HttpResponse::Ok().content_type(ContentType::json()).body(json.finish()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<Update, ApiError> {
        Update::read(Form::parse(body.as_bytes()).unwrap())
    }

    #[test]
    fn a_delta_records_or_takes_off() {
        let units = |units| Units::new(units).unwrap();
        assert_eq!(read(r#"{"value":5.0}"#).unwrap(), Update::Record(units(5)));
        for body in [r#"{"value":-5}"#, r#"{"value":-5.0}"#, r#"{"value":-0.5e1}"#] {
            assert_eq!(read(body).unwrap(), Update::TakeOff(units(5)), "{body}");
        }
        assert_eq!(read(r#"{"set_to":0}"#).unwrap(), Update::SetTo(units(0)));
    }

    #[test]
    fn bad_updates_are_refused_with_their_code() {
        for (body, code) in [
            (r"{}", Code::ValidationFailed),
            (r#"{"value":1,"set_to":1}"#, Code::ValidationFailed),
            (r#"{"set_to":-1}"#, Code::ValidationFailed),
            (r#"{"value":"1"}"#, Code::ValidationFailed),
            (r#"{"value":-9007199254740992}"#, Code::ValidationFailed),
            (r#"{"value":0.5}"#, Code::NotIntegral),
            (r#"{"value":-0.5}"#, Code::NotIntegral),
            (r#"{"value":-1e300}"#, Code::ValidationFailed),
            (r#"{"value":1,"units":1}"#, Code::UnknownField),
        ] {
            assert_eq!(read(body).unwrap_err().code(), code, "{body}");
        }
    }
}
