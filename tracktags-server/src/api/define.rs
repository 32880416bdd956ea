//! Metrics defined, changed and deleted by hand.

use super::metrics::{SHOWN_BYTES, Whose, definition, name_of, shown};
use super::usage::terms_of;
use super::{Answer, shape, words_of};
use crate::call::writer::Json;
use crate::error::ApiError;
use crate::form::{Form, set};
use crate::identity::{Business, Reader};
use crate::request::Input;
use actix_web::HttpResponse;
use actix_web::http::header::ContentType;
use std::sync::Arc;
use tracktags_core::accounts::{Account, BusinessId, CustomerId, MetricName, Scope};
use tracktags_core::audit::{Author, Correction, Event};
use tracktags_core::demand::Operation;
use tracktags_core::error::Entity;
use tracktags_core::limits::{Action, Attachment, Operator};
use tracktags_core::metrics::{self, Interval, MetricType, Units};
use tracktags_core::traits::{InlineLimit, LimitQuery, MetricDefinition, MetricFields, PageRequest};
use tracktags_core::windows::Period;

/// The words of `cleanup_after`, which is kept for information.
const CLEANUPS: [&str; 8] = ["5s", "1m", "1h", "6h", "1d", "7d", "30d", "never"];
/// Values reset in one go.
const RESETS: usize = 256;

/// The fields that definition and change share.
pub(crate) fn common(form: &mut Form) -> MetricFields {
    MetricFields {
        operation: form.word("operation", words_of!(metrics::Operation)),
        metric_type: form.word("metric_type", words_of!(MetricType)),
        interval: form.word("flush_interval", words_of!(Interval)),
        cleanup_after: None,
        tags: set(form.strings_change("tags")),
        metadata: set(form.object_change("metadata")),
    }
}

/// What `POST` says.
pub(crate) struct New {
    name: MetricName,
    fields: MetricFields,
    limit: Option<NewLimit>,
    initial: Units,
}

/// A limit to be made along with a metric.
struct NewLimit {
    value: Units,
    operator: Operator,
    period: Option<Period>,
    action: Action,
}

/// Reads a definition.
pub(crate) fn read_metric(mut form: Form) -> Result<New, ApiError> {
    form.require("metric_name");
    let name = form.metric("metric_name");
    let mut fields = common(&mut form);
    fields.cleanup_after = form.word("cleanup_after", &CLEANUPS.map(|word| (word, word))).map(str::to_owned);
    let initial = form.units("initial_value").unwrap_or_default();
    let asked = ["limit_operator", "limit_period", "breach_action"].map(|name| form.has(name));
    let value = form.units("limit_value");
    if asked.contains(&true) && value.is_none() {
        form.problem("limit_value", "is required with a limit's other fields");
    }
    let operator = form.word("limit_operator", words_of!(Operator));
    let period = form.word("limit_period", words_of!(Period));
    let action = form.word("breach_action", words_of!(Action));
    let name = form.made(name)?;
    let limit = value.map(|value| NewLimit {
        value,
        operator: operator.unwrap_or(Operator::Gte),
        period,
        action: action.unwrap_or(Action::Disabled),
    });
    Ok(New { name, fields, limit, initial })
}

impl NewLimit {
    /// The limit for whom the metric is defined.
    fn of(self, whose: &Whose) -> InlineLimit {
        let customer = whose.account.as_ref().and_then(|account| account.customer.clone());
        InlineLimit {
            attachment: customer.map_or(Attachment::Business, Attachment::Customer),
            value: self.value,
            operator: self.operator,
            period: self.period,
            action: self.action,
        }
    }
}

/// Refuses a customer who is not there.
async fn check_customer(input: &Input, business: &BusinessId, whose: &Whose) -> Result<(), ApiError> {
    if let Some(customer) = whose.account.as_ref().and_then(|account| account.customer.clone()) {
        drop(input.app.store.customer(business.clone(), customer).await?);
    }
    Ok(())
}

