//! What a delegation does next. It depends on the delegation, its steps and what became of their tasks alone, so whoever looks, and
//! however often, comes to the same.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::collections::{BTreeMap, BTreeSet};

use entity::{
    delegation::Status,
    delegation_step::{Kind, OnFailure, Status as StepStatus},
    id::{DelegationId, TaskId, UserId},
    time::Timestamp,
};

use crate::{error::refusals, task::agreement::Verdict};

refusals! {
    /// Why a delegation is not called off.
    DelegationRefused {
        /// It ended, or stops already.
        DelegationOver = "The delegation is over, or stops already.",
    }
}

/// The code of a delegation that its requester called off.
pub const CANCELLED: &str = "CANCELLED";

/// A stable code and a sentence for why something failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub code: String,
    pub message: String,
}

impl Failure {
    /// A failure of ours to name.
    #[must_use]
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into() }
    }
}

/// What of a delegation decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whole {
    pub status: Status,
    pub stop_code: Option<String>,
    pub ends_by: Timestamp,
}

/// What of a step decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    pub name: String,
    pub kind: Kind,
    pub status: StepStatus,
    pub depends_on: Vec<String>,
    pub on_failure: OnFailure,
    pub retries: i32,
    pub attempts: i32,
    pub replicas: usize,
    pub agree: usize,
    pub failure: Option<Failure>,
    /// The tasks of the present attempt, in the order of the replicas.
    pub tries: Vec<Try>,
    /// The delegation that a group is in the present attempt.
    pub child: Option<Child>,
}

/// One task of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Try {
    pub task: TaskId,
    pub state: TryState,
    /// Who owns the agent that won it.
    pub owner: Option<UserId>,
}

/// Where a task of a step is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TryState {
    /// Its auction takes bids.
    Open,
    /// An agent has it.
    InWork,
    /// This result waits for those of the others, by a text that equal results share.
    Answered(String),
    /// This result was paid.
    Accepted(String),
    /// It came to nothing.
    Failed(Failure),
}

/// The delegation that a group is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Child {
    pub id: DelegationId,
    pub status: Status,
    pub failure: Option<Failure>,
}

/// One thing to do. Steps are named by their place in the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The step has its output: that of this task, or of its delegation.
    Complete { step: usize, task: Option<TaskId> },
    /// The step ends in this state without an output.
    End { step: usize, status: StepStatus, failure: Option<Failure> },
    /// Begin the step, or begin it again.
    Begin { step: usize },
    /// Let one more agent do the same.
    Replicate { step: usize },
    /// Settle a result by what the others say.
    Judge { task: TaskId, verdict: Verdict },
    /// Withdraw a task whose auction is open.
    CallOff { task: TaskId },
    /// Stop the delegation that a group is.
    StopChild { child: DelegationId },
    /// Begin nothing new.
    Stop(Failure),
    /// End it: nothing is in work any more.
    Finish(Status),
}

/// Whether nothing more can happen to a delegation.
#[must_use]
pub fn is_over(status: Status) -> bool {
    match status {
        Status::Planning | Status::Running | Status::Stopping => false,
        Status::Completed | Status::Failed | Status::Cancelled => true,
    }
}

/// Whether nothing more can happen to a step.
#[must_use]
pub fn is_ended(status: StepStatus) -> bool {
    match status {
        StepStatus::Pending | StepStatus::Running => false,
        StepStatus::Completed | StepStatus::Failed | StepStatus::Skipped | StepStatus::Cancelled => true,
    }
}

/// Whether those that wait for a step may begin.
fn is_done(status: StepStatus) -> bool {
    matches!(status, StepStatus::Completed | StepStatus::Skipped)
}

