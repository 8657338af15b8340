//! Parallel callers: who wins, and what is conserved whoever does. The callers are separate connections to a server with several
//! threads; where it says processes they are separate processes' worth of state over one PostgreSQL.

use std::{
    collections::{HashMap, HashSet},
    ops::AddAssign,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use entity::{
    event::Kind,
    execution,
    id::{AuctionId, TaskId},
    task,
    text::JsonText,
};
use futures_util::future::{join, join_all};
use sea_orm::{ColumnTrait, EntityTrait, PaginatorTrait, QueryFilter};
use serde_json::{Value, json};
use zerostate::{
    app::App,
    caller::Caller,
    execution::{self as executions, Claim},
    task::{Report, Usage},
};

use crate::world::{Client, Peer, World, fresh_key, on_postgres};

const EXECUTE: &str = "mutation($input: ExecuteTaskInput!) {
    executeTask(input: $input) { task { id status budget createdAt } userErrors { code } }
}";
const CREATE: &str = "mutation($input: CreateAuctionInput!) {
    createAuction(input: $input) { auction { id task { id } } userErrors { code } }
}";
const BID: &str =
    "mutation($input: SubmitBidInput!) { submitBid(input: $input) { bid { id price } userErrors { code } } }";
const AWARD: &str = "mutation($input: AwardAuctionInput!) {
    awardAuction(input: $input) { auction { id winningBid { id } } userErrors { code } }
}";
const CANCEL: &str = "mutation($input: CancelAuctionInput!) {
    cancelAuction(input: $input) { auction { id } userErrors { code } }
}";
const AUCTION: &str = "query($id: ID!) {
    auction(id: $id) { status bidCount clearingPrice winningBid { id } task { id status } bids(first: 100) { nodes { id price status rank } } }
}";
const WALLET: &str = "{ me { wallet { available inEscrow } } }";

