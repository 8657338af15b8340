//! Who people are: accounts, sessions and the API keys of their programs.
//!
//! ```text
//! register ─┐                 ┌─ refresh: generation + 1 ─┐
//! login ────┴─► session live ─┴───────────────────────────┴─► logout, change_password elsewhere,
//!                    │                                         a spent refresh token shown again, or its time is over
//!                    └─► access tokens of minutes ─► authenticate ─► Caller
//! create_api_key ─► key live ─────────────────────► authenticate ─► Caller with a KeyGrant
//!                    └─► revoke_api_key, or its time is over
//! ```
//!
//! What must always hold:
//!
//! - No secret is stored: passwords as argon2id, API keys as SHA-256, of refresh tokens the generation alone. None is logged.
//! - Signing in does not tell whether an address is registered. An unknown address, a wrong password and a suspended user cost
//!   the same hash, get the same answer and are locked on the same schedule: that of a user in the row, that of an unknown
//!   address in bounded memory, so it is counted by each process for itself. (Registering does tell, with EMAIL_TAKEN.)
//! - However many guesses arrive at once, the answers are given one after the other under the lock of the row, and behind a lock
//!   even the right password is not told from a wrong one.
//! - Exactly one refresh token of a session is current; showing one that was spent ends the session for everybody who holds it.
//! - A session or key that ended, and a user who was suspended, are refused everywhere within [`FRESH`].

mod key;
mod password;
pub mod rules;
mod token;

#[cfg(test)]
mod tests;

use std::{path::Path, sync::Arc, time::Duration};

use entity::{
    agent, api_key,
    id::{AgentId, ApiKeyId, SessionId, UserId},
    session::{self, RevokeReason},
    text::Words,
    time::Timestamp,
    user::{self, Role, Status},
};
use moka::{policy::EvictionPolicy, sync::Cache};
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, Condition, DbErr, EntityTrait, JoinType, PaginatorTrait,
    QueryFilter, QuerySelect, SqlErr, sea_query::IntoCondition,
};
use sha2::{Digest, Sha256};

use self::{
    password::{Hasher, Verdict},
    rules::{Renewal, Throttle, UserRefusal},
    token::Keys,
};
use crate::{
    caller::{Caller, Identity, KeyGrant, Scope},
    config,
    error::{Error, Result},
    store::{Entropy, Store, Work},
};

/// How long credentials that were good are taken for good without asking the database again.
pub const FRESH: Duration = Duration::from_secs(5);
/// Credentials that are remembered as good.
const REMEMBERED: u64 = 10_000;
/// Unknown addresses whose wrong passwords are counted. Who wants one forgotten has to try this many others, each for the price
/// of a hash.
const STRANGERS: u64 = 65_536;
/// How often a sign-in starts again because the account changed under it.
const ATTEMPTS: u32 = 3;

const WRONG: &str = "E-mail or password is wrong.";
const BAD_ACCESS_TOKEN: &str = "The access token is not valid; renew it or sign in again.";
const BAD_API_KEY: &str = "The API key is not valid.";
const BAD_REFRESH_TOKEN: &str = "The refresh token is not valid; sign in again.";
const SESSION_OVER: &str = "The session has ended; sign in again.";
const CHANGING: &str = "The account is being changed; try again.";

/// What authentication needs besides the database: keys, the password hasher and what was found good a moment ago. Cheap to
/// clone.
#[derive(Clone)]
pub struct Auth(Arc<Inner>);

struct Inner {
    config: config::Auth,
    keys: Keys,
    hasher: Hasher,
    /// Wrong passwords for addresses that nobody has, by the SHA-256 of the address.
    strangers: Cache<[u8; 32], Throttle>,
    /// Good credentials by their SHA-256.
    seen: Cache<[u8; 32], Seen>,
    /// When this process last wrote down that a key was used.
    noted: Cache<ApiKeyId, Timestamp>,
}

#[derive(Clone)]
struct Seen {
    identity: Identity,
    from: Timestamp,
    until: Timestamp,
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Auth").field("issuer", &self.0.config.issuer).finish_non_exhaustive()
    }
}

