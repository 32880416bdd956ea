//! What an account did, step by step.

use super::usage::{account_of, own_usage_only, terms_of};
use super::{Answer, words_of};
use crate::call::writer::Json;
use crate::error::{ApiError, Code};
use crate::form::Problems;
use crate::identity::Reader;
use crate::request::Input;
use actix_web::HttpResponse;
use actix_web::http::header::ContentType;
use tracktags_core::accounts::{Account, CustomerId, MetricName};
use tracktags_core::error::Entity;
use tracktags_core::history::{Point, Step, points, steps};
use tracktags_core::time::Timestamp;
use tracktags_core::traits::{Accounts, HistoryQuery};
use tracktags_core::windows::{Calendar, Span};

/// Points told at once.
const POINTS_MAX: usize = 1_000;
/// How far back hours are told.
const HOURS_DAYS: i64 = 90;
const DAY_SECONDS: i64 = 86_400;
/// Bytes of a point and of what stands around them.
const POINT_BYTES: usize = 112;
const FRAME_BYTES: usize = 256;

/// Whose history is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    Customer,
    Business,
    Total,
}

const WHOSE: &[(&str, Whose)] =
    &[("customer", Whose::Customer), ("business", Whose::Business), ("total", Whose::Total)];

impl Whose {
    fn as_str(self) -> &'static str {
        WHOSE.iter().find(|(_, whose)| *whose == self).map_or("", |(word, _)| word)
    }
}

/// `GET /api/v1/metrics/{name}/history`
pub(crate) async fn read(reader: Reader, input: Input) -> Answer {
    let asked = Asked::read(&reader, &input)?;
    let metric = MetricName::parse(&input.segment("name"))
        .map_err(|_against_grammar| ApiError::not_found(Entity::Metric))?;
    let terms = terms_of(&input, &reader, asked.account.clone()).await?;
    asked.check_metric(&input, &metric, terms.limits.find(metric.as_str()).is_some()).await?;
    let calendar = terms.calendar.unanchored();
    let steps = asked.steps(&calendar, input.app.clock.now())?;
    let span = match (steps.first(), steps.last()) {
        (Some(first), Some(last)) => Span { start: first.start, end: last.end },
        _ => Span { start: Timestamp::MIN, end: Timestamp::MIN },
    };
    let query =
        HistoryQuery { business: reader.business, accounts: asked.accounts(), metric: metric.clone(), span };
    let hours = input.app.store.history(query).await?;
    let body = asked.shown(&metric, &calendar, &points(&steps, hours));
    Ok(HttpResponse::Ok().content_type(ContentType::json()).body(body))
}

/// What the query says.
struct Asked {
    whose: Whose,
    account: Account,
    step: Step,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
}

impl Asked {
    fn read(reader: &Reader, input: &Input) -> Result<Self, ApiError> {
        let mut problems = Problems::default();
        let (from, to) = (time(&mut problems, input, "from"), time(&mut problems, input, "to"));
        if from.zip(to).is_some_and(|(from, to)| to < from) {
            problems.note("from", "must not be after to");
        }
        let step = word(&mut problems, input, "step", words_of!(Step)).unwrap_or(Step::Day);
        let scope = word(&mut problems, input, "scope", WHOSE);
        let customer = input.query("customer_id");
        let named = reader.customer.is_some() || customer.is_some();
        let whose = scope.unwrap_or(if named { Whose::Customer } else { Whose::Business });
        if reader.customer.is_none() && customer.is_none() && whose == Whose::Customer {
            problems.note("customer_id", "is required with scope customer and a business key");
        }
        if reader.customer.is_none() && customer.is_some() && whose != Whose::Customer {
            problems.note("customer_id", "leave it out, or choose scope customer");
        }
        problems.finish()?;
        if reader.customer.is_some() && whose != Whose::Customer {
            return Err(own_usage_only());
        }
        let account = account_of(reader, customer)?;
        Ok(Self { whose, account, step, from, to })
    }

    /// Whether there is such a metric to be read, and adding all accounts up means anything.
    async fn check_metric(&self, input: &Input, name: &MetricName, in_terms: bool) -> Result<(), ApiError> {
        if self.whose != Whose::Total {
            return if in_terms { Ok(()) } else { Err(ApiError::not_found(Entity::Metric)) };
        }
        let found = input.app.store.metric(self.account.business.clone(), name.clone()).await?;
        if found.is_empty() {
            return Err(ApiError::not_found(Entity::Metric));
        }
        if found.iter().any(|record| !record.metric.operation.is_releasable()) {
            return Err(ApiError::field("scope", "total adds up SUM and COUNT metrics only"));
        }
        Ok(())
    }

    fn steps(&self, calendar: &Calendar, now: Timestamp) -> Result<Vec<Span>, ApiError> {
        let to = self.to.unwrap_or(now);
        let from = self.from.unwrap_or_else(|| match self.step {
            Step::Hour => to.plus_seconds(-DAY_SECONDS),
            Step::Day => to.plus_seconds(-30 * DAY_SECONDS),
            Step::Month => calendar.months_before(to, 12),
        });
        if self.step == Step::Hour && from < now.plus_seconds(-HOURS_DAYS * DAY_SECONDS) {
            let message = format!("Hours are told for {HOURS_DAYS} days; choose a later from, or step=day.");
            return Err(ApiError::new(Code::RangeTooLarge, message));
        }
        steps(calendar, self.step, from, to, POINTS_MAX).map_err(|too_many| {
            let message =
                format!("This range is too large: {too_many}. Choose a longer step or a shorter range.");
            ApiError::new(Code::RangeTooLarge, message)
        })
    }

    fn accounts(&self) -> Accounts {
        match (self.whose, &self.account.customer) {
            (Whose::Total, _) => Accounts::All,
            (_, Some(customer)) => Accounts::Customer(customer.clone()),
            (_, None) => Accounts::Own,
        }
    }

    fn shown(&self, metric: &MetricName, calendar: &Calendar, points: &[Point]) -> Vec<u8> {
        let room = points.len().saturating_mul(POINT_BYTES).saturating_add(FRAME_BYTES);
        let mut json = Json::new(room);
        json.field("metric_name", metric.as_str());
        json.field("customer_id", &self.account.customer.as_ref().map(CustomerId::as_str));
        json.field_word("scope", self.whose.as_str());
        json.field_word("step", self.step.as_str());
        json.field("timezone", calendar.zone_name());
        json.objects("points", points, |json, point| {
            json.field_time("start", Some(point.span.start));
            json.field_time("end", Some(point.span.end));
            json.field_number("value", point.value);
            json.field_number("overage", point.overage);
            json.field_number("denied", point.denied);
        });
        json.field_number("count", i64::try_from(points.len()).unwrap_or(i64::MAX));
        json.finish()
    }
}

pub(super) fn time(problems: &mut Problems, input: &Input, name: &str) -> Option<Timestamp> {
    let text = input.query(name)?;
    let time = text.parse().ok();
    if time.is_none() {
        problems.note(name, "must be a time as RFC 3339 writes it, such as 2026-01-31T23:00:00Z");
    }
    time
}

fn word<T: Copy>(problems: &mut Problems, input: &Input, name: &str, words: &[(&str, T)]) -> Option<T> {
    let text = input.query(name)?;
    let found = words.iter().find(|(word, _)| *word == text).map(|(_, found)| *found);
    if found.is_none() {
        let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        problems.note(name, format!("must be one of {}", words.join(", ")));
    }
    found
}
