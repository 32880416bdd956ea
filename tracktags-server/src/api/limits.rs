//! Plan limits and plans. Every change holds on the next request and keeps the usage.

use super::{Answer, Shape, shape, words_of};
use crate::error::{ApiError, Code, Detail};
use crate::form::{Form, set};
use crate::identity::Business;
use crate::lists::List;
use crate::request::Input;
use actix_web::HttpResponse;
use tracktags_core::accounts::{BusinessId, CustomerId, MetricName};
use tracktags_core::error::Entity;
use tracktags_core::limits::{Action, Attachment, Limit, Operator, Plan};
use tracktags_core::metrics::{MetricType, Units};
use tracktags_core::traits::{Change, LimitChange, LimitQuery, NewLimit, PlanFields};
use tracktags_core::windows::Period;
use url::Url;

const ID_CHARS_MAX: usize = 255;
const URLS_CHARS_MAX: usize = 8_192;
const METER_CHARS_MAX: usize = 100;
const THRESHOLDS_MAX: usize = 10;

fn shown(limit: &Limit) -> Shape {
    let (plan, customer) = match &limit.attachment {
        Attachment::Business => (None, None),
        Attachment::Plan(plan) => (Some(&**plan), None),
        Attachment::Customer(customer) => (None, Some(customer.as_str())),
    };
    shape! {
        "id": limit.id,
        "metric_name": limit.metric_name,
        "limit_value": limit.value,
        "limit_period": limit.period,
        "breach_operator": limit.operator,
        "breach_action": limit.action,
        "metric_type": limit.metric_type,
        "plan_id": plan,
        "customer_id": customer,
        "alert_thresholds": limit.alert_thresholds,
        "webhook_urls": limit.webhook_urls,
        "overage_meter": limit.overage_meter,
        "created_at": limit.created_at,
        "updated_at": limit.updated_at,
    }
}

/// The fields that creation and change share.
fn common(form: &mut Form) -> LimitChange {
    let webhook_urls = form.custom_text_change("webhook_urls", "web-urls", 1..=URLS_CHARS_MAX);
    if let Change::Set(urls) = &webhook_urls
        && !urls.split(',').all(|url| is_web_url(url.trim()))
    {
        form.problem("webhook_urls", "must be one http or https URL, or several separated by commas");
    }
    LimitChange {
        metric_name: form.metric("metric_name"),
        value: form.units("limit_value"),
        period: form.word("limit_period", words_of!(Period)),
        operator: form.word("breach_operator", words_of!(Operator)),
        action: form.word("breach_action", &Action::OF_PLAN_LIMITS.map(|word| (word.as_str(), word))),
        metric_type: form.word("metric_type", words_of!(MetricType)),
        alert_thresholds: form.numbers("alert_thresholds", &(1..=1_000), THRESHOLDS_MAX),
        webhook_urls,
        overage_meter: form.text_change("overage_meter", 1..=METER_CHARS_MAX),
    }
}

