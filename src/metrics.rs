//! Every metric of the service. Counters and histograms of the market are fed from committed events, in one place, so that what
//! was rolled back was never counted and every event counts once in the fleet: only the process that committed it records it.
//! Gauges of the market are sampled from the database; every process reports the same, so aggregate them with `max`.
//!
//! Labels come from closed sets, and every series exists from the start at zero. Ids, names and texts are never labels.

use std::{collections::HashMap, time::Duration};

use entity::{
    agent::Runtime,
    channel::CloseReason,
    event::{self, Kind},
    money::Amount,
    reputation_event::Cause,
};
use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
};
use sea_orm::{ConnectionTrait, Iterable, Statement};

use crate::{
    error::{Error, Result},
    ledger::Audit,
    store::Store,
};

/// Buckets in seconds for what should be over at once.
const FAST: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Buckets in seconds for work.
const TASK: &[f64] = &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 300.0, 1_800.0];
/// Buckets in seconds for what people wait for.
const LONG: &[f64] = &[1.0, 10.0, 60.0, 300.0, 1_800.0, 3_600.0, 21_600.0, 86_400.0, 259_200.0, 604_800.0];
/// Buckets in credits.
const MONEY: &[f64] = &[0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 50.0, 100.0, 500.0, 1_000.0, 10_000.0];
/// Buckets in points of reputation.
const SCORE: &[f64] = &[10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 100.0];

/// The codes of `task_errors_total`; anything else counts as `other`.
const TASK_ERRORS: &[&str] = &[
    "TRAP",
    "OUT_OF_FUEL",
    "OUT_OF_TIME",
    "OUT_OF_MEMORY",
    "STACK_OVERFLOW",
    "OUTPUT_TOO_LARGE",
    "EXIT_CODE",
    "MISSING_ENTRY_POINT",
    "INVALID_MODULE",
    "OUTPUT_NOT_JSON",
    "OUTPUT_SCHEMA_VIOLATION",
    "CHECK_FAILED",
    "CHECKER_FAILED",
    "OUTPUT_NOT_A_PLAN",
    "MODULE_UNAVAILABLE",
    "MODULE_HASH_MISMATCH",
    "EXECUTOR_FAILED",
    "WORKER_LOST",
    "DEADLINE_EXCEEDED",
];

/// The result of a claim that was granted, in `work_claims_total`.
const CLAIMED: &str = "claimed";
/// The codes of claims that were refused there.
const CLAIM_REFUSALS: &[&str] = &["LEASE_HELD", "WORK_NOT_OFFERED", "NO_ATTEMPTS_LEFT", "OTHER"];

/// The kind of a GraphQL operation, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::EnumIter, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum OperationType {
    Query,
    Mutation,
    Subscription,
}

/// How an operation went, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::EnumIter, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum RequestOutcome {
    Ok,
    ClientError,
    ServerError,
}

/// The registry and its metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    channel_events: IntCounterVec,
    channels_active: IntGauge,
    channel_lifetime: HistogramVec,
    payments: IntCounter,
    payment_amount: Histogram,
    reputation_score: Histogram,
    reputation_updates: IntCounterVec,
    reputation_success_ratio: Gauge,
    settlements: IntCounterVec,
    settlement_disputes: IntCounterVec,
    auctions: IntCounterVec,
    auctions_open: IntGauge,
    auction_bids: IntCounterVec,
    auction_winning_bid: Histogram,
    auction_duration: HistogramVec,
    work_offers: IntCounter,
    work_claims: IntCounterVec,
    work_leases_lost: IntCounter,
    agents_online: prometheus::IntGaugeVec,
    tasks_submitted: IntCounter,
    tasks_running: IntGauge,
    tasks_completed: IntCounterVec,
    task_duration: HistogramVec,
    task_cost: Histogram,
    task_errors: IntCounterVec,
    delegations: IntCounterVec,
    delegation_duration: HistogramVec,
    delegation_steps: IntCounterVec,
    escrows_created: IntCounter,
    escrow_locked: Gauge,
    escrow_releases: IntCounter,
    escrow_refunds: IntCounterVec,
    fees: IntCounter,
    ledger_violations: prometheus::IntGaugeVec,
    requests: IntCounterVec,
    request_duration: HistogramVec,
    subscriptions_active: IntGauge,
    pool_connections: HashMap<&'static str, IntGauge>,
}

