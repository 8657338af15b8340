//! The rules of a task's life.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::time::Duration;

use entity::{
    dispute, evidence,
    money::Amount,
    reputation_event::Cause,
    task::{self, Acceptance, Priority, Status},
    time::Timestamp,
};
use url::Url;

use crate::error::refusals;

refusals! {
    /// Why a task does not do what it is asked.
    TaskRefused {
        /// Only a task whose auction is open can be cancelled.
        TaskNotOpen = "The task is not open any more; it was awarded or has ended.",
        /// The worker's fencing token is not the newest: somebody else has claimed the work, or it has ended.
        LeaseLost = "The work was claimed by somebody else or has ended; this result does not count.",
        /// A checker is a hosted agent with a module.
        CheckerNotReady = "The checker is not a hosted agent with a module, or it is retired.",
    }
}

refusals! {
    /// Why a result is neither accepted nor disputed, in the order in which it is checked.
    ReviewRefused {
        /// There is no result yet, it needs no review, or it was accepted, disputed or settled before.
        TaskNotSubmitted = "The task has no result that waits for the payer's word.",
        /// The window is over; silence has decided, even if nobody noticed yet.
        ReviewOver = "The time for reviewing this result is over.",
    }
}

refusals! {
    /// Why a dispute takes neither evidence nor a ruling, in the order in which it is checked.
    DisputeRefused {
        /// An arbiter must be nobody's friend.
        ArbiterIsParty = "A party cannot rule its own dispute.",
        /// It was ruled before, or its time is over.
        DisputeOver = "The dispute is over.",
        /// The parties still have time, and one of them has shown nothing yet.
        EvidenceStageOpen = "The parties may still show evidence; rule when both have, or when their time is over.",
        /// There is no more to share out than what good work is paid: the price, or what was metered.
        AwardAbovePrice = "The award is above the price of the task.",
        /// Too late for evidence.
        EvidenceClosed = "The time for evidence is over.",
        /// The same body from the same party.
        EvidenceRepeated = "You have shown this before.",
        /// A party may show a bounded number of pieces.
        TooMuchEvidence = "You have shown as much as one party may.",
    }
}

/// What of a task decides what may happen to it next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Life {
    pub status: Status,
    pub acceptance: Acceptance,
    pub budget: Amount,
    /// The most that the present winner is paid for good work; it is what is held for it.
    pub price: Option<Amount>,
    /// What it is paid for good work where the price is metered; empty before there is a result.
    pub charge: Option<Amount>,
    /// Whether the verifiers passed the result; empty before there is one.
    pub verified: Option<bool>,
    /// The stage of its dispute; empty before there is one.
    pub dispute: Option<dispute::Status>,
}

impl Life {
    /// The life of a task of which there is no dispute, or whose dispute does not matter to the step.
    #[must_use]
    pub fn of(task: &task::Model, dispute: Option<&dispute::Model>) -> Self {
        Self {
            status: task.status,
            acceptance: task.acceptance,
            budget: task.budget,
            price: task.price,
            charge: task.charge,
            verified: task.verified,
            dispute: dispute.map(|dispute| dispute.status),
        }
    }

    /// What good work is paid: what was metered, or the price.
    #[must_use]
    pub fn due(&self) -> Option<Amount> {
        self.charge.or(self.price)
    }
}

/// The newest instant in the history of a task.
#[must_use]
pub fn newest(task: &task::Model) -> Timestamp {
    let later = [task.awarded_at, task.started_at, task.submitted_at, task.finished_at];
    later.into_iter().flatten().fold(task.created_at, Timestamp::max)
}

/// What can happen to a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// An agent won for this price, or took over from a winner that did not start.
    Award(Amount),
    /// A worker claimed the work, the first time or again.
    Start,
    /// A result came; says whether the verifiers passed it, and what it is charged if the price is metered.
    Submit(bool, Option<Amount>),
    /// No result came: the guest or our attempts were at fault, or there was no more time. Says whether the agent is to blame.
    Fail(bool),
    /// The payer is content with the result.
    Accept,
    /// A party disputes the result.
    Dispute,
    /// An arbiter gives the agent this much of what good work is paid.
    Rule(Amount),
    /// The deadline is over and nobody did what was waited for.
    Expire,
    /// Enough other agents gave another result.
    Disagree,
    /// The requester does not want it any more.
    Cancel,
}

