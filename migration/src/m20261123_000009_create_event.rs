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
        if manager.get_database_backend() == DbBackend::Sqlite {
            return dialect::append_only(manager, "events", &["UPDATE"]).await;
        }
        // Row numbers are given out before a transaction commits, so they become visible out of order. Committed lines get
        // their place in the log afterwards, once, and nothing else of a line ever changes.
        let statements = [
            "ALTER TABLE events ADD COLUMN place BIGINT UNIQUE",
            "CREATE INDEX events_without_place ON events (id) WHERE place IS NULL",
            "CREATE TRIGGER events_no_update BEFORE UPDATE ON events FOR EACH ROW WHEN (OLD.place IS NOT NULL OR \
             ROW(OLD.id, OLD.kind, OLD.auction_id, OLD.task_id, OLD.channel_id, OLD.agent_id, OLD.payer_id, OLD.owner_id, \
             OLD.actor_id, OLD.payload, OLD.occurred_at) IS DISTINCT FROM \
             ROW(NEW.id, NEW.kind, NEW.auction_id, NEW.task_id, NEW.channel_id, NEW.agent_id, NEW.payer_id, NEW.owner_id, \
             NEW.actor_id, NEW.payload, NEW.occurred_at)) EXECUTE FUNCTION refuse_change()",
        ];
        dialect::run(manager, &statements).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        dialect::drop_tables(manager, &["events"]).await
    }
}