/// Makes metrics and registers them.
struct Maker(Registry);

impl Maker {
    fn register<M: prometheus::core::Collector + Clone + 'static>(
        &self,
        metric: prometheus::Result<M>,
    ) -> prometheus::Result<M> {
        let metric = metric?;
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn counter(&self, name: &str, help: &str) -> prometheus::Result<IntCounter> {
        self.register(IntCounter::new(name, help))
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
        self.register(IntCounterVec::new(Opts::new(name, help), labels))
    }

    fn gauge(&self, name: &str, help: &str) -> prometheus::Result<IntGauge> {
        self.register(IntGauge::new(name, help))
    }

    fn ratio(&self, name: &str, help: &str) -> prometheus::Result<Gauge> {
        self.register(Gauge::new(name, help))
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> prometheus::Result<Histogram> {
        self.register(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec())))
    }

    fn histograms(&self, name: &str, help: &str, buckets: &[f64], labels: &[&str]) -> prometheus::Result<HistogramVec> {
        self.register(HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels))
    }
}

impl Metrics {
    /// A registry of its own with every series at zero.
    pub fn new() -> Result<Self> {
        Self::build().map_err(Error::internal)
    }

    fn build() -> prometheus::Result<Self> {
        let make = Maker(Registry::new_custom(Some("zerostate".into()), None)?);
        let info =
            Opts::new("build_info", "The running program; always 1.").const_label("version", env!("CARGO_PKG_VERSION"));
        make.register(IntGauge::with_opts(info))?.set(1);
        let pool = make.register(prometheus::IntGaugeVec::new(
            Opts::new("db_pool_connections", "Connections to the database by state."),
            &["state"],
        ))?;
        let pool_connections =
            ["idle", "used"].into_iter().map(|state| (state, pool.with_label_values(&[state]))).collect();
        let metrics = Self {
            channel_events: make.counters(
                "payment_channel_events_total",
                "Payment channel lifecycle transitions.",
                &["event"],
            )?,
            channels_active: make
                .gauge("payment_channels_active", "Payment channels open now, market-wide; aggregate with max.")?,
            channel_lifetime: make.histograms(
                "payment_channel_lifetime_seconds",
                "Time from opening a payment channel to closing it.",
                LONG,
                &["reason"],
            )?,
            payments: make.counter("payments_total", "Payments out of streaming channels.")?,
            payment_amount: make.histogram(
                "payment_amount_credits",
                "Amount of each payment out of a streaming channel.",
                MONEY,
            )?,
            reputation_score: make.histogram(
                "reputation_score",
                "Agent reputation score (0 to 100) observed after each update.",
                SCORE,
            )?,
            reputation_updates: make.counters(
                "reputation_updates_total",
                "Reputation updates by cause.",
                &["cause"],
            )?,
            reputation_success_ratio: make.ratio(
                "reputation_success_ratio",
                "Lifetime successful share of settled tasks over all agents (0 to 1); aggregate with max.",
            )?,
            settlements: make.counters("settlements_total", "Settlements by outcome.", &["outcome"])?,
            settlement_disputes: make.counters(
                "settlement_disputes_total",
                "Disputes opened, and resolved by how they went for their opener.",
                &["stage"],
            )?,
            auctions: make.counters("auctions_total", "Auctions closed by outcome.", &["outcome"])?,
            auctions_open: make.gauge("auctions_open", "Auctions open now, market-wide; aggregate with max.")?,
            auction_bids: make.counters("auction_bids_total", "Bids by outcome of validation.", &["outcome"])?,
            auction_winning_bid: make.histogram("auction_winning_bid_credits", "Price of the winning bid.", MONEY)?,
            auction_duration: make.histograms(
                "auction_duration_seconds",
                "Time from opening an auction to closing it.",
                LONG,
                &["outcome"],
            )?,
            work_offers: make
                .counter("work_offers_total", "Times that work was offered to an agent that runs elsewhere.")?,
            work_claims: make.counters(
                "work_claims_total",
                "Claims of work by agents that run elsewhere, by result.",
                &["result"],
            )?,
            work_leases_lost: make.counter(
                "work_leases_lost_total",
                "Leases of agents that run elsewhere that were over before a result came.",
            )?,
            agents_online: make.register(prometheus::IntGaugeVec::new(
                Opts::new("agents_online", "Agents that can start work now, market-wide; aggregate with max."),
                &["runtime"],
            ))?,
            tasks_submitted: make.counter("tasks_submitted_total", "Tasks accepted for execution.")?,
            tasks_running: make.gauge("tasks_running", "Tasks running now, market-wide; aggregate with max.")?,
            tasks_completed: make.counters(
                "tasks_completed_total",
                "Tasks finished by outcome.",
                &["runtime", "outcome"],
            )?,
            task_duration: make.histograms(
                "task_duration_seconds",
                "Wall time of task execution by the agent.",
                TASK,
                &["runtime", "outcome"],
            )?,
            task_cost: make.histogram("task_cost_credits", "Price paid for a completed task.", MONEY)?,
            task_errors: make.counters(
                "task_errors_total",
                "Task execution errors by reason, retries included.",
                &["runtime", "reason"],
            )?,
            delegations: make.counters(
                "delegations_total",
                "Delegations ended by outcome, groups included.",
                &["outcome"],
            )?,
            delegation_duration: make.histograms(
                "delegation_duration_seconds",
                "Time from delegating a goal to its end.",
                LONG,
                &["outcome"],
            )?,
            delegation_steps: make.counters(
                "delegation_steps_total",
                "Steps of delegations ended by outcome.",
                &["outcome"],
            )?,
            escrows_created: make.counter("escrows_created_total", "Escrows funded.")?,
            escrow_locked: make
                .ratio("escrow_locked_credits", "Funds locked in escrow, market-wide; aggregate with max.")?,
            escrow_releases: make.counter("escrow_releases_total", "Escrows released to the agent.")?,
            escrow_refunds: make.counters(
                "escrow_refunds_total",
                "Escrows returned to the payer by reason.",
                &["reason"],
            )?,
            fees: make.counter("fees_micro_credits_total", "Platform fees taken, in micro-credits.")?,
            ledger_violations: make.register(prometheus::IntGaugeVec::new(
                Opts::new(
                    "ledger_invariant_violations",
                    "Rows that break an invariant of the books as of the last audit, by invariant; must be 0.",
                ),
                &["check"],
            ))?,
            requests: make.counters(
                "graphql_requests_total",
                "GraphQL operations by outcome.",
                &["operation_type", "outcome"],
            )?,
            request_duration: make.histograms(
                "graphql_request_duration_seconds",
                "Time to answer a GraphQL query or mutation.",
                FAST,
                &["operation_type"],
            )?,
            subscriptions_active: make
                .gauge("graphql_subscriptions_active", "Subscriptions of this process that run now.")?,
            pool_connections,
            registry: make.0,
        };
        metrics.create_series();
        Ok(metrics)
    }