impl Auth {
    /// Takes the keys that were given, loads the others from the folder `keys` of the data folder, or makes and keeps them. Fails when a key file is unusable.
    pub fn open(
        config: config::Auth,
        keys: (&config::Keys, config::Profile),
        data: &Path,
        entropy: &Entropy,
    ) -> Result<Self> {
        let keys = Keys::open(&config, keys, data, entropy)?;
        let hasher = Hasher::new(config.argon2, entropy.clone())?;
        // Of the addresses that compete for the last place, the newest must be counted.
        let strangers = Cache::builder().max_capacity(STRANGERS).eviction_policy(EvictionPolicy::lru()).build();
        // The store's clock decides what is fresh; the computer's only frees the memory.
        let seen = Cache::builder().max_capacity(REMEMBERED).time_to_live(FRESH).build();
        let noted = Cache::builder().max_capacity(REMEMBERED).time_to_live(rules::LAST_USED_STEP).build();
        Ok(Self(Arc::new(Inner { config, keys, hasher, strangers, seen, noted })))
    }

    /// The public keys of access tokens as a JSON Web Key Set: `{"keys": [{"kty": "OKP", …}]}`.
    #[must_use]
    pub fn jwks(&self) -> serde_json::Value {
        self.0.keys.jwks()
    }

    /// The hash of a new password, for [`create`].
    pub async fn hash(&self, password: &str) -> Result<String> {
        rules::password("password", password)?;
        self.0.hasher.hash(password).await
    }

    fn stranger(&self, email: &str) -> Throttle {
        self.0.strangers.get(&digest(email)).unwrap_or_default()
    }

    /// Counts a wrong password for an address that nobody has, or says how long it is locked.
    fn count_stranger(&self, email: &str, now: Timestamp) -> Option<Duration> {
        let mut locked = None;
        self.0.strangers.entry(digest(email)).and_upsert_with(|entry| {
            let throttle = entry.map(|entry| *entry.value()).unwrap_or_default();
            locked = throttle.remaining(now);
            if locked.is_some() { throttle } else { self.after_failure(throttle, now) }
        });
        locked
    }

    fn after_failure(&self, throttle: Throttle, now: Timestamp) -> Throttle {
        throttle.after_failure(now, self.0.config.max_failed_logins, self.0.config.lock_base)
    }

    /// The tokens of the current generation of a session.
    fn tokens(&self, work: &Work, user: user::Model, session: session::Model) -> Result<Tokens> {
        let Inner { config, keys, .. } = &*self.0;
        let lasting = (session.id, session.expires_at);
        let (access_token, expires_at) =
            keys.access_token(config, (user.id, user.role), lasting, work.now(), work.random())?;
        let refresh_token = keys.refresh_token(session.id, session.generation);
        Ok(Tokens { access_token, expires_at, refresh_token, user, session })
    }
}

/// What a client gets when it signs in or renews.
#[derive(Clone)]
pub struct Tokens {
    /// A JWT for the `Authorization: Bearer` header.
    pub access_token: String,
    /// When the access token ends.
    pub expires_at: Timestamp,
    /// Good once for the next tokens, until `session.expires_at`.
    pub refresh_token: String,
    pub user: user::Model,
    pub session: session::Model,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens")
            .field("user", &self.user.id)
            .field("session", &self.session.id)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// Somebody who registers.
#[derive(Clone)]
pub struct NewUser {
    pub email: String,
    pub display_name: String,
    pub password: String,
}

impl std::fmt::Debug for NewUser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewUser").field("email", &self.email).finish_non_exhaustive()
    }
}

/// An account that the operator makes.
#[derive(Clone)]
pub struct NewAccount {
    pub email: String,
    pub display_name: String,
    /// From [`Auth::hash`].
    pub password_hash: String,
    pub role: Role,
}

impl std::fmt::Debug for NewAccount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewAccount").field("email", &self.email).field("role", &self.role).finish_non_exhaustive()
    }
}

