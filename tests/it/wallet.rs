//! Money: where it comes from, where it goes, and that all of it is always somewhere.

use entity::{account, id::Id};
use serde_json::{Value, json};

use crate::world::{Client, World, crashing, echoing};

const TRANSFERS: &str = "query($filter: TransferFilter) { transfers(filter: $filter, first: 100) { totalCount nodes {
    kind amount reference debit { kind balance user { id } agent { name } } credit { kind balance user { id } }
    task { id } channel { id }
} } }";

async fn transfers(who: &Client, filter: Value) -> Vec<Value> {
    let found = who.query(TRANSFERS, json!({ "filter": filter })).await;
    let mut nodes = found["transfers"]["nodes"].as_array().unwrap().clone();
    nodes.reverse();
    nodes
}

/// What kind of movement, from what kind of account to what kind, and how much.
fn moves(transfers: &[Value]) -> Vec<[&str; 4]> {
    let text = |value: &'_ Value| -> &'static str { value.as_str().unwrap().to_owned().leak() };
    transfers
        .iter()
        .map(|it| [text(&it["kind"]), text(&it["debit"]["kind"]), text(&it["credit"]["kind"]), text(&it["amount"])])
        .collect()
}

fn amounts(available: &str, in_escrow: &str) -> (String, String) {
    (available.to_owned(), in_escrow.to_owned())
}

#[tokio::test]
async fn only_an_administrator_brings_credits_in_and_takes_them_out() {
    let world = World::start().await;
    let (ada, admin) = (world.user("ada").await, world.admin().await);
    let arbiter = world.of_role("arbiter", entity::user::Role::Arbiter).await;
    let input = |amount: &str, reference: &str| json!({ "userId": ada.id(), "amount": amount, "reference": reference });
    for field in ["issueCredits", "redeemCredits"] {
        assert_eq!(ada.fault(field, input("1", "r")).await, "FORBIDDEN");
        assert_eq!(arbiter.fault(field, input("1", "r")).await, "FORBIDDEN");
        assert_eq!(world.anonymous().fault(field, input("1", "r")).await, "UNAUTHENTICATED");
    }
    let made = admin.call("createApiKey", "secret", json!({ "name": "x", "scopes": ["READ", "TASKS_WRITE"] })).await;
    let program = admin.with_token(made["secret"].as_str().unwrap());
    assert_eq!(program.fault("issueCredits", input("1", "r")).await, "FORBIDDEN");

    let done = admin.call("issueCredits", "transfer { kind amount reference }", input("12.345678", "invoice 1")).await;
    assert_eq!(done["transfer"], json!({ "kind": "ISSUE", "amount": "12.345678", "reference": "invoice 1" }));
    assert_eq!(ada.wallet().await, amounts("12.345678", "0"));
    admin.call("redeemCredits", "transfer { id }", input("2.345678", "payment 1")).await;
    assert_eq!(ada.wallet().await, amounts("10", "0"));
    assert_eq!(admin.refusal("redeemCredits", input("10.000001", "payment 2")).await, "INSUFFICIENT_FUNDS");
    for wrong in [input("0", "r"), input("1", ""), input("1", &"x".repeat(201)), input("1", "a\u{7}")] {
        assert_eq!(admin.refusal("issueCredits", wrong.clone()).await, "INVALID_INPUT", "{wrong}");
    }
    let nobody = json!({ "userId": "user_01h455vb4pex5vsknk084sn02q", "amount": "1", "reference": "r" });
    assert_eq!(admin.refusal("issueCredits", nobody).await, "NOT_FOUND");
    assert_eq!(world.rows("transfers").await, 2);
    world.check().await;
}

