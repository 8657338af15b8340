//! The life of a task, twice: every state that the rules can reach within small bounds, and random sequences of the real verbs
//! against a reference that is written down here once more.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use entity::{
    account, agent, auction, dispute, evidence, execution,
    id::{AgentId, ExecutionId, TaskId},
    money::Amount,
    reputation_event,
    reputation_event::Cause,
    task,
    task::{Acceptance, Status},
    text::JsonText,
    time::Timestamp,
    user::Role,
};
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, RngSeed, TestRunner},
};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};
use serde_json::json;
use uuid::Uuid;
use zerostate::{
    agent::{self as agents, NewAgent},
    auction::Terms,
    caller::{Caller, Identity},
    error::{Error, Result},
    execution::{
        self as executions,
        rules::{AfterFailure, admit_result, after_failure},
    },
    ledger,
    reputation::{self, NewRating},
    store::Work,
    task::{
        self as tasks, Fault, NewTask, Report, Usage,
        dispute::{self as disputes, NewEvidence, Ruling},
        rules::{Flow, Life, Step, TaskRefused, is_over, next},
    },
    user::{self as users, NewAccount},
};

use crate::world::{DAWN, World};

/// The bounds of the exploration.
const BUDGET: i64 = 3;
const WALLET: i64 = 5;
const ATTEMPTS: i32 = 3;
const RUNNERS_UP: u8 = 2;

fn amount(micros: i64) -> Amount {
    Amount::from_micros(micros).unwrap()
}

/// The running of a task, as much of its row as matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Run {
    status: execution::Status,
    token: i64,
    attempts: i32,
    leased: bool,
}

impl Run {
    fn row(self) -> execution::Model {
        let at = Timestamp::from_micros(0);
        execution::Model {
            id: ExecutionId(Uuid::nil()),
            task_id: TaskId(Uuid::nil()),
            agent_id: AgentId(Uuid::nil()),
            module_id: None,
            status: self.status,
            attempts: self.attempts,
            token: self.token,
            worker: None,
            leased_until: None,
            run_at: at,
            error_code: None,
            created_at: at,
            started_at: None,
            finished_at: None,
            queue_at: at,
        }
    }
}

/// A task with its money, kept apart from what the rules say about it: they only say what moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct State {
    life: Life,
    /// Whether the price is the most that a result can cost.
    metered: bool,
    run: Option<Run>,
    runners_up: u8,
    max_attempts: i32,
    wallet: i64,
    agent: i64,
    /// The hold that is not resolved, and how many there were and how many are.
    hold: Option<i64>,
    opened: u8,
    resolved: u8,
}

/// Who acts. The sweeper acts when time is over, whatever anybody does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Actor {
    Sweeper,
    Anybody,
}

impl State {
    fn posted(acceptance: Acceptance, max_attempts: i32, metered: bool) -> Self {
        let life = Life {
            status: Status::Open,
            acceptance,
            budget: amount(BUDGET),
            price: None,
            charge: None,
            verified: None,
            dispute: None,
        };
        Self {
            life,
            metered,
            run: None,
            runners_up: RUNNERS_UP,
            max_attempts,
            wallet: WALLET - BUDGET,
            agent: 0,
            hold: Some(BUDGET),
            opened: 1,
            resolved: 0,
        }
    }

    /// The same after a step, if the rules allow it.
    fn after(self, step: Step) -> Option<Self> {
        let turn = next(&self.life, step)?;
        let mut state = Self { life: turn.life, ..self };
        if turn.flow != Flow::default() {
            let Flow { paid, returned, carried, deposited } = turn.flow;
            let hold = self.hold.expect("only what is held moves");
            assert_eq!(paid.micros() + returned.micros() + carried.micros(), hold, "{self:?} {step:?}");
            state.agent += paid.micros();
            state.wallet += returned.micros() - deposited.micros();
            state.hold = None;
            state.resolved += 1;
            let new = carried.micros() + deposited.micros();
            if new > 0 {
                state.hold = Some(new);
                state.opened += 1;
            }
        }
        Some(state)
    }

    /// The same when the work has ended by a step.
    fn ended(self, run: Run, step: Step) -> Option<Self> {
        let status = if matches!(step, Step::Submit(true, _)) {
            execution::Status::Succeeded
        } else {
            execution::Status::Failed
        };
        let run = Run { status, leased: false, ..run };
        Self { run: Some(run), ..self }.after(step)
    }

    /// The same when an attempt failed through no fault of the agent.
    fn attempt_failed(self, run: Run) -> Option<Self> {
        match after_failure(run.attempts, self.max_attempts, Duration::ZERO, 0) {
            AfterFailure::Retry(_) => {
                let run = Run { status: execution::Status::Ready, leased: false, ..run };
                Some(Self { run: Some(run), ..self })
            }
            AfterFailure::GiveUp => self.ended(run, Step::Fail(false)),
        }
    }

