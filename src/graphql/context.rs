//! What a resolver can reach: the program, who asks, the loaders of this request, and the transaction boundary of mutations.

use std::{
    future::Future,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use async_graphql::{Context, ID, InputType, TypeDirective, Value};
use entity::{
    id::{Id, UserId},
    time::Timestamp,
};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    error::{Answer, Payload, fault, user_error},
    live::{Delivery, Looks},
    loader::Loaders,
    user::{ApiScope, UserRole},
};
use crate::{
    app::App,
    caller::{Caller, Scope},
    error::{Error, Result},
    store::{self, Once, Store, Work},
};

/// Which root fields of a request were answered from the record of an earlier one, by the names that they have in the answer.
/// Cheap to clone; the transport keeps a copy and tells the client.
#[derive(Clone, Debug, Default)]
pub struct Replays(Arc<Mutex<Vec<String>>>);

impl Replays {
    fn add(&self, field: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(field.to_owned());
    }

    /// The names so far.
    #[must_use]
    pub fn fields(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What resolvers have to say of a request for its line in the log. Cheap to clone; the transport keeps a copy.
#[derive(Clone, Debug, Default)]
pub struct Remarks(Arc<(OnceLock<String>, AtomicBool)>);

impl Remarks {
    /// Says that something was refused in the data, for the reason with this code. The first one counts.
    fn refused(&self, code: &str) {
        self.0.0.get_or_init(|| code.to_owned());
    }

    /// Says that the request waits because its caller wants it to.
    pub fn waits(&self) {
        self.0.1.store(true, Ordering::Relaxed);
    }

    /// The code of the first refusal.
    #[must_use]
    pub fn refusal(&self) -> Option<String> {
        self.0.0.get().cloned()
    }

    /// Whether it took the time that its caller wanted it to take.
    #[must_use]
    pub fn has_waited(&self) -> bool {
        self.0.1.load(Ordering::Relaxed)
    }
}

/// What the caller may still spend, as of the beginning of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Points that it may spend at once.
    pub limit: u64,
    /// Points that are left, those of this request taken off.
    pub remaining: u64,
    /// What this request was reckoned to cost at most.
    pub reckoned: u64,
    /// When all of them are there again.
    pub reset_at: Timestamp,
}

/// One request: the transport puts it into the request's data.
pub struct Session {
    app: App,
    caller: Caller,
    request_id: String,
    loaders: Loaders,
    replays: Replays,
    remarks: Remarks,
    budget: Option<Budget>,
    delivery: Option<Delivery>,
    looks: Looks,
}

impl Session {
    /// A request of `caller`. `request_id` names it in the log and in every error.
    #[must_use]
    pub fn new(app: App, caller: Caller, request_id: String) -> Self {
        let loaders = Loaders::new(&app, false);
        let (replays, remarks, looks) = Default::default();
        Self { app, caller, request_id, loaders, replays, remarks, budget: None, delivery: None, looks }
    }

    /// The same request, which only reads and may read what is a few seconds old. Only who is not signed in cannot miss anything there
    /// that they wrote themselves.
    #[must_use]
    pub fn from_replica(self) -> Self {
        let anonymous = self.caller == Caller::Anonymous;
        Self { loaders: Loaders::new(&self.app, anonymous), ..self }
    }

    /// Whether it reads from the replica.
    #[must_use]
    pub fn reads_replica(&self) -> bool {
        self.loaders.reads_replica()
    }

    /// The same request, which leaves its remarks there.
    #[must_use]
    pub fn with_remarks(self, remarks: Remarks) -> Self {
        Self { remarks, ..self }
    }

    /// The same request of a caller whose spending is limited.
    #[must_use]
    pub fn with_budget(self, budget: Option<Budget>) -> Self {
        Self { budget, ..self }
    }

    /// The same request, whose events are delivered like this.
    #[must_use]
    pub fn with_delivery(self, delivery: Delivery) -> Self {
        Self { delivery: Some(delivery), ..self }
    }

    /// What its resolvers look at.
    #[must_use]
    pub fn looks(&self) -> Looks {
        self.looks.clone()
    }

    /// How its events are delivered, if by others than the executor.
    pub(super) fn delivery(&self) -> Option<&Delivery> {
        self.delivery.as_ref()
    }

    /// Where it will say which of its fields were answered before.
    #[must_use]
    pub fn replays(&self) -> Replays {
        self.replays.clone()
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
        self.session().looks.at_caller();
        &self.session().caller
    }

    fn loaders(&self) -> &Loaders {
        &self.session().loaders
    }

    fn request_id(&self) -> &str {
        &self.session().request_id
    }

    fn remarks(&self) -> &Remarks {
        &self.session().remarks
    }