#[tokio::test]
async fn a_reference_is_good_for_one_issue_and_one_redemption() {
    let world = World::start().await;
    let (ada, admin) = (world.user("ada").await, world.admin().await);
    let input = |key: &str, amount: &str, reference: &str| json!({ "userId": ada.id(), "amount": amount, "reference": reference, "idempotencyKey": key });
    let first = admin.call("issueCredits", "transfer { id }", input("a", "5", "invoice 1")).await;
    let again = admin.call("issueCredits", "transfer { id }", input("a", "5", "invoice 1")).await;
    assert_eq!(first, again);
    assert_eq!(admin.refusal("issueCredits", input("a", "6", "invoice 1")).await, "IDEMPOTENCY_KEY_REUSED");
    assert_eq!(admin.refusal("issueCredits", input("b", "5", "invoice 1")).await, "REFERENCE_USED");
    admin.call("redeemCredits", "transfer { id }", input("a", "5", "invoice 1")).await;
    assert_eq!(admin.refusal("redeemCredits", input("c", "0.000001", "invoice 1")).await, "REFERENCE_USED");
    assert_eq!(ada.wallet().await, amounts("0", "0"));
    // Eight retries that arrive together are one issue, as are eight keys for one reference.
    let all = (0..8).map(|_| admin.call("issueCredits", "transfer { id }", input("d", "1", "invoice 2")));
    let all = futures_util::future::join_all(all).await;
    assert!(all.iter().all(|one| *one == all[0]));
    let keys: Vec<String> = (0..8).map(|number| format!("e{number}")).collect();
    let document =
        "mutation($input: IssueCreditsInput!) { issueCredits(input: $input) { transfer { id } userErrors { code } } }";
    let all = keys.iter().map(|key| admin.query(document, json!({ "input": input(key, "1", "invoice 3") })));
    let all = futures_util::future::join_all(all).await;
    let done = all.iter().filter(|one| one["issueCredits"]["transfer"].is_object()).count();
    let refused =
        all.iter().filter(|one| one["issueCredits"]["userErrors"] == json!([{ "code": "REFERENCE_USED" }])).count();
    assert_eq!((done, refused), (1, 7), "{all:#?}");
    assert_eq!(ada.wallet().await, amounts("2", "0"));
    world.check().await;
}

#[tokio::test]
async fn an_account_holds_at_most_what_an_account_can_hold() {
    let world = World::start().await;
    let (ada, admin) = (world.user("ada").await, world.admin().await);
    let input =
        |amount: &str, number: i32| json!({ "userId": ada.id(), "amount": amount, "reference": format!("{number}") });
    for number in 0..3 {
        admin.call("issueCredits", "transfer { id }", input("1000000000", number)).await;
    }
    assert_eq!(ada.wallet().await, amounts("3000000000", "0"));
    ada.open(json!({ "budget": "1000000000" })).await;
    assert_eq!(ada.wallet().await, amounts("2000000000", "1000000000"));
    world.check().await;
}

