//! What moves the metrics: committed events, in one place; refusals and durations, by guards and calls beside the verbs.

use std::time::{Duration, Instant};

use entity::{
    agent::Runtime,
    event::{self, Kind},
    money::Amount,
    time::Timestamp,
};
use prometheus::IntGauge;

use super::{
    Metrics,
    label::{
        AgentRuntime, Answered, AuctionOutcome, AuditReach, BidOutcome, Cause, ChannelEvent, ClaimResult, CloseReason,
        DelegationOutcome, DisputeStage, Limited, ModuleCache, OperationType, PaymentOutcome, RefundReason,
        RequestOutcome, Settled, SettlementOutcome, SocketKind, StepOutcome, TaskError, TaskOutcome, TaskRuntime,
        WebhookOutcome, WorkOutcome,
    },
};
use crate::{
    error::{Error, Result},
    execution::sandbox::Asked,
    ledger::Audit,
    store::Notice,
    webhook::messenger::Tried,
};

/// The code of work that was not done in time, and that of a run that took too long.
const TOO_LATE: &[&str] = &["DEADLINE_EXCEEDED", "OUT_OF_TIME"];

impl Metrics {
    /// Counts events that this process committed.
    pub(crate) fn observe(&self, events: &[event::Model]) {
        for event in events {
            self.observe_one(event);
        }
    }