/// What a step means for the money of a task. Whatever leaves a hold resolves it, all of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flow {
    /// What the agent gets, the platform's fee included.
    pub paid: Amount,
    /// What goes back to the payer.
    pub returned: Amount,
    /// What goes from the hold on the budget into a new one, the deposit for the winner.
    pub carried: Amount,
    /// What the payer puts into a new deposit, because the one before it went back.
    pub deposited: Amount,
}

/// Where a step leads, what it moves and what it says about the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Turn {
    pub life: Life,
    pub flow: Flow,
    /// The evidence about the agent's work; empty when nothing is known, or nobody is to blame.
    pub evidence: Option<Cause>,
}

/// Where a step leads, or nothing when it is not possible. Everything that happens to a task goes through here.
#[must_use]
pub fn next(life: &Life, step: Step) -> Option<Turn> {
    match life.status {
        Status::Open => match step {
            Step::Award(price) => award(life, price),
            Step::Expire => Some(give_back(life, Status::Expired, life.budget)),
            Step::Cancel => Some(give_back(life, Status::Cancelled, life.budget)),
            Step::Start
            | Step::Submit(..)
            | Step::Fail(_)
            | Step::Accept
            | Step::Disagree
            | Step::Dispute
            | Step::Rule(_) => None,
        },
        Status::Awarded => match step {
            Step::Award(price) => take_over(life, price),
            Step::Start => Some(quiet(Life { status: Status::Running, ..*life })),
            Step::Expire => Some(give_back(life, Status::Expired, life.price?)),
            Step::Submit(..)
            | Step::Fail(_)
            | Step::Accept
            | Step::Disagree
            | Step::Dispute
            | Step::Rule(_)
            | Step::Cancel => None,
        },
        Status::Running => match step {
            Step::Start => Some(quiet(*life)),
            Step::Submit(_, Some(charge)) if charge.is_zero() || charge > life.price? => None,
            Step::Submit(verified, charge) => {
                let life = Life { verified: Some(verified), charge, ..*life };
                match life.acceptance {
                    Acceptance::Automatic => by_verdict(&life),
                    Acceptance::Agreement if !verified => by_verdict(&life),
                    Acceptance::Review | Acceptance::Agreement => {
                        Some(quiet(Life { status: Status::Submitted, ..life }))
                    }
                }
            }
            Step::Fail(of_agent) => share_out(life, Amount::ZERO, of_agent.then_some(Cause::Failure)),
            Step::Award(_)
            | Step::Accept
            | Step::Disagree
            | Step::Dispute
            | Step::Rule(_)
            | Step::Expire
            | Step::Cancel => None,
        },
        Status::Submitted => match step {
            Step::Accept => share_out(life, life.due()?, Some(Cause::Success)),
            Step::Disagree if life.acceptance == Acceptance::Agreement => {
                share_out(life, Amount::ZERO, Some(Cause::Failure))
            }
            Step::Dispute if life.acceptance == Acceptance::Review => {
                let dispute = Some(dispute::Status::Evidence);
                Some(quiet(Life { status: Status::Disputed, dispute, ..*life }))
            }
            // Nobody knows who was right.
            Step::Expire if life.acceptance == Acceptance::Agreement => share_out(life, Amount::ZERO, None),
            Step::Expire => by_verdict(life),
            Step::Disagree
            | Step::Dispute
            | Step::Award(_)
            | Step::Start
            | Step::Submit(..)
            | Step::Fail(_)
            | Step::Rule(_)
            | Step::Cancel => None,
        },
        Status::Disputed => match (step, life.dispute?) {
            (Step::Rule(share), dispute::Status::Evidence | dispute::Status::Ruling) => {
                let life = Life { dispute: Some(dispute::Status::Ruled), ..*life };
                share_out(&life, share, Some(Cause::Ruling))
            }
            (Step::Expire, dispute::Status::Evidence) => {
                Some(quiet(Life { dispute: Some(dispute::Status::Ruling), ..*life }))
            }
            (Step::Expire, dispute::Status::Ruling) => {
                let life = Life { dispute: Some(dispute::Status::Defaulted), ..*life };
                share_out(&life, verdict(&life)?, Some(Cause::Ruling))
            }
            (Step::Rule(_) | Step::Expire, dispute::Status::Ruled | dispute::Status::Defaulted)
            | (
                Step::Award(_)
                | Step::Start
                | Step::Submit(..)
                | Step::Fail(_)
                | Step::Accept
                | Step::Disagree
                | Step::Dispute
                | Step::Cancel,
                _,
            ) => None,
        },
        Status::Completed | Status::Refunded | Status::Expired | Status::Cancelled => None,
    }
}

