//! Every metric of the service: what it is called, what it means and when it is recorded, in one table, from which the reference in
//! `docs/metrics.md` is printed.
//!
//! ```text
//! commit ─► events ───────────────► record ─┐
//! refusals, durations, what is open ────────┼─► handles ─► registry ─► GET /metrics
//! every 15 s ─► database ─► sample ─────────┘
//! ```
//!
//! Counters and histograms of the market are fed from committed events, in one place, so that what was rolled back was never counted
//! and every event counts once in the fleet: only the process that committed it records it. Gauges of the market are sampled from the
//! database; every process reports the same, so aggregate them with `max`.
//!
//! Labels come from closed sets, and every series exists from the start at zero. Ids, names and texts are never labels. The handles
//! are fields that only this module reads: one that nobody records is dead code, which the lints refuse.

mod label;
mod record;
mod sample;
mod typed;

use prometheus::{Gauge, Histogram, IntCounter, IntGauge, Registry, TextEncoder};

use crate::error::{Error, Result};
use label::{
    AgentRuntime, Answered, AuctionOutcome, AuditReach, BidOutcome, Cause, ChannelEvent, ClaimResult, CloseReason,
    DelegationOutcome, DisputeStage, ModuleCache, PaymentOutcome, PoolState, RefundReason, Settled, SettlementOutcome,
    Side, StepOutcome, TaskError, TaskOutcome, TaskRuntime, WebhookOutcome, WorkOutcome,
};
pub(crate) use label::{Limited, OperationType, RequestOutcome, SocketKind};
pub(crate) use record::Open;
use typed::{Metric, Of, Of2, OfCheck, Spec};

/// Before every name.
const PREFIX: &str = "zerostate";
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

/// What runs: the version, and the commit if the build was told.
const BUILD: &[(&str, &str)] = &[
    ("version", env!("CARGO_PKG_VERSION")),
    (
        "revision",
        match option_env!("GIT_SHA") {
            Some(commit) if !commit.is_empty() => commit,
            Some(_) | None => "unknown",
        },
    ),
];

/// When a gauge of the market is set.
const SAMPLED: &str = "every 15 s, from the database; aggregate with max";

/// Declares all metrics, in groups: the handle, its type, and what is told of it.
macro_rules! metrics {
    ($($group:literal { $($handle:ident: $kind:ty = $spec:expr;)+ })+) => {
        /// The registry and the handles of its metrics.
        #[derive(Debug)]
        pub struct Metrics {
            registry: Registry,
            $($($handle: $kind,)+)+
        }

        impl Metrics {
            fn build() -> prometheus::Result<Self> {
                let registry = Registry::new_custom(Some(PREFIX.to_owned()), None)?;
                Ok(Self { $($($handle: <$kind>::make(&registry, &$spec)?,)+)+ registry })
            }
        }

        /// All metrics as they are declared, in their groups.
        fn groups() -> Vec<(&'static str, Vec<Row>)> {
            vec![$(($group, vec![$(Row::new::<$kind>(&$spec),)+]),)+]
        }
    };
}