/// A key that a person wants for a program.
#[derive(Clone, Debug)]
pub struct NewApiKey {
    pub name: String,
    /// The one of the person's agents that the key may act for; every one of them when empty.
    pub agent: Option<AgentId>,
    /// What the key may do; at least one.
    pub scopes: Vec<Scope>,
    /// How long it lives; for ever when empty.
    pub expires_in: Option<Duration>,
}

/// Registers a user and signs them in. Refuses EMAIL_TAKEN, after the same work.
pub async fn register(store: &Store, auth: &Auth, new: NewUser) -> Result<Tokens> {
    let email = rules::email(&new.email)?;
    let display_name = rules::name("displayName", &new.display_name)?;
    let password_hash = auth.hash(&new.password).await?;
    store
        .write(Caller::Anonymous, async |work| {
            let account = NewAccount { email, display_name, password_hash, role: Role::User };
            let user = insert(work, account, Some(work.now())).await?;
            let session = begin_session(work, user.id, auth.0.config.session_ttl).await?;
            auth.tokens(work, user, session)
        })
        .await
}

/// Makes an account; for the command line alone.
pub async fn create(work: &mut Work, new: NewAccount) -> Result<user::Model> {
    only_the_system(work)?;
    let email = rules::email(&new.email)?;
    let display_name = rules::name("displayName", &new.display_name)?;
    if !password::is_hash(&new.password_hash) {
        return Err(Error::invalid("passwordHash", "must be an argon2 hash"));
    }
    insert(work, NewAccount { email, display_name, ..new }, None).await
}

/// Gives a user another role; for the command line alone.
pub async fn set_role(work: &mut Work, email: &str, role: Role) -> Result<user::Model> {
    only_the_system(work)?;
    let email = rules::email(email)?;
    let user = user::Entity::find().filter(user::Column::Email.eq(email)).lock_exclusive().one(work.tx()).await?;
    let user = user.ok_or(Error::NotFound("user"))?;
    let change =
        user::ActiveModel { id: Set(user.id), role: Set(role), updated_at: Set(work.now()), ..Default::default() };
    Ok(change.update(work.tx()).await?)
}

fn only_the_system(work: &Work) -> Result<()> {
    match work.caller() {
        Caller::System => Ok(()),
        Caller::Anonymous | Caller::User(_) => Err(Error::Forbidden("Only the operator may do this.")),
    }
}

/// Writes a user whose values were checked. The constraint of the database decides between two who register an address at once.
async fn insert(work: &mut Work, new: NewAccount, last_login_at: Option<Timestamp>) -> Result<user::Model> {
    let taken = user::Entity::find().filter(user::Column::Email.eq(&new.email)).count(work.tx()).await?;
    if taken > 0 {
        return Err(UserRefusal::EmailTaken.into());
    }
    let user = user::ActiveModel {
        id: Set(work.fresh()),
        email: Set(new.email),
        display_name: Set(new.display_name),
        password_hash: Set(new.password_hash),
        role: Set(new.role),
        status: Set(Status::Active),
        failed_logins: Set(0),
        locked_until: Set(None),
        last_login_at: Set(last_login_at),
        created_at: Set(work.now()),
        updated_at: Set(work.now()),
    };
    user.insert(work.tx())
        .await
        .map_err(|error| if is_duplicate(&error) { UserRefusal::EmailTaken.into() } else { error.into() })
}

fn is_duplicate(error: &DbErr) -> bool {
    matches!(error.sql_err(), Some(SqlErr::UniqueConstraintViolation(_)))
}

async fn begin_session(work: &mut Work, user: UserId, ttl: Duration) -> Result<session::Model> {
    let session = session::ActiveModel {
        id: Set(work.fresh()),
        user_id: Set(user),
        generation: Set(1),
        rotated_at: Set(work.now()),
        expires_at: Set(work.now().after(ttl)),
        revoked_at: Set(None),
        revoke_reason: Set(None),
        created_at: Set(work.now()),
    };
    Ok(session.insert(work.tx()).await?)
}