    /// Everything that can happen, and who does it.
    fn successors(self) -> Vec<(Actor, Self)> {
        let mut found = Vec::new();
        let mut add = |actor, state: Option<Self>| found.extend(state.map(|state| (actor, state)));
        let fresh = Run { status: execution::Status::Ready, token: 0, attempts: 0, leased: false };

        // An award at the close, or a runner-up that takes over.
        let take = self.life.status == Status::Open || self.runners_up > 0 && self.life.status == Status::Awarded;
        for price in (1..=BUDGET + 1).filter(|_| take) {
            let before = if self.life.status == Status::Awarded {
                Self { runners_up: self.runners_up - 1, ..self }
            } else {
                self
            };
            let affordable = self.life.status == Status::Open || price <= self.wallet + self.hold.unwrap_or(0);
            if affordable {
                add(
                    Actor::Sweeper,
                    before.after(Step::Award(amount(price))).map(|state| Self { run: Some(fresh), ..state }),
                );
            }
        }
        add(Actor::Sweeper, self.after(Step::Expire));
        for step in [Step::Cancel, Step::Accept, Step::Dispute] {
            add(Actor::Anybody, self.after(step));
        }
        for share in 0..=BUDGET + 1 {
            add(Actor::Anybody, self.after(Step::Rule(amount(share))));
        }

        let Some(run) = self.run else { return found };
        if run.status == execution::Status::Ready && run.attempts < self.max_attempts {
            let claimed = Run {
                status: execution::Status::Running,
                token: run.token + 1,
                attempts: run.attempts + 1,
                leased: true,
            };
            add(Actor::Anybody, self.after(Step::Start).map(|state| Self { run: Some(claimed), ..state }));
        }
        // Every token that was ever given out comes back with everything that a worker can bring.
        for token in 0..=run.token + 1 {
            let admitted = admit_result(&run.row(), token);
            assert!(admitted != Ok(()) || token == run.token, "only the newest token counts: {self:?} {token}");
            if admitted == Err(TaskRefused::LeaseLost) {
                continue;
            }
            let charges = (0..=BUDGET + 1).map(|charge| self.metered.then_some(amount(charge)));
            for charge in charges.take(if self.metered { usize::MAX } else { 1 }) {
                for verified in [true, false] {
                    add(Actor::Anybody, self.ended(run, Step::Submit(verified, charge)));
                }
            }
            add(Actor::Anybody, self.ended(run, Step::Fail(true)));
            add(Actor::Anybody, self.attempt_failed(run));
        }
        if run.status == execution::Status::Running {
            if run.leased {
                let lapsed = Run { leased: false, ..run };
                add(Actor::Anybody, Some(Self { run: Some(lapsed), ..self }));
            } else {
                let renewed = Run { leased: true, ..run };
                add(Actor::Anybody, Some(Self { run: Some(renewed), ..self }));
                add(Actor::Sweeper, self.attempt_failed(run));
            }
        }
        // The deadline of all attempts together.
        if self.life.status == Status::Running {
            add(Actor::Sweeper, self.ended(run, Step::Fail(false)));
        }
        found
    }

    fn check(self) {
        let held = self.hold.unwrap_or(0);
        assert_eq!(self.wallet + held + self.agent, WALLET, "conservation: {self:?}");
        assert!(self.wallet >= 0 && self.agent >= 0, "nothing is below zero: {self:?}");
        assert_eq!(
            self.hold.is_none(),
            is_over(self.life.status),
            "escrow is empty at the end and only then: {self:?}"
        );
        assert_eq!(self.opened - self.resolved, u8::from(self.hold.is_some()), "a hold is resolved once: {self:?}");
        let paid = self.life.status == Status::Completed;
        assert_eq!(self.agent > 0, paid, "COMPLETED is paid, and nothing else is: {self:?}");
        assert!(self.life.charge <= self.life.price, "never metered above the price: {self:?}");
        assert!(self.agent <= self.life.due().map_or(0, Amount::micros), "never above what is due: {self:?}");
        assert!(self.metered || self.life.charge.is_none(), "{self:?}");
        if matches!(self.life.status, Status::Submitted | Status::Disputed) {
            assert!(self.life.acceptance == Acceptance::Review && self.life.verified.is_some(), "{self:?}");
        }
        let open =
            self.life.dispute.is_some_and(|stage| matches!(stage, dispute::Status::Evidence | dispute::Status::Ruling));
        assert_eq!(self.life.status == Status::Disputed, open, "a dispute is as open as its task: {self:?}");
    }
}

/// The longest way from a state to an end that the sweeper alone can go. What it does alone always ends, whatever it does first:
/// its steps never lead back, and none stops before the end.
fn longest(
    state: State,
    edges: &HashMap<State, Vec<(Actor, State)>>,
    known: &mut HashMap<State, u32>,
    path: &mut Vec<State>,
) -> u32 {
    if is_over(state.life.status) {
        return 0;
    }
    if let Some(steps) = known.get(&state) {
        return *steps;
    }
    assert!(!path.contains(&state), "the sweeper goes round in a circle: {state:?}");
    path.push(state);
    let steps = edges[&state].iter().filter(|(actor, _)| *actor == Actor::Sweeper).map(|(_, after)| *after);
    let steps = steps.map(|after| 1 + longest(after, edges, known, path)).max();
    path.pop();
    let steps = steps.unwrap_or_else(|| panic!("stranded: {state:?}"));
    known.insert(state, steps);
    steps
}

#[test]
fn no_state_that_a_task_can_reach_loses_money_or_is_stranded() {
    let mut queue: VecDeque<State> = VecDeque::new();
    let mut edges: HashMap<State, Vec<(Actor, State)>> = HashMap::new();
    for acceptance in [Acceptance::Automatic, Acceptance::Review] {
        for metered in [false, true] {
            queue.extend((1..=ATTEMPTS).map(|attempts| State::posted(acceptance, attempts, metered)));
        }
    }
    let mut transitions = 0_usize;
    while let Some(state) = queue.pop_front() {
        if edges.contains_key(&state) {
            continue;
        }
        state.check();
        let successors = state.successors();
        for (_, after) in &successors {
            let (before, after_token) = (state.run.map_or(0, |run| run.token), after.run.map_or(0, |run| run.token));
            assert!(after_token >= before, "the token goes back: {state:?} {after:?}");
            assert!(!is_over(state.life.status), "something leads out of {state:?}");
        }
        transitions += successors.len();
        queue.extend(successors.iter().map(|(_, after)| *after));
        edges.insert(state, successors);
    }

    let mut known: HashMap<State, u32> = HashMap::new();
    let most = edges.keys().map(|state| longest(*state, &edges, &mut known, &mut Vec::new())).max().unwrap();

    let mut by_status: BTreeMap<Status, usize> = BTreeMap::new();
    for state in edges.keys() {
        *by_status.entry(state.life.status).or_default() += 1;
    }
    assert_eq!(by_status.len(), 9, "every status is reached: {by_status:?}");
    eprintln!("{} states, {transitions} transitions, at most {most} sweeps to the end; {by_status:?}", edges.len());
    assert!(edges.len() > 1_292, "the exploration is smaller than it was: {}", edges.len());
}

