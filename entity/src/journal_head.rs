//! A signature of the market over its journal up to a place.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// A row of `journal_heads`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, DeriveEntityModel)]
#[sea_orm(table_name = "journal_heads")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    /// The newest place that it covers; 0 over an empty journal.
    pub place: i64,
    pub hash: String,
    /// The Ed25519 signature in lower-case hex.
    pub signature: String,
    pub created_at: Timestamp,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
