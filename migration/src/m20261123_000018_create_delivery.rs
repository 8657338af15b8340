//! What outside agents need: how much an agent does at once, where it is told of work, metered prices, and what checkers say.

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
                "ALTER TABLE agents ADD COLUMN capacity INTEGER CHECK (capacity > 0)",
                "ALTER TABLE agents ADD COLUMN in_work INTEGER NOT NULL DEFAULT 0 CHECK (in_work >= 0)",
                "ALTER TABLE agents ADD COLUMN fuel_price BIGINT CHECK (fuel_price > 0)",
                "ALTER TABLE agents ADD COLUMN webhook_url TEXT",
                "ALTER TABLE agents ADD COLUMN webhook_generation INTEGER NOT NULL DEFAULT 0 CHECK (webhook_generation >= 0)",
                "ALTER TABLE bids ADD COLUMN fuel_price BIGINT CHECK (fuel_price > 0)",
                "ALTER TABLE task_results ADD COLUMN check_passed BOOLEAN",
                "ALTER TABLE task_results ADD COLUMN check_reason TEXT CHECK (check_reason IS NULL OR check_passed IS NOT NULL)",
                "ALTER TABLE auctions ADD COLUMN excluded {json} NOT NULL DEFAULT '[]'",
                "ALTER TABLE auctions ADD COLUMN online_only BOOLEAN NOT NULL DEFAULT FALSE",
                "ALTER TABLE executions ADD COLUMN queue_at BIGINT NOT NULL DEFAULT 0",
                "UPDATE executions SET queue_at = run_at",
                "UPDATE agents SET in_work = (SELECT COUNT(*) FROM executions e WHERE e.agent_id = agents.id AND e.status IN ('READY', 'RUNNING'))",
                "DROP INDEX executions_ready",
                "CREATE INDEX executions_ready ON executions (queue_at) WHERE status = 'READY' AND module_id IS NOT NULL",
                "CREATE INDEX executions_offered ON executions (agent_id, queue_at) WHERE status IN ('READY', 'RUNNING')",
                "CREATE TABLE deliveries ( \
                 id {id} PRIMARY KEY, \
                 agent_id {id} NOT NULL REFERENCES agents (id), \
                 task_id {id} REFERENCES tasks (id), \
                 event TEXT NOT NULL, \
                 url TEXT NOT NULL, \
                 body TEXT NOT NULL, \
                 status TEXT NOT NULL CHECK (status IN ('PENDING', 'DELIVERED', 'FAILED')), \
                 attempts INTEGER NOT NULL CHECK (attempts >= 0), \
                 next_at BIGINT, \
                 answer INTEGER, \
                 error TEXT, \
                 created_at BIGINT NOT NULL, \
                 finished_at BIGINT, \
                 CHECK ((status = 'PENDING') = (next_at IS NOT NULL)), \
                 CHECK ((status = 'PENDING') = (finished_at IS NULL)))",
                "CREATE INDEX deliveries_by_agent ON deliveries (agent_id, id)",
                "CREATE INDEX deliveries_due ON deliveries (next_at) WHERE status = 'PENDING'",
            ],
        )
        .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        dialect::drop_tables(manager, &["deliveries"]).await?;
        dialect::run(
            manager,
            &[
                "DROP INDEX executions_offered",
                "DROP INDEX executions_ready",
                "CREATE INDEX executions_ready ON executions (run_at) WHERE status = 'READY'",
            ],
        )
        .await?;
        dialect::drop_columns(manager, "executions", &["queue_at"]).await?;
        dialect::drop_columns(manager, "auctions", &["excluded", "online_only"]).await?;
        dialect::drop_columns(manager, "task_results", &["check_reason", "check_passed"]).await?;
        dialect::drop_columns(manager, "bids", &["fuel_price"]).await?;
        let columns = ["capacity", "in_work", "fuel_price", "webhook_url", "webhook_generation"];
        dialect::drop_columns(manager, "agents", &columns).await
    }
}
