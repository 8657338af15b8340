//! A task's whole life: posting, award, work, settlement. It is the one path of everything that buys work, and the only place
//! where an auction, a channel, the work and the reputation change together.
//!
//! ```text
//! OPEN(hold B) ─ nobody eligible ─► EXPIRED(void B)      ─ cancelled ─► CANCELLED(void B)
//!   │ award: channel with price p, B − p back
//!   ▼
//! AWARDED ─ nobody starts ─► the next bid, at its own price, or EXPIRED(void p)
//!   │ claim
//!   ▼
//! RUNNING ─ accepted ─► COMPLETED(post p)      ─ failed ─► REFUNDED(void p)
//!   │ a result, with acceptance REVIEW
//!   ▼
//! SUBMITTED ─ accepted, or silence over verified work ─► COMPLETED(post p)      ─ silence over other work ─► REFUNDED(void p)
//!   │ a party disputes it
//!   ▼
//! DISPUTED ─ ruling x, or the verifiers' verdict ─► COMPLETED(post x, void p − x), or REFUNDED(void p) when x is nothing
//! ```
//!
//! Where a step leads, what it moves and what it says about the agent is decided by [`rules::next`] alone. What follows a result
//! that waits for its payer is in [`dispute`].
//!
//! What must always hold: a task that is not over holds money exactly once and has a deadline at which the sweeper alone can
//! finish it; a task that is over holds none; a payment, its result, its evidence and its events are one unit of work; nothing
//! leads out of a terminal state.

pub mod agreement;
pub mod desk;
pub mod dispute;
pub mod planning;
pub mod rules;
pub mod schema;
#[cfg(test)]
mod tests;

use std::time::Duration;

use entity::{
    agent, agent_module, auction,
    auction::{AwardMode, Visibility},
    bid, bond,
    channel::CloseReason,
    commitment, delegation,
    event::{self, Payload},
    execution,
    id::{AgentId, AuctionId, BidId, ChannelId, ExecutionId, HoldId, ModuleId, TaskId, UserId},
    money::{Amount, MAX_AMOUNT},
    reputation_event::Cause,
    task::{self, Acceptance, Priority, Purpose, Status},
    task_result::{self, Outcome},
    text::JsonText,
    time::Timestamp,
};
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, IntoActiveModel, QueryFilter,
    QueryOrder, QuerySelect,
};
use sha2::{Digest, Sha256};

use crate::{
    agent as agents, auction as auctions,
    auction::{
        Closing, NewBid, Win,
        reveal::{NewCommitment, Reveal},
        rules::AuctionRefused,
    },
    caller::{Caller, Scope},
    channel::{self as channels, Opening},
    document as documents,
    error::{Error, Result},
    ledger::{self, Purse},
    reputation::{self, Evidence},
    store::{Event, Work, failpoint},
    webhook::{self as webhooks, Told},
};
use rules::{Life, Step, TaskRefused, Turn};

pub use crate::auction::Terms as AuctionTerms;

/// What a requester wants done.
#[derive(Clone, Debug, serde::Serialize)]
pub struct NewTask {
    /// What people call it; 1 to 200 characters.
    pub title: String,
    /// What an agent must be able to do; one at least.
    pub capabilities: Vec<String>,
    /// What the agent reads, as JSON.
    pub input: serde_json::Value,
    /// What the output must satisfy.
    pub output_schema: Option<serde_json::Value>,
    /// The most that the requester pays.
    pub budget: Amount,
    /// The wall-clock limit of one attempt.
    pub timeout: Option<Duration>,
    /// How long a winner may take to start.
    pub start_timeout: Option<Duration>,
    /// How often the work is tried when the fault is ours.
    pub max_attempts: Option<i32>,
    /// Who says that the work is good.
    pub acceptance: Acceptance,
    /// How long the payer may look at a result; only with REVIEW.
    pub review_window: Option<Duration>,
    /// The module that says whether an output is good, see [`checker`].
    pub checker: Option<ModuleId>,
}

/// The module that a task pins when it names a hosted agent, whosever it is, as its checker: the one in use now. A paused agent
/// takes no work, but its module can still check.
pub async fn checker(work: &Work, agent: AgentId) -> Result<ModuleId> {
    let agent = agent::Entity::find_by_id(agent).one(work.tx()).await?;
    let there = agent.filter(|agent| match agent.status {
        agent::Status::Active | agent::Status::Paused => agent.runtime == agent::Runtime::Hosted,
        agent::Status::Retired => false,
    });
    there.and_then(|agent| agent.module_id).ok_or_else(|| TaskRefused::CheckerNotReady.into())
}

/// Posts a task, and awards it at once unless the terms give its auction time. The budget is held.
pub async fn execute(work: &mut Work, new: NewTask, terms: AuctionTerms) -> Result<task::Model> {
    post(work, new, terms).await.map(|(task, _)| task)
}

/// Posts a task and opens its auction. The same as [`execute`], seen from the auction.
pub async fn create_auction(work: &mut Work, new: NewTask, terms: AuctionTerms) -> Result<auction::Model> {
    post(work, new, terms).await.map(|(_, auction)| auction)
}

