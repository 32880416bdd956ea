//! The store through its public surface: the engine against the model, and what the files say afterwards.

#![cfg(test)]
#![expect(clippy::print_stdout, reason = "a test says its figures")]

mod damage;
mod durability;
mod edges;
mod identify;
mod ledger;
mod purge;
mod support;