/// How a password that was tried came out, committed either way.
enum Tried<T> {
    Right(T),
    Wrong,
    Locked(Duration),
    /// The account changed while the password was hashed; what was found out is worth nothing.
    Changed,
}

/// Signs a user in. Every failure is `Unauthenticated` with one sentence, or `Throttled` after too many.
pub async fn login(store: &Store, auth: &Auth, email: &str, password: &str) -> Result<Tokens> {
    // What cannot be an address or a password is nobody's, and that is told by the text alone.
    let Ok(email) = rules::email(email) else { return Err(Error::Unauthenticated(WRONG)) };
    if !rules::could_be_password(password) {
        return Err(Error::Unauthenticated(WRONG));
    }
    for _ in 0..ATTEMPTS {
        let found = user::Entity::find().filter(user::Column::Email.eq(&email)).one(store.read()).await?;
        let throttle = found.as_ref().map_or_else(|| auth.stranger(&email), Throttle::of);
        if let Some(remaining) = throttle.remaining(store.clock().now()) {
            return Err(Error::Throttled(remaining));
        }
        let stored = found.as_ref().map(|user| user.password_hash.as_str());
        let verdict = auth.0.hasher.verify(password, stored).await?;
        let rehashed = rehash(auth, password, verdict).await?;
        let tried = store
            .write(Caller::Anonymous, async |work| sign_in(work, auth, &email, found.as_ref(), verdict, rehashed).await)
            .await?;
        match tried {
            Tried::Right(tokens) => return Ok(tokens),
            Tried::Wrong => return Err(Error::Unauthenticated(WRONG)),
            Tried::Locked(remaining) => return Err(Error::Throttled(remaining)),
            Tried::Changed => {}
        }
    }
    Err(Error::Unavailable(CHANGING))
}

/// A fresh hash of a right password whose stored hash was made with other parameters.
async fn rehash(auth: &Auth, password: &str, verdict: Verdict) -> Result<Option<String>> {
    if verdict.right && verdict.outdated { Ok(Some(auth.0.hasher.hash(password).await?)) } else { Ok(None) }
}

/// The part of a sign-in that counts, with the row locked.
async fn sign_in(
    work: &mut Work,
    auth: &Auth,
    email: &str,
    found: Option<&user::Model>,
    verdict: Verdict,
    rehashed: Option<String>,
) -> Result<Tried<Tokens>> {
    let locked = user::Entity::find().filter(user::Column::Email.eq(email)).lock_exclusive().one(work.tx()).await?;
    let user = match (found, locked) {
        (None, None) => {
            return Ok(auth.count_stranger(email, work.now()).map_or(Tried::Wrong, Tried::Locked));
        }
        (Some(found), Some(user)) if is_same_password(found, &user) => user,
        (None | Some(_), Some(_)) | (Some(_), None) => return Ok(Tried::Changed),
    };
    if let Some(remaining) = Throttle::of(&user).remaining(work.now()) {
        return Ok(Tried::Locked(remaining));
    }
    if !verdict.right || user.status != Status::Active {
        count_failure(work, auth, &user).await?;
        return Ok(Tried::Wrong);
    }
    let mut change = user::ActiveModel {
        id: Set(user.id),
        failed_logins: Set(0),
        locked_until: Set(None),
        last_login_at: Set(Some(work.now())),
        ..Default::default()
    };
    if let Some(hash) = rehashed {
        change.password_hash = Set(hash);
    }
    let user = change.update(work.tx()).await?;
    let session = begin_session(work, user.id, auth.0.config.session_ttl).await?;
    Ok(Tried::Right(auth.tokens(work, user, session)?))
}

fn is_same_password(found: &user::Model, now: &user::Model) -> bool {
    found.id == now.id && found.password_hash == now.password_hash
}