/// Credits of the payer at the start, the budget of every task, and what the two agents ask, in micro-credits.
const FORTUNE: i64 = 10_000_000_000;
const TASK_BUDGET: i64 = 5_000_000;
const PRICES: [i64; 2] = [1_000_000, 2_000_000];
const FEE_BPS: i64 = 250;
/// What the first agent charges for a million units of fuel; the other one's price is not metered. What results take of it: less
/// than the price comes to, more, and nothing.
const FUEL_PRICE: i64 = 1_000_001;
const FUELS: [u64; 3] = [300_000, 5_000_000, 0];
/// The times of the market, in seconds.
const CLOSES_IN: i64 = 20;
const START_TIMEOUT: i64 = 60;
const LEASE: i64 = 30;
const RUN_TIMEOUT: i64 = 10;
const TRIES: i32 = 3;
const REVIEW: i64 = 50;
const EVIDENCE: i64 = 40;
const RULING: i64 = 70;
const MAX_EVIDENCE: usize = 2;
/// How many sequences there are and how long each is.
const CASES: u32 = 20;
const STEPS: usize = 130;
const MODULE: &[u8] = include_bytes!("../../agents/wasm/text-stats-lite.wasm");
const HASH: &str = "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$4UAxMXjBSHqDwrs1MLXbUg";

/// The people: who pays, the owners of the two agents, an arbiter, and somebody else.
const PAYER: usize = 0;
const OWNERS: [usize; 2] = [1, 2];
const ARBITER: usize = 3;

/// One verb. Numbers pick among what there is, and are folded into its range.
#[derive(Clone, Debug)]
enum Act {
    Post { review: bool, timed: bool },
    Claim,
    Complete { claim: usize, brings: u8 },
    AttemptFailed { claim: usize },
    Heartbeat { claim: usize },
    Cancel { task: usize, who: usize },
    Accept { task: usize, who: usize },
    Reject { task: usize, who: usize },
    Dispute { task: usize, who: usize },
    Show { task: usize, who: usize, body: u8 },
    Rule { task: usize, who: usize, share: u8 },
    Rate { task: usize, who: usize },
    Pass { seconds: i64, sweep: bool },
}

fn acts() -> impl Strategy<Value = Act> {
    // Mostly those whom a thing concerns.
    let payer = prop_oneof![6 => Just(PAYER), 1 => 0..5_usize];
    let party = prop_oneof![3 => Just(PAYER), 3 => Just(OWNERS[0]), 1 => 0..5_usize];
    let arbiter = prop_oneof![6 => Just(ARBITER), 1 => 0..5_usize];
    // Mostly the newest.
    let which = || prop_oneof![4 => 0..3_usize, 1 => 0..40_usize];
    prop_oneof![
        4 => (any::<bool>(), any::<bool>()).prop_map(|(often, timed)| Act::Post { review: often || timed, timed }),
        5 => Just(Act::Claim),
        4 => (which(), 0..4_u8).prop_map(|(claim, brings)| Act::Complete { claim, brings }),
        1 => which().prop_map(|claim| Act::AttemptFailed { claim }),
        1 => which().prop_map(|claim| Act::Heartbeat { claim }),
        1 => (which(), payer.clone()).prop_map(|(task, who)| Act::Cancel { task, who }),
        2 => (which(), payer.clone()).prop_map(|(task, who)| Act::Accept { task, who }),
        2 => (which(), payer.clone()).prop_map(|(task, who)| Act::Reject { task, who }),
        2 => (which(), party.clone()).prop_map(|(task, who)| Act::Dispute { task, who }),
        5 => (which(), party, 0..4_u8).prop_map(|(task, who, body)| Act::Show { task, who, body }),
        3 => (which(), arbiter, 0..4_u8).prop_map(|(task, who, share)| Act::Rule { task, who, share }),
        1 => (which(), payer).prop_map(|(task, who)| Act::Rate { task, who }),
        3 => (prop_oneof![4 => 0..15_i64, 1 => 15..120_i64], prop_oneof![3 => Just(true), 1 => Just(false)])
            .prop_map(|(seconds, sweep)| Act::Pass { seconds, sweep }),
    ]
}

/// What the reference knows of the running of a task by its present winner.
#[derive(Clone, Debug)]
struct RefRun {
    live: bool,
    claimed: bool,
    token: i64,
    attempts: i32,
    leased_until: i64,
    run_at: i64,
}

#[derive(Clone, Debug)]
struct RefDispute {
    status: dispute::Status,
    evidence_until: i64,
    shown: [BTreeSet<u8>; 2],
    awarded: Option<i64>,
}

/// What the reference knows of a task.
#[derive(Clone, Debug)]
struct RefTask {
    status: Status,
    review: bool,
    deadline: i64,
    /// Which of the two agents has it.
    winner: Option<usize>,
    run: Option<RefRun>,
    verified: Option<bool>,
    dispute: Option<RefDispute>,
    charge: Option<i64>,
    paid: i64,
    cause: Option<Cause>,
    rated: bool,
}

