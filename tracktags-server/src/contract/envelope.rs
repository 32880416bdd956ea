//! A call in an envelope, as the contract has it.

use super::Described;
use super::objects::standing;
use super::query::{REFUSALS, subject};
use crate::error::Code;
use crate::schema::{Fields, Kind};

pub(super) const TAG: &str = "Data plane";

pub(crate) fn proxy() -> Described {
    let body = Fields::default()
        .with("target_url", Kind::text())
        .and(subject(1))
        .maybe("method", Kind::text().or_null())
        .maybe("headers", Kind::map(Kind::text()).or_null())
        .maybe("body", Kind::text().or_null())
        .maybe("body_base64", Kind::flag().or_null())
        .about("target_url", "Where the call goes: an absolute http or https URL.")
        .about("metric_name", "Empty: all limits are asked, and the default metric is counted.")
        .about(
            "method",
            "GET, HEAD, POST, PUT, PATCH, DELETE or OPTIONS, in any case; GET, if nothing is said.",
        )
        .about("body_base64", "Whether `body` is base64 of binary data.");
    let values = Kind::any_of([Kind::text(), Kind::list(Kind::text())]);
    let forwarded = Fields::default()
        .with("status_code", Kind::whole())
        .with("headers", Kind::map(values))
        .with("body", Kind::text())
        .with("body_base64", Kind::flag());
    let allowed = Fields::default()
        .with("status", Kind::words(["allowed"]))
        .and(standing())
        .with("forwarded_response", forwarded.object())
        .maybe("release_pending", Kind::flag());
    Described::of(TAG, "Proves, decides, counts and forwards a call.")
        .open_body(body)
        .answers(200, allowed.object())
        .answers(429, Kind::shared("Denied"))
        .answers(502, Kind::shared("Failed"))
        .answers(504, Kind::shared("Failed"))
        .fails(&REFUSALS)
        .fails(&[
            Code::InvalidTarget,
            Code::UpstreamBlocked,
            Code::Concurrency,
            Code::UpstreamBusy,
            Code::LoopDetected,
        ])
}
