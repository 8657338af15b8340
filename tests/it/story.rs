//! One market from the first health check to the last refusal: what the service is for, in one piece.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::world::{PASSWORD, World, bids, crashing, sample, send};

#[tokio::test]
async fn a_market_from_the_first_sign_in_to_the_settled_and_rated_work() {
    let world = World::start().await;

    // It is up.
    let health = send(world.http().get(world.url("/health"))).await;
    assert_eq!((health.status, health.text.as_str()), (200, "ok\n"));
    assert_eq!(send(world.http().get(world.url("/ready"))).await.status, 200);

    // People register, and sign in whatever the case of their address.
    let ada = world.user("ada").await;
    let (bob, cleo, eve) = (world.user("bob").await, world.user("cleo").await, world.user("eve").await);
    let again = json!({ "email": "Ada@Example.COM", "displayName": "Ada", "password": PASSWORD });
    assert_eq!(world.anonymous().refusal("registerUser", again).await, "EMAIL_TAKEN");
    let input = json!({ "email": "ADA@example.com", "password": PASSWORD });
    let signed_in = world.anonymous().call("login", "tokens { user { id role } }", input).await;
    assert_eq!(signed_in["tokens"]["user"], json!({ "id": ada.id(), "role": "USER" }));

    // Nobody has money until an administrator issues it.
    assert_eq!(ada.refused_auction(json!({})).await, "INSUFFICIENT_FUNDS");
    let gift = json!({ "userId": eve.id(), "amount": "100", "reference": "gift" });
    assert_eq!(eve.fault("issueCredits", gift).await, "FORBIDDEN");
    world.credit(&ada, "100").await;
    assert_eq!(ada.wallet().await, ("100".to_owned(), "0".to_owned()));

    // An agent that wins and does not start gives the task back and loses some reputation.
    let cheap = world.agent(&bob, "cheap", "EXTERNAL", "text.stats", "2").await;
    let dear = world.agent(&cleo, "dear", "EXTERNAL", "text.stats", "3").await;
    let mine = world.agent(&ada, "mine", "EXTERNAL", "text.stats", "1").await;
    assert_eq!(world.score(cheap).await, "42.5");
    let first = ada.open(json!({ "closesIn": "PT10S", "startTimeout": "PT30S" })).await;
    bob.bid(&first, cheap, "2").await;
    world.pass(Duration::from_secs(10)).await;
    assert_eq!(ada.task_of(&first).await["status"], "AWARDED");
    assert_eq!(ada.wallet().await, ("98".to_owned(), "2".to_owned()));
    world.pass(Duration::from_secs(30)).await;
    let forfeited = ada.task_of(&first).await;
    assert_eq!((&forfeited["status"], &forfeited["failureCode"]), (&json!("EXPIRED"), &json!("NO_AGENT_STARTED")));
    assert_eq!(ada.wallet().await, ("100".to_owned(), "0".to_owned()));
    // One failure of weight ½: 40 · 2/4.5 + 22.5.
    assert_eq!(world.score(cheap).await, "40.277");

    // An auction with two bids. What was once accepted is refused.
    let auction = ada.open(json!({ "maxPrice": "5", "closesIn": "PT5M", "startTimeout": "PT30S" })).await;
    assert_eq!(world.anonymous().fault("submitBid", bid(&auction, &cheap, "4")).await, "UNAUTHENTICATED");
    assert_eq!(bob.refused_bid(&auction, cheap, "1.999999").await, "PRICE_BELOW_MINIMUM");
    assert_eq!(bob.refused_bid(&auction, cheap, "5.000001").await, "PRICE_ABOVE_CEILING");
    assert_eq!(bob.refused_bid(&auction, cheap, "0").await, "INVALID_INPUT");
    assert_eq!(ada.refused_bid(&auction, mine, "4").await, "OWN_AUCTION");
    assert_eq!(eve.refused_bid(&auction, cheap, "4").await, "NOT_FOUND");
    let nobody = "agent_01h455vb4pex5vsknk084sn02q".parse().unwrap();
    assert_eq!(eve.refused_bid(&auction, nobody, "4").await, "NOT_FOUND");
    bob.bid(&auction, cheap, "4").await;
    cleo.bid(&auction, dear, "4.3").await;
    assert_eq!(bids(&eve.auction(&auction).await), [], "sealed bids are nobody else's business");
    assert_eq!(ada.wallet().await, ("90".to_owned(), "10".to_owned()));

    // The better composite wins, which is not the cheaper bid: 0.4 · (10 − p)/10 · 100 + 0.6 · R.
    world.pass(Duration::from_mins(5)).await;
    let decided = eve.auction(&auction).await;
    assert_eq!(decided["status"], "AWARDED");
    let nodes = decided["bids"]["nodes"].as_array().unwrap();
    assert_eq!(nodes[0]["score"], json!({ "total": "48.162", "price": "24", "reputation": "24.162" }));
    assert_eq!(nodes[1]["score"], json!({ "total": "48.3", "price": "22.8", "reputation": "25.5" }));
    assert_eq!([&nodes[0]["reputation"], &nodes[1]["reputation"]], [&json!("40.27"), &json!("42.5")]);
    assert_eq!([&nodes[0]["rank"], &nodes[1]["rank"]], [&json!(2), &json!(1)]);
    assert_eq!(decided["winningBid"]["agent"]["id"], dear.to_string());
    assert_eq!(decided["clearingPrice"], "4.3");
    assert_eq!(bob.refused_bid(&auction, cheap, "3").await, "AUCTION_NOT_OPEN");

    // The price is in escrow, the rest is back.
    let task = ada.task_of(&auction).await;
    assert_eq!((&task["price"], &task["channel"]["deposit"]), (&json!("4.3"), &json!("4.3")));
    assert_eq!((&task["channel"]["status"], &task["channel"]["nonce"]), (&json!("OPEN"), &json!("1")));
    assert_eq!(task["channel"]["payer"]["id"], ada.id());
    assert_eq!(ada.wallet().await, ("95.7".to_owned(), "4.3".to_owned()));

    // Neither starts: the runner-up takes over at its own price, then everything goes back.
    world.pass(Duration::from_secs(30)).await;
    let task = ada.task_of(&auction).await;
    assert_eq!(
        (&task["status"], &task["price"], &task["agent"]["name"]),
        (&json!("AWARDED"), &json!("4"), &json!("cheap"))
    );
    assert_eq!(ada.wallet().await, ("96".to_owned(), "4".to_owned()));
    world.pass(Duration::from_secs(30)).await;
    assert_eq!(ada.task_of(&auction).await["status"], "EXPIRED");
    assert_eq!(ada.wallet().await, ("100".to_owned(), "0".to_owned()));

    // Hosted agents bid by themselves. The cheaper one wins, fails, is not paid, and loses reputation.
    let broken = world.hosted_agent(&bob, "broken", "text.count", "2", crashing()).await;
    let worker = world.hosted_agent(&cleo, "worker", "text.count", "2.2", sample("text-stats-lite")).await;
    let order = json!({ "capabilities": ["text.count"] });
    let failed = ada.execute(order.clone()).await;
    assert_eq!(ada.wallet().await, ("98".to_owned(), "2".to_owned()));
    world.settle().await;
    let task = ada.task(&failed).await;
    assert_eq!(
        (&task["status"], &task["paid"], &task["agent"]["name"]),
        (&json!("REFUNDED"), &json!("0"), &json!("broken"))
    );
    assert_eq!((&task["result"]["outcome"], &task["result"]["faultCode"]), (&json!("FAILED"), &json!("TRAP")));
    assert_eq!((&task["channel"]["status"], &task["channel"]["closeReason"]), (&json!("CLOSED"), &json!("REFUNDED")));
    assert_eq!(ada.wallet().await, ("100".to_owned(), "0".to_owned()));
    assert_eq!(bob.earned(broken).await, "0");
    assert_eq!(world.score(broken).await, "40.277");

    // The market has learnt: 31.2 + 25.5 beats 32 + 24.162. The work is done, paid, and raises the reputation.
    assert_eq!(world.score(worker).await, "42.5");
    let done = ada.execute(order).await;
    world.settle().await;
    let task = ada.task(&done).await;
    assert_eq!(
        (&task["status"], &task["paid"], &task["agent"]["name"]),
        (&json!("COMPLETED"), &json!("2.2"), &json!("worker"))
    );
    assert_eq!(task["result"]["output"]["words"], 3);
    assert_eq!((&task["channel"]["closeReason"], &task["channel"]["nonce"]), (&json!("SETTLED"), &json!("2")));
    let scores: Vec<_> = bids(&ada.auction(task["auction"]["id"].as_str().unwrap()).await);
    assert!(scores.contains(&("2.2".to_owned(), "WON".to_owned(), Some(1), Some("56.7".to_owned()))), "{scores:?}");
    assert!(scores.contains(&("2".to_owned(), "LOST".to_owned(), Some(2), Some("56.162".to_owned()))), "{scores:?}");
    assert_eq!(ada.wallet().await, ("97.8".to_owned(), "0".to_owned()));
    assert_eq!(cleo.earned(worker).await, "2.2");
    // One success of weight 2.2 / (2.2 + 2): the usual price is that of the failure.
    assert_eq!(world.score(worker).await, "45.562");

    // Only the payer rates, only finished work, once.
    assert_eq!(eve.refusal("rateAgent", stars(&done, 5)).await, "NOT_FOUND");
    assert_eq!(bob.refusal("rateAgent", stars(&done, 1)).await, "NOT_FOUND");
    assert_eq!(cleo.refusal("rateAgent", stars(&done, 5)).await, "RATING_NOT_PAYER");
    assert_eq!(ada.refusal("rateAgent", stars(&failed, 1)).await, "TASK_NOT_SETTLED");
    assert_eq!(ada.refusal("rateAgent", stars(&done, 6)).await, "INVALID_INPUT");
    ada.call("rateAgent", "rating { id }", stars(&done, 5)).await;
    assert_eq!(world.score(worker).await, "46.72");
    assert_eq!(ada.refusal("rateAgent", stars(&done, 1)).await, "ALREADY_RATED");

    // Nothing is settled twice.
    let (auction, cancel) = (json!({ "auctionId": task["auction"]["id"] }), json!({ "taskId": done }));
    assert_eq!(ada.refusal("awardAuction", auction.clone()).await, "AUCTION_NOT_OPEN");
    assert_eq!(ada.refusal("cancelAuction", auction).await, "TASK_NOT_OPEN");
    assert_eq!(ada.refusal("cancelTask", cancel).await, "TASK_NOT_OPEN");
    world.settle().await;
    assert_eq!(cleo.earned(worker).await, "2.2");
    assert_eq!(ada.wallet().await, ("97.8".to_owned(), "0".to_owned()));

    // The work is nobody else's business.
    assert_eq!(eve.task(&done).await, Value::Null);
    let upload = send(eve.request(Method::PUT, &format!("/agents/{worker}/module")).body("x")).await;
    assert_eq!((upload.status, upload.code().as_str()), (404, "NOT_FOUND"));
    world.check().await;
}

