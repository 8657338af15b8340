//! Users, their sessions and their API keys.

use async_graphql::{Context, Enum, ID, InputObject, Object, SimpleObject};
use entity::{
    api_key,
    id::{AgentId, ApiKeyId, Id, UserId},
    session, user,
};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};

use super::{
    agent::{Agent, AgentConnection},
    context::{Ask, intent, maybe, once, parse_id, payload, requires, role, scopes, write},
    error::{Answer, UserUserError, payload},
    page::{PageArgs, Sort, connection, list_cost},
    scalar::{DateTime, Duration},
    wallet::Wallet,
};
use crate::{
    caller::Scope,
    error::{Error, Result},
    ledger,
    user::{self as verbs, NewApiKey, NewUser},
};

/// What a user may do beyond their own affairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "entity::user::Role")]
pub(super) enum UserRole {
    /// Buys and sells work.
    User,
    /// Rules on disputes of others.
    Arbiter,
    /// Issues and redeems credits and reads the audit.
    Admin,
}

/// Whether a user may sign in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "entity::user::Status")]
pub(super) enum UserStatus {
    /// May sign in.
    Active,
    /// May not sign in; money and agents stay where they are.
    Suspended,
}

/// What an API key may do for its user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "crate::caller::Scope")]
pub(super) enum ApiScope {
    /// See what the user sees.
    Read,
    /// Post, cancel, award, accept, dispute and rate tasks: spend the user's credits.
    TasksWrite,
    /// Bid for the user's agents.
    BidsWrite,
    /// Register, change and retire agents and upload their modules.
    AgentsWrite,
    /// Do the work that the user's agents won, and dispute about it.
    WorkWrite,
}

/// Why a session ended before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "entity::session::RevokeReason")]
pub(super) enum SessionRevokeReason {
    /// The user signed out.
    Logout,
    /// A spent refresh token was shown again: somebody else has a copy.
    TokenReuse,
    /// The password changed.
    PasswordChange,
}

#[derive(Clone)]
pub(super) struct User(pub(super) user::Model);

impl From<user::Model> for User {
    fn from(row: user::Model) -> Self {
        Self(row)
    }
}

/// A person or organisation: the owner of a wallet, of agents and of tasks.
#[Object]
impl User {
    /// The id, `user_…`.
    pub(super) async fn id(&self) -> ID {
        self.0.id.into()
    }

    /// The name that others see.
    async fn display_name(&self) -> &str {
        &self.0.display_name
    }

    /// What the user may do beyond their own affairs.
    async fn role(&self) -> UserRole {
        self.0.role.into()
    }

    /// When the user registered.
    async fn created_at(&self) -> DateTime {
        DateTime(self.0.created_at)
    }

    /// The address to sign in with; for the user alone and administrators.
    async fn email(&self, ctx: &Context<'_>) -> Option<&str> {
        ctx.may_see(self.0.id).then_some(&self.0.email)
    }

    /// Whether the user may sign in; for the user alone and administrators.
    async fn status(&self, ctx: &Context<'_>) -> Option<UserStatus> {
        ctx.may_see(self.0.id).then(|| self.0.status.into())
    }

    /// When the user last signed in; for the user alone and administrators.
    async fn last_login_at(&self, ctx: &Context<'_>) -> Option<DateTime> {
        self.0.last_login_at.filter(|_| ctx.may_see(self.0.id)).map(DateTime)
    }

    /// The user's credits; for the user alone and administrators.
    #[graphql(complexity = "2 + child_complexity")]
    async fn wallet(&self, ctx: &Context<'_>) -> Option<Answer<Wallet>> {
        maybe(ctx, async {
            if !ctx.may_see(self.0.id) {
                return Ok(None);
            }
            Ok(Some(Wallet::new(self.0.id, ledger::wallet(ctx.loaders().db(), self.0.id).await?)))
        })
        .await
    }