/// The market as it must be.
#[derive(Clone, Debug)]
struct Reference {
    now: i64,
    tasks: Vec<RefTask>,
    /// Every claim that was ever handed out: the task, its winner then, and the token.
    claims: Vec<(usize, usize, i64)>,
}

fn under_review(task: &RefTask) -> bool {
    task.status == Status::Submitted
}

fn in_dispute(task: &RefTask) -> bool {
    task.dispute.is_some() && (task.status == Status::Disputed || task.over())
}

type Expected = std::result::Result<(), &'static str>;

impl RefTask {
    fn price(&self) -> i64 {
        self.winner.map_or(0, |winner| PRICES[winner])
    }

    /// What good work is paid.
    fn due(&self) -> i64 {
        self.charge.unwrap_or(self.price())
    }

    fn over(&self) -> bool {
        matches!(self.status, Status::Completed | Status::Refunded | Status::Expired | Status::Cancelled)
    }

    fn held(&self) -> i64 {
        match self.status {
            Status::Open => TASK_BUDGET,
            Status::Awarded | Status::Running | Status::Submitted | Status::Disputed => self.price(),
            Status::Completed | Status::Refunded | Status::Expired | Status::Cancelled => 0,
        }
    }

    fn won_by(&mut self, winner: usize, now: i64) {
        self.status = Status::Awarded;
        self.winner = Some(winner);
        self.deadline = now + START_TIMEOUT;
        self.run = Some(RefRun { live: true, claimed: false, token: 0, attempts: 0, leased_until: 0, run_at: now });
    }

    fn end(&mut self, paid: i64, cause: Option<Cause>) {
        self.status = if paid > 0 { Status::Completed } else { Status::Refunded };
        self.paid = paid;
        self.cause = cause;
        if let Some(run) = &mut self.run {
            run.live = false;
        }
    }

    fn by_verdict(&self) -> i64 {
        if self.verified == Some(true) { self.due() } else { 0 }
    }

    fn may_review(&self, now: i64) -> Expected {
        if self.status != Status::Submitted {
            return Err("TASK_NOT_SUBMITTED");
        }
        if self.deadline <= now { Err("REVIEW_OVER") } else { Ok(()) }
    }

    fn side(&self, who: usize) -> Option<usize> {
        let owner = self.winner.is_some_and(|winner| who == OWNERS[winner]);
        if who == PAYER { Some(0) } else { owner.then_some(1) }
    }

    fn quarrel(&mut self, now: i64) {
        self.status = Status::Disputed;
        self.deadline = now + EVIDENCE;
        let shown = [BTreeSet::new(), BTreeSet::new()];
        let status = dispute::Status::Evidence;
        self.dispute = Some(RefDispute { status, evidence_until: now + EVIDENCE, shown, awarded: None });
    }

    /// What time alone does.
    fn sweep(&mut self, now: i64) {
        if let Some(run) = &mut self.run
            && run.live
            && run.claimed
            && run.leased_until <= now
        {
            run.claimed = false;
            run.run_at = now;
            if run.attempts >= TRIES {
                self.end(0, None);
            }
        }
        if self.over() || self.deadline > now {
            return;
        }
        match self.status {
            Status::Open => self.won_by(0, now),
            Status::Awarded if self.winner == Some(0) => self.won_by(1, now),
            Status::Awarded => {
                self.status = Status::Expired;
                self.run.as_mut().unwrap().live = false;
            }
            Status::Running => self.end(0, None),
            Status::Submitted => {
                let cause = if self.verified == Some(true) { Cause::Success } else { Cause::Failure };
                self.end(self.by_verdict(), Some(cause));
            }
            Status::Disputed => {
                let share = self.by_verdict();
                let dispute = self.dispute.as_mut().unwrap();
                if dispute.status == dispute::Status::Evidence {
                    dispute.status = dispute::Status::Ruling;
                    self.deadline = dispute.evidence_until + RULING;
                    self.sweep(now);
                } else {
                    dispute.status = dispute::Status::Defaulted;
                    dispute.awarded = Some(share);
                    self.end(share, Some(Cause::Ruling));
                }
            }
            Status::Completed | Status::Refunded | Status::Expired | Status::Cancelled => {}
        }
    }
}

impl Reference {
    /// The running that a claim may bring a result to.
    fn admitted(&mut self, claim: usize) -> Option<&mut RefTask> {
        let (task, winner, token) = self.claims[claim];
        let task = &mut self.tasks[task];
        let run = task.run.as_ref()?;
        (task.winner == Some(winner) && run.live && run.token == token).then_some(task)
    }

    fn complete(&mut self, claim: usize, brings: u8) -> Expected {
        let now = self.now;
        let task = self.admitted(claim).ok_or("LEASE_LOST")?;
        task.run.as_mut().unwrap().live = false;
        let verified = match brings {
            0 | 1 => true,
            2 => false,
            _ => {
                task.end(0, Some(Cause::Failure));
                return Ok(());
            }
        };
        task.verified = Some(verified);
        // 300,000 · 1.000001 is 300,000.3, which rounds up; whatever comes to nothing is one.
        let bill = [300_001, PRICES[0], 1][usize::from(brings)];
        task.charge = (task.winner == Some(0)).then_some(bill);
        if task.review {
            task.status = Status::Submitted;
            task.deadline = now + REVIEW;
        } else {
            task.end(task.by_verdict(), Some(if verified { Cause::Success } else { Cause::Failure }));
        }
        Ok(())
    }

    fn attempt_failed(&mut self, claim: usize) -> Expected {
        let now = self.now;
        let task = self.admitted(claim).ok_or("LEASE_LOST")?;
        let run = task.run.as_mut().unwrap();
        if run.attempts >= TRIES {
            task.end(0, None);
            return Ok(());
        }
        // What was taken away is not given up once more.
        if !run.claimed {
            return Err("LEASE_LOST");
        }
        (run.claimed, run.run_at) = (false, now);
        Ok(())
    }