#[tokio::test]
async fn every_movement_of_a_paid_and_of_a_refunded_task_is_in_the_books() {
    let world = World::start().await;
    let (ada, bob, eve) = (world.user("ada").await, world.user("bob").await, world.user("eve").await);
    world.credit(&ada, "20").await;
    let agent = world.hosted_agent(&bob, "echo", "echo", "3", echoing()).await;
    world.hosted_agent(&bob, "broken", "broken", "4", crashing()).await;
    let paid = ada.execute(json!({ "capabilities": ["echo"], "budget": "10" })).await;
    world.settle().await;
    let refunded = ada.execute(json!({ "capabilities": ["broken"], "budget": "4" })).await;
    world.settle().await;
    let of_paid = transfers(&ada, json!({ "taskId": paid })).await;
    assert_eq!(
        moves(&of_paid),
        [["HOLD", "USER", "ESCROW_TASK", "10"], ["RELEASE", "ESCROW_TASK", "USER", "7"],],
        "what moves between the task, its channel and the agent does not touch the wallet"
    );
    assert_eq!(
        moves(&transfers(&ada, json!({ "taskId": refunded })).await),
        [["HOLD", "USER", "ESCROW_TASK", "4"], ["REFUND", "ESCROW_CHANNEL", "USER", "4"]],
        "a budget that is all price leaves no rest, and what is nothing is no movement"
    );
    let earned = transfers(&bob, json!({ "agentId": agent.to_string() })).await;
    assert_eq!(moves(&earned), [["PAYOUT", "ESCROW_CHANNEL", "AGENT", "3"]]);
    assert_eq!(earned[0]["credit"]["balance"], "3");
    assert_eq!(earned[0]["task"]["id"], paid);
    // The running sum of all that touched the wallet is the wallet.
    let all = transfers(&ada, Value::Null).await;
    let micros = |text: &str| text.parse::<entity::money::Amount>().unwrap().micros();
    let sum: i64 = all
        .iter()
        .map(|it| {
            let amount = micros(it["amount"].as_str().unwrap());
            if it["credit"]["user"]["id"] == ada.id() { amount } else { -amount }
        })
        .sum();
    assert_eq!(sum, micros("17"));
    assert_eq!(ada.wallet().await, amounts("17", "0"));
    // The balances of others are nobody's business, and neither are their movements.
    assert_eq!(transfers(&eve, json!({ "taskId": paid })).await, [Value::Null; 0]);
    assert_eq!(transfers(&eve, json!({ "agentId": agent.to_string() })).await, [Value::Null; 0]);
    assert_eq!(of_paid[1]["debit"]["balance"], Value::Null);
    // The administrator sees all of them.
    let admin = world.admin().await;
    assert_eq!(
        moves(&transfers(&admin, json!({ "taskId": paid })).await),
        [
            ["HOLD", "USER", "ESCROW_TASK", "10"],
            ["ESCROW", "ESCROW_TASK", "ESCROW_CHANNEL", "3"],
            ["RELEASE", "ESCROW_TASK", "USER", "7"],
            ["PAYOUT", "ESCROW_CHANNEL", "AGENT", "3"],
        ]
    );
    assert_eq!(transfers(&admin, Value::Null).await.len(), 8);
    let health = world
        .anonymous()
        .query(
            "{ economicHealth { creditsInCirculation creditsInWallets creditsInEscrow creditsOfAgents fees } }",
            json!({}),
        )
        .await;
    let expected = json!({ "creditsInCirculation": "20", "creditsInWallets": "17", "creditsInEscrow": "0", "creditsOfAgents": "3", "fees": "0" });
    assert_eq!(health["economicHealth"], expected);
    world.check().await;
}

#[tokio::test]
async fn a_fee_is_rounded_down_and_the_agent_has_the_rest() {
    for (bps, price, agent_gets, fee) in [
        (250, "3", "2.925", "0.075"),
        (250, "0.000039", "0.000039", "0"),
        (333, "0.1", "0.09667", "0.00333"),
        (1, "0.009999", "0.009999", "0"),
        (10_000, "1", "0", "1"),
    ] {
        let world = World::with(|config| config.terms.fee_bps = bps).await;
        let (ada, bob) = (world.user("ada").await, world.user("bob").await);
        world.credit(&ada, "20").await;
        let agent = world.hosted_agent(&bob, "echo", "echo", price, echoing()).await;
        let broken = world.hosted_agent(&bob, "broken", "broken", price, crashing()).await;
        let id = ada.execute(json!({ "capabilities": ["echo"] })).await;
        world.settle().await;
        let task = ada.task(&id).await;
        assert_eq!(
            (&task["paid"], &task["channel"]["paid"], &task["result"]["cost"]),
            (&json!(price), &json!(price), &json!(price))
        );
        assert_eq!(bob.earned(agent).await, agent_gets, "{bps} of {price}");
        let health = ada.query("{ economicHealth { fees } serviceInfo { fee } }", json!({})).await;
        assert_eq!(health["economicHealth"]["fees"], fee, "{bps} of {price}");
        let told = "query($id: ID!) { events(filter: { taskId: $id, kinds: [TASK_COMPLETED] }) { nodes { ... on TaskEvent { amount fee returned } } } }";
        let told = ada.query(told, json!({ "id": id })).await["events"]["nodes"].take();
        assert_eq!(told, json!([{ "amount": price, "fee": fee, "returned": "0" }]));
        // Nothing is taken of a refund.
        let before = ada.wallet().await;
        ada.execute(json!({ "capabilities": ["broken"] })).await;
        world.settle().await;
        assert_eq!(ada.wallet().await, before);
        assert_eq!(bob.earned(broken).await, "0");
        world.check().await;
    }
}