/// Counts a wrong password of a user whose row is locked.
async fn count_failure(work: &Work, auth: &Auth, user: &user::Model) -> Result<()> {
    let throttle = auth.after_failure(Throttle::of(user), work.now());
    let change = user::ActiveModel {
        failed_logins: Set(throttle.failed),
        locked_until: Set(throttle.until),
        ..Default::default()
    };
    let counted = user::Entity::update_many()
        .set(change)
        .filter(user::Column::Id.eq(user.id))
        .filter(user::Column::FailedLogins.eq(user.failed_logins))
        .exec(work.tx())
        .await?;
    one_row(counted.rows_affected)
}

/// A conditional change under a lock that did not find its row means that the lock does not hold.
fn one_row(rows: u64) -> Result<()> {
    if rows == 1 { Ok(()) } else { Err(Error::internal(format!("a locked row changed: {rows} rows matched"))) }
}

/// Gives the next tokens for a refresh token, which is spent by that. Fails with `Unauthenticated`; a token that was spent before
/// ends the session.
pub async fn refresh(store: &Store, auth: &Auth, refresh_token: &str) -> Result<Tokens> {
    let Some((session, generation)) = auth.0.keys.read_refresh_token(refresh_token) else {
        return Err(Error::Unauthenticated(BAD_REFRESH_TOKEN));
    };
    // The end of a session must last although the call fails, so the failure is made after the commit.
    store
        .write(Caller::Anonymous, async |work| renew(work, auth, session, generation).await)
        .await?
        .ok_or(Error::Unauthenticated(SESSION_OVER))
}

async fn renew(work: &mut Work, auth: &Auth, id: SessionId, shown: i64) -> Result<Option<Tokens>> {
    let Some(session) = session::Entity::find_by_id(id).lock_exclusive().one(work.tx()).await? else { return Ok(None) };
    let user = user::Entity::find_by_id(session.user_id).one(work.tx()).await?;
    let Some(user) = user.filter(|user| user.status == Status::Active) else { return Ok(None) };
    let session = match rules::renewal(&session, shown, work.now(), auth.0.config.refresh_grace) {
        Renewal::Rotate => rotate(work, session).await?,
        Renewal::Repeat => session,
        Renewal::Reused => {
            tracing::warn!(session = %id, "a spent refresh token was shown again; the session ends");
            revoke_sessions(work, session::Column::Id.eq(id), RevokeReason::TokenReuse).await?;
            return Ok(None);
        }
        Renewal::Ended => return Ok(None),
    };
    auth.tokens(work, user, session).map(Some)
}

async fn rotate(work: &Work, session: session::Model) -> Result<session::Model> {
    let next = session.generation.checked_add(1).ok_or_else(|| Error::internal("a session ran out of generations"))?;
    let rotated = session::Entity::update_many()
        .set(session::ActiveModel { generation: Set(next), rotated_at: Set(work.now()), ..Default::default() })
        .filter(session::Column::Id.eq(session.id))
        .filter(session::Column::Generation.eq(session.generation))
        .filter(session::Column::RevokedAt.is_null())
        .exec(work.tx())
        .await?;
    one_row(rotated.rows_affected)?;
    Ok(session::Model { generation: next, rotated_at: work.now(), ..session })
}

async fn revoke_sessions(work: &Work, which: impl IntoCondition, reason: RevokeReason) -> Result<()> {
    session::Entity::update_many()
        .set(session::ActiveModel {
            revoked_at: Set(Some(work.now())),
            revoke_reason: Set(Some(reason)),
            ..Default::default()
        })
        .filter(which)
        .filter(session::Column::RevokedAt.is_null())
        .exec(work.tx())
        .await?;
    Ok(())
}

/// Ends the caller's session; a session that is over stays as it ended. Its tokens are refused within [`FRESH`].
pub async fn logout(work: &mut Work) -> Result<()> {
    let (_, session) = person(work.caller())?;
    revoke_sessions(work, session::Column::Id.eq(session), RevokeReason::Logout).await
}

/// A signed-in person and the session by which they are.
fn person(caller: &Caller) -> Result<(UserId, SessionId)> {
    let user = caller.in_person()?;
    let session = caller.identity()?.session.ok_or(Error::Unauthenticated(SESSION_OVER))?;
    Ok((user, session))
}