    fn rule(&mut self, task: usize, who: usize, award: i64) -> Expected {
        let now = self.now;
        if who != ARBITER {
            return Err("FORBIDDEN");
        }
        let task = &mut self.tasks[task];
        let price = task.due();
        let dispute = task.dispute.as_mut().unwrap();
        let open = matches!(dispute.status, dispute::Status::Evidence | dispute::Status::Ruling);
        if !open || dispute.evidence_until + RULING <= now {
            return Err("DISPUTE_OVER");
        }
        let both = dispute.shown.iter().all(|shown| !shown.is_empty());
        if dispute.status == dispute::Status::Evidence && dispute.evidence_until > now && !both {
            return Err("EVIDENCE_STAGE_OPEN");
        }
        if award > price {
            return Err("AWARD_ABOVE_PRICE");
        }
        (dispute.status, dispute.awarded) = (dispute::Status::Ruled, Some(award));
        task.end(award, Some(Cause::Ruling));
        Ok(())
    }

    fn show(&mut self, task: usize, who: usize, body: u8) -> Expected {
        let task = &mut self.tasks[task];
        let side = task.side(who).ok_or("NOT_FOUND")?;
        let dispute = task.dispute.as_mut().unwrap();
        match dispute.status {
            dispute::Status::Ruled | dispute::Status::Defaulted => return Err("DISPUTE_OVER"),
            dispute::Status::Evidence if dispute.evidence_until > self.now => {}
            dispute::Status::Evidence | dispute::Status::Ruling => return Err("EVIDENCE_CLOSED"),
        }
        if dispute.shown[side].contains(&body) {
            return Err("EVIDENCE_REPEATED");
        }
        if dispute.shown[side].len() >= MAX_EVIDENCE {
            return Err("TOO_MUCH_EVIDENCE");
        }
        dispute.shown[side].insert(body);
        Ok(())
    }

    fn rate(&mut self, task: usize, who: usize) -> Expected {
        let task = &mut self.tasks[task];
        match task.side(who) {
            None => Err("NOT_FOUND"),
            Some(1) => Err("RATING_NOT_PAYER"),
            Some(_) if task.status != Status::Completed => Err("TASK_NOT_SETTLED"),
            Some(_) if task.rated => Err("ALREADY_RATED"),
            Some(_) => {
                task.rated = true;
                Ok(())
            }
        }
    }
}

/// The real market beside the reference.
struct Market {
    world: World,
    people: Vec<Caller>,
    agents: Vec<AgentId>,
    ids: Vec<TaskId>,
    claims: Vec<executions::Claim>,
    expected: Reference,
}

/// What came of a verb, as the reference says it.
fn outcome<T>(done: Result<T>) -> std::result::Result<(), String> {
    match done {
        Ok(_) => Ok(()),
        Err(Error::Refused(refusal)) => Err(refusal.code),
        Err(Error::NotFound(_)) => Err("NOT_FOUND".to_owned()),
        Err(Error::Forbidden(_)) => Err("FORBIDDEN".to_owned()),
        Err(error) => panic!("a verb broke: {error}"),
    }
}

impl Market {
    async fn open() -> Self {
        let seconds = |seconds: i64| Duration::from_secs(seconds.unsigned_abs());
        let world = World::with(|config| {
            config.terms.fee_bps = u16::try_from(FEE_BPS).unwrap();
            config.terms.retry_base = Duration::ZERO;
            config.terms.lease = seconds(LEASE);
            config.terms.min_review_window = seconds(1);
            config.terms.evidence_window = seconds(EVIDENCE);
            config.terms.ruling_window = seconds(RULING);
            config.terms.max_evidence = MAX_EVIDENCE.try_into().unwrap();
        })
        .await;
        let expected = Reference { now: 0, tasks: Vec::new(), claims: Vec::new() };
        let mut market =
            Self { world, people: Vec::new(), agents: Vec::new(), ids: Vec::new(), claims: Vec::new(), expected };
        for (name, role) in [
            ("ada", Role::User),
            ("bob", Role::User),
            ("cyd", Role::User),
            ("judge", Role::Arbiter),
            ("eve", Role::User),
        ] {
            let person = market.person(name, role).await;
            market.people.push(person);
        }
        let (root, payer) = (market.person("root", Role::Admin).await, market.people[PAYER].user().unwrap());
        market.write(&root, async |work| ledger::issue(work, payer, amount(FORTUNE), "all").await).await.unwrap();
        for ((owner, price), fuel_price) in OWNERS.into_iter().zip(PRICES).zip([Some(FUEL_PRICE), None]) {
            let agent = market.agent(owner, price, fuel_price).await;
            market.agents.push(agent);
        }
        market
    }

    async fn write<T>(&self, caller: &Caller, verb: impl AsyncFnOnce(&mut Work) -> Result<T>) -> Result<T> {
        self.world.app.store().write(caller.clone(), verb).await
    }

    /// One person does something; what came of it.
    async fn does<T>(
        &self,
        who: usize,
        verb: impl AsyncFnOnce(&mut Work) -> Result<T>,
    ) -> std::result::Result<(), String> {
        outcome(self.write(&self.people[who], verb).await)
    }

    async fn person(&self, name: &str, role: Role) -> Caller {
        let email = format!("{name}@example.org");
        let new = NewAccount { email, display_name: name.into(), password_hash: HASH.into(), role };
        let row = self.write(&Caller::System, async |work| users::create(work, new).await).await.unwrap();
        Caller::User(Identity { user: row.id, role, session: None, key: None, expires_at: None })
    }

