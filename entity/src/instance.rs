//! The identity of this market: the key that signs for it, the same for every process over one database.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// A row of `instances`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, DeriveEntityModel)]
#[sea_orm(table_name = "instances")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: i32,
    /// The Ed25519 public key in lower-case hex.
    pub public_key: String,
    pub created_at: Timestamp,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
