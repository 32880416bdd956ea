//! What people see of the command line: help, requests and answers, failures and exit codes, a database.

// So that clippy knows all of this as tests, the helpers too.
#![cfg(test)]

mod calls;
mod database;
mod exits;
mod help;
mod profiles;
mod requests;
mod snapshots;
mod support;