    async fn agent(&self, owner: usize, price: i64, fuel_price: Option<i64>) -> AgentId {
        let new = NewAgent {
            name: "worker".into(),
            description: String::new(),
            capabilities: vec!["work".into()],
            runtime: agent::Runtime::Hosted,
            price: amount(price),
            min_price: None,
            promised: None,
            public_key: None,
            capacity: Some(10_000),
            fuel_price: fuel_price.map(amount),
        };
        let owner = &self.people[owner];
        let id = self.write(owner, async |work| agents::register(work, new).await).await.unwrap().id;
        let stored = self.world.app.modules().store_bytes(Bytes::from_static(MODULE), 1 << 20).await.unwrap();
        let (interface, sha256) = (entity::agent_module::Interface::WasiCommand, hex::encode(stored.sha256));
        self.write(owner, async |work| agents::set_module(work, id, sha256, stored.size, interface).await)
            .await
            .unwrap();
        id
    }

    /// The place of a task, counted from the newest: for most numbers one that `suits`, if there is one. Nothing while there is
    /// no task.
    fn pick(&self, number: usize, suits: fn(&RefTask) -> bool) -> Option<usize> {
        let all: Vec<usize> = (0..self.ids.len()).rev().collect();
        let suiting: Vec<usize> = all.iter().copied().filter(|at| suits(&self.expected.tasks[*at])).collect();
        let from = if suiting.is_empty() || number % 5 == 4 { all } else { suiting };
        (!from.is_empty()).then(|| from[number % from.len()])
    }

    /// The place of a claim, for most numbers one that still counts.
    fn pick_claim(&mut self, number: usize) -> Option<usize> {
        let all: Vec<usize> = (0..self.claims.len()).rev().collect();
        let live: Vec<usize> = all.iter().copied().filter(|at| self.expected.admitted(*at).is_some()).collect();
        let from = if live.is_empty() || number % 5 == 4 { all } else { live };
        (!from.is_empty()).then(|| from[number % from.len()])
    }

    async fn dispute_of(&self, task: usize) -> Option<dispute::Model> {
        let found = dispute::Entity::find().filter(dispute::Column::TaskId.eq(self.ids[task]));
        found.one(self.world.app.store().read()).await.unwrap()
    }

    /// Does one thing here and there, and compares what came of it. Answers whether there was anything to do it to.
    async fn step(&mut self, act: &Act) -> bool {
        let now = self.expected.now;
        let (came, expected) = match *act {
            Act::Post { review, timed } => {
                self.post(review, timed).await;
                (Ok(()), Ok(()))
            }
            Act::Claim => {
                self.claim().await;
                (Ok(()), Ok(()))
            }
            Act::Complete { claim, brings } => {
                let Some(claim) = self.pick_claim(claim) else { return false };
                let held = self.claims[claim].clone();
                let output = JsonText("1".to_owned());
                let fault =
                    |output| Fault { code: "FAULT".into(), message: "It failed.".into(), of_agent: true, output };
                let report = Report {
                    execution: held.execution.id,
                    outcome: match brings {
                        0 | 1 => Ok(output),
                        2 => Err(fault(Some(output))),
                        _ => Err(fault(None)),
                    },
                    check: None,
                    logs: String::new(),
                    usage: Usage { fuel: FUELS[usize::from(brings) % 3], ..Usage::default() },
                    module_sha256: None,
                };
                let token = held.execution.token;
                let verb = async |work: &mut Work| executions::complete(work, held.task.id, token, report).await;
                (outcome(self.write(&Caller::System, verb).await), self.expected.complete(claim, brings))
            }
            Act::AttemptFailed { claim } => {
                let Some(claim) = self.pick_claim(claim) else { return false };
                let held = self.claims[claim].clone();
                let (id, token) = (held.execution.id, held.execution.token);
                let verb = async |work: &mut Work| {
                    executions::attempt_failed(work, held.task.id, id, token, "EXECUTOR_FAILED").await
                };
                (outcome(self.write(&Caller::System, verb).await), self.expected.attempt_failed(claim))
            }
            Act::Heartbeat { claim } => {
                let Some(claim) = self.pick_claim(claim) else { return false };
                let held = &self.claims[claim];
                let (id, token) = (held.execution.id, held.execution.token);
                let verb = async |work: &mut Work| executions::heartbeat(work, id, token).await;
                let came = outcome(self.write(&Caller::System, verb).await);
                let run = self.expected.admitted(claim).and_then(|task| task.run.as_mut()).filter(|run| run.claimed);
                (came, run.map(|run| run.leased_until = now + LEASE).ok_or("LEASE_LOST"))
            }
            Act::Cancel { task, who } => {
                let Some(task) = self.pick(task, |task| task.status == Status::Open) else { return false };
                let id = self.ids[task];
                let came = self.does(who, async |work| tasks::cancel(work, id).await).await;
                let known = &mut self.expected.tasks[task];
                let expected = match known.status {
                    _ if who != PAYER => Err("NOT_FOUND"),
                    Status::Open => {
                        known.status = Status::Cancelled;
                        Ok(())
                    }
                    Status::Awarded
                    | Status::Running
                    | Status::Submitted
                    | Status::Disputed
                    | Status::Completed
                    | Status::Refunded
                    | Status::Expired
                    | Status::Cancelled => Err("TASK_NOT_OPEN"),
                };
                (came, expected)
            }
            Act::Accept { task, who } => {
                let Some(task) = self.pick(task, under_review) else { return false };
                let id = self.ids[task];
                let came = self.does(who, async |work| disputes::accept(work, id).await).await;
                let known = &mut self.expected.tasks[task];
                let expected = if who == PAYER { known.may_review(now) } else { Err("NOT_FOUND") };
                (came, expected.map(|()| known.end(known.due(), Some(Cause::Success))))
            }
            Act::Reject { task, who } => {
                let Some(task) = self.pick(task, under_review) else { return false };
                let id = self.ids[task];
                let came = self.does(who, async |work| disputes::reject(work, id, "No.").await).await;
                let known = &mut self.expected.tasks[task];
                let expected = if who == PAYER { known.may_review(now) } else { Err("NOT_FOUND") };
                (came, expected.map(|()| known.quarrel(now)))
            }
            Act::Dispute { task, who } => {
                let Some(task) = self.pick(task, under_review) else { return false };
                let id = self.ids[task];
                let came = self.does(who, async |work| disputes::open(work, id, "No.").await).await;
                let known = &mut self.expected.tasks[task];
                let expected = known.side(who).ok_or("NOT_FOUND").and_then(|_| known.may_review(now));
                (came, expected.map(|()| known.quarrel(now)))
            }
            Act::Show { task, who, body } => {
                let Some(task) = self.pick(task, in_dispute) else { return false };
                let Some(row) = self.dispute_of(task).await else { return false };
                let kind = evidence::Kind::Statement;
                let new = NewEvidence { dispute: row.id, kind, body: format!("piece {body}") };
                let came = self.does(who, async |work| disputes::submit_evidence(work, new).await).await;
                (came, self.expected.show(task, who, body))
            }
            Act::Rule { task, who, share } => {
                let Some(task) = self.pick(task, in_dispute) else { return false };
                let Some(row) = self.dispute_of(task).await else { return false };
                let price = self.expected.tasks[task].due();
                let award = [0, price / 3, price, price + 1][usize::from(share % 4)];
                let ruling = Ruling { dispute: row.id, award: amount(award), opinion: "So.".into() };
                let came = self.does(who, async |work| disputes::resolve(work, ruling).await).await;
                (came, self.expected.rule(task, who, award))
            }
            Act::Rate { task, who } => {
                let Some(task) = self.pick(task, |task| task.status == Status::Completed) else { return false };
                let new = NewRating { task: self.ids[task], stars: 4, comment: None };
                let came = self.does(who, async |work| reputation::rate(work, new).await).await;
                (came, self.expected.rate(task, who))
            }
            Act::Pass { seconds, sweep } => {
                self.pass(seconds, sweep).await;
                (Ok(()), Ok(()))
            }
        };
        assert_eq!(came, expected.map_err(str::to_owned), "{act:?}");
        true
    }