    fn observe_one(&self, event: &event::Model) {
        let payload = &event.payload;
        let lasted = seconds(payload.duration_us);
        let reason = payload.reason.as_deref();
        match event.kind {
            Kind::TaskPosted => {
                self.tasks_submitted.inc();
                self.escrows_created.inc();
            }
            Kind::BidSubmitted => self.auction_bids.at(BidOutcome::Accepted).inc(),
            Kind::BidWithdrawn => self.auction_bids.at(BidOutcome::Withdrawn).inc(),
            Kind::BidCommitted => self.auction_bids.at(BidOutcome::Committed).inc(),
            Kind::BidRevealed => self.auction_bids.at(BidOutcome::Revealed).inc(),
            Kind::AuctionAwarded => {
                self.auction_winning_bid.observe(credits(payload.amount));
                self.auction_closed(AuctionOutcome::Awarded, lasted);
            }
            Kind::AuctionExpired => self.auction_closed(AuctionOutcome::NoBids, lasted),
            Kind::AuctionCancelled => self.auction_closed(AuctionOutcome::Cancelled, lasted),
            Kind::ChannelOpened => self.channel_events.at(ChannelEvent::Opened).inc(),
            Kind::ChannelToppedUp => self.channel_events.at(ChannelEvent::Funded).inc(),
            Kind::ChannelClosing => self.channel_events.at(ChannelEvent::Closing).inc(),
            Kind::ChannelReopened => self.channel_events.at(ChannelEvent::Reopened).inc(),
            Kind::ChannelEquivocation => self.channel_events.at(ChannelEvent::Equivocation).inc(),
            Kind::ChannelPaid => {
                self.channel_events.at(ChannelEvent::Paid).inc();
                self.paid(payload);
            }
            Kind::ChannelClosed => self.channel_closed(payload, lasted),
            Kind::TaskCompleted => {
                let whole = payload.returned.is_none_or(Amount::is_zero);
                self.settled(if whole { Settled::Released } else { Settled::Split }, payload);
                self.work_ended(WorkOutcome::Succeeded, payload, lasted);
                if let Some(runtime) = payload.runtime {
                    self.task_cost.at(runtime.into()).observe(credits(payload.amount));
                }
                self.escrow_releases.inc();
                self.fees.inc_by(micros(payload.fee));
            }
            Kind::TaskRefunded => {
                self.lease_lost(payload);
                let too_late = reason.is_some_and(|reason| TOO_LATE.contains(&reason));
                self.settled(Settled::Refunded, payload);
                self.work_ended(if too_late { WorkOutcome::TimedOut } else { WorkOutcome::Failed }, payload, lasted);
                let why = match reason {
                    Some("DISPUTE_LOST") => RefundReason::Dispute,
                    Some("DEADLINE_EXCEEDED") => RefundReason::Timeout,
                    Some(_) | None => RefundReason::TaskFailed,
                };
                self.escrow_refunds.at(why).inc();
                // What the verifiers found wrong was counted when the result came.
                if !matches!(reason, Some("DISPUTE_LOST" | "NOT_ACCEPTED")) {
                    self.task_error(payload);
                }
            }
            Kind::WorkOffered => self.work_offers.inc(),
            Kind::TaskStarted => {
                if payload.runtime == Some(Runtime::External) {
                    self.work_claims.at(ClaimResult::Claimed).inc();
                }
            }
            Kind::TaskSubmitted => {
                if reason.is_some() {
                    self.task_error(payload);
                }
            }
            Kind::DisputeOpened => {
                self.settlement_disputes.at(DisputeStage::Opened).inc();
                self.channel_events.at(ChannelEvent::Disputed).inc();
            }
            Kind::DisputeResolved => match reason {
                Some("UPHELD") => self.settlement_disputes.at(DisputeStage::Upheld).inc(),
                Some("REJECTED") => self.settlement_disputes.at(DisputeStage::Rejected).inc(),
                Some("DEFAULTED") => self.settlement_disputes.at(DisputeStage::Expired).inc(),
                Some(_) | None => {}
            },
            Kind::TaskRetried => {
                self.lease_lost(payload);
                self.task_error(payload);
            }
            Kind::TaskExpired => {
                self.tasks_completed.at(TaskRuntime::None, TaskOutcome::Expired).inc();
                if event.agent_id.is_none() {
                    self.escrow_refunds.at(RefundReason::NoAward).inc();
                }
            }
            Kind::TaskCancelled => {
                self.tasks_completed.at(TaskRuntime::None, TaskOutcome::Cancelled).inc();
                self.escrow_refunds.at(RefundReason::Cancelled).inc();
            }
            Kind::ReputationChanged => {
                self.reputation_score.observe(milli(payload.score_after.unwrap_or(0)));
                if let Some(cause) = reason.and_then(Cause::of) {
                    self.reputation_updates.at(cause).inc();
                }
            }
            Kind::DelegationCompleted => self.delegation_ended(DelegationOutcome::Completed, lasted),
            Kind::DelegationFailed => self.delegation_ended(DelegationOutcome::Failed, lasted),
            Kind::DelegationCancelled => self.delegation_ended(DelegationOutcome::Cancelled, lasted),
            Kind::StepCompleted => self.delegation_steps.at(StepOutcome::Completed).inc(),
            Kind::StepFailed => self.delegation_steps.at(StepOutcome::Failed).inc(),
            Kind::StepSkipped => self.delegation_steps.at(StepOutcome::Skipped).inc(),
            Kind::AuctionOpened
            | Kind::AuctionExtended
            | Kind::TaskReassigned
            | Kind::AuctionRevealing
            | Kind::BondForfeited
            | Kind::EvidenceSubmitted
            | Kind::DelegationCreated
            | Kind::DelegationPlanned
            | Kind::StepStarted
            | Kind::DelegationStopping
            | Kind::EarningsWithdrawn
            | Kind::CreditsIssued
            | Kind::CreditsRedeemed => {}
        }
    }

    fn channel_closed(&self, payload: &event::Payload, lasted: f64) {
        let reason = payload.reason.as_deref().and_then(CloseReason::of);
        let expired = reason == Some(CloseReason::Expired);
        self.channel_events.at(if expired { ChannelEvent::Expired } else { ChannelEvent::Closed }).inc();
        let Some(reason) = reason else { return };
        self.channel_lifetime.at(reason).observe(lasted);
        if reason == CloseReason::Cooperative && payload.amount.is_some_and(|paid| !paid.is_zero()) {
            self.paid(payload);
        }
        if reason == CloseReason::Forfeited {
            self.escrow_refunds.at(RefundReason::Timeout).inc();
        }
    }

