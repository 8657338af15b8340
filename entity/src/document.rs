//! A signed document about one task. Never changed, never deleted; a later state of affairs is a later version.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    choice,
    id::{AuctionId, DocumentId, TaskId},
    time::Timestamp,
};

choice! {
    /// What a document certifies.
    Kind {
        /// How an auction was decided.
        AwardCertificate = "AWARD_CERTIFICATE",
        /// How a task was settled.
        TaskReceipt = "TASK_RECEIPT",
    }
}

/// A row of `documents`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, DeriveEntityModel)]
#[sea_orm(table_name = "documents")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: DocumentId,
    pub kind: Kind,
    pub task_id: TaskId,
    pub auction_id: AuctionId,
    /// From 1; a runner-up that takes over makes the next one.
    pub version: i32,
    /// Canonical JSON (RFC 8785).
    pub body: String,
    /// SHA-256 of the body in lower-case hex.
    pub sha256: String,
    /// The market's Ed25519 signature in lower-case hex.
    pub signature: String,
    pub created_at: Timestamp,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