    async fn pass(&mut self, seconds: i64, sweep: bool) {
        self.world.turn(Duration::from_secs(seconds.unsigned_abs()));
        self.expected.now += seconds;
        if sweep {
            while self.world.app.sweep_once().await.unwrap() > 0 {}
            let now = self.expected.now;
            self.expected.tasks.iter_mut().for_each(|task| task.sweep(now));
        }
    }

    async fn post(&mut self, review: bool, timed: bool) {
        let seconds = |seconds: i64| Duration::from_secs(seconds.unsigned_abs());
        let new = NewTask {
            title: "Work".into(),
            capabilities: vec!["work".into()],
            input: json!(1),
            output_schema: None,
            budget: amount(TASK_BUDGET),
            timeout: Some(seconds(RUN_TIMEOUT)),
            start_timeout: Some(seconds(START_TIMEOUT)),
            max_attempts: Some(TRIES),
            acceptance: if review { Acceptance::Review } else { Acceptance::Automatic },
            review_window: review.then_some(seconds(REVIEW)),
            checker: None,
        };
        // The price alone decides, so that the reference need not know reputations.
        let terms = Terms { price_weight: 10_000, closes_in: timed.then_some(seconds(CLOSES_IN)), ..Terms::default() };
        let payer = self.people[PAYER].clone();
        let row = self.write(&payer, async |work| tasks::execute(work, new, terms).await).await.unwrap();
        self.ids.push(row.id);
        let now = self.expected.now;
        let mut task = RefTask {
            status: Status::Open,
            review,
            deadline: now + CLOSES_IN,
            winner: None,
            run: None,
            verified: None,
            dispute: None,
            charge: None,
            paid: 0,
            cause: None,
            rated: false,
        };
        if !timed {
            task.won_by(0, now);
        }
        self.expected.tasks.push(task);
    }

    /// A worker claims what waits longest. Of several that wait as long, the market chooses one.
    async fn claim(&mut self) {
        let now = self.expected.now;
        let waits = |task: &RefTask| {
            task.run.as_ref().filter(|run| run.live && !run.claimed && run.run_at <= now).map(|run| run.run_at)
        };
        let longest = self.expected.tasks.iter().filter_map(waits).min();
        let verb = async |work: &mut Work| executions::claim(work, "worker").await;
        let Some(claim) = self.write(&Caller::System, verb).await.unwrap() else {
            assert_eq!(longest, None, "work waits and nobody gets it");
            return;
        };
        let at = self.ids.iter().position(|id| *id == claim.task.id).unwrap();
        let task = &mut self.expected.tasks[at];
        assert_eq!((waits(task), waits(task).is_some()), (longest, true), "something else waits longer");
        let run = task.run.as_mut().unwrap();
        (run.claimed, run.token, run.attempts) = (true, run.token + 1, run.attempts + 1);
        run.leased_until = now + LEASE;
        assert_eq!((claim.execution.token, claim.execution.attempts), (run.token, run.attempts));
        task.status = Status::Running;
        task.deadline = now + (RUN_TIMEOUT + LEASE) * i64::from(TRIES - run.attempts + 1);
        let winner = task.winner.unwrap();
        self.expected.claims.push((at, winner, claim.execution.token));
        self.claims.push(claim);
    }

