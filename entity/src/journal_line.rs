//! The place of a transfer in the sealed journal: each line carries the hash of everything up to it.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::id::TransferId;

/// A row of `journal_lines`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, DeriveEntityModel)]
#[sea_orm(table_name = "journal_lines")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub place: i64,
    #[sea_orm(unique)]
    pub transfer_id: TransferId,
    /// SHA-256 of the line before and this transfer with its entries, in lower-case hex.
    pub hash: String,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
