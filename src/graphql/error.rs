//! How failures look on the wire.
//!
//! | error of ours | where | code |
//! |---|---|---|
//! | `Invalid` `NotFound` `Refused` of a mutation | `userErrors` of the payload | the concept's `…ErrorCode` |
//! | `Invalid` `Refused` of a query | `errors` | `BAD_USER_INPUT` |
//! | `NotFound` of a query | nowhere: the field is null | |
//! | `Unauthenticated` `Forbidden` | `errors` | of the same name |
//! | `Throttled` `Unavailable` | `errors`, retryable | `RATE_LIMITED` `UNAVAILABLE` |
//! | `BooksBroken` | `errors`, retryable, with the reason `BOOKS_BROKEN` | `UNAVAILABLE` |
//! | `Internal` | `errors`; its text goes to the log, with the request id, and nowhere else | `INTERNAL_SERVER_ERROR` |

use crate::{
    error::{Error, Result},
    store::is_outage,
};
use async_graphql::{Enum, ErrorExtensionValues, Interface, SimpleObject};

/// A failure that is ready to be sent. It is not `Display`, and there is no `From<Error>` for it, so that `?` cannot send the
/// text of an internal error by accident.
#[derive(Clone, Debug)]
pub(super) struct Fault(async_graphql::Error);

impl From<Fault> for async_graphql::Error {
    fn from(fault: Fault) -> Self {
        fault.0
    }
}

/// What a field resolves to when it can fail.
pub(super) type Answer<T> = std::result::Result<T, Fault>;

/// An internal error that is in the log already.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("reported before")]
pub(super) struct Reported;

