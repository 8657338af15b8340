//! Disputes about the results of tasks, and their evidence.

use async_graphql::{Context, Enum, ID, InputObject, Object};
use entity::{
    dispute, evidence,
    id::{DisputeId, EvidenceId, TaskId},
};
use sea_orm::{ColumnTrait, Condition, EntityTrait, QueryFilter};

use super::{
    agent::Agent,
    context::{Ask, intent, maybe, once, parse_id, payload, requires, role, scopes},
    error::{Answer, payload},
    page::{PageArgs, Sort, connection, list_cost},
    scalar::{Credits, DateTime},
    task::{Side, Task},
    user::User,
};
use crate::{
    caller::Scope,
    error::Result,
    task::dispute::{self as verbs, NewEvidence, Ruling},
};

/// The order of disputes, newest first.
const NEWEST: Sort<dispute::Entity> =
    Sort { name: "d", key: None, id: dispute::Column::Id, descending: true, place: |row| (0, row.id.0) };

/// The order of evidence, oldest first.
const OLDEST: Sort<evidence::Entity> =
    Sort { name: "e", key: None, id: evidence::Column::Id, descending: false, place: |row| (0, row.id.0) };

/// The states of a dispute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "entity::dispute::Status")]
pub(super) enum DisputeStatus {
    /// The parties show what they have, until `evidenceUntil`. An arbiter may rule already when both have shown something.
    Evidence,
    /// No more evidence is taken; an arbiter rules, until `rulingUntil`.
    Ruling,
    /// An arbiter ruled.
    Ruled,
    /// No arbiter ruled in time, so the verifiers' verdict decided: a result that they had passed was paid in full, another one
    /// refunded.
    Defaulted,
}

/// The two sides of a dispute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "entity::dispute::Party")]
pub(super) enum DisputeParty {
    /// Who pays for the task.
    Payer,
    /// The owner of the agent that did it.
    Agent,
}

/// What a piece of evidence is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "entity::evidence::Kind")]
pub(super) enum EvidenceKind {
    /// Words; 1 to 10,000 characters.
    Statement,
    /// A JSON document as text; at most 65,536 bytes.
    Json,
    /// An https address without a password; at most 2,048 characters. Nobody follows it for you.
    Link,
    /// The SHA-256 of something that the party keeps, in 64 lower-case hex digits.
    Digest,
}

#[derive(Clone)]
pub(super) struct Dispute(dispute::Model);

impl From<dispute::Model> for Dispute {
    fn from(row: dispute::Model) -> Self {
        Self(row)
    }
}

/// A quarrel over the result of one task. The price stays in escrow until an arbiter, who is no party, gives any part of it to the
/// agent and the rest back, or until `rulingUntil`, when the verifiers' verdict decides: a result that they passed is paid in full,
/// another one refunded. The parties, arbiters and administrators see it.
#[Object]
impl Dispute {
    /// The id, `disp_…`.
    pub(super) async fn id(&self) -> ID {
        self.0.id.into()
    }

    /// Its state.
    async fn status(&self) -> DisputeStatus {
        self.0.status.into()
    }

    /// Which side opened it.
    async fn opened_by(&self) -> DisputeParty {
        self.0.opened_by.into()
    }

    /// What the opener says is wrong.
    async fn reason(&self) -> &str {
        &self.0.reason
    }

    /// The price of the task, which is what there is to share out.
    async fn amount(&self) -> Credits {
        Credits(self.0.amount)
    }

    /// Until when the parties may show evidence.
    async fn evidence_until(&self) -> DateTime {
        DateTime(self.0.evidence_until)
    }

    /// Until when an arbiter may rule.
    async fn ruling_until(&self) -> DateTime {
        DateTime(self.0.ruling_until)
    }

    /// What the agent got of `amount`, the platform's fee included; null before the end.
    async fn awarded(&self) -> Option<Credits> {
        self.0.awarded.map(Credits)
    }

    /// Why the arbiter ruled so; null where none did.
    async fn opinion(&self) -> Option<&str> {
        self.0.opinion.as_deref()
    }

