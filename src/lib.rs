//! ZeroState.

pub mod agent;
pub mod app;
pub mod auction;
pub mod caller;
pub mod channel;
pub mod cli;
pub mod config;
pub mod error;
pub mod execution;
pub mod graphql;
pub mod ledger;
pub mod metrics;
pub mod reputation;
pub mod store;
pub mod sweep;
pub mod task;
pub mod transport;
pub mod user;
