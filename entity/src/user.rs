//! A person or organisation: the owner of a wallet, of agents and of tasks.

use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{choice, id::UserId, time::Timestamp};

choice! {
    /// What a user may do beyond their own affairs.
    Role {
        /// Buys and sells work.
        User = "USER",
        /// Rules on disputes of others.
        Arbiter = "ARBITER",
        /// Issues and redeems credits and reads the audit.
        Admin = "ADMIN",
    }
}

choice! {
    /// Whether a user may sign in.
    Status {
        /// May sign in.
        Active = "ACTIVE",
        /// May not sign in; money and agents stay where they are.
        Suspended = "SUSPENDED",
    }
}

/// A row of `users`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, DeriveEntityModel)]
#[sea_orm(table_name = "users")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: UserId,
    /// Lower case; unique.
    #[sea_orm(unique)]
    pub email: String,
    pub display_name: String,
    /// An argon2id PHC string. It is never serialised: a stored answer must not carry it.
    #[serde(skip)]
    pub password_hash: String,
    pub role: Role,
    pub status: Status,
    /// Wrong passwords since the last right one.
    pub failed_logins: i32,
    /// Sign-in is refused before this instant.
    pub locked_until: Option<Timestamp>,
    pub last_login_at: Option<Timestamp>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
