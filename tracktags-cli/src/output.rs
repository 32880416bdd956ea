//! The only place that prints: tables for people, JSON for programs, failures on standard error.

use crate::args::{Arguments, Format};
use crate::client::Answer;
use crate::csv;
use crate::{EXIT_BAD_USAGE, EXIT_DONE, Failure};
use clap::CommandFactory;
use comfy_table::{Table, presets};
use serde_json::{Value, json};
use std::io::Write;

/// What stands for nothing.
const NOTHING: &str = "-";

/// How an answer is shown to people.
#[derive(Clone, Copy, Debug)]
pub(crate) enum View {
    /// One record: a line for each of these fields that the answer has.
    Record(&'static [&'static str]),
    /// A page of a list: a row an item.
    List {
        /// The name of the list in the answer.
        items: &'static str,
        /// The fields shown.
        columns: &'static [&'static str],
    },
    /// Where an account stands: a row a limit.
    Usage,
    /// Whether a database's books agree.
    Books,
}

/// Where to print, and how.
pub(crate) struct Output<'a> {
    format: Format,
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
}

impl<'a> Output<'a> {
    pub(crate) fn new(format: Format, out: &'a mut dyn Write, err: &'a mut dyn Write) -> Self {
        Self { format, out, err }
    }

    /// Prints what the API answered.
    pub(crate) fn answer(&mut self, view: &View, answer: &Answer) -> Result<(), Failure> {
        match self.format {
            Format::Json => self.line(answer.text.trim_end()),
            Format::Table => self.line(&rendered(view, &answer.value)),
            Format::Csv => self.csv(view, &answer.value),
        }
    }

    /// Prints what did not come from the API.
    pub(crate) fn value(&mut self, view: &View, value: &Value) -> Result<(), Failure> {
        match self.format {
            Format::Json => self.line(&value.to_string()),
            Format::Table => self.line(&rendered(view, value)),
            Format::Csv => self.csv(view, value),
        }
    }

    /// Prints the head of a ledger.
    pub(crate) fn ledger_head(&mut self) -> Result<(), Failure> {
        match self.format {
            Format::Json => Ok(()),
            Format::Table => self.line(&ledger_row(&LEDGER_COLUMNS.map(|(name, _)| name.to_owned()))),
            Format::Csv => Ok(csv::write(self.out, [LEDGER_COLUMNS.map(|(name, _)| name)])?),
        }
    }

    /// Prints an entry of a ledger: a line, as soon as it is read.
    pub(crate) fn ledger_line(&mut self, entry: &Value) -> Result<(), Failure> {
        match self.format {
            Format::Json => self.line(&entry.to_string()),
            Format::Table => self.line(&ledger_row(&ledger_cells(entry))),
            Format::Csv => {
                let cells =
                    ledger_cells(entry).map(|cell| if cell == NOTHING { String::new() } else { cell });
                Ok(csv::write(self.out, [cells])?)
            }
        }
    }

    /// Prints a shell's completions.
    pub(crate) fn completions(&mut self, shell: clap_complete::Shell) -> Result<(), Failure> {
        // Into memory first: a pipe that closed early is no reason to panic.
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Arguments::command(), "tracktags-cli", &mut script);
        Ok(self.out.write_all(&script)?)
    }

    fn csv(&mut self, view: &View, value: &Value) -> Result<(), Failure> {
        csv::write(self.out, csv::rows(view, value))?;
        if let Some(cursor) = value.get("next_cursor").and_then(Value::as_str) {
            // Not among the rows: those are for a program.
            let _ = writeln!(self.err, "There are more: --cursor {}", printable(cursor));
        }
        Ok(())
    }

    fn line(&mut self, text: &str) -> Result<(), Failure> {
        Ok(writeln!(self.out, "{text}")?)
    }

    /// Says why nothing came of it.
    pub(crate) fn failure(&mut self, failure: &Failure) {
        let mut text = format!("error[{}]: {}", printable(failure.code()), printable(&failure.to_string()));
        if let Failure::Refused(refusal) = failure {
            for detail in &refusal.details {
                text.push_str(&format!("\n  {}: {}", printable(&detail.field), printable(&detail.message)));
            }
        }
        // If nobody listens there is nobody to tell.
        let _ = writeln!(self.err, "{text}");
    }
}

/// Prints help, version or what is wrong with a command line; gives the exit code.
pub(crate) fn usage(error: &clap::Error, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let is_mistake = error.use_stderr();
    let text = error.render().to_string();
    // If nobody listens there is nobody to tell.
    let _ = if is_mistake { err.write_all(text.as_bytes()) } else { out.write_all(text.as_bytes()) };
    if is_mistake { EXIT_BAD_USAGE } else { EXIT_DONE }
}

fn rendered(view: &View, value: &Value) -> String {
    match view {
        View::Record(fields) => record(fields, value),
        View::List { items, columns } => list(items, columns, value),
        View::Usage => usage_table(value),
        View::Books => books(value),
    }
}

fn table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table
}

/// Lines without the blanks at their ends.
fn text_of(table: &Table) -> String {
    let lines: Vec<_> =
        table.lines().map(|line| line.trim_end().trim_start_matches(' ').to_owned()).collect();
    lines.join("\n")
}

