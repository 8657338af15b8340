//! What a party shows in a dispute. Never changed, never deleted.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    choice,
    id::{DisputeId, EvidenceId, UserId},
    time::Timestamp,
};

choice! {
    /// What a piece of evidence is.
    Kind {
        /// Words.
        Statement = "STATEMENT",
        /// A JSON document.
        Json = "JSON",
        /// An https address.
        Link = "LINK",
        /// The SHA-256 of something that the party keeps, in lower-case hex.
        Digest = "DIGEST",
    }
}

/// A row of `evidence`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, DeriveEntityModel)]
#[sea_orm(table_name = "evidence")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: EvidenceId,
    pub dispute_id: DisputeId,
    pub submitter_id: UserId,
    pub kind: Kind,
    pub body: String,
    /// SHA-256 of the body in lower-case hex.
    pub sha256: String,
    pub created_at: Timestamp,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
