//! One step of a delegation's plan.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    choice,
    id::{DelegationId, ModuleId, StepId, TaskId},
    money::Amount,
    text::{JsonText, Words},
    time::Timestamp,
};

choice! {
    /// What a step is.
    Kind {
        /// Making the plan of the others.
        Plan = "PLAN",
        /// Work that one agent does, or several the same.
        Work = "WORK",
        /// A delegation of its own.
        Group = "GROUP",
    }
}

choice! {
    /// The states of a step.
    Status {
        /// Waits for the steps that it depends on.
        Pending = "PENDING",
        /// Its tasks, or its steps, are in work.
        Running = "RUNNING",
        /// Has its output.
        Completed = "COMPLETED",
        /// Failed, and the delegation with it.
        Failed = "FAILED",
        /// Failed, and the delegation goes on without it.
        Skipped = "SKIPPED",
        /// Was not begun, or not ended, when the delegation stopped.
        Cancelled = "CANCELLED",
    }
}

choice! {
    /// What follows when a step fails.
    OnFailure {
        /// The delegation fails.
        Fail = "FAIL",
        /// The step is tried again, so many times; then the delegation fails.
        Retry = "RETRY",
        /// The delegation goes on without it.
        Skip = "SKIP",
    }
}

/// A row of `delegation_steps`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, DeriveEntityModel)]
#[sea_orm(table_name = "delegation_steps")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: StepId,
    pub delegation_id: DelegationId,
    /// The place in the plan, from 0; unique in the delegation.
    pub position: i32,
    /// Unique in the delegation; others refer to it by this.
    pub name: String,
    pub kind: Kind,
    pub title: String,
    pub capabilities: Words,
    /// The names of the steps whose end it waits for.
    pub depends_on: Words,
    /// The template of its input; when empty it follows from what it depends on.
    pub input: Option<JsonText>,
    pub output_schema: Option<JsonText>,
    /// The plan of its own steps; only of a group.
    pub plan: Option<JsonText>,
    /// The module that says whether an output is good.
    pub checker_id: Option<ModuleId>,
    /// Its share of the delegation's budget: what all of one attempt may cost.
    pub budget: Amount,
    pub on_failure: OnFailure,
    /// How often it is tried again at most.
    pub retries: i32,
    /// How many agents do the same.
    pub replicas: i32,
    /// How many of them must give the same output.
    pub agree: i32,
    /// How long its auctions take bids, in milliseconds; as the delegation says when empty.
    pub closes_in_ms: Option<i64>,
    /// The wall-clock limit of one attempt at a task, in milliseconds.
    pub timeout_ms: Option<i64>,
    pub status: Status,
    /// How often it was begun.
    pub attempts: i32,
    /// The task whose output is the step's.
    pub task_id: Option<TaskId>,
    /// The delegation that a group is.
    pub child_id: Option<DelegationId>,
    pub failure_code: Option<String>,
    pub failure_message: Option<String>,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