fn record(fields: &[&str], value: &Value) -> String {
    let mut table = table();
    for field in fields {
        if let Some(value) = value.get(field) {
            table.add_row([(*field).to_owned(), cell(Some(value))]);
        }
    }
    text_of(&table)
}

fn list(items: &str, columns: &[&str], value: &Value) -> String {
    let rows = value.get(items).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if rows.is_empty() {
        return format!("no {}", items.replace('_', " "));
    }
    let mut table = table();
    table.set_header(columns.to_vec());
    for row in rows {
        table.add_row(columns.iter().map(|column| cell(row.get(column))));
    }
    let mut text = text_of(&table);
    if let Some(cursor) = value.get("next_cursor").and_then(Value::as_str) {
        text.push_str(&format!("\n\nThere are more: --cursor {}", printable(cursor)));
    }
    text
}

pub(crate) const USAGE_LIMIT_COLUMNS: [&str; 8] = [
    "limit_period",
    "current_usage",
    "limit_value",
    "remaining",
    "overage",
    "breach_action",
    "is_breached",
    "window_end",
];

fn usage_table(value: &Value) -> String {
    let business = cell(value.get("business_id"));
    let whose = match value.get("customer_id").and_then(Value::as_str) {
        Some(customer) => format!("customer {} of {business}", printable(customer)),
        None => format!("the business {business} itself"),
    };
    let plan = value.get("plan_in_force").and_then(Value::as_str);
    let plan = plan.map_or_else(|| "no plan".to_owned(), |plan| format!("plan {}", printable(plan)));
    let as_of = cell(value.get("as_of"));
    let head = format!("{whose}, {plan}, as of {as_of}");
    let metrics = value.get("metrics").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if metrics.is_empty() {
        return format!("{head}\n\nno metrics");
    }
    let mut table = table();
    table.set_header(["metric_name", "current_value", "held"].into_iter().chain(USAGE_LIMIT_COLUMNS));
    for metric in metrics {
        let own = || ["metric_name", "current_value", "held"].map(|column| cell(metric.get(column)));
        let limits = metric.get("limits").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        if limits.is_empty() {
            table.add_row(own());
        }
        for limit in limits {
            table.add_row(own().into_iter().chain(USAGE_LIMIT_COLUMNS.map(|column| cell(limit.get(column)))));
        }
    }
    format!("{head}\n\n{}", text_of(&table))
}

fn books(value: &Value) -> String {
    let mut text = record(&["counters", "entries", "batches"], value);
    let differences =
        value.get("differences").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if differences.is_empty() {
        text.push_str("\nThe books agree.");
    }
    for difference in differences {
        text.push_str(&format!("\ndifference: {}", cell(Some(difference))));
    }
    text
}

/// The columns of a ledger, with the width of each; what is longer moves the rest to the right.
const LEDGER_COLUMNS: [(&str, usize); 12] = [
    ("batch", 8),
    ("at", 27),
    ("kind", 12),
    ("units", 8),
    ("overage", 8),
    ("customer", 20),
    ("metric", 16),
    ("entry", 8),
    ("level", 10),
    ("day", 10),
    ("month", 10),
    ("business", 0),
];

fn ledger_cells(entry: &Value) -> [String; LEDGER_COLUMNS.len()] {
    let state = |pointer: &str| cell(entry.pointer(pointer));
    let overage = entry.get("overage").and_then(Value::as_object);
    let overage =
        overage.into_iter().flatten().filter_map(|(_, units)| units.as_i64()).max_by_key(|units| units.abs());
    let kind = match entry.get("take").and_then(Value::as_u64) {
        Some(take) => format!("{} {take}", cell(entry.get("kind"))),
        None => cell(entry.get("kind")),
    };
    [
        state("/batch"),
        state("/at"),
        kind,
        entry
            .get("units")
            .and_then(Value::as_i64)
            .map_or_else(|| NOTHING.to_owned(), |units| format!("{units:+}")),
        overage.map_or_else(|| NOTHING.to_owned(), |units| format!("{units:+}")),
        state("/customer_id"),
        state("/metric_name"),
        state("/number"),
        state("/state/level/units"),
        state("/state/windows/day/units"),
        state("/state/windows/month/units"),
        state("/business_id"),
    ]
}

fn ledger_row(cells: &[String; LEDGER_COLUMNS.len()]) -> String {
    let mut row = String::new();
    for (text, (_, width)) in cells.iter().zip(LEDGER_COLUMNS) {
        row.push_str(&format!("{text:<width$} "));
    }
    row.trim_end().to_owned()
}

/// One value as people read it.
fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => NOTHING.to_owned(),
        Some(Value::Bool(true)) => "yes".to_owned(),
        Some(Value::Bool(false)) => "no".to_owned(),
        Some(Value::String(text)) if text.is_empty() => json!(text).to_string(),
        Some(Value::String(text)) => printable(text),
        Some(other) => printable(&other.to_string()),
    }
}

/// Text without control characters, which could drive a terminal.
fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|char| {
            let escaped = char.is_control().then(|| char.escape_default());
            let plain = (!char.is_control()).then_some(char);
            plain.into_iter().chain(escaped.into_iter().flatten())
        })
        .collect()
}