    /// The user's agents, newest first.
    #[graphql(complexity = "list_cost(__ctx, __variables_definition, __field, child_complexity)")]
    async fn agents(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "How many from the start: 1 to 100, 20 when neither `first` nor `last` is given.")]
        first: Option<i32>,
        #[graphql(desc = "Only what comes after this cursor.")] after: Option<String>,
        #[graphql(desc = "How many from the end: 1 to 100; not together with `first`.")] last: Option<i32>,
        #[graphql(desc = "Only what comes before this cursor.")] before: Option<String>,
    ) -> Option<Answer<AgentConnection>> {
        maybe(ctx, async {
            let window = PageArgs { first, after, last, before }.window(&super::agent::NEWEST)?;
            Ok(Some(ctx.loaders().agents_of_users(self.0.id, window).await?.into()))
        })
        .await
    }

    /// The user's API keys, newest first; for the user alone and administrators.
    #[graphql(complexity = "list_cost(__ctx, __variables_definition, __field, child_complexity)")]
    async fn api_keys(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "How many from the start: 1 to 100, 20 when neither `first` nor `last` is given.")]
        first: Option<i32>,
        #[graphql(desc = "Only what comes after this cursor.")] after: Option<String>,
        #[graphql(desc = "How many from the end: 1 to 100; not together with `first`.")] last: Option<i32>,
        #[graphql(desc = "Only what comes before this cursor.")] before: Option<String>,
    ) -> Option<Answer<ApiKeyConnection>> {
        maybe(ctx, async {
            if !ctx.may_see(self.0.id) {
                return Ok(None);
            }
            let sort = Sort::<api_key::Entity> {
                name: "k",
                key: None,
                id: api_key::Column::Id,
                descending: true,
                place: |row| (0, row.id.uuid()),
            };
            let list = api_key::Entity::find().filter(api_key::Column::UserId.eq(self.0.id));
            let window = PageArgs { first, after, last, before }.window(&sort)?;
            Ok(Some(window.read(ctx.loaders().db(), list, &sort).await?.into()))
        })
        .await
    }

    /// The user's sessions, newest first; for the user alone and administrators.
    #[graphql(complexity = "list_cost(__ctx, __variables_definition, __field, child_complexity)")]
    async fn sessions(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "How many from the start: 1 to 100, 20 when neither `first` nor `last` is given.")]
        first: Option<i32>,
        #[graphql(desc = "Only what comes after this cursor.")] after: Option<String>,
        #[graphql(desc = "How many from the end: 1 to 100; not together with `first`.")] last: Option<i32>,
        #[graphql(desc = "Only what comes before this cursor.")] before: Option<String>,
    ) -> Option<Answer<SessionConnection>> {
        maybe(ctx, async {
            if !ctx.may_see(self.0.id) {
                return Ok(None);
            }
            let sort = Sort::<session::Entity> {
                name: "s",
                key: None,
                id: session::Column::Id,
                descending: true,
                place: |row| (0, row.id.uuid()),
            };
            let list = session::Entity::find().filter(session::Column::UserId.eq(self.0.id));
            let window = PageArgs { first, after, last, before }.window(&sort)?;
            Ok(Some(window.read(ctx.loaders().db(), list, &sort).await?.into()))
        })
        .await
    }
}

#[derive(Clone)]
pub(super) struct ApiKey(pub(super) api_key::Model);

impl From<api_key::Model> for ApiKey {
    fn from(row: api_key::Model) -> Self {
        Self(row)
    }
}

/// A long-lived credential of a program. Its secret is told once, when it is made.
#[Object]
impl ApiKey {
    /// The id, `key_…`.
    pub(super) async fn id(&self) -> ID {
        self.0.id.into()
    }

    /// What the user calls it.
    async fn name(&self) -> &str {
        &self.0.name
    }

    /// The one agent that the key may act for; null when it may act for all of the user's.
    #[graphql(complexity = "1 + child_complexity")]
    async fn agent(&self, ctx: &Context<'_>) -> Option<Answer<Agent>> {
        maybe(ctx, async {
            let Some(agent) = self.0.agent_id else { return Ok(None) };
            Ok(ctx.loaders().agents(agent).await?.map(Agent::from))
        })
        .await
    }

    /// What the key may do.
    async fn scopes(&self) -> Vec<ApiScope> {
        self.0.scopes.0.iter().filter_map(|scope| scope.parse::<Scope>().ok()).map(ApiScope::from).collect()
    }

    /// When the key ends by itself; null for never.
    async fn expires_at(&self) -> Option<DateTime> {
        self.0.expires_at.map(DateTime)
    }

    /// When the key was revoked; null while it was not.
    async fn revoked_at(&self) -> Option<DateTime> {
        self.0.revoked_at.map(DateTime)
    }

    /// When the key was last used, to the minute or so; null for never.
    async fn last_used_at(&self) -> Option<DateTime> {
        self.0.last_used_at.map(DateTime)
    }

    /// When the key was made.
    async fn created_at(&self) -> DateTime {
        DateTime(self.0.created_at)
    }
}

#[derive(Clone)]
pub(super) struct SignIn(pub(super) session::Model);

impl From<session::Model> for SignIn {
    fn from(row: session::Model) -> Self {
        Self(row)
    }
}