/// The next thing to do, if there is any before something else happens.
#[must_use]
pub fn next(whole: &Whole, stages: &[Stage], now: Timestamp) -> Option<Action> {
    if is_over(whole.status) {
        return None;
    }
    let stopping = whole.status == Status::Stopping;
    if !stopping && whole.ends_by <= now {
        let failure = Failure::new("DEADLINE_EXCEEDED", "The delegation did not end before its deadline.");
        return Some(Action::Stop(failure));
    }
    let running = |stage: &&Stage| stage.status == StepStatus::Running;
    let in_work = stages.iter().enumerate().filter(|(_, stage)| running(stage));
    if let Some(action) = in_work.into_iter().find_map(|(step, stage)| judge(step, stage, stopping)) {
        return Some(action);
    }
    if stopping {
        return wind_up(whole, stages);
    }
    if let Some(failed) = stages.iter().find(|stage| stage.status == StepStatus::Failed) {
        return Some(Action::Stop(because_of(failed)));
    }
    let done = |name: &String| stages.iter().any(|stage| stage.name == *name && is_done(stage.status));
    let ready = |stage: &Stage| stage.status == StepStatus::Pending && stage.depends_on.iter().all(done);
    if let Some(step) = stages.iter().position(ready) {
        return Some(Action::Begin { step });
    }
    if whole.status == Status::Planning || !stages.iter().all(|stage| is_done(stage.status)) {
        return None;
    }
    let something = stages.iter().any(|stage| stage.kind != Kind::Plan && stage.status == StepStatus::Completed);
    if something {
        return Some(Action::Finish(Status::Completed));
    }
    Some(Action::Stop(Failure::new("NOTHING_DONE", "Every step was skipped.")))
}

/// What is left to do in a delegation that stops and whose running steps leave nothing to do now.
fn wind_up(whole: &Whole, stages: &[Stage]) -> Option<Action> {
    if let Some(step) = stages.iter().position(|stage| stage.status == StepStatus::Pending) {
        return Some(Action::End { step, status: StepStatus::Cancelled, failure: None });
    }
    if stages.iter().any(|stage| stage.status == StepStatus::Running) {
        return None;
    }
    let called_off = whole.stop_code.as_deref() == Some(CANCELLED);
    Some(Action::Finish(if called_off { Status::Cancelled } else { Status::Failed }))
}

/// Why a delegation stops whose step failed. Nobody called the delegation off when a step of it was.
fn because_of(stage: &Stage) -> Failure {
    let (code, message) = match &stage.failure {
        Some(failure) if failure.code == CANCELLED => ("STEP_CANCELLED", failure.message.as_str()),
        Some(failure) => (failure.code.as_str(), failure.message.as_str()),
        None => ("STEP_FAILED", ""),
    };
    Failure::new(code, format!("The step {} failed. {message}", stage.name).trim_end())
}

/// What follows from where the tasks of a running step are.
fn judge(step: usize, stage: &Stage, stopping: bool) -> Option<Action> {
    match stage.kind {
        Kind::Group => {
            let child = stage.child.as_ref()?;
            match child.status {
                Status::Completed => Some(Action::Complete { step, task: None }),
                Status::Failed | Status::Cancelled => {
                    let failure = child.failure.clone();
                    let failure = failure.unwrap_or_else(|| Failure::new("GROUP_FAILED", "The group failed."));
                    Some(failed(step, stage, failure, stopping))
                }
                Status::Planning | Status::Running if stopping => Some(Action::StopChild { child: child.id }),
                Status::Planning | Status::Running | Status::Stopping => None,
            }
        }
        Kind::Plan | Kind::Work if stage.replicas > 1 => agree(step, stage, stopping),
        Kind::Plan | Kind::Work => {
            let only = stage.tries.last()?;
            match &only.state {
                TryState::Accepted(_) => Some(Action::Complete { step, task: Some(only.task) }),
                TryState::Failed(failure) => Some(failed(step, stage, failure.clone(), stopping)),
                TryState::Open if stopping => Some(Action::CallOff { task: only.task }),
                TryState::Open | TryState::InWork | TryState::Answered(_) => None,
            }
        }
    }
}

