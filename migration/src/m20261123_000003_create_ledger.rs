//! The ledger: accounts, transfers of two entries, holds and their one resolution.

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
                "CREATE TABLE accounts ( \
                 id {id} PRIMARY KEY, \
                 kind TEXT NOT NULL CHECK (kind IN ('EXTERNAL', 'USER', 'AGENT', 'ESCROW_TASK', 'ESCROW_CHANNEL', 'FEES')), \
                 owner_id {id} NOT NULL, \
                 shard INTEGER NOT NULL CHECK (shard >= 0), \
                 balance BIGINT NOT NULL, \
                 version BIGINT NOT NULL CHECK (version >= 0), \
                 created_at BIGINT NOT NULL, \
                 UNIQUE (owner_id, kind, shard), \
                 CHECK (balance >= 0 OR kind = 'EXTERNAL'))",
                "CREATE TABLE transfers ( \
                 id {id} PRIMARY KEY, \
                 batch_id {id} NOT NULL, \
                 kind TEXT NOT NULL CHECK (kind IN ('ISSUE', 'REDEEM', 'HOLD', 'ESCROW', 'RELEASE', 'REFUND', 'PAYOUT', 'FEE')), \
                 debit_id {id} NOT NULL REFERENCES accounts (id), \
                 credit_id {id} NOT NULL REFERENCES accounts (id), \
                 amount BIGINT NOT NULL CHECK (amount > 0), \
                 task_id {id} {later tasks}, \
                 channel_id {id} {later channels}, \
                 reference TEXT, \
                 created_at BIGINT NOT NULL, \
                 UNIQUE (kind, reference), \
                 CHECK (debit_id <> credit_id), \
                 CHECK ((reference IS NOT NULL) = (kind IN ('ISSUE', 'REDEEM'))))",
                "CREATE INDEX transfers_by_debit ON transfers (debit_id, id)",
                "CREATE INDEX transfers_by_credit ON transfers (credit_id, id)",
                "CREATE INDEX transfers_by_task ON transfers (task_id, id)",
                "CREATE INDEX transfers_by_channel ON transfers (channel_id, id)",
                "CREATE INDEX transfers_by_batch ON transfers (batch_id)",
                "CREATE TABLE entries ( \
                 account_id {id} NOT NULL REFERENCES accounts (id), \
                 version BIGINT NOT NULL CHECK (version >= 1), \
                 transfer_id {id} NOT NULL REFERENCES transfers (id), \
                 amount BIGINT NOT NULL CHECK (amount <> 0), \
                 previous BIGINT NOT NULL, \
                 current BIGINT NOT NULL, \
                 created_at BIGINT NOT NULL, \
                 PRIMARY KEY (account_id, version), \
                 CHECK (current = previous + amount))",
                "CREATE UNIQUE INDEX entries_by_transfer ON entries (transfer_id, account_id)",
                "CREATE TABLE holds ( \
                 id {id} PRIMARY KEY, \
                 escrow_id {id} NOT NULL UNIQUE REFERENCES accounts (id), \
                 payer_account_id {id} NOT NULL REFERENCES accounts (id), \
                 task_id {id} NOT NULL {later tasks}, \
                 amount BIGINT NOT NULL CHECK (amount > 0), \
                 status TEXT NOT NULL CHECK (status IN ('HELD', 'POSTED', 'VOIDED')), \
                 created_at BIGINT NOT NULL)",
                "CREATE INDEX holds_by_task ON holds (task_id)",
                "CREATE INDEX holds_by_payer ON holds (payer_account_id, status)",
                "CREATE TABLE hold_resolutions ( \
                 hold_id {id} PRIMARY KEY REFERENCES holds (id), \
                 kind TEXT NOT NULL CHECK (kind IN ('POST', 'VOID')), \
                 posted BIGINT NOT NULL CHECK (posted >= 0), \
                 returned BIGINT NOT NULL CHECK (returned >= 0), \
                 batch_id {id} NOT NULL, \
                 created_at BIGINT NOT NULL, \
                 CHECK ((kind = 'VOID') = (posted = 0)))",
            ],
        )
        .await?;
        dialect::append_only(manager, "transfers", &["UPDATE", "DELETE"]).await?;
        dialect::append_only(manager, "entries", &["UPDATE", "DELETE"]).await?;
        dialect::append_only(manager, "hold_resolutions", &["UPDATE", "DELETE"]).await?;
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        dialect::drop_tables(manager, &["hold_resolutions", "holds", "entries", "transfers", "accounts"]).await
    }
}