fn bid(auction: &str, agent: &impl ToString, price: &str) -> Value {
    json!({ "auctionId": auction, "agentId": agent.to_string(), "price": price })
}

fn stars(task: &str, stars: i32) -> Value {
    json!({ "taskId": task, "stars": stars })
}

#[tokio::test]
async fn the_numbers_of_the_market_are_counted_and_never_made_up() {
    let world = World::start().await;
    let stats =
        "{ marketStats { users activeAgents openAuctions bids successRate volume averagePrice tasks { status count } }
        economicHealth { creditsInCirculation openAuctions openChannels unsettledTasks overdue } }";
    let empty = world.anonymous().query(stats, json!({})).await;
    let market = &empty["marketStats"];
    assert_eq!((&market["successRate"], &market["averagePrice"]), (&Value::Null, &Value::Null), "nothing is known yet");
    assert_eq!((&market["users"], &market["volume"], &market["bids"]), (&json!("0"), &json!("0"), &json!("0")));

    let (ada, bob) = (world.user("ada").await, world.user("bob").await);
    world.credit(&ada, "50").await;
    world.hosted_agent(&bob, "worker", "count", "2", sample("text-stats-lite")).await;
    world.hosted_agent(&bob, "broken", "break", "3", crashing()).await;
    for capability in ["count", "count", "count", "break"] {
        ada.execute(json!({ "capabilities": [capability] })).await;
    }
    world.settle().await;
    ada.open(json!({ "budget": "5" })).await;
    let full = world.anonymous().query(stats, json!({})).await;
    let market = &full["marketStats"];
    assert_eq!((&market["successRate"], &market["averagePrice"]), (&json!("75"), &json!("2")));
    assert_eq!((&market["volume"], &market["bids"], &market["activeAgents"]), (&json!("6"), &json!("4"), &json!("2")));
    let count = |status: &str| {
        let all = market["tasks"].as_array().unwrap();
        all.iter().find(|line| line["status"] == status).unwrap()["count"].as_str().unwrap().to_owned()
    };
    assert_eq!(["COMPLETED", "REFUNDED", "OPEN", "RUNNING"].map(count), ["3", "1", "1", "0"]);
    let health = json!({ "creditsInCirculation": "50", "openAuctions": "1", "openChannels": "0", "unsettledTasks": "1",
        "overdue": "0" });
    assert_eq!(full["economicHealth"], health);

    // The metrics are one well-formed page that says the same.
    let metrics = send(world.http().get(world.url("/metrics"))).await;
    assert_eq!(metrics.status, 200);
    let samples: Vec<_> = metrics
        .text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| line.rsplit_once(' ').unwrap())
        .collect();
    let mut names: Vec<_> = samples.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    let all = names.len();
    names.dedup();
    assert_eq!(names.len(), all, "no series is there twice");
    assert!(names.iter().all(|name| name.starts_with("zerostate_") || name.starts_with("process_")), "{names:?}");
    assert!(samples.iter().all(|(_, value)| *value != "NaN"), "{}", metrics.text);
    world.check().await;
}