/// What follows when several agents do the same. A result wins when enough different owners' agents gave it; results that were paid
/// have won. As soon as one has won, those that are there are settled by it and nothing more is bought; as soon as none can win any
/// more, they are given back.
fn agree(step: usize, stage: &Stage, stopping: bool) -> Option<Action> {
    let mut given: BTreeMap<&str, BTreeSet<UserId>> = BTreeMap::new();
    for each in &stage.tries {
        if let (TryState::Answered(result) | TryState::Accepted(result), Some(owner)) = (&each.state, each.owner) {
            given.entry(result).or_default().insert(owner);
        }
    }
    let paid = stage.tries.iter().find_map(|each| match &each.state {
        TryState::Accepted(result) => Some(result.as_str()),
        TryState::Open | TryState::InWork | TryState::Answered(_) | TryState::Failed(_) => None,
    });
    let enough = given.iter().find(|(_, owners)| owners.len() >= stage.agree).map(|(result, _)| *result);
    let won = paid.or(enough);
    let is_open = |each: &&Try| each.state == TryState::Open;
    let waited_for = stage.tries.iter().filter(|each| is_open(each) || each.state == TryState::InWork).count();
    let unposted = if stopping { 0 } else { stage.replicas.saturating_sub(stage.tries.len()) };
    if won.is_none() {
        let best = given.values().map(BTreeSet::len).max().unwrap_or(0);
        if best.saturating_add(waited_for).saturating_add(unposted) >= stage.agree {
            return match stage.tries.iter().find(is_open) {
                Some(open) if stopping => Some(Action::CallOff { task: open.task }),
                Some(_) => None,
                None => (unposted > 0).then_some(Action::Replicate { step }),
            };
        }
    }
    let answered = stage.tries.iter().find_map(|each| match &each.state {
        TryState::Answered(result) => Some((each.task, result.as_str())),
        TryState::Open | TryState::InWork | TryState::Accepted(_) | TryState::Failed(_) => None,
    });
    if let Some((task, result)) = answered {
        let verdict = match won {
            Some(won) if won == result => Verdict::Agrees,
            Some(_) => Verdict::Disagrees,
            None => Verdict::Undecided,
        };
        return Some(Action::Judge { task, verdict });
    }
    if let Some(open) = stage.tries.iter().find(is_open) {
        return Some(Action::CallOff { task: open.task });
    }
    if waited_for > 0 {
        return None;
    }
    let accepted = stage.tries.iter().find(|each| matches!(each.state, TryState::Accepted(_)));
    if let Some(accepted) = accepted {
        return Some(Action::Complete { step, task: Some(accepted.task) });
    }
    let failures = || {
        stage.tries.iter().filter_map(|each| match &each.state {
            TryState::Failed(failure) => Some(failure),
            TryState::Open | TryState::InWork | TryState::Answered(_) | TryState::Accepted(_) => None,
        })
    };
    let undecided = failures().find(|failure| failure.code == "NO_AGREEMENT").or_else(|| failures().next_back());
    let failure = undecided.cloned().unwrap_or_else(|| Failure::new("NO_AGREEMENT", "Nobody gave a result."));
    Some(failed(step, stage, failure, stopping))
}

/// What follows an attempt that failed.
fn failed(step: usize, stage: &Stage, failure: Failure, stopping: bool) -> Action {
    let again = stage.on_failure == OnFailure::Retry && stage.attempts <= stage.retries;
    if again && !stopping {
        return Action::Begin { step };
    }
    Action::End { step, status: gives_up(stage.on_failure, stopping), failure: Some(failure) }
}

