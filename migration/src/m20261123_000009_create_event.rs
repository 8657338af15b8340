//! The log of events. Its rows name their subjects without foreign keys: the log outlives what it tells of, and retention may
//! remove old lines.

use sea_orm_migration::{prelude::*, sea_orm::DbBackend};

use crate::dialect;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        dialect::run(
            manager,
            &[
                "CREATE TABLE events (id {counter}, kind TEXT NOT NULL, auction_id {id}, task_id {id}, channel_id {id}, \
                 agent_id {id}, payer_id {id}, owner_id {id}, actor_id {id}, payload {json} NOT NULL, \
                 occurred_at BIGINT NOT NULL)",
                "CREATE INDEX events_by_auction ON events (auction_id, id)",
                "CREATE INDEX events_by_task ON events (task_id, id)",
                "CREATE INDEX events_by_agent ON events (agent_id, id)",
                "CREATE INDEX events_by_payer ON events (payer_id, id)",
                "CREATE INDEX events_by_owner ON events (owner_id, id)",
                "CREATE INDEX events_by_age ON events (occurred_at)",
            ],
        )
        .await?;
        if manager.get_database_backend() == DbBackend::Postgres {
            // Row numbers are given out before a transaction commits, so they may become visible out of order. The id of the
            // writing transaction lets a reader stop short of every transaction that is still running.
            let statements = [
                "ALTER TABLE events ADD COLUMN xid XID8 NOT NULL DEFAULT pg_current_xact_id()",
                "CREATE INDEX events_in_order ON events (xid, id)",
            ];
            dialect::run(manager, &statements).await?;
        }
        dialect::append_only(manager, "events", &["UPDATE"]).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        dialect::drop_tables(manager, &["events"]).await
    }
}
