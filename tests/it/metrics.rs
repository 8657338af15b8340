//! Metrics that move: what happened on the market is what is counted, by the exact amount, and nothing before. One story drives
//! everything, and a metric that it does not move fails it.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use entity::event::{Kind, Payload};
use flate2::read::GzDecoder;
use sea_orm::{ConnAcquireErr, ConnectionTrait, Database, DbErr};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use zerostate::{
    caller::Caller,
    error::Error,
    metrics::{self, Metrics},
    store::{Event, Topic},
    transport,
};

use crate::world::{Client, Frame, PATIENCE, Socket, World, crashing, sample, send};

/// What depends on the speed of this machine or on a formula that has tests of its own. Beside each of these something else is
/// compared: that it was observed is its count.
const INEXACT: &[&str] = &[
    "payment_duration_seconds_sum",
    "task_duration_seconds_sum{outcome=\"failed\",runtime=\"wasm\"}",
    "task_duration_seconds_sum{outcome=\"succeeded\",runtime=\"wasm\"}",
    "reputation_score_sum",
];

/// The page of a process, as `(series, value)` without the prefix.
fn read(page: &str) -> BTreeMap<String, f64> {
    page.lines()
        .filter_map(|line| line.strip_prefix("zerostate_"))
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(series, value)| (series.to_owned(), value.parse().unwrap()))
        .collect()
}

/// What moved since the last look, compared with what should have.
struct Proof<'a> {
    world: &'a World,
    before: BTreeMap<String, f64>,
    proved: BTreeSet<String>,
    wrong: Vec<String>,
    /// Whether hosted agents have worked: their wall time is that of this machine.
    hosted: bool,
}

impl<'a> Proof<'a> {
    async fn begin(world: &'a World) -> Self {
        let mut proof =
            Self { world, before: BTreeMap::new(), proved: BTreeSet::new(), wrong: Vec::new(), hosted: false };
        proof.before = proof.look().await;
        proof
    }

    /// The page now, sampled now.
    async fn look(&self) -> BTreeMap<String, f64> {
        self.world.app.metrics().sample(self.world.app.store()).await.unwrap();
        read(&send(self.world.http().get(self.world.url("/metrics"))).await.text)
    }

    /// Compares the series that moved since the last look: those of operations if `of_graphql`, and all others if not.
    #[expect(clippy::float_arithmetic, reason = "Prometheus speaks in floats")]
    async fn compare(&mut self, step: &str, expected: &[(&str, f64)], of_graphql: bool) {
        let now = self.look().await;
        let inexact = |name: &str| {
            name.contains("_bucket")
                || name.starts_with("db_pool")
                || name.starts_with("graphql_request_duration_seconds_sum")
                || INEXACT.iter().any(|known| name.starts_with(known))
                || (self.hosted && name == "reputation_mean_task_duration_seconds")
        };
        let is_operation =
            |name: &str| name.starts_with("graphql_request") || name.starts_with("graphql_subscriptions");
        let moved: BTreeMap<&str, f64> = now
            .iter()
            .filter(|(name, _)| !inexact(name) && is_operation(name) == of_graphql)
            .map(|(name, value)| {
                let change =
                    value - self.before.get(name).unwrap_or_else(|| panic!("{name} was not there from the start"));
                (name.as_str(), (change * 1_000_000.0).round() / 1_000_000.0)
            })
            .filter(|(_, change)| *change != 0.0)
            .collect();
        let expected: BTreeMap<&str, f64> = expected.iter().copied().collect();
        if moved != expected {
            let extra: Vec<_> = moved.iter().filter(|(name, change)| expected.get(*name) != Some(change)).collect();
            let missing: Vec<_> = expected.iter().filter(|(name, change)| moved.get(*name) != Some(change)).collect();
            self.wrong.push(format!("{step}: moved {extra:#?} and should have moved {missing:#?}"));
        }
        self.proved.extend(moved.keys().map(|name| (*name).to_owned()));
        self.before = now;
    }

    async fn moved(&mut self, step: &str, expected: &[(&str, f64)]) {
        self.compare(step, expected, false).await;
    }

    /// Says that a metric was compared otherwise.
    fn proved(&mut self, name: &str) {
        self.proved.insert(name.to_owned());
    }