/// Replaces the caller's password and ends their other sessions. Refuses WRONG_PASSWORD, which counts as a failed sign-in, and
/// is `Throttled` when the account is locked.
pub async fn change_password(store: &Store, auth: &Auth, caller: Caller, old: &str, new: &str) -> Result<user::Model> {
    let (id, session) = person(&caller)?;
    rules::password("newPassword", new)?;
    if !rules::could_be_password(old) {
        return Err(UserRefusal::WrongPassword.into());
    }
    for _ in 0..ATTEMPTS {
        let found =
            user::Entity::find_by_id(id).one(store.read()).await?.ok_or(Error::Unauthenticated(SESSION_OVER))?;
        if let Some(remaining) = Throttle::of(&found).remaining(store.clock().now()) {
            return Err(Error::Throttled(remaining));
        }
        let verdict = auth.0.hasher.verify(old, Some(&found.password_hash)).await?;
        let hash = if verdict.right { Some(auth.0.hasher.hash(new).await?) } else { None };
        let tried =
            store.write(caller.clone(), async |work| replace_password(work, auth, &found, session, hash).await).await?;
        match tried {
            Tried::Right(user) => {
                auth.0.seen.invalidate_all();
                return Ok(user);
            }
            Tried::Wrong => return Err(UserRefusal::WrongPassword.into()),
            Tried::Locked(remaining) => return Err(Error::Throttled(remaining)),
            Tried::Changed => {}
        }
    }
    Err(Error::Unavailable(CHANGING))
}

/// The part of a change of password that counts, with the row locked. `hash` is the new one if the old password was right.
async fn replace_password(
    work: &mut Work,
    auth: &Auth,
    found: &user::Model,
    session: SessionId,
    hash: Option<String>,
) -> Result<Tried<user::Model>> {
    let user = live_user(work, found.id).await?;
    // The caller may be known from a moment ago; a session that ended since must not get to choose the password.
    let live = session::Entity::find_by_id(session).one(work.tx()).await?.is_some_and(|session| {
        session.user_id == user.id && rules::is_live(session.revoked_at, session.expires_at, work.now())
    });
    if !live {
        return Err(Error::Unauthenticated(SESSION_OVER));
    }
    if !is_same_password(found, &user) {
        return Ok(Tried::Changed);
    }
    if let Some(remaining) = Throttle::of(&user).remaining(work.now()) {
        return Ok(Tried::Locked(remaining));
    }
    let Some(hash) = hash else {
        count_failure(work, auth, &user).await?;
        return Ok(Tried::Wrong);
    };
    let change = user::ActiveModel {
        id: Set(user.id),
        password_hash: Set(hash),
        failed_logins: Set(0),
        locked_until: Set(None),
        updated_at: Set(work.now()),
        ..Default::default()
    };
    let user = change.update(work.tx()).await?;
    let others = Condition::all().add(session::Column::UserId.eq(user.id)).add(session::Column::Id.ne(session));
    revoke_sessions(work, others, RevokeReason::PasswordChange).await?;
    Ok(Tried::Right(user))
}

/// The row of a user who may act, locked.
async fn live_user(work: &Work, id: UserId) -> Result<user::Model> {
    let user = user::Entity::find_by_id(id).lock_exclusive().one(work.tx()).await?;
    user.filter(|user| user.status == Status::Active).ok_or(Error::Unauthenticated(SESSION_OVER))
}

/// Changes the caller's display name.
pub async fn update_profile(work: &mut Work, display_name: &str) -> Result<user::Model> {
    let id = work.caller().in_person()?;
    let display_name = rules::name("displayName", display_name)?;
    let user = live_user(work, id).await?;
    let change = user::ActiveModel {
        id: Set(user.id),
        display_name: Set(display_name),
        updated_at: Set(work.now()),
        ..Default::default()
    };
    Ok(change.update(work.tx()).await?)
}

