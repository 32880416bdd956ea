//! Usage limits as values (draft).
pub mod accounts;
pub mod batch;
pub mod decide;
pub mod demand;
pub mod error;
pub mod keys;
pub mod limits;
pub mod memory;
pub mod metrics;
pub mod settle;
pub mod time;
pub mod traits;
pub mod upstreams;
pub mod usage;
pub mod windows;
