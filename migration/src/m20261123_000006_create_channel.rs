//! Payment channels.

use sea_orm_migration::prelude::*;

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
                "CREATE TABLE channels ( \
                 id {id} PRIMARY KEY, \
                 purpose TEXT NOT NULL CHECK (purpose IN ('ESCROW')), \
                 payer_id {id} NOT NULL REFERENCES users (id), \
                 agent_id {id} NOT NULL REFERENCES agents (id), \
                 task_id {id} REFERENCES tasks (id), \
                 hold_id {id} NOT NULL UNIQUE REFERENCES holds (id), \
                 deposit BIGINT NOT NULL CHECK (deposit > 0), \
                 paid BIGINT NOT NULL CHECK (paid >= 0 AND paid <= deposit), \
                 nonce BIGINT NOT NULL CHECK (nonce >= 1), \
                 status TEXT NOT NULL CHECK (status IN ('OPEN', 'CLOSED')), \
                 close_reason TEXT CHECK (close_reason IN ('SETTLED', 'REFUNDED', 'FORFEITED')), \
                 opened_at BIGINT NOT NULL, \
                 expires_at BIGINT NOT NULL, \
                 closed_at BIGINT, \
                 CHECK ((purpose = 'ESCROW') = (task_id IS NOT NULL)), \
                 CHECK ((status = 'CLOSED') = (closed_at IS NOT NULL)), \
                 CHECK ((status = 'CLOSED') = (close_reason IS NOT NULL)))",
                "CREATE UNIQUE INDEX channels_one_open ON channels (task_id) WHERE status = 'OPEN'",
                "CREATE INDEX channels_by_task ON channels (task_id)",
                "CREATE INDEX channels_by_payer ON channels (payer_id, id)",
                "CREATE INDEX channels_by_agent ON channels (agent_id, id)",
                "CREATE INDEX channels_by_status ON channels (status, expires_at)",
            ],
        )
        .await?;
        dialect::reference(manager, "transfers", "channel_id", "channels").await?;
        dialect::reference(manager, "tasks", "channel_id", "channels").await?;
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        dialect::drop_tables(manager, &["channels"]).await
    }
}
