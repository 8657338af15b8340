//! What follows a result that waits for its payer: the word of the payer, silence, or a dispute, which an arbiter rules or time
//! ends.
//!
//! ```text
//! SUBMITTED ─┬─ accept ───────────────────► COMPLETED, paid in full
//!            ├─ silence until the deadline ► COMPLETED if the verifiers passed it, REFUNDED if not
//!            └─ reject, or either party opens a dispute
//!                 ▼
//! DISPUTED: EVIDENCE ─ its time is over ─► RULING ─ its time is over ─► DEFAULTED: as the verifiers said
//!                 └─ an arbiter rules x ─────┴──────────────────────────► RULED: x to the agent, the rest to the payer
//! ```
//!
//! What must always hold: a task is disputed once; a disputed task can be neither accepted, refunded nor disputed again, only
//! ruled or ended by time; each stage has its deadline, and it is the task's; an arbiter is no party; what is shown as evidence
//! never changes. All of it happens under the lock of the task.

use std::time::Duration;

use entity::{
    agent,
    dispute::{self, Party},
    event::{self, Payload},
    evidence,
    id::{DisputeId, TaskId, UserId},
    money::Amount,
    task::{self, Status},
    task_result,
};
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, EntityTrait, IntoActiveModel, PaginatorTrait, QueryFilter,
};
use sha2::{Digest, Sha256};

use super::{
    about_work, agent_row, conclude, lock,
    rules::{self, DisputeRefused, Life, ReviewRefused, Shown, Step, Turn},
    save, winning_bid,
};
use crate::{
    caller::{Caller, Scope},
    error::{Error, Result},
    store::Work,
};

/// Accepts the result of a task that the caller pays for: the agent is paid in full.
pub async fn accept(work: &mut Work, id: TaskId) -> Result<task::Model> {
    let payer = work.caller().with_scope(Scope::TasksWrite)?;
    let task = lock(work, id).await?;
    if task.requester_id != payer {
        return Err(Error::NotFound("task"));
    }
    rules::may_review(&task, work.now())?;
    let turn = rules::next(&Life::of(&task, None), Step::Accept).ok_or(ReviewRefused::TaskNotSubmitted)?;
    end(work, task, &turn, None).await
}

/// Rejects the result of a task that the caller pays for, which opens the dispute about it.
pub async fn reject(work: &mut Work, id: TaskId, reason: &str) -> Result<task::Model> {
    let payer = work.caller().with_scope(Scope::TasksWrite)?;
    let reason = reason_of(reason)?;
    let task = lock(work, id).await?;
    if task.requester_id != payer {
        return Err(Error::NotFound("task"));
    }
    let agent = winner(work, &task).await?.ok_or(ReviewRefused::TaskNotSubmitted)?;
    dispute(work, task, &agent, Party::Payer, reason).await.map(|(task, _)| task)
}

/// Opens a dispute about the result of a task, by its payer or by the owner of the agent that did it.
pub async fn open(work: &mut Work, id: TaskId, reason: &str) -> Result<dispute::Model> {
    work.caller().user()?;
    let reason = reason_of(reason)?;
    let task = lock(work, id).await?;
    let agent = winner(work, &task).await?;
    let party = side(work.caller(), (task.requester_id, agent.as_ref()))?.ok_or(Error::NotFound("task"))?;
    let agent = agent.ok_or(ReviewRefused::TaskNotSubmitted)?;
    dispute(work, task, &agent, party, reason).await.map(|(_, dispute)| dispute)
}

fn reason_of(text: &str) -> Result<String> {
    rules::words(text).map_err(|why| Error::invalid("reason", why))
}

async fn dispute(
    work: &mut Work,
    task: task::Model,
    agent: &agent::Model,
    opened_by: Party,
    reason: String,
) -> Result<(task::Model, dispute::Model)> {
    let now = work.now();
    rules::may_review(&task, now)?;
    let turn = rules::next(&Life::of(&task, None), Step::Dispute).ok_or(ReviewRefused::TaskNotSubmitted)?;
    let (Some(status), Some(channel_id), Some(amount)) = (turn.life.dispute, task.channel_id, turn.life.due()) else {
        return Err(Error::internal("a submitted task without a winner"));
    };
    let evidence_until = now.after(work.terms().evidence_window);
    let dispute = dispute::Model {
        id: work.fresh(),
        task_id: task.id,
        channel_id,
        payer_id: task.requester_id,
        owner_id: agent.owner_id,
        agent_id: agent.id,
        opened_by,
        reason,
        amount,
        status,
        evidence_until,
        ruling_until: evidence_until.after(work.terms().ruling_window),
        awarded: None,
        arbiter_id: None,
        opinion: None,
        created_at: now,
        resolved_at: None,
    };
    let task = task::Model { status: turn.life.status, deadline_at: Some(evidence_until), ..task };
    save(work, &task).await?;
    dispute::Entity::insert(dispute.clone().into_active_model().reset_all()).exec_without_returning(work.tx()).await?;
    let reason = Some(opened_by.name().to_owned());
    let payload = Payload { amount: Some(amount), reason, ..Payload::default() };
    work.record(about_work(&task, agent, event::Kind::DisputeOpened, payload));
    Ok((task, dispute))
}

