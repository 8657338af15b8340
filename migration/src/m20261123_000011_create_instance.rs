//! The identity of this market and the seals over its journal.

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
                "CREATE TABLE instances ( \
                 id INTEGER PRIMARY KEY CHECK (id = 1), \
                 public_key TEXT NOT NULL CHECK (length(public_key) = 64), \
                 created_at BIGINT NOT NULL)",
                "CREATE TABLE journal_lines ( \
                 place BIGINT PRIMARY KEY CHECK (place >= 1), \
                 transfer_id {id} NOT NULL UNIQUE REFERENCES transfers (id), \
                 hash TEXT NOT NULL CHECK (length(hash) = 64))",
                "CREATE TABLE journal_heads ( \
                 place BIGINT PRIMARY KEY CHECK (place >= 0), \
                 hash TEXT NOT NULL CHECK (length(hash) = 64), \
                 signature TEXT NOT NULL CHECK (length(signature) = 128), \
                 created_at BIGINT NOT NULL)",
            ],
        )
        .await?;
        dialect::append_only(manager, "instances", &["UPDATE", "DELETE"]).await?;
        dialect::append_only(manager, "journal_lines", &["UPDATE", "DELETE"]).await?;
        dialect::append_only(manager, "journal_heads", &["UPDATE", "DELETE"]).await?;
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        dialect::drop_tables(manager, &["journal_heads", "journal_lines", "instances"]).await?;
        Ok(())
    }
}
