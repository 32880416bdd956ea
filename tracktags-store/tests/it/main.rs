//! The store through its public surface: both engines against the model, and what the files say afterwards. Those on
//! PostgreSQL find a server by `TRACKTAGS_POSTGRES` (scripts/postgres).

#![cfg(test)]
#![expect(clippy::print_stdout, reason = "a test says its figures")]

mod damage;
mod durability;
mod edges;
mod identify;
mod ledger;
mod nodes;
mod purge;
mod server;
mod support;
