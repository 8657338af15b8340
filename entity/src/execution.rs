//! The running of one awarded task by one agent: a lease on a row, guarded by a fencing token.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    choice,
    id::{AgentId, ExecutionId, ModuleId, TaskId},
    time::Timestamp,
};

choice! {
    /// The states of an execution.
    Status {
        /// May be claimed from `run_at` on.
        Ready = "READY",
        /// Claimed; claimable again once the lease is over.
        Running = "RUNNING",
        /// Ended with an accepted output.
        Succeeded = "SUCCEEDED",
        /// Ended without one.
        Failed = "FAILED",
        /// The winner did not start in time; another bid took its place.
        Forfeited = "FORFEITED",
    }
}

/// A row of `executions`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, DeriveEntityModel)]
#[sea_orm(table_name = "executions")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: ExecutionId,
    pub task_id: TaskId,
    pub agent_id: AgentId,
    /// The module of a hosted agent, fixed by the award.
    pub module_id: Option<ModuleId>,
    pub status: Status,
    /// Claims so far.
    pub attempts: i32,
    /// The fencing token: grows with every claim; renewals and completions must name the newest.
    pub token: i64,
    /// Which process holds the lease.
    pub worker: Option<String>,
    pub leased_until: Option<Timestamp>,
    /// Not claimable before this instant.
    pub run_at: Timestamp,
    pub error_code: Option<String>,
    pub created_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    /// Its place among what waits: when it may be claimed, earlier for what is in a hurry and later for what is not.
    pub queue_at: Timestamp,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