    /// When it was opened.
    async fn created_at(&self) -> DateTime {
        DateTime(self.0.created_at)
    }

    /// When it was over; null before.
    async fn resolved_at(&self) -> Option<DateTime> {
        self.0.resolved_at.map(DateTime)
    }

    /// The task; null for an arbiter once another one ruled, or nobody did.
    #[graphql(complexity = "2 + child_complexity")]
    async fn task(&self, ctx: &Context<'_>) -> Option<Answer<Task>> {
        maybe(ctx, super::task::find(ctx, self.0.task_id)).await
    }

    /// Who pays for the task.
    #[graphql(complexity = "1 + child_complexity")]
    async fn payer(&self, ctx: &Context<'_>) -> Option<Answer<User>> {
        maybe(ctx, super::user::find(ctx, self.0.payer_id)).await
    }

    /// The agent that did it.
    #[graphql(complexity = "1 + child_complexity")]
    async fn agent(&self, ctx: &Context<'_>) -> Option<Answer<Agent>> {
        maybe(ctx, super::agent::find(ctx, self.0.agent_id)).await
    }

    /// Who ruled it; null where nobody did.
    #[graphql(complexity = "1 + child_complexity")]
    async fn arbiter(&self, ctx: &Context<'_>) -> Option<Answer<User>> {
        maybe(ctx, async {
            let Some(arbiter) = self.0.arbiter_id else { return Ok(None) };
            super::user::find(ctx, arbiter).await
        })
        .await
    }

    /// What the parties have shown, oldest first.
    #[graphql(complexity = "list_cost(__ctx, __variables_definition, __field, child_complexity)")]
    async fn evidence(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "How many from the start: 1 to 100, 20 when neither `first` nor `last` is given.")]
        first: Option<i32>,
        #[graphql(desc = "Only what comes after this cursor.")] after: Option<String>,
        #[graphql(desc = "How many from the end: 1 to 100; not together with `first`.")] last: Option<i32>,
        #[graphql(desc = "Only what comes before this cursor.")] before: Option<String>,
    ) -> Option<Answer<EvidenceConnection>> {
        maybe(ctx, async {
            let list = evidence::Entity::find().filter(evidence::Column::DisputeId.eq(self.0.id));
            let window = PageArgs { first, after, last, before }.window(&OLDEST)?;
            Ok(Some(window.read(ctx.loaders().db(), list, &OLDEST).await?.into()))
        })
        .await
    }
}

#[derive(Clone)]
pub(super) struct Evidence(evidence::Model);

impl From<evidence::Model> for Evidence {
    fn from(row: evidence::Model) -> Self {
        Self(row)
    }
}

/// What a party showed in a dispute. It never changes.
#[Object]
impl Evidence {
    /// The id, `evid_…`.
    pub(super) async fn id(&self) -> ID {
        self.0.id.into()
    }

    /// What it is.
    async fn kind(&self) -> EvidenceKind {
        self.0.kind.into()
    }

    /// The words, the document, the address or the hash, as its kind says.
    async fn body(&self) -> &str {
        &self.0.body
    }

    /// The SHA-256 of the body in lower-case hex.
    async fn sha256(&self) -> &str {
        &self.0.sha256
    }

    /// When it was shown.
    async fn created_at(&self) -> DateTime {
        DateTime(self.0.created_at)
    }

    /// Who showed it.
    #[graphql(complexity = "1 + child_complexity")]
    async fn submitter(&self, ctx: &Context<'_>) -> Option<Answer<User>> {
        maybe(ctx, super::user::find(ctx, self.0.submitter_id)).await
    }
}

connection! {
    /// A page of disputes.
    DisputeConnection,
    /// A dispute in a list.
    DisputeEdge, Dispute, dispute::Model
}

connection! {
    /// A page of evidence.
    EvidenceConnection,
    /// A piece of evidence in a list.
    EvidenceEdge, Evidence, evidence::Model
}