#[tokio::test]
async fn an_administrator_audits_the_books() {
    let world = World::start().await;
    let (ada, bob, admin) = (world.user("ada").await, world.user("bob").await, world.admin().await);
    world.credit(&ada, "10").await;
    world.hosted_agent(&bob, "echo", "echo", "1", echoing()).await;
    ada.execute(json!({ "capabilities": ["echo"] })).await;
    world.settle().await;
    ada.open(json!({ "budget": "1" })).await;
    let document = "{ ledgerAudit { ok violations checks { name violations } } }";
    assert_eq!(ada.error(document, json!({})).await, "FORBIDDEN");
    assert_eq!(world.anonymous().error(document, json!({})).await, "UNAUTHENTICATED");
    let audit = admin.query(document, json!({})).await["ledgerAudit"].take();
    assert_eq!((&audit["ok"], &audit["violations"]), (&json!(true), &json!("0")));
    let names: Vec<_> = audit["checks"].as_array().unwrap().iter().map(|check| check["name"].clone()).collect();
    assert!(names.contains(&json!("L1")) && names.contains(&json!("L12")), "{names:?}");
    world.check().await;
}

#[tokio::test]
async fn an_audit_finds_a_balance_that_somebody_changed() {
    use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, sea_query::Expr};
    let world = World::start().await;
    let (ada, admin) = (world.user("ada").await, world.admin().await);
    world.credit(&ada, "10").await;
    let owner = ada.id().parse::<entity::id::UserId>().unwrap().uuid();
    let set = async |balance: i64| {
        let cheat = async |work: &mut zerostate::store::Work| {
            account::Entity::update_many()
                .col_expr(account::Column::Balance, Expr::value(balance))
                .filter(account::Column::OwnerId.eq(owner))
                .exec(work.tx())
                .await?;
            Ok(())
        };
        world.app.store().write(zerostate::caller::Caller::System, cheat).await.unwrap();
    };
    set(11_000_000).await;
    let audit = admin.query("{ ledgerAudit { ok } }", json!({})).await;
    assert_eq!(audit["ledgerAudit"]["ok"], false);
    let ready = crate::world::send(world.http().get(world.url("/ready"))).await;
    assert_eq!(ready.status, 503);
    set(10_000_000).await;
    let audit = admin.query("{ ledgerAudit { ok } economicHealth { booksInOrder } }", json!({})).await;
    assert_eq!((&audit["ledgerAudit"]["ok"]), (&json!(true)));
    world.check().await;
}

#[tokio::test]
async fn two_purchases_at_once_never_spend_the_same_credits() {
    let world = World::start().await;
    let ada = world.user("ada").await;
    world.credit(&ada, "10").await;
    let document =
        "mutation($input: CreateAuctionInput!) { createAuction(input: $input) { auction { id } userErrors { code } } }";
    let order = |number: i32| json!({ "title": "x", "capabilities": ["a"], "input": 1, "budget": "3", "closesIn": "PT1H", "idempotencyKey": format!("k{number}") });
    let all = (0..10).map(|number| ada.query(document, json!({ "input": order(number) })));
    let all = futures_util::future::join_all(all).await;
    let done = all.iter().filter(|one| one["createAuction"]["auction"].is_object()).count();
    let refused = all
        .iter()
        .filter(|one| one["createAuction"]["userErrors"] == json!([{ "code": "INSUFFICIENT_FUNDS" }]))
        .count();
    assert_eq!((done, refused), (3, 7), "{all:#?}");
    assert_eq!(ada.wallet().await, amounts("1", "9"));
    world.check().await;
}

