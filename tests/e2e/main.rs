//! The whole system: real processes, real sockets, a real database.

#![cfg(test)]
#![expect(clippy::print_stdout, reason = "a test says its figures")]

mod audit;
mod billing;
mod changes;
mod command_line;
mod contract;
mod crash;
mod demo;
mod disk;
mod docs;
mod drain;
mod exact;
mod forbidden;
mod forms;
mod framing;
mod guide;
mod history;
mod house_rules;
mod json;
mod meters;
mod metrics;
mod network;
mod nodes;
mod overload;
mod oversize;
mod power_loss;
mod query;
mod refusals;
mod roles;
mod secrets;
mod security;
mod settle;
mod simulate;
mod slow;
mod soak;
mod targets;
mod tenants;
mod windows;
mod witnesses;
