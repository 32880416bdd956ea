//! A database itself: its schema brought up to date, its books checked, what is wrong with it found, and its usage
//! ledger printed. The only part of the command line that knows the store.

use super::doctor::finding;
use crate::Failure;
use crate::args::{Ledger, Verify};
use crate::output::{Output, View};
use serde_json::{Map, Value, json};
use tracktags_core::usage::{Entry, Overage, Tally};
use tracktags_core::windows::Window;
use tracktags_core::{BusinessId, MetricName};
use tracktags_store::{LedgerLine, Level, read_ledger};

/// `migrate`: names the steps that were taken.
pub(crate) fn migrate(store_url: &str, output: &mut Output<'_>) -> Result<(), Failure> {
    let taken = tracktags_store::migrate(store_url)?;
    let steps: Vec<_> = taken.iter().map(|step| json!({"step": step})).collect();
    output.value(&View::List { items: "steps", columns: &["step"] }, &json!({"steps": steps}))
}

/// `verify`: fails where the books do not agree.
pub(crate) fn verify(command: &Verify, output: &mut Output<'_>) -> Result<(), Failure> {
    let report = tracktags_store::verify(&command.store_url)?;
    output.value(
        &View::Books,
        &json!({
            "counters": report.counters,
            "entries": report.entries,
            "batches": report.batches,
            "differences": report.differences,
        }),
    )?;
    if report.differences.is_empty() { Ok(()) } else { Err(Failure::Books(report.differences.len())) }
}

/// What `doctor` finds in a database.
pub(super) fn findings(store_url: &str) -> Result<Vec<Value>, Failure> {
    let findings = tracktags_store::doctor(store_url)?.into_iter().map(|found| {
        let level = match found.level {
            Level::Problem => "problem",
            Level::Warning => "warning",
        };
        finding(level, &found.subject, &found.message)
    });
    Ok(findings.collect())
}

/// `ledger`: every entry kept, oldest first, printed as it is read.
pub(crate) fn ledger(
    command: &Ledger,
    business: Option<&BusinessId>,
    output: &mut Output<'_>,
) -> Result<(), Failure> {
    let mut printed: Option<Result<(), Failure>> = None;
    read_ledger(&command.store_url, &mut |line| {
        // The head waits for the first entry: a database that cannot be read prints nothing.
        let so_far = printed.take().unwrap_or_else(|| output.ledger_head());
        let is_wanted = so_far.is_ok() && is_wanted(&line.entry, command, business);
        printed = Some(if is_wanted { output.ledger_line(&shown(&line)) } else { so_far });
    })?;
    printed.unwrap_or_else(|| output.ledger_head())
}

fn is_wanted(entry: &Entry, command: &Ledger, business: Option<&BusinessId>) -> bool {
    let account = entry.counter.account();
    let metric: &MetricName = entry.counter.metric();
    business.is_none_or(|wanted| *wanted == account.business)
        && command.customer.as_ref().is_none_or(|wanted| account.customer.as_ref() == Some(wanted))
        && command.metric.as_ref().is_none_or(|wanted| wanted == metric)
}

/// An entry as JSON: what happened, and the counter after it.
fn shown(line: &LedgerLine) -> Value {
    let LedgerLine { batch, entry } = line;
    let account = entry.counter.account();
    let windows: Map<String, Value> = Window::ALL
        .iter()
        .zip(&entry.state.windows)
        .map(|(window, running)| {
            let mut shown = tally(&running.tally);
            shown.insert("end".to_owned(), json!(running.end));
            (name(*window).to_owned(), Value::Object(shown))
        })
        .collect();
    json!({
        "batch": batch,
        "business_id": account.business,
        "customer_id": account.customer,
        "metric_name": entry.counter.metric(),
        "number": entry.number,
        "kind": entry.kind,
        "operation": entry.operation,
        "at": entry.at,
        "bucket": entry.bucket,
        "units": entry.units,
        "samples": entry.samples,
        "overage": overage(&entry.overage),
        "take": Some(entry.take).filter(|take| *take != 0),
        "state": {
            "changed_at": entry.state.changed_at,
            "since": entry.state.since,
            "level_since": entry.state.level_since,
            "level": tally(&entry.state.level),
            "windows": windows,
        },
    })
}

fn tally(tally: &Tally) -> Map<String, Value> {
    let fields = [("units", tally.units), ("overage", tally.overage), ("samples", tally.samples)];
    fields.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect()
}

/// Overage by window, where there is any.
fn overage(overage: &Overage) -> Map<String, Value> {
    let names = Window::ALL.iter().map(|window| name(*window)).chain(["level"]);
    let some = names.zip(overage).filter(|(_, units)| **units != 0);
    some.map(|(name, units)| (name.to_owned(), (*units).into())).collect()
}

/// What a window is called.
const fn name(window: Window) -> &'static str {
    match window {
        Window::Minute => "minute",
        Window::Hour => "hour",
        Window::Day => "day",
        Window::Week => "week",
        Window::Month => "month",
        Window::Year => "year",
        Window::Own => "own",
    }
}
