//! The values that labels can have. Each set is an enumeration, so a value that nobody declared cannot be recorded, and one that
//! nobody records is dead code.

use entity::agent::Runtime;

/// A label: its name and the closed set of its values.
pub(crate) trait Label: Copy {
    /// The name of the label.
    const NAME: &'static str;
    /// The values, in the order of the variants.
    const VALUES: &'static [&'static str];

    /// The place of this value among all of them.
    fn index(self) -> usize;
}

/// Declares labels: the type, the name and the values.
macro_rules! label {
    ($($(#[$doc:meta])* $label:ident = $name:literal { $($variant:ident = $value:literal,)+ })+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum $label {
            $($variant,)+
        }

        impl Label for $label {
            const NAME: &'static str = $name;
            const VALUES: &'static [&'static str] = &[$($value,)+];

            fn index(self) -> usize {
                Self::VALUES.iter().position(|known| *known == self.value()).unwrap_or_default()
            }
        }

        impl $label {
            /// The value as it is written.
            pub(crate) fn value(self) -> &'static str {
                match self {
                    $(Self::$variant => $value,)+
                }
            }
        }
    )+};
}

/// Declares labels whose values come from stable codes in upper case: the code of a value is the value in upper case.
macro_rules! coded {
    ($($(#[$doc:meta])* $label:ident = $name:literal { $($variant:ident = $value:literal,)+ })+) => {
        label! { $($(#[$doc])* $label = $name { $($variant = $value,)+ })+ }

        $(impl $label {
            /// The value of a code, if it is a known one.
            pub(super) fn of(code: &str) -> Option<Self> {
                match code.to_ascii_lowercase().as_str() {
                    $($value => Some(Self::$variant),)+
                    _ => None,
                }
            }
        })+
    };
}

label! {
    /// A transition of a payment channel.
    ChannelEvent = "event" {
        Opened = "opened",
        Funded = "funded",
        Paid = "paid",
        Closing = "closing",
        Reopened = "reopened",
        Closed = "closed",
        Expired = "expired",
        Disputed = "disputed",
        Equivocation = "equivocation",
    }
    /// Whose part of a channel it is.
    Side = "side" { Payer = "payer", Payee = "payee", }
    /// How a payment out of a streaming channel went.
    PaymentOutcome = "outcome" { Succeeded = "succeeded", Rejected = "rejected", Failed = "failed", }
    /// How a settlement went.
    SettlementOutcome = "outcome" { Released = "released", Refunded = "refunded", Split = "split", Failed = "failed", }
    /// How a settlement that was made went.
    Settled = "outcome" { Released = "released", Refunded = "refunded", Split = "split", }
    /// How far a dispute came.
    DisputeStage = "stage" { Opened = "opened", Upheld = "upheld", Rejected = "rejected", Expired = "expired", }
    /// How an auction closed.
    AuctionOutcome = "outcome" { Awarded = "awarded", NoBids = "no_bids", Cancelled = "cancelled", }
    /// What became of a bid when it came, or was taken back.
    BidOutcome = "outcome" {
        Accepted = "accepted",
        Rejected = "rejected",
        Withdrawn = "withdrawn",
        Committed = "committed",
        Revealed = "revealed",
    }
    /// Where an agent runs.
    AgentRuntime = "runtime" { Wasm = "wasm", External = "external", }
    /// Where a task ran; nowhere if no agent began it.
    TaskRuntime = "runtime" { Wasm = "wasm", External = "external", None = "none", }
    /// How a task ended.
    TaskOutcome = "outcome" {
        Succeeded = "succeeded",
        Failed = "failed",
        TimedOut = "timed_out",
        Cancelled = "cancelled",
        Expired = "expired",
    }
    /// How the work on a task ended.
    WorkOutcome = "outcome" { Succeeded = "succeeded", Failed = "failed", TimedOut = "timed_out", }
    /// Why an escrow went back.
    RefundReason = "reason" {
        TaskFailed = "task_failed",
        Timeout = "timeout",
        Dispute = "dispute",
        Cancelled = "cancelled",
        NoAward = "no_award",
    }
    /// How a delegation ended.
    DelegationOutcome = "outcome" { Completed = "completed", Failed = "failed", Cancelled = "cancelled", }
    /// How a step of a delegation ended.
    StepOutcome = "outcome" { Completed = "completed", Failed = "failed", Skipped = "skipped", }
    /// How a try to deliver a webhook message went.
    WebhookOutcome = "outcome" { Delivered = "delivered", Retried = "retried", GivenUp = "given_up", }
    /// Whether a module was ready to run.
    ModuleCache = "cache" { Hit = "hit", Read = "read", Compiled = "compiled", }
    /// How much of the books an audit looks at.
    AuditReach = "reach" { Recent = "recent", Whole = "whole", }
    /// The kind of a GraphQL operation.
    OperationType = "operation_type" { Query = "query", Mutation = "mutation", Subscription = "subscription", }
    /// The kind of an operation that has one answer.
    Answered = "operation_type" { Query = "query", Mutation = "mutation", }
    /// How an operation went.
    RequestOutcome = "outcome" { Ok = "ok", ClientError = "client_error", ServerError = "server_error", }
    /// What a caller had too much of.
    Limited = "limit" { Points = "points", Requests = "requests", Streams = "streams", Addresses = "addresses", }
    /// A connection that stays open.
    SocketKind = "kind" { WebSocket = "websocket", EventStream = "event_stream", }
    /// The state of a connection to the database.
    PoolState = "state" { Idle = "idle", Used = "used", }
}

coded! {
    /// Why a channel closed.
    CloseReason = "reason" {
        Settled = "settled",
        Refunded = "refunded",
        Forfeited = "forfeited",
        AgentClosed = "agent_closed",
        Cooperative = "cooperative",
        PayerClosed = "payer_closed",
        Expired = "expired",
    }
    /// Why a reputation moved.
    Cause = "cause" {
        Success = "success",
        Failure = "failure",
        Ruling = "ruling",
        Timeout = "timeout",
        Rating = "rating",
    }
    /// How a claim of work went.
    ClaimResult = "result" {
        Claimed = "claimed",
        LeaseHeld = "lease_held",
        WorkNotOffered = "work_not_offered",
        NoAttemptsLeft = "no_attempts_left",
        Other = "other",
    }
    /// Why an attempt at a task came to nothing.
    TaskError = "reason" {
        Trap = "trap",
        OutOfFuel = "out_of_fuel",
        OutOfTime = "out_of_time",
        OutOfMemory = "out_of_memory",
        StackOverflow = "stack_overflow",
        OutputTooLarge = "output_too_large",
        ExitCode = "exit_code",
        MissingEntryPoint = "missing_entry_point",
        InvalidModule = "invalid_module",
        OutputNotJson = "output_not_json",
        OutputSchemaViolation = "output_schema_violation",
        CheckFailed = "check_failed",
        CheckerFailed = "checker_failed",
        OutputNotAPlan = "output_not_a_plan",
        ModuleUnavailable = "module_unavailable",
        ModuleHashMismatch = "module_hash_mismatch",
        ExecutorFailed = "executor_failed",
        WorkerLost = "worker_lost",
        DeadlineExceeded = "deadline_exceeded",
        Other = "other",
    }
}

impl From<Runtime> for AgentRuntime {
    fn from(runtime: Runtime) -> Self {
        match runtime {
            Runtime::Hosted => Self::Wasm,
            Runtime::External => Self::External,
        }
    }
}

impl From<AgentRuntime> for TaskRuntime {
    fn from(runtime: AgentRuntime) -> Self {
        match runtime {
            AgentRuntime::Wasm => Self::Wasm,
            AgentRuntime::External => Self::External,
        }
    }
}

impl From<WorkOutcome> for TaskOutcome {
    fn from(outcome: WorkOutcome) -> Self {
        match outcome {
            WorkOutcome::Succeeded => Self::Succeeded,
            WorkOutcome::Failed => Self::Failed,
            WorkOutcome::TimedOut => Self::TimedOut,
        }
    }
}

impl From<Settled> for SettlementOutcome {
    fn from(settled: Settled) -> Self {
        match settled {
            Settled::Released => Self::Released,
            Settled::Refunded => Self::Refunded,
            Settled::Split => Self::Split,
        }
    }
}

#[cfg(test)]
mod tests {
    use entity::{channel, reputation_event};
    use sea_orm::Iterable;

    use super::*;

    #[test]
    fn every_reason_and_every_cause_of_the_market_has_its_value() {
        for reason in channel::CloseReason::iter() {
            assert!(CloseReason::of(reason.name()).is_some(), "{}", reason.name());
        }
        for cause in reputation_event::Cause::iter() {
            assert!(Cause::of(cause.name()).is_some(), "{}", cause.name());
        }
        assert_eq!(CloseReason::VALUES.len(), channel::CloseReason::iter().count());
        assert_eq!(Cause::VALUES.len(), reputation_event::Cause::iter().count());
    }

    #[test]
    fn a_value_is_at_its_place() {
        assert_eq!((Settled::Split.index(), Settled::VALUES[2]), (2, "split"));
        assert_eq!(TaskError::of("WORKER_LOST"), Some(TaskError::WorkerLost));
        assert_eq!(TaskError::of("NEVER_HEARD_OF"), None);
    }
}