/// A command that answers `1`.
const ECHO: &str = r#"(module
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 16) "1")
    (func (export "_start")
        (i32.store (i32.const 0) (i32.const 16))
        (i32.store (i32.const 4) (i32.const 1))
        (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#;

/// What came of a mutation: the one entity, or the code of the refusal.
fn outcome(answer: &Value, field: &str, entity: &str) -> Result<Value, String> {
    let payload = &answer[field];
    match payload["userErrors"][0]["code"].as_str() {
        Some(code) => Err(code.to_owned()),
        None => Ok(payload[entity].clone()),
    }
}

fn task_input(capability: &str, budget: &str) -> Value {
    json!({
        "title": "A race",
        "capabilities": [capability],
        "input": "x",
        "budget": budget,
        "idempotencyKey": fresh_key(),
    })
}

/// The input with more fields, or other values for those it has.
fn with(mut input: Value, more: &Value) -> Value {
    input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    input
}

async fn open_auction(payer: &Client, capability: &str, budget: &str, more: &Value) -> String {
    let input = with(task_input(capability, budget), more);
    let made = payer.done("createAuction", CREATE, json!({ "input": input })).await;
    made["auction"]["id"].as_str().unwrap().to_owned()
}

async fn bid(owner: &Client, auction: &str, agent: &str, price: &str) -> Result<Value, String> {
    let input = json!({ "auctionId": auction, "agentId": agent, "price": price, "idempotencyKey": fresh_key() });
    outcome(&owner.query(BID, json!({ "input": input })).await, "submitBid", "bid")
}

async fn award(payer: &Client, auction: &str, bid: Option<&str>) -> Result<Value, String> {
    let input = json!({ "auctionId": auction, "bidId": bid, "idempotencyKey": fresh_key() });
    outcome(&payer.query(AWARD, json!({ "input": input })).await, "awardAuction", "auction")
}

async fn wallet(of: &Client) -> (String, String) {
    let wallet = of.query(WALLET, json!({})).await["me"]["wallet"].clone();
    let text = |name: &str| wallet[name].as_str().unwrap().to_owned();
    (text("available"), text("inEscrow"))
}

/// How many lines of the log are of a kind and about an auction.
async fn lines_of(world: &World, auction: &str, kind: Kind) -> usize {
    use entity::event::{Column, Entity};
    let auction: AuctionId = auction.parse().unwrap();
    let found = Entity::find().filter(Column::AuctionId.eq(auction)).filter(Column::Kind.eq(kind));
    found.count(world.app.store().read()).await.unwrap().try_into().unwrap()
}

/// The processes of a world: one, and on PostgreSQL a second one.
async fn processes(world: &World) -> (Vec<App>, Option<Peer>) {
    if !on_postgres() {
        return (vec![world.app.clone(), world.app.clone()], None);
    }
    let peer = world.another().await;
    (vec![world.app.clone(), peer.app.clone()], Some(peer))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn thirty_two_bidders_at_the_closing_instant() {
    const BIDDERS: usize = 32;
    let world = World::start().await;
    let payer = world.user("payer").await;
    world.credit(&payer, "100").await;
    let bidders = join_all((0..BIDDERS).map(async |number| {
        let owner = world.user(&format!("bidder-{number}")).await;
        let agent = world.agent(&owner, "agent", "EXTERNAL", "race", "1").await.to_string();
        // Every price once, in no order.
        (owner, agent, (number * 7 % BIDDERS + 40).to_string())
    }))
    .await;
    let opened = world.now();
    let auction = open_auction(&payer, "race", "100", &json!({ "closesIn": "PT60S" })).await;
    world.turn(Duration::from_secs(59));

    let answered = AtomicUsize::new(0);
    let bidding = join_all(bidders.iter().map(async |(owner, agent, price)| {
        let came = bid(owner, &auction, agent, price).await;
        answered.fetch_add(1, Ordering::SeqCst);
        came
    }));
    let closing = async {
        while answered.load(Ordering::SeqCst) < BIDDERS / 3 {
            tokio::time::sleep(Duration::from_micros(200)).await;
            // Time goes on while they wait for each other; it stays before the close.
            if world.now() < opened.after(Duration::from_millis(59_990)) {
                world.turn(Duration::from_millis(1));
            }
        }
        world.turn(opened.after(Duration::from_mins(1)).since(world.now()));
        for _ in 0..3 {
            world.app.sweep_once().await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let (bids, ()) = join(bidding, closing).await;
    world.settle().await;

    let mut admitted = Vec::new();
    for (came, (_, _, price)) in bids.iter().zip(&bidders) {
        match came {
            Ok(made) => admitted.push((price.parse::<u32>().unwrap(), made["id"].as_str().unwrap().to_owned())),
            Err(code) => assert!(["AUCTION_CLOSED", "AUCTION_NOT_OPEN"].contains(&code.as_str()), "{code}"),
        }
    }
    admitted.sort();
    let (price, winner) = admitted.first().expect("a third of them came in time").clone();
    assert!(admitted.len() >= BIDDERS / 3);
    let found = payer.query(AUCTION, json!({ "id": auction })).await["auction"].clone();
    assert_eq!((&found["status"], &found["winningBid"]["id"]), (&json!("AWARDED"), &json!(winner)));
    assert_eq!(found["clearingPrice"], price.to_string());
    assert_eq!(found["bidCount"], admitted.len());
    let stored: HashSet<&str> =
        found["bids"]["nodes"].as_array().unwrap().iter().map(|bid| bid["id"].as_str().unwrap()).collect();
    assert_eq!(stored, admitted.iter().map(|(_, id)| id.as_str()).collect(), "admitted means counted");
    for (place, (_, id)) in (1..).zip(&admitted) {
        let bid = found["bids"]["nodes"].as_array().unwrap().iter().find(|bid| bid["id"] == *id).unwrap().clone();
        assert_eq!(bid["rank"], place, "{bid}");
    }
    assert_eq!(lines_of(&world, &auction, Kind::BidSubmitted).await, admitted.len());
    assert_eq!(lines_of(&world, &auction, Kind::AuctionAwarded).await, 1);
    assert_eq!(wallet(&payer).await, ((100 - price).to_string(), price.to_string()));
    // The door stays shut.
    let (owner, agent, _) = &bidders[0];
    assert_eq!(bid(owner, &auction, agent, "1").await, Err("AUCTION_NOT_OPEN".to_owned()));
    world.check().await;
}

/// A MANUAL auction with a bid of 3 and a bid of 4.
async fn manual_auction(payer: &Client, owner: &Client, agents: &[String; 2]) -> (String, [String; 2]) {
    let auction = open_auction(payer, "race", "10", &json!({ "closesIn": "PT60S", "awardMode": "MANUAL" })).await;
    let mut bids = [String::new(), String::new()];
    for ((bid_id, agent), price) in bids.iter_mut().zip(agents).zip(["3", "4"]) {
        let made = bid(owner, &auction, agent, price).await.unwrap();
        made["id"].as_str().unwrap().clone_into(bid_id);
    }
    (auction, bids)
}

async fn two_agents(world: &World, owner: &Client) -> [String; 2] {
    let one = world.agent(owner, "one", "EXTERNAL", "race", "1").await;
    let two = world.agent(owner, "two", "EXTERNAL", "race", "1").await;
    [one.to_string(), two.to_string()]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_auction_is_awarded_once() {
    let world = World::start().await;
    let (payer, owner) = (world.user("payer").await, world.user("owner").await);
    let agents = two_agents(&world, &owner).await;
    for round in 1..=5_u32 {
        world.credit(&payer, "10").await;
        let (before, escrow) = wallet(&payer).await;
        let (auction, bids) = manual_auction(&payer, &owner, &agents).await;
        let awards = join_all((0..6).map(|number| award(&payer, &auction, Some(&bids[number % 2])))).await;
        let won: Vec<&Value> = awards.iter().filter_map(|award| award.as_ref().ok()).collect();
        assert_eq!(won.len(), 1, "round {round}: {awards:?}");
        assert!(awards.iter().filter_map(|award| award.as_ref().err()).all(|code| code == "AUCTION_NOT_OPEN"));
        let winner = &won[0]["winningBid"]["id"];
        let price = if *winner == bids[0] { 3 } else { 4 };
        let (after, held) = wallet(&payer).await;
        let number = |text: &str| text.parse::<u32>().unwrap();
        assert_eq!((number(&after), number(&held)), (number(&before) - price, number(&escrow) + price));
        assert_eq!(lines_of(&world, &auction, Kind::AuctionAwarded).await, 1);
    }
    world.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_auction_is_awarded_or_cancelled_and_never_both() {
    let world = World::start().await;
    let (payer, owner) = (world.user("payer").await, world.user("owner").await);
    let agents = two_agents(&world, &owner).await;
    let mut in_escrow = 0_u32;
    for round in 0..8_u32 {
        world.credit(&payer, "10").await;
        let (auction, _) = manual_auction(&payer, &owner, &agents).await;
        let awarding = award(&payer, &auction, None);
        let cancelling = async {
            let input = json!({ "input": { "auctionId": auction, "idempotencyKey": fresh_key() } });
            outcome(&payer.query(CANCEL, input).await, "cancelAuction", "auction")
        };
        let (awarded, cancelled) = if round % 2 == 0 {
            join(awarding, cancelling).await
        } else {
            let (cancelled, awarded) = join(cancelling, awarding).await;
            (awarded, cancelled)
        };
        let found = payer.query(AUCTION, json!({ "id": auction })).await["auction"].clone();
        match (awarded, cancelled) {
            (Ok(_), Err(code)) => {
                assert!(["TASK_NOT_OPEN", "AUCTION_NOT_OPEN"].contains(&code.as_str()), "{code}");
                assert_eq!((&found["status"], &found["task"]["status"]), (&json!("AWARDED"), &json!("AWARDED")));
                in_escrow += 3;
            }
            (Err(code), Ok(_)) => {
                assert_eq!(code, "AUCTION_NOT_OPEN");
                assert_eq!((&found["status"], &found["task"]["status"]), (&json!("CANCELLED"), &json!("CANCELLED")));
            }
            both => panic!("round {round}: {both:?}"),
        }
        let ends = [Kind::AuctionAwarded, Kind::AuctionCancelled];
        let ends = join_all(ends.map(|kind| lines_of(&world, &auction, kind))).await;
        assert_eq!(ends.iter().sum::<usize>(), 1, "round {round}");
        let all = 10 * (round + 1);
        assert_eq!(wallet(&payer).await, ((all - in_escrow).to_string(), in_escrow.to_string()), "round {round}");
    }
    world.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn award_bid_cancel_and_close_at_the_closing_instant_have_one_outcome() {
    let world = World::start().await;
    let (payer, owner) = (world.user("payer").await, world.user("owner").await);
    let agents = two_agents(&world, &owner).await;
    let (apps, _peer) = processes(&world).await;
    let mut outcomes = HashMap::new();
    for round in 0..12_u32 {
        world.credit(&payer, "10").await;
        let (before, escrow) = wallet(&payer).await;
        let by_hand = round % 2 == 0;
        let mode = if by_hand { "MANUAL" } else { "AUTOMATIC" };
        // What was awarded keeps its money until the end of the story.
        let terms = json!({ "closesIn": "PT60S", "awardMode": mode, "startTimeout": "PT100H" });
        let auction = open_auction(&payer, "race", "10", &terms).await;
        bid(&owner, &auction, &agents[0], "5").await.unwrap();
        world.turn(Duration::from_micros(59_999_999));
        let deciding = async {
            let cancel = async {
                let input = json!({ "input": { "auctionId": auction, "idempotencyKey": fresh_key() } });
                outcome(&payer.query(CANCEL, input).await, "cancelAuction", "auction")
            };
            // Who is sent first has the better chance.
            if round % 3 == 0 {
                let (cancelled, awarded) = join(cancel, award(&payer, &auction, None)).await;
                (awarded, cancelled)
            } else {
                join(award(&payer, &auction, None), cancel).await
            }
        };
        let bidding = join_all(["4", "3"].map(|price| bid(&owner, &auction, &agents[1], price)));
        let closing = async {
            world.turn(Duration::from_micros(1));
            join_all(apps.iter().map(App::sweep_once)).await
        };
        let ((awarded, cancelled), (bids, _)) = join(deciding, join(bidding, closing)).await;
        world.app.sweep_once().await.unwrap();

        let found = payer.query(AUCTION, json!({ "id": auction })).await["auction"].clone();
        let admitted = 1 + bids.iter().filter(|bid| bid.is_ok()).count();
        let stored = found["bids"]["nodes"].as_array().unwrap();
        assert_eq!(stored.len(), admitted, "round {round}: admitted means stored");
        let ends = [Kind::AuctionAwarded, Kind::AuctionCancelled, Kind::AuctionExpired];
        let ends = join_all(ends.map(|kind| lines_of(&world, &auction, kind))).await;
        assert_eq!(ends.iter().sum::<usize>(), 1, "round {round}: {ends:?}");
        let number = |text: &str| text.parse::<u32>().unwrap();
        let (after, held) = wallet(&payer).await;
        let spent = (number(&before) - number(&after), number(&held) - number(&escrow));
        if cancelled.is_ok() {
            assert!(awarded.is_err(), "round {round}");
            assert_eq!((&found["status"], spent), (&json!("CANCELLED"), (0, 0)), "round {round}");
        } else {
            assert_eq!(found["status"], "AWARDED", "round {round}: {found:#}");
            assert_eq!(awarded.is_ok(), by_hand, "round {round}: {awarded:?}");
            let price = number(found["clearingPrice"].as_str().unwrap());
            assert_eq!(spent, (price, price), "round {round}");
            // Nothing that was admitted before the decision was better.
            let winner = stored.iter().find(|bid| bid["id"] == found["winningBid"]["id"]).unwrap();
            assert_eq!((&winner["status"], &winner["rank"]), (&json!("WON"), &json!(1)));
        }
        outcomes.entry(found["status"].to_string()).or_insert(0_u32).add_assign(1);
    }
    eprintln!("race: at the closing instant {outcomes:?}");
    world.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_agents_bids_at_once_leave_one_standing() {
    let world = World::start().await;
    let (payer, owner) = (world.user("payer").await, world.user("owner").await);
    world.credit(&payer, "10").await;
    let agent = world.agent(&owner, "one", "EXTERNAL", "race", "1").await.to_string();
    let auction = open_auction(&payer, "race", "10", &json!({ "closesIn": "PT60S" })).await;
    let made = join_all((1..=8).map(async |price: u32| bid(&owner, &auction, &agent, &price.to_string()).await)).await;
    assert!(made.iter().all(Result::is_ok), "{made:?}");
    world.pass(Duration::from_mins(1)).await;
    let found = payer.query(AUCTION, json!({ "id": auction })).await["auction"].clone();
    assert_eq!(found["bidCount"], 1);
    let bids = found["bids"]["nodes"].as_array().unwrap();
    assert_eq!(bids.len(), 8);
    let replaced = bids.iter().filter(|bid| bid["status"] == "REPLACED").count();
    assert_eq!((replaced, &found["status"]), (7, &json!("AWARDED")));
    world.check().await;
}

/// A hosted agent, and `count` tasks that it won and that wait for a worker.
async fn waiting_work(world: &World, payer: &Client, count: usize) -> Vec<TaskId> {
    let owner = world.user("owner").await;
    world.hosted_agent(&owner, "echo", "echo", "2", wat::parse_str(ECHO).unwrap()).await;
    let mut tasks = Vec::new();
    for _ in 0..count {
        let input = json!({ "input": task_input("echo", "5") });
        let task = payer.done("executeTask", EXECUTE, input).await["task"].clone();
        assert_eq!(task["status"], "AWARDED");
        tasks.push(task["id"].as_str().unwrap().parse().unwrap());
    }
    tasks
}

async fn claim(app: &App, worker: &str) -> Option<Claim> {
    app.store().write(Caller::System, async |work| executions::claim(work, worker).await).await.unwrap()
}

fn report(claim: &Claim) -> Report {
    Report {
        execution: claim.execution.id,
        outcome: Ok(JsonText("1".to_owned())),
        check: None,
        logs: String::new(),
        usage: Usage::default(),
        module_sha256: Some(claim.module.sha256.clone()),
    }
}

/// Brings the result of a claim; answers the code of the refusal.
async fn complete(app: &App, claim: &Claim) -> Result<(), String> {
    let done = app
        .store()
        .write(Caller::System, async |work| {
            executions::complete(work, claim.task.id, claim.execution.token, report(claim)).await
        })
        .await;
    done.map(|_| ()).map_err(|error| error.refusal_code().unwrap_or_else(|| panic!("{error}")).to_owned())
}

async fn status_of(world: &World, task: TaskId) -> task::Status {
    task::Entity::find_by_id(task).one(world.app.store().read()).await.unwrap().unwrap().status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_piece_of_work_goes_to_one_worker() {
    let world = World::start().await;
    let payer = world.user("payer").await;
    world.credit(&payer, "100").await;
    let (apps, _peer) = processes(&world).await;
    let task = waiting_work(&world, &payer, 1).await[0];
    let names: Vec<String> = (0..8).map(|number| format!("worker-{number}")).collect();
    let claims = join_all(names.iter().enumerate().map(|(at, name)| claim(&apps[at % 2], name))).await;
    let won: Vec<Claim> = claims.into_iter().flatten().collect();
    assert_eq!(won.len(), 1, "{won:?}");
    assert_eq!((won[0].task.id, won[0].execution.token, won[0].execution.attempts), (task, 1, 1));
    // The result counts once, however often it is brought.
    let brought = join_all((0..4).map(|at| complete(&apps[at % 2], &won[0]))).await;
    assert_eq!(brought.iter().filter(|it| it.is_ok()).count(), 1, "{brought:?}");
    assert!(brought.iter().filter_map(|it| it.as_ref().err()).all(|code| code == "LEASE_LOST"), "{brought:?}");
    assert_eq!(wallet(&payer).await, ("98".to_owned(), "0".to_owned()));
    world.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn workers_of_several_processes_share_the_work() {
    const TASKS: usize = 12;
    let world = World::start().await;
    let payer = world.user("payer").await;
    world.credit(&payer, "100").await;
    let (apps, _peer) = processes(&world).await;
    let tasks = waiting_work(&world, &payer, TASKS).await;
    let claimed = join_all((0..4).map(async |number| {
        let (app, name) = (&apps[number % 2], format!("worker-{number}"));
        let mut mine = Vec::new();
        // Nothing is claimed when everything is locked by others just now, so a worker gives up only when nothing waits.
        while executions::is_waiting(app.store()).await.unwrap() {
            mine.extend(claim(app, &name).await);
        }
        mine
    }))
    .await;
    let claimed: Vec<Claim> = claimed.into_iter().flatten().collect();
    let distinct: HashSet<TaskId> = claimed.iter().map(|claim| claim.task.id).collect();
    assert_eq!((claimed.len(), distinct), (TASKS, tasks.into_iter().collect()));
    let done = join_all(claimed.iter().enumerate().map(|(at, claim)| complete(&apps[at % 2], claim))).await;
    assert!(done.iter().all(Result::is_ok), "{done:?}");
    assert_eq!(wallet(&payer).await, ("76".to_owned(), "0".to_owned()));
    world.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_intent_is_one_task_however_often_it_is_sent() {
    let world = World::start().await;
    let payer = world.user("payer").await;
    world.credit(&payer, "100").await;
    let owner = world.user("owner").await;
    world.hosted_agent(&owner, "echo", "echo", "2", wat::parse_str(ECHO).unwrap()).await;
    let peer = if on_postgres() { Some(world.another().await) } else { None };
    let input = json!({ "input": task_input("echo", "5") });
    let answers = join_all((0..50).map(async |number| {
        let client = peer.as_ref().filter(|_| number % 2 == 1).map_or(payer.clone(), |peer| payer.at(peer.address));
        client.query(EXECUTE, input.clone()).await
    }))
    .await;
    assert!(answers[0]["executeTask"]["task"]["id"].is_string(), "{:#}", answers[0]);
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
    assert_eq!(task::Entity::find().count(world.app.store().read()).await.unwrap(), 1);
    assert_eq!(wallet(&payer).await, ("98".to_owned(), "2".to_owned()));
    // The same key for something else is refused, and so is it at the same time as the first.
    let other = with(input["input"].clone(), &json!({ "budget": "6" }));
    assert_eq!(payer.refused("executeTask", EXECUTE, json!({ "input": other })).await, ["IDEMPOTENCY_KEY_REUSED"]);
    world.settle().await;
    assert_eq!(payer.query(EXECUTE, input).await, answers[0], "also when the task is over");
    world.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_intents_under_one_key_are_one_and_a_refusal() {
    let world = World::start().await;
    let payer = world.user("payer").await;
    for _ in 0..4 {
        world.credit(&payer, "10").await;
        let one = with(task_input("race", "1"), &json!({ "closesIn": "PT60S" }));
        let two = with(one.clone(), &json!({ "budget": "2" }));
        let sent = join_all([&one, &two].map(|input| payer.query(EXECUTE, json!({ "input": input })))).await;
        let came: Vec<_> = sent.iter().map(|answer| outcome(answer, "executeTask", "task")).collect();
        assert_eq!(came.iter().filter(|it| it.is_ok()).count(), 1, "{came:?}");
        assert!(came.contains(&Err("IDEMPOTENCY_KEY_REUSED".to_owned())), "{came:?}");
    }
    assert_eq!(task::Entity::find().count(world.app.store().read()).await.unwrap(), 4);
    world.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_last_credits_are_spent_once() {
    let world = World::start().await;
    let payer = world.user("payer").await;
    world.credit(&payer, "5").await;
    let peer = if on_postgres() { Some(world.another().await) } else { None };
    let spent = join_all((0..20).map(async |number| {
        let client = peer.as_ref().filter(|_| number % 2 == 1).map_or(payer.clone(), |peer| payer.at(peer.address));
        let input = with(task_input("race", "1"), &json!({ "closesIn": "PT60S" }));
        outcome(&client.query(EXECUTE, json!({ "input": input })).await, "executeTask", "task")
    }))
    .await;
    assert_eq!(spent.iter().filter(|it| it.is_ok()).count(), 5, "{spent:?}");
    assert!(spent.iter().filter_map(|it| it.as_ref().err()).all(|code| code == "INSUFFICIENT_FUNDS"), "{spent:?}");
    assert_eq!(task::Entity::find().count(world.app.store().read()).await.unwrap(), 5);
    assert_eq!(wallet(&payer).await, ("0".to_owned(), "5".to_owned()));
    world.check().await;
}

#[tokio::test]
async fn a_worker_whose_work_was_claimed_again_comes_too_late() {
    let world = World::start().await;
    let payer = world.user("payer").await;
    world.credit(&payer, "100").await;
    let (apps, _peer) = processes(&world).await;
    let task = waiting_work(&world, &payer, 1).await[0];
    let slow = claim(&apps[0], "slow").await.unwrap();
    world.turn(Duration::from_secs(31));
    assert_eq!(world.app.sweep_once().await.unwrap(), 1, "the lease is over");
    world.turn(Duration::from_secs(2));
    let quick = claim(&apps[1], "quick").await.unwrap();
    assert_eq!((quick.task.id, quick.execution.token, quick.execution.attempts), (task, 2, 2));
    assert_eq!(complete(&apps[0], &slow).await, Err("LEASE_LOST".to_owned()));
    let (id, token) = (slow.execution.id, slow.execution.token);
    let beat = apps[0].store().write(Caller::System, async |work| executions::heartbeat(work, id, token).await).await;
    assert_eq!(beat.unwrap_err().refusal_code(), Some("LEASE_LOST"));
    let gave_up = apps[0]
        .store()
        .write(Caller::System, async |work| executions::attempt_failed(work, task, id, token, "WORKER_LOST").await);
    assert_eq!(gave_up.await.unwrap_err().refusal_code(), Some("LEASE_LOST"));
    assert_eq!(status_of(&world, task).await, task::Status::Running);
    assert_eq!(complete(&apps[1], &quick).await, Ok(()));
    assert_eq!(status_of(&world, task).await, task::Status::Completed);
    assert_eq!(wallet(&payer).await, ("98".to_owned(), "0".to_owned()));
    world.check().await;
}

#[tokio::test]
async fn a_late_result_counts_while_nobody_else_claimed_the_work() {
    let world = World::start().await;
    let payer = world.user("payer").await;
    world.credit(&payer, "100").await;
    let tasks = waiting_work(&world, &payer, 2).await;
    let (one, two) = (claim(&world.app, "one").await.unwrap(), claim(&world.app, "two").await.unwrap());
    world.turn(Duration::from_secs(31));
    // The lease is over and nobody noticed.
    assert_eq!(complete(&world.app, &one).await, Ok(()));
    // It was noticed, and the work waits for its next attempt.
    assert_eq!(world.app.sweep_once().await.unwrap(), 1);
    let row = execution::Entity::find_by_id(two.execution.id).one(world.app.store().read()).await.unwrap().unwrap();
    assert_eq!(row.status, execution::Status::Ready);
    assert_eq!(complete(&world.app, &two).await, Ok(()));
    for task in tasks {
        assert_eq!(status_of(&world, task).await, task::Status::Completed);
    }
    assert_eq!(wallet(&payer).await, ("96".to_owned(), "0".to_owned()));
    world.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_late_result_and_the_end_of_its_lease_pay_once() {
    let world = World::start().await;
    let payer = world.user("payer").await;
    world.credit(&payer, "100").await;
    let (apps, _peer) = processes(&world).await;
    let tasks = waiting_work(&world, &payer, 6).await;
    let mut claims = Vec::new();
    while let Some(claim) = claim(&world.app, "slow").await {
        claims.push(claim);
    }
    assert_eq!(claims.len(), 6);
    world.turn(Duration::from_secs(31));
    let sweeping = join_all(apps.iter().map(App::sweep_once));
    let completing = join_all(claims.iter().map(|claim| complete(&apps[0], claim)));
    let claiming = join_all(["a", "b"].map(|name| claim(&apps[1], name)));
    let (_, (done, again)) = join(sweeping, join(completing, claiming)).await;
    let again: HashSet<TaskId> = again.into_iter().flatten().map(|claim| claim.task.id).collect();
    for (claim, done) in claims.iter().zip(done) {
        match done {
            Ok(()) => assert_eq!(status_of(&world, claim.task.id).await, task::Status::Completed),
            Err(code) => {
                assert_eq!(code, "LEASE_LOST");
                assert!(again.contains(&claim.task.id), "somebody else has it");
            }
        }
    }
    for _ in 0..3 {
        world.pass(Duration::from_secs(40)).await;
    }
    for task in tasks {
        assert_eq!(status_of(&world, task).await, task::Status::Completed);
    }
    assert_eq!(wallet(&payer).await, ("88".to_owned(), "0".to_owned()));
    world.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sweepers_at_once_do_each_thing_once() {
    const AUCTIONS: u64 = 10;
    const CLAIMS: u64 = 4;
    let world = World::start().await;
    let payer = world.user("payer").await;
    world.credit(&payer, "100").await;
    let (apps, _peer) = processes(&world).await;
    waiting_work(&world, &payer, CLAIMS.try_into().unwrap()).await;
    let mut auctions = Vec::new();
    for _ in 0..AUCTIONS {
        auctions.push(open_auction(&payer, "nobody-can", "1", &json!({ "closesIn": "PT30S" })).await);
    }
    while claim(&world.app, "gone").await.is_some() {}
    world.turn(Duration::from_secs(31));
    let swept = join_all((0..6).map(|at| apps[at % 2].sweep_once())).await;
    let swept: u64 = swept.into_iter().map(Result::unwrap).sum();
    assert_eq!(swept, AUCTIONS + CLAIMS, "each thing was done, and by one of them");
    for auction in &auctions {
        assert_eq!(lines_of(&world, auction, Kind::AuctionExpired).await, 1);
        assert_eq!(lines_of(&world, auction, Kind::AuctionOpened).await, 1);
    }
    let retried = entity::event::Entity::find().filter(entity::event::Column::Kind.eq(Kind::TaskRetried));
    assert_eq!(retried.count(world.app.store().read()).await.unwrap(), CLAIMS);
    assert_eq!(wallet(&payer).await, ("92".to_owned(), "8".to_owned()));
    world.check().await;
}