#[tokio::test]
async fn an_owner_withdraws_what_an_agent_earned() {
    let world = World::with(|config| config.terms.fee_bps = 250).await;
    let (ada, bob, eve) = (world.user("ada").await, world.user("bob").await, world.user("eve").await);
    world.credit(&ada, "20").await;
    let agent = world.hosted_agent(&bob, "echo", "echo", "4", echoing()).await;
    let input = |amount: Value| json!({ "agentId": agent.to_string(), "amount": amount });
    assert_eq!(bob.refusal("withdrawEarnings", input(Value::Null)).await, "INSUFFICIENT_FUNDS");
    ada.execute(json!({ "capabilities": ["echo"] })).await;
    world.settle().await;
    assert_eq!(bob.earned(agent).await, "3.9");
    for stranger in [&ada, &eve, &world.admin().await] {
        assert_eq!(stranger.refusal("withdrawEarnings", input(json!("1"))).await, "NOT_FOUND");
    }
    assert_eq!(world.anonymous().fault("withdrawEarnings", input(json!("1"))).await, "UNAUTHENTICATED");
    let made = bob.call("createApiKey", "secret", json!({ "name": "r", "scopes": ["READ", "WORK_WRITE"] })).await;
    let program = bob.with_token(made["secret"].as_str().unwrap());
    assert_eq!(program.fault("withdrawEarnings", input(json!("1"))).await, "FORBIDDEN");
    assert_eq!(bob.refusal("withdrawEarnings", input(json!("0"))).await, "INVALID_INPUT");
    assert_eq!(bob.refusal("withdrawEarnings", input(json!("3.900001"))).await, "INSUFFICIENT_FUNDS");

    let follow = "subscription($after: EventCursor) { settlementEvents(after: $after) { kind
        ... on CreditsEvent { amount agent { name } } } }";
    let mut events = bob.subscribe(follow, json!({ "after": world.cursor().await })).await;
    let selection = "transfer { kind amount debit { agent { name } balance } credit { user { id } balance } }";
    let moved = bob.call("withdrawEarnings", selection, input(json!("1.5"))).await;
    let expected = json!({ "kind": "WITHDRAWAL", "amount": "1.5", "debit": { "agent": { "name": "echo" }, "balance": "2.4" },
        "credit": { "user": { "id": bob.id() }, "balance": "1.5" } });
    assert_eq!(moved["transfer"], expected);
    let told = events.next().await["settlementEvents"].clone();
    assert_eq!(told, json!({ "kind": "EARNINGS_WITHDRAWN", "amount": "1.5", "agent": { "name": "echo" } }));
    // All of the rest, of an agent that is retired by now, once however often it is asked for.
    bob.call("retireAgent", "agent { id }", json!({ "agentId": agent.to_string() })).await;
    let rest = json!({ "agentId": agent.to_string(), "idempotencyKey": "rest" });
    let first = bob.call("withdrawEarnings", "transfer { id amount }", rest.clone()).await;
    assert_eq!(first["transfer"]["amount"], "2.4");
    assert_eq!(bob.call("withdrawEarnings", "transfer { id amount }", rest).await, first);
    assert_eq!((bob.earned(agent).await.as_str(), bob.wallet().await), ("0", amounts("3.9", "0")));
    world.check().await;
}

#[tokio::test]
async fn withdrawals_that_arrive_together_take_what_is_there_once() {
    let world = World::start().await;
    let (ada, bob) = (world.user("ada").await, world.user("bob").await);
    world.credit(&ada, "20").await;
    let agent = world.hosted_agent(&bob, "echo", "echo", "4", echoing()).await;
    ada.execute(json!({ "capabilities": ["echo"] })).await;
    world.settle().await;
    let document = "mutation($input: WithdrawEarningsInput!) { withdrawEarnings(input: $input) { transfer { id } userErrors { code } } }";
    let inputs: Vec<Value> = (0..8)
        .map(|number| json!({ "input": { "agentId": agent.to_string(), "amount": "3", "idempotencyKey": format!("w{number}") } }))
        .collect();
    let all = futures_util::future::join_all(inputs.into_iter().map(|input| bob.query(document, input))).await;
    let done = all.iter().filter(|one| one["withdrawEarnings"]["transfer"].is_object()).count();
    assert_eq!(done, 1, "{all:#?}");
    assert_eq!((bob.earned(agent).await.as_str(), bob.wallet().await), ("1", amounts("3", "0")));
    world.check().await;
}

