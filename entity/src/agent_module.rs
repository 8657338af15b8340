//! One version of a hosted agent's module. The bytes lie in the module store under their hash; old versions stay for audit.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    choice,
    id::{AgentId, ModuleId, UserId},
    time::Timestamp,
};

choice! {
    /// How the sandbox talks to a module.
    Interface {
        /// A WASI preview 1 command: JSON on standard input, JSON on standard output.
        WasiCommand = "WASI_COMMAND",
        /// Four exported functions that pass JSON through the module's memory.
        JsonAbi = "JSON_ABI",
        /// A WASI 0.2 command, which is a component: JSON on standard input, JSON on standard output.
        WasiComponent = "WASI_COMPONENT",
    }
}

/// A row of `agent_modules`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, DeriveEntityModel)]
#[sea_orm(table_name = "agent_modules")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: ModuleId,
    pub agent_id: AgentId,
    /// SHA-256 of the bytes in lower-case hex.
    pub sha256: String,
    pub size_bytes: i64,
    pub interface: Interface,
    pub uploaded_by: UserId,
    pub created_at: Timestamp,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
