//! The waiting work in its order, however much of it there is, and the newest attempt at a task without reading all others.

use sea_orm_migration::{
    prelude::*,
    sea_orm::{ConnectionTrait, DbBackend},
};

use crate::dialect;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let statements =
            ["CREATE INDEX executions_of_task ON executions (task_id, id)", "DROP INDEX executions_by_task"];
        dialect::run(manager, &statements).await?;
        // Statistics are always old for a queue. Whoever believes that next to nothing waits sorts all that does wait, for each claim;
        // without them PostgreSQL assumes a share of all work and reads the queue by its index.
        statistics(manager, 0).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let statements = ["CREATE INDEX executions_by_task ON executions (task_id)", "DROP INDEX executions_of_task"];
        dialect::run(manager, &statements).await?;
        statistics(manager, -1).await
    }
}

/// How exact PostgreSQL's statistics of the state of work are: not at all, or as the server is set.
async fn statistics(manager: &SchemaManager<'_>, target: i16) -> Result<(), DbErr> {
    if manager.get_database_backend() == DbBackend::Postgres {
        let statement = format!("ALTER TABLE executions ALTER COLUMN status SET STATISTICS {target}");
        manager.get_connection().execute_unprepared(&statement).await?;
    }
    Ok(())
}
