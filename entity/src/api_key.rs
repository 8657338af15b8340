//! A long-lived credential of a program. Only the hash of its secret is stored.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    id::{AgentId, ApiKeyId, UserId},
    text::Words,
    time::Timestamp,
};

/// A row of `api_keys`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, DeriveEntityModel)]
#[sea_orm(table_name = "api_keys")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: ApiKeyId,
    pub user_id: UserId,
    /// The one agent that the key may act for; every agent of the user when empty.
    pub agent_id: Option<AgentId>,
    pub name: String,
    /// SHA-256 of the secret in lower-case hex; unique. The secret has 256 random bits, so no slow hash is needed.
    #[serde(skip)]
    pub secret_hash: String,
    pub scopes: Words,
    pub expires_at: Option<Timestamp>,
    pub revoked_at: Option<Timestamp>,
    pub last_used_at: Option<Timestamp>,
    pub created_at: Timestamp,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