/// Which disputes to list. All conditions must hold.
#[derive(Clone, Debug, Default, InputObject)]
pub(super) struct DisputeFilter {
    /// Is in one of these states.
    status: Option<Vec<DisputeStatus>>,
    /// You are on this side of it.
    side: Option<Side>,
}

/// Input of `openDispute`.
#[derive(InputObject)]
pub(super) struct OpenDisputeInput {
    /// The task whose result you dispute.
    task_id: ID,
    /// What is wrong; 1 to 10,000 characters.
    reason: String,
    /// Names this intent: the same value when you retry the same intent, another one for another. 1 to 128 visible ASCII characters.
    idempotency_key: String,
}

/// Input of `submitEvidence`.
#[derive(InputObject)]
pub(super) struct SubmitEvidenceInput {
    /// The dispute.
    dispute_id: ID,
    /// What you show.
    kind: EvidenceKind,
    /// The words, the document, the address or the hash, as the kind says.
    body: String,
    /// Names this intent: the same value when you retry the same intent, another one for another. 1 to 128 visible ASCII characters.
    idempotency_key: String,
}

/// Input of `resolveDispute`.
#[derive(InputObject)]
pub(super) struct ResolveDisputeInput {
    /// The dispute.
    dispute_id: ID,
    /// What the agent gets, from nothing to the price; the rest goes back to the payer.
    award: Credits,
    /// Why; 1 to 10,000 characters. The parties read it.
    opinion: String,
    /// Names this intent: the same value when you retry the same intent, another one for another. 1 to 128 visible ASCII characters.
    idempotency_key: String,
}

intent! {
    OpenDisputeInput = "openDispute", moves_credits: false;
    SubmitEvidenceInput = "submitEvidence", moves_credits: false;
    ResolveDisputeInput = "resolveDispute", moves_credits: true;
}

payload! {
    /// Answer of `openDispute`.
    OpenDisputePayload {
        /// The dispute; null when it was refused.
        dispute: Dispute
    } DisputeUserError
}

payload! {
    /// Answer of `submitEvidence`.
    SubmitEvidencePayload {
        /// The piece of evidence; null when it was refused.
        evidence: Evidence
    } DisputeUserError
}

payload! {
    /// Answer of `resolveDispute`.
    ResolveDisputePayload {
        /// The dispute as it is now; null when it was refused.
        dispute: Dispute
    } DisputeUserError
}

fn shown(ctx: &Context<'_>, row: Option<dispute::Model>) -> Option<Dispute> {
    ctx.viewer()?;
    row.filter(|row| verbs::may_see(row, ctx.caller())).map(Dispute)
}

/// The dispute with this id, if the caller may see it.
pub(super) async fn find(ctx: &Context<'_>, id: DisputeId) -> Result<Option<Dispute>> {
    Ok(shown(ctx, ctx.loaders().disputes(id).await?))
}

/// The dispute about a task, if the caller may see it.
pub(super) async fn find_of_task(ctx: &Context<'_>, task: TaskId) -> Result<Option<Dispute>> {
    Ok(shown(ctx, ctx.loaders().disputes_of_tasks(task).await?))
}

/// The piece of evidence with this id, if the caller may see its dispute.
pub(super) async fn find_evidence(ctx: &Context<'_>, id: EvidenceId) -> Result<Option<Evidence>> {
    let Some(row) = evidence::Entity::find_by_id(id).one(ctx.loaders().db()).await? else { return Ok(None) };
    Ok(find(ctx, row.dispute_id).await?.map(|_| Evidence(row)))
}

#[derive(Default)]
pub(super) struct DisputeQuery;

#[Object]
impl DisputeQuery {
    /// A dispute by id; null when there is none, or you may not see it.
    #[graphql(complexity = "1 + child_complexity", directive = requires::apply(scopes("dispute"), role("dispute")))]
    async fn dispute(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The id, `disp_…`.")] id: ID,
    ) -> Option<Answer<Dispute>> {
        maybe(ctx, async { find(ctx, parse_id(&id, "id")?).await }).await
    }