    /// Brings every combination of labels into being at zero.
    fn create_series(&self) {
        for event in ["opened", "closed", "topped_up", "paid", "closing", "reopened", "equivocation"] {
            self.channel_events.with_label_values(&[event]);
        }
        for reason in CloseReason::iter() {
            self.channel_lifetime.with_label_values(&[&label(reason.name())]);
        }
        for cause in Cause::iter() {
            self.reputation_updates.with_label_values(&[&label(cause.name())]);
        }
        for outcome in ["released", "split", "refunded"] {
            self.settlements.with_label_values(&[outcome]);
        }
        for stage in ["opened", "upheld", "rejected", "defaulted"] {
            self.settlement_disputes.with_label_values(&[stage]);
        }
        for outcome in ["awarded", "no_bids", "cancelled"] {
            self.auctions.with_label_values(&[outcome]);
            self.auction_duration.with_label_values(&[outcome]);
        }
        for outcome in ["accepted", "rejected", "withdrawn", "committed", "revealed"] {
            self.auction_bids.with_label_values(&[outcome]);
        }
        for result in [CLAIMED].iter().chain(CLAIM_REFUSALS) {
            self.work_claims.with_label_values(&[&label(result)]);
        }
        for runtime in ["wasm", "external"] {
            self.agents_online.with_label_values(&[runtime]);
            for outcome in ["succeeded", "failed"] {
                self.tasks_completed.with_label_values(&[runtime, outcome]);
                self.task_duration.with_label_values(&[runtime, outcome]);
            }
            for reason in TASK_ERRORS.iter().copied().chain(["other"]) {
                self.task_errors.with_label_values(&[runtime, &label(reason)]);
            }
        }
        for check in crate::ledger::names() {
            self.ledger_violations.with_label_values(&[check]);
        }
        for outcome in ["completed", "failed", "cancelled"] {
            self.delegations.with_label_values(&[outcome]);
            self.delegation_duration.with_label_values(&[outcome]);
        }
        for outcome in ["completed", "failed", "skipped"] {
            self.delegation_steps.with_label_values(&[outcome]);
        }
        for outcome in ["expired", "cancelled"] {
            self.tasks_completed.with_label_values(&["none", outcome]);
        }
        for reason in ["task_failed", "not_started", "no_award", "cancelled", "dispute"] {
            self.escrow_refunds.with_label_values(&[reason]);
        }
        for operation in <OperationType as strum::IntoEnumIterator>::iter() {
            for outcome in <RequestOutcome as strum::IntoEnumIterator>::iter() {
                self.requests.with_label_values(&[<&str>::from(operation), outcome.into()]);
            }
        }
        for operation in [OperationType::Query, OperationType::Mutation] {
            self.request_duration.with_label_values(&[<&str>::from(operation)]);
        }
    }