/// Makes an API key for the caller, in person. The second value is the key itself, which nobody can be told again. Refuses
/// TOO_MANY_KEYS and AGENT_RETIRED; somebody else's agent is not found.
pub async fn create_api_key(work: &mut Work, new: NewApiKey) -> Result<(api_key::Model, String)> {
    let user = work.caller().in_person()?;
    let name = rules::name("name", &new.name)?;
    let scopes = rules::scopes(&new.scopes)?;
    let expires_at = rules::key_expiry(work.now(), new.expires_in)?;
    // The lock of the user makes the count of keys true until the commit.
    let user = live_user(work, user).await?;
    let live = api_key::Entity::find()
        .filter(api_key::Column::UserId.eq(user.id))
        .filter(api_key::Column::RevokedAt.is_null())
        .filter(
            Condition::any().add(api_key::Column::ExpiresAt.is_null()).add(api_key::Column::ExpiresAt.gt(work.now())),
        )
        .count(work.tx())
        .await?;
    if live >= rules::MAX_KEYS {
        return Err(UserRefusal::TooManyKeys.into());
    }
    if let Some(agent) = new.agent {
        let agent = agent::Entity::find_by_id(agent).one(work.tx()).await?;
        let agent = agent.filter(|agent| agent.owner_id == user.id).ok_or(Error::NotFound("agent"))?;
        if agent.status == agent::Status::Retired {
            return Err(UserRefusal::AgentRetired.into());
        }
    }
    let secret = key::spell(work.random());
    let secret_hash = key::fingerprint(&secret).ok_or_else(|| Error::internal("a fresh key is not well formed"))?;
    let key = api_key::ActiveModel {
        id: Set(work.fresh()),
        user_id: Set(user.id),
        agent_id: Set(new.agent),
        name: Set(name),
        secret_hash: Set(secret_hash),
        scopes: Set(Words(scopes.iter().map(ToString::to_string).collect())),
        expires_at: Set(expires_at),
        revoked_at: Set(None),
        last_used_at: Set(None),
        created_at: Set(work.now()),
    };
    Ok((key.insert(work.tx()).await?, secret))
}

/// Ends one of the caller's API keys, in person; a key that is over stays as it ended. It is refused within [`FRESH`].
pub async fn revoke_api_key(work: &mut Work, id: ApiKeyId) -> Result<api_key::Model> {
    let user = work.caller().in_person()?;
    let key = api_key::Entity::find_by_id(id)
        .filter(api_key::Column::UserId.eq(user))
        .lock_exclusive()
        .one(work.tx())
        .await?
        .ok_or(Error::NotFound("API key"))?;
    if key.revoked_at.is_some() {
        return Ok(key);
    }
    let change = api_key::ActiveModel { id: Set(id), revoked_at: Set(Some(work.now())), ..Default::default() };
    Ok(change.update(work.tx()).await?)
}

/// Finds out who shows a token: an access token, or an API key. Fails with `Unauthenticated` for everything that is not good
/// now, without saying why. What was good is good for another [`FRESH`] at most.
pub async fn authenticate(store: &Store, auth: &Auth, bearer: &str) -> Result<Caller> {
    let now = store.clock().now();
    let digest = digest(bearer);
    if let Some(seen) = auth.0.seen.get(&digest).filter(|seen| seen.from <= now && now < seen.until) {
        return Ok(Caller::User(seen.identity));
    }
    let is_key = bearer.starts_with(key::PREFIX);
    let (identity, accepted_until) =
        if is_key { by_key(store, auth, bearer, now).await? } else { by_token(store, auth, bearer, now).await? };
    let until = now.after(FRESH).min(accepted_until);
    auth.0.seen.insert(digest, Seen { identity: identity.clone(), from: now, until });
    Ok(Caller::User(identity))
}