    /// What the caller may still spend; nothing where nobody is limited.
    fn budget(&self) -> Option<Budget> {
        self.session().looks.at_budget();
        self.session().budget
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
        Err(error) => {
            let code = match &error {
                Error::Invalid { .. } => Some("INVALID_INPUT"),
                Error::NotFound(_) => Some("NOT_FOUND"),
                Error::Refused(refusal) => Some(refusal.code.as_str()),
                Error::Unauthenticated(_)
                | Error::Forbidden(_)
                | Error::Throttled(_)
                | Error::Unavailable(_)
                | Error::BooksBroken
                | Error::Internal(_) => None,
            };
            if let Some(code) = code {
                ctx.remarks().refused(code);
            }
            user_error(error)
        }
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

/// What it takes to ask for a field of a root type, and for an operation to be told again what it answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Right {
    /// A session, or a key with all scopes of one of these lists: what both sides of a deal may do has a list for each.
    Any(&'static [&'static [Scope]]),
    /// A session.
    Person,
    /// The session of an arbiter.
    Arbiter,
    /// The session of an administrator.
    Admin,
}

const READS: Right = Right::Any(&[&[Scope::Read]]);
const BUYS: Right = Right::Any(&[&[Scope::TasksWrite]]);
const BIDS: Right = Right::Any(&[&[Scope::BidsWrite]]);
const KEEPS_AGENTS: Right = Right::Any(&[&[Scope::AgentsWrite]]);
const WORKS: Right = Right::Any(&[&[Scope::WorkWrite]]);
const LOOKS_FOR_WORK: Right = Right::Any(&[&[Scope::Read, Scope::WorkWrite]]);
const EITHER_SIDE: Right = Right::Any(&[&[Scope::TasksWrite], &[Scope::WorkWrite]]);

/// The right to each field of a root type that takes credentials, as the schema shows it. Whoever carries a field out asks for the
/// same; for an operation with an idempotency key it is asked here too, before an earlier answer is repeated, so that a key with
/// narrow scopes cannot read what a wider one did.
const RIGHTS: &[(&str, Right)] = &[
    ("acceptResult", BUYS),
    ("awardAuction", BUYS),
    ("cancelAuction", BUYS),
    ("cancelChannelClose", BUYS),
    ("cancelDelegation", BUYS),
    ("cancelTask", BUYS),
    ("changePassword", Right::Person),
    ("channel", READS),
    ("channels", READS),
    ("claimTask", WORKS),
    ("claimVoucher", WORKS),
    ("commitBid", BIDS),
    ("createApiKey", Right::Person),
    ("createAuction", BUYS),
    ("deductFromChannel", BUYS),
    ("delegateTask", BUYS),
    ("delegation", READS),
    ("delegationEvents", READS),
    ("delegations", READS),
    ("dispute", READS),
    ("disputes", READS),
    ("executeTask", BUYS),
    ("failTask", WORKS),
    ("heartbeat", WORKS),
    ("issueCredits", Right::Admin),
    ("ledgerAudit", Right::Admin),
    ("logout", Right::Person),
    ("me", READS),
    ("openChannel", BUYS),
    ("openDispute", EITHER_SIDE),
    ("pauseAgent", KEEPS_AGENTS),
    ("rateAgent", BUYS),
    ("redeemCredits", Right::Admin),
    ("registerAgent", KEEPS_AGENTS),
    ("rejectResult", BUYS),
    ("requestChannelClose", BUYS),
    ("resolveDispute", Right::Arbiter),
    ("resumeAgent", KEEPS_AGENTS),
    ("retireAgent", KEEPS_AGENTS),
    ("revealBid", BIDS),
    ("revokeApiKey", Right::Person),
    ("setWebhook", KEEPS_AGENTS),
    ("settleChannel", EITHER_SIDE),
    ("settlementEvents", READS),
    ("submitBid", BIDS),
    ("submitEvidence", EITHER_SIDE),
    ("submitResult", WORKS),
    ("task", READS),
    ("taskEvents", READS),
    ("taskReceipt", READS),
    ("taskResult", READS),
    ("tasks", READS),
    ("topUpChannel", BUYS),
    ("transfers", READS),
    ("updateAgent", KEEPS_AGENTS),
    ("updateProfile", Right::Person),
    ("users", Right::Admin),
    ("withdrawBid", BIDS),
    ("withdrawCommitment", BIDS),
    ("withdrawEarnings", KEEPS_AGENTS),
    ("workOffered", LOOKS_FOR_WORK),
    ("workOffers", LOOKS_FOR_WORK),
];

/// The right to a field of a root type. What is not in the table is for signed-in persons alone.
fn right_to(field: &str) -> Right {
    RIGHTS.iter().find(|(name, _)| *name == field).map_or(Right::Person, |(_, right)| *right)
}

/// The scopes that open a field to an API key, for [`requires`].
pub(super) fn scopes(field: &str) -> Vec<Vec<ApiScope>> {
    match right_to(field) {
        Right::Any(lists) => lists.iter().map(|list| list.iter().copied().map(ApiScope::from).collect()).collect(),
        Right::Person | Right::Arbiter | Right::Admin => Vec::new(),
    }
}

/// The role that a field takes, for [`requires`].
pub(super) fn role(field: &str) -> Option<UserRole> {
    match right_to(field) {
        Right::Any(_) | Right::Person => None,
        Right::Arbiter => Some(UserRole::Arbiter),
        Right::Admin => Some(UserRole::Admin),
    }
}

/// What a caller must bring. Without it the field answers an error, or null where what is private looks like what is not there;
/// fields that do not have this are for everybody. What you see and do with it is still limited to what is yours. `scopes`: a
/// signed-in session, or an API key with all scopes of one of these lists; empty where no key will do. `role`: the role that the
/// session must have; null where any will do.
// The arguments are described above: the text of a schema leaves out what a directive's arguments say of themselves.
#[TypeDirective(location = "FieldDefinition")]
pub(super) fn requires(scopes: Vec<Vec<ApiScope>>, role: Option<UserRole>) {}

/// Checks that the caller may ask for an operation.
fn may_ask(caller: &Caller, operation: &str) -> Result<()> {
    match right_to(operation) {
        Right::Any(lists) => {
            let each = lists.iter().map(|list| list.iter().try_for_each(|scope| caller.with_scope(*scope).map(|_| ())));
            each.reduce(Result::or).unwrap_or_else(|| caller.in_person().map(|_| ()))
        }
        Right::Person => caller.in_person().map(|_| ()),
        Right::Arbiter => caller.arbiter().map(|_| ()),
        Right::Admin => caller.admin().map(|_| ()),
    }
}

/// What came of an intent, and whether it came of it before.
#[derive(Clone, Debug)]
pub(super) struct Done<T> {
    pub value: T,
    pub replayed: bool,
}

/// Runs `verb` as one unit of work of the caller, or answers what it answered when this intent was done before.
pub(super) async fn once<I, T>(
    ctx: &Context<'_>,
    input: &I,
    verb: impl AsyncFnOnce(&mut Work) -> Result<T>,
) -> Result<Done<T>>
where
    I: Intent,
    T: Serialize + DeserializeOwned,
{
    once_by(ctx, input, async |caller, once| Box::pin(ctx.store().write_once(caller, once, verb)).await).await
}

/// The same, done by somebody else who answers an intent once.
pub(super) async fn once_by<I: Intent, T>(
    ctx: &Context<'_>,
    input: &I,
    perform: impl AsyncFnOnce(Caller, Once) -> Result<store::Answer<T>>,
) -> Result<Done<T>> {
    may_ask(ctx.caller(), I::OPERATION)?;
    if I::MOVES_CREDITS {
        // The ledger asks too; asking here keeps a mutation from doing in vain what comes before.
        ctx.store().books()?;
    }
    let mut intent = input.to_value();
    if let Value::Object(fields) = &mut intent {
        fields.shift_remove("idempotencyKey");
    }
    let once = Once::new(I::OPERATION, input.key(), &intent)?;
    let answer = perform(ctx.caller().clone(), once).await?;
    if answer.replayed {
        let field = ctx.field();
        ctx.session().replays.add(field.alias().unwrap_or(field.name()));
    }
    let value = answer.outcome.map_err(Error::Refused)?;
    Ok(Done { value, replayed: answer.replayed })
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

#[cfg(test)]
mod tests {
    use async_graphql::parser::{
        parse_schema,
        types::{TypeKind, TypeSystemDefinition},
    };

    use super::*;

    #[test]
    fn every_mutation_with_a_key_has_a_row_of_rights() {
        let sdl = crate::graphql::sdl();
        let keyed: Vec<String> = sdl
            .split("\ninput ")
            .filter(|input| input.split("\n}").next().is_some_and(|body| body.contains("idempotencyKey: String!")))
            .filter_map(|input| input.split_once("Input"))
            .map(|(name, _)| format!("{}{}", name[..1].to_lowercase(), &name[1..]))
            .collect();
        assert!(keyed.len() > 10, "{keyed:?}");
        for name in &keyed {
            assert!(RIGHTS.iter().any(|(known, _)| known == name), "add {name} to RIGHTS");
        }
        assert!(RIGHTS.windows(2).all(|pair| pair[0].0 < pair[1].0), "keep RIGHTS in order");
    }

    /// Every field of a root type has the directive of its row, and none has another one.
    #[test]
    fn the_schema_shows_every_right_at_its_field() {
        let document = parse_schema(crate::graphql::sdl()).unwrap();
        let mut shown = Vec::new();
        for definition in &document.definitions {
            let TypeSystemDefinition::Type(of) = definition else { continue };
            let TypeKind::Object(object) = &of.node.kind else { continue };
            let is_root = ["Query", "Mutation", "Subscription"].contains(&of.node.name.node.as_str());
            for field in &object.fields {
                let name = field.node.name.node.as_str();
                let expected = requires::apply(scopes(name), role(name)).sdl();
                let row = is_root && RIGHTS.iter().any(|(known, _)| *known == name);
                assert_eq!(field.node.directives.len(), usize::from(row), "{name}");
                if row {
                    let arguments: Vec<String> = field.node.directives[0]
                        .node
                        .arguments
                        .iter()
                        .map(|(name, value)| format!("{}: {}", name.node, value.node))
                        .collect();
                    assert_eq!(format!("@requires({})", arguments.join(", ")), expected, "{name}");
                    shown.push(name.to_owned());
                }
            }
        }
        shown.sort();
        assert_eq!(shown, RIGHTS.iter().map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>());
    }
}
