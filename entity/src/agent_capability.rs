//! One capability of one agent, so that a search by capability is a look-up in an index.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::id::AgentId;

/// A row of `agent_capabilities`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, DeriveEntityModel)]
#[sea_orm(table_name = "agent_capabilities")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub capability: String,
    #[sea_orm(primary_key, auto_increment = false)]
    pub agent_id: AgentId,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
