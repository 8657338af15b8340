//! What retention needs: to find what is old without reading all of it, and to take the log text, and nothing else, out of a result.

use sea_orm_migration::{prelude::*, sea_orm::DbBackend};

use crate::dialect;

/// All that a result says besides what the agent wrote to standard error.
const KEPT: &str = "task_id, execution_id, agent_id, outcome, output, fault_code, fault_message, fuel, peak_memory_bytes, wall_us, \
     module_sha256, input_sha256, output_sha256, cost, created_at, check_passed, check_reason";

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let indexes = [
            "CREATE INDEX sessions_by_end ON sessions (expires_at)",
            "CREATE INDEX deliveries_by_end ON deliveries (finished_at) WHERE finished_at IS NOT NULL",
            "CREATE INDEX task_results_with_logs ON task_results (created_at) WHERE logs <> ''",
        ];
        dialect::run(manager, &indexes).await?;
        if manager.get_database_backend() == DbBackend::Sqlite {
            let refuse = "BEGIN SELECT RAISE(ABORT, 'task_results is append-only'); END";
            let kept =
                format!("CREATE TRIGGER task_results_no_update BEFORE UPDATE OF {KEPT} ON task_results {refuse}");
            let logs = format!(
                "CREATE TRIGGER task_results_no_other_logs BEFORE UPDATE OF logs ON task_results WHEN NEW.logs <> '' {refuse}"
            );
            return dialect::run(manager, &["DROP TRIGGER task_results_no_update", &kept, &logs]).await;
        }
        let statements = [
            "DROP TRIGGER task_results_no_update ON task_results",
            "CREATE TRIGGER task_results_no_update BEFORE UPDATE ON task_results FOR EACH ROW WHEN (NEW.logs <> '' OR \
             to_jsonb(OLD) - 'logs' IS DISTINCT FROM to_jsonb(NEW) - 'logs') EXECUTE FUNCTION refuse_change()",
        ];
        dialect::run(manager, &statements).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let sqlite = manager.get_database_backend() == DbBackend::Sqlite;
        let triggers: &[&str] = if sqlite {
            &["DROP TRIGGER task_results_no_other_logs", "DROP TRIGGER task_results_no_update"]
        } else {
            &["DROP TRIGGER task_results_no_update ON task_results"]
        };
        dialect::run(manager, triggers).await?;
        dialect::append_only(manager, "task_results", &["UPDATE"]).await?;
        let indexes =
            ["DROP INDEX task_results_with_logs", "DROP INDEX deliveries_by_end", "DROP INDEX sessions_by_end"];
        dialect::run(manager, &indexes).await
    }
}
