//! Acceptance by review, and disputes with their evidence.

use sea_orm_migration::prelude::*;

use crate::dialect::{self, Reworded};

const REWORDED: &[Reworded] = &[
    Reworded {
        table: "tasks",
        constraint: "tasks_status_check",
        from: "status IN ('OPEN', 'AWARDED', 'RUNNING', 'COMPLETED', 'REFUNDED', 'EXPIRED', 'CANCELLED')",
        to: "status IN ('OPEN', 'AWARDED', 'RUNNING', 'SUBMITTED', 'DISPUTED', 'COMPLETED', 'REFUNDED', 'EXPIRED', 'CANCELLED')",
    },
    Reworded {
        table: "tasks",
        constraint: "tasks_check4",
        from: "status NOT IN ('AWARDED', 'RUNNING', 'COMPLETED', 'REFUNDED') OR (agent_id IS NOT NULL AND price IS NOT NULL AND channel_id IS NOT NULL AND bid_id IS NOT NULL)",
        to: "(status NOT IN ('AWARDED', 'RUNNING', 'SUBMITTED', 'DISPUTED', 'COMPLETED', 'REFUNDED') OR (agent_id IS NOT NULL AND price IS NOT NULL AND channel_id IS NOT NULL AND bid_id IS NOT NULL)) AND (status NOT IN ('SUBMITTED', 'DISPUTED') OR (submitted_at IS NOT NULL AND verified IS NOT NULL))",
    },
    Reworded {
        table: "task_results",
        constraint: "task_results_check1",
        from: "(outcome = 'FAILED') = (fault_code IS NOT NULL)",
        to: "outcome = 'SUCCEEDED' OR fault_code IS NOT NULL",
    },
    Reworded {
        table: "reputation_events",
        constraint: "reputation_events_cause_check",
        from: "cause IN ('SUCCESS', 'FAILURE', 'TIMEOUT', 'RATING')",
        to: "cause IN ('SUCCESS', 'FAILURE', 'RULING', 'TIMEOUT', 'RATING')",
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
                "ALTER TABLE tasks ADD COLUMN acceptance TEXT NOT NULL DEFAULT 'AUTOMATIC' CHECK (acceptance IN ('AUTOMATIC', 'REVIEW'))",
                "ALTER TABLE tasks ADD COLUMN review_ms BIGINT CHECK (review_ms > 0)",
                "ALTER TABLE tasks ADD COLUMN verified BOOLEAN",
                "ALTER TABLE tasks ADD COLUMN submitted_at BIGINT",
            ],
        )
        .await?;
        dialect::reword(manager, REWORDED).await?;
        dialect::run(
            manager,
            &[
                "DROP INDEX reputation_events_one_outcome",
                "CREATE UNIQUE INDEX reputation_events_one_outcome ON reputation_events (task_id) WHERE cause IN ('SUCCESS', 'FAILURE', 'RULING')",
                "CREATE TABLE disputes ( \
                 id {id} PRIMARY KEY, \
                 task_id {id} NOT NULL UNIQUE REFERENCES tasks (id), \
                 channel_id {id} NOT NULL REFERENCES channels (id), \
                 payer_id {id} NOT NULL REFERENCES users (id), \
                 owner_id {id} NOT NULL REFERENCES users (id), \
                 agent_id {id} NOT NULL REFERENCES agents (id), \
                 opened_by TEXT NOT NULL CHECK (opened_by IN ('PAYER', 'AGENT')), \
                 reason TEXT NOT NULL, \
                 amount BIGINT NOT NULL CHECK (amount > 0), \
                 status TEXT NOT NULL CHECK (status IN ('EVIDENCE', 'RULING', 'RULED', 'DEFAULTED')), \
                 evidence_until BIGINT NOT NULL, \
                 ruling_until BIGINT NOT NULL, \
                 awarded BIGINT CHECK (awarded >= 0 AND awarded <= amount), \
                 arbiter_id {id} REFERENCES users (id), \
                 opinion TEXT, \
                 created_at BIGINT NOT NULL, \
                 resolved_at BIGINT, \
                 CHECK (ruling_until > evidence_until), \
                 CHECK ((status IN ('RULED', 'DEFAULTED')) = (resolved_at IS NOT NULL AND awarded IS NOT NULL)), \
                 CHECK ((status = 'RULED') = (arbiter_id IS NOT NULL)), \
                 CHECK (arbiter_id <> payer_id AND arbiter_id <> owner_id))",
                "CREATE INDEX disputes_by_payer ON disputes (payer_id, id)",
                "CREATE INDEX disputes_by_owner ON disputes (owner_id, id)",
                "CREATE INDEX disputes_by_agent ON disputes (agent_id, id)",
                "CREATE INDEX disputes_by_status ON disputes (status, id)",
                "CREATE TABLE evidence ( \
                 id {id} PRIMARY KEY, \
                 dispute_id {id} NOT NULL REFERENCES disputes (id), \
                 submitter_id {id} NOT NULL REFERENCES users (id), \
                 kind TEXT NOT NULL CHECK (kind IN ('STATEMENT', 'JSON', 'LINK', 'DIGEST')), \
                 body TEXT NOT NULL, \
                 sha256 TEXT NOT NULL CHECK (length(sha256) = 64), \
                 created_at BIGINT NOT NULL, \
                 UNIQUE (dispute_id, submitter_id, sha256))",
                "CREATE INDEX evidence_by_dispute ON evidence (dispute_id, id)",
            ],
        )
        .await?;
        dialect::append_only(manager, "evidence", &["UPDATE", "DELETE"]).await?;
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        dialect::drop_tables(manager, &["evidence", "disputes"]).await?;
        dialect::run(
            manager,
            &[
                "DROP INDEX reputation_events_one_outcome",
                "CREATE UNIQUE INDEX reputation_events_one_outcome ON reputation_events (task_id) WHERE cause IN ('SUCCESS', 'FAILURE')",
            ],
        )
        .await?;
        dialect::reword_back(manager, REWORDED).await?;
        dialect::drop_columns(manager, "tasks", &["acceptance", "review_ms", "verified", "submitted_at"]).await?;
        Ok(())
    }
}