async fn post(work: &mut Work, new: NewTask, terms: AuctionTerms) -> Result<(task::Model, auction::Model)> {
    let requester_id = work.caller().with_scope(Scope::TasksWrite)?;
    if new.acceptance == Acceptance::Agreement {
        return Err(Error::invalid("acceptance", "AGREEMENT is for the steps of a delegation"));
    }
    let task = task::Model { requester_id, ..checked(work, new)? };
    // Boxed, here and below: an award keeps much on its way, and all that leads to one would carry it.
    Box::pin(open(work, task, terms)).await
}

/// Posts a task that a step of a delegation buys, out of what the delegation holds. The caller has locked the delegation.
pub async fn post_step(
    work: &mut Work,
    delegation: &delegation::Model,
    purpose: Purpose,
    new: NewTask,
    terms: AuctionTerms,
) -> Result<task::Model> {
    let (requester_id, priority) = (delegation.requester_id, delegation.priority);
    let delegation_id = Some(delegation.id);
    let task = task::Model { requester_id, priority, delegation_id, purpose, ..checked(work, new)? };
    Box::pin(open(work, task, terms)).await.map(|(task, _)| task)
}

/// Holds the budget of a new task and opens its auction.
async fn open(work: &mut Work, task: task::Model, terms: AuctionTerms) -> Result<(task::Model, auction::Model)> {
    terms.check(task.budget, work.terms())?;
    if let Some(checker) = task.checker_id {
        // SQLite has no reference here, because the column came later than the table.
        let module = agent_module::Entity::find_by_id(checker).one(work.tx()).await?;
        module.ok_or(TaskRefused::CheckerNotReady)?;
    }
    let least = work.terms().start_timeout;
    if terms.bid_bond.is_some() && i128::from(task.start_timeout_ms) < i128::try_from(least.as_millis()).unwrap_or(0) {
        // Who wins and does not start loses the bond, so there must be time to start.
        let least = least.as_secs();
        return Err(Error::invalid(
            "startTimeout",
            format!("must be at least {least} seconds where bidders put a bond down"),
        ));
    }

    let hold = ledger::hold_budget(work, Purse::of(&task), task.id, task.budget).await?;
    failpoint("task::held");
    let mut task = task::Model { hold_id: hold.id, ..task };
    work.record(about(&task, event::Kind::TaskPosted, Payload { amount: Some(task.budget), ..Payload::default() }));
    // The auction refers to the task, so the task is there first; its deadline is the auction's, which opens next.
    task::Entity::insert(task.clone().into_active_model().reset_all()).exec_without_returning(work.tx()).await?;
    let auction = auctions::open(work, &task, &terms).await?;
    task.deadline_at = auction.deadline_at;
    let at_once = terms.closes_in.is_none();
    if at_once || bidding_is_over(&auction) {
        // Boxed: a decision keeps much on its way, and every task that is posted would carry it.
        let (auction, task) = Box::pin(end_bidding(work, auction, task)).await?;
        return Ok((task, auction));
    }
    save(work, &task).await?;
    Ok((task, auction))
}

/// The row of a task as it is wanted, before it is known by whom and its money is held.
fn checked(work: &mut Work, new: NewTask) -> Result<task::Model> {
    let title = new.title.trim().to_owned();
    if title.is_empty() || title.chars().count() > 200 || title.chars().any(char::is_control) {
        return Err(Error::invalid("title", "must be 1 to 200 characters"));
    }
    let capabilities = agents::normalise_capabilities(new.capabilities, true)?;
    let input = serde_json::to_string(&new.input)?;
    if input.len() > work.terms().max_input_bytes {
        return Err(Error::invalid("input", format!("must be at most {} bytes of JSON", work.terms().max_input_bytes)));
    }
    let output_schema = match new.output_schema {
        Some(schema) => {
            schema::compile(&schema)?;
            Some(JsonText(schema.to_string()))
        }
        None => None,
    };
    if new.budget.is_zero() || new.budget > MAX_AMOUNT {
        return Err(Error::invalid("budget", "must be more than zero and at most 1000000000"));
    }
    let terms = work.terms().clone();
    let timeout = new.timeout.unwrap_or(terms.run_timeout);
    if timeout < Duration::from_millis(1) || timeout > terms.max_run_timeout {
        let most = terms.max_run_timeout.as_secs();
        return Err(Error::invalid("timeout", format!("must be between one millisecond and {most} seconds")));
    }
    let start_timeout = new.start_timeout.unwrap_or(terms.start_timeout);
    if start_timeout < Duration::from_secs(1) || start_timeout > Duration::from_hours(7 * 24) {
        return Err(Error::invalid("startTimeout", "must be between one second and seven days"));
    }
    let max_attempts = new.max_attempts.unwrap_or(terms.max_attempts);
    if !(1..=terms.max_attempts).contains(&max_attempts) {
        return Err(Error::invalid("maxAttempts", format!("must be between 1 and {}", terms.max_attempts)));
    }
    let review = match (new.acceptance, new.review_window) {
        (Acceptance::Automatic, None) => None,
        (Acceptance::Automatic, Some(_)) => {
            return Err(Error::invalid("reviewWindow", "is for tasks with the acceptance REVIEW"));
        }
        (Acceptance::Review | Acceptance::Agreement, window) => Some(window.unwrap_or(terms.review_window)),
    };
    let reviewed = review.filter(|_| new.acceptance == Acceptance::Review);
    if reviewed.is_some_and(|window| window < terms.min_review_window || window > terms.max_review_window) {
        let (least, most) = (terms.min_review_window.as_secs(), terms.max_review_window.as_secs());
        return Err(Error::invalid("reviewWindow", format!("must be between {least} and {most} seconds")));
    }
    let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    Ok(task::Model {
        id: work.fresh(),
        requester_id: UserId(uuid::Uuid::nil()),
        title,
        capabilities,
        input_sha256: hex::encode(Sha256::digest(input.as_bytes())),
        input: JsonText(input),
        output_schema,
        budget: new.budget,
        status: Status::Open,
        timeout_ms: millis(timeout),
        max_attempts,
        start_timeout_ms: millis(start_timeout),
        hold_id: HoldId(uuid::Uuid::nil()),
        bid_id: None,
        agent_id: None,
        channel_id: None,
        price: None,
        paid: None,
        deadline_at: Some(work.now()),
        failure_code: None,
        failure_message: None,
        created_at: work.now(),
        awarded_at: None,
        started_at: None,
        finished_at: None,
        acceptance: new.acceptance,
        review_ms: review.map(millis),
        verified: None,
        submitted_at: None,
        delegation_id: None,
        priority: Priority::Normal,
        purpose: Purpose::Work,
        checker_id: new.checker,
        charge: None,
    })
}