/// One sign-in of a user, renewed by refresh tokens.
#[Object(name = "Session")]
impl SignIn {
    /// The id, `sess_…`.
    pub(super) async fn id(&self) -> ID {
        self.0.id.into()
    }

    /// When the session ends for good.
    async fn expires_at(&self) -> DateTime {
        DateTime(self.0.expires_at)
    }

    /// When the session ended before its time; null while it did not.
    async fn revoked_at(&self) -> Option<DateTime> {
        self.0.revoked_at.map(DateTime)
    }

    /// Why the session ended before its time; null while it did not.
    async fn revoke_reason(&self) -> Option<SessionRevokeReason> {
        self.0.revoke_reason.map(SessionRevokeReason::from)
    }

    /// When the session was last renewed.
    async fn renewed_at(&self) -> DateTime {
        DateTime(self.0.rotated_at)
    }

    /// When the user signed in.
    async fn created_at(&self) -> DateTime {
        DateTime(self.0.created_at)
    }
}

connection! {
    /// A page of users.
    UserConnection,
    /// A user in a list.
    UserEdge, User, user::Model
}

connection! {
    /// A page of API keys.
    ApiKeyConnection,
    /// An API key in a list.
    ApiKeyEdge, ApiKey, api_key::Model
}

connection! {
    /// A page of sessions.
    SessionConnection,
    /// A session in a list.
    SessionEdge, SignIn, session::Model
}

/// What a sign-in gives.
#[derive(SimpleObject)]
pub(super) struct Tokens {
    /// The token for `Authorization: Bearer …`.
    access_token: String,
    /// When the access token ends.
    access_token_expires_at: DateTime,
    /// Gives the next pair of tokens, once, by `refreshSession`. Keep it secret.
    refresh_token: String,
    /// Who signed in.
    user: User,
    /// The session.
    session: SignIn,
}

impl From<verbs::Tokens> for Tokens {
    fn from(tokens: verbs::Tokens) -> Self {
        Self {
            access_token: tokens.access_token,
            access_token_expires_at: DateTime(tokens.expires_at),
            refresh_token: tokens.refresh_token,
            user: tokens.user.into(),
            session: tokens.session.into(),
        }
    }
}

/// Input of `registerUser`.
#[derive(InputObject)]
pub(super) struct RegisterUserInput {
    /// The address to sign in with. Upper and lower case do not differ.
    email: String,
    /// The name that others see.
    display_name: String,
    /// The password.
    #[graphql(secret)]
    password: String,
}

/// Input of `login`.
#[derive(InputObject)]
pub(super) struct LoginInput {
    /// The address of the account.
    email: String,
    /// The password of the account.
    #[graphql(secret)]
    password: String,
}

/// Input of `refreshSession`.
#[derive(InputObject)]
pub(super) struct RefreshSessionInput {
    /// The refresh token of the last sign-in or refresh.
    #[graphql(secret)]
    refresh_token: String,
}

/// Input of `updateProfile`.
#[derive(InputObject)]
pub(super) struct UpdateProfileInput {
    /// The name that others see.
    display_name: String,
}

/// Input of `changePassword`.
#[derive(InputObject)]
pub(super) struct ChangePasswordInput {
    /// The present password.
    #[graphql(secret)]
    old_password: String,
    /// The password from now on.
    #[graphql(secret)]
    new_password: String,
}

/// Input of `createApiKey`.
#[derive(InputObject)]
pub(super) struct CreateApiKeyInput {
    /// What to call the key.
    name: String,
    /// The one agent that the key may act for; all of yours when it is left out.
    agent_id: Option<ID>,
    /// What the key may do; at least one.
    scopes: Vec<ApiScope>,
    /// How long the key is good; for ever when it is left out.
    expires_in: Option<Duration>,
    /// Names this intent: the same value when you retry the same intent, another one for another. 1 to 128 visible ASCII characters.
    idempotency_key: String,
}

/// Input of `revokeApiKey`.
#[derive(InputObject)]
pub(super) struct RevokeApiKeyInput {
    /// The key.
    api_key_id: ID,
}

intent! {
    CreateApiKeyInput = "createApiKey", moves_credits: false;
}

payload! {
    /// Answer of `registerUser`.
    RegisterUserPayload {
        /// The tokens of the first sign-in; null when it was refused.
        tokens: Tokens
    } UserUserError
}

payload! {
    /// Answer of `login`.
    LoginPayload {
        /// The tokens; null when it was refused.
        tokens: Tokens
    } UserUserError
}

payload! {
    /// Answer of `refreshSession`.
    RefreshSessionPayload {
        /// The next tokens; null when it was refused.
        tokens: Tokens
    } UserUserError
}

