//! The answers to mutations that carried an idempotency key.

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
                "CREATE TABLE idempotency_records ( \
                 user_id {id} NOT NULL REFERENCES users (id), \
                 operation TEXT NOT NULL, \
                 key TEXT NOT NULL, \
                 input_hash TEXT NOT NULL CHECK (length(input_hash) = 64), \
                 answer TEXT NOT NULL, \
                 created_at BIGINT NOT NULL, \
                 PRIMARY KEY (user_id, operation, key))",
                "CREATE INDEX idempotency_records_by_age ON idempotency_records (created_at)",
            ],
        )
        .await?;
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        dialect::drop_tables(manager, &["idempotency_records"]).await
    }
}
