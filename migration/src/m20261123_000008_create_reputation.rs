//! Reputations, the evidence behind them, and ratings.

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
                "CREATE TABLE reputations ( \
                 agent_id {id} PRIMARY KEY REFERENCES agents (id), \
                 success_sum BIGINT NOT NULL, success_weight BIGINT NOT NULL, \
                 rating_sum BIGINT NOT NULL, rating_weight BIGINT NOT NULL, \
                 timeliness_sum BIGINT NOT NULL, timeliness_weight BIGINT NOT NULL, \
                 cost_sum BIGINT NOT NULL, cost_weight BIGINT NOT NULL, \
                 experience BIGINT NOT NULL, \
                 as_of BIGINT NOT NULL, \
                 version BIGINT NOT NULL CHECK (version >= 0), \
                 tasks BIGINT NOT NULL CHECK (tasks >= 0), \
                 successes BIGINT NOT NULL CHECK (successes >= 0), \
                 failures BIGINT NOT NULL CHECK (failures >= 0), \
                 earned BIGINT NOT NULL CHECK (earned >= 0), \
                 busy_ms BIGINT NOT NULL CHECK (busy_ms >= 0), \
                 CHECK (tasks = successes + failures), \
                 CHECK (success_sum BETWEEN 0 AND success_weight), \
                 CHECK (rating_sum BETWEEN 0 AND rating_weight), \
                 CHECK (timeliness_sum BETWEEN 0 AND timeliness_weight), \
                 CHECK (cost_sum BETWEEN 0 AND cost_weight), \
                 CHECK (experience >= 0))",
                "CREATE TABLE reputation_events ( \
                 id {id} PRIMARY KEY, \
                 agent_id {id} NOT NULL REFERENCES agents (id), \
                 version BIGINT NOT NULL CHECK (version >= 1), \
                 task_id {id} NOT NULL REFERENCES tasks (id), \
                 payer_id {id} NOT NULL REFERENCES users (id), \
                 owner_id {id} NOT NULL REFERENCES users (id), \
                 cause TEXT NOT NULL CHECK (cause IN ('SUCCESS', 'FAILURE', 'TIMEOUT', 'RATING')), \
                 amount BIGINT NOT NULL CHECK (amount >= 0), \
                 weight BIGINT NOT NULL CHECK (weight >= 0), \
                 success BIGINT, rating BIGINT, timeliness BIGINT, cost BIGINT, \
                 score_before INTEGER NOT NULL CHECK (score_before BETWEEN 0 AND 100000), \
                 score_after INTEGER NOT NULL CHECK (score_after BETWEEN 0 AND 100000), \
                 created_at BIGINT NOT NULL, \
                 UNIQUE (agent_id, version))",
                "CREATE UNIQUE INDEX reputation_events_one_outcome ON reputation_events (task_id) WHERE cause IN ('SUCCESS', 'FAILURE')",
                "CREATE UNIQUE INDEX reputation_events_one_rating ON reputation_events (task_id) WHERE cause = 'RATING'",
                "CREATE UNIQUE INDEX reputation_events_one_timeout ON reputation_events (task_id, agent_id) WHERE cause = 'TIMEOUT'",
                "CREATE INDEX reputation_events_by_agent ON reputation_events (agent_id, id)",
                "CREATE INDEX reputation_events_by_pair ON reputation_events (payer_id, owner_id, created_at, cause)",
                "CREATE INDEX reputation_events_by_task ON reputation_events (task_id)",
                "CREATE INDEX reputation_events_by_owner ON reputation_events (owner_id)",
                "CREATE TABLE ratings ( \
                 id {id} PRIMARY KEY, \
                 task_id {id} NOT NULL UNIQUE REFERENCES tasks (id), \
                 agent_id {id} NOT NULL REFERENCES agents (id), \
                 rater_id {id} NOT NULL REFERENCES users (id), \
                 stars INTEGER NOT NULL CHECK (stars BETWEEN 1 AND 5), \
                 comment TEXT, \
                 created_at BIGINT NOT NULL)",
                "CREATE INDEX ratings_by_agent ON ratings (agent_id, id)",
                "CREATE INDEX ratings_by_rater ON ratings (rater_id, id)",
            ],
        )
        .await?;
        dialect::append_only(manager, "reputation_events", &["UPDATE", "DELETE"]).await?;
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        dialect::drop_tables(manager, &["ratings", "reputation_events", "reputations"]).await
    }
}
