//! The rules of running work: who may claim it, who holds the lease, and what follows a failed attempt.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::time::Duration;

use entity::{
    execution::{self, Status},
    task,
    time::Timestamp,
};

use crate::{
    error::{Error, Result as Checked, refusals},
    task::rules::{TaskRefused, backoff, is_due},
};

/// Characters of a worker's name at most.
pub const MAX_WORKER: usize = 100;
/// Characters of a code with which an agent gives up at most.
pub const MAX_FAULT_CODE: usize = 64;
/// Characters of the sentence with which an agent gives up at most.
pub const MAX_FAULT_MESSAGE: usize = 500;
/// What the codes of agents begin with where they are stored, so that none can be mistaken for one of ours.
const FAULT_PREFIX: &str = "AGENT_";

refusals! {
    /// Why an agent that runs elsewhere does not get what it asks for.
    WorkRefused {
        /// There is nothing to claim: the work is hosted, has ended, was given to the next bid, or its time is over.
        WorkNotOffered = "This work is not offered to the agent: it is hosted, has ended, went to another bid, or its time is over.",
        /// A worker of the agent has it.
        LeaseHeld = "A worker of the agent holds this work; it may be claimed when the lease is over.",
        /// The work was tried as often as it may be.
        NoAttemptsLeft = "The work was tried as often as it may be; the payer is being refunded.",
        /// The output breaks the task's schema. The lease stays, so that the agent can correct it.
        OutputSchemaViolation = "The output does not satisfy the task's schema.",
        /// The output has too many bytes.
        OutputTooLarge = "The output has more bytes than work may answer.",
    }
}

/// Whether an agent that runs elsewhere may claim its work on a locked task now. Work whose lease is over may be claimed over, also
/// before the sweeper noticed.
pub fn may_claim(task: &task::Model, execution: &execution::Model, now: Timestamp) -> Result<(), WorkRefused> {
    let offered = match execution.status {
        Status::Ready => execution.run_at <= now,
        Status::Running if execution.leased_until.is_some_and(|until| now < until) => {
            return Err(WorkRefused::LeaseHeld);
        }
        Status::Running => true,
        Status::Succeeded | Status::Failed | Status::Forfeited => false,
    };
    if !offered || is_due(task, now) {
        return Err(WorkRefused::WorkNotOffered);
    }
    if execution.attempts < task.max_attempts { Ok(()) } else { Err(WorkRefused::NoAttemptsLeft) }
}

/// When the time of an attempt that began at `started` is over: no heartbeat extends its lease beyond that.
#[must_use]
pub fn ends_by(task: &task::Model, started: Timestamp) -> Timestamp {
    started.after(Duration::from_millis(u64::try_from(task.timeout_ms).unwrap_or(0)))
}

/// What a worker calls itself: 1 to 100 characters that show something or are spaces.
pub fn worker_name(name: Option<String>) -> Checked<Option<String>> {
    let fits = |name: &String| (1..=MAX_WORKER).contains(&name.chars().count()) && !name.chars().any(char::is_control);
    match name {
        Some(name) if !fits(&name) => {
            Err(Error::invalid("worker", format!("must be 1 to {MAX_WORKER} characters without control characters")))
        }
        Some(_) | None => Ok(name),
    }
}

/// The code with which an agent gives up, as it is stored.
pub fn fault_code(code: &str) -> Checked<String> {
    let plain = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    if !(1..=MAX_FAULT_CODE).contains(&code.len()) || !code.bytes().all(plain) {
        return Err(Error::invalid("code", format!("must be 1 to {MAX_FAULT_CODE} of A to Z, 0 to 9 and _")));
    }
    Ok(format!("{FAULT_PREFIX}{code}"))
}

/// The sentence with which an agent gives up, without the space around it.
pub fn fault_message(message: &str) -> Checked<String> {
    let message = message.trim();
    if !(1..=MAX_FAULT_MESSAGE).contains(&message.chars().count()) || message.chars().any(char::is_control) {
        let bounds = format!("must be 1 to {MAX_FAULT_MESSAGE} characters without control characters");
        return Err(Error::invalid("message", bounds));
    }
    Ok(message.to_owned())
}

/// What is kept of the logs of an agent: the first `most` bytes, whole characters, without control characters but line feeds and
/// tabs, so that any database can store them and any terminal show them.
#[must_use]
pub fn kept_logs(logs: &str, most: usize) -> String {
    let mut kept = String::new();
    for letter in logs.chars().filter(|letter| !letter.is_control() || matches!(letter, '\n' | '\t')) {
        if kept.len().saturating_add(letter.len_utf8()) > most {
            break;
        }
        kept.push(letter);
    }
    kept
}

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

    #[test]
    fn an_agent_gives_up_with_a_code_that_is_not_ours() {
        assert_eq!(fault_code("RATE_LIMITED_2").unwrap(), "AGENT_RATE_LIMITED_2");
        assert!(fault_code(&"A".repeat(MAX_FAULT_CODE)).is_ok());
        for bad in ["", "lower", "WITH SPACE", "A-B", "Ä", &"A".repeat(MAX_FAULT_CODE + 1)] {
            assert!(fault_code(bad).is_err(), "{bad:?}");
        }
        assert_eq!(fault_message("  no disk ").unwrap(), "no disk");
        for bad in ["", "  ", "a\nb", &"x".repeat(MAX_FAULT_MESSAGE + 1)] {
            assert!(fault_message(bad).is_err(), "{bad:?}");
        }
        assert_eq!(worker_name(None).unwrap(), None);
        assert_eq!(worker_name(Some("box 1".to_owned())).unwrap().as_deref(), Some("box 1"));
        for bad in [String::new(), "a\u{0}".to_owned(), "x".repeat(MAX_WORKER + 1)] {
            assert!(worker_name(Some(bad)).is_err());
        }
    }

    #[test]
    fn logs_are_cut_between_characters() {
        assert_eq!(kept_logs("a\u{0}b\r\nc", 100), "ab\nc");
        assert_eq!(kept_logs("ééé", 5), "éé");
        assert_eq!(kept_logs("abc", 0), "");
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