/// What a party shows.
#[derive(Clone, Debug)]
pub struct NewEvidence {
    pub dispute: DisputeId,
    pub kind: evidence::Kind,
    pub body: String,
}

/// Shows a piece of evidence, for one of the two parties, until the time for it is over. To everybody else the dispute does not
/// exist.
pub async fn submit_evidence(work: &mut Work, new: NewEvidence) -> Result<evidence::Model> {
    work.caller().user()?;
    let body = rules::evidence_body(new.kind, &new.body).map_err(|why| Error::invalid("body", why))?;
    let (task, dispute) = locked(work, new.dispute).await?;
    let agent = agent_row(work, dispute.agent_id).await?;
    side(work.caller(), (dispute.payer_id, Some(&agent)))?.ok_or(Error::NotFound("dispute"))?;
    let submitter = work.caller().user()?;
    let sha256 = hex::encode(Sha256::digest(body.as_bytes()));
    let own = evidence::Entity::find()
        .filter(evidence::Column::DisputeId.eq(dispute.id))
        .filter(evidence::Column::SubmitterId.eq(submitter));
    let same = own.clone().filter(evidence::Column::Sha256.eq(sha256.clone())).one(work.tx()).await?;
    let shown = Shown { own: own.count(work.tx()).await?, repeated: same.is_some() };
    rules::may_show(&dispute, shown, work.terms().max_evidence, work.now())?;

    let piece = evidence::Model {
        id: work.fresh(),
        dispute_id: dispute.id,
        submitter_id: submitter,
        kind: new.kind,
        body,
        sha256,
        created_at: work.now(),
    };
    evidence::Entity::insert(piece.clone().into_active_model().reset_all()).exec_without_returning(work.tx()).await?;
    let payload = Payload { reason: Some(piece.kind.name().to_owned()), ..Payload::default() };
    work.record(about_work(&task, &agent, event::Kind::EvidenceSubmitted, payload));
    Ok(piece)
}

/// What an arbiter decides.
#[derive(Clone, Debug)]
pub struct Ruling {
    pub dispute: DisputeId,
    /// What the agent gets of what good work is paid, the platform's fee included.
    pub award: Amount,
    /// Why.
    pub opinion: String,
}

/// Rules a dispute: for arbiters who are no party to it, once the time for evidence is over or both parties have shown something.
pub async fn resolve(work: &mut Work, ruling: Ruling) -> Result<dispute::Model> {
    let arbiter = work.caller().arbiter()?;
    let opinion = rules::words(&ruling.opinion).map_err(|why| Error::invalid("opinion", why))?;
    let (task, dispute) = locked(work, ruling.dispute).await?;
    let both = have_both_shown(work, &dispute).await?;
    rules::may_rule(&dispute, arbiter, both, ruling.award, work.now())?;
    let step = Step::Rule(ruling.award);
    let turn = rules::next(&Life::of(&task, Some(&dispute)), step).ok_or(DisputeRefused::DisputeOver)?;
    let ruled = dispute::Model { arbiter_id: Some(arbiter), opinion: Some(opinion), ..dispute };
    finish(work, task, ruled, &turn, "The ruling of the dispute gives the agent nothing.").await
}