/// Whether an auction has all the bids that it waited for.
fn bidding_is_over(auction: &auction::Model) -> bool {
    auction.close_after_bids.is_some_and(|enough| auctions::rules::standing(auction) >= enough)
}

/// Puts a bid into an auction, and decides the auction if that was the last bid it waited for.
pub async fn submit_bid(work: &mut Work, offer: NewBid) -> Result<bid::Model> {
    work.caller().with_scope(Scope::BidsWrite)?;
    let auction = auctions::lock(work, offer.auction).await?;
    let task = lock(work, auction.task_id).await?;
    let (auction, bid) = auctions::submit_bid(work, auction, offer).await?;
    if bidding_is_over(&auction) {
        end_bidding(work, auction, task).await?;
        return auctions::reveal::bid_now(work, bid.id).await;
    }
    if task.deadline_at != auction.deadline_at {
        save(work, &task::Model { deadline_at: auction.deadline_at, ..task }).await?;
    }
    Ok(bid)
}

/// Commits an agent to a bid, and begins the reveals if that was the last commitment that the auction waited for.
pub async fn commit_bid(work: &mut Work, new: NewCommitment) -> Result<commitment::Model> {
    work.caller().with_scope(Scope::BidsWrite)?;
    let auction = auctions::lock(work, new.auction).await?;
    let task = lock(work, auction.task_id).await?;
    let (auction, commitment) = auctions::reveal::commit_bid(work, auction, new).await?;
    if bidding_is_over(&auction) {
        end_bidding(work, auction, task).await?;
    }
    Ok(commitment)
}

/// Reveals a bid, and decides the auction if no other one is missing.
pub async fn reveal_bid(work: &mut Work, told: Reveal) -> Result<bid::Model> {
    work.caller().with_scope(Scope::BidsWrite)?;
    let auction = auctions::lock(work, told.auction).await?;
    let task = lock(work, auction.task_id).await?;
    let (auction, bid, missing) = auctions::reveal::reveal_bid(work, auction, told).await?;
    if missing {
        return Ok(bid);
    }
    choose(work, auction, task).await?;
    auctions::reveal::bid_now(work, bid.id).await
}

/// The close: bids that are only committed to are revealed first, if there are any; the others are chosen from.
async fn end_bidding(
    work: &mut Work,
    auction: auction::Model,
    task: task::Model,
) -> Result<(auction::Model, task::Model)> {
    match (auction.visibility, auction.commitment_count) {
        (Visibility::Sealed | Visibility::Open, _) => choose(work, auction, task).await,
        (Visibility::CommitReveal, 0) => expire_auction(work, auction, task).await,
        (Visibility::CommitReveal, _) => {
            let auction = auctions::reveal::begin(work, auction).await?;
            postpone(work, auction, task).await
        }
    }
}

/// The best bid wins, or the task expires; in an auction that is awarded by hand the time for that begins.
async fn choose(work: &mut Work, auction: auction::Model, task: task::Model) -> Result<(auction::Model, task::Model)> {
    match auction.award_mode {
        AwardMode::Automatic => {
            let bonds = auctions::bond::lock_to_decide(work, &auction, Purse::of(&task)).await?;
            if let Some(win) = auctions::decide(work, &auction, None).await? {
                return award_to(work, auction, task, &win, bonds).await;
            }
            auctions::bond::decided(work, &auction, bonds, None).await?;
            expire_auction(work, auction, task).await
        }
        AwardMode::Manual => {
            let auction = auctions::await_award(work, auction).await?;
            postpone(work, auction, task).await
        }
    }
}

/// Gives the task of an auction that goes on the auction's deadline.
async fn postpone(work: &Work, auction: auction::Model, task: task::Model) -> Result<(auction::Model, task::Model)> {
    let task = task::Model { deadline_at: auction.deadline_at, ..task };
    save(work, &task).await?;
    Ok((auction, task))
}