    /// Every metric that is declared has moved.
    fn end(self) {
        assert!(self.wrong.is_empty(), "{}", self.wrong.join("\n"));
        let page = Metrics::new().unwrap().render().unwrap();
        let declared = page.lines().filter_map(|line| line.strip_prefix("# TYPE zerostate_"));
        let declared: BTreeSet<&str> = declared.map(|line| line.split(' ').next().unwrap()).collect();
        assert!(declared.len() >= 40, "{declared:?}");
        let base = |series: &str| {
            let name = series.split('{').next().unwrap().to_owned();
            let whole = name.strip_suffix("_count").or_else(|| name.strip_suffix("_sum")).unwrap_or(&name);
            if declared.contains(name.as_str()) { name } else { whole.to_owned() }
        };
        let proved: BTreeSet<String> = self.proved.iter().map(|series| base(series)).collect();
        let missing: Vec<_> = declared.iter().filter(|name| !proved.contains(**name)).collect();
        assert!(missing.is_empty(), "nothing in this story moves {missing:?}");
    }
}

/// Somebody who takes webhooks, and answers with the status that is set.
async fn receiver(status: Arc<Mutex<u16>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    TaskTracker::new().spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            // A message is an object: the closing brace is its end.
            let mut message = Vec::new();
            while !message.ends_with(b"}") {
                assert!(stream.read_buf(&mut message).await.unwrap() > 0, "a message has no end");
            }
            let answer = format!("HTTP/1.1 {} So\r\ncontent-length: 0\r\n\r\n", *status.lock().unwrap());
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    address
}

