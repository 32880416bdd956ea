//! POST /api/v1/check and /api/v1/track: a demand without a call. One only asks, the other counts for good.
//!
//! A target is needed for neither, so what is left of a call's eight steps is key → identity → limits → demand → batch
//! → decision.

use super::answer::Answered;
use super::known::Known;
use super::out_of_range;
use super::subject::{RawSubject, Subject, ask};
use crate::error::{ApiError, overloaded};
use crate::form::Problems;
use crate::identity::{BusinessCaller, Caller};
use crate::json::{DEPTH_MAX, Key, Keys, Scalar, ScalarSeed, deeper, refused, whole};
use crate::request::Input;
use actix_web::HttpResponse;
use serde::de::{Deserializer, MapAccess, Visitor};
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use tracktags_core::decide::Decision;
use tracktags_core::limits::Terms;
use tracktags_store::Admitted;

/// `POST /api/v1/check`
pub(crate) async fn check(caller: Caller, mut input: Input) -> Result<HttpResponse, ApiError> {
    let subject = match subject(&mut input, 0).await {
        Ok(subject) => subject,
        Err(refusal) => return Err(caller.refused(&input.app, refusal).await),
    };
    let (terms, decision, _) = decide(&input, caller, &subject, false).await?;
    Ok(Answered::checked(&terms, &decision, subject.units).into_response())
}

/// `POST /api/v1/track`
pub(crate) async fn track(
    BusinessCaller(caller): BusinessCaller,
    mut input: Input,
) -> Result<HttpResponse, ApiError> {
    let subject = match subject(&mut input, 1).await.and_then(named) {
        Ok(subject) => subject,
        Err(refusal) => return Err(caller.refused(&input.app, refusal).await),
    };
    let (terms, decision, is_admitted) = decide(&input, caller, &subject, true).await?;
    let answered = if is_admitted {
        Answered::tracked(&terms, &decision, &subject.metric_name, subject.units)
    } else {
        Answered::denied(&terms, &decision)
    };
    Ok(answered.into_response())
}

/// What is counted must be said.
fn named(subject: Subject) -> Result<Subject, ApiError> {
    if subject.metric_name.is_empty() {
        return Err(ApiError::field("metric_name", "is required"));
    }
    Ok(subject)
}

/// Asks the ledger, and takes the units if `takes`.
async fn decide(
    input: &Input,
    caller: Caller,
    subject: &Subject,
    takes: bool,
) -> Result<(Arc<Terms>, Decision, bool), ApiError> {
    let app = &input.app;
    let known = Known::of(app, caller, subject).await?;
    let prepare = |terms: Arc<Terms>| ask(&terms, subject).map(|ask| (terms, ask));
    let submit =
        async |known: &Known, (terms, ask)| match app.admission.take(known.demand(&terms, ask, takes)).await?
        {
            Admitted::Stale => Ok(None),
            admitted => Ok(Some((terms, admitted))),
        };
    match known.decide(app, prepare, submit).await? {
        (terms, Admitted::Admitted(decision, _)) => Ok((terms, decision, true)),
        (terms, Admitted::Denied(decision)) => Ok((terms, decision, false)),
        (_, Admitted::OutOfRange) => Err(out_of_range()),
        (_, Admitted::Stale) => Err(overloaded()),
    }
}

async fn subject(input: &mut Input, units_min: i64) -> Result<Subject, ApiError> {
    let body = input.json_body().await?;
    input.refuse_idempotency_key()?;
    let mut problems = Problems::default();
    let raw = if body.is_empty() {
        RawSubject::default()
    } else {
        // `units` is the only number that means anything here.
        let fields = whole(&body, |reader| reader.deserialize_map(Top));
        let Fields { subject, unknown } = fields.map_err(|error| refused(&error, "units"))?;
        if !unknown.is_empty() {
            let names: Vec<_> = unknown.iter().map(|name| &**name).collect();
            return Err(ApiError::unknown_fields(&names));
        }
        subject
    };
    let subject = raw.read(&mut problems, units_min);
    problems.finish()?;
    Ok(subject)
}

/// Fields that mean nothing here, named in a refusal at most.
const UNKNOWN_MAX: usize = 16;

#[derive(Default)]
struct Fields<'de> {
    subject: RawSubject<'de>,
    unknown: Vec<Cow<'de, str>>,
}

struct Top;

impl<'de> Visitor<'de> for Top {
    type Value = Fields<'de>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self::Value, A::Error> {
        let room = deeper(DEPTH_MAX)?;
        let mut read = Fields::default();
        let mut keys = Keys::default();
        while let Some(key) = fields.next_key_seed(Key)? {
            let mut unknown: Option<Scalar<'de>> = None;
            let is_known = read.subject.slot(&key).is_some();
            if !is_known && read.unknown.len() < UNKNOWN_MAX {
                read.unknown.push(key.clone());
            }
            let slot = read.subject.slot(&key).unwrap_or(&mut unknown);
            *slot = Some(fields.next_value_seed(ScalarSeed(room))?);
            keys.note(key)?;
        }
        Ok(read)
    }
}