/// Awards an auction by hand: to the named bid, or to the best one.
pub async fn award(work: &mut Work, id: AuctionId, chosen: Option<BidId>) -> Result<auction::Model> {
    let requester = work.caller().with_scope(Scope::TasksWrite)?;
    let auction = auctions::lock(work, id).await?;
    if auction.requester_id != requester {
        return Err(Error::NotFound("auction"));
    }
    if !matches!(auction.status, auction::Status::Open | auction::Status::Revealing) {
        return Err(AuctionRefused::AuctionNotOpen.into());
    }
    if auction.award_mode != AwardMode::Manual {
        return Err(AuctionRefused::AwardIsAutomatic.into());
    }
    let reveals = auction.visibility == Visibility::CommitReveal;
    if reveals && (auction.status == auction::Status::Open || auctions::reveal::are_missing(work, id).await?) {
        return Err(AuctionRefused::BidsNotRevealed.into());
    }
    let task = lock(work, auction.task_id).await?;
    let bonds = auctions::bond::lock_to_decide(work, &auction, Purse::of(&task)).await?;
    let win = auctions::decide(work, &auction, chosen).await?.ok_or(AuctionRefused::NoEligibleBid)?;
    award_to(work, auction, task, &win, bonds).await.map(|(auction, _)| auction)
}

/// Closes an auction whose time has come, or ends its reveals. Answers whether there was anything to do.
pub async fn close_due(work: &mut Work, id: AuctionId) -> Result<bool> {
    let auction = auctions::lock(work, id).await?;
    if auction.deadline_at.is_none_or(|deadline| deadline > work.now()) {
        return Ok(false);
    }
    let task = lock(work, auction.task_id).await?;
    match (auction.status, auction.award_mode) {
        (auction::Status::Open, AwardMode::Automatic) => end_bidding(work, auction, task).await?,
        (auction::Status::Open, AwardMode::Manual) if auction.visibility == Visibility::CommitReveal => {
            end_bidding(work, auction, task).await?
        }
        (auction::Status::Revealing, AwardMode::Automatic) => {
            auctions::reveal::end(work, &auction).await?;
            choose(work, auction, task).await?
        }
        // While reveals are missing this is the end of their time; then it is the end of the time for the award.
        (auction::Status::Revealing, AwardMode::Manual) if auctions::reveal::end(work, &auction).await? => {
            choose(work, auction, task).await?
        }
        (auction::Status::Open | auction::Status::Revealing, AwardMode::Manual) => {
            expire_auction(work, auction, task).await?
        }
        (auction::Status::Awarded | auction::Status::Expired | auction::Status::Cancelled, _) => return Ok(false),
    };
    Ok(true)
}

async fn award_to(
    work: &mut Work,
    auction: auction::Model,
    task: task::Model,
    win: &Win,
    bonds: Vec<bond::Model>,
) -> Result<(auction::Model, task::Model)> {
    let channel: ChannelId = work.fresh();
    let hold = ledger::award(work, task.hold_id, Purse::of(&task), task.id, channel, win.price).await?;
    auctions::bond::decided(work, &auction, bonds, Some(win.agent.id)).await?;
    let auction = auctions::close(work, auction, Closing::Awarded(win)).await?;
    let task = Box::pin(assign(work, task, win, channel, &hold)).await?;
    documents::certify(work, &auction).await?;
    Ok((auction, task))
}

/// Gives a task to a winner: its channel over a held deposit, its execution, its deadline for the start.
async fn assign(
    work: &mut Work,
    task: task::Model,
    win: &Win,
    channel: ChannelId,
    hold: &entity::hold::Model,
) -> Result<task::Model> {
    let now = work.now();
    let start_by = now.after(Duration::from_millis(u64::try_from(task.start_timeout_ms).unwrap_or(0)));
    let limit = rules::hard_limit(&task, 1, work.terms().lease, work.terms().retry_base);
    let review = rules::review_limit(&task, work.terms().evidence_window, work.terms().ruling_window);
    let opening = Opening {
        id: channel,
        task: &task,
        agent: win.agent.id,
        owner: win.agent.owner_id,
        hold,
        expires_at: start_by.after(limit).after(review),
    };
    channels::open_escrow(work, opening).await?;
    let row = execution::ActiveModel {
        id: Set(work.fresh()),
        task_id: Set(task.id),
        agent_id: Set(win.agent.id),
        module_id: Set(win.agent.module_id),
        status: Set(execution::Status::Ready),
        attempts: Set(0),
        token: Set(0),
        worker: Set(None),
        leased_until: Set(None),
        run_at: Set(now),
        error_code: Set(None),
        created_at: Set(now),
        started_at: Set(None),
        finished_at: Set(None),
        queue_at: Set(rules::queue_at(task.priority, now)),
    };
    execution::Entity::insert(row).exec_without_returning(work.tx()).await?;
    let task = task::Model {
        status: step(&task, Step::Award(win.price))?.life.status,
        bid_id: Some(win.bid.id),
        agent_id: Some(win.agent.id),
        channel_id: Some(channel),
        price: Some(win.price),
        deadline_at: Some(start_by),
        awarded_at: Some(now),
        ..task
    };
    save(work, &task).await?;
    offer(work, &task, &win.agent, 0).await?;
    Ok(task)
}

/// Tells an agent that runs elsewhere that it may claim its work, which was claimed `claims` times before. Hosted work is found by the
/// workers without being told.
pub async fn offer(work: &mut Work, task: &task::Model, agent: &agent::Model, claims: i32) -> Result<()> {
    match agent.runtime {
        agent::Runtime::Hosted => Ok(()),
        agent::Runtime::External => {
            let payload = Payload {
                amount: task.price,
                attempt: Some(claims.saturating_add(1)),
                runtime: Some(agent.runtime),
                ..Payload::default()
            };
            work.record(about_work(task, agent, event::Kind::WorkOffered, payload));
            webhooks::tell(work, agent, task, Told::WorkOffered).await
        }
    }
}

