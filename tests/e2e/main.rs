//! The whole system: real processes, real sockets, a real database.

mod changes;
mod crash;
mod drain;
mod exact;
mod guide;
mod house_rules;
mod security;
mod settle;
mod windows;
