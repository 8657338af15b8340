//! Who asks. A [`Caller`] is made by authentication alone and answers what its bearer may do.

use entity::{
    agent,
    id::{AgentId, ApiKeyId, SessionId, UserId},
    time::Timestamp,
    user::Role,
};

use crate::error::{Error, Result};

/// What an API key may do for its user. A signed-in person may do all of it.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, strum::IntoStaticStr, strum::EnumString, strum::EnumIter, strum::Display,
)]
pub enum Scope {
    /// See what the user sees.
    #[strum(serialize = "read")]
    Read,
    /// Post, cancel, award, accept, dispute and rate tasks: spend the user's credits.
    #[strum(serialize = "tasks:write")]
    TasksWrite,
    /// Bid for the user's agents.
    #[strum(serialize = "bids:write")]
    BidsWrite,
    /// Register, change and retire agents and upload their modules.
    #[strum(serialize = "agents:write")]
    AgentsWrite,
    /// Do the work that the user's agents won, and dispute about it.
    #[strum(serialize = "work:write")]
    WorkWrite,
}

/// What an API key narrows its user's rights to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyGrant {
    /// The key.
    pub id: ApiKeyId,
    /// The one agent that it acts for, if it is bound to one.
    pub agent: Option<AgentId>,
    /// What it may do.
    pub scopes: Vec<Scope>,
}

/// A user who proved who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub user: UserId,
    /// The role as of authentication.
    pub role: Role,
    /// The session of a signed-in person.
    pub session: Option<SessionId>,
    /// The key of a program.
    pub key: Option<KeyGrant>,
    /// When the credentials end.
    pub expires_at: Option<Timestamp>,
}

/// Who asks for an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Nobody in particular.
    Anonymous,
    /// A user, by session or by key.
    User(Identity),
    /// The program itself: the sweeper, the executor, the command line.
    System,
}

impl Caller {
    /// The identity behind the call.
    pub fn identity(&self) -> Result<&Identity> {
        match self {
            Self::User(identity) => Ok(identity),
            Self::Anonymous => Err(Error::Unauthenticated("Sign in to do this.")),
            Self::System => Err(Error::internal("the system has no identity")),
        }
    }

    /// The user behind the call.
    pub fn user(&self) -> Result<UserId> {
        self.identity().map(|identity| identity.user)
    }

    /// The user behind the call, if there is one.
    #[must_use]
    pub fn user_id(&self) -> Option<UserId> {
        match self {
            Self::User(identity) => Some(identity.user),
            Self::Anonymous | Self::System => None,
        }
    }

    /// The user, provided that the credentials cover `scope`.
    pub fn with_scope(&self, scope: Scope) -> Result<UserId> {
        let identity = self.identity()?;
        match &identity.key {
            Some(key) if !key.scopes.contains(&scope) => {
                Err(Error::Forbidden("This API key does not have the scope for this."))
            }
            Some(_) | None => Ok(identity.user),
        }
    }

    /// The user, provided that this is a signed-in person and not a key: for what keys must never do.
    pub fn in_person(&self) -> Result<UserId> {
        let identity = self.identity()?;
        match identity.key {
            Some(_) => Err(Error::Forbidden("Sign in as a person to do this; API keys may not.")),
            None => Ok(identity.user),
        }
    }

    /// The user, provided that it is a signed-in administrator.
    pub fn admin(&self) -> Result<UserId> {
        let identity = self.identity()?;
        if identity.role == Role::Admin && identity.key.is_none() {
            Ok(identity.user)
        } else {
            Err(Error::Forbidden("Only administrators may do this."))
        }
    }

    /// Whether this is a signed-in administrator.
    #[must_use]
    pub fn is_admin(&self) -> bool {
        self.admin().is_ok()
    }

    /// The user, provided that it is a signed-in arbiter.
    pub fn arbiter(&self) -> Result<UserId> {
        let identity = self.identity()?;
        if identity.role == Role::Arbiter && identity.key.is_none() {
            Ok(identity.user)
        } else {
            Err(Error::Forbidden("Only arbiters may do this."))
        }
    }

    /// Whether this is a signed-in arbiter.
    #[must_use]
    pub fn is_arbiter(&self) -> bool {
        self.arbiter().is_ok()
    }

    /// The user, provided that it owns `agent` and the credentials cover `scope`. Somebody else's agent looks as if it did not
    /// exist.
    pub fn controls(&self, agent: &agent::Model, scope: Scope) -> Result<UserId> {
        let user = self.with_scope(scope)?;
        let bound_to = self.identity()?.key.as_ref().and_then(|key| key.agent);
        if agent.owner_id == user && bound_to.is_none_or(|bound| bound == agent.id) {
            Ok(user)
        } else {
            Err(Error::NotFound("agent"))
        }
    }
}
