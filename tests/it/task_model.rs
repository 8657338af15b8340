//! The life of a task, twice: every state that the rules can reach within small bounds, and random sequences of the real verbs
//! against a reference that is written down here once more.

use std::collections::{BTreeMap, HashMap, VecDeque};

use entity::{
    dispute, execution,
    id::{AgentId, ExecutionId, TaskId},
    money::Amount,
    task::{Acceptance, Status},
    time::Timestamp,
};
use uuid::Uuid;
use zerostate::{
    execution::rules::{AfterFailure, admit_result, after_failure},
    task::rules::{Flow, Life, Step, TaskRefused, is_over, next},
};

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
        }
    }
}

/// A task with its money, kept apart from what the rules say about it: they only say what moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct State {
    life: Life,
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
    fn posted(acceptance: Acceptance, max_attempts: i32) -> Self {
        let life = Life {
            status: Status::Open,
            acceptance,
            budget: amount(BUDGET),
            price: None,
            verified: None,
            dispute: None,
        };
        Self {
            life,
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
        let status = if step == Step::Submit(true) { execution::Status::Succeeded } else { execution::Status::Failed };
        let run = Run { status, leased: false, ..run };
        Self { run: Some(run), ..self }.after(step)
    }

    /// The same when an attempt failed through no fault of the agent.
    fn attempt_failed(self, run: Run) -> Option<Self> {
        match after_failure(run.attempts, self.max_attempts, std::time::Duration::ZERO, 0) {
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
                add(Actor::Sweeper, before.after(Step::Award(amount(price))).map(|state| Self { run: Some(fresh), ..state }));
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
            for step in [Step::Submit(true), Step::Submit(false), Step::Fail(true)] {
                add(Actor::Anybody, self.ended(run, step));
            }
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
        assert_eq!(self.hold.is_none(), is_over(self.life.status), "escrow is empty at the end and only then: {self:?}");
        assert_eq!(self.opened - self.resolved, u8::from(self.hold.is_some()), "a hold is resolved once: {self:?}");
        let paid = self.life.status == Status::Completed;
        assert_eq!(self.agent > 0, paid, "COMPLETED is paid, and nothing else is: {self:?}");
        assert!(self.agent <= self.life.price.map_or(0, Amount::micros), "never above the price: {self:?}");
        if matches!(self.life.status, Status::Submitted | Status::Disputed) {
            assert!(self.life.acceptance == Acceptance::Review && self.life.verified.is_some(), "{self:?}");
        }
        let open = self.life.dispute.is_some_and(|stage| matches!(stage, dispute::Status::Evidence | dispute::Status::Ruling));
        assert_eq!(self.life.status == Status::Disputed, open, "a dispute is as open as its task: {self:?}");
    }
}

#[test]
fn no_state_that_a_task_can_reach_loses_money_or_is_stranded() {
    let mut queue: VecDeque<State> = VecDeque::new();
    let mut edges: HashMap<State, Vec<(Actor, State)>> = HashMap::new();
    for acceptance in [Acceptance::Automatic, Acceptance::Review] {
        queue.extend((1..=ATTEMPTS).map(|attempts| State::posted(acceptance, attempts)));
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

    // What the sweeper does alone ends, whatever it does first: its steps never lead back, and none stops before the end.
    let mut steps_to_the_end: HashMap<State, u32> = HashMap::new();
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
    let most = edges.keys().map(|state| longest(*state, &edges, &mut steps_to_the_end, &mut Vec::new())).max().unwrap();

    let mut by_status: BTreeMap<Status, usize> = BTreeMap::new();
    for state in edges.keys() {
        *by_status.entry(state.life.status).or_default() += 1;
    }
    assert_eq!(by_status.len(), 9, "every status is reached: {by_status:?}");
    eprintln!("{} states, {transitions} transitions, at most {most} sweeps to the end; {by_status:?}", edges.len());
    assert!(edges.len() > 1_292, "the exploration is smaller than it was: {}", edges.len());
}