    /// Counts what a streaming channel paid. What an escrow channel pays is counted with its task.
    fn paid(&self, payload: &event::Payload) {
        self.payments.at(PaymentOutcome::Succeeded).inc();
        self.payment_amount.observe(credits(payload.amount));
        self.fees.inc_by(micros(payload.fee));
    }

    fn settled(&self, how: Settled, payload: &event::Payload) {
        self.settlements.at(how.into()).inc();
        self.settlement_duration.at(how).observe(seconds(payload.waited_us));
    }

    fn work_ended(&self, how: WorkOutcome, payload: &event::Payload, lasted: f64) {
        if let Some(runtime) = payload.runtime.map(AgentRuntime::from) {
            self.tasks_completed.at(runtime.into(), how.into()).inc();
            self.task_duration.at(runtime, how).observe(lasted);
        }
    }

    /// Counts a lease of an agent that runs elsewhere, if that is what ended.
    fn lease_lost(&self, payload: &event::Payload) {
        if payload.runtime == Some(Runtime::External) && payload.reason.as_deref() == Some("WORKER_LOST") {
            self.work_leases_lost.inc();
        }
    }

    fn auction_closed(&self, how: AuctionOutcome, lasted: f64) {
        self.auctions.at(how).inc();
        self.auction_duration.at(how).observe(lasted);
    }

    fn delegation_ended(&self, how: DelegationOutcome, lasted: f64) {
        self.delegations.at(how).inc();
        self.delegation_duration.at(how).observe(lasted);
    }

    fn task_error(&self, payload: &event::Payload) {
        if let Some(runtime) = payload.runtime {
            let reason = payload.reason.as_deref().and_then(TaskError::of).unwrap_or(TaskError::Other);
            self.task_errors.at(runtime.into(), reason).inc();
        }
    }
}

impl Metrics {
    /// Counts a bid that the rules refused; nothing of it was committed, so there is no event.
    pub(crate) fn bid_rejected(&self) {
        self.auction_bids.at(BidOutcome::Rejected).inc();
    }

    /// Counts a claim of work that the rules refused.
    pub(crate) fn claim_refused(&self, code: &str) {
        self.work_claims.at(ClaimResult::of(code).unwrap_or(ClaimResult::Other)).inc();
    }

    /// Begins a payment out of a streaming channel. What is dropped before its end is known has failed.
    pub(crate) fn payment(&self) -> Payment<'_> {
        Payment { metrics: self, began: Instant::now(), outcome: PaymentOutcome::Failed }
    }

    /// Counts the answer to an event that is worked out, for one subscriber or for many.
    pub(crate) fn event_answered(&self) {
        self.event_answers.inc();
    }

    /// Counts what the store alone notices.
    pub(crate) fn noticed(&self, notice: Notice) {
        match notice {
            Notice::Lagged(events) => self.lagged_events.inc_by(events),
            Notice::ToBeRetried => self.transaction_retries.inc(),
            Notice::SettlementUndone => self.settlements.at(SettlementOutcome::Failed).inc(),
        }
    }

    /// Counts a module that was asked for.
    pub(crate) fn module_asked(&self, asked: Asked) {
        let cache = match asked {
            Asked::Ready => ModuleCache::Hit,
            Asked::Read => ModuleCache::Read,
            Asked::Compiled => ModuleCache::Compiled,
        };
        self.sandbox_modules.at(cache).inc();
    }

    /// Counts a try to deliver a webhook message.
    pub(crate) fn webhook_tried(&self, tried: Tried) {
        match tried {
            Tried::Delivered => self.webhook_attempts.at(WebhookOutcome::Delivered).inc(),
            Tried::Retried => self.webhook_attempts.at(WebhookOutcome::Retried).inc(),
            Tried::GivenUp => self.webhook_attempts.at(WebhookOutcome::GivenUp).inc(),
            Tried::Overtaken => {}
        }
    }

    /// Counts a GraphQL operation; a subscription has no duration.
    pub(crate) fn request(&self, operation: OperationType, outcome: RequestOutcome, took: Duration) {
        self.requests.at(operation, outcome).inc();
        let answered = match operation {
            OperationType::Query => Answered::Query,
            OperationType::Mutation => Answered::Mutation,
            OperationType::Subscription => return,
        };
        self.request_duration.at(answered).observe(took.as_secs_f64());
    }

    /// Counts a request that was refused because somebody has as much of something as one may have.
    pub(crate) fn limited(&self, limit: Limited) {
        self.rate_limited.at(limit).inc();
    }

    /// Counts a subscription until the answer is dropped.
    pub(crate) fn subscription(&self) -> Open {
        Open::of(&self.subscriptions_active)
    }

    /// Counts a socket or an event stream until the answer is dropped.
    pub(crate) fn socket(&self, kind: SocketKind) -> Open {
        Open::of(self.sockets_open.at(kind))
    }

    /// Remembers an audit that began at `at`, and the sum of all accounts if all of them were looked at.
    pub(crate) fn audited(&self, audit: &Audit, at: Timestamp, imbalance: Option<i64>) {
        for check in &audit.checks {
            if let Some(gauge) = self.ledger_violations.at(check.name) {
                gauge.set(i64::try_from(check.violations).unwrap_or(i64::MAX));
            }
        }
        let seconds = at.micros().div_euclid(1_000_000);
        self.ledger_last_audit.at(AuditReach::Recent).set(seconds);
        if audit.whole {
            self.ledger_last_audit.at(AuditReach::Whole).set(seconds);
        }
        if let Some(micros) = imbalance {
            self.ledger_imbalance.set(millionths(micros));
        }
    }
}

