//! What a resolver can reach: the program, who asks, the loaders of this request, and the transaction boundary of mutations.

use std::future::Future;

use async_graphql::{Context, ID, InputType, Value};
use entity::{
    id::{Id, UserId},
    time::Timestamp,
};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    error::{Answer, Payload, fault, user_error},
    loader::Loaders,
};
use crate::{
    app::App,
    caller::{Caller, Scope},
    error::{Error, Result},
    store::{self, Once, Store, Work},
};

/// One request: the transport puts it into the request's data.
pub struct Session {
    app: App,
    caller: Caller,
    request_id: String,
    loaders: Loaders,
}

impl Session {
    /// A request of `caller`. `request_id` names it in the log and in every error.
    #[must_use]
    pub fn new(app: App, caller: Caller, request_id: String) -> Self {
        let loaders = Loaders::new(app.store().clone());
        Self { app, caller, request_id, loaders }
    }
}

/// How resolvers read the [`Session`]. A request without one is a bug of the transport and panics.
pub(super) trait Ask {
    fn session(&self) -> &Session;

    fn app(&self) -> &App {
        &self.session().app
    }

    fn store(&self) -> &Store {
        self.app().store()
    }

    fn caller(&self) -> &Caller {
        &self.session().caller
    }

    fn loaders(&self) -> &Loaders {
        &self.session().loaders
    }

    fn request_id(&self) -> &str {
        &self.session().request_id
    }

    fn now(&self) -> Timestamp {
        self.store().clock().now()
    }

    /// The user whose private things may be shown, if the credentials cover reading.
    fn viewer(&self) -> Option<UserId> {
        self.caller().with_scope(Scope::Read).ok()
    }

    /// Whether what belongs to `owner` may be shown.
    fn may_see(&self, owner: UserId) -> bool {
        self.caller().is_admin() || self.viewer() == Some(owner)
    }
}

impl Ask for Context<'_> {
    fn session(&self) -> &Session {
        self.data_unchecked()
    }
}

/// The value of a field that is there whenever its object is.
pub(super) async fn answer<T>(ctx: &Context<'_>, work: impl Future<Output = Result<T>>) -> Answer<T> {
    work.await.map_err(|error| fault(&error, ctx.request_id()))
}

/// The value of a nullable field. What does not exist, or is not the caller's to see, is null without an error; every other
/// failure is an error at this field alone.
pub(super) async fn maybe<T>(ctx: &Context<'_>, work: impl Future<Output = Result<Option<T>>>) -> Option<Answer<T>> {
    match work.await {
        Ok(value) => value.map(Ok),
        Err(Error::NotFound(_)) => None,
        Err(error) => Some(Err(fault(&error, ctx.request_id()))),
    }
}

/// The payload of a mutation: what the rules refuse is data in it, every other failure is an error at the mutation.
pub(super) async fn payload<P: Payload>(
    ctx: &Context<'_>,
    work: impl Future<Output = Result<P::Content>>,
) -> Option<Answer<P>> {
    let refused = match work.await {
        Ok(content) => return Some(Ok(P::done(content))),
        Err(error) => user_error(error),
    };
    Some(refused.map(P::refused).map_err(|error| fault(&error, ctx.request_id())))
}

/// An id of the expected noun.
pub(super) fn parse_id<I: Id>(id: &ID, field: &str) -> Result<I> {
    id.parse().map_err(|error: I::Err| Error::invalid(field, error.to_string()))
}

/// Runs `verb` as one unit of work of the caller.
pub(super) async fn write<T>(ctx: &Context<'_>, verb: impl AsyncFnOnce(&mut Work) -> Result<T>) -> Result<T> {
    // Boxed: what a verb keeps on its way is large, and the resolvers around it would all carry it.
    Box::pin(ctx.store().write(ctx.caller().clone(), verb)).await
}

/// The input of a mutation that takes an idempotency key.
pub(super) trait Intent: InputType {
    /// The name of the mutation.
    const OPERATION: &'static str;
    /// Whether it moves credits.
    const MOVES_CREDITS: bool;
    /// The key that the client chose.
    fn key(&self) -> &str;
}

/// Runs `verb` as one unit of work of the caller, or answers what it answered when this intent was done before.
pub(super) async fn once<I, T>(
    ctx: &Context<'_>,
    input: &I,
    verb: impl AsyncFnOnce(&mut Work) -> Result<T>,
) -> Result<store::Answer<T>>
where
    I: Intent,
    T: Serialize + DeserializeOwned,
{
    if I::MOVES_CREDITS {
        books_in_order(ctx)?;
    }
    let mut intent = input.to_value();
    if let Value::Object(fields) = &mut intent {
        fields.shift_remove("idempotencyKey");
    }
    let once = Once::new(I::OPERATION, input.key(), &intent)?;
    Box::pin(ctx.store().write_once(ctx.caller().clone(), once, verb)).await
}

/// Whether credits may move: not while the newest audit says that the books are broken, because it is better to stop than to
/// build on them.
pub(super) fn books_in_order(ctx: &Context<'_>) -> Result<()> {
    match ctx.app().last_audit() {
        Some(audit) if !audit.ok() => {
            Err(Error::Unavailable("The books are under repair; no credits move until then."))
        }
        Some(_) | None => Ok(()),
    }
}

/// Declares that an input object with the field `idempotency_key` is the input of a mutation, and whether that moves credits.
macro_rules! intent {
    ($($input:ident = $operation:literal, moves_credits: $moves:literal;)+) => {$(
        impl $crate::graphql::context::Intent for $input {
            const OPERATION: &'static str = $operation;
            const MOVES_CREDITS: bool = $moves;
            fn key(&self) -> &str {
                &self.idempotency_key
            }
        }
    )+};
}
pub(super) use intent;