async fn expire_auction(
    work: &mut Work,
    auction: auction::Model,
    task: task::Model,
) -> Result<(auction::Model, task::Model)> {
    let bonds = auctions::bond::lock(work, &auction).await?;
    let returned = ledger::release_budget(work, task.hold_id, Purse::of(&task), task.id).await?;
    auctions::bond::called_off(work, bonds).await?;
    let auction = auctions::close(work, auction, Closing::Expired).await?;
    let why = ("NO_ELIGIBLE_BID", "No eligible bid was made.");
    let turn = step(&task, Step::Expire)?;
    let task = finish(work, task, None, &turn, Some(why)).await?;
    record_end(work, &task, None, event::Kind::TaskExpired, returned, Payload::default());
    Ok((auction, task))
}

/// Withdraws a task while its auction is open; the whole budget goes back.
pub async fn cancel(work: &mut Work, id: TaskId) -> Result<task::Model> {
    let requester = work.caller().with_scope(Scope::TasksWrite)?;
    let auction = auctions::lock_of_task(work, id).await?;
    call_off(work, requester, auction, "task").await.map(|(task, _)| task)
}

/// Calls an auction off while it is open. The same as [`cancel`], seen from the auction.
pub async fn cancel_auction(work: &mut Work, id: AuctionId) -> Result<auction::Model> {
    let requester = work.caller().with_scope(Scope::TasksWrite)?;
    let auction = auctions::lock(work, id).await?;
    call_off(work, requester, auction, "auction").await.map(|(_, auction)| auction)
}

async fn call_off(
    work: &mut Work,
    requester: UserId,
    auction: auction::Model,
    noun: &'static str,
) -> Result<(task::Model, auction::Model)> {
    if auction.requester_id != requester {
        return Err(Error::NotFound(noun));
    }
    let task = lock(work, auction.task_id).await?;
    withdraw(work, auction, task, "The requester cancelled the task.").await
}

/// Calls off a task of a step while its auction is open, because the step does not need it any more. For the program itself.
/// Answers whether it was open.
pub async fn call_off_step(work: &mut Work, id: TaskId) -> Result<bool> {
    if *work.caller() != Caller::System {
        return Err(Error::Forbidden("The tasks of steps are called off by the service itself."));
    }
    let auction = auctions::lock_of_task(work, id).await?;
    let task = lock(work, id).await?;
    if task.status != Status::Open || task.delegation_id.is_none() {
        return Ok(false);
    }
    withdraw(work, auction, task, "The delegation does not need the task any more.").await?;
    Ok(true)
}

async fn withdraw(
    work: &mut Work,
    auction: auction::Model,
    task: task::Model,
    why: &str,
) -> Result<(task::Model, auction::Model)> {
    let turn = rules::next(&Life::of(&task, None), Step::Cancel).ok_or(TaskRefused::TaskNotOpen)?;
    let bonds = auctions::bond::lock(work, &auction).await?;
    let returned = ledger::release_budget(work, task.hold_id, Purse::of(&task), task.id).await?;
    auctions::bond::called_off(work, bonds).await?;
    let auction = auctions::close(work, auction, Closing::Cancelled).await?;
    let task = finish(work, task, None, &turn, Some(("CANCELLED", why))).await?;
    record_end(work, &task, None, event::Kind::TaskCancelled, returned, Payload::default());
    Ok((task, auction))
}

/// Marks a locked task as running from a claim on: the sweeper ends it when every attempt must be over. A winner that starts has
/// kept its word and gets its bond back.
pub async fn start(work: &mut Work, task: task::Model, agent: &agent::Model, attempt: i32) -> Result<task::Model> {
    if task.status == Status::Awarded {
        auctions::bond::kept_word(work, task.id).await?;
    }
    let limit = rules::hard_limit(&task, attempt, work.terms().lease, work.terms().retry_base);
    let task = task::Model {
        status: step(&task, Step::Start)?.life.status,
        started_at: task.started_at.or(Some(work.now())),
        deadline_at: Some(work.now().after(limit)),
        ..task
    };
    save(work, &task).await?;
    let payload = Payload { attempt: Some(attempt), runtime: Some(agent.runtime), ..Payload::default() };
    work.record(about_work(&task, agent, event::Kind::TaskStarted, payload));
    Ok(task)
}

/// What the last attempt used.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    pub fuel: u64,
    pub peak_memory_bytes: u64,
    pub wall: Duration,
}

/// What a worker brings back of a task.
#[derive(Clone, Debug)]
pub struct Report {
    pub execution: ExecutionId,
    /// The output that the verifiers accepted, or the fault.
    pub outcome: std::result::Result<JsonText, Fault>,
    /// What the task's checker said, if there is one and it came to a word.
    pub check: Option<Check>,
    /// What the agent wrote to standard error.
    pub logs: String,
    pub usage: Usage,
    /// SHA-256 of the module that ran, in lower-case hex.
    pub module_sha256: Option<String>,
}

/// What a checker says of an output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    pub passed: bool,
    /// In the checker's words, of which the first ones are kept.
    pub reason: Option<String>,
}