metrics! {
    "Payment channels" {
        channel_events: Of<IntCounter, ChannelEvent> = Spec::new(
            "payment_channel_events_total", "Payment channel lifecycle transitions.",
            "after the commit; `funded` is a top-up, `disputed` a dispute over the task that the channel backs",
        );
        channels_active: IntGauge = Spec::new(
            "payment_channels_active", "Payment channels open now, market-wide; aggregate with max.", SAMPLED,
        );
        channel_lifetime: Of<Histogram, CloseReason> = Spec::new(
            "payment_channel_lifetime_seconds", "Time from opening a payment channel to closing it.", "after the close commits",
        ).in_buckets(LONG);
        channel_balance: Of<Gauge, Side> = Spec::new(
            "payment_channel_balance_credits",
            "Deposits of open payment channels: what the payer still has there, and what the payee was paid; aggregate with max.",
            SAMPLED,
        ).of_credits();
    }
    "Payments" {
        payments: Of<IntCounter, PaymentOutcome> = Spec::new(
            "payments_total", "Payments out of streaming channels by outcome.",
            "after the commit, or at the refusal; `failed` is our own failure",
        ).of_credits();
        payment_amount: Histogram = Spec::new(
            "payment_amount_credits", "Amount of each successful payment out of a streaming channel.", "after the commit",
        ).of_credits().in_buckets(MONEY);
        payment_duration: Of<Histogram, PaymentOutcome> = Spec::new(
            "payment_duration_seconds", "Time to check and commit one payment out of a streaming channel.",
            "when the mutation ends, a repeated one too",
        ).in_buckets(FAST);
    }
    "Reputation" {
        reputation_score: Histogram = Spec::new(
            "reputation_score", "Agent reputation score (0 to 100) observed after each update.", "after the update commits",
        ).in_buckets(SCORE);
        reputation_updates: Of<IntCounter, Cause> = Spec::new(
            "reputation_updates_total", "Reputation updates by cause.", "after the update commits",
        );
        reputation_success_ratio: Gauge = Spec::new(
            "reputation_success_ratio",
            "Lifetime successful share of settled tasks over all agents (0 to 1); aggregate with max.", SAMPLED,
        );
        reputation_mean_task_duration: Gauge = Spec::new(
            "reputation_mean_task_duration_seconds",
            "Mean over active agents of the mean duration of their successful tasks; aggregate with max.", SAMPLED,
        );
        reputation_mean_task_cost: Gauge = Spec::new(
            "reputation_mean_task_cost_credits",
            "Mean over active agents of what they were paid for a successful task on average; aggregate with max.", SAMPLED,
        ).of_credits();
    }
    "Settlements" {
        settlements: Of<IntCounter, SettlementOutcome> = Spec::new(
            "settlements_total", "Settlements of tasks by outcome.",
            "after the commit; `failed` when one was undone by a failure of ours and will be tried again",
        ).of_credits();
        settlement_duration: Of<Histogram, Settled> = Spec::new(
            "settlement_duration_seconds", "Time from the result of a task to its final funds.",
            "after the commit; 0 where no review lies between, because result and settlement are one commit",
        ).in_buckets(LONG);
        settlement_disputes: Of<IntCounter, DisputeStage> = Spec::new(
            "settlement_disputes_total", "Settlement disputes by stage reached.",
            "after the commit; `upheld` and `rejected` as it went for the opener, `expired` when no arbiter ruled in time",
        );
    }
    "Auctions" {
        auctions: Of<IntCounter, AuctionOutcome> = Spec::new(
            "auctions_total", "Auctions closed by outcome.", "after the close commits",
        );
        auction_bids: Of<IntCounter, BidOutcome> = Spec::new(
            "auction_bids_total", "Bids by outcome of validation.", "after the commit, or at the refusal",
        );
        auction_winning_bid: Histogram = Spec::new(
            "auction_winning_bid_credits", "Price of the winning bid.", "after the award commits",
        ).of_credits().in_buckets(MONEY);
        auction_duration: Of<Histogram, AuctionOutcome> = Spec::new(
            "auction_duration_seconds", "Time from opening an auction to closing it.", "after the close commits",
        ).in_buckets(LONG);
    }
    "Task execution" {
        tasks_submitted: IntCounter = Spec::new(
            "tasks_submitted_total", "Tasks accepted for execution.",
            "after the commit; where a task will run is not known before its award, so there is no runtime",
        );
        tasks_completed: Of2<IntCounter, TaskRuntime, TaskOutcome> = Spec::new(
            "tasks_completed_total", "Tasks finished by outcome.",
            "after the last state commits; `none` where no agent ran, `expired` when nobody did the task",
        );
        task_duration: Of2<Histogram, AgentRuntime, WorkOutcome> = Spec::new(
            "task_duration_seconds", "Wall time of task execution by the agent.", "after the last state commits",
        ).in_buckets(TASK);
        task_cost: Of<Histogram, AgentRuntime> = Spec::new(
            "task_cost_credits", "Price paid for a completed task.", "after the settlement commits",
        ).of_credits().in_buckets(MONEY);
        task_errors: Of2<IntCounter, AgentRuntime, TaskError> = Spec::new(
            "task_errors_total", "Task execution errors by reason, retries included.", "after each attempt that failed commits",
        );
    }
    "Escrow" {
        escrows_created: IntCounter = Spec::new(
            "escrows_created_total", "Escrows funded.", "after the commit",
        ).of_credits();
        escrow_locked: Gauge = Spec::new(
            "escrow_locked_credits",
            "Funds locked in escrow for tasks, channels and delegations, market-wide; aggregate with max.", SAMPLED,
        ).of_credits();
        escrow_releases: IntCounter = Spec::new(
            "escrow_releases_total", "Escrows released to the agent.", "after the commit",
        ).of_credits();
        escrow_refunds: Of<IntCounter, RefundReason> = Spec::new(
            "escrow_refunds_total", "Escrows returned to the payer by reason.",
            "after the commit; `timeout` when work was not begun or not done in time, `no_award` when nobody bid",
        ).of_credits();
    }
    "Service" {
        auctions_open: IntGauge = Spec::new(
            "auctions_open", "Auctions open now, market-wide; aggregate with max.", SAMPLED,
        );
        tasks_running: Of<IntGauge, AgentRuntime> = Spec::new(
            "tasks_running", "Tasks running now, market-wide; aggregate with max.", SAMPLED,
        );
        ledger_imbalance: Gauge = Spec::new(
            "ledger_imbalance_credits", "Sum of all accounts as of the last whole audit; must be 0.",
            "at the start, every hour, and every minute while the books are broken",
        ).of_credits();
        outbox_oldest_event_age: Gauge = Spec::new(
            "outbox_oldest_event_age_seconds",
            "Age of the oldest committed event that the live feed of this process has not told yet; 0 if there is none.",
            "every 15 s",
        );
        requests: Of2<IntCounter, OperationType, RequestOutcome> = Spec::new(
            "graphql_requests_total", "GraphQL operations by outcome.", "when the operation ends",
        );
        request_duration: Of<Histogram, Answered> = Spec::new(
            "graphql_request_duration_seconds", "Time to answer a GraphQL query or mutation.", "when the operation ends",
        ).in_buckets(FAST);
        subscriptions_active: IntGauge = Spec::new(
            "graphql_subscriptions_active", "Subscriptions of this process that run now.", "when one begins or ends",
        );
        lagged_events: IntCounter = Spec::new(
            "graphql_subscription_lagged_events_total",
            "Events that a subscriber was too slow for in the live feed and read from the log instead; none is lost.",
            "when it falls behind",
        );
        rate_limited: Of<IntCounter, Limited> = Spec::new(
            "rate_limited_requests_total", "Requests that were refused because of a limit of the caller or its address.",
            "at the refusal with 429",
        );
        pool_connections: Of<IntGauge, PoolState> = Spec::new(
            "db_pool_connections", "Connections of this process to the database by state.", "every 15 s",
        );
        transaction_retries: IntCounter = Spec::new(
            "db_transaction_retries_total",
            "Units of work undone by a conflict or an outage of the database, to be tried again with the same key.",
            "when it is undone",
        );
        build_info: IntGauge = Spec::new("build_info", "The running program; always 1.", "at the start").with(BUILD);
    }
    "Beyond the table: work elsewhere, delegations, webhooks, the sandbox, the books" {
        work_offers: IntCounter = Spec::new(
            "work_offers_total", "Times that work was offered to an agent that runs elsewhere.", "after the commit",
        );
        work_claims: Of<IntCounter, ClaimResult> = Spec::new(
            "work_claims_total", "Claims of work by agents that run elsewhere, by result.", "after the commit, or at the refusal",
        );
        work_leases_lost: IntCounter = Spec::new(
            "work_leases_lost_total", "Leases of agents that run elsewhere that were over before a result came.",
            "after the commit",
        );
        agents_online: Of<IntGauge, AgentRuntime> = Spec::new(
            "agents_online", "Agents that can start work now, market-wide; aggregate with max.", SAMPLED,
        );
        delegations: Of<IntCounter, DelegationOutcome> = Spec::new(
            "delegations_total", "Delegations ended by outcome, groups included.", "after the commit",
        );
        delegation_duration: Of<Histogram, DelegationOutcome> = Spec::new(
            "delegation_duration_seconds", "Time from delegating a goal to its end.", "after the commit",
        ).in_buckets(LONG);
        delegation_steps: Of<IntCounter, StepOutcome> = Spec::new(
            "delegation_steps_total", "Steps of delegations ended by outcome.", "after the commit",
        );
        fees: IntCounter = Spec::new(
            "fees_micro_credits_total", "Platform fees taken, in micro-credits, which are exact.", "after the commit",
        ).of_credits();
        ledger_violations: OfCheck = Spec::new(
            "ledger_invariant_violations",
            "Rows that break an invariant of the books as of the last audit, by invariant; must be 0.", "at each audit",
        );
        ledger_last_audit: Of<IntGauge, AuditReach> = Spec::new(
            "ledger_last_audit_timestamp_seconds",
            "When the last audit of this process began, in seconds since 1970; a whole one is a recent one too.",
            "at each audit, every minute; of everything at the start and every hour",
        );
        sweep_oldest_due: Gauge = Spec::new(
            "sweep_oldest_due_age_seconds",
            "For how long the oldest deadline is over that the sweeper has not acted on, market-wide; aggregate with max.",
            SAMPLED,
        );
        webhook_attempts: Of<IntCounter, WebhookOutcome> = Spec::new(
            "webhook_attempts_total", "Tries to deliver a webhook message by outcome.", "after the try is written down",
        );
        webhooks_pending: IntGauge = Spec::new(
            "webhook_deliveries_pending", "Webhook messages that were not taken yet, market-wide; aggregate with max.", SAMPLED,
        );
        webhook_oldest_due: Gauge = Spec::new(
            "webhook_oldest_due_age_seconds",
            "For how long the oldest webhook message is due that nobody has tried, market-wide; aggregate with max.", SAMPLED,
        );
        sandbox_modules: Of<IntCounter, ModuleCache> = Spec::new(
            "sandbox_modules_total", "Modules that a run asked for: ready in memory, read from the disk, or compiled.", "when they are asked for",
        );
        event_answers: IntCounter = Spec::new(
            "graphql_subscription_answers_total",
            "Answers to events that were worked out. Subscribers who ask for the same share one.",
            "when an event comes",
        );
        sockets_open: Of<IntGauge, SocketKind> = Spec::new(
            "sockets_open", "WebSockets and event streams of this process that are open now.", "when one opens or closes",
        );
        pool_limit: IntGauge = Spec::new(
            "db_pool_connections_limit", "Connections to the database that this process may have at most.", "every 15 s",
        );
    }
}