/// A payment under way.
#[derive(Debug)]
pub(crate) struct Payment<'a> {
    metrics: &'a Metrics,
    began: Instant,
    outcome: PaymentOutcome,
}

impl Payment<'_> {
    /// Says how it went. One that succeeded is counted by its event.
    pub(crate) fn ended<T>(mut self, came: &Result<T>) {
        self.outcome = match came {
            Ok(_) => PaymentOutcome::Succeeded,
            Err(Error::Internal(_) | Error::Unavailable(_) | Error::BooksBroken) => PaymentOutcome::Failed,
            Err(
                Error::Unauthenticated(_)
                | Error::Forbidden(_)
                | Error::NotFound(_)
                | Error::Invalid { .. }
                | Error::Refused(_)
                | Error::Throttled(_),
            ) => PaymentOutcome::Rejected,
        };
    }
}

impl Drop for Payment<'_> {
    fn drop(&mut self) {
        self.metrics.payment_duration.at(self.outcome).observe(self.began.elapsed().as_secs_f64());
        if self.outcome != PaymentOutcome::Succeeded {
            self.metrics.payments.at(self.outcome).inc();
        }
    }
}

/// Something that counts for as long as it is there.
#[derive(Debug)]
pub(crate) struct Open(IntGauge);

impl Open {
    fn of(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Microseconds as seconds; what is not there took no time.
fn seconds(micros: Option<i64>) -> f64 {
    Duration::from_micros(u64::try_from(micros.unwrap_or(0)).unwrap_or(0)).as_secs_f64()
}

fn micros(amount: Option<Amount>) -> u64 {
    u64::try_from(amount.unwrap_or(Amount::ZERO).micros()).unwrap_or(0)
}

/// Credits as the nearest float, by way of their exact text: metrics are the only place where money is one.
fn credits(amount: Option<Amount>) -> f64 {
    millionths(amount.unwrap_or(Amount::ZERO).micros())
}

/// Thousandths as the nearest float.
fn milli(thousandths: i32) -> f64 {
    decimal(thousandths.into(), 3)
}

/// Millionths as the nearest float.
fn millionths(micros: i64) -> f64 {
    decimal(micros, 6)
}

fn decimal(number: i64, places: i32) -> f64 {
    format!("{number}e-{places}").parse().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_and_scores_reach_their_nearest_float() {
        assert_eq!(credits(Some(Amount::from_micros(2_500_000).unwrap())).to_string(), "2.5");
        assert_eq!(millionths(-1).to_string(), "-0.000001");
        assert_eq!(milli(42_500).to_string(), "42.5");
    }
}
