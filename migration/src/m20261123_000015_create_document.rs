//! Signed documents: the certificate of an award and the receipt of a settled task.

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
                "CREATE TABLE documents ( \
                 id {id} PRIMARY KEY, \
                 kind TEXT NOT NULL CHECK (kind IN ('AWARD_CERTIFICATE', 'TASK_RECEIPT')), \
                 task_id {id} NOT NULL REFERENCES tasks (id), \
                 auction_id {id} NOT NULL REFERENCES auctions (id), \
                 version INTEGER NOT NULL CHECK (version >= 1), \
                 body TEXT NOT NULL, \
                 sha256 TEXT NOT NULL CHECK (length(sha256) = 64), \
                 signature TEXT NOT NULL CHECK (length(signature) = 128), \
                 created_at BIGINT NOT NULL, \
                 UNIQUE (task_id, kind, version))",
                "CREATE INDEX documents_by_auction ON documents (auction_id, kind, version)",
            ],
        )
        .await?;
        dialect::append_only(manager, "documents", &["UPDATE", "DELETE"]).await?;
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        dialect::drop_tables(manager, &["documents"]).await?;
        Ok(())
    }
}