/// Why work was not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// A stable code, for example `OUT_OF_FUEL`.
    pub code: String,
    /// A sentence for people.
    pub message: String,
    /// Whether the agent is to blame. When it is not, its reputation does not move.
    pub of_agent: bool,
    /// What the agent answered, where it was the verifiers alone that refused it: a payer who reviews may still want it.
    pub output: Option<JsonText>,
}

/// Ends the work on a locked, running task by what came of it, all in this unit of work. The agent is paid or the payer refunded,
/// the result is stored, the reputation moves; where the payer reviews, the result is stored and waits.
pub async fn settle(work: &mut Work, task: task::Model, agent: &agent::Model, report: Report) -> Result<task::Model> {
    let bid = winning_bid(work, &task).await?;
    let charge = charge(&task, &bid, report.usage.fuel)?;
    let turn = step(
        &task,
        match &report.outcome {
            Ok(_) => Step::Submit(true, charge),
            Err(fault) if fault.output.is_some() => Step::Submit(false, charge),
            Err(fault) => Step::Fail(fault.of_agent),
        },
    )?;
    let fault = report.outcome.as_ref().err().map(|fault| (fault.code.clone(), fault.message.clone()));
    let came = turn.life.verified.map(|_| work.now());
    let task = task::Model { verified: turn.life.verified, charge: turn.life.charge, submitted_at: came, ..task };
    let wall = report.usage.wall;
    store_result(work, &task, agent, report, &turn).await?;
    let why = fault.as_ref().map(|(code, message)| (code.as_str(), message.as_str()));
    if turn.life.status == Status::Submitted {
        return submit(work, task, agent, why, wall).await;
    }
    // Boxed, here and where disputes end: a settlement keeps much on its way, and all that leads to one would carry it.
    Box::pin(conclude(work, task, (agent, &bid), &turn, why, wall)).await
}

/// The bid by which a task was won.
async fn winning_bid(work: &Work, task: &task::Model) -> Result<bid::Model> {
    let won = task.bid_id.ok_or_else(|| Error::internal("work on a task that nobody won"))?;
    let bid = bid::Entity::find_by_id(won).one(work.tx()).await?;
    bid.ok_or_else(|| Error::internal("the winning bid of a task vanished"))
}

/// What the result of a task is charged if the price of the bid that won it is metered.
fn charge(task: &task::Model, bid: &bid::Model, fuel: u64) -> Result<Option<Amount>> {
    let price = task.price.ok_or_else(|| Error::internal("work on a task that nobody won"))?;
    Ok(bid.fuel_price.map(|fuel_price| auctions::rules::metered(price, fuel, fuel_price)))
}

/// Puts a result before the payer, who has a window to accept or reject it.
async fn submit(
    work: &mut Work,
    task: task::Model,
    agent: &agent::Model,
    why: Option<(&str, &str)>,
    wall: Duration,
) -> Result<task::Model> {
    let until = work.now().after(rules::review_window(&task));
    let task = task::Model { status: Status::Submitted, deadline_at: Some(until), ..task };
    save(work, &task).await?;
    let payload = Payload {
        amount: task.charge.or(task.price),
        runtime: Some(agent.runtime),
        reason: why.map(|(code, _)| code.to_owned()),
        duration_us: i64::try_from(wall.as_micros()).ok(),
        ..Payload::default()
    };
    work.record(about_work(&task, agent, event::Kind::TaskSubmitted, payload));
    Ok(task)
}

/// Settles a locked task of which there is a winner, as a step says: its channel pays and gives back, the reputation moves, the
/// task is over. `wall` is how long the work took.
async fn conclude(
    work: &mut Work,
    task: task::Model,
    (agent, bid): (&agent::Model, &bid::Model),
    turn: &Turn,
    why: Option<(&str, &str)>,
    wall: Duration,
) -> Result<task::Model> {
    let price = task.price.ok_or_else(|| Error::internal("a settled task without a price"))?;
    let channel = task.channel_id.ok_or_else(|| Error::internal("a settled task without a channel"))?;
    let (paid, succeeded) = (turn.flow.paid, turn.life.status == Status::Completed);
    work.settling();
    let reason = if succeeded { CloseReason::Settled } else { CloseReason::Refunded };
    let settled = channels::settle(work, channel, (Purse::of(&task), agent.owner_id), paid, reason).await?;
    failpoint("task::paid");
    if let Some(cause) = turn.evidence {
        let evidence = Evidence {
            task: &task,
            agent,
            cause,
            // What good work is paid weighs it. Work that failed weighs its whole price: a quick failure is not a small one.
            amount: if cause == Cause::Failure { price } else { task.charge.unwrap_or(price) },
            worked: succeeded.then_some(wall),
            promised: bid.promised_ms.map(|millis| Duration::from_millis(u64::try_from(millis).unwrap_or(0))),
            paid,
        };
        reputation::record_outcome(work, evidence).await?;
    }
    let why = why.filter(|_| !succeeded);
    let task = finish(work, task, Some(bid), turn, why).await?;
    let (kind, told) = if succeeded {
        (event::Kind::TaskCompleted, Told::TaskCompleted)
    } else {
        (event::Kind::TaskRefunded, Told::TaskRefunded)
    };
    webhooks::tell(work, agent, &task, told).await?;
    let payload = Payload {
        amount: Some(paid),
        fee: Some(settled.fee),
        runtime: Some(agent.runtime),
        duration_us: i64::try_from(wall.as_micros()).ok(),
        waited_us: task.submitted_at.and_then(|came| i64::try_from(work.now().since(came).as_micros()).ok()),
        ..Payload::default()
    };
    record_end(work, &task, Some(agent), kind, settled.returned, payload);
    Ok(task)
}

