//! The database schema: one change a file, the same text for SQLite and PostgreSQL.
//!
//! Each file writes plain SQL in which a few words in braces stand for what the two databases spell differently; see
//! [`dialect`]. Constraints repeat the invariants of the program, so that a mistake there is refused here.

pub use sea_orm_migration::prelude::*;

mod dialect;
mod m20261123_000001_create_user;
mod m20261123_000002_create_agent;
mod m20261123_000003_create_ledger;
mod m20261123_000004_create_task;
mod m20261123_000005_create_auction;
mod m20261123_000006_create_channel;
mod m20261123_000007_create_execution;
mod m20261123_000008_create_reputation;
mod m20261123_000009_create_event;
mod m20261123_000010_create_idempotency;
mod m20261123_000011_create_instance;
mod m20261123_000012_create_stream;
mod m20261123_000013_create_dispute;
mod m20261123_000014_create_bond;
mod m20261123_000015_create_document;
mod m20261123_000016_create_interface;
mod m20261123_000017_create_delegation;
mod m20261123_000018_create_delivery;
mod m20261123_000019_allow_retention;
mod m20261123_000020_index_pairs;
mod m20261123_000021_index_queue;

/// The ordered list of changes.
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m20261123_000001_create_user::Migration),
            Box::new(m20261123_000002_create_agent::Migration),
            Box::new(m20261123_000003_create_ledger::Migration),
            Box::new(m20261123_000004_create_task::Migration),
            Box::new(m20261123_000005_create_auction::Migration),
            Box::new(m20261123_000006_create_channel::Migration),
            Box::new(m20261123_000007_create_execution::Migration),
            Box::new(m20261123_000008_create_reputation::Migration),
            Box::new(m20261123_000009_create_event::Migration),
            Box::new(m20261123_000010_create_idempotency::Migration),
            Box::new(m20261123_000011_create_instance::Migration),
            Box::new(m20261123_000012_create_stream::Migration),
            Box::new(m20261123_000013_create_dispute::Migration),
            Box::new(m20261123_000014_create_bond::Migration),
            Box::new(m20261123_000015_create_document::Migration),
            Box::new(m20261123_000016_create_interface::Migration),
            Box::new(m20261123_000017_create_delegation::Migration),
            Box::new(m20261123_000018_create_delivery::Migration),
            Box::new(m20261123_000019_allow_retention::Migration),
            Box::new(m20261123_000020_index_pairs::Migration),
            Box::new(m20261123_000021_index_queue::Migration),
        ]
    }
}