/// Who shows an access token, and until when it is accepted.
async fn by_token(store: &Store, auth: &Auth, token: &str, now: Timestamp) -> Result<(Identity, Timestamp)> {
    const BAD: Error = Error::Unauthenticated(BAD_ACCESS_TOKEN);
    let verified = auth.0.keys.verify(token, now).ok_or(BAD)?;
    let its_user = session::Entity::belongs_to(user::Entity).from(session::Column::UserId).to(user::Column::Id).into();
    let (revoked_at, ends_at, role, status) = session::Entity::find_by_id(verified.session)
        .filter(session::Column::UserId.eq(verified.user))
        .join(JoinType::InnerJoin, its_user)
        .select_only()
        .columns([session::Column::RevokedAt, session::Column::ExpiresAt])
        .columns([user::Column::Role, user::Column::Status])
        .into_tuple::<(Option<Timestamp>, Timestamp, Role, Status)>()
        .one(store.read())
        .await?
        .ok_or(BAD)?;
    if !rules::is_live(revoked_at, ends_at, now) || status != Status::Active {
        return Err(BAD);
    }
    let identity = Identity {
        user: verified.user,
        // A role that was taken away is gone at once, whatever the token says.
        role,
        session: Some(verified.session),
        key: None,
        expires_at: Some(verified.expires_at),
    };
    Ok((identity, verified.accepted_until.min(ends_at)))
}

type KeyRow =
    (ApiKeyId, UserId, Option<AgentId>, Words, Option<Timestamp>, Option<Timestamp>, Option<Timestamp>, Role, Status);

/// Whose program shows an API key, and until when it is accepted.
async fn by_key(store: &Store, auth: &Auth, secret: &str, now: Timestamp) -> Result<(Identity, Timestamp)> {
    const BAD: Error = Error::Unauthenticated(BAD_API_KEY);
    let fingerprint = key::fingerprint(secret).ok_or(BAD)?;
    let its_user = api_key::Entity::belongs_to(user::Entity).from(api_key::Column::UserId).to(user::Column::Id).into();
    let row: KeyRow = api_key::Entity::find()
        .filter(api_key::Column::SecretHash.eq(fingerprint))
        .join(JoinType::InnerJoin, its_user)
        .select_only()
        .columns([api_key::Column::Id, api_key::Column::UserId, api_key::Column::AgentId, api_key::Column::Scopes])
        .columns([api_key::Column::ExpiresAt, api_key::Column::RevokedAt, api_key::Column::LastUsedAt])
        .columns([user::Column::Role, user::Column::Status])
        .into_tuple()
        .one(store.read())
        .await?
        .ok_or(BAD)?;
    let (id, user, agent, Words(scopes), expires_at, revoked_at, last_used_at, role, status) = row;
    let ends_at = expires_at.unwrap_or(Timestamp::from_micros(i64::MAX));
    if !rules::is_live(revoked_at, ends_at, now) || status != Status::Active {
        return Err(BAD);
    }
    note_use(store, auth, id, last_used_at, now).await;
    // A scope that this program does not know any more permits nothing.
    let scopes = scopes.iter().filter_map(|scope| scope.parse().ok()).collect();
    let key = Some(KeyGrant { id, agent, scopes });
    Ok((Identity { user, role, session: None, key, expires_at }, ends_at))
}

/// Writes down that a key was used, once a minute and process, and once a minute in the row. A key is good whether or not that
/// can be written.
async fn note_use(store: &Store, auth: &Auth, id: ApiKeyId, last_used_at: Option<Timestamp>, now: Timestamp) {
    if !rules::worth_noting(last_used_at.max(auth.0.noted.get(&id)), now) {
        return;
    }
    auth.0.noted.insert(id, now);
    let stale = Condition::any()
        .add(api_key::Column::LastUsedAt.is_null())
        .add(api_key::Column::LastUsedAt.lte(now.before(rules::LAST_USED_STEP)));
    let noted = store
        .write(Caller::System, async |work| {
            api_key::Entity::update_many()
                .set(api_key::ActiveModel { last_used_at: Set(Some(now)), ..Default::default() })
                .filter(api_key::Column::Id.eq(id))
                .filter(stale)
                .exec(work.tx())
                .await?;
            Ok(())
        })
        .await;
    if let Err(error) = noted {
        tracing::warn!(key = %id, %error, "the use of an API key could not be noted");
    }
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
}