/// A metric as the reference shows it.
struct Row {
    name: String,
    kind: &'static str,
    labels: String,
    unit: &'static str,
    help: &'static str,
    when: &'static str,
}

impl Row {
    fn new<M: Metric>(spec: &Spec) -> Self {
        let fixed = spec
            .fixed
            .iter()
            .map(|(label, value)| if *label == "asset" { format!("`{label}`: {value}") } else { format!("`{label}`") });
        let free = M::labels().into_iter().map(|(label, values)| format!("`{label}`: {}", values.join(" ")));
        let labels: Vec<String> = free.chain(fixed).collect();
        Self {
            name: format!("{PREFIX}_{}", spec.name),
            kind: M::TYPE,
            labels: labels.join("; "),
            unit: unit(spec.name),
            help: spec.help,
            when: spec.when,
        }
    }
}

/// The unit of a metric, which its name says.
fn unit(name: &str) -> &'static str {
    let base = name.strip_suffix("_total").unwrap_or(name);
    if base.ends_with("_micro_credits") {
        "micro-credits"
    } else if base.ends_with("_credits") {
        "credits"
    } else if base.ends_with("_seconds") {
        "seconds"
    } else if base.ends_with("_ratio") {
        "ratio"
    } else if base == "reputation_score" {
        "points"
    } else {
        "count"
    }
}