/// Makes an error sendable, and logs it if it is internal.
pub(super) fn fault(error: &Error, request_id: &str) -> Fault {
    let (code, retryable) = match error {
        Error::Unauthenticated(_) => ("UNAUTHENTICATED", false),
        Error::Forbidden(_) => ("FORBIDDEN", false),
        Error::NotFound(_) => ("NOT_FOUND", false),
        Error::Invalid { .. } | Error::Refused(_) => ("BAD_USER_INPUT", false),
        Error::Throttled(_) => ("RATE_LIMITED", true),
        Error::Unavailable(_) | Error::BooksBroken => ("UNAVAILABLE", true),
        Error::Internal(source) if is_outage(source.as_ref()) => ("UNAVAILABLE", true),
        Error::Internal(_) => ("INTERNAL_SERVER_ERROR", false),
    };
    let mut extensions = ErrorExtensionValues::default();
    extensions.set("code", code);
    extensions.set("requestId", request_id);
    extensions.set("retryable", retryable);
    let message = match error {
        Error::Internal(source) => {
            if source.downcast_ref::<Reported>().is_none() {
                tracing::error!(request_id, code, error = %source, "a request failed");
            }
            if retryable {
                "The service is too busy; try again.".to_owned()
            } else {
                "Something went wrong on our side. Tell us the requestId if it persists.".to_owned()
            }
        }
        Error::Throttled(after) => {
            extensions.set("retryAfterMs", u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
            error.to_string()
        }
        Error::Refused(refusal) => {
            extensions.set("reason", refusal.code.as_str());
            error.to_string()
        }
        Error::Invalid { field, .. } => {
            extensions.set("field", field.as_str());
            error.to_string()
        }
        Error::BooksBroken => {
            extensions.set("reason", "BOOKS_BROKEN");
            error.to_string()
        }
        Error::Unauthenticated(_) | Error::Forbidden(_) | Error::NotFound(_) | Error::Unavailable(_) => {
            error.to_string()
        }
    };
    let mut sent = async_graphql::Error::new(message);
    sent.extensions = Some(extensions);
    Fault(sent)
}

/// One concept's kind of user error.
pub(super) trait Concept: Sized {
    /// The error with this code; `None` when the concept has no such code.
    fn new(code: &str, message: String, field: Option<Vec<String>>) -> Option<Self>;
}

/// What a mutation answers.
pub(super) trait Payload: Sized {
    /// What it answers when it was done.
    type Content;
    /// How its refusals look.
    type Error: Concept;
    fn done(content: Self::Content) -> Self;
    fn refused(error: Self::Error) -> Self;
}

/// The user error that an error is, or the error itself when it belongs at the top level.
pub(super) fn user_error<C: Concept>(error: Error) -> Result<C> {
    let (code, message, field) = match &error {
        Error::Invalid { field, .. } => {
            let path = std::iter::once("input").chain(field.split('.')).map(str::to_owned).collect();
            ("INVALID_INPUT", error.to_string(), Some(path))
        }
        Error::NotFound(_) => ("NOT_FOUND", error.to_string(), None),
        Error::Refused(refusal) => (refusal.code.as_str(), refusal.message.clone(), None),
        Error::Unauthenticated(_)
        | Error::Forbidden(_)
        | Error::Throttled(_)
        | Error::Unavailable(_)
        | Error::BooksBroken
        | Error::Internal(_) => return Err(error),
    };
    C::new(code, message, field).ok_or_else(|| Error::internal(format!("the schema has no user error code {code}")))
}

/// Declares the payload of a mutation: one nullable entity and the user errors.
macro_rules! payload {
    ($(#[$doc:meta])* $name:ident { $(#[$field_doc:meta])* $field:ident: $content:ty } $error:ident) => {
        $(#[$doc])*
        #[derive(async_graphql::SimpleObject)]
        pub(super) struct $name {
            $(#[$field_doc])*
            $field: Option<$content>,
            /// Why the mutation was refused; empty when it was done.
            user_errors: Vec<$crate::graphql::error::$error>,
        }

        impl $crate::graphql::error::Payload for $name {
            type Content = $content;
            type Error = $crate::graphql::error::$error;
            fn done(content: $content) -> Self {
                Self { $field: Some(content), user_errors: Vec::new() }
            }
            fn refused(error: Self::Error) -> Self {
                Self { $field: None, user_errors: vec![error] }
            }
        }
    };
}
pub(super) use payload;

/// Declares a concept's user error and its codes. Every concept has the first three.
macro_rules! concept {
    ($(#[$doc:meta])* $error:ident, $(#[$code_doc:meta])* $code:ident {
        $($(#[$variant_doc:meta])* $variant:ident,)*
    }) => {
        $(#[$code_doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Enum, strum::EnumString)]
        #[strum(serialize_all = "SCREAMING_SNAKE_CASE")]
        pub(super) enum $code {
            /// A value of the input is not acceptable, whatever the state of the market; `field` says which.
            InvalidInput,
            /// There is no such thing, or it is not yours.
            NotFound,
            /// The idempotency key was used with another input. Use a new key for a new intent.
            IdempotencyKeyReused,
            $($(#[$variant_doc])* $variant,)*
        }

        $(#[$doc])*
        #[derive(Clone, Debug, SimpleObject)]
        pub(super) struct $error {
            /// A sentence for people.
            message: String,
            /// The path of the input field at fault, from `input` on; null when no single field is.
            field: Option<Vec<String>>,
            /// The stable code to decide by. New codes may come; treat an unknown one as a refusal.
            code: $code,
        }

        impl Concept for $error {
            fn new(code: &str, message: String, field: Option<Vec<String>>) -> Option<Self> {
                code.parse().ok().map(|code| Self { message, field, code })
            }
        }
    };
}

concept! {
    /// Why something about a user, a session or an API key was refused.
    UserUserError,
    /// The codes of `UserUserError`.
    UserErrorCode {
        /// The address is registered.
        EmailTaken,
        /// The present password is wrong.
        WrongPassword,
        /// The user has as many API keys as one may have; revoke one first.
        TooManyKeys,
        /// The agent that the key was to be bound to is retired.
        AgentRetired,
    }
}

concept! {
    /// Why something about an agent was refused.
    AgentUserError,
    /// The codes of `AgentUserError`.
    AgentErrorCode {
        /// The agent is retired, which is final.
        AgentRetired,
        /// The agent runs elsewhere; only hosted agents have modules and metered prices.
        AgentNotHosted,
        /// The agent changed since the version that the input names. Read it again.
        StaleVersion,
        /// Another agent of the same owner has this name.
        AgentNameTaken,
        /// The agent is hosted; only agents that run elsewhere have webhooks.
        AgentNotExternal,
        /// The address belongs to a private, local or reserved network.
        WebhookTargetForbidden,
    }
}

concept! {
    /// Why something about a task was refused.
    TaskUserError,
    /// The codes of `TaskUserError`.
    TaskErrorCode {
        /// The task is not open any more; it was awarded or has ended.
        TaskNotOpen,
        /// The work was claimed by somebody else or has ended.
        LeaseLost,
        /// The checker is not a hosted agent with a module, or it is retired.
        CheckerNotReady,
        /// The task has no result that waits for the payer's word.
        TaskNotSubmitted,
        /// The time for reviewing this result is over.
        ReviewOver,
        /// The auction is not open.
        AuctionNotOpen,
        /// The close has passed; bids at or after it are not taken.
        AuctionClosed,
        /// The bidder is the requester.
        OwnAuction,
        /// The agent is paused, retired or has no module.
        AgentNotReady,
        /// The agent lacks a capability that the task asks for.
        CapabilityMissing,
        /// The agent or its owner failed at this before, or does the same beside it.
        AgentExcluded,
        /// The agent has as many tasks in work as it does at once.
        AgentAtCapacity,
        /// The price is above the highest price that the auction takes.
        PriceAboveCeiling,
        /// The price is below the least that the agent works for.
        PriceBelowMinimum,
        /// The agent's reputation is below what the auction asks for.
        ReputationTooLow,
        /// The auction has as many bids as it takes.
        AuctionFull,
        /// The bid was replaced, withdrawn or decided.
        BidNotActive,
        /// There is no eligible bid to award.
        NoEligibleBid,
        /// The bid is above the reserve, or its agent does not qualify any more.
        BidNotEligible,
        /// The auction awards by itself at its close.
        AwardIsAutomatic,
        /// The auction takes commitments, not bids.
        UseCommitBid,
        /// The auction takes bids, not commitments.
        UseSubmitBid,
        /// The agent has bid or committed in this auction as often as one agent may.
        TooManyChanges,
        /// The commitment was replaced, withdrawn, revealed or lost.
        CommitmentNotLive,
        /// Bids are revealed after the close; the auction still takes commitments.
        RevealNotOpen,
        /// The time to reveal bids is over.
        RevealClosed,
        /// The agent has no commitment that stands in this auction.
        NoCommitment,
        /// The agent's bid was revealed before.
        AlreadyRevealed,
        /// Price, duration and salt do not make the hash of this agent's commitment in this auction.
        CommitmentMismatch,
        /// The bids are not revealed yet; award when the time for reveals is over.
        BidsNotRevealed,
        /// The wallet does not hold enough credits.
        InsufficientFunds,
        /// The balance would pass the largest amount that an account can hold.
        BalanceOverflow,
        /// An earlier operation of the same kind named this reference.
        ReferenceUsed,
    }
}

concept! {
    /// Why something about an auction or a bid was refused.
    AuctionUserError,
    /// The codes of `AuctionUserError`.
    AuctionErrorCode {
        /// The auction is not open.
        AuctionNotOpen,
        /// The close has passed; bids at or after it are not taken.
        AuctionClosed,
        /// The bidder is the requester.
        OwnAuction,
        /// The agent is paused, retired or has no module.
        AgentNotReady,
        /// The agent lacks a capability that the task asks for.
        CapabilityMissing,
        /// The agent or its owner failed at this before, or does the same beside it.
        AgentExcluded,
        /// The agent has as many tasks in work as it does at once.
        AgentAtCapacity,
        /// The price is above the highest price that the auction takes.
        PriceAboveCeiling,
        /// The price is below the least that the agent works for.
        PriceBelowMinimum,
        /// The agent's reputation is below what the auction asks for.
        ReputationTooLow,
        /// The auction has as many bids as it takes.
        AuctionFull,
        /// The bid was replaced, withdrawn or decided.
        BidNotActive,
        /// There is no eligible bid to award.
        NoEligibleBid,
        /// The bid is above the reserve, or its agent does not qualify any more.
        BidNotEligible,
        /// The auction awards by itself at its close.
        AwardIsAutomatic,
        /// The auction takes commitments, not bids.
        UseCommitBid,
        /// The auction takes bids, not commitments.
        UseSubmitBid,
        /// The agent has bid or committed in this auction as often as one agent may.
        TooManyChanges,
        /// The commitment was replaced, withdrawn, revealed or lost.
        CommitmentNotLive,
        /// Bids are revealed after the close; the auction still takes commitments.
        RevealNotOpen,
        /// The time to reveal bids is over.
        RevealClosed,
        /// The agent has no commitment that stands in this auction.
        NoCommitment,
        /// The agent's bid was revealed before.
        AlreadyRevealed,
        /// Price, duration and salt do not make the hash of this agent's commitment in this auction.
        CommitmentMismatch,
        /// The bids are not revealed yet; award when the time for reveals is over.
        BidsNotRevealed,
        /// The task is not open any more; it was awarded or has ended.
        TaskNotOpen,
        /// The work was claimed by somebody else or has ended.
        LeaseLost,
        /// The checker is not a hosted agent with a module, or it is retired.
        CheckerNotReady,
        /// The wallet does not hold enough credits.
        InsufficientFunds,
        /// The balance would pass the largest amount that an account can hold.
        BalanceOverflow,
        /// An earlier operation of the same kind named this reference.
        ReferenceUsed,
    }
}

concept! {
    /// Why something about a channel was refused.
    ChannelUserError,
    /// The codes of `ChannelUserError`.
    ChannelErrorCode {
        /// The channel backs a task and settles with it.
        NotAStream,
        /// The agent is the caller's own.
        OwnAgent,
        /// The agent is paused or retired.
        AgentNotReady,
        /// There was a channel with exactly this configuration before. Use another salt.
        ChannelExists,
        /// The channel changed since the nonce that the input names. Read it again.
        ChannelChanged,
        /// The channel pays by vouchers that its key signs.
        SignerRequired,
        /// The channel has no key, so nothing that is signed counts.
        NoSignerKey,
        /// The agent has no public key to check its signature by.
        NoAgentKey,
        /// The signature is not that of the right key over these values for this channel of this market.
        SignatureInvalid,
        /// The payer signed another amount under this nonce, and that was claimed. Nothing moved; both vouchers are kept as evidence.
        Equivocation,
        /// The channel is closed.
        ChannelClosed,
        /// The time of the channel is over.
        ChannelExpired,
        /// The time of the channel is not over.
        ChannelNotExpired,
        /// The close was requested before.
        CloseRequested,
        /// No close was requested.
        CloseNotRequested,
        /// The time until which what was signed is valid is over.
        VoucherExpired,
        /// A voucher with this nonce or a higher one was claimed before.
        VoucherStale,
        /// The channel has paid as much or more already: vouchers are cumulative.
        AlreadyPaid,
        /// The deposit does not cover it.
        AboveDeposit,
        /// The deposit would pass the largest amount.
        DepositTooLarge,
        /// The wallet does not hold enough credits.
        InsufficientFunds,
        /// The balance would pass the largest amount that an account can hold.
        BalanceOverflow,
        /// An earlier operation of the same kind named this reference.
        ReferenceUsed,
    }
}

concept! {
    /// Why a movement of credits was refused.
    WalletUserError,
    /// The codes of `WalletUserError`.
    WalletErrorCode {
        /// The wallet does not hold enough credits.
        InsufficientFunds,
        /// The balance would pass the largest amount that an account can hold.
        BalanceOverflow,
        /// An earlier operation of the same kind named this reference.
        ReferenceUsed,
    }
}

concept! {
    /// Why a rating was refused.
    ReputationUserError,
    /// The codes of `ReputationUserError`.
    ReputationErrorCode {
        /// Only who paid for a task may rate it.
        RatingNotPayer,
        /// Only a completed task can be rated.
        TaskNotSettled,
        /// The task was rated before; a rating is final.
        AlreadyRated,
        /// The time for rating this task is over.
        RatingWindowClosed,
    }
}

concept! {
    /// Why something about a dispute was refused.
    DisputeUserError,
    /// The codes of `DisputeUserError`.
    DisputeErrorCode {
        /// The task has no result that waits for the payer's word.
        TaskNotSubmitted,
        /// The time for reviewing this result is over.
        ReviewOver,
        /// A party cannot rule its own dispute.
        ArbiterIsParty,
        /// The dispute was ruled before, or its time is over.
        DisputeOver,
        /// The parties may still show evidence, and one of them has shown nothing yet.
        EvidenceStageOpen,
        /// The award is above the price of the task.
        AwardAbovePrice,
        /// The time for evidence is over.
        EvidenceClosed,
        /// You have shown this before.
        EvidenceRepeated,
        /// You have shown as much as one party may.
        TooMuchEvidence,
        /// The wallet does not hold enough credits.
        InsufficientFunds,
        /// The balance would pass the largest amount that an account can hold.
        BalanceOverflow,
        /// An earlier operation of the same kind named this reference.
        ReferenceUsed,
    }
}

concept! {
    /// Why something about the work of an agent was refused.
    WorkUserError,
    /// The codes of `WorkUserError`.
    WorkErrorCode {
        /// The work is hosted, has ended, went to another bid, or its time is over.
        WorkNotOffered,
        /// A worker of the agent holds the work; it may be claimed when the lease is over.
        LeaseHeld,
        /// The token is not the newest, the work has ended, or the lease was over and the work is offered again.
        LeaseLost,
        /// The work was tried as often as it may be.
        NoAttemptsLeft,
        /// The output does not satisfy the task's schema. The claim goes on: submit a better one.
        OutputSchemaViolation,
        /// The output has more bytes than work may answer. The claim goes on.
        OutputTooLarge,
        /// The task is not open any more; it was awarded or has ended.
        TaskNotOpen,
        /// The checker is no hosted agent with a module.
        CheckerNotReady,
        /// The wallet does not hold enough credits.
        InsufficientFunds,
        /// The balance would pass the largest amount that an account can hold.
        BalanceOverflow,
        /// An earlier operation of the same kind named this reference.
        ReferenceUsed,
    }
}

concept! {
    /// Why something about a delegation was refused.
    DelegationUserError,
    /// The codes of `DelegationUserError`.
    DelegationErrorCode {
        /// A plan needs at least one step.
        NoSteps,
        /// A plan has at most 64 steps, those of its groups included.
        TooManySteps,
        /// Groups are nested too deep; there are at most 3 levels.
        TooDeep,
        /// The name of a step must be 1 to 40 of a to z, 0 to 9, _ and -, begin with a letter and not be input, goal or plan; its title must be 1 to 200 characters.
        StepNameInvalid,
        /// Two steps have the same name.
        StepNameTaken,
        /// A step is either work or a group: what has a plan has no capabilities, outputSchema, checkerId or timeout.
        StepIsBoth,
        /// A step needs capabilities, or a plan if it is a group.
        StepDoesNothing,
        /// There are 1 to 9 replicas, of which more than half must agree, and a group has one.
        ReplicasInvalid,
        /// With onFailure RETRY there are 1 to 10 retries, and otherwise none.
        RetriesInvalid,
        /// A step depends on one that does not exist.
        UnknownStep,
        /// The steps of the plan wait for each other in a circle.
        PlanHasCycle,
        /// Shares are given for all steps, each more than 0 and together 10000, or for none.
        SharesDoNotSum,
        /// The budget is too small: a step would get nothing.
        BudgetTooSmall,
        /// A reference leads to nothing.
        ReferenceUnresolved,
        /// What a template gives is too large.
        TemplateTooLarge,
        /// No agent that could take the work has these capabilities.
        UnknownCapability,
        /// The checker is not an active hosted agent with a module.
        UnknownChecker,
        /// The delegation is over, or stops already.
        DelegationOver,
        /// The wallet does not hold enough credits.
        InsufficientFunds,
        /// The balance would pass the largest amount that an account can hold.
        BalanceOverflow,
        /// An earlier operation of the same kind named this reference.
        ReferenceUsed,
    }
}

/// Why a mutation was refused. Concrete types add a `code` of their concept.
#[derive(Interface)]
#[graphql(
    field(name = "message", ty = "&String", desc = "A sentence for people."),
    field(
        name = "field",
        ty = "&Option<Vec<String>>",
        desc = "The path of the input field at fault, from `input` on; null when no single field is."
    )
)]
pub(super) enum UserError {
    /// About users.
    User(UserUserError),
    /// About agents.
    Agent(AgentUserError),
    /// About tasks.
    Task(TaskUserError),
    /// About auctions.
    Auction(AuctionUserError),
    /// About wallets.
    Wallet(WalletUserError),
    /// About reputations.
    Reputation(ReputationUserError),
    /// About disputes.
    Dispute(DisputeUserError),
    /// About channels.
    Channel(ChannelUserError),
    /// About the work of agents.
    Work(WorkUserError),
    /// About delegations.
    Delegation(DelegationUserError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        agent::rules::AgentRefused,
        auction::rules::AuctionRefused,
        channel::rules::ChannelRefused,
        delegation::rules::DelegationRefused,
        execution::rules::WorkRefused,
        ledger::rules::LedgerRefused,
        plan::rules::PlanRefused,
        reputation::RatingRefused,
        store::OnceRefused,
        task::rules::{DisputeRefused, ReviewRefused, TaskRefused},
        user::rules::UserRefusal,
        webhook::rules::WebhookRefused,
    };
    use strum::IntoEnumIterator;

    fn knows<C: Concept, R: IntoEnumIterator + Into<Error>>() {
        for refusal in R::iter() {
            let error: Error = refusal.into();
            let code = error.refusal_code().unwrap().to_owned();
            assert!(user_error::<C>(error).is_ok(), "{} has no code {code}", std::any::type_name::<C>());
        }
    }

    #[test]
    fn every_refusal_of_a_concept_has_its_code() {
        knows::<UserUserError, UserRefusal>();
        knows::<AgentUserError, AgentRefused>();
        knows::<AgentUserError, WebhookRefused>();
        knows::<TaskUserError, TaskRefused>();
        knows::<TaskUserError, AuctionRefused>();
        knows::<TaskUserError, LedgerRefused>();
        knows::<AuctionUserError, TaskRefused>();
        knows::<AuctionUserError, AuctionRefused>();
        knows::<AuctionUserError, LedgerRefused>();
        knows::<WalletUserError, LedgerRefused>();
        knows::<ReputationUserError, RatingRefused>();
        knows::<UserUserError, OnceRefused>();
        knows::<AgentUserError, OnceRefused>();
        knows::<TaskUserError, OnceRefused>();
        knows::<AuctionUserError, OnceRefused>();
        knows::<WalletUserError, OnceRefused>();
        knows::<ReputationUserError, OnceRefused>();
        knows::<TaskUserError, ReviewRefused>();
        knows::<DisputeUserError, ReviewRefused>();
        knows::<DisputeUserError, DisputeRefused>();
        knows::<DisputeUserError, LedgerRefused>();
        knows::<DisputeUserError, OnceRefused>();
        knows::<ChannelUserError, ChannelRefused>();
        knows::<ChannelUserError, LedgerRefused>();
        knows::<ChannelUserError, OnceRefused>();
        knows::<WorkUserError, WorkRefused>();
        knows::<WorkUserError, TaskRefused>();
        knows::<WorkUserError, LedgerRefused>();
        knows::<WorkUserError, OnceRefused>();
        knows::<DelegationUserError, PlanRefused>();
        knows::<DelegationUserError, DelegationRefused>();
        knows::<DelegationUserError, LedgerRefused>();
        knows::<DelegationUserError, OnceRefused>();
    }

    #[test]
    fn mistakes_are_data_and_the_rest_is_not() {
        let invalid: TaskUserError = user_error(Error::invalid("budget", "must be positive")).unwrap();
        assert_eq!(invalid.code, TaskErrorCode::InvalidInput);
        assert_eq!(invalid.field, Some(vec!["input".to_owned(), "budget".to_owned()]));
        assert!(user_error::<TaskUserError>(Error::NotFound("task")).is_ok());
        for error in [Error::Unauthenticated("x"), Error::Forbidden("x"), Error::Unavailable("x"), Error::internal("x")]
        {
            assert!(user_error::<TaskUserError>(error).is_err());
        }
        let unknown = crate::error::Refusal { code: "NEWER_THAN_THIS".to_owned(), message: String::new() };
        assert!(matches!(user_error::<TaskUserError>(Error::Refused(unknown)), Err(Error::Internal(_))));
    }

    #[test]
    fn the_text_of_an_internal_error_is_never_sent() {
        let sent = fault(&Error::internal("password=hunter2"), "req-1").0;
        assert!(!format!("{sent:?}").contains("hunter2"));
        let extensions = sent.extensions.unwrap();
        assert_eq!(extensions.get("code"), Some(&"INTERNAL_SERVER_ERROR".into()));
        assert_eq!(extensions.get("requestId"), Some(&"req-1".into()));
    }
}
