//! What came of a task: written in the transaction that settles it or puts it before the payer, so there is no payment without a
//! result.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    choice,
    id::{AgentId, ExecutionId, TaskId},
    money::Amount,
    text::JsonText,
    time::Timestamp,
};

choice! {
    /// Whether the work was good.
    Outcome {
        /// There is an output: one that passed its verifiers, or one that waits, or waited, for the payer's word.
        Succeeded = "SUCCEEDED",
        /// The guest or its output was at fault, or our attempts ran out.
        Failed = "FAILED",
    }
}

/// A row of `task_results`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, DeriveEntityModel)]
#[sea_orm(table_name = "task_results")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub task_id: TaskId,
    pub execution_id: ExecutionId,
    pub agent_id: AgentId,
    pub outcome: Outcome,
    /// The JSON that the agent answered; empty when it did not succeed.
    pub output: Option<JsonText>,
    /// What the agent wrote to standard error, cut at the log limit.
    pub logs: String,
    /// A stable code of the fault; with an output, of what the verifiers found wrong with it.
    pub fault_code: Option<String>,
    pub fault_message: Option<String>,
    /// Units of fuel used by the last attempt.
    pub fuel: i64,
    pub peak_memory_bytes: i64,
    /// Wall time of the last attempt in microseconds.
    pub wall_us: i64,
    pub module_sha256: Option<String>,
    pub input_sha256: String,
    pub output_sha256: Option<String>,
    /// What the payer had been charged when this was written: nothing where the payer's word came later.
    pub cost: Amount,
    /// Whether the task's checker passed the output; empty without one, and where it could not say.
    pub check_passed: Option<bool>,
    /// What the checker said about it.
    pub check_reason: Option<String>,
    pub created_at: Timestamp,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
