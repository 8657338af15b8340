//! Modules that are called through the JSON interface, and components.

use sea_orm_migration::prelude::*;

use crate::dialect::{self, Reworded};

const REWORDED: &[Reworded] = &[Reworded {
    table: "agent_modules",
    constraint: "agent_modules_interface_check",
    from: "interface IN ('WASI_COMMAND')",
    to: "interface IN ('WASI_COMMAND', 'JSON_ABI', 'WASI_COMPONENT')",
}];

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        dialect::reword(manager, REWORDED).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        dialect::reword_back(manager, REWORDED).await
    }
}