/// A step that moves nothing.
fn quiet(life: Life) -> Turn {
    Turn { life, flow: Flow::default(), evidence: None }
}

fn give_back(life: &Life, status: Status, held: Amount) -> Turn {
    let flow = Flow { returned: held, ..Flow::default() };
    Turn { life: Life { status, ..*life }, flow, evidence: None }
}

fn award(life: &Life, price: Amount) -> Option<Turn> {
    let returned = life.budget.checked_sub(price).filter(|_| !price.is_zero())?;
    let life = Life { status: Status::Awarded, price: Some(price), ..*life };
    Some(Turn { life, flow: Flow { carried: price, returned, ..Flow::default() }, evidence: None })
}

fn take_over(life: &Life, price: Amount) -> Option<Turn> {
    let returned = life.price?;
    if price.is_zero() || price > life.budget {
        return None;
    }
    let life = Life { price: Some(price), ..*life };
    Some(Turn { life, flow: Flow { returned, deposited: price, ..Flow::default() }, evidence: None })
}

/// What the verifiers' word alone gives the agent.
fn verdict(life: &Life) -> Option<Amount> {
    if life.verified? { life.due() } else { Some(Amount::ZERO) }
}

fn by_verdict(life: &Life) -> Option<Turn> {
    let cause = if life.verified? { Cause::Success } else { Cause::Failure };
    share_out(life, verdict(life)?, Some(cause))
}

/// The end: the agent gets `share`, at most what good work is paid, and the payer the rest of the price.
fn share_out(life: &Life, share: Amount, evidence: Option<Cause>) -> Option<Turn> {
    let returned = life.price?.checked_sub(share).filter(|_| life.due().is_some_and(|due| share <= due))?;
    let status = if share.is_zero() { Status::Refunded } else { Status::Completed };
    let flow = Flow { paid: share, returned, ..Flow::default() };
    Some(Turn { life: Life { status, ..*life }, flow, evidence })
}

/// Whether a result still waits for the payer's word.
pub fn may_review(task: &task::Model, now: Timestamp) -> Result<(), ReviewRefused> {
    if task.status != Status::Submitted || task.acceptance != Acceptance::Review {
        return Err(ReviewRefused::TaskNotSubmitted);
    }
    if is_due(task, now) { Err(ReviewRefused::ReviewOver) } else { Ok(()) }
}

/// Whether the deadline of a task has come. What happens at the deadline is too late, so that what silence decides does not
/// depend on when the sweeper looks.
#[must_use]
pub fn is_due(task: &task::Model, now: Timestamp) -> bool {
    task.deadline_at.is_some_and(|deadline| deadline <= now)
}

/// Whether a dispute still waits for its end.
#[must_use]
pub fn is_open(status: dispute::Status) -> bool {
    match status {
        dispute::Status::Evidence | dispute::Status::Ruling => true,
        dispute::Status::Ruled | dispute::Status::Defaulted => false,
    }
}

/// What of a dispute's evidence matters to the rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// Pieces of the party that asks.
    pub own: u64,
    /// Whether one of them has the same body.
    pub repeated: bool,
}

/// Whether a party may show one more piece of evidence; `most` is how many it may show.
pub fn may_show(dispute: &dispute::Model, shown: Shown, most: u64, now: Timestamp) -> Result<(), DisputeRefused> {
    if !is_open(dispute.status) {
        return Err(DisputeRefused::DisputeOver);
    }
    if dispute.status != dispute::Status::Evidence || dispute.evidence_until <= now {
        return Err(DisputeRefused::EvidenceClosed);
    }
    if shown.repeated {
        return Err(DisputeRefused::EvidenceRepeated);
    }
    if shown.own >= most { Err(DisputeRefused::TooMuchEvidence) } else { Ok(()) }
}