    /// Counts events that this process committed.
    pub fn observe(&self, events: &[event::Model]) {
        for event in events {
            self.observe_one(event);
        }
    }

    fn observe_one(&self, event: &event::Model) {
        let payload = &event.payload;
        let seconds = Duration::from_micros(u64::try_from(payload.duration_us.unwrap_or(0)).unwrap_or(0)).as_secs_f64();
        let amount = credits(payload.amount.unwrap_or(Amount::ZERO));
        let runtime = payload.runtime.map_or("none", runtime_label);
        let external = payload.runtime == Some(Runtime::External);
        match event.kind {
            Kind::TaskPosted => {
                self.tasks_submitted.inc();
                self.escrows_created.inc();
            }
            Kind::BidSubmitted => self.auction_bids.with_label_values(&["accepted"]).inc(),
            Kind::BidWithdrawn => self.auction_bids.with_label_values(&["withdrawn"]).inc(),
            Kind::BidCommitted => self.auction_bids.with_label_values(&["committed"]).inc(),
            Kind::BidRevealed => self.auction_bids.with_label_values(&["revealed"]).inc(),
            Kind::AuctionAwarded => {
                self.auction_winning_bid.observe(amount);
                self.auction_closed("awarded", seconds);
            }
            Kind::AuctionExpired => self.auction_closed("no_bids", seconds),
            Kind::AuctionCancelled => self.auction_closed("cancelled", seconds),
            Kind::ChannelOpened => self.channel_events.with_label_values(&["opened"]).inc(),
            Kind::ChannelToppedUp => self.channel_events.with_label_values(&["topped_up"]).inc(),
            Kind::ChannelClosing => self.channel_events.with_label_values(&["closing"]).inc(),
            Kind::ChannelReopened => self.channel_events.with_label_values(&["reopened"]).inc(),
            Kind::ChannelEquivocation => self.channel_events.with_label_values(&["equivocation"]).inc(),
            Kind::ChannelPaid => {
                self.channel_events.with_label_values(&["paid"]).inc();
                self.channel_payment(payload);
            }
            Kind::ChannelClosed => {
                self.channel_events.with_label_values(&["closed"]).inc();
                let reason = payload.reason.as_deref().unwrap_or_default();
                if reason == CloseReason::Cooperative.name() && payload.amount.is_some_and(|paid| !paid.is_zero()) {
                    self.channel_payment(payload);
                }
                if CloseReason::iter().any(|known| known.name() == reason) {
                    self.channel_lifetime.with_label_values(&[&label(reason)]).observe(seconds);
                }
                if reason == CloseReason::Forfeited.name() {
                    self.escrow_refunds.with_label_values(&["not_started"]).inc();
                }
            }
            Kind::TaskCompleted => {
                self.tasks_completed.with_label_values(&[runtime, "succeeded"]).inc();
                self.task_duration.with_label_values(&[runtime, "succeeded"]).observe(seconds);
                self.task_cost.observe(amount);
                let whole = payload.returned.is_none_or(Amount::is_zero);
                self.settlements.with_label_values(&[if whole { "released" } else { "split" }]).inc();
                self.escrow_releases.inc();
                self.fees.inc_by(u64::try_from(payload.fee.unwrap_or(Amount::ZERO).micros()).unwrap_or(0));
            }
            Kind::WorkOffered => self.work_offers.inc(),
            Kind::TaskStarted if external => self.work_claims.with_label_values(&[CLAIMED]).inc(),
            Kind::TaskRefunded => {
                self.lease_lost(payload);
                self.tasks_completed.with_label_values(&[runtime, "failed"]).inc();
                self.task_duration.with_label_values(&[runtime, "failed"]).observe(seconds);
                self.settlements.with_label_values(&["refunded"]).inc();
                match payload.reason.as_deref() {
                    Some("DISPUTE_LOST") => self.escrow_refunds.with_label_values(&["dispute"]).inc(),
                    // What the verifiers found wrong was counted when the result came.
                    Some("NOT_ACCEPTED") => self.escrow_refunds.with_label_values(&["task_failed"]).inc(),
                    reason => {
                        self.escrow_refunds.with_label_values(&["task_failed"]).inc();
                        self.task_error(runtime, reason);
                    }
                }
            }
            Kind::TaskSubmitted if payload.reason.is_some() => self.task_error(runtime, payload.reason.as_deref()),
            Kind::DisputeOpened => self.settlement_disputes.with_label_values(&["opened"]).inc(),
            Kind::DisputeResolved => {
                let finding = payload.reason.as_deref().unwrap_or_default();
                if ["UPHELD", "REJECTED", "DEFAULTED"].contains(&finding) {
                    self.settlement_disputes.with_label_values(&[&label(finding)]).inc();
                }
            }
            Kind::TaskRetried => {
                self.lease_lost(payload);
                self.task_error(runtime, payload.reason.as_deref());
            }
            Kind::TaskExpired => {
                self.tasks_completed.with_label_values(&["none", "expired"]).inc();
                if event.agent_id.is_none() {
                    self.escrow_refunds.with_label_values(&["no_award"]).inc();
                }
            }
            Kind::TaskCancelled => {
                self.tasks_completed.with_label_values(&["none", "cancelled"]).inc();
                self.escrow_refunds.with_label_values(&["cancelled"]).inc();
            }
            Kind::ReputationChanged => {
                let milli_points = payload.score_after.unwrap_or(0);
                self.reputation_score.observe(milli(milli_points));
                let cause = payload.reason.as_deref().unwrap_or_default();
                if Cause::iter().any(|known| known.name() == cause) {
                    self.reputation_updates.with_label_values(&[&label(cause)]).inc();
                }
            }
            Kind::DelegationCompleted => self.delegation_ended("completed", seconds),
            Kind::DelegationFailed => self.delegation_ended("failed", seconds),
            Kind::DelegationCancelled => self.delegation_ended("cancelled", seconds),
            Kind::StepCompleted => self.delegation_steps.with_label_values(&["completed"]).inc(),
            Kind::StepFailed => self.delegation_steps.with_label_values(&["failed"]).inc(),
            Kind::StepSkipped => self.delegation_steps.with_label_values(&["skipped"]).inc(),
            Kind::AuctionOpened
            | Kind::AuctionExtended
            | Kind::TaskReassigned
            | Kind::TaskStarted
            | Kind::AuctionRevealing
            | Kind::BondForfeited
            | Kind::TaskSubmitted
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

    /// Counts a lease of an agent that runs elsewhere, if that is what ended.
    fn lease_lost(&self, payload: &event::Payload) {
        if payload.runtime == Some(Runtime::External) && payload.reason.as_deref() == Some("WORKER_LOST") {
            self.work_leases_lost.inc();
        }
    }

    /// Counts what a streaming channel paid. What an escrow channel pays is counted with its task.
    fn channel_payment(&self, payload: &event::Payload) {
        self.payments.inc();
        self.payment_amount.observe(credits(payload.amount.unwrap_or(Amount::ZERO)));
        self.fees.inc_by(u64::try_from(payload.fee.unwrap_or(Amount::ZERO).micros()).unwrap_or(0));
    }

    fn auction_closed(&self, outcome: &str, seconds: f64) {
        self.auctions.with_label_values(&[outcome]).inc();
        self.auction_duration.with_label_values(&[outcome]).observe(seconds);
    }

    fn delegation_ended(&self, outcome: &str, seconds: f64) {
        self.delegations.with_label_values(&[outcome]).inc();
        self.delegation_duration.with_label_values(&[outcome]).observe(seconds);
    }

    fn task_error(&self, runtime: &str, reason: Option<&str>) {
        let known = reason.filter(|reason| TASK_ERRORS.contains(reason)).unwrap_or("other");
        self.task_errors.with_label_values(&[runtime, &label(known)]).inc();
    }

    /// Counts a bid that the rules refused; nothing of it was committed, so there is no event.
    pub fn bid_rejected(&self) {
        self.auction_bids.with_label_values(&["rejected"]).inc();
    }

    /// Counts a claim of work that the rules refused.
    pub fn claim_refused(&self, code: &str) {
        let known = CLAIM_REFUSALS.iter().find(|known| **known == code).copied().unwrap_or("OTHER");
        self.work_claims.with_label_values(&[&label(known)]).inc();
    }

    /// Counts a GraphQL operation; a subscription has no duration.
    pub fn request(&self, operation: OperationType, outcome: RequestOutcome, took: Option<Duration>) {
        self.requests.with_label_values(&[<&str>::from(operation), outcome.into()]).inc();
        if let Some(took) = took {
            self.request_duration.with_label_values(&[<&str>::from(operation)]).observe(took.as_secs_f64());
        }
    }

    /// Counts a subscription that begins (+1) or ends (−1).
    pub fn subscriptions(&self, change: i64) {
        self.subscriptions_active.add(change);
    }

    /// Remembers an audit.
    pub fn audited(&self, audit: &Audit) {
        for check in &audit.checks {
            let violations = i64::try_from(check.violations).unwrap_or(i64::MAX);
            self.ledger_violations.with_label_values(&[check.name]).set(violations);
        }
    }

    /// Samples the gauges of the market from the database.
    pub async fn sample(&self, store: &Store) -> Result<()> {
        let seen_since = store.clock().now().before(store.terms().presence).micros();
        let sql = format!(
            "SELECT \
             CAST((SELECT COUNT(*) FROM auctions WHERE status IN ('OPEN', 'REVEALING')) AS BIGINT) AS auctions, \
             CAST((SELECT COUNT(*) FROM channels WHERE status <> 'CLOSED') AS BIGINT) AS channels, \
             CAST((SELECT COUNT(*) FROM tasks WHERE status = 'RUNNING') AS BIGINT) AS tasks, \
             CAST((SELECT COALESCE(SUM(balance), 0) FROM accounts WHERE kind IN ('ESCROW_TASK', 'ESCROW_CHANNEL', 'ESCROW_DELEGATION')) AS BIGINT) \
             AS locked, \
             CAST((SELECT COUNT(*) FROM agents WHERE status = 'ACTIVE' AND runtime = 'HOSTED' AND module_id IS NOT NULL) AS BIGINT) \
             AS hosted, \
             CAST((SELECT COUNT(*) FROM agents WHERE status = 'ACTIVE' AND runtime = 'EXTERNAL' AND last_seen_at >= {seen_since}) \
             AS BIGINT) AS outside, \
             CAST((SELECT COALESCE(SUM(successes), 0) FROM reputations) AS BIGINT) AS successes, \
             CAST((SELECT COALESCE(SUM(tasks), 0) FROM reputations) AS BIGINT) AS settled"
        );
        let statement = Statement::from_string(store.backend(), sql);
        let Some(row) = store.read().query_one_raw(statement).await? else { return Ok(()) };
        self.auctions_open.set(row.try_get("", "auctions")?);
        self.channels_active.set(row.try_get("", "channels")?);
        self.tasks_running.set(row.try_get("", "tasks")?);
        for (runtime, column) in [("wasm", "hosted"), ("external", "outside")] {
            self.agents_online.with_label_values(&[runtime]).set(row.try_get("", column)?);
        }
        let locked: i64 = row.try_get("", "locked")?;
        self.escrow_locked.set(credits(Amount::from_micros(locked).unwrap_or(Amount::ZERO)));
        let (successes, settled): (i64, i64) = (row.try_get("", "successes")?, row.try_get("", "settled")?);
        let per_mille = successes.saturating_mul(1_000).checked_div(settled).unwrap_or(0);
        self.reputation_success_ratio.set(milli(i32::try_from(per_mille).unwrap_or(0)));
        let (size, idle) = store.pool();
        for (state, count) in [("idle", idle), ("used", size.saturating_sub(idle))] {
            if let Some(gauge) = self.pool_connections.get(state) {
                gauge.set(i64::from(count));
            }
        }
        Ok(())
    }

    /// All metrics, and those of the process, in the text format of Prometheus.
    pub fn render(&self) -> Result<String> {
        let mut families = self.registry.gather();
        families.extend(prometheus::gather());
        TextEncoder::new().encode_to_string(&families).map_err(Error::internal)
    }
}

fn label(name: &str) -> String {
    name.to_lowercase()
}

fn runtime_label(runtime: Runtime) -> &'static str {
    match runtime {
        Runtime::Hosted => "wasm",
        Runtime::External => "external",
    }
}

/// Credits as the nearest float, by way of their exact text: metrics are the only place where money is one.
fn credits(amount: Amount) -> f64 {
    amount.to_string().parse().unwrap_or(f64::NAN)
}

/// Thousandths as the nearest float.
fn milli(thousandths: i32) -> f64 {
    let sign = if thousandths < 0 { "-" } else { "" };
    let (whole, rest) = (thousandths.unsigned_abs() / 1_000, thousandths.unsigned_abs() % 1_000);
    format!("{sign}{whole}.{rest:03}").parse().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_is_there_before_anything_happened() {
        let text = Metrics::new().unwrap().render().unwrap();
        for series in [
            "zerostate_auctions_total{outcome=\"awarded\"} 0",
            "zerostate_task_errors_total{reason=\"out_of_fuel\",runtime=\"wasm\"} 0",
            "zerostate_payment_channel_lifetime_seconds_count{reason=\"settled\"} 0",
            "zerostate_build_info{version=",
        ] {
            assert!(text.contains(series), "{series} is missing in\n{text}");
        }
    }

    #[test]
    fn money_and_scores_reach_their_nearest_float() {
        assert_eq!(credits(Amount::from_micros(2_500_000).unwrap()).to_string(), "2.5");
        assert_eq!(milli(42_500).to_string(), "42.5");
    }
}
