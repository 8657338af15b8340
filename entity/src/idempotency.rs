//! What a mutation answered the first time, so that a retry with the same key gets the same answer.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{id::UserId, text::JsonText, time::Timestamp};

/// A row of `idempotency_records`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, DeriveEntityModel)]
#[sea_orm(table_name = "idempotency_records")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub user_id: UserId,
    #[sea_orm(primary_key, auto_increment = false)]
    pub operation: String,
    #[sea_orm(primary_key, auto_increment = false)]
    pub key: String,
    /// SHA-256 of the canonical input in lower-case hex.
    pub input_hash: String,
    /// The answer: the entity as it was, or the refusal.
    pub answer: JsonText,
    pub created_at: Timestamp,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