payload! {
    /// Answer of `logout`.
    LogoutPayload {
        /// The session that ended; null when it was refused.
        session: SignIn
    } UserUserError
}

payload! {
    /// Answer of `updateProfile`.
    UpdateProfilePayload {
        /// The user as it is now; null when it was refused.
        user: User
    } UserUserError
}

payload! {
    /// Answer of `changePassword`.
    ChangePasswordPayload {
        /// The user; null when it was refused.
        user: User
    } UserUserError
}

payload! {
    /// Answer of `revokeApiKey`.
    RevokeApiKeyPayload {
        /// The key as it is now; null when it was refused.
        api_key: ApiKey
    } UserUserError
}

/// Answer of `createApiKey`.
#[derive(SimpleObject)]
pub(super) struct CreateApiKeyPayload {
    /// The key; null when it was refused.
    api_key: Option<ApiKey>,
    /// The secret for `Authorization: Bearer …`. It is told this once: a retry with the same idempotency key answers null.
    secret: Option<String>,
    /// Why the mutation was refused; empty when it was done.
    user_errors: Vec<UserUserError>,
}

impl super::error::Payload for CreateApiKeyPayload {
    type Content = (api_key::Model, Option<String>);
    type Error = UserUserError;

    fn done((key, secret): Self::Content) -> Self {
        Self { api_key: Some(key.into()), secret, user_errors: Vec::new() }
    }

    fn refused(error: UserUserError) -> Self {
        Self { api_key: None, secret: None, user_errors: vec![error] }
    }
}

/// The user with this id.
pub(super) async fn find(ctx: &Context<'_>, id: UserId) -> Result<Option<User>> {
    Ok(ctx.loaders().users(id).await?.map(User))
}

/// The API key with this id, if it may be shown.
pub(super) async fn find_key(ctx: &Context<'_>, id: ApiKeyId) -> Result<Option<ApiKey>> {
    let row = api_key::Entity::find_by_id(id).one(ctx.loaders().db()).await?;
    Ok(row.filter(|row| ctx.may_see(row.user_id)).map(ApiKey))
}

/// The session with this id, if it may be shown.
pub(super) async fn find_session(ctx: &Context<'_>, id: entity::id::SessionId) -> Result<Option<SignIn>> {
    let row = session::Entity::find_by_id(id).one(ctx.loaders().db()).await?;
    Ok(row.filter(|row| ctx.may_see(row.user_id)).map(SignIn))
}

#[derive(Default)]
pub(super) struct UserQuery;

#[Object]
impl UserQuery {
    /// The user who asks.
    #[graphql(complexity = "1 + child_complexity", directive = requires::apply(scopes("me"), role("me")))]
    async fn me(&self, ctx: &Context<'_>) -> Option<Answer<User>> {
        maybe(ctx, async { find(ctx, ctx.caller().with_scope(Scope::Read)?).await }).await
    }

    /// A user by id; null when there is none.
    #[graphql(complexity = "1 + child_complexity")]
    async fn user(&self, ctx: &Context<'_>, #[graphql(desc = "The id, `user_…`.")] id: ID) -> Option<Answer<User>> {
        maybe(ctx, async { find(ctx, parse_id(&id, "id")?).await }).await
    }

    /// All users, newest first. For administrators.
    #[graphql(complexity = "list_cost(__ctx, __variables_definition, __field, child_complexity)", directive = requires::apply(scopes("users"), role("users")))]
    async fn users(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "How many from the start: 1 to 100, 20 when neither `first` nor `last` is given.")]
        first: Option<i32>,
        #[graphql(desc = "Only what comes after this cursor.")] after: Option<String>,
        #[graphql(desc = "How many from the end: 1 to 100; not together with `first`.")] last: Option<i32>,
        #[graphql(desc = "Only what comes before this cursor.")] before: Option<String>,
    ) -> Option<Answer<UserConnection>> {
        maybe(ctx, async {
            ctx.caller().admin()?;
            let sort = Sort::<user::Entity> {
                name: "u",
                key: None,
                id: user::Column::Id,
                descending: true,
                place: |row| (0, row.id.uuid()),
            };
            let window = PageArgs { first, after, last, before }.window(&sort)?;
            Ok(Some(window.read(ctx.loaders().db(), user::Entity::find(), &sort).await?.into()))
        })
        .await
    }
}

#[derive(Default)]
pub(super) struct UserMutation;