/// What a statement answers: opening, closing, and the lines from the oldest.
async fn statement(who: &Client, account: &str, arguments: &str) -> (i64, i64, Vec<Value>) {
    let fields = "opening closing lines { nodes { number amount balanceBefore balanceAfter createdAt transfer { kind task { id } } \
        counterparty { kind balance } } pageInfo { hasNextPage endCursor } totalCount }";
    let document =
        format!("query($id: ID!) {{ node(id: $id) {{ ... on Account {{ statement{arguments} {{ {fields} }} }} }} }}");
    let answer = who.query(&document, json!({ "id": account })).await;
    let found = &answer["node"]["statement"];
    let micros = |value: &Value| micros(value.as_str().unwrap());
    let mut lines = found["lines"]["nodes"].as_array().unwrap_or_else(|| panic!("{answer:#}")).clone();
    lines.reverse();
    for line in &lines {
        let sum = micros(&line["balanceBefore"]) + micros(&line["amount"]);
        assert_eq!(sum, micros(&line["balanceAfter"]), "{line:#}");
    }
    (micros(&found["opening"]), micros(&found["closing"]), lines)
}

/// Signed credits as micro-credits.
fn micros(text: &str) -> i64 {
    let (sign, text) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    sign * text.parse::<entity::money::Amount>().unwrap().micros()
}

