//! Executions and the results of tasks.

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
                "CREATE TABLE executions ( \
                 id {id} PRIMARY KEY, \
                 task_id {id} NOT NULL REFERENCES tasks (id), \
                 agent_id {id} NOT NULL REFERENCES agents (id), \
                 module_id {id} REFERENCES agent_modules (id), \
                 status TEXT NOT NULL CHECK (status IN ('READY', 'RUNNING', 'SUCCEEDED', 'FAILED', 'FORFEITED')), \
                 attempts INTEGER NOT NULL CHECK (attempts >= 0), \
                 token BIGINT NOT NULL CHECK (token >= 0), \
                 worker TEXT, \
                 leased_until BIGINT, \
                 run_at BIGINT NOT NULL, \
                 error_code TEXT, \
                 created_at BIGINT NOT NULL, \
                 started_at BIGINT, \
                 finished_at BIGINT, \
                 CHECK ((status = 'RUNNING') = (leased_until IS NOT NULL)), \
                 CHECK ((finished_at IS NOT NULL) = (status IN ('SUCCEEDED', 'FAILED', 'FORFEITED'))))",
                "CREATE UNIQUE INDEX executions_one_live ON executions (task_id) WHERE status IN ('READY', 'RUNNING')",
                "CREATE INDEX executions_by_task ON executions (task_id)",
                "CREATE INDEX executions_by_agent ON executions (agent_id, id)",
                "CREATE INDEX executions_by_module ON executions (module_id)",
                "CREATE INDEX executions_ready ON executions (run_at) WHERE status = 'READY'",
                "CREATE INDEX executions_leased ON executions (leased_until) WHERE status = 'RUNNING'",
                "CREATE TABLE task_results ( \
                 task_id {id} PRIMARY KEY REFERENCES tasks (id), \
                 execution_id {id} NOT NULL UNIQUE REFERENCES executions (id), \
                 agent_id {id} NOT NULL REFERENCES agents (id), \
                 outcome TEXT NOT NULL CHECK (outcome IN ('SUCCEEDED', 'FAILED')), \
                 output TEXT, \
                 logs TEXT NOT NULL, \
                 fault_code TEXT, \
                 fault_message TEXT, \
                 fuel BIGINT NOT NULL CHECK (fuel >= 0), \
                 peak_memory_bytes BIGINT NOT NULL CHECK (peak_memory_bytes >= 0), \
                 wall_us BIGINT NOT NULL CHECK (wall_us >= 0), \
                 module_sha256 TEXT, \
                 input_sha256 TEXT NOT NULL, \
                 output_sha256 TEXT, \
                 cost BIGINT NOT NULL CHECK (cost >= 0), \
                 created_at BIGINT NOT NULL, \
                 CHECK ((outcome = 'SUCCEEDED') = (output IS NOT NULL)), \
                 CHECK ((outcome = 'FAILED') = (fault_code IS NOT NULL)), \
                 CHECK (outcome = 'SUCCEEDED' OR cost = 0))",
                "CREATE INDEX task_results_by_agent ON task_results (agent_id)",
            ],
        )
        .await?;
        dialect::append_only(manager, "task_results", &["UPDATE", "DELETE"]).await?;
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        dialect::drop_tables(manager, &["task_results", "executions"]).await
    }
}
