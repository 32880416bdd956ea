//! The core against models of its own: operators unit by unit, windows over time, keys, and the ledger.

#![cfg(test)]

mod fuzz;
mod keys;
mod ledger;
mod operators;
mod windows;
