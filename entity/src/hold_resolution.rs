//! How a hold ended. Its primary key is the hold: the database itself refuses a second resolution.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    choice,
    id::{BatchId, HoldId},
    money::Amount,
    time::Timestamp,
};

choice! {
    /// The two ways for a hold to end.
    Kind {
        /// `posted` went to its purpose, `returned` back to the payer.
        Post = "POST",
        /// All went back.
        Void = "VOID",
    }
}

/// A row of `hold_resolutions`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, DeriveEntityModel)]
#[sea_orm(table_name = "hold_resolutions")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub hold_id: HoldId,
    pub kind: Kind,
    pub posted: Amount,
    pub returned: Amount,
    pub batch_id: BatchId,
    pub created_at: Timestamp,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