async fn store_result(
    work: &Work,
    task: &task::Model,
    agent: &agent::Model,
    report: Report,
    turn: &Turn,
) -> Result<()> {
    let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let waits = turn.life.status == Status::Submitted;
    let (outcome, output, fault) = match report.outcome {
        Ok(output) => (Outcome::Succeeded, Some(output), None),
        // What the verifiers refuse is kept where the payer decides.
        Err(Fault { output: Some(output), code, message, .. }) if waits => {
            (Outcome::Succeeded, Some(output), Some((code, message)))
        }
        Err(fault) => (Outcome::Failed, None, Some((fault.code, fault.message))),
    };
    let (fault_code, fault_message) = fault.unzip();
    let check = report.check.map(|Check { passed, reason }| (passed, reason));
    let (check_passed, check_reason) = check.unzip();
    let row = task_result::ActiveModel {
        task_id: Set(task.id),
        execution_id: Set(report.execution),
        agent_id: Set(agent.id),
        outcome: Set(outcome),
        output_sha256: Set(output.as_ref().map(|output| hex::encode(Sha256::digest(output.0.as_bytes())))),
        output: Set(output),
        logs: Set(report.logs),
        fault_code: Set(fault_code),
        fault_message: Set(fault_message),
        fuel: Set(count(report.usage.fuel)),
        peak_memory_bytes: Set(count(report.usage.peak_memory_bytes)),
        wall_us: Set(i64::try_from(report.usage.wall.as_micros()).unwrap_or(i64::MAX)),
        module_sha256: Set(report.module_sha256),
        input_sha256: Set(task.input_sha256.clone()),
        cost: Set(turn.flow.paid),
        check_passed: Set(check_passed),
        check_reason: Set(check_reason.flatten()),
        created_at: Set(work.now()),
    };
    task_result::Entity::insert(row).exec_without_returning(work.tx()).await?;
    Ok(())
}

/// Rates the agent of a completed task, see [`reputation::rate`], and says so in the next version of its receipt.
pub async fn rate(work: &mut Work, new: reputation::NewRating) -> Result<entity::rating::Model> {
    let rating = reputation::rate(work, new).await?;
    documents::add_rating(work, &rating).await?;
    Ok(rating)
}

/// Takes an awarded task away from a winner that did not start in time: its deposit goes back, and the next bid that the payer can
/// afford takes over at its own price, without a new auction. Answers whether there was anything to do.
pub async fn reassign_due(work: &mut Work, id: TaskId) -> Result<bool> {
    let auction = auctions::lock_of_task(work, id).await?;
    let task = lock(work, id).await?;
    let due = task.deadline_at.is_some_and(|deadline| deadline <= work.now());
    if task.status != Status::Awarded || !due {
        return Ok(false);
    }
    let (Some(channel), Some(bid), Some(agent_id)) = (task.channel_id, task.bid_id, task.agent_id) else {
        return Err(Error::internal("an awarded task without a winner"));
    };
    let agent = agent_row(work, agent_id).await?;
    let waiting = execution::Entity::find()
        .filter(execution::Column::TaskId.eq(id))
        .filter(execution::Column::Status.eq(execution::Status::Ready))
        .one(work.tx())
        .await?
        .ok_or_else(|| Error::internal("an awarded task without an execution"))?;
    let mut row = waiting.into_active_model();
    row.status = Set(execution::Status::Forfeited);
    row.finished_at = Set(Some(work.now()));
    row.update_without_returning(work.tx()).await?;
    auctions::bond::lock(work, &auction).await?;
    let payer = Purse::of(&task);
    let settled =
        channels::settle(work, channel, (payer, agent.owner_id), Amount::ZERO, CloseReason::Forfeited).await?;
    auctions::bond::not_started(work, &task, agent.runtime == agent::Runtime::External).await?;
    let balance = payer.balance(work.tx()).await?;
    let next = auctions::runners_up(work, &auction).await?.into_iter().find(|win| win.price.micros() <= balance);
    let blamed = agent.runtime == agent::Runtime::External;
    if blamed {
        // Settlements lock the evidence about an agent before the agent.
        reputation::lock(work, agent.id).await?;
    }
    agents::lock_in_order(work, [agent.id].into_iter().chain(next.as_ref().map(|win| win.agent.id))).await?;
    if blamed {
        // A hosted agent waits for our executor, so that it did not start is no evidence about it.
        let amount = task.price.unwrap_or(Amount::ZERO);
        let evidence = Evidence {
            task: &task,
            agent: &agent,
            cause: Cause::Timeout,
            amount,
            worked: None,
            promised: None,
            paid: Amount::ZERO,
        };
        reputation::record_outcome(work, evidence).await?;
    }
    agents::let_go(work, agent.id).await?;
    if let Some(win) = &next
        && !agents::take_up(work, win.agent.id).await?
    {
        // It had room when it was chosen. Others may be locked in no order any more, so this is tried again from the start.
        return Err(Error::Unavailable("The next bidder was given other work just now; try again."));
    }
    let auction = auctions::replace_winner(work, auction, bid, next.as_ref()).await?;
    let Some(win) = next else {
        let why = ("NO_AGENT_STARTED", "No agent started the work in time.");
        let turn = step(&task, Step::Expire)?;
        let bid = winning_bid(work, &task).await?;
        let task = finish(work, task, Some(&bid), &turn, Some(why)).await?;
        record_end(work, &task, Some(&agent), event::Kind::TaskExpired, settled.returned, Payload::default());
        return Ok(true);
    };
    let channel: ChannelId = work.fresh();
    let hold = ledger::hold_deposit(work, payer, task.id, channel, win.price).await?;
    let task = Box::pin(assign(work, task, &win, channel, &hold)).await?;
    documents::certify(work, &auction).await?;
    let payload = Payload { amount: Some(win.price), bid_id: Some(win.bid.id), ..Payload::default() };
    work.record(about_work(&task, &win.agent, event::Kind::TaskReassigned, payload));
    Ok(true)
}