async fn claim(who: &Client, task: &str) -> Value {
    who.call("claimTask", "claim { token }", json!({ "taskId": task })).await["claim"]["token"].take()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_moves_when_its_thing_happens_and_by_how_much_it_did() {
    let world = World::with(|config| {
        config.terms.fee_bps = 1_000;
        config.terms.allow_private_webhooks = true;
        config.limits.sockets_per_address = 2;
    })
    .await;
    let (ada, bob, judge) =
        (world.user("ada").await, world.user("bob").await, world.of_role("judge", entity::user::Role::Arbiter).await);
    world.credit(&ada, "100").await;
    let status = Arc::new(Mutex::new(500));
    let hook = format!("http://{}/hook", receiver(Arc::clone(&status)).await);

    // Before anything was sampled nothing is known of connections; then there is at least one, of six.
    let fresh = read(&world.app.metrics().render().unwrap());
    assert_eq!((fresh["db_pool_connections_limit"], fresh["db_pool_connections{state=\"idle\"}"]), (0.0, 0.0));
    let mut proof = Proof::begin(&world).await;
    assert_eq!(proof.before["db_pool_connections_limit"].to_string(), "6");
    assert!(
        ["idle", "used"].iter().any(|state| proof.before[&format!("db_pool_connections{{state=\"{state}\"}}")] >= 1.0)
    );
    proof.proved("db_pool_connections");
    proof.proved("db_pool_connections_limit");
    assert!(proof.before.iter().any(|(name, value)| name.starts_with("build_info{") && value.to_string() == "1"));
    proof.proved("build_info");

    // An agent that runs elsewhere: its bid, its lease that is lost, its second try, its webhooks.
    let outside = world.agent(&bob, "outside", "EXTERNAL", "text.outside", "0.5").await;
    bob.call("setWebhook", "secret", json!({ "agentId": outside.to_string(), "url": hook })).await;
    proof.moved("nothing", &[]).await;
    let auction = ada.open(json!({ "capabilities": ["text.outside"], "closesIn": "PT60S", "budget": "2" })).await;
    assert_eq!(bob.refused_bid(&auction, outside, "3").await, "PRICE_ABOVE_CEILING");
    bob.bid(&auction, outside, "1").await;
    proof
        .moved(
            "a bid",
            &[
                ("agents_online{runtime=\"external\"}", 1.0),
                ("auction_bids_total{outcome=\"accepted\"}", 1.0),
                ("auction_bids_total{outcome=\"rejected\"}", 1.0),
                ("auctions_open", 1.0),
                ("escrow_locked_credits{asset=\"credits\"}", 2.0),
                ("escrows_created_total{asset=\"credits\"}", 1.0),
                ("tasks_submitted_total", 1.0),
            ],
        )
        .await;
    world.turn(Duration::from_secs(65));
    proof.moved("nobody sweeps", &[("sweep_oldest_due_age_seconds", 5.0)]).await;
    world.settle().await;
    proof
        .moved(
            "an award",
            &[
                ("auction_duration_seconds_count{outcome=\"awarded\"}", 1.0),
                ("auction_duration_seconds_sum{outcome=\"awarded\"}", 65.0),
                ("auction_winning_bid_credits_count{asset=\"credits\"}", 1.0),
                ("auction_winning_bid_credits_sum{asset=\"credits\"}", 1.0),
                ("auctions_open", -1.0),
                ("auctions_total{outcome=\"awarded\"}", 1.0),
                ("escrow_locked_credits{asset=\"credits\"}", -1.0),
                ("payment_channel_balance_credits{asset=\"credits\",side=\"payer\"}", 1.0),
                ("payment_channel_events_total{event=\"opened\"}", 1.0),
                ("payment_channels_active", 1.0),
                ("sweep_oldest_due_age_seconds", -5.0),
                ("webhook_deliveries_pending", 1.0),
                ("work_offers_total", 1.0),
            ],
        )
        .await;
    world.turn(Duration::from_secs(7));
    proof.moved("nobody carries", &[("webhook_oldest_due_age_seconds", 7.0)]).await;
    assert_eq!(world.app.carry_once().await.unwrap(), 1);
    proof
        .moved(
            "a try",
            &[("webhook_attempts_total{outcome=\"retried\"}", 1.0), ("webhook_oldest_due_age_seconds", -7.0)],
        )
        .await;
    let task = ada.task_of(&auction).await["id"].as_str().unwrap().to_owned();
    claim(&bob, &task).await;
    assert_eq!(bob.refusal("claimTask", json!({ "taskId": task })).await, "LEASE_HELD");
    proof
        .moved(
            "a claim",
            &[
                ("tasks_running{runtime=\"external\"}", 1.0),
                ("work_claims_total{result=\"claimed\"}", 1.0),
                ("work_claims_total{result=\"lease_held\"}", 1.0),
            ],
        )
        .await;
    *status.lock().unwrap() = 204;
    world.pass(Duration::from_secs(31)).await;
    while world.app.carry_once().await.unwrap() > 0 {}
    proof
        .moved(
            "a lease that is lost",
            &[
                ("task_errors_total{reason=\"worker_lost\",runtime=\"external\"}", 1.0),
                ("webhook_attempts_total{outcome=\"delivered\"}", 2.0),
                ("webhook_deliveries_pending", -1.0),
                ("work_leases_lost_total", 1.0),
                ("work_offers_total", 1.0),
            ],
        )
        .await;
    world.turn(Duration::from_secs(1));
    let token = claim(&bob, &task).await;
    world.turn(Duration::from_secs(20));
    bob.call("submitResult", "task { id }", json!({ "taskId": task, "token": token, "output": 3 })).await;
    *status.lock().unwrap() = 410;
    while world.app.carry_once().await.unwrap() > 0 {}
    proof
        .moved(
            "work from elsewhere",
            &[
                ("escrow_locked_credits{asset=\"credits\"}", -1.0),
                ("escrow_releases_total{asset=\"credits\"}", 1.0),
                ("fees_micro_credits_total{asset=\"credits\"}", 100_000.0),
                ("payment_channel_balance_credits{asset=\"credits\",side=\"payer\"}", -1.0),
                ("payment_channel_events_total{event=\"closed\"}", 1.0),
                ("payment_channel_lifetime_seconds_count{reason=\"settled\"}", 1.0),
                ("payment_channel_lifetime_seconds_sum{reason=\"settled\"}", 59.0),
                ("payment_channels_active", -1.0),
                ("reputation_mean_task_cost_credits{asset=\"credits\"}", 1.0),
                ("reputation_mean_task_duration_seconds", 20.0),
                ("reputation_score_count", 1.0),
                ("reputation_success_ratio", 1.0),
                ("reputation_updates_total{cause=\"success\"}", 1.0),
                ("settlement_duration_seconds_count{outcome=\"released\"}", 1.0),
                ("settlements_total{asset=\"credits\",outcome=\"released\"}", 1.0),
                ("task_cost_credits_count{asset=\"credits\",runtime=\"external\"}", 1.0),
                ("task_cost_credits_sum{asset=\"credits\",runtime=\"external\"}", 1.0),
                ("task_duration_seconds_count{outcome=\"succeeded\",runtime=\"external\"}", 1.0),
                ("task_duration_seconds_sum{outcome=\"succeeded\",runtime=\"external\"}", 20.0),
                ("tasks_completed_total{outcome=\"succeeded\",runtime=\"external\"}", 1.0),
                ("tasks_running{runtime=\"external\"}", -1.0),
                ("webhook_attempts_total{outcome=\"given_up\"}", 1.0),
                ("work_claims_total{result=\"claimed\"}", 1.0),
            ],
        )
        .await;

    // Hosted agents: one that does its work, and one that crashes.
    proof.hosted = true;
    world.hosted_agent(&bob, "good", "text.stats", "0.5", sample("text-stats-lite")).await;
    world.hosted_agent(&bob, "broken", "text.broken", "0.5", crashing()).await;
    proof.moved("agents", &[("agents_online{runtime=\"wasm\"}", 2.0)]).await;
    ada.execute(json!({ "capabilities": ["text.stats"], "budget": "2" })).await;
    world.settle().await;
    let bought = [
        ("auction_bids_total{outcome=\"accepted\"}", 1.0),
        ("auction_duration_seconds_count{outcome=\"awarded\"}", 1.0),
        ("auction_winning_bid_credits_count{asset=\"credits\"}", 1.0),
        ("auction_winning_bid_credits_sum{asset=\"credits\"}", 0.5),
        ("auctions_total{outcome=\"awarded\"}", 1.0),
        ("escrows_created_total{asset=\"credits\"}", 1.0),
        ("payment_channel_events_total{event=\"opened\"}", 1.0),
        ("tasks_submitted_total", 1.0),
    ];
    let (compiled, ready) =
        (("sandbox_modules_total{cache=\"compiled\"}", 1.0), ("sandbox_modules_total{cache=\"hit\"}", 1.0));
    let done = [
        ("escrow_releases_total{asset=\"credits\"}", 1.0),
        ("fees_micro_credits_total{asset=\"credits\"}", 50_000.0),
        ("payment_channel_events_total{event=\"closed\"}", 1.0),
        ("payment_channel_lifetime_seconds_count{reason=\"settled\"}", 1.0),
        ("reputation_score_count", 1.0),
        ("reputation_updates_total{cause=\"success\"}", 1.0),
        ("settlement_duration_seconds_count{outcome=\"released\"}", 1.0),
        ("settlements_total{asset=\"credits\",outcome=\"released\"}", 1.0),
        ("task_cost_credits_count{asset=\"credits\",runtime=\"wasm\"}", 1.0),
        ("task_cost_credits_sum{asset=\"credits\",runtime=\"wasm\"}", 0.5),
        ("task_duration_seconds_count{outcome=\"succeeded\",runtime=\"wasm\"}", 1.0),
        ("tasks_completed_total{outcome=\"succeeded\",runtime=\"wasm\"}", 1.0),
    ];
    let cheaper = [("reputation_mean_task_cost_credits{asset=\"credits\"}", -0.25)];
    proof.moved("a success", &[&bought[..], &done, &cheaper, &[compiled]].concat()).await;
    ada.execute(json!({ "capabilities": ["text.broken"], "budget": "2" })).await;
    world.settle().await;
    let failed = [
        ("escrow_refunds_total{asset=\"credits\",reason=\"task_failed\"}", 1.0),
        ("payment_channel_events_total{event=\"closed\"}", 1.0),
        ("payment_channel_lifetime_seconds_count{reason=\"refunded\"}", 1.0),
        ("reputation_score_count", 1.0),
        ("reputation_success_ratio", -0.333_333),
        ("reputation_updates_total{cause=\"failure\"}", 1.0),
        ("settlement_duration_seconds_count{outcome=\"refunded\"}", 1.0),
        ("settlements_total{asset=\"credits\",outcome=\"refunded\"}", 1.0),
        ("task_duration_seconds_count{outcome=\"failed\",runtime=\"wasm\"}", 1.0),
        ("task_errors_total{reason=\"trap\",runtime=\"wasm\"}", 1.0),
        ("tasks_completed_total{outcome=\"failed\",runtime=\"wasm\"}", 1.0),
    ];
    proof.moved("a failure", &[&bought[..], &failed, &[compiled]].concat()).await;

    // A result that waits an hour for its payer. The first settlement of it fails, because a table is away.
    let order = json!({ "capabilities": ["text.stats"], "budget": "2", "acceptance": "REVIEW" });
    let reviewed = ada.execute(order.clone()).await;
    world.settle().await;
    let holds = [
        ("escrow_locked_credits{asset=\"credits\"}", 0.5),
        ("payment_channel_balance_credits{asset=\"credits\",side=\"payer\"}", 0.5),
        ("payment_channels_active", 1.0),
    ];
    proof.moved("a result", &[&bought[..], &holds, &[ready]].concat()).await;
    world.turn(Duration::from_hours(1));
    let intruder = Database::connect(world.database_url()).await.unwrap();
    intruder.execute_unprepared("ALTER TABLE reputation_events RENAME TO away").await.unwrap();
    assert_eq!(ada.fault("acceptResult", json!({ "taskId": reviewed })).await, "INTERNAL_SERVER_ERROR");
    intruder.execute_unprepared("ALTER TABLE away RENAME TO reputation_events").await.unwrap();
    let gone = ("agents_online{runtime=\"external\"}", -1.0);
    proof
        .moved("a settlement that fails", &[gone, ("settlements_total{asset=\"credits\",outcome=\"failed\"}", 1.0)])
        .await;
    ada.call("acceptResult", "task { id }", json!({ "taskId": reviewed })).await;
    let freed = [
        ("escrow_locked_credits{asset=\"credits\"}", -0.5),
        ("payment_channel_balance_credits{asset=\"credits\",side=\"payer\"}", -0.5),
        ("payment_channels_active", -1.0),
    ];
    let waited = [
        ("payment_channel_lifetime_seconds_sum{reason=\"settled\"}", 3_600.0),
        ("reputation_success_ratio", 0.083_333),
        ("settlement_duration_seconds_sum{outcome=\"released\"}", 3_600.0),
    ];
    proof.moved("an acceptance", &[&done[..], &freed, &waited].concat()).await;

    // A dispute whose arbiter shares the price.
    let disputed = ada.execute(order).await;
    world.settle().await;
    let quarrel = json!({ "taskId": disputed, "reason": "It is wrong." });
    let opened = ada.call("rejectResult", "task { dispute { id } }", quarrel).await;
    let opening = [
        ("payment_channel_events_total{event=\"disputed\"}", 1.0),
        ("settlement_disputes_total{stage=\"opened\"}", 1.0),
    ];
    proof.moved("a dispute", &[&bought[..], &holds, &opening, &[ready]].concat()).await;
    world.pass(Duration::from_hours(72)).await;
    let ruling = json!({ "disputeId": opened["task"]["dispute"]["id"], "award": "0.2", "opinion": "So it is." });
    judge.call("resolveDispute", "dispute { id }", ruling).await;
    let days = Duration::from_hours(72).as_secs_f64();
    let ruled = [
        ("escrow_releases_total{asset=\"credits\"}", 1.0),
        ("fees_micro_credits_total{asset=\"credits\"}", 20_000.0),
        ("payment_channel_events_total{event=\"closed\"}", 1.0),
        ("payment_channel_lifetime_seconds_count{reason=\"settled\"}", 1.0),
        ("payment_channel_lifetime_seconds_sum{reason=\"settled\"}", days),
        ("reputation_mean_task_cost_credits{asset=\"credits\"}", -0.05),
        ("reputation_score_count", 1.0),
        ("reputation_success_ratio", 0.05),
        ("reputation_updates_total{cause=\"ruling\"}", 1.0),
        ("settlement_disputes_total{stage=\"upheld\"}", 1.0),
        ("settlement_duration_seconds_count{outcome=\"split\"}", 1.0),
        ("settlement_duration_seconds_sum{outcome=\"split\"}", days),
        ("settlements_total{asset=\"credits\",outcome=\"split\"}", 1.0),
        ("task_cost_credits_count{asset=\"credits\",runtime=\"wasm\"}", 1.0),
        ("task_cost_credits_sum{asset=\"credits\",runtime=\"wasm\"}", 0.2),
        ("task_duration_seconds_count{outcome=\"succeeded\",runtime=\"wasm\"}", 1.0),
        ("tasks_completed_total{outcome=\"succeeded\",runtime=\"wasm\"}", 1.0),
    ];
    proof.moved("a ruling", &[&ruled[..], &freed].concat()).await;

    // An auction that nobody bids in, and one that is called off with a bid that was taken back.
    ada.execute(json!({ "capabilities": ["text.nobody"], "budget": "2" })).await;
    let auction = ada.open(json!({ "capabilities": ["text.outside"], "budget": "2" })).await;
    let bid = bob.bid(&auction, outside, "1").await;
    bob.call("withdrawBid", "bid { id }", json!({ "bidId": bid })).await;
    ada.call("cancelAuction", "auction { id }", json!({ "auctionId": auction })).await;
    world.settle().await;
    proof
        .moved(
            "auctions without a winner",
            &[
                ("agents_online{runtime=\"external\"}", 1.0),
                ("auction_bids_total{outcome=\"accepted\"}", 1.0),
                ("auction_bids_total{outcome=\"withdrawn\"}", 1.0),
                ("auction_duration_seconds_count{outcome=\"cancelled\"}", 1.0),
                ("auction_duration_seconds_count{outcome=\"no_bids\"}", 1.0),
                ("auctions_total{outcome=\"cancelled\"}", 1.0),
                ("auctions_total{outcome=\"no_bids\"}", 1.0),
                ("escrow_refunds_total{asset=\"credits\",reason=\"cancelled\"}", 1.0),
                ("escrow_refunds_total{asset=\"credits\",reason=\"no_award\"}", 1.0),
                ("escrows_created_total{asset=\"credits\"}", 2.0),
                ("tasks_completed_total{outcome=\"cancelled\",runtime=\"none\"}", 1.0),
                ("tasks_completed_total{outcome=\"expired\",runtime=\"none\"}", 1.0),
                ("tasks_submitted_total", 2.0),
            ],
        )
        .await;

    // A delegation of two steps, of which one is skipped; and one that is called off.
    let plan = json!({ "steps": [
        { "name": "count", "capabilities": ["text.stats"], "input": "a b" },
        { "name": "broken", "capabilities": ["text.broken"], "onFailure": "SKIP" },
    ] });
    ada.call("delegateTask", "delegation { id }", json!({ "goal": "Count", "budget": "2", "plan": plan })).await;
    world.settle().await;
    let order = json!({ "goal": "Count", "budget": "2", "capabilities": ["text.stats"], "input": "a b" });
    let other = ada.call("delegateTask", "delegation { id }", order).await;
    ada.call("cancelDelegation", "delegation { id }", json!({ "delegationId": other["delegation"]["id"] })).await;
    world.settle().await;
    let now = proof.look().await;
    for (series, count) in [
        ("delegation_duration_seconds_count{outcome=\"cancelled\"}", "1"),
        ("delegation_duration_seconds_count{outcome=\"completed\"}", "1"),
        ("delegation_steps_total{outcome=\"completed\"}", "1"),
        ("delegation_steps_total{outcome=\"skipped\"}", "1"),
        ("delegations_total{outcome=\"cancelled\"}", "1"),
        ("delegations_total{outcome=\"completed\"}", "1"),
    ] {
        assert_eq!(now[series].to_string(), count, "{series}");
        assert_eq!(proof.before[series].to_string(), "0", "{series}");
        proof.proved(series);
    }
    // What its tasks moved is what the tasks before moved.
    proof.before = now;

    // A streaming channel: what it pays, what is refused, what fails because of us, and its end.
    let ends = world.now().after(Duration::from_hours(2)).to_string();
    let channel = json!({ "agentId": outside.to_string(), "deposit": "10", "settleDelay": "PT1H", "expiresAt": ends });
    let opened = ada.call("openChannel", "channel { id }", channel).await;
    let pay = |amount: &str| json!({ "channelId": opened["channel"]["id"], "amount": amount });
    ada.call("deductFromChannel", "change { nonce }", pay("2.5")).await;
    assert_eq!(ada.refusal("deductFromChannel", pay("100")).await, "ABOVE_DEPOSIT");
    world.app.store().set_books(false);
    assert_eq!(ada.fault("deductFromChannel", pay("1")).await, "UNAVAILABLE");
    world.app.store().set_books(true);
    ada.call("topUpChannel", "change { nonce }", pay("1")).await;
    ada.call("requestChannelClose", "change { nonce }", json!({ "channelId": opened["channel"]["id"] })).await;
    ada.call("cancelChannelClose", "change { nonce }", json!({ "channelId": opened["channel"]["id"] })).await;
    proof
        .moved(
            "payments",
            &[
                ("escrow_locked_credits{asset=\"credits\"}", 8.5),
                ("fees_micro_credits_total{asset=\"credits\"}", 250_000.0),
                ("payment_amount_credits_count{asset=\"credits\"}", 1.0),
                ("payment_amount_credits_sum{asset=\"credits\"}", 2.5),
                ("payment_channel_balance_credits{asset=\"credits\",side=\"payee\"}", 2.5),
                ("payment_channel_balance_credits{asset=\"credits\",side=\"payer\"}", 8.5),
                ("payment_channel_events_total{event=\"closing\"}", 1.0),
                ("payment_channel_events_total{event=\"funded\"}", 1.0),
                ("payment_channel_events_total{event=\"opened\"}", 1.0),
                ("payment_channel_events_total{event=\"paid\"}", 1.0),
                ("payment_channel_events_total{event=\"reopened\"}", 1.0),
                ("payment_channels_active", 1.0),
                ("payment_duration_seconds_count{outcome=\"failed\"}", 1.0),
                ("payment_duration_seconds_count{outcome=\"rejected\"}", 1.0),
                ("payment_duration_seconds_count{outcome=\"succeeded\"}", 1.0),
                ("payments_total{asset=\"credits\",outcome=\"failed\"}", 1.0),
                ("payments_total{asset=\"credits\",outcome=\"rejected\"}", 1.0),
                ("payments_total{asset=\"credits\",outcome=\"succeeded\"}", 1.0),
            ],
        )
        .await;
    world.pass(Duration::from_hours(2)).await;
    proof
        .moved(
            "the end of a stream",
            &[
                gone,
                ("escrow_locked_credits{asset=\"credits\"}", -8.5),
                ("payment_channel_balance_credits{asset=\"credits\",side=\"payee\"}", -2.5),
                ("payment_channel_balance_credits{asset=\"credits\",side=\"payer\"}", -8.5),
                ("payment_channel_events_total{event=\"expired\"}", 1.0),
                ("payment_channel_lifetime_seconds_count{reason=\"expired\"}", 1.0),
                ("payment_channel_lifetime_seconds_sum{reason=\"expired\"}", 7_200.0),
                ("payment_channels_active", -1.0),
            ],
        )
        .await;

    // The service: operations, sockets, limits, the database, a subscriber that is too slow.
    proof.compare("operations", &[], true).await;
    proof.before = proof.look().await;
    ada.query("{ me { id } }", json!({})).await;
    ada.try_query("{ noSuchField }", json!({})).await.unwrap_err();
    let mut socket = world.socket().await;
    let second = world.socket().await;
    assert_eq!(Socket::open(world.address, Some("graphql-transport-ws"), None).await.err(), Some(429));
    socket.init(None).await;
    socket.subscribe("1", "subscription { marketEvents { cursor } }", json!({})).await;
    let follows = async || {
        while read(&world.app.metrics().render().unwrap())["graphql_subscriptions_active"] < 1.0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, follows()).await.unwrap();
    let begun = proof.before.clone();
    proof
        .moved(
            "sockets",
            &[("rate_limited_requests_total{limit=\"addresses\"}", 1.0), ("sockets_open{kind=\"websocket\"}", 2.0)],
        )
        .await;
    proof.before = begun;
    proof
        .compare(
            "operations",
            &[
                ("graphql_request_duration_seconds_count{operation_type=\"query\"}", 2.0),
                ("graphql_requests_total{operation_type=\"query\",outcome=\"client_error\"}", 1.0),
                ("graphql_requests_total{operation_type=\"query\",outcome=\"ok\"}", 1.0),
                ("graphql_subscriptions_active", 1.0),
            ],
            true,
        )
        .await;
    let store = world.app.store();
    // What was written before the stream began is not told; what is told was worked out.
    let mut told = async || {
        loop {
            let event = Event::new(Kind::AuctionExtended, Payload::default());
            let record = async |work: &mut zerostate::store::Work| {
                work.record(event);
                Ok(())
            };
            store.write(Caller::System, record).await.unwrap();
            if let Some(Frame::Message(message)) = socket.receive_within(Duration::from_secs(1)).await {
                return message;
            }
        }
    };
    assert_eq!(tokio::time::timeout(PATIENCE, told()).await.unwrap()["type"], "next");
    proof.moved("an event", &[("graphql_subscription_answers_total", 1.0)]).await;
    drop((socket, second));
    let closed = async || {
        while read(&world.app.metrics().render().unwrap())["sockets_open{kind=\"websocket\"}"] > 0.0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, closed()).await.unwrap();
    proof.moved("no sockets", &[("sockets_open{kind=\"websocket\"}", -2.0)]).await;
    let outage = async |_: &mut zerostate::store::Work| -> Result<(), Error> {
        Err(DbErr::ConnectionAcquire(ConnAcquireErr::Timeout).into())
    };
    store.write(Caller::System, outage).await.unwrap_err();
    proof.moved("an outage", &[("db_transaction_retries_total", 1.0)]).await;

    // The feed keeps 256 lines for who is slow: of 300 the first 44 have to be read from the log, and nothing is missed.
    let mut follow = store.follow(Topic::Market, None).await.unwrap();
    let many = async |work: &mut zerostate::store::Work| {
        for _ in 0..300 {
            work.record(Event::new(Kind::AuctionExtended, Payload::default()));
        }
        Ok(())
    };
    store.write(Caller::System, many).await.unwrap();
    world.turn(Duration::from_secs(9));
    let told = async || {
        while proof.look().await["outbox_oldest_event_age_seconds"] > 0.0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, told()).await.unwrap();
    for _ in 0..300 {
        tokio::time::timeout(PATIENCE, follow.next()).await.unwrap().unwrap().unwrap();
    }
    proof.moved("a slow subscriber", &[("graphql_subscription_lagged_events_total", 44.0)]).await;

    // An instance whose feed has ended tells nobody of what is committed then.
    let peer = world.another().await;
    peer.app.metrics().sample(peer.app.store()).await.unwrap();
    peer.app.shutdown(PATIENCE).await;
    store
        .write(Caller::System, async |work| {
            work.record(Event::new(Kind::AuctionExtended, Payload::default()));
            Ok(())
        })
        .await
        .unwrap();
    world.turn(Duration::from_secs(4));
    peer.app.metrics().sample(peer.app.store()).await.unwrap();
    let there = read(&peer.app.metrics().render().unwrap());
    assert_eq!(there["outbox_oldest_event_age_seconds"].to_string(), "4");
    proof.proved("outbox_oldest_event_age_seconds");

    // Books that are broken, and mended.
    assert!(world.app.audit().await.unwrap().ok());
    let at = proof.look().await["ledger_last_audit_timestamp_seconds{reach=\"whole\"}"];
    assert_eq!(at.to_string(), world.now().micros().div_euclid(1_000_000).to_string());
    proof.proved("ledger_last_audit_timestamp_seconds");
    proof.before = proof.look().await;
    let forge = |sign: &str| format!("UPDATE accounts SET balance = balance {sign} 2500000 WHERE kind = 'EXTERNAL'");
    intruder.execute_unprepared(&forge("+")).await.unwrap();
    assert!(!world.app.audit().await.unwrap().ok());
    let broken = [
        ("ledger_imbalance_credits{asset=\"credits\"}", 2.5),
        ("ledger_invariant_violations{check=\"L1\"}", 1.0),
        ("ledger_invariant_violations{check=\"L12\"}", 1.0),
        ("ledger_invariant_violations{check=\"L4\"}", 1.0),
    ];
    proof.moved("broken books", &broken).await;
    intruder.execute_unprepared(&forge("-")).await.unwrap();
    assert!(world.app.audit().await.unwrap().ok());
    let mended = broken.map(|(name, change)| (name, -change));
    proof.moved("mended books", &mended).await;
    intruder.close().await.unwrap();

    proof.end();
    world.check().await;
}

#[tokio::test]
async fn the_page_is_compressed_for_who_takes_that_and_is_small() {
    let world = World::start().await;
    let plain = send(world.http().get(world.url("/metrics"))).await;
    assert_eq!(plain.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let packed = world.http().get(world.url("/metrics")).header("accept-encoding", "gzip;q=0.5, identity");
    let packed = packed.send().await.unwrap();
    assert_eq!(packed.headers()["content-encoding"], "gzip");
    let bytes = packed.bytes().await.unwrap();
    assert!(bytes.len() * 4 < plain.text.len(), "{} of {} bytes", bytes.len(), plain.text.len());
    let mut text = String::new();
    GzDecoder::new(&bytes[..]).read_to_string(&mut text).unwrap();
    assert!(text.contains("zerostate_auctions_total{outcome=\"awarded\"} 0\n"));
    let refused = world.http().get(world.url("/metrics")).header("accept-encoding", "gzip;q=0");
    assert!(!refused.send().await.unwrap().headers().contains_key("content-encoding"));
    let series = plain.text.lines().filter(|line| !line.starts_with('#')).count();
    assert!(series < 800, "{series} series");
    world.check().await;
}

#[tokio::test]
async fn metrics_at_an_address_of_their_own_are_not_on_the_public_port_and_outlive_it() {
    let aside = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = aside.local_addr().unwrap();
    let world = World::with(|config| config.http.metrics_address = Some(address)).await;
    let over = CancellationToken::new();
    let tracker = TaskTracker::new();
    tracker.spawn(transport::serve_metrics(world.app.clone(), aside, over.clone()));
    let status = async |url: String| send(world.http().get(url)).await.status;
    let there = |path: &str| format!("http://{address}{path}");
    for path in ["/metrics", "/health", "/ready"] {
        assert_eq!(status(there(path)).await, 200, "{path}");
    }
    assert_eq!(status(there("/graphql")).await, 404, "nothing else is there");
    assert_eq!(status(world.url("/metrics")).await, 404);
    for path in ["/health", "/ready"] {
        assert_eq!(status(world.url(path)).await, 200, "{path}");
    }
    // The service drains: it is not ready, and still says how it is.
    world.app.stop().cancel();
    let ready = send(world.http().get(there("/ready"))).await;
    assert_eq!(ready.status, 503);
    assert!(ready.text.contains("shutting down"), "{}", ready.text);
    assert_eq!(status(there("/metrics")).await, 200);
    over.cancel();
    tracker.close();
    tokio::time::timeout(PATIENCE, tracker.wait()).await.unwrap();
    world.check().await;
}

#[tokio::test]
async fn the_queries_of_the_runbooks_are_answered() {
    let world = World::start().await;
    let admin = world.admin().await;
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/runbooks");
    let mut asked = 0;
    for page in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(page.unwrap().path()).unwrap();
        for block in text.split("```graphql\n").skip(1) {
            admin.query(block.split("```").next().unwrap(), json!({})).await;
            asked += 1;
        }
    }
    assert!(asked >= 3, "{asked}");
    world.check().await;
}

#[test]
fn the_reference_of_the_metrics_is_what_the_program_prints() {
    let page = include_str!("../../docs/metrics.md");
    assert!(page == metrics::reference(), "docs/metrics.md is not it; run `zerostate metrics > docs/metrics.md`");
}
