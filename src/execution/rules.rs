//! The rules of running work: who holds the lease, and what follows a failed attempt.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::time::Duration;

use entity::execution::{self, Status};

use crate::task::rules::{TaskRefused, backoff};

/// Whether a worker that holds fencing token `token` may still bring a result. The end of a lease alone does not take the work
/// away: until somebody else claims it, finished work counts.
pub fn admit_result(execution: &execution::Model, token: i64) -> Result<(), TaskRefused> {
    let live = match execution.status {
        Status::Running | Status::Ready => true,
        Status::Succeeded | Status::Failed | Status::Forfeited => false,
    };
    if live && execution.token == token && token > 0 { Ok(()) } else { Err(TaskRefused::LeaseLost) }
}

/// What follows an attempt that failed through no fault of the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterFailure {
    /// Try again after a pause.
    Retry(Duration),
    /// There were enough attempts.
    GiveUp,
}

/// Decides about another attempt. `noise` makes the pause anything between nothing and the full back-off (full jitter), so that
/// what failed together is not tried again together.
#[must_use]
pub fn after_failure(attempts: i32, max_attempts: i32, base: Duration, noise: u32) -> AfterFailure {
    if attempts >= max_attempts {
        return AfterFailure::GiveUp;
    }
    let full = u64::try_from(backoff(base, attempts).as_micros()).unwrap_or(u64::MAX);
    AfterFailure::Retry(Duration::from_micros(u64::from(noise).checked_rem(full.saturating_add(1)).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use entity::{
        id::{AgentId, ExecutionId, TaskId},
        time::Timestamp,
    };
    use proptest::prelude::*;
    use uuid::Uuid;

    fn execution(status: Status, token: i64) -> execution::Model {
        execution::Model {
            id: ExecutionId(Uuid::nil()),
            task_id: TaskId(Uuid::nil()),
            agent_id: AgentId(Uuid::nil()),
            module_id: None,
            status,
            attempts: 1,
            token,
            worker: None,
            leased_until: None,
            run_at: Timestamp::from_micros(0),
            error_code: None,
            created_at: Timestamp::from_micros(0),
            started_at: None,
            finished_at: None,
            queue_at: Timestamp::from_micros(0),
        }
    }

    #[test]
    fn only_the_newest_token_counts_and_only_until_the_end() {
        for (status, held, shown, admitted) in [
            (Status::Running, 2, 2, true),
            (Status::Running, 2, 1, false),
            (Status::Running, 2, 3, false),
            (Status::Ready, 2, 2, true),
            (Status::Ready, 0, 0, false),
            (Status::Succeeded, 2, 2, false),
            (Status::Failed, 2, 2, false),
            (Status::Forfeited, 2, 2, false),
        ] {
            assert_eq!(admit_result(&execution(status, held), shown).is_ok(), admitted, "{status:?} {held} {shown}");
        }
    }

    proptest! {
        #[test]
        fn attempts_end_and_pauses_are_bounded(attempts in 1..20_i32, most in 1..20_i32, noise: u32) {
            match after_failure(attempts, most, Duration::from_millis(500), noise) {
                AfterFailure::GiveUp => prop_assert!(attempts >= most),
                AfterFailure::Retry(pause) => {
                    prop_assert!(attempts < most);
                    prop_assert!(pause <= backoff(Duration::from_millis(500), attempts));
                }
            }
        }
    }
}