#[Object]
impl UserMutation {
    /// Makes an account and signs in.
    #[graphql(complexity = "10 + child_complexity")]
    async fn register_user(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Who registers.")] input: RegisterUserInput,
    ) -> Option<Answer<RegisterUserPayload>> {
        payload(ctx, async {
            let RegisterUserInput { email, display_name, password } = input;
            let new = NewUser { email, display_name, password };
            Ok(verbs::register(ctx.store(), ctx.app().auth(), new).await?.into())
        })
        .await
    }

    /// Signs in. Whether the account exists cannot be told from the answer.
    #[graphql(complexity = "10 + child_complexity")]
    async fn login(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Who signs in.")] input: LoginInput,
    ) -> Option<Answer<LoginPayload>> {
        payload(ctx, async {
            Ok(verbs::login(ctx.store(), ctx.app().auth(), &input.email, &input.password).await?.into())
        })
        .await
    }

    /// Gives the next tokens for a refresh token, which is spent by it. Showing a spent one again ends the session, but for a
    /// short grace in which it gives the same successor.
    #[graphql(complexity = "10 + child_complexity")]
    async fn refresh_session(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The token to spend.")] input: RefreshSessionInput,
    ) -> Option<Answer<RefreshSessionPayload>> {
        payload(ctx, async { Ok(verbs::refresh(ctx.store(), ctx.app().auth(), &input.refresh_token).await?.into()) })
            .await
    }

    /// Ends the session that the request belongs to.
    #[graphql(complexity = "10 + child_complexity", directive = requires::apply(scopes("logout"), role("logout")))]
    async fn logout(&self, ctx: &Context<'_>) -> Option<Answer<LogoutPayload>> {
        payload(ctx, async {
            ctx.caller().in_person()?;
            let session = ctx.caller().identity()?.session.ok_or(Error::NotFound("session"))?;
            write(ctx, async |work| verbs::logout(work).await).await?;
            let ended = session::Entity::find_by_id(session).one(ctx.loaders().db()).await?;
            ended.map(SignIn).ok_or(Error::NotFound("session"))
        })
        .await
    }

    /// Changes what others see of you.
    #[graphql(complexity = "10 + child_complexity", directive = requires::apply(scopes("updateProfile"), role("updateProfile")))]
    async fn update_profile(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What changes.")] input: UpdateProfileInput,
    ) -> Option<Answer<UpdateProfilePayload>> {
        payload(ctx, async {
            Ok(write(ctx, async |work| verbs::update_profile(work, &input.display_name).await).await?.into())
        })
        .await
    }

    /// Changes the password and ends all other sessions.
    #[graphql(complexity = "10 + child_complexity", directive = requires::apply(scopes("changePassword"), role("changePassword")))]
    async fn change_password(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The old and the new password.")] input: ChangePasswordInput,
    ) -> Option<Answer<ChangePasswordPayload>> {
        payload(ctx, async {
            let (app, caller) = (ctx.app(), ctx.caller().clone());
            let ChangePasswordInput { old_password, new_password } = &input;
            Ok(verbs::change_password(app.store(), app.auth(), caller, old_password, new_password).await?.into())
        })
        .await
    }

    /// Makes a credential for a program. Only a signed-in person may.
    #[graphql(complexity = "10 + child_complexity", directive = requires::apply(scopes("createApiKey"), role("createApiKey")))]
    async fn create_api_key(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The key to make.")] input: CreateApiKeyInput,
    ) -> Option<Answer<CreateApiKeyPayload>> {
        payload(ctx, async {
            let agent = input.agent_id.as_ref().map(|id| parse_id::<AgentId>(id, "agentId")).transpose()?;
            let new = NewApiKey {
                name: input.name.clone(),
                agent,
                scopes: input.scopes.iter().copied().map(Scope::from).collect(),
                expires_in: input.expires_in.map(|expires_in| expires_in.0),
            };
            let mut told = None;
            let answer = once(ctx, &input, async |work| {
                let (key, secret) = verbs::create_api_key(work, new).await?;
                told = Some(secret);
                Ok(key)
            })
            .await?;
            Ok((answer.value, told.filter(|_| !answer.replayed)))
        })
        .await
    }

    /// Ends a key at once. Only a signed-in person may.
    #[graphql(complexity = "10 + child_complexity", directive = requires::apply(scopes("revokeApiKey"), role("revokeApiKey")))]
    async fn revoke_api_key(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The key to end.")] input: RevokeApiKeyInput,
    ) -> Option<Answer<RevokeApiKeyPayload>> {
        payload(ctx, async {
            let key: ApiKeyId = parse_id(&input.api_key_id, "apiKeyId")?;
            Ok(write(ctx, async |work| verbs::revoke_api_key(work, key).await).await?.into())
        })
        .await
    }
}