/// Whether an arbiter may give the agent `award`. `both` says that each party has shown something; then nobody need wait for
/// the end of the time for evidence.
pub fn may_rule(
    dispute: &dispute::Model,
    arbiter: entity::id::UserId,
    both: bool,
    award: Amount,
    now: Timestamp,
) -> Result<(), DisputeRefused> {
    if arbiter == dispute.payer_id || arbiter == dispute.owner_id {
        return Err(DisputeRefused::ArbiterIsParty);
    }
    if !is_open(dispute.status) || dispute.ruling_until <= now {
        return Err(DisputeRefused::DisputeOver);
    }
    if dispute.status == dispute::Status::Evidence && dispute.evidence_until > now && !both {
        return Err(DisputeRefused::EvidenceStageOpen);
    }
    if award > dispute.amount { Err(DisputeRefused::AwardAbovePrice) } else { Ok(()) }
}

/// How a resolved dispute went for the party that opened it: `UPHELD` when the ruling gives it anything of what it asked for,
/// `REJECTED` when it gives it nothing, `DEFAULTED` when nobody ruled.
#[must_use]
pub fn finding(dispute: &dispute::Model) -> &'static str {
    let awarded = dispute.awarded.unwrap_or(Amount::ZERO);
    let upheld = match dispute.opened_by {
        dispute::Party::Payer => awarded < dispute.amount,
        dispute::Party::Agent => !awarded.is_zero(),
    };
    match (dispute.status, upheld) {
        (dispute::Status::Defaulted, _) => "DEFAULTED",
        (dispute::Status::Evidence | dispute::Status::Ruling | dispute::Status::Ruled, true) => "UPHELD",
        (dispute::Status::Evidence | dispute::Status::Ruling | dispute::Status::Ruled, false) => "REJECTED",
    }
}

/// Characters of a reason, a statement and an opinion at most.
pub const MAX_WORDS: usize = 10_000;
/// Bytes of a JSON document shown as evidence at most.
pub const MAX_JSON: usize = 64 * 1024;
/// Bytes of an address at most.
pub const MAX_LINK: usize = 2_048;

/// Words of people: something, not too much, and no control characters but line breaks and tabs. Answers them without the
/// space around them, or what they must be.
pub fn words(text: &str) -> Result<String, String> {
    let text = text.trim();
    let length = text.chars().count();
    let strange = |letter: char| letter.is_control() && !matches!(letter, '\n' | '\r' | '\t');
    if length == 0 || length > MAX_WORDS || text.chars().any(strange) {
        return Err(format!("must be 1 to {MAX_WORDS} characters without control characters"));
    }
    Ok(text.to_owned())
}

/// The body of a piece of evidence as it is kept, or what it must be.
pub fn evidence_body(kind: evidence::Kind, body: &str) -> Result<String, String> {
    match kind {
        evidence::Kind::Statement => words(body),
        evidence::Kind::Json => {
            let fits = body.len() <= MAX_JSON && serde_json::from_str::<serde::de::IgnoredAny>(body).is_ok();
            if fits { Ok(body.to_owned()) } else { Err(format!("must be at most {MAX_JSON} bytes of JSON")) }
        }
        evidence::Kind::Link => {
            let plain = |url: &Url| url.username().is_empty() && url.password().is_none() && url.host_str().is_some();
            let secure = Url::parse(body).is_ok_and(|url| url.scheme() == "https" && plain(&url));
            let written = body.len() <= MAX_LINK && body.chars().all(|letter| letter.is_ascii_graphic());
            if secure && written {
                Ok(body.to_owned())
            } else {
                Err(format!("must be an https address of at most {MAX_LINK} ASCII characters, without a password"))
            }
        }
        evidence::Kind::Digest => {
            let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
            let digest = body.len() == 64 && body.bytes().all(hex);
            if digest { Ok(body.to_owned()) } else { Err("must be a SHA-256 in 64 lower-case hex digits".to_owned()) }
        }
    }
}

/// The instant at which a task ends: now, but never before anything that happened to it, even if the computer's clock was set
/// back meanwhile.
#[must_use]
pub fn end_of(task: &task::Model, now: Timestamp) -> Timestamp {
    let before = [Some(task.created_at), task.awarded_at, task.started_at, task.submitted_at];
    before.into_iter().flatten().fold(now, Timestamp::max)
}

/// Whether nothing more can happen.
#[must_use]
pub fn is_over(status: Status) -> bool {
    match status {
        Status::Open | Status::Awarded | Status::Running | Status::Submitted | Status::Disputed => false,
        Status::Completed | Status::Refunded | Status::Expired | Status::Cancelled => true,
    }
}

