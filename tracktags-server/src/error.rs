//! What callers are told when something is refused: the one table of public codes, and the one shape.
//!
//! A 4xx says what to change, a 5xx never shows its cause (that goes to the log, once, with the request's id).
//! Codes never change once released. Messages name no ids, so that another tenant's object and an unknown one get
//! the same bytes.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{ALLOW, HeaderValue, RETRY_AFTER};
use serde::Serialize;
use std::borrow::Cow;
use std::fmt;
use tracktags_core::error::{Cause, Conflict, Entity, StoreError};

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $status:literal $title:literal $code:literal;)+) => {
        /// Every code a caller can meet outside denied and failed calls.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Code { $($(#[$doc])* $name,)+ }

        impl Code {
            /// Its status, its title and its word.
            pub(crate) const fn row(self) -> (u16, &'static str, &'static str) {
                match self { $(Self::$name => ($status, $title, $code),)+ }
            }
        }

        /// The table as it is published: status, title, code.
        #[cfg(test)]
        pub(crate) const TABLE: &[(u16, &str, &str)] = &[$(($status, $title, $code)),+];
    };
}

codes! {
    InvalidJson = 400 "Bad Request" "invalid_json";
    UnknownField = 400 "Bad Request" "unknown_field";
    NotIntegral = 400 "Bad Request" "not_integral";
    BusinessRequired = 400 "Bad Request" "business_required";
    InvalidCursor = 400 "Bad Request" "invalid_cursor";
    RangeTooLarge = 400 "Bad Request" "range_too_large";
    UsageBelowZero = 400 "Bad Request" "usage_below_zero";
    ImmutableField = 400 "Bad Request" "immutable_field";
    InvalidTarget = 400 "Bad Request" "invalid_target";
    ValidationFailed = 400 "Validation Failed" "validation_failed";
    Unauthorized = 401 "Unauthorized" "unauthorized";
    InvalidKey = 401 "Unauthorized" "invalid_key";
    Forbidden = 403 "Forbidden" "forbidden";
    CustomerMismatch = 403 "Forbidden" "customer_mismatch";
    UpstreamBlocked = 403 "Forbidden" "upstream_blocked";
    NotFound = 404 "Not Found" "not_found";
    BusinessNotFound = 404 "Not Found" "business_not_found";
    CustomerNotFound = 404 "Not Found" "customer_not_found";
    PlanNotFound = 404 "Not Found" "plan_not_found";
    LimitNotFound = 404 "Not Found" "limit_not_found";
    MetricNotFound = 404 "Not Found" "metric_not_found";
    KeyNotFound = 404 "Not Found" "key_not_found";
    MethodNotAllowed = 405 "Method Not Allowed" "method_not_allowed";
    RequestTimeout = 408 "Request Timeout" "request_timeout";
    KeyLimitReached = 409 "Key Limit Reached" "key_limit_reached";
    KeyNameTaken = 409 "Conflict" "key_name_taken";
    AmbiguousKey = 409 "Conflict" "ambiguous_key";
    CustomerExists = 409 "Conflict" "customer_exists";
    PlanExists = 409 "Conflict" "plan_exists";
    PriceTaken = 409 "Conflict" "price_taken";
    FreePlanExists = 409 "Conflict" "free_plan_exists";
    PlanInUse = 409 "Conflict" "plan_in_use";
    LimitExists = 409 "Conflict" "limit_exists";
    MetricConflict = 409 "Conflict" "metric_conflict";
    MetricInUse = 409 "Conflict" "metric_in_use";
    Quota = 409 "Conflict" "quota";
    RequestTooLarge = 413 "Request Too Large" "request_too_large";
    UnsupportedMediaType = 415 "Unsupported Media Type" "unsupported_media_type";
    TooManyFailures = 429 "Too Many Requests" "too_many_failures";
    Concurrency = 429 "Too Many Requests" "concurrency";
    InternalError = 500 "Internal Server Error" "internal_error";
    StoreUnavailable = 503 "Service Unavailable" "store_unavailable";
    StorageFull = 503 "Service Unavailable" "storage_full";
    Overloaded = 503 "Service Unavailable" "overloaded";
    UpstreamBusy = 503 "Service Unavailable" "upstream_busy";
    OutcomeUnknown = 503 "Service Unavailable" "outcome_unknown";
    LoopDetected = 508 "Loop Detected" "loop_detected";
}

/// What is wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Detail {
    /// The field as it is named in the request.
    pub(crate) field: String,
    /// What is wrong with it and what to do.
    pub(crate) message: String,
}