/// The state of a step that has failed for good.
#[must_use]
pub fn gives_up(on_failure: OnFailure, stopping: bool) -> StepStatus {
    match on_failure {
        OnFailure::Fail | OnFailure::Retry | OnFailure::Skip if stopping => StepStatus::Cancelled,
        OnFailure::Fail | OnFailure::Retry => StepStatus::Failed,
        OnFailure::Skip => StepStatus::Skipped,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use uuid::Uuid;

    const NOW: Timestamp = Timestamp::from_micros(0);

    /// A delegation in a world that deals outcomes from a list of numbers.
    struct Played {
        whole: Whole,
        stages: Vec<Stage>,
        dice: Vec<u8>,
        thrown: usize,
        tasks: u128,
        begun_while_stopping: bool,
        /// What the plan will be, while it is being made.
        made: Vec<Stage>,
    }

    impl Played {
        fn throw(&mut self, sides: u8) -> u8 {
            let dice = self.dice[self.thrown % self.dice.len()]
                .wrapping_add(u8::try_from(self.thrown / self.dice.len() % 251).unwrap());
            self.thrown += 1;
            dice % sides
        }

        fn post(&mut self, step: usize) {
            self.begun_while_stopping |= self.whole.status == Status::Stopping;
            self.tasks += 1;
            let task = TaskId(Uuid::from_u128(self.tasks));
            // One in eight expires at once, others are awarded at once or later.
            let state = match self.throw(8) {
                0 => TryState::Failed(Failure::new("NO_ELIGIBLE_BID", "")),
                1..=4 => TryState::InWork,
                _ => TryState::Open,
            };
            let owner = Some(UserId(Uuid::from_u128(u128::from(self.throw(4)))));
            self.stages[step].tries.push(Try { task, state, owner });
        }

        fn find(&mut self, task: TaskId) -> &mut Try {
            self.stages.iter_mut().flat_map(|stage| &mut stage.tries).find(|each| each.task == task).unwrap()
        }

        fn apply(&mut self, action: Action) {
            assert!(!is_over(self.whole.status), "{action:?} after the end");
            let stops = self.whole.status == Status::Stopping;
            match action {
                Action::Complete { step, task } => {
                    let stage = &mut self.stages[step];
                    assert_eq!(stage.status, StepStatus::Running);
                    let of_task = task.map(|task| {
                        stage.tries.iter().any(|it| it.task == task && matches!(it.state, TryState::Accepted(_)))
                    });
                    assert!(of_task.unwrap_or(true), "completed by what was not paid");
                    stage.status = StepStatus::Completed;
                    if stage.kind == Kind::Plan {
                        self.whole.status = Status::Running;
                        self.stages.append(&mut self.made);
                    }
                }
                Action::End { step, status, failure } => {
                    let stage = &mut self.stages[step];
                    assert!(!is_ended(stage.status) && is_ended(status) && status != StepStatus::Completed);
                    stage.status = status;
                    stage.failure = failure;
                }
                Action::Begin { step } => {
                    assert!(!stops, "begun while it stops");
                    let (done, waits_for) = (self.done(), self.stages[step].depends_on.clone());
                    assert!(waits_for.iter().all(|name| done.contains(name)), "begun too early");
                    let stage = &mut self.stages[step];
                    assert!(!is_ended(stage.status), "begun after its end");
                    stage.status = StepStatus::Running;
                    stage.attempts += 1;
                    assert!(stage.attempts <= 1 + stage.retries, "begun too often");
                    stage.tries.clear();
                    if stage.kind == Kind::Group {
                        let id = DelegationId(Uuid::from_u128(self.tasks));
                        stage.child = Some(Child { id, status: Status::Running, failure: None });
                    } else {
                        self.post(step);
                    }
                }
                Action::Replicate { step } => {
                    assert!(!stops, "bought while it stops");
                    assert!(self.stages[step].tries.len() < self.stages[step].replicas);
                    self.post(step);
                }
                Action::Judge { task, verdict } => {
                    let each = self.find(task);
                    let TryState::Answered(result) = each.state.clone() else { panic!("judged without a result") };
                    each.state = match verdict {
                        Verdict::Agrees => TryState::Accepted(result),
                        Verdict::Disagrees => TryState::Failed(Failure::new("DISAGREES", "")),
                        Verdict::Undecided => TryState::Failed(Failure::new("NO_AGREEMENT", "")),
                    };
                }
                Action::CallOff { task } => {
                    let each = self.find(task);
                    assert_eq!(each.state, TryState::Open);
                    each.state = TryState::Failed(Failure::new(CANCELLED, ""));
                }
                Action::StopChild { child } => {
                    assert!(stops);
                    let children = self.stages.iter_mut().filter_map(|stage| stage.child.as_mut());
                    children.filter(|known| known.id == child).for_each(|known| known.status = Status::Stopping);
                }
                Action::Stop(failure) => {
                    assert!(!stops, "stopped twice");
                    self.whole.status = Status::Stopping;
                    self.whole.stop_code = Some(failure.code);
                }
                Action::Finish(status) => {
                    assert!(is_over(status));
                    assert_eq!(status == Status::Completed, !stops);
                    for stage in &self.stages {
                        assert!(is_ended(stage.status), "{stage:?} is not over");
                        let held = |each: &Try| !matches!(each.state, TryState::Accepted(_) | TryState::Failed(_));
                        assert!(!stage.tries.iter().any(held), "{stage:?} holds credits");
                    }
                    self.whole.status = status;
                }
            }
        }

        fn done(&self) -> BTreeSet<String> {
            self.stages.iter().filter(|stage| is_done(stage.status)).map(|stage| stage.name.clone()).collect()
        }

        /// Something happens to something that waits. Answers whether there was anything.
        fn happen(&mut self) -> bool {
            let mut waiting = Vec::new();
            for (place, stage) in
                self.stages.iter().enumerate().filter(|(_, stage)| stage.status == StepStatus::Running)
            {
                let waits = |each: &Try| matches!(each.state, TryState::Open | TryState::InWork);
                waiting.extend(
                    stage.tries.iter().enumerate().filter(|(_, it)| waits(it)).map(|(at, _)| (place, Some(at))),
                );
                if stage.child.as_ref().is_some_and(|child| !is_over(child.status)) {
                    waiting.push((place, None));
                }
            }
            if waiting.is_empty() {
                return false;
            }
            let chosen = usize::from(self.throw(200)) % waiting.len();
            let (place, at) = waiting[chosen];
            let outcome = self.throw(6);
            let stage = &mut self.stages[place];
            let Some(at) = at else {
                let child = stage.child.as_mut().unwrap();
                child.status = match (child.status, outcome) {
                    (Status::Stopping, _) | (_, 0) => Status::Failed,
                    (_, 1) => Status::Cancelled,
                    (_, _) => Status::Completed,
                };
                return true;
            };
            let agreed = stage.replicas > 1;
            let each = &mut stage.tries[at];
            each.state = match (each.state.clone(), outcome) {
                (TryState::Open, 0) => TryState::Failed(Failure::new("NO_ELIGIBLE_BID", "")),
                (TryState::Open, _) => TryState::InWork,
                (_, 0) => TryState::Failed(Failure::new("TRAP", "")),
                (_, other) if agreed => TryState::Answered((other % 2).to_string()),
                (_, _) => TryState::Accepted(String::new()),
            };
            true
        }
    }

    fn stage(place: usize, (kind, on_failure, replicas, waits): (u8, u8, usize, u8)) -> Stage {
        let kind = if kind == 0 { Kind::Group } else { Kind::Work };
        let on_failure = [OnFailure::Fail, OnFailure::Retry, OnFailure::Skip][usize::from(on_failure)];
        let replicas = if kind == Kind::Group { 1 } else { replicas };
        Stage {
            name: place.to_string(),
            kind,
            status: StepStatus::Pending,
            // On any of the eight before it.
            depends_on: (0..8).filter(|bit| waits >> bit & 1 == 1 && *bit < place).map(|bit| bit.to_string()).collect(),
            on_failure,
            retries: if on_failure == OnFailure::Retry { 2 } else { 0 },
            attempts: 0,
            replicas,
            agree: replicas / 2 + 1,
            failure: None,
            tries: Vec::new(),
            child: None,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn every_delegation_ends_once_whatever_becomes_of_its_steps(
            parts in proptest::collection::vec((0..5_u8, 0..3_u8, 1..5_usize, any::<u8>()), 1..9),
            dice in proptest::collection::vec(any::<u8>(), 8..64),
            stopped_after in proptest::option::of(0..60_usize),
            planned: bool,
        ) {
            let mut stages: Vec<Stage> = parts.into_iter().enumerate().map(|(place, part)| stage(place, part)).collect();
            let mut made = Vec::new();
            if planned {
                let plan = Stage { kind: Kind::Plan, name: "plan".to_owned(), ..stage(0, (1, 0, 1, 0)) };
                made = std::mem::replace(&mut stages, vec![plan]);
            }
            let status = if planned { Status::Planning } else { Status::Running };
            let whole = Whole { status, stop_code: None, ends_by: NOW.after(std::time::Duration::from_secs(1)) };
            let mut played = Played { whole, stages, dice, thrown: 0, tasks: 0, begun_while_stopping: false, made };
            let bound = 2_000;
            for round in 0.. {
                prop_assert!(round < bound, "it goes on for ever");
                if stopped_after == Some(round) && matches!(played.whole.status, Status::Planning | Status::Running) {
                    played.apply(Action::Stop(Failure::new(CANCELLED, "")));
                }
                if let Some(action) = next(&played.whole, &played.stages, NOW) {
                    // Whoever looks comes to the same.
                    prop_assert_eq!(next(&played.whole, &played.stages, NOW), Some(action.clone()));
                    played.apply(action);
                } else if is_over(played.whole.status) {
                    break;
                } else {
                    let waits = played.happen();
                    prop_assert!(waits, "nothing to do and nothing to wait for: {:?} {:?}", played.whole, played.stages);
                }
            }
            prop_assert!(!played.begun_while_stopping);
            let statuses: Vec<StepStatus> = played.stages.iter().map(|stage| stage.status).collect();
            match played.whole.status {
                Status::Completed => prop_assert!(statuses.iter().all(|status| is_done(*status)) && statuses.contains(&StepStatus::Completed)),
                Status::Cancelled => prop_assert!(stopped_after.is_some()),
                Status::Planning | Status::Running | Status::Stopping | Status::Failed => {
                    prop_assert!(played.whole.stop_code.is_some());
                }
            }
        }
    }

    fn with(states: &[TryState], replicas: usize, agree: usize) -> Stage {
        let tries = states.iter().enumerate().map(|(number, state)| {
            let id = Uuid::from_u128(u128::try_from(number).unwrap());
            Try { task: TaskId(id), state: state.clone(), owner: Some(UserId(id)) }
        });
        let tries = tries.collect();
        Stage { status: StepStatus::Running, attempts: 1, replicas, agree, tries, ..stage(0, (1, 0, 1, 0)) }
    }

    #[test]
    fn agreement_is_found_as_soon_as_it_can_be_and_given_up_as_soon_as_it_cannot() {
        use TryState as T;
        let (a, b) = (T::Answered("a".to_owned()), T::Answered("b".to_owned()));
        let (paid, gone) = (T::Accepted("a".to_owned()), T::Failed(Failure::new("TRAP", "")));
        let undecided = T::Failed(Failure::new("NO_AGREEMENT", ""));
        let judged = |task: u128, verdict| Some(Action::Judge { task: TaskId(Uuid::from_u128(task)), verdict });
        let off = |task: u128| Some(Action::CallOff { task: TaskId(Uuid::from_u128(task)) });
        let more = Some(Action::Replicate { step: 0 });
        let done = |task: u128| Some(Action::Complete { step: 0, task: Some(TaskId(Uuid::from_u128(task))) });
        let fails = |code: &str| {
            let message = String::new();
            Some(Action::End {
                step: 0,
                status: StepStatus::Failed,
                failure: Some(Failure { code: code.to_owned(), message }),
            })
        };
        for (states, expected) in [
            (vec![T::InWork], more.clone()),
            (vec![T::Open], None),
            (vec![a.clone()], more.clone()),
            (vec![gone.clone()], more.clone()),
            (vec![gone.clone(), gone.clone()], fails("TRAP")),
            (vec![gone.clone(), gone.clone(), a.clone()], judged(2, Verdict::Undecided)),
            (vec![a.clone(), b.clone()], more.clone()),
            (vec![a.clone(), a.clone()], judged(0, Verdict::Agrees)),
            (vec![paid.clone(), a.clone()], judged(1, Verdict::Agrees)),
            (vec![paid.clone(), paid.clone()], done(0)),
            (vec![b.clone(), paid.clone(), paid.clone()], judged(0, Verdict::Disagrees)),
            (vec![paid.clone(), paid.clone(), T::InWork], None),
            (vec![paid.clone(), paid.clone(), T::Open], off(2)),
            (vec![a.clone(), b.clone(), T::InWork], None),
            (vec![a.clone(), b.clone(), gone.clone()], judged(0, Verdict::Undecided)),
            (vec![undecided.clone(), undecided.clone(), gone.clone()], fails("NO_AGREEMENT")),
        ] {
            assert_eq!(judge(0, &with(&states, 3, 2), false), expected, "{states:?}");
        }
        // While it stops nothing more is bought, and what is there still counts.
        assert_eq!(judge(0, &with(std::slice::from_ref(&a), 3, 2), true), judged(0, Verdict::Undecided));
        assert_eq!(judge(0, &with(&[a.clone(), a.clone()], 3, 2), true), judged(0, Verdict::Agrees));
        assert_eq!(judge(0, &with(&[a.clone(), T::Open], 3, 2), true), off(1));
        // Two agents of one owner are one voice.
        let mut stage = with(&[a.clone(), a.clone()], 3, 2);
        stage.tries[1].owner = stage.tries[0].owner;
        assert_eq!(judge(0, &stage, false), more);
    }

    #[test]
    fn the_deadline_comes_before_everything_that_is_new() {
        let whole = Whole { status: Status::Running, stop_code: None, ends_by: NOW };
        let stages = [stage(0, (1, 0, 1, 0))];
        assert!(
            matches!(next(&whole, &stages, NOW), Some(Action::Stop(failure)) if failure.code == "DEADLINE_EXCEEDED")
        );
        // A step that was called off by itself is no calling off of the whole.
        let mut failed = stage(0, (1, 0, 1, 0));
        (failed.status, failed.failure) = (StepStatus::Failed, Some(Failure::new(CANCELLED, "")));
        let whole = Whole { ends_by: NOW.after(std::time::Duration::from_secs(1)), ..whole };
        assert!(
            matches!(next(&whole, &[failed], NOW), Some(Action::Stop(failure)) if failure.code == "STEP_CANCELLED")
        );
    }
}