    /// The disputes that you are party to, newest first; all disputes for arbiters and administrators.
    #[graphql(complexity = "list_cost(__ctx, __variables_definition, __field, child_complexity)", directive = requires::apply(scopes("disputes"), role("disputes")))]
    async fn disputes(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which disputes.")] filter: Option<DisputeFilter>,
        #[graphql(desc = "How many from the start: 1 to 100, 20 when neither `first` nor `last` is given.")]
        first: Option<i32>,
        #[graphql(desc = "Only what comes after this cursor.")] after: Option<String>,
        #[graphql(desc = "How many from the end: 1 to 100; not together with `first`.")] last: Option<i32>,
        #[graphql(desc = "Only what comes before this cursor.")] before: Option<String>,
    ) -> Option<Answer<DisputeConnection>> {
        maybe(ctx, async {
            let viewer = ctx.caller().with_scope(Scope::Read)?;
            let filter = filter.unwrap_or_default();
            let pays = dispute::Column::PayerId.eq(viewer);
            let works = dispute::Column::OwnerId.eq(viewer);
            let mut list = dispute::Entity::find();
            list = match filter.side {
                Some(Side::Requester) => list.filter(pays),
                Some(Side::Worker) => list.filter(works),
                None if ctx.caller().is_admin() || ctx.caller().is_arbiter() => list,
                None => list.filter(Condition::any().add(pays).add(works)),
            };
            if let Some(states) = filter.status {
                list = list.filter(dispute::Column::Status.is_in(states.into_iter().map(dispute::Status::from)));
            }
            let window = PageArgs { first, after, last, before }.window(&NEWEST)?;
            Ok(Some(window.read(ctx.loaders().db(), list, &NEWEST).await?.into()))
        })
        .await
    }
}

#[derive(Default)]
pub(super) struct DisputeMutation;

#[Object]
impl DisputeMutation {
    /// Opens a dispute about a result that waits for its requester's word, by the requester or by the owner of the agent. The price
    /// stays in escrow until an arbiter rules, or the time for it is over.
    #[graphql(complexity = "10 + child_complexity", directive = requires::apply(scopes("openDispute"), role("openDispute")))]
    async fn open_dispute(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The task and the reason.")] input: OpenDisputeInput,
    ) -> Option<Answer<OpenDisputePayload>> {
        payload(ctx, async {
            let task = parse_id(&input.task_id, "taskId")?;
            Ok(once(ctx, &input, async |work| verbs::open(work, task, &input.reason).await).await?.value.into())
        })
        .await
    }

    /// Shows a piece of evidence in a dispute that you are party to, until `evidenceUntil`. A party may show a bounded number of
    /// pieces, each once.
    #[graphql(complexity = "10 + child_complexity", directive = requires::apply(scopes("submitEvidence"), role("submitEvidence")))]
    async fn submit_evidence(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The dispute and what you show.")] input: SubmitEvidenceInput,
    ) -> Option<Answer<SubmitEvidencePayload>> {
        payload(ctx, async {
            let dispute = parse_id(&input.dispute_id, "disputeId")?;
            let new = NewEvidence { dispute, kind: input.kind.into(), body: input.body.clone() };
            Ok(once(ctx, &input, async |work| verbs::submit_evidence(work, new).await).await?.value.into())
        })
        .await
    }

    /// Rules a dispute, which ends it and its task: the agent gets the award, the payer the rest. For arbiters who are no party to
    /// it, once the time for evidence is over or both parties have shown something, and until `rulingUntil`.
    #[graphql(complexity = "10 + child_complexity", directive = requires::apply(scopes("resolveDispute"), role("resolveDispute")))]
    async fn resolve_dispute(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The dispute and the ruling.")] input: ResolveDisputeInput,
    ) -> Option<Answer<ResolveDisputePayload>> {
        payload(ctx, async {
            let dispute = parse_id(&input.dispute_id, "disputeId")?;
            let ruling = Ruling { dispute, award: input.award.0, opinion: input.opinion.clone() };
            Ok(once(ctx, &input, async |work| verbs::resolve(work, ruling).await).await?.value.into())
        })
        .await
    }
}