/// How far ahead of other work that waits work in a hurry goes, and how far behind other work the least urgent. What has waited
/// longer than that goes first all the same.
const HEAD_START: Duration = Duration::from_mins(1);

/// The place of work that may be claimed from `at` on among what waits.
#[must_use]
pub fn queue_at(priority: Priority, at: Timestamp) -> Timestamp {
    match priority {
        Priority::Low => at.after(HEAD_START),
        Priority::Normal => at,
        Priority::High => at.before(HEAD_START),
    }
}

/// The pause before try number `attempt + 1`, before jitter: `base · 2^(attempt−1)`, a minute at most.
#[must_use]
pub fn backoff(base: Duration, attempt: i32) -> Duration {
    let doublings = u32::try_from(attempt.saturating_sub(1)).unwrap_or(0).min(16);
    base.saturating_mul(1_u32 << doublings).min(Duration::from_mins(1))
}

/// The longest that a checker may take.
pub const MAX_CHECK: Duration = Duration::from_secs(10);

/// How long one attempt at a task may take.
#[must_use]
pub fn run_limit(task: &task::Model) -> Duration {
    Duration::from_millis(u64::try_from(task.timeout_ms).unwrap_or(0))
}

/// How long the checker of a task may take; nothing where there is none.
#[must_use]
pub fn check_limit(task: &task::Model) -> Duration {
    task.checker_id.map_or(Duration::ZERO, |_| run_limit(task).min(MAX_CHECK))
}

/// The longest that the rest of a task's work can take from a claim on: every attempt left with its lease and pause.
#[must_use]
pub fn hard_limit(task: &task::Model, attempts: i32, lease: Duration, base: Duration) -> Duration {
    let timeout = run_limit(task).saturating_add(check_limit(task));
    (attempts..=task.max_attempts.max(attempts))
        .map(|attempt| timeout.saturating_add(lease).saturating_add(backoff(base, attempt)))
        .fold(Duration::ZERO, Duration::saturating_add)
}

/// The longest that a result can wait from its coming on: the payer's window, and then a dispute that takes all its time.
#[must_use]
pub fn review_limit(task: &task::Model, evidence: Duration, ruling: Duration) -> Duration {
    match task.acceptance {
        Acceptance::Automatic => Duration::ZERO,
        Acceptance::Review => review_window(task).saturating_add(evidence).saturating_add(ruling),
        Acceptance::Agreement => review_window(task),
    }
}