/// The twelve steps that the system before this one was tried with, each with what it should have shown.
#[tokio::test]
async fn the_twelve_steps_of_the_predecessor() {
    let world = World::start().await;
    let mut passed = 0;
    let mut step = |number: i32| {
        assert_eq!(number, passed + 1, "one step after the other");
        passed = number;
    };

    // 1. It is up.
    let health = send(world.http().get(world.url("/health"))).await;
    assert_eq!((health.status, health.text.as_str()), (200, "ok\n"));
    step(1);

    // 2. Somebody registers and is signed in.
    let (ada, bob, cleo) = (world.user("ada").await, world.user("bob").await, world.user("cleo").await);
    assert_eq!(ada.query("{ me { id } }", json!({})).await["me"]["id"], ada.id());
    world.credit(&ada, "20").await;
    step(2);

    // 3. An auction.
    let auction = ada.open(json!({ "budget": "0.05", "closesIn": "PT5M", "startTimeout": "PT30S" })).await;
    assert_eq!(ada.auction(&auction).await["status"], "OPEN");
    step(3);

    // 4. A bid.
    let first = world.agent(&bob, "first", "EXTERNAL", "text.stats", "0.04").await;
    bob.bid(&auction, first, "0.04").await;
    step(4);

    // 5. Another one, and the scores decide.
    let second = world.agent(&cleo, "second", "EXTERNAL", "text.stats", "0.04").await;
    cleo.bid(&auction, second, "0.045").await;
    world.pass(Duration::from_mins(5)).await;
    let decided = ada.auction(&auction).await;
    assert_eq!(decided["winningBid"]["agent"]["id"], first.to_string());
    let ranks: Vec<_> = bids(&decided).into_iter().map(|(price, _, rank, _)| (price, rank)).collect();
    assert_eq!(ranks, [("0.04".to_owned(), Some(1)), ("0.045".to_owned(), Some(2))]);
    // Nobody starts, so all of it comes back.
    world.pass(Duration::from_secs(30)).await;
    world.pass(Duration::from_secs(30)).await;
    assert_eq!(ada.wallet().await, ("20".to_owned(), "0".to_owned()));
    step(5);

    // 6. A channel.
    let opening = json!({ "agentId": first.to_string(), "deposit": "1", "expiresAt": "2026-11-25T12:00:00Z", "settleDelay": "PT1H" });
    let opened = ada.call("openChannel", "channel { id deposit status }", opening).await;
    assert_eq!((&opened["channel"]["deposit"], &opened["channel"]["status"]), (&json!("1"), &json!("OPEN")));
    assert_eq!(ada.wallet().await, ("19".to_owned(), "1".to_owned()));
    step(6);

    // 7. It pays and closes, and the balances say so.
    let channel = opened["channel"]["id"].clone();
    let payment = json!({ "channelId": channel, "amount": "0.75" });
    ada.call("deductFromChannel", "change { kind }", payment).await;
    bob.call("settleChannel", "change { kind }", json!({ "channelId": channel })).await;
    assert_eq!(ada.wallet().await, ("19.25".to_owned(), "0".to_owned()));
    assert_eq!(bob.earned(first).await, "0.75");
    step(7);

    // 8. A reputation.
    let worker = world.hosted_agent(&bob, "worker", "count", "1", sample("text-stats-lite")).await;
    assert_eq!(world.score(worker).await, "42.5");
    step(8);

    // 9. Work that succeeds raises it.
    ada.execute(json!({ "capabilities": ["count"] })).await;
    world.settle().await;
    let raised: f64 = world.score(worker).await.parse().unwrap();
    assert!(raised > 42.5, "{raised}");
    step(9);

    // 10. Work that fails lowers it.
    let broken = json!({ "capabilities": ["count"], "input": { "no": "text" } });
    let failed = ada.execute(broken).await;
    world.settle().await;
    assert_eq!(ada.task(&failed).await["status"], "REFUNDED");
    let lowered: f64 = world.score(worker).await.parse().unwrap();
    assert!(lowered < raised, "{raised} {lowered}");
    step(10);

    // 11. A goal is delegated to several agents.
    for (name, capability, price) in [
        ("text-transform-lite", "compute", "0.2"),
        ("text-stats-lite", "storage", "0.3"),
        ("text-keywords-lite", "network", "0.6"),
    ] {
        world.hosted_agent(&cleo, name, capability, price, sample(name)).await;
    }
    let input = json!({ "text": "  Credits are  credits. ", "operation": "squeeze" });
    let text = json!({ "$ref": "clean#/text" });
    let plan = json!({ "steps": [
        { "name": "clean", "capabilities": ["compute"] , "input": { "$ref": "input" } },
        { "name": "store", "capabilities": ["storage"], "input": text },
        { "name": "send", "capabilities": ["network"], "input": { "text": text, "limit": 1 } },
    ] });
    let order = json!({ "goal": "A complex task", "capabilities": ["compute", "storage", "network"], "budget": "5",
        "priority": "HIGH", "input": input, "plan": plan });
    let made = ada.call("delegateTask", "delegation { id status progress agentsCount }", order).await;
    let delegation = &made["delegation"];
    assert_eq!((&delegation["status"], &delegation["progress"]), (&json!("RUNNING"), &json!(0)));
    assert_eq!(delegation["agentsCount"], 0, "nobody has won anything yet");
    step(11);

    // 12. Its status is told, goes forward and ends.
    let document = "query($id: ID!) { delegation(id: $id) { status progress agentsCount spent returned output } }";
    let mut seen = Vec::new();
    loop {
        let now = ada.query(document, json!({ "id": delegation["id"] })).await["delegation"].take();
        seen.push(now["progress"].as_i64().unwrap());
        if now["status"] == "COMPLETED" {
            assert_eq!(
                (&now["agentsCount"], &now["spent"], &now["returned"]),
                (&json!(3), &json!("1.1"), &json!("3.9"))
            );
            assert_eq!(now["output"]["store"]["words"], 3);
            assert_eq!(now["output"]["send"]["keywords"][0]["keyword"], "credits");
            break;
        }
        assert_eq!(now["status"], "RUNNING");
        world.app.sweep_once().await.unwrap();
        world.app.run_ready().await.unwrap();
    }
    assert!(seen.is_sorted() && seen.contains(&0) && seen.contains(&33) && seen.contains(&100), "{seen:?}");
    step(12);
    assert_eq!(passed, 12);
    world.check().await;
}