/// What stands before the tables of the reference.
const INTRODUCTION: &str = "\
# Metrics

`GET /metrics` answers in the text format of Prometheus, compressed when the client takes gzip. With `--metrics-address` it is
served at an address of its own, with `/health` and `/ready`, until the end of the shutdown, and no longer on the public port.
Rules, alerts and dashboards over these metrics are in `deploy/observability/`, a page for each alert in `docs/runbooks/`.

Counters and histograms count committed events, in the process that committed them: sum them over processes. Gauges of the market are
read from the database by every process, so all say the same: aggregate them with `max`. Every series is there from the start, at 0,
and labels come from closed sets. The seven `process_*` metrics of the operating system come on top, without a prefix.

This page is printed by `zerostate metrics`.
";

/// The reference of all metrics in Markdown.
#[must_use]
pub fn reference() -> String {
    let table = |(group, rows): (&str, Vec<Row>)| {
        let head = "| metric | type | labels | unit | what it is | recorded |\n|---|---|---|---|---|---|";
        let line = |Row { name, kind, labels, unit, help, when }: Row| {
            format!("| `{name}` | {kind} | {labels} | {unit} | {help} | {when} |\n")
        };
        let lines: String = rows.into_iter().map(line).collect();
        format!("\n## {group}\n\n{head}\n{lines}")
    };
    let tables: String = groups().into_iter().map(table).collect();
    format!("{INTRODUCTION}{tables}")
}

