//! Delegations: their steps, the tasks that the steps buy, and what tasks and events say about them.

use sea_orm_migration::{prelude::*, sea_orm::DbBackend};

use crate::dialect::{self, Reworded};

const REWORDED: &[Reworded] = &[
    Reworded {
        table: "accounts",
        constraint: "accounts_kind_check",
        from: "kind IN ('EXTERNAL', 'USER', 'AGENT', 'ESCROW_TASK', 'ESCROW_CHANNEL', 'FEES', 'BOND')",
        to: "kind IN ('EXTERNAL', 'USER', 'AGENT', 'ESCROW_TASK', 'ESCROW_CHANNEL', 'FEES', 'BOND', 'ESCROW_DELEGATION')",
    },
    Reworded {
        table: "tasks",
        constraint: "tasks_acceptance_check",
        from: "acceptance IN ('AUTOMATIC', 'REVIEW')",
        to: "acceptance IN ('AUTOMATIC', 'REVIEW', 'AGREEMENT')",
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
        dialect::reword(manager, REWORDED).await?;
        dialect::run(
            manager,
            &[
                "CREATE TABLE delegations ( \
                 id {id} PRIMARY KEY, \
                 requester_id {id} NOT NULL REFERENCES users (id), \
                 parent_id {id} REFERENCES delegations (id), \
                 step_id {id}, \
                 attempt INTEGER CHECK (attempt >= 1), \
                 depth INTEGER NOT NULL CHECK (depth BETWEEN 1 AND 3), \
                 goal TEXT NOT NULL, \
                 capabilities {json} NOT NULL, \
                 input TEXT NOT NULL, \
                 priority TEXT NOT NULL CHECK (priority IN ('LOW', 'NORMAL', 'HIGH')), \
                 budget BIGINT NOT NULL CHECK (budget > 0), \
                 planning_budget BIGINT NOT NULL CHECK (planning_budget >= 0 AND planning_budget < budget), \
                 closes_in_ms BIGINT CHECK (closes_in_ms > 0), \
                 source TEXT NOT NULL CHECK (source IN ('CLIENT', 'CAPABILITIES', 'AGENT')), \
                 plan TEXT, \
                 status TEXT NOT NULL CHECK (status IN ('PLANNING', 'RUNNING', 'STOPPING', 'COMPLETED', 'FAILED', 'CANCELLED')), \
                 stop_code TEXT, \
                 stop_message TEXT, \
                 spent BIGINT CHECK (spent >= 0 AND spent <= budget), \
                 output TEXT, \
                 ends_by BIGINT NOT NULL, \
                 deadline_at BIGINT, \
                 created_at BIGINT NOT NULL, \
                 planned_at BIGINT, \
                 finished_at BIGINT, \
                 UNIQUE (step_id, attempt), \
                 CHECK ((parent_id IS NULL) = (depth = 1)), \
                 CHECK ((parent_id IS NULL) = (step_id IS NULL)), \
                 CHECK ((step_id IS NULL) = (attempt IS NULL)), \
                 CHECK ((plan IS NULL) = (planned_at IS NULL)), \
                 CHECK (status NOT IN ('RUNNING', 'COMPLETED') OR plan IS NOT NULL), \
                 CHECK ((deadline_at IS NOT NULL) = (status IN ('PLANNING', 'RUNNING', 'STOPPING'))), \
                 CHECK ((finished_at IS NULL) = (status IN ('PLANNING', 'RUNNING', 'STOPPING'))), \
                 CHECK ((finished_at IS NULL) = (spent IS NULL)), \
                 CHECK ((status IN ('STOPPING', 'FAILED', 'CANCELLED')) = (stop_code IS NOT NULL)), \
                 CHECK ((status = 'COMPLETED') = (output IS NOT NULL)))",
                "CREATE INDEX delegations_by_requester ON delegations (requester_id, id)",
                "CREATE INDEX delegations_by_parent ON delegations (parent_id)",
                "CREATE INDEX delegations_due ON delegations (deadline_at) WHERE deadline_at IS NOT NULL",
                "CREATE TABLE delegation_steps ( \
                 id {id} PRIMARY KEY, \
                 delegation_id {id} NOT NULL REFERENCES delegations (id), \
                 position INTEGER NOT NULL CHECK (position >= 0), \
                 name TEXT NOT NULL, \
                 kind TEXT NOT NULL CHECK (kind IN ('PLAN', 'WORK', 'GROUP')), \
                 title TEXT NOT NULL, \
                 capabilities {json} NOT NULL, \
                 depends_on {json} NOT NULL, \
                 input TEXT, \
                 output_schema TEXT, \
                 plan TEXT, \
                 checker_id {id} REFERENCES agent_modules (id), \
                 budget BIGINT NOT NULL CHECK (budget > 0), \
                 on_failure TEXT NOT NULL CHECK (on_failure IN ('FAIL', 'RETRY', 'SKIP')), \
                 retries INTEGER NOT NULL CHECK (retries BETWEEN 0 AND 10), \
                 replicas INTEGER NOT NULL CHECK (replicas BETWEEN 1 AND 9), \
                 agree INTEGER NOT NULL CHECK (agree BETWEEN 1 AND replicas), \
                 closes_in_ms BIGINT CHECK (closes_in_ms > 0), \
                 timeout_ms BIGINT CHECK (timeout_ms > 0), \
                 status TEXT NOT NULL CHECK (status IN ('PENDING', 'RUNNING', 'COMPLETED', 'FAILED', 'SKIPPED', 'CANCELLED')), \
                 attempts INTEGER NOT NULL CHECK (attempts >= 0), \
                 task_id {id} REFERENCES tasks (id), \
                 child_id {id} REFERENCES delegations (id), \
                 failure_code TEXT, \
                 failure_message TEXT, \
                 started_at BIGINT, \
                 finished_at BIGINT, \
                 UNIQUE (delegation_id, position), \
                 UNIQUE (delegation_id, name), \
                 CHECK ((kind = 'GROUP') = (plan IS NOT NULL)), \
                 CHECK ((on_failure = 'RETRY') = (retries > 0)), \
                 CHECK ((finished_at IS NOT NULL) = (status IN ('COMPLETED', 'FAILED', 'SKIPPED', 'CANCELLED'))), \
                 CHECK (status <> 'COMPLETED' OR task_id IS NOT NULL OR child_id IS NOT NULL))",
                "CREATE INDEX delegation_steps_running ON delegation_steps (delegation_id) WHERE status = 'RUNNING'",
                "CREATE INDEX delegation_steps_by_child ON delegation_steps (child_id)",
                "CREATE TABLE delegation_tasks ( \
                 task_id {id} PRIMARY KEY REFERENCES tasks (id), \
                 step_id {id} NOT NULL REFERENCES delegation_steps (id), \
                 attempt INTEGER NOT NULL CHECK (attempt >= 1), \
                 replica INTEGER NOT NULL CHECK (replica >= 1), \
                 UNIQUE (step_id, attempt, replica))",
                "ALTER TABLE tasks ADD COLUMN delegation_id {id}",
                "ALTER TABLE tasks ADD COLUMN priority TEXT NOT NULL DEFAULT 'NORMAL' CHECK (priority IN ('LOW', 'NORMAL', 'HIGH'))",
                "ALTER TABLE tasks ADD COLUMN purpose TEXT NOT NULL DEFAULT 'WORK' CHECK (purpose IN ('WORK', 'PLAN'))",
                "ALTER TABLE tasks ADD COLUMN checker_id {id}",
                "ALTER TABLE tasks ADD COLUMN charge BIGINT CHECK (charge > 0 AND charge <= price)",
                "CREATE INDEX tasks_by_delegation ON tasks (delegation_id) WHERE delegation_id IS NOT NULL",
                "ALTER TABLE events ADD COLUMN delegation_id {id}",
                "CREATE INDEX events_by_delegation ON events (delegation_id, id)",
            ],
        )
        .await?;
        for (column, target) in [("delegation_id", "delegations"), ("checker_id", "agent_modules")] {
            dialect::reference(manager, "tasks", column, target).await?;
        }
        keep_lines(manager, true).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        keep_lines(manager, false).await?;
        dialect::run(manager, &["DROP INDEX events_by_delegation", "DROP INDEX tasks_by_delegation"]).await?;
        dialect::drop_columns(manager, "events", &["delegation_id"]).await?;
        dialect::drop_columns(manager, "tasks", &["delegation_id", "priority", "purpose", "checker_id", "charge"])
            .await?;
        dialect::drop_tables(manager, &["delegation_tasks", "delegation_steps", "delegations"]).await?;
        dialect::reword_back(manager, REWORDED).await
    }
}

/// Makes PostgreSQL watch over the column that the lines of the log got, or forget it.
async fn keep_lines(manager: &SchemaManager<'_>, with_delegation: bool) -> Result<(), DbErr> {
    if manager.get_database_backend() == DbBackend::Sqlite {
        return Ok(());
    }
    let columns = |row: &str| {
        let names =
            ["id", "kind", "auction_id", "task_id", "channel_id", "agent_id", "payer_id", "owner_id", "actor_id"];
        let rest = ["payload", "occurred_at"].into_iter().chain(with_delegation.then_some("delegation_id"));
        names.into_iter().chain(rest).map(|name| format!("{row}.{name}")).collect::<Vec<_>>().join(", ")
    };
    let trigger = format!(
        "CREATE TRIGGER events_no_update BEFORE UPDATE ON events FOR EACH ROW WHEN (OLD.place IS NOT NULL OR \
         ROW({}) IS DISTINCT FROM ROW({})) EXECUTE FUNCTION refuse_change()",
        columns("OLD"),
        columns("NEW"),
    );
    dialect::run(manager, &["DROP TRIGGER events_no_update ON events", &trigger]).await
}
