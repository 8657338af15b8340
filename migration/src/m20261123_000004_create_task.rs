//! Tasks.

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
                "CREATE TABLE tasks ( \
                 id {id} PRIMARY KEY, \
                 requester_id {id} NOT NULL REFERENCES users (id), \
                 title TEXT NOT NULL, \
                 capabilities {json} NOT NULL, \
                 input TEXT NOT NULL, \
                 input_sha256 TEXT NOT NULL CHECK (length(input_sha256) = 64), \
                 output_schema TEXT, \
                 budget BIGINT NOT NULL CHECK (budget > 0 AND budget <= 1000000000000000), \
                 status TEXT NOT NULL CHECK (status IN ('OPEN', 'AWARDED', 'RUNNING', 'COMPLETED', 'REFUNDED', 'EXPIRED', 'CANCELLED')), \
                 timeout_ms BIGINT NOT NULL CHECK (timeout_ms > 0), \
                 max_attempts INTEGER NOT NULL CHECK (max_attempts >= 1), \
                 start_timeout_ms BIGINT NOT NULL CHECK (start_timeout_ms > 0), \
                 hold_id {id} NOT NULL REFERENCES holds (id) DEFERRABLE INITIALLY DEFERRED, \
                 bid_id {id} {later bids}, \
                 agent_id {id} REFERENCES agents (id), \
                 channel_id {id} {later channels}, \
                 price BIGINT CHECK (price > 0 AND price <= budget), \
                 paid BIGINT CHECK (paid >= 0 AND paid <= price), \
                 deadline_at BIGINT, \
                 failure_code TEXT, \
                 failure_message TEXT, \
                 created_at BIGINT NOT NULL, \
                 awarded_at BIGINT, \
                 started_at BIGINT, \
                 finished_at BIGINT, \
                 CHECK ((deadline_at IS NULL) = (status IN ('COMPLETED', 'REFUNDED', 'EXPIRED', 'CANCELLED'))), \
                 CHECK ((finished_at IS NOT NULL) = (status IN ('COMPLETED', 'REFUNDED', 'EXPIRED', 'CANCELLED'))), \
                 CHECK (status NOT IN ('AWARDED', 'RUNNING', 'COMPLETED', 'REFUNDED') OR (agent_id IS NOT NULL AND price IS NOT NULL AND channel_id IS NOT NULL AND bid_id IS NOT NULL)))",
                "CREATE INDEX tasks_by_requester ON tasks (requester_id, id)",
                "CREATE INDEX tasks_by_agent ON tasks (agent_id, id)",
                "CREATE INDEX tasks_by_status ON tasks (status, id)",
                "CREATE INDEX tasks_due ON tasks (deadline_at) WHERE deadline_at IS NOT NULL",
                "CREATE INDEX tasks_by_hold ON tasks (hold_id)",
                "CREATE INDEX tasks_by_bid ON tasks (bid_id)",
                "CREATE INDEX tasks_by_channel ON tasks (channel_id)",
            ],
        )
        .await?;
        dialect::reference(manager, "transfers", "task_id", "tasks").await?;
        dialect::reference(manager, "holds", "task_id", "tasks").await?;
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        dialect::drop_tables(manager, &["tasks"]).await
    }
}