impl Metrics {
    /// A registry of its own with every series at zero.
    pub fn new() -> Result<Self> {
        let metrics = Self::build().map_err(Error::internal)?;
        metrics.build_info.set(1);
        Ok(metrics)
    }

    /// All metrics, and those of the process, in the text format of Prometheus.
    pub fn render(&self) -> Result<String> {
        let mut families = self.registry.gather();
        families.extend(prometheus::gather());
        TextEncoder::new().encode_to_string(&families).map_err(Error::internal)
    }
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
            "zerostate_payments_total{asset=\"credits\",outcome=\"rejected\"} 0",
            "zerostate_build_info{revision=",
        ] {
            assert!(text.contains(series), "{series} is missing in\n{text}");
        }
        let series = text.lines().filter(|line| line.starts_with("zerostate_")).count();
        assert!(series < 800, "{series} series are too many");
    }

    #[test]
    fn every_metric_is_declared_once_and_described() {
        let rows: Vec<Row> = groups().into_iter().flat_map(|(_, rows)| rows).collect();
        let mut names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), rows.len());
        for row in &rows {
            assert!(row.help.ends_with('.') && !row.when.is_empty(), "{}", row.name);
            assert_eq!(row.kind == "counter", row.name.ends_with("_total"), "{}", row.name);
        }
        // The 28 of the market in seven groups, the 12 of the service, and what living with it needs.
        let sizes: Vec<usize> = groups().iter().map(|(_, rows)| rows.len()).collect();
        assert_eq!(sizes[..8], [4, 3, 5, 3, 4, 5, 4, 12], "{sizes:?}");
    }
}
