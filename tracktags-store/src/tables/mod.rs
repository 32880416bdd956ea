//! Rows that every engine keeps in the same tables: the configuration, the trail of its changes, and history as it is
//! read. Compiled once for each engine, inside of it. What differs comes from there:
//!
//! | module of the engine | what |
//! |---|---|
//! | `schema`, `error` | its tables as diesel sees them, its faults |
//! | `dialect` | its connection, its times, statements that the query builder does not say alike |
//! | `trail` | which changes a row of the trail explains |
//! | `access` | its readers, and the way to a transaction of one's own |
//!
//! | file | what |
//! |---|---|
//! | `accounts`, `customers`, `billing` | businesses and customers |
//! | `keys`, `claims`, `rotate`, `identify` | keys, whom they speak for, and look-ups of unknown ones |
//! | `plans`, `limits`, `metrics`, `define` | what is counted, and up to where |
//! | `terms` | what holds for an account |
//! | `changes`, `audit`, `purge` | what changed, the trail of it, and what a business leaves behind |
//! | `history` | hours of usage, read |
//! | `findings` | what an operator should look at |
//! | `store`, `configuration` | the store's traits |
//! | `pages` | what several of them need |

#[cfg(test)]
use super::testing as engine;
use super::{access, dialect, error, schema, trail};

pub(super) mod accounts;
pub(super) mod audit;
mod billing;
pub(super) mod changes;
pub(super) mod claims;
mod configuration;
pub(super) mod customers;
pub(super) mod define;
pub(super) mod findings;
mod history;
pub(super) mod identify;
pub(super) mod keys;
pub(super) mod limits;
mod metrics;
mod pages;
pub(super) mod plans;
pub(super) mod purge;
pub(super) mod rotate;
pub(super) mod store;
pub(super) mod terms;
#[cfg(test)]
pub(super) mod testing;