/// Tasks whose deadline is over at `now`, earliest first; those that are open end with their auctions.
pub async fn due(db: &impl ConnectionTrait, now: Timestamp, limit: u64) -> Result<Vec<(TaskId, Status)>> {
    Ok(task::Entity::find()
        .select_only()
        .columns([task::Column::Id, task::Column::Status])
        .filter(task::Column::DeadlineAt.lte(now))
        .filter(task::Column::Status.is_in([Status::Awarded, Status::Running, Status::Submitted, Status::Disputed]))
        .order_by_asc(task::Column::DeadlineAt)
        .limit(limit)
        .into_tuple()
        .all(db)
        .await?)
}

/// The task, locked until the unit of work ends.
pub async fn lock(work: &Work, id: TaskId) -> Result<task::Model> {
    let found = task::Entity::find_by_id(id).lock_exclusive().one(work.tx()).await?;
    work.got_lock();
    if let Some(task) = &found {
        work.not_before(rules::newest(task));
    }
    found.ok_or(Error::NotFound("task"))
}

/// Whether `caller` may see what a task is about: its requester, the owner of the agent that does it, administrators.
#[must_use]
pub fn may_see(task: &task::Model, agent: Option<&agent::Model>, caller: &Caller) -> bool {
    let user = caller.user_id();
    let requester = user == Some(task.requester_id);
    let worker = agent.is_some_and(|agent| task.agent_id == Some(agent.id) && user == Some(agent.owner_id));
    requester || worker || caller.is_admin()
}

async fn agent_row(work: &Work, id: AgentId) -> Result<agent::Model> {
    agent::Entity::find_by_id(id).one(work.tx()).await?.ok_or_else(|| Error::internal("a task's agent vanished"))
}

fn step(task: &task::Model, step: Step) -> Result<Turn> {
    rules::next(&Life::of(task, None), step)
        .ok_or_else(|| Error::internal(format!("{} is {}: it cannot {step:?}", task.id, task.status.name())))
}

async fn finish(
    work: &mut Work,
    task: task::Model,
    won: Option<&bid::Model>,
    turn: &Turn,
    why: Option<(&str, &str)>,
) -> Result<task::Model> {
    let task = task::Model {
        status: turn.life.status,
        paid: task.price.map(|_| turn.flow.paid),
        deadline_at: None,
        finished_at: Some(rules::end_of(&task, work.now())),
        failure_code: why.map(|(code, _)| code.to_owned()),
        failure_message: why.map(|(_, message)| message.to_owned()),
        ..task
    };
    save(work, &task).await?;
    if let Some(bid) = won {
        documents::give_receipt(work, &task, bid).await?;
    }
    Ok(task)
}

fn record_end(
    work: &mut Work,
    task: &task::Model,
    agent: Option<&agent::Model>,
    kind: event::Kind,
    returned: Amount,
    payload: Payload,
) {
    let reason = payload.reason.or_else(|| task.failure_code.clone());
    let payload = Payload { returned: Some(returned), reason, ..payload };
    let event = match agent {
        Some(agent) => about_work(task, agent, kind, payload),
        None => about(task, kind, payload),
    };
    work.record(event);
}

async fn save(work: &Work, task: &task::Model) -> Result<()> {
    let mut row = task.clone().into_active_model();
    row.status = Set(task.status);
    row.bid_id = Set(task.bid_id);
    row.agent_id = Set(task.agent_id);
    row.channel_id = Set(task.channel_id);
    row.price = Set(task.price);
    row.paid = Set(task.paid);
    row.deadline_at = Set(task.deadline_at);
    row.failure_code = Set(task.failure_code.clone());
    row.failure_message = Set(task.failure_message.clone());
    row.awarded_at = Set(task.awarded_at);
    row.started_at = Set(task.started_at);
    row.finished_at = Set(task.finished_at);
    row.verified = Set(task.verified);
    row.submitted_at = Set(task.submitted_at);
    row.charge = Set(task.charge);
    row.update_without_returning(work.tx()).await?;
    Ok(())
}

fn about(task: &task::Model, kind: event::Kind, payload: Payload) -> Event {
    Event {
        task_id: Some(task.id),
        delegation_id: task.delegation_id,
        payer_id: Some(task.requester_id),
        ..Event::new(kind, payload)
    }
}

/// An event about the work that an agent does on a task.
pub fn about_work(task: &task::Model, agent: &agent::Model, kind: event::Kind, payload: Payload) -> Event {
    Event {
        agent_id: Some(agent.id),
        owner_id: Some(agent.owner_id),
        channel_id: task.channel_id,
        ..about(task, kind, payload)
    }
}
