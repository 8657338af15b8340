//! One sign-in: a family of refresh tokens of which exactly one is current.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    choice,
    id::{SessionId, UserId},
    time::Timestamp,
};

choice! {
    /// Why a session ended before its time.
    RevokeReason {
        /// The user signed out.
        Logout = "LOGOUT",
        /// A spent refresh token was shown again: somebody else has a copy.
        TokenReuse = "TOKEN_REUSE",
        /// The password changed.
        PasswordChange = "PASSWORD_CHANGE",
    }
}

/// A row of `sessions`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, DeriveEntityModel)]
#[sea_orm(table_name = "sessions")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: SessionId,
    pub user_id: UserId,
    /// How often the refresh token was rotated; the token of this generation is the current one.
    pub generation: i64,
    pub rotated_at: Timestamp,
    pub expires_at: Timestamp,
    pub revoked_at: Option<Timestamp>,
    pub revoke_reason: Option<RevokeReason>,
    pub created_at: Timestamp,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