impl Detail {
    pub(crate) fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

/// A refusal on its way to the caller. Small to pass on; what it carries is boxed.
#[derive(Debug)]
pub(crate) struct ApiError(Box<Inner>);

#[derive(Debug)]
struct Inner {
    code: Code,
    message: Cow<'static, str>,
    details: Vec<Detail>,
    retry_after_seconds: Option<u64>,
    bytes_max: Option<usize>,
    allow: Option<&'static str>,
    cause: Option<Cause>,
}

#[derive(Serialize)]
struct Shape<'a> {
    error: &'static str,
    message: &'a str,
    code: &'static str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    details: &'a [Detail],
    #[serde(skip_serializing_if = "Option::is_none")]
    max_bytes: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_seconds: Option<u64>,
}

impl ApiError {
    /// A refusal with this code; the message says what happened and what to do.
    pub(crate) fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            code,
            message: message.into(),
            details: Vec::new(),
            retry_after_seconds: None,
            bytes_max: None,
            allow: None,
            cause: None,
        }))
    }

    /// Fields that mean nothing here.
    pub(crate) fn unknown_fields(names: &[&str]) -> Self {
        let message = format!("These fields are unknown or read-only; leave them out: {}.", names.join(", "));
        let details = names.iter().map(|name| Detail::new(*name, "is unknown or read-only")).collect();
        Self::new(Code::UnknownField, message).with_details(details)
    }

    /// The fields that are wrong.
    pub(crate) fn fields(details: Vec<Detail>) -> Self {
        let message = "Some fields are not acceptable; details names each of them and what to change.";
        Self::new(Code::ValidationFailed, message).with_details(details)
    }

    /// One field is wrong.
    pub(crate) fn field(name: &str, message: impl Into<String>) -> Self {
        Self::fields(vec![Detail::new(name, message)])
    }

    /// There is no such thing, or it belongs to somebody else.
    pub(crate) fn not_found(entity: Entity) -> Self {
        let (code, message) = match entity {
            Entity::Business => (Code::BusinessNotFound, "There is no such business."),
            Entity::Customer => (Code::CustomerNotFound, "There is no such customer; create it first."),
            Entity::Plan => (Code::PlanNotFound, "There is no such plan; list the plans to find its id."),
            Entity::Limit => (Code::LimitNotFound, "There is no such limit; list the limits to find its id."),
            Entity::Metric => {
                (Code::MetricNotFound, "This business has no such metric; create a limit on it first.")
            }
            Entity::Key => (Code::KeyNotFound, "There is no such live key; list the keys to find its id."),
        };
        Self::new(code, message)
    }

    /// The key is not good, whatever the cause: one body for all of them.
    pub(crate) fn invalid_key() -> Self {
        Self::new(Code::InvalidKey, "This key is not valid. Check it, or ask for a new one.")
    }

    /// A bug of ours; the cause goes to the log.
    pub(crate) fn internal(cause: impl Into<Cause>) -> Self {
        let message = "Something went wrong on our side; quote the X-Request-Id of this answer.";
        let mut error = Self::new(Code::InternalError, message);
        error.0.cause = Some(cause.into());
        error
    }

    pub(crate) fn too_large(bytes_max: usize) -> Self {
        let message = format!("The request body may hold at most {bytes_max} bytes; send less.");
        let mut error = Self::new(Code::RequestTooLarge, message);
        error.0.bytes_max = Some(bytes_max);
        error
    }

    pub(crate) fn method_not_allowed(allow: &'static str) -> Self {
        let mut error = Self::new(Code::MethodNotAllowed, format!("This path knows only {allow}."));
        error.0.allow = Some(allow);
        error
    }

    pub(crate) fn with_details(mut self, details: Vec<Detail>) -> Self {
        self.0.details = details;
        self
    }

    pub(crate) fn retry_after(mut self, seconds: u64) -> Self {
        self.0.retry_after_seconds = Some(seconds);
        self
    }

    fn because(mut self, cause: impl Into<Cause>) -> Self {
        self.0.cause = Some(cause.into());
        self
    }

    /// Its code.
    #[cfg(test)]
    pub(crate) fn code(&self) -> Code {
        self.0.code
    }

    /// What it came from, for the log.
    pub(crate) fn cause(&self) -> Option<&Cause> {
        self.0.cause.as_ref()
    }

    fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.0.code.row().0).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.code.row().2)
    }
}