async fn have_both_shown(work: &Work, dispute: &dispute::Model) -> Result<bool> {
    for party in [dispute.payer_id, dispute.owner_id] {
        let shown = evidence::Entity::find()
            .filter(evidence::Column::DisputeId.eq(dispute.id))
            .filter(evidence::Column::SubmitterId.eq(party))
            .one(work.tx())
            .await?;
        if shown.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Ends a dispute and its task. `why` is for a task that is not paid.
async fn finish(
    work: &mut Work,
    task: task::Model,
    dispute: dispute::Model,
    turn: &Turn,
    why: &str,
) -> Result<dispute::Model> {
    let status = turn.life.dispute.ok_or_else(|| Error::internal("a ruling of nothing"))?;
    let resolved_at = Some(work.now().max(dispute.created_at));
    let dispute = dispute::Model { status, awarded: Some(turn.flow.paid), resolved_at, ..dispute };
    let mut row = dispute.clone().into_active_model();
    row.status = Set(dispute.status);
    row.awarded = Set(dispute.awarded);
    row.arbiter_id = Set(dispute.arbiter_id);
    row.opinion = Set(dispute.opinion.clone());
    row.resolved_at = Set(dispute.resolved_at);
    row.update_without_returning(work.tx()).await?;
    let agent = agent_row(work, dispute.agent_id).await?;
    let payload = Payload {
        amount: Some(turn.flow.paid),
        returned: Some(turn.flow.returned),
        reason: Some(rules::finding(&dispute).to_owned()),
        duration_us: i64::try_from(work.now().since(dispute.created_at).as_micros()).ok(),
        ..Payload::default()
    };
    work.record(about_work(&task, &agent, event::Kind::DisputeResolved, payload));
    end(work, task, turn, Some(("DISPUTE_LOST", why))).await?;
    Ok(dispute)
}

/// Ends a submitted task whose payer was silent until the deadline: work that passed its verifiers is paid, other work is not.
/// Answers whether there was anything to do.
pub async fn review_due(work: &mut Work, id: TaskId) -> Result<bool> {
    let task = lock(work, id).await?;
    if task.status != Status::Submitted || !rules::is_due(&task, work.now()) {
        return Ok(false);
    }
    let turn = super::step(&task, Step::Expire)?;
    let why = ("NOT_ACCEPTED", "The verifiers refused the result, and the requester did not accept it in time.");
    end(work, task, &turn, Some(why)).await?;
    Ok(true)
}

/// Takes a disputed task on whose stage is over: from evidence to ruling, and from ruling to what the verifiers said. Answers
/// whether there was anything to do.
pub async fn dispute_due(work: &mut Work, id: TaskId) -> Result<bool> {
    let task = lock(work, id).await?;
    if task.status != Status::Disputed || !rules::is_due(&task, work.now()) {
        return Ok(false);
    }
    let dispute = dispute::Entity::find().filter(dispute::Column::TaskId.eq(id)).one(work.tx()).await?;
    let dispute = dispute.ok_or_else(|| Error::internal("a disputed task without a dispute"))?;
    let turn = rules::next(&Life::of(&task, Some(&dispute)), Step::Expire)
        .ok_or_else(|| Error::internal("a disputed task whose dispute is over"))?;
    if turn.life.status != Status::Disputed {
        let why = "No arbiter ruled in time, and the verifiers had refused the result.";
        finish(work, task, dispute, &turn, why).await?;
        return Ok(true);
    }
    let deadline_at = Some(dispute.ruling_until);
    save(work, &task::Model { deadline_at, ..task }).await?;
    let mut row = dispute.into_active_model();
    row.status = Set(dispute::Status::Ruling);
    row.update_without_returning(work.tx()).await?;
    Ok(true)
}

/// Settles a task whose result is stored.
pub(super) async fn end(
    work: &mut Work,
    task: task::Model,
    turn: &Turn,
    why: Option<(&str, &str)>,
) -> Result<task::Model> {
    let missing = || Error::internal("a submitted task without a result or a winner");
    let result = task_result::Entity::find_by_id(task.id).one(work.tx()).await?.ok_or_else(missing)?;
    let agent = winner(work, &task).await?.ok_or_else(missing)?;
    let wall = Duration::from_micros(u64::try_from(result.wall_us).unwrap_or(0));
    let bid = winning_bid(work, &task).await?;
    Box::pin(conclude(work, task, (&agent, &bid), turn, why, wall)).await
}

async fn winner(work: &Work, task: &task::Model) -> Result<Option<agent::Model>> {
    match task.agent_id {
        Some(agent) => agent_row(work, agent).await.map(Some),
        None => Ok(None),
    }
}

/// A dispute with its task, which is locked until the unit of work ends. Whoever changes a dispute has locked its task, so the
/// dispute stays as it is.
async fn locked(work: &Work, id: DisputeId) -> Result<(task::Model, dispute::Model)> {
    let find = || dispute::Entity::find_by_id(id);
    let found = find().one(work.tx()).await?.ok_or(Error::NotFound("dispute"))?;
    let task = lock(work, found.task_id).await?;
    let dispute = find().one(work.tx()).await?.ok_or(Error::NotFound("dispute"))?;
    Ok((task, dispute))
}

/// On which side of a task the caller is, with what its credentials cover; nothing for everybody else.
fn side(caller: &Caller, (payer, agent): (UserId, Option<&agent::Model>)) -> Result<Option<Party>> {
    if caller.user_id() == Some(payer) {
        return caller.with_scope(Scope::TasksWrite).map(|_| Some(Party::Payer));
    }
    let Some(agent) = agent.filter(|agent| caller.user_id() == Some(agent.owner_id)) else { return Ok(None) };
    match caller.controls(agent, Scope::WorkWrite) {
        Ok(_) => Ok(Some(Party::Agent)),
        Err(Error::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether `caller` may see a dispute and its evidence: the parties, arbiters, administrators.
#[must_use]
pub fn may_see(dispute: &dispute::Model, caller: &Caller) -> bool {
    let user = caller.user_id();
    let party = user == Some(dispute.payer_id) || user == Some(dispute.owner_id);
    party || caller.is_arbiter() || caller.is_admin()
}

/// Whether `caller` may look into the task because of this dispute: an arbiter, while it is open or when it was theirs to rule.
#[must_use]
pub fn may_look_into(dispute: &dispute::Model, caller: &Caller) -> bool {
    let ruled = dispute.arbiter_id.is_some() && dispute.arbiter_id == caller.user_id();
    caller.is_arbiter() && (rules::is_open(dispute.status) || ruled)
}
