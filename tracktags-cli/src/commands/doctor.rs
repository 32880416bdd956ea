//! What an operator should look at, before it hurts: settings and key files, as the server itself judges them, and a
//! database.

use crate::Failure;
use crate::args::Doctor;
use crate::output::{Output, View};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

const PROGRAM: &str = "tracktags-server";

/// Something to look at, as it is printed.
pub(super) fn finding(level: &str, subject: &str, message: &str) -> Value {
    json!({"level": level, "subject": subject, "message": message})
}

/// `doctor`: fails where there is a problem; a warning is none.
pub(crate) fn doctor(command: &Doctor, output: &mut Output<'_>) -> Result<(), Failure> {
    let mut findings = settings(command);
    findings.extend(super::database::findings(&command.store_url)?);
    let problems = findings.iter().filter(|finding| finding["level"] == "problem").count();
    let view = View::List { items: "findings", columns: &["level", "subject", "message"] };
    output.value(&view, &json!({"findings": findings}))?;
    if problems == 0 { Ok(()) } else { Err(Failure::Unwell(problems)) }
}

/// What the server says of its settings: it alone knows them.
fn settings(command: &Doctor) -> Vec<Value> {
    let program = command.server.clone().unwrap_or_else(beside);
    let mut check = Command::new(&program);
    check.arg("--check");
    if let Some(file) = &command.config {
        check.arg("--config").arg(file);
    }
    let said = match check.output() {
        Ok(said) => said,
        Err(error) => {
            let message = format!("settings were not checked: {} ({error}); see --server", program.display());
            return vec![finding("warning", "settings", &message)];
        }
    };
    let (out, err) = (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    let warnings = out.lines().filter_map(|line| {
        let mut parts = line.splitn(3, '\t');
        Some(finding(parts.next()?, parts.next()?, parts.next()?))
    });
    let problems = err.lines().filter(|_| !said.status.success()).map(|line| {
        let line = line.strip_prefix(PROGRAM).and_then(|line| line.strip_prefix(": ")).unwrap_or(line);
        finding("problem", "settings", line)
    });
    problems.chain(warnings).collect()
}

/// The server's program beside this one; else the one in the path.
fn beside() -> PathBuf {
    let here = std::env::current_exe().ok();
    let here = here.as_deref().and_then(Path::parent).map(|folder| folder.join(PROGRAM));
    here.filter(|program| program.exists()).unwrap_or_else(|| PathBuf::from(PROGRAM))
}