#[tokio::test]
async fn a_statement_adds_up_on_every_page_and_in_every_period() {
    use std::time::Duration;
    let world = World::with(|config| config.terms.fee_bps = 250).await;
    let (ada, bob, eve, admin) =
        (world.user("ada").await, world.user("bob").await, world.user("eve").await, world.admin().await);
    let dawn = world.now();
    let agent = world.hosted_agent(&bob, "echo", "echo", "3", echoing()).await;
    world.credit(&ada, "50").await;
    let mut task = String::new();
    for _ in 0..4 {
        task = ada.execute(json!({ "capabilities": ["echo"] })).await;
        world.settle().await;
        world.turn(Duration::from_mins(10));
    }
    let noon = world.now();
    ada.open(json!({ "budget": "7", "closesIn": "PT5M" })).await;
    world.pass(Duration::from_mins(10)).await;
    bob.call("withdrawEarnings", "transfer { id }", json!({ "agentId": agent.to_string(), "amount": "2" })).await;

    let of = |who: Client| async move {
        let found = who.query("{ me { wallet { available account { id balance } } } }", json!({})).await;
        let wallet = found["me"]["wallet"].clone();
        assert_eq!(wallet["available"], wallet["account"]["balance"]);
        (wallet["account"]["id"].as_str().unwrap().to_owned(), micros(wallet["available"].as_str().unwrap()))
    };
    let (wallet, available) = of(ada.clone()).await;
    let sum = |lines: &[Value]| lines.iter().map(|line| micros(line["amount"].as_str().unwrap())).sum::<i64>();
    let (opening, closing, all) = statement(&ada, &wallet, "(first: 100)").await;
    assert_eq!((opening, closing, sum(&all)), (0, available, available));
    assert_eq!(all.len(), 11);
    for pair in all.windows(2) {
        assert_eq!(pair[0]["balanceAfter"], pair[1]["balanceBefore"], "no line is missing");
    }
    // The parts of any day give the day.
    let at = |micros: i64| entity::time::Timestamp::from_micros(micros).to_string();
    let cuts = [
        dawn.micros() - 1,
        dawn.micros() + 1,
        noon.micros() - 1_200_000_000,
        noon.micros(),
        i64::from(u32::MAX) * 1_000_000,
    ];
    let mut before = 0;
    let mut lines_seen = 0;
    for pair in cuts.windows(2) {
        let period = format!("(first: 100, filter: {{ from: \"{}\", until: \"{}\" }})", at(pair[0]), at(pair[1]));
        let (opening, closing, lines) = statement(&ada, &wallet, &period).await;
        assert_eq!((opening, opening + sum(&lines)), (before, closing), "{period}");
        assert!(
            lines
                .iter()
                .all(|line| (at(pair[0])..at(pair[1])).contains(&line["createdAt"].as_str().unwrap().to_owned()))
        );
        before = closing;
        lines_seen += lines.len();
    }
    assert_eq!((before, lines_seen), (available, all.len()));
    let nothing = format!("(filter: {{ from: \"{0}\", until: \"{1}\" }})", at(cuts[3]), at(cuts[1]));
    let (opening, closing, lines) = statement(&ada, &wallet, &nothing).await;
    assert_eq!((opening, lines.len()), (closing, 0));
    // Page after page from the newest line, without a gap.
    let (mut after, mut paged) = (String::new(), Vec::new());
    loop {
        let fields = "lines { nodes { number amount balanceBefore balanceAfter } pageInfo { hasNextPage endCursor } }";
        let document = format!(
            "query($id: ID!) {{ node(id: $id) {{ ... on Account {{ statement(first: 3{after}) {{ {fields} }} }} }} }}"
        );
        let page = ada.query(&document, json!({ "id": wallet })).await["node"]["statement"]["lines"].clone();
        paged.extend(page["nodes"].as_array().unwrap().clone());
        if page["pageInfo"]["hasNextPage"] == false {
            break;
        }
        after = format!(", after: {}", page["pageInfo"]["endCursor"]);
    }
    paged.reverse();
    assert_eq!(paged.len(), all.len());
    assert!(paged.iter().zip(1..).all(|(line, number)| line["number"] == json!(format!("{number}"))), "{paged:#?}");
    assert!(paged.windows(2).all(|pair| pair[0]["balanceAfter"] == pair[1]["balanceBefore"]));
    // What is picked out of it keeps its balances.
    for (filter, count) in [
        ("kinds: [HOLD]".to_owned(), 5),
        ("kinds: [RELEASE]".to_owned(), 5),
        ("kinds: [HOLD, ISSUE]".to_owned(), 6),
        (format!("taskId: \"{task}\""), 2),
        (format!("taskId: \"{task}\", kinds: [FEE]"), 0),
    ] {
        let (_, _, lines) = statement(&ada, &wallet, &format!("(first: 100, filter: {{ {filter} }})")).await;
        assert_eq!(lines.len(), count, "{filter}");
        for line in &lines {
            let whole = all.iter().find(|other| other["number"] == line["number"]).unwrap();
            assert_eq!(
                (&line["balanceBefore"], &line["counterparty"]["balance"]),
                (&whole["balanceBefore"], &Value::Null)
            );
        }
    }
    // The agent's account and its owner's wallet tell the two sides of the withdrawal; others see neither.
    let found = bob
        .query("query($id: ID!) { agent(id: $id) { earnings account { id } } }", json!({ "id": agent.to_string() }))
        .await;
    let account = found["agent"]["account"]["id"].as_str().unwrap().to_owned();
    let (_, closing, lines) = statement(&bob, &account, "(first: 100)").await;
    assert_eq!((closing, sum(&lines), lines.len()), (micros("9.7"), micros("9.7"), 5));
    assert_eq!(lines[4]["counterparty"], json!({ "kind": "USER", "balance": "2" }));
    assert_eq!(statement(&admin, &wallet, "(first: 100)").await.2.len(), all.len());
    for stranger in [&bob, &eve] {
        let hidden = "query($id: ID!) { node(id: $id) { ... on Account { statement { opening } } } }";
        assert_eq!(stranger.query(hidden, json!({ "id": wallet })).await["node"]["statement"], Value::Null);
    }
    // The list of transfers takes the same filters.
    let count = async |who: &Client, filter: Value| transfers(who, filter).await.len();
    assert_eq!(count(&ada, json!({ "accountId": wallet })).await, all.len());
    assert_eq!(count(&ada, json!({ "kinds": ["HOLD", "ISSUE"] })).await, 6);
    assert_eq!(count(&ada, json!({ "from": at(noon.micros()) })).await, 2);
    assert_eq!(count(&ada, json!({ "until": at(noon.micros()) })).await, 9);
    assert_eq!(count(&ada, json!({ "from": at(noon.micros()), "until": at(noon.micros()) })).await, 0);
    assert_eq!(count(&eve, json!({ "accountId": wallet })).await, 0);
    assert_eq!(count(&bob, json!({ "agentId": agent.to_string() })).await, 5);
    let channel = ada.task(&task).await["channel"]["id"].clone();
    assert_eq!(count(&admin, json!({ "channelId": channel })).await, 3);
    world.check().await;
}
