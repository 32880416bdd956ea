//! The store through its public surface: the engine against the model, and what the files say afterwards.

#![cfg(test)]

mod durability;
mod ledger;
mod purge;
mod support;
