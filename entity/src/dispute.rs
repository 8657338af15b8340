//! A quarrel over the result of one task, which an arbiter who is no party rules.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    choice,
    id::{AgentId, ChannelId, DisputeId, TaskId, UserId},
    money::Amount,
    time::Timestamp,
};

choice! {
    /// Which side opened it.
    Party {
        /// Who pays for the task.
        Payer = "PAYER",
        /// The owner of the agent that did it.
        Agent = "AGENT",
    }
}

choice! {
    /// The states of a dispute.
    Status {
        /// The parties show what they have.
        Evidence = "EVIDENCE",
        /// No more evidence is taken; an arbiter rules.
        Ruling = "RULING",
        /// An arbiter ruled.
        Ruled = "RULED",
        /// No arbiter ruled in time; the verifiers' verdict decided.
        Defaulted = "DEFAULTED",
    }
}

/// A row of `disputes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, DeriveEntityModel)]
#[sea_orm(table_name = "disputes")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: DisputeId,
    /// Unique: a task is disputed once.
    #[sea_orm(unique)]
    pub task_id: TaskId,
    pub channel_id: ChannelId,
    pub payer_id: UserId,
    /// The owner of the agent.
    pub owner_id: UserId,
    pub agent_id: AgentId,
    pub opened_by: Party,
    /// What the opener says is wrong.
    pub reason: String,
    /// The price, which is what there is to share out.
    pub amount: Amount,
    pub status: Status,
    /// Until when the parties may show evidence.
    pub evidence_until: Timestamp,
    /// Until when an arbiter may rule.
    pub ruling_until: Timestamp,
    /// What the agent gets of `amount`, before the platform's fee.
    pub awarded: Option<Amount>,
    pub arbiter_id: Option<UserId>,
    /// Why the arbiter ruled so.
    pub opinion: Option<String>,
    pub created_at: Timestamp,
    pub resolved_at: Option<Timestamp>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
