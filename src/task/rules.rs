//! The rules of a task's life.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::time::Duration;

use entity::task::{self, Status};

use crate::error::refusals;

refusals! {
    /// Why a task does not do what it is asked.
    TaskRefused {
        /// Only a task whose auction is open can be cancelled.
        TaskNotOpen = "The task is not open any more; it was awarded or has ended.",
        /// The worker's fencing token is not the newest: somebody else has claimed the work, or it has ended.
        LeaseLost = "The work was claimed by somebody else or has ended; this result does not count.",
    }
}

/// What can happen to a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// An agent won, or took over.
    Award,
    /// A worker claimed the work, the first time or again.
    Start,
    /// The result is there and waits for the payer.
    Submit,
    /// A party disputes the result.
    Dispute,
    /// The result was accepted, or a ruling gives the agent a share.
    Complete,
    /// The work failed.
    Refund,
    /// Nobody does it.
    Expire,
    /// The requester does not want it any more.
    Cancel,
}

/// Where a step leads, or nothing when it is not possible.
#[must_use]
pub fn next(status: Status, step: Step) -> Option<Status> {
    match (status, step) {
        (Status::Open | Status::Awarded, Step::Award) => Some(Status::Awarded),
        (Status::Awarded | Status::Running, Step::Start) => Some(Status::Running),
        (Status::Running, Step::Submit) => Some(Status::Submitted),
        (Status::Submitted, Step::Dispute) => Some(Status::Disputed),
        (Status::Running | Status::Submitted | Status::Disputed, Step::Complete) => Some(Status::Completed),
        (Status::Running | Status::Submitted | Status::Disputed, Step::Refund) => Some(Status::Refunded),
        (Status::Open | Status::Awarded, Step::Expire) => Some(Status::Expired),
        (Status::Open, Step::Cancel) => Some(Status::Cancelled),
        (Status::Open, Step::Start | Step::Submit | Step::Dispute | Step::Complete | Step::Refund)
        | (Status::Awarded, Step::Submit | Step::Dispute | Step::Complete | Step::Refund | Step::Cancel)
        | (Status::Running, Step::Award | Step::Dispute | Step::Expire | Step::Cancel)
        | (Status::Submitted, Step::Award | Step::Start | Step::Submit | Step::Expire | Step::Cancel)
        | (Status::Disputed, Step::Award | Step::Start | Step::Submit | Step::Dispute | Step::Expire | Step::Cancel)
        | (
            Status::Completed | Status::Refunded | Status::Expired | Status::Cancelled,
            Step::Award
            | Step::Start
            | Step::Submit
            | Step::Dispute
            | Step::Complete
            | Step::Refund
            | Step::Expire
            | Step::Cancel,
        ) => None,
    }
}

/// Whether nothing more can happen.
#[must_use]
pub fn is_over(status: Status) -> bool {
    match status {
        Status::Open | Status::Awarded | Status::Running | Status::Submitted | Status::Disputed => false,
        Status::Completed | Status::Refunded | Status::Expired | Status::Cancelled => true,
    }
}

/// The pause before try number `attempt + 1`, before jitter: `base · 2^(attempt−1)`, a minute at most.
#[must_use]
pub fn backoff(base: Duration, attempt: i32) -> Duration {
    let doublings = u32::try_from(attempt.saturating_sub(1)).unwrap_or(0).min(16);
    base.saturating_mul(1_u32 << doublings).min(Duration::from_mins(1))
}

/// The longest that the rest of a task's work can take from a claim on: every attempt left with its lease and pause.
#[must_use]
pub fn hard_limit(task: &task::Model, attempts: i32, lease: Duration, base: Duration) -> Duration {
    let timeout = Duration::from_millis(u64::try_from(task.timeout_ms).unwrap_or(0));
    (attempts..=task.max_attempts.max(attempts))
        .map(|attempt| timeout.saturating_add(lease).saturating_add(backoff(base, attempt)))
        .fold(Duration::ZERO, Duration::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sea_orm::Iterable;

    const STEPS: [Step; 8] = [
        Step::Award,
        Step::Start,
        Step::Submit,
        Step::Dispute,
        Step::Complete,
        Step::Refund,
        Step::Expire,
        Step::Cancel,
    ];

    #[test]
    fn nothing_leads_out_of_a_terminal_state() {
        for status in Status::iter().filter(|status| is_over(*status)) {
            assert!(STEPS.iter().all(|step| next(status, *step).is_none()), "{status:?}");
        }
    }

    #[test]
    fn every_other_state_has_a_way_to_an_end_that_gives_the_money_back() {
        for status in Status::iter().filter(|status| !is_over(*status)) {
            let ends: Vec<Status> = STEPS.iter().filter_map(|step| next(status, *step)).collect();
            assert!(
                ends.iter().any(|end| matches!(end, Status::Refunded | Status::Expired | Status::Cancelled)),
                "{status:?}"
            );
        }
    }

    #[test]
    fn payment_follows_only_work() {
        for status in Status::iter() {
            let worked = matches!(status, Status::Running | Status::Submitted | Status::Disputed);
            assert_eq!(next(status, Step::Complete).is_some(), worked);
        }
    }

    #[test]
    fn pauses_double_up_to_a_minute() {
        let base = Duration::from_millis(500);
        assert_eq!([1, 2, 3, 40].map(|attempt| backoff(base, attempt).as_millis()), [500, 1_000, 2_000, 60_000]);
    }
}
