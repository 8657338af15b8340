//! Streaming channels: what a payer opens for an agent and pays as it goes, and what happened in each. It also has the words of the
//! ledger for bonds and for what agents hand to their owners.

use sea_orm_migration::prelude::*;

use crate::dialect::{self, Reworded};

const REWORDED: &[Reworded] = &[
    Reworded {
        table: "channels",
        constraint: "channels_purpose_check",
        from: "purpose IN ('ESCROW')",
        to: "purpose IN ('ESCROW', 'STREAM')",
    },
    Reworded {
        table: "channels",
        constraint: "channels_status_check",
        from: "status IN ('OPEN', 'CLOSED')",
        to: "status IN ('OPEN', 'CLOSING', 'CLOSED')",
    },
    Reworded {
        table: "channels",
        constraint: "channels_close_reason_check",
        from: "close_reason IN ('SETTLED', 'REFUNDED', 'FORFEITED')",
        to: "close_reason IN ('SETTLED', 'REFUNDED', 'FORFEITED', 'AGENT_CLOSED', 'COOPERATIVE', 'PAYER_CLOSED', 'EXPIRED')",
    },
    Reworded {
        table: "channels",
        constraint: "channels_check1",
        from: "(purpose = 'ESCROW') = (task_id IS NOT NULL)",
        to: "(purpose = 'ESCROW') = (task_id IS NOT NULL) AND (purpose = 'ESCROW') = (hold_id IS NOT NULL) AND (purpose = 'STREAM') = (hash IS NOT NULL) AND (purpose = 'STREAM') = (salt IS NOT NULL) AND (purpose = 'STREAM') = (settle_delay_s IS NOT NULL) AND (status = 'CLOSING') = (close_at IS NOT NULL)",
    },
    Reworded {
        table: "accounts",
        constraint: "accounts_kind_check",
        from: "kind IN ('EXTERNAL', 'USER', 'AGENT', 'ESCROW_TASK', 'ESCROW_CHANNEL', 'FEES')",
        to: "kind IN ('EXTERNAL', 'USER', 'AGENT', 'ESCROW_TASK', 'ESCROW_CHANNEL', 'FEES', 'BOND')",
    },
    Reworded {
        table: "transfers",
        constraint: "transfers_kind_check",
        from: "kind IN ('ISSUE', 'REDEEM', 'HOLD', 'ESCROW', 'RELEASE', 'REFUND', 'PAYOUT', 'FEE')",
        to: "kind IN ('ISSUE', 'REDEEM', 'HOLD', 'ESCROW', 'RELEASE', 'REFUND', 'PAYOUT', 'FEE', 'DEPOSIT', 'WITHDRAWAL', 'BOND', 'BOND_RETURN', 'BOND_FORFEIT')",
    },
];

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
                "ALTER TABLE agents ADD COLUMN public_key TEXT CHECK (length(public_key) = 64)",
                "ALTER TABLE channels ADD COLUMN hash TEXT CHECK (length(hash) = 64)",
                "ALTER TABLE channels ADD COLUMN signer_key TEXT CHECK (length(signer_key) = 64)",
                "ALTER TABLE channels ADD COLUMN salt TEXT CHECK (length(salt) = 64)",
                "ALTER TABLE channels ADD COLUMN settle_delay_s BIGINT CHECK (settle_delay_s > 0)",
                "ALTER TABLE channels ADD COLUMN voucher_nonce BIGINT NOT NULL DEFAULT 0 CHECK (voucher_nonce >= 0)",
                "ALTER TABLE channels ADD COLUMN fee_bps INTEGER NOT NULL DEFAULT 0 CHECK (fee_bps BETWEEN 0 AND 10000)",
                "ALTER TABLE channels ADD COLUMN close_at BIGINT",
            ],
        )
        .await?;
        dialect::require(manager, "channels", "hold_id", "hold_id {id} NOT NULL", false).await?;
        dialect::reword(manager, REWORDED).await?;
        dialect::run(
            manager,
            &[
                "CREATE UNIQUE INDEX channels_by_hash ON channels (hash)",
                "CREATE INDEX channels_streams_due ON channels (COALESCE(close_at, expires_at)) WHERE purpose = 'STREAM' AND status <> 'CLOSED'",
                "CREATE TABLE channel_changes ( \
                 channel_id {id} NOT NULL REFERENCES channels (id), \
                 nonce BIGINT NOT NULL CHECK (nonce >= 1), \
                 kind TEXT NOT NULL CHECK (kind IN ('OPENED', 'TOPPED_UP', 'DEDUCTED', 'CLAIMED', 'CLOSE_REQUESTED', 'CLOSE_CANCELLED', 'CLOSED')), \
                 amount BIGINT NOT NULL CHECK (amount >= 0), \
                 fee BIGINT NOT NULL CHECK (fee >= 0 AND fee <= amount), \
                 deposit BIGINT NOT NULL CHECK (deposit >= 0), \
                 paid BIGINT NOT NULL CHECK (paid >= 0 AND paid <= deposit), \
                 batch_id {id}, \
                 actor_id {id}, \
                 voucher_nonce BIGINT CHECK (voucher_nonce >= 1), \
                 cumulative BIGINT CHECK (cumulative >= 0), \
                 valid_until BIGINT CHECK (valid_until >= 0), \
                 context_hash TEXT CHECK (length(context_hash) = 64), \
                 signature TEXT CHECK (length(signature) = 128), \
                 created_at BIGINT NOT NULL, \
                 PRIMARY KEY (channel_id, nonce), \
                 CHECK ((voucher_nonce IS NULL) = (cumulative IS NULL) AND (voucher_nonce IS NULL) = (signature IS NULL)))",
                "CREATE UNIQUE INDEX channel_changes_by_voucher ON channel_changes (channel_id, voucher_nonce) WHERE voucher_nonce IS NOT NULL",
                "CREATE TABLE equivocations ( \
                 id {id} PRIMARY KEY, \
                 channel_id {id} NOT NULL REFERENCES channels (id), \
                 voucher_nonce BIGINT NOT NULL CHECK (voucher_nonce >= 1), \
                 first_cumulative BIGINT NOT NULL, \
                 first_valid_until BIGINT NOT NULL, \
                 first_context_hash TEXT NOT NULL CHECK (length(first_context_hash) = 64), \
                 first_signature TEXT NOT NULL CHECK (length(first_signature) = 128), \
                 second_cumulative BIGINT NOT NULL, \
                 second_valid_until BIGINT NOT NULL, \
                 second_context_hash TEXT NOT NULL CHECK (length(second_context_hash) = 64), \
                 second_signature TEXT NOT NULL CHECK (length(second_signature) = 128), \
                 created_at BIGINT NOT NULL, \
                 UNIQUE (channel_id, voucher_nonce), \
                 CHECK (first_cumulative <> second_cumulative))",
            ],
        )
        .await?;
        dialect::append_only(manager, "channel_changes", &["UPDATE", "DELETE"]).await?;
        dialect::append_only(manager, "equivocations", &["UPDATE", "DELETE"]).await?;
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        dialect::drop_tables(manager, &["equivocations", "channel_changes"]).await?;
        dialect::run(manager, &["DROP INDEX channels_by_hash", "DROP INDEX channels_streams_due"]).await?;
        dialect::reword_back(manager, REWORDED).await?;
        dialect::require(manager, "channels", "hold_id", "hold_id {id} NOT NULL", true).await?;
        dialect::drop_columns(
            manager,
            "channels",
            &["hash", "signer_key", "salt", "settle_delay_s", "voucher_nonce", "fee_bps", "close_at"],
        )
        .await?;
        dialect::drop_columns(manager, "agents", &["public_key"]).await?;
        Ok(())
    }
}