/// `POST /api/v1/metrics`
pub(crate) async fn create(business: Business, mut input: Input) -> Answer {
    let Business { id, by } = business;
    let reader = Reader { business: id, customer: None };
    let whose = Whose::asked(&reader, &input)?;
    let New { name, fields, limit, initial } = read_metric(input.form().await?)?;
    if initial != Units::ZERO && whose.account.is_none() {
        return Err(ApiError::field(
            "initial_value",
            "needs an account: name the customer with ?customer_id=",
        ));
    }
    let store = &*input.app.store;
    check_customer(&input, &reader.business, &whose).await?;
    let definition = MetricDefinition {
        business: reader.business.clone(),
        name: name.clone(),
        scope: whose.scope,
        fields,
        limit: limit.map(|limit| limit.of(&whose)),
    };
    let (record, is_new) = store.define_metric(by, definition).await?;
    let standing = match whose.account {
        None => None,
        Some(account) => {
            let terms = terms_of(&input, &reader, account).await?;
            let place = terms.limits.find(name.as_str());
            let place = place.ok_or_else(|| ApiError::not_found(Entity::Metric))?;
            if initial != Units::ZERO {
                let (terms, units) = (Arc::clone(&terms), initial);
                // Defined before, it is usage like any other.
                let counted = if is_new {
                    Operation::Start { terms, place, units }
                } else {
                    Operation::Record { terms, place, units, when: None }
                };
                drop(store.commit(vec![counted]).await?);
            }
            let usage = store.usage(Arc::clone(&terms), Some(place)).await?;
            let first = usage.metrics.into_iter().next();
            Some((terms, first.ok_or_else(|| ApiError::not_found(Entity::Metric))?, usage.as_of))
        }
    };
    let mut json = Json::new(SHOWN_BYTES);
    json.field_word("status", "created");
    json.field_number("initial_value", initial.get());
    shown(&mut json, &reader, &record, standing.as_ref(), input.app.clock.now());
    Ok(HttpResponse::Created().content_type(ContentType::json()).body(json.finish()))
}

/// `PATCH /api/v1/metrics/{name}`
pub(crate) async fn update(business: Business, mut input: Input) -> Answer {
    let Business { id, by } = business;
    let whose = Whose::asked(&Reader { business: id.clone(), customer: None }, &input)?;
    let name = name_of(&input)?;
    let mut form = input.form().await?;
    let fields = common(&mut form);
    form.finish()?;
    check_customer(&input, &id, &whose).await?;
    let record = input.app.store.update_metric(by, id, name, whose.scope, fields).await?;
    Ok(HttpResponse::Ok().json(definition(&record)))
}

/// `DELETE /api/v1/metrics/{name}`: a customer's value and own limits, or the definition and every value.
pub(crate) async fn delete(business: Business, input: Input) -> Answer {
    let Business { id, by } = business;
    let reader = Reader { business: id.clone(), customer: None };
    let whose = Whose::asked(&reader, &input)?;
    let name = name_of(&input)?;
    let records = input.app.store.metric(id.clone(), name.clone()).await?;
    if !records.iter().any(|record| record.metric.scope == whose.scope) {
        return Err(ApiError::not_found(Entity::Metric));
    }
    match whose.account.as_ref().and_then(|account| account.customer.clone()) {
        Some(customer) => delete_of_customer(&input, by, &reader, &name, customer).await?,
        None => delete_everywhere(&input, by, &id, &name, whose.scope).await?,
    }
    let said = shape! {"status": "deleted", "metric_name": name, "business_id": id};
    Ok(HttpResponse::Ok().json(said))
}

async fn delete_of_customer(
    input: &Input,
    by: Author,
    reader: &Reader,
    name: &MetricName,
    customer: CustomerId,
) -> Result<(), ApiError> {
    let store = &*input.app.store;
    let business = reader.business.clone();
    let removed =
        store.delete_inline_limits(by.clone(), business.clone(), name.clone(), customer.clone()).await?;
    let resource_id = format!("{customer}/{name}");
    let terms = terms_of(input, reader, Account::customer(business.clone(), customer)).await?;
    let place = terms.limits.find(name.as_str()).ok_or_else(|| ApiError::not_found(Entity::Metric))?;
    let operations = vec![Operation::Reset { terms, place, level_too: true }];
    if removed > 0 {
        // The trail has it already, with the limits.
        store.commit(operations).await?;
    } else {
        let after = Some("{}".to_owned());
        let event = Event { business: Some(business), action: "metric.delete", resource_id, after };
        store.correct(by, Correction { event, operations }).await?;
    }
    Ok(())
}

async fn delete_everywhere(
    input: &Input,
    by: Author,
    business: &BusinessId,
    name: &MetricName,
    scope: Scope,
) -> Result<(), ApiError> {
    let store = &*input.app.store;
    // Nothing is reset where the deletion would be refused.
    let naming = LimitQuery {
        business: business.clone(),
        plan_id: None,
        customer_id: None,
        metric_name: Some(name.clone()),
        page: PageRequest { after: None, count_max: 1 },
    };
    let named = !store.limits(naming).await?.items.is_empty();
    let settings = store.settings(business.clone()).await?;
    if !named && settings.default_metric.as_ref() != Some(name) {
        let accounts = store.accounts_with(business.clone(), name.clone(), scope).await?;
        for accounts in accounts.chunks(RESETS) {
            let mut resets = Vec::new();
            for account in accounts {
                let Some(terms) = store.read_terms(account.clone()).await? else { continue };
                let Some(place) = terms.limits.find(name.as_str()) else { continue };
                resets.push(Operation::Reset { terms, place, level_too: true });
            }
            store.commit(resets).await?;
        }
    }
    Ok(store.delete_metric(by, business.clone(), name.clone(), scope).await?)
}