/// How long the payer may look at a result, or a result waits for those of the other agents that do the same.
#[must_use]
pub fn review_window(task: &task::Model) -> Duration {
    Duration::from_millis(task.review_ms.and_then(|millis| u64::try_from(millis).ok()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sea_orm::Iterable;

    fn credits(credits: u32) -> Amount {
        Amount::from_credits(credits).unwrap()
    }

    fn steps() -> Vec<Step> {
        let mut steps = vec![Step::Start, Step::Accept, Step::Disagree, Step::Dispute, Step::Expire, Step::Cancel];
        for yes in [true, false] {
            let charges = (0..5).map(|amount| Some(credits(amount))).chain([None]);
            steps.extend(charges.map(|charge| Step::Submit(yes, charge)).chain([Step::Fail(yes)]));
        }
        steps.extend((0..5).flat_map(|amount| [Step::Award(credits(amount)), Step::Rule(credits(amount))]));
        steps
    }

    /// Every life with a budget of 4, a price of 3 and any charge or none, also those that cannot come about.
    fn lives() -> Vec<Life> {
        let mut lives = Vec::new();
        for status in Status::iter() {
            for acceptance in Acceptance::iter() {
                for verified in [None, Some(false), Some(true)] {
                    for stage in dispute::Status::iter().map(Some).chain([None]) {
                        let price = (status != Status::Open).then_some(credits(3));
                        for charge in
                            [None, Some(1), Some(2), Some(3)].map(|charge| charge.and_then(Amount::from_credits))
                        {
                            let budget = credits(4);
                            lives.push(Life { status, acceptance, budget, price, charge, verified, dispute: stage });
                        }
                    }
                }
            }
        }
        lives
    }

    #[test]
    fn nothing_leads_out_of_a_terminal_state() {
        for life in lives().into_iter().filter(|life| is_over(life.status)) {
            assert!(steps().into_iter().all(|step| next(&life, step).is_none()), "{life:?}");
        }
    }

    #[test]
    fn an_end_shares_out_exactly_what_was_held_and_nothing_else_moves_money_out() {
        for life in lives() {
            let held = if is_over(life.status) { Amount::ZERO } else { life.price.unwrap_or(life.budget) };
            for (step, turn) in steps().into_iter().filter_map(|step| Some((step, next(&life, step)?))) {
                let out = [turn.flow.paid, turn.flow.returned, turn.flow.carried].into_iter().sum::<Amount>();
                let moves = turn.flow != Flow::default();
                assert_eq!(out, if moves { held } else { Amount::ZERO }, "{life:?} {step:?} {turn:?}");
                assert_eq!(
                    is_over(turn.life.status),
                    moves && turn.flow.carried.is_zero() && turn.flow.deposited.is_zero()
                );
                assert!(turn.life.price.is_none_or(|price| price <= life.budget));
            }
        }
    }

    #[test]
    fn nobody_is_paid_more_than_was_metered() {
        let mut metered = 0;
        for life in lives() {
            for (step, turn) in steps().into_iter().filter_map(|step| Some((step, next(&life, step)?))) {
                let charge = if let Step::Submit(_, charge) = step { charge } else { life.charge };
                assert_eq!(turn.life.charge, charge, "only a result meters: {life:?} {step:?}");
                if let Some(charge) = charge.filter(|_| is_over(turn.life.status) && life.price.is_some()) {
                    assert!(turn.flow.paid <= charge, "{life:?} {step:?}");
                    let in_full = matches!(step, Step::Accept | Step::Submit(true, _));
                    assert!(!in_full || turn.flow.paid == charge, "{life:?} {step:?}");
                    metered += 1;
                }
                if let (Step::Submit(_, Some(charge)), Some(price)) = (step, life.price) {
                    assert!(!charge.is_zero() && charge <= price, "{life:?} {step:?}");
                }
            }
        }
        assert!(metered > 100, "{metered}");
    }

    #[test]
    fn payment_follows_only_a_result() {
        for life in lives() {
            for (step, turn) in steps().into_iter().filter_map(|step| Some((step, next(&life, step)?))) {
                if !turn.flow.paid.is_zero() {
                    assert!(
                        turn.life.verified.is_some() || matches!(step, Step::Accept | Step::Rule(_)),
                        "{life:?} {step:?}"
                    );
                    assert_eq!(turn.life.status, Status::Completed);
                }
            }
        }
    }

    #[test]
    fn pauses_double_up_to_a_minute() {
        let base = Duration::from_millis(500);
        assert_eq!([1, 2, 3, 40].map(|attempt| backoff(base, attempt).as_millis()), [500, 1_000, 2_000, 60_000]);
    }

    #[test]
    fn evidence_is_what_its_kind_says() {
        let digest = "0123456789abcdef".repeat(4);
        for (kind, body, taken) in [
            (evidence::Kind::Statement, "It does not do what I asked for.\nSee line 3.", true),
            (evidence::Kind::Statement, "  ", false),
            (evidence::Kind::Statement, "a\u{7}b", false),
            (evidence::Kind::Json, "{\"a\": [1, 2.5, null]}", true),
            (evidence::Kind::Json, "{\"a\": ", false),
            (evidence::Kind::Json, "", false),
            (evidence::Kind::Link, "https://example.org/log?id=7", true),
            (evidence::Kind::Link, "http://example.org/", false),
            (evidence::Kind::Link, "javascript:alert(1)", false),
            (evidence::Kind::Link, "https://ada:secret@example.org/", false),
            (evidence::Kind::Link, "https://example.org/a b", false),
            (evidence::Kind::Link, "https:///", false),
            (evidence::Kind::Digest, &digest, true),
            (evidence::Kind::Digest, &digest.to_uppercase(), false),
            (evidence::Kind::Digest, "abc", false),
        ] {
            assert_eq!(evidence_body(kind, body).is_ok(), taken, "{kind:?} {body:?}");
        }
        let long = "x".repeat(MAX_WORDS.max(MAX_JSON).max(MAX_LINK) + 1);
        let link = format!("https://example.org/{long}");
        assert!(evidence_body(evidence::Kind::Statement, &long).is_err());
        assert!(evidence_body(evidence::Kind::Json, &format!("\"{long}\"")).is_err());
        assert!(evidence_body(evidence::Kind::Link, &link).is_err());
    }
}