    /// What the rows say against what the reference says, and the audit.
    async fn check(&self) {
        let db = self.world.app.store().read();
        let rows: HashMap<TaskId, task::Model> =
            task::Entity::find().all(db).await.unwrap().into_iter().map(|row| (row.id, row)).collect();
        let quarrels: HashMap<TaskId, dispute::Model> =
            dispute::Entity::find().all(db).await.unwrap().into_iter().map(|row| (row.task_id, row)).collect();
        let mut causes: HashMap<TaskId, Vec<Cause>> = HashMap::new();
        for event in reputation_event::Entity::find().all(db).await.unwrap() {
            causes.entry(event.task_id).or_default().push(event.cause);
        }
        assert_eq!(rows.len(), self.ids.len());
        let at = |seconds: i64| DAWN.after(Duration::from_secs(seconds.unsigned_abs()));
        for (number, (id, known)) in self.ids.iter().zip(&self.expected.tasks).enumerate() {
            let row = &rows[id];
            assert_eq!((row.status, row.verified), (known.status, known.verified), "task {number}");
            assert_eq!(row.deadline_at, (!known.over()).then(|| at(known.deadline)), "the deadline of task {number}");
            assert_eq!(row.price.map(Amount::micros), known.winner.map(|winner| PRICES[winner]), "task {number}");
            assert_eq!(row.charge.map(Amount::micros), known.charge, "task {number}");
            assert_eq!(row.agent_id, known.winner.map(|winner| self.agents[winner]), "task {number}");
            let paid = (known.over() && known.winner.is_some()).then_some(known.paid);
            assert_eq!(row.paid.map(Amount::micros), paid, "task {number}");
            let said = quarrels.get(id).map(|row| (row.status, row.awarded.map(Amount::micros)));
            assert_eq!(said, known.dispute.as_ref().map(|known| (known.status, known.awarded)), "task {number}");
            let expected: Vec<Cause> = known.cause.into_iter().chain(known.rated.then_some(Cause::Rating)).collect();
            let mut told = causes.remove(id).unwrap_or_default();
            told.sort_by_key(|cause| *cause == Cause::Rating);
            assert_eq!(told, expected, "task {number}");
        }
        let known = &self.expected.tasks;
        let (held, paid): (i64, i64) =
            (known.iter().map(RefTask::held).sum(), known.iter().map(|task| task.paid).sum());
        let wallet = ledger::wallet(db, self.people[PAYER].user().unwrap()).await.unwrap();
        assert_eq!((wallet.available.micros(), wallet.in_escrow.micros()), (FORTUNE - held - paid, held));
        for (number, agent) in self.agents.iter().enumerate() {
            let earned = known.iter().filter(|task| task.winner == Some(number)).map(|task| task.paid);
            let earned: i64 = earned.map(|paid| paid - paid * FEE_BPS / 10_000).sum();
            assert_eq!(ledger::balance_of(db, account::Kind::Agent, agent.0).await.unwrap(), earned, "agent {number}");
        }
        let audit = self.world.app.audit().await.unwrap();
        assert!(audit.ok(), "{audit:#?}");
    }

    /// Time alone ends everything.
    async fn let_time_end_everything(&mut self) {
        for _ in 0..6 {
            self.pass(CLOSES_IN + 2 * START_TIMEOUT + EVIDENCE + RULING, true).await;
        }
        self.check().await;
        assert!(self.expected.tasks.iter().all(RefTask::over), "stranded: {:#?}", self.expected);
        let open = auction::Entity::find().filter(auction::Column::Status.eq(auction::Status::Open));
        assert!(open.one(self.world.app.store().read()).await.unwrap().is_none());
    }
}

/// What the sequences reached, to see that they are worth their time.
#[derive(Debug, Default)]
struct Reached {
    steps: usize,
    ends: BTreeMap<(Status, Option<Cause>), usize>,
}

impl Reached {
    fn count(&mut self, acts: &[Act], tasks: &[RefTask]) {
        self.steps += acts.len();
        for task in tasks {
            *self.ends.entry((task.status, task.cause)).or_default() += 1;
        }
    }
}

#[test]
fn the_verbs_do_what_the_reference_does_in_any_order() {
    let seed = std::env::var("MODEL_SEED").map_or(1, |seed| seed.parse().expect("MODEL_SEED is a number"));
    let config =
        Config { cases: CASES, rng_seed: RngSeed::Fixed(seed), failure_persistence: None, ..Config::default() };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let reached = RefCell::new(Reached::default());
    let run = TestRunner::new(config).run(&vec(acts(), STEPS), |acts| {
        runtime.block_on(async {
            let mut market = Market::open().await;
            for act in &acts {
                // Where there is nothing to do it to yet, somebody looks for work.
                if !market.step(act).await {
                    market.step(&Act::Claim).await;
                }
                market.check().await;
            }
            market.let_time_end_everything().await;
            reached.borrow_mut().count(&acts, &market.expected.tasks);
            market.world.check().await;
        });
        Ok(())
    });
    let reached = reached.into_inner();
    eprintln!("seed {seed}: {reached:#?}");
    if let Err(failure) = run {
        panic!("seed {seed}: {failure}");
    }
    assert!(reached.steps >= 2_500, "too little was done: {}", reached.steps);
    for end in [
        (Status::Completed, Some(Cause::Success)),
        (Status::Completed, Some(Cause::Ruling)),
        (Status::Refunded, Some(Cause::Failure)),
        (Status::Refunded, Some(Cause::Ruling)),
        (Status::Refunded, None),
        (Status::Expired, None),
        (Status::Cancelled, None),
    ] {
        assert!(reached.ends.contains_key(&end), "{end:?} was never reached: {:?}", reached.ends);
    }
}
