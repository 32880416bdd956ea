//! The admin's command line over the HTTP API of TrackTags.
//!
//! [`run`] reads the command line (`args`), turns it into a call or a look at a database (`commands`), sends it
//! (`client`) and prints what came of it (`output`, the only place that prints). Exit codes: 0 done, 1 failed, 2 bad
//! usage, 64 bad configuration.

mod args;
mod client;
mod commands;
mod csv;
mod output;
mod profiles;

use args::{Arguments, Command, Connection, Watch};
use client::Refusal;
use output::{Output, View};
use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;
use tracktags_core::error::chain;
use tracktags_store::OpenError;

/// Done.
const EXIT_DONE: u8 = 0;
/// The server or the store said no, or could not be reached.
const EXIT_FAILED: u8 = 1;
/// The command line makes no sense.
const EXIT_BAD_USAGE: u8 = 2;
/// Something it needs is not configured, or not as it must be (`EX_USAGE` of sysexits).
const EXIT_BAD_CONFIGURATION: u8 = 64;

/// The program: reads the process's arguments, prints, and gives the exit code.
#[must_use]
pub fn main() -> ExitCode {
    ExitCode::from(run(std::env::args_os(), &mut io::stdout().lock(), &mut io::stderr().lock()))
}

/// Runs one command line (its first word is the program's name) and gives the exit code: 0 done, 1 failed, 2 bad
/// usage, 64 bad configuration. Answers go to `out`, everything else to `err`.
pub fn run(arguments: impl IntoIterator<Item = OsString>, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let arguments = match Arguments::read(arguments) {
        Ok(arguments) => arguments,
        Err(error) => return output::usage(&error, out, err),
    };
    let mut output = Output::new(arguments.format, out, err);
    match perform(arguments, &mut output) {
        Ok(()) => EXIT_DONE,
        // Whoever read the answer has seen enough, as `head` does.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => EXIT_DONE,
        Err(failure) => {
            output.failure(&failure);
            failure.exit_code()
        }
    }
}

fn perform(arguments: Arguments, output: &mut Output<'_>) -> Result<(), Failure> {
    let Arguments { connection, command, .. } = arguments;
    let call = match command {
        Command::Businesses(command) => commands::accounts::businesses(command),
        Command::Customers(command) => commands::accounts::customers(command),
        Command::Keys(command) => match commands::keys::keys(command, output)? {
            Some(call) => call,
            None => return Ok(()),
        },
        Command::Plans(command) => commands::limits::plans(command),
        Command::Limits(command) => commands::limits::limits(command),
        Command::Settings(command) => commands::accounts::settings(command),
        Command::Metrics(command) => commands::usage::metrics(command),
        Command::Usage(command) => commands::usage::usage(command),
        Command::Check(command) => commands::usage::demand("check", command),
        Command::Track(command) => commands::usage::demand("track", command),
        Command::History(command) => commands::usage::history(command),
        Command::Audit(command) => commands::admin::audit(command),
        Command::Billing(command) => commands::admin::billing(command),
        Command::Watch(command) => return watch(&profiles::resolve(connection)?, command, output),
        Command::Migrate { store_url } => return commands::database::migrate(&store_url, output),
        Command::Completions { shell } => return output.completions(shell),
        Command::Doctor(command) => return commands::doctor::doctor(&command, output),
        Command::Profiles => return output.value(&PROFILES, &profiles::list(&connection)?),
        Command::Verify(command) => return commands::database::verify(&command, output),
        Command::Ledger(command) => {
            return commands::database::ledger(&command, connection.business.as_ref(), output);
        }
    };
    let answer = client::send(&profiles::resolve(connection)?, &call)?;
    output.answer(&call.view, &answer)
}

const PROFILES: View =
    View::List { items: "profiles", columns: &["name", "url", "key", "admin_key", "business"] };

/// Looks at an account's usage again and again. A look that fails ends it, as one alone would.
fn watch(connection: &Connection, command: Watch, output: &mut Output<'_>) -> Result<(), Failure> {
    let call = commands::usage::usage(command.usage);
    let mut looks = 0_u32;
    loop {
        output.answer(&call.view, &client::send(connection, &call)?)?;
        looks = looks.saturating_add(1);
        if command.times.is_some_and(|times| looks >= times) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_secs(command.every.into()));
    }
}

/// Why a command did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Something is missing in the configuration, or not as it must be.
    #[error("{0}")]
    Configuration(String),
    /// The API refused.
    #[error("{}", .0.message)]
    Refused(Refusal),
    /// No answer came.
    #[error("no answer from {url}: {reason}; is the server running, and TRACKTAGS_URL right?")]
    Unreachable {
        /// The server's address.
        url: String,
        /// What happened.
        reason: String,
    },
    /// What answered is not the API of TrackTags.
    #[error("{url} answered {status}, but not as TrackTags does; is TRACKTAGS_URL right?")]
    Unexpected {
        /// The server's address.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// A text is no key.
    #[error("this is no TrackTags key: its form or its checksum is wrong")]
    NotAKey,
    /// The database could not be read.
    #[error("{}", chain(.0))]
    Store(#[from] OpenError),
    /// The books do not agree.
    #[error("the books do not agree; differences: {0}")]
    Books(usize),
    /// Something is wrong with settings, files or a database.
    #[error("problems to be put right: {0}")]
    Unwell(usize),
    /// The answer could not be printed, or the input not be read.
    #[error("{0}")]
    Output(#[from] io::Error),
}

impl Failure {
    /// The word in `error[word]`: the API's own code where it gave one.
    fn code(&self) -> &str {
        match self {
            Self::Configuration(_) => "configuration",
            Self::Refused(refusal) => &refusal.code,
            Self::Unreachable { .. } => "unreachable",
            Self::Unexpected { .. } => "unexpected_answer",
            Self::NotAKey => "invalid_key",
            Self::Store(_) => "store",
            Self::Books(_) => "books_differ",
            Self::Unwell(_) => "problems",
            Self::Output(_) => "input_output",
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            // A text that names no engine is a wrong setting, not a failing database.
            Self::Configuration(_) | Self::Store(OpenError::Url(_)) => EXIT_BAD_CONFIGURATION,
            _ => EXIT_FAILED,
        }
    }
}
