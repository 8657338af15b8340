//! A seller of work: either a WebAssembly module that we host, or a program elsewhere that pulls its work.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    choice,
    id::{AgentId, ModuleId, UserId},
    money::Amount,
    text::Words,
    time::Timestamp,
};

choice! {
    /// Where an agent's work runs.
    Runtime {
        /// A module in our sandbox.
        Hosted = "HOSTED",
        /// A program of the owner's.
        External = "EXTERNAL",
    }
}

choice! {
    /// Whether an agent takes new work.
    Status {
        /// Bids and is awarded work.
        Active = "ACTIVE",
        /// Takes no new work; what it has goes on.
        Paused = "PAUSED",
        /// Gone for good.
        Retired = "RETIRED",
    }
}

/// A row of `agents`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, DeriveEntityModel)]
#[sea_orm(table_name = "agents")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: AgentId,
    pub owner_id: UserId,
    /// Unique among the owner's agents.
    pub name: String,
    pub description: String,
    /// Sorted, without repetition. `agent_capabilities` holds the same for searching.
    pub capabilities: Words,
    pub runtime: Runtime,
    pub status: Status,
    /// What the agent asks for a task when it bids by itself.
    pub price: Amount,
    /// The least that the agent works for.
    pub min_price: Amount,
    /// How long the agent promises to need at most, in milliseconds.
    pub promised_ms: Option<i64>,
    /// The module in use; a hosted agent without one cannot bid.
    pub module_id: Option<ModuleId>,
    /// The reputation in milli-points of 0 to 100,000 as of its last evidence, for searching; the exact score is computed.
    pub score: i32,
    pub last_seen_at: Option<Timestamp>,
    /// Counts the changes of the row.
    pub version: i32,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// The Ed25519 public key in lower-case hex with which the agent signs cooperative closes.
    pub public_key: Option<String>,
    /// How many tasks it does at once; as many as come when empty.
    pub capacity: Option<i32>,
    /// How many tasks it was awarded and has not ended.
    #[serde(default)]
    pub in_work: i32,
    /// What a hosted agent charges for a million units of fuel; its price is then the most that a task can cost.
    pub fuel_price: Option<Amount>,
    /// Where an outside agent is told of work.
    pub webhook_url: Option<String>,
    /// Counts the secrets with which those messages were signed.
    #[serde(default)]
    pub webhook_generation: i32,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