impl actix_web::ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.status()
    }

    fn error_response(&self) -> HttpResponse {
        let (_, title, code) = self.0.code.row();
        let shape = Shape {
            error: title,
            message: &self.0.message,
            code,
            details: &self.0.details,
            max_bytes: self.0.bytes_max,
            // Only a lock-out says it in the body too.
            retry_after_seconds: self.0.retry_after_seconds.filter(|_| self.0.code == Code::TooManyFailures),
        };
        let mut response = HttpResponse::build(self.status()).json(shape);
        if let Some(seconds) = self.0.retry_after_seconds {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(allow) = self.0.allow {
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
        }
        if matches!(self.0.code, Code::RequestTimeout | Code::RequestTooLarge) {
            // The rest of the body is not wanted.
            response.head_mut().set_connection_type(actix_web::http::ConnectionType::Close);
        }
        response
    }
}

/// Seconds after which a full queue or an absent database is worth another try.
const RETRY_SECONDS: u64 = 1;
/// Seconds after which a full disk is worth another try.
const RETRY_FULL_DISK_SECONDS: u64 = 30;

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound { entity, .. } => Self::not_found(entity),
            StoreError::Conflict { conflict, id, .. } => conflicting(conflict, id),
            StoreError::Busy { .. } => overloaded(),
            StoreError::Unavailable(cause) => {
                let message = "The database is away; nothing was counted or changed. Try again.";
                Self::new(Code::StoreUnavailable, message).retry_after(RETRY_SECONDS).because(cause)
            }
            StoreError::StorageFull => {
                let message = "The database's disk is full; nothing was counted or changed.";
                Self::new(Code::StorageFull, message).retry_after(RETRY_FULL_DISK_SECONDS)
            }
            StoreError::CommitUnknown => {
                let message =
                    "The database did not confirm the change; nothing was forwarded. Check before repeating.";
                Self::new(Code::OutcomeUnknown, message).retry_after(RETRY_SECONDS)
            }
            other => Self::internal(other),
        }
    }
}

/// A queue is full, or the configuration changed faster than it could be read.
pub(crate) fn overloaded() -> ApiError {
    ApiError::new(Code::Overloaded, "Too much is waiting here; nothing was counted. Try again.")
        .retry_after(RETRY_SECONDS)
}

fn conflicting(conflict: Conflict, id: String) -> ApiError {
    let (code, message) = match conflict {
        Conflict::CustomerExists => {
            (Code::CustomerExists, "A customer with this id exists; use PUT to change it.")
        }
        Conflict::PlanExists => (Code::PlanExists, "A plan with this name exists; choose another name."),
        Conflict::PriceTaken => (Code::PriceTaken, "Another plan has this stripe_price_id."),
        Conflict::FreePlanExists => {
            (Code::FreePlanExists, "There is a free plan already; at most one is free.")
        }
        Conflict::PlanInUse => {
            (Code::PlanInUse, "Customers are on this plan; move them, or delete it with ?force=true.")
        }
        Conflict::LimitExists => (
            Code::LimitExists,
            "There is a limit for this attachment, metric and period; change it with PUT.",
        ),
        Conflict::MetricConflict => {
            let message = format!("The metric is defined otherwise: {id}.");
            return ApiError::new(Code::MetricConflict, message);
        }
        Conflict::MetricInUse => (
            Code::MetricInUse,
            "A limit, or the setting default_metric, names this metric; change that first.",
        ),
        Conflict::KeyLimitReached => (
            Code::KeyLimitReached,
            "As many keys are live as may be; revoke one first (the list shows them).",
        ),
        Conflict::KeyNameTaken => (Code::KeyNameTaken, "A live key has this name; choose another."),
        Conflict::AmbiguousKey => (Code::AmbiguousKey, "Several live keys have this name; use the key's id."),
        Conflict::Quota => {
            (Code::Quota, "As many of these exist as this business may have; delete some first.")
        }
        other => return ApiError::internal(format!("a conflict without a code: {other:?}")),
    };
    let error = ApiError::new(code, message);
    if conflict == Conflict::LimitExists { error.with_details(vec![Detail::new("id", id)]) } else { error }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::ResponseError;

    #[test]
    fn codes_are_unique_and_statuses_valid() {
        let mut codes: Vec<_> = TABLE.iter().map(|row| row.2).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), TABLE.len());
        assert!(TABLE.iter().all(|row| StatusCode::from_u16(row.0).is_ok()));
    }

    #[test]
    fn a_refused_method_says_which_are_allowed() {
        let response = ApiError::method_not_allowed("GET, PUT").error_response();
        assert_eq!(response.status(), 405);
        assert_eq!(response.headers().get(ALLOW).map(HeaderValue::as_bytes), Some(&b"GET, PUT"[..]));
    }
}