fn is_web_url(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

/// Whom a new limit holds for.
fn attachment(form: &mut Form) -> Result<Attachment, Entity> {
    let plan = form.optional_text("plan_id", 0..=ID_CHARS_MAX);
    let customer = form.optional_text("customer_id", 0..=ID_CHARS_MAX);
    match (plan, customer) {
        (Some(_), Some(_)) => {
            form.problem("customer_id", "a limit is for a plan or for a customer, not for both");
            Ok(Attachment::Business)
        }
        (Some(plan), None) => Ok(Attachment::Plan(plan.into())),
        // This call creates no customer, so an id against the grammar is simply unknown.
        (None, Some(id)) => {
            CustomerId::parse(&id).map(Attachment::Customer).map_err(|_against_grammar| Entity::Customer)
        }
        (None, None) => Ok(Attachment::Business),
    }
}

/// A new limit as its body has it.
pub(crate) struct ReadLimit {
    given: LimitChange,
    metric_name: MetricName,
    value: Units,
    attachment: Attachment,
}

/// Reads a new limit.
pub(crate) fn read_limit(mut form: Form) -> Result<ReadLimit, ApiError> {
    form.require("metric_name");
    form.require("limit_value");
    let attachment = attachment(&mut form);
    let mut given = common(&mut form);
    let (metric_name, value) = form.made(given.metric_name.take().zip(given.value))?;
    Ok(ReadLimit { given, metric_name, value, attachment: attachment.map_err(ApiError::not_found)? })
}

fn new_limit(form: Form, business: BusinessId) -> Result<NewLimit, ApiError> {
    let ReadLimit { given, metric_name, value, attachment } = read_limit(form)?;
    let default_period = match given.metric_type {
        Some(MetricType::Checkpoint) => Period::Realtime,
        _ => Period::Monthly,
    };
    Ok(NewLimit {
        business,
        metric_name,
        value,
        period: given.period.unwrap_or(default_period),
        operator: given.operator.unwrap_or(Operator::Gte),
        action: given.action.unwrap_or(Action::Deny),
        attachment,
        metric_type: given.metric_type,
        alert_thresholds: given.alert_thresholds.unwrap_or_default(),
        webhook_urls: set(given.webhook_urls),
        overage_meter: set(given.overage_meter),
    })
}

/// `POST /api/v1/plan_limits`
pub(crate) async fn create(business: Business, mut input: Input) -> Answer {
    let new = new_limit(input.form().await?, business.id)?;
    let limit = input.app.store.create_limit(business.by, new).await?;
    Ok(HttpResponse::Created().json(shape! {"status": "created"}.and(shown(&limit))))
}

/// `GET /api/v1/plan_limits`
pub(crate) async fn list(business: Business, input: Input) -> Answer {
    let list = List::asked(&input, "plan_limits", business.id.as_str())?;
    let customer_id = input.query("customer_id").map(|id| CustomerId::parse(&id)).transpose();
    let metric_name = match input.query("metric_name").map(|name| MetricName::parse(&name)) {
        // No metric has such a name, so no limit measures it.
        Some(Err(_)) => return Ok(list.empty()),
        Some(Ok(name)) => Some(name),
        None => None,
    };
    let query = LimitQuery {
        business: business.id,
        plan_id: input.query("plan_id"),
        customer_id: customer_id.map_err(|_against_grammar| ApiError::not_found(Entity::Customer))?,
        metric_name,
        page: list.page,
    };
    let page = input.app.store.limits(query).await?;
    Ok(list.answer(page, |limit| shown(&limit)))
}

/// `GET /api/v1/plan_limits/{id}`
pub(crate) async fn read(business: Business, input: Input) -> Answer {
    let limit = input.app.store.limit(business.id, input.segment("id")).await?;
    Ok(HttpResponse::Ok().json(shown(&limit)))
}

/// Whom a change of a limit says it holds for: plan and customer.
pub(crate) struct Named([Change<String>; 2]);

/// Reads what changes of a limit.
pub(crate) fn limit_change(form: &mut Form) -> (Named, LimitChange) {
    let named = ["plan_id", "customer_id"].map(|name| form.text_change(name, 0..=ID_CHARS_MAX));
    (Named(named), common(form))
}

/// Refuses to move a limit to another plan or customer. Naming its own is no change.
fn same_attachment(Named([plan_named, customer_named]): Named, limit: &Limit) -> Result<(), ApiError> {
    let (plan, customer) = match &limit.attachment {
        Attachment::Business => (None, None),
        Attachment::Plan(plan) => (Some(plan.to_string()), None),
        Attachment::Customer(customer) => (None, Some(customer.to_string())),
    };
    let mut moved = Vec::new();
    for (name, named, own) in [("plan_id", plan_named, plan), ("customer_id", customer_named, customer)] {
        let stays = match named {
            Change::Keep => true,
            Change::Clear => own.is_none(),
            Change::Set(given) => own == Some(given),
        };
        if !stays {
            moved.push(Detail::new(name, "is fixed when the limit is created"));
        }
    }
    if moved.is_empty() {
        return Ok(());
    }
    let message = "Whom a limit holds for is fixed at its creation; create another limit instead.";
    Err(ApiError::new(Code::ImmutableField, message).with_details(moved))
}

/// `PUT /api/v1/plan_limits/{id}`
pub(crate) async fn update(business: Business, mut input: Input) -> Answer {
    let id = input.segment("id");
    let present = input.app.store.limit(business.id.clone(), id.clone()).await?;
    let mut form = input.form().await?;
    let (named, change) = limit_change(&mut form);
    form.finish()?;
    same_attachment(named, &present)?;
    let limit = input.app.store.update_limit(business.by, business.id, id, change).await?;
    Ok(HttpResponse::Ok().json(shown(&limit)))
}

/// `DELETE /api/v1/plan_limits/{id}`
pub(crate) async fn delete(business: Business, input: Input) -> Answer {
    let id = input.segment("id");
    input.app.store.delete_limit(business.by, business.id, id.clone()).await?;
    Ok(HttpResponse::Ok().json(shape! {"message": "The limit was deleted; the usage stays.", "limit_id": id}))
}

fn shown_plan(plan: Plan) -> Shape {
    shape! {
        "id": plan.id,
        "plan_name": plan.plan_name,
        "stripe_price_id": plan.stripe_price_id,
        "is_free": plan.is_free,
        "created_at": plan.created_at,
    }
}

/// What changes of a plan.
pub(crate) fn plan_fields(form: &mut Form) -> PlanFields {
    PlanFields {
        plan_name: form.text("plan_name", 1..=100),
        stripe_price_id: form.text_change("stripe_price_id", 1..=ID_CHARS_MAX),
        is_free: form.flag("is_free"),
    }
}

/// The fields of a new plan.
pub(crate) fn new_plan(form: &mut Form) -> PlanFields {
    form.require("plan_name");
    plan_fields(form)
}

/// `POST /api/v1/plans`
pub(crate) async fn create_plan(business: Business, mut input: Input) -> Answer {
    let mut form = input.form().await?;
    let fields = new_plan(&mut form);
    form.finish()?;
    let plan = input.app.store.create_plan(business.by, business.id, fields).await?;
    Ok(HttpResponse::Created().json(shape! {"status": "created"}.and(shown_plan(plan))))
}

/// `GET /api/v1/plans`
pub(crate) async fn list_plans(business: Business, input: Input) -> Answer {
    let list = List::asked(&input, "plans", business.id.as_str())?;
    let page = input.app.store.plans(business.id, list.page).await?;
    Ok(list.answer(page, shown_plan))
}

/// `GET /api/v1/plans/{id}`
pub(crate) async fn read_plan(business: Business, input: Input) -> Answer {
    let plan = input.app.store.plan(business.id, input.segment("id")).await?;
    Ok(HttpResponse::Ok().json(shown_plan(plan)))
}

/// `PUT /api/v1/plans/{id}`
pub(crate) async fn update_plan(business: Business, mut input: Input) -> Answer {
    let mut form = input.form().await?;
    let fields = plan_fields(&mut form);
    form.finish()?;
    let plan = input.app.store.update_plan(business.by, business.id, input.segment("id"), fields).await?;
    Ok(HttpResponse::Ok().json(shown_plan(plan)))
}

/// `DELETE /api/v1/plans/{id}`
pub(crate) async fn delete_plan(business: Business, input: Input) -> Answer {
    let force = input.query_flag("force")?;
    let id = input.segment("id");
    input.app.store.delete_plan(business.by, business.id, id.clone(), force).await?;
    Ok(HttpResponse::Ok().json(shape! {"status": "deleted", "plan_id": id}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<NewLimit, ApiError> {
        new_limit(Form::parse(body.as_bytes()).unwrap(), BusinessId::parse("biz_1").unwrap())
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let limit = read(r#"{"metric_name":"api_calls","limit_value":1000.0}"#).unwrap();
        assert_eq!((limit.value.get(), limit.period), (1000, Period::Monthly));
        assert_eq!((limit.operator, limit.action), (Operator::Gte, Action::Deny));
        assert_eq!(limit.attachment, Attachment::Business);
        let level = read(r#"{"metric_name":"seats","limit_value":5,"metric_type":"checkpoint"}"#).unwrap();
        assert_eq!(level.period, Period::Realtime);
    }

    #[test]
    fn bad_limits_are_refused_with_their_code() {
        for (body, code) in [
            (r"{}", Code::ValidationFailed),
            (r#"{"metric_name":"a b","limit_value":1}"#, Code::ValidationFailed),
            (r#"{"metric_name":"a","limit_value":"1"}"#, Code::ValidationFailed),
            (r#"{"metric_name":"a","limit_value":-1}"#, Code::ValidationFailed),
            (r#"{"metric_name":"a","limit_value":9007199254740992}"#, Code::ValidationFailed),
            (r#"{"metric_name":"a","limit_value":0.5}"#, Code::NotIntegral),
            (r#"{"metric_name":"a","limit_value":1,"limit_period":"MONTHLY"}"#, Code::ValidationFailed),
            (
                r#"{"metric_name":"a","limit_value":1,"plan_id":"p","customer_id":"c"}"#,
                Code::ValidationFailed,
            ),
            (r#"{"metric_name":"a","limit_value":1,"customer_id":"a b"}"#, Code::CustomerNotFound),
            (r#"{"metric_name":"a","limit_value":1,"webhook_urls":"ftp://x"}"#, Code::ValidationFailed),
            (r#"{"metric_name":"a","limit_value":1,"id":"x"}"#, Code::UnknownField),
        ] {
            assert_eq!(read(body).unwrap_err().code(), code, "{body}");
        }
    }
}
