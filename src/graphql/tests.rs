//! The schema as a text, and the face over a real database.

use std::collections::BTreeSet;

use async_graphql::{
    Request, Response, Value, Variables,
    parser::{
        parse_schema,
        types::{FieldDefinition, InputValueDefinition, TypeKind, TypeSystemDefinition},
    },
};
use entity::{id::UserId, money::Amount, time::Timestamp, user::Role};
use futures_util::{StreamExt, stream::BoxStream};
use serde_json::{Value as Json, json};
use std::time::Duration;

use super::{Schema, Session, schema, sdl};
use crate::{
    app::App,
    caller::Caller,
    config::Config,
    ledger,
    store::{Clock, Entropy},
    user::{self, NewAccount},
};

/// A service on a fresh database with two people and an administrator.
struct World {
    app: App,
    schema: Schema,
    clock: Clock,
    admin: Caller,
    alice: Caller,
    bob: Caller,
    _folder: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::in_folder(folder.path());
        config.auth.argon2 = (8, 1, 1);
        let clock = Clock::manual(Timestamp::from_micros(1_800_000_000_000_000));
        let app = App::open(config, clock.clone(), Entropy::seeded(7)).await.unwrap();
        let mut people = Vec::new();
        for (name, role) in [("admin", Role::Admin), ("alice", Role::User), ("bob", Role::User)] {
            let password_hash = app.auth().hash("correct horse battery").await.unwrap();
            let email = format!("{name}@example.com");
            let account = NewAccount { email: email.clone(), display_name: name.to_owned(), password_hash, role };
            app.store().write(Caller::System, async |work| user::create(work, account).await).await.unwrap();
            let tokens = user::login(app.store(), app.auth(), &email, "correct horse battery").await.unwrap();
            people.push(user::authenticate(app.store(), app.auth(), &tokens.access_token).await.unwrap());
        }
        let [admin, alice, bob] = people.try_into().unwrap();
        let schema = schema(&app);
        Self { app, schema, clock, admin, alice, bob, _folder: folder }
    }

    fn request(&self, caller: &Caller, query: &str, variables: Json) -> Request {
        Request::new(query).variables(Variables::from_json(variables)).data(Session::new(
            self.app.clone(),
            caller.clone(),
            "req-1".to_owned(),
        ))
    }

    async fn response(&self, caller: &Caller, query: &str, variables: Json) -> Response {
        self.schema.execute(self.request(caller, query, variables)).await
    }

    /// The data of an operation without errors.
    async fn ask(&self, caller: &Caller, query: &str, variables: Json) -> Json {
        let response = self.response(caller, query, variables).await;
        assert!(response.errors.is_empty(), "{query}: {:?}", response.errors);
        response.data.into_json().unwrap()
    }

    /// The code of the one error of an operation.
    async fn code(&self, caller: &Caller, query: &str, variables: Json) -> String {
        let response = self.response(caller, query, variables).await;
        assert_eq!(response.errors.len(), 1, "{query}: {response:?}");
        let extensions = response.errors[0].extensions.clone().unwrap();
        match extensions.get("code") {
            Some(Value::String(code)) => code.clone(),
            other => panic!("{other:?}"),
        }
    }

    fn follow(&self, caller: &Caller, query: &str, variables: Json) -> BoxStream<'static, Response> {
        self.schema.execute_stream(self.request(caller, query, variables)).boxed()
    }

    async fn fund(&self, caller: &Caller, credits: u32) {
        let (user, amount) = (caller.user().unwrap(), Amount::from_credits(credits).unwrap());
        let reference = format!("grant {user} {credits}");
        self.app
            .store()
            .write(self.admin.clone(), async |work| ledger::issue(work, user, amount, &reference).await)
            .await
            .unwrap();
    }

    async fn agent(&self, caller: &Caller, name: &str) -> String {
        let made = self
            .ask(
                caller,
                "mutation($name: String!) { registerAgent(input: {name: $name, capabilities: [\"sum\"], runtime: EXTERNAL, \
                 price: \"5\", minPrice: \"1\", idempotencyKey: $name}) { agent { id } userErrors { code message field } } }",
                json!({ "name": name }),
            )
            .await;
        assert_eq!(made["registerAgent"]["userErrors"], json!([]), "{made}");
        made["registerAgent"]["agent"]["id"].as_str().unwrap().to_owned()
    }

    async fn auction(&self, caller: &Caller, key: &str, visibility: &str) -> String {
        let made = self
            .ask(
                caller,
                "mutation($key: String!, $visibility: AuctionVisibility!) { createAuction(input: {title: $key, \
                 capabilities: [\"sum\"], input: {numbers: [1, 2]}, budget: \"10\", visibility: $visibility, awardMode: MANUAL, \
                 reservePrice: \"9\", closesIn: \"PT1H\", idempotencyKey: $key}) { auction { id task { id } } \
                 userErrors { code message field } } }",
                json!({ "key": key, "visibility": visibility }),
            )
            .await;
        assert_eq!(made["createAuction"]["userErrors"], json!([]), "{made}");
        made["createAuction"]["auction"]["id"].as_str().unwrap().to_owned()
    }

    async fn bid(&self, caller: &Caller, auction: &str, agent: &str, price: &str) -> Json {
        let key = format!("{auction}/{agent}/{price}");
        let made = self
            .ask(
                caller,
                "mutation($auction: ID!, $agent: ID!, $price: Credits!, $key: String!) { submitBid(input: {auctionId: $auction, \
                 agentId: $agent, price: $price, idempotencyKey: $key}) { bid { id rank price score { total price reputation } } \
                 userErrors { code message field } } }",
                json!({ "auction": auction, "agent": agent, "price": price, "key": key }),
            )
            .await;
        assert_eq!(made["submitBid"]["userErrors"], json!([]), "{made}");
        made["submitBid"].clone()
    }
}

/// The next event of a stream.
async fn next(stream: &mut BoxStream<'static, Response>) -> Option<Json> {
    let response = tokio::time::timeout(Duration::from_secs(10), stream.next()).await.unwrap()?;
    assert!(response.errors.is_empty(), "{:?}", response.errors);
    response.data.into_json().ok()?.as_object()?.values().next().cloned()
}

#[test]
fn everything_in_the_schema_has_a_description() {
    let document = parse_schema(sdl()).unwrap();
    let mut bare = BTreeSet::new();
    let inputs =
        |owner: &str, inputs: &[async_graphql::Positioned<InputValueDefinition>], bare: &mut BTreeSet<String>| {
            for input in inputs {
                if input.node.description.is_none() {
                    bare.insert(format!("{owner}.{}", input.node.name.node));
                }
            }
        };
    let fields = |owner: &str, all: &[async_graphql::Positioned<FieldDefinition>], bare: &mut BTreeSet<String>| {
        for field in all {
            let name = format!("{owner}.{}", field.node.name.node);
            if field.node.description.is_none() {
                bare.insert(name.clone());
            }
            inputs(&name, &field.node.arguments, bare);
        }
    };
    let mut types = 0;
    for definition in &document.definitions {
        let TypeSystemDefinition::Type(definition) = definition else { continue };
        let name = definition.node.name.node.as_str();
        types += 1;
        if definition.node.description.is_none() {
            bare.insert(name.to_owned());
        }
        match &definition.node.kind {
            TypeKind::Object(object) => fields(name, &object.fields, &mut bare),
            TypeKind::Interface(interface) => fields(name, &interface.fields, &mut bare),
            TypeKind::InputObject(input) => inputs(name, &input.fields, &mut bare),
            TypeKind::Enum(choice) => {
                for value in &choice.values {
                    if value.node.description.is_none() {
                        bare.insert(format!("{name}.{}", value.node.value.node));
                    }
                }
            }
            TypeKind::Scalar | TypeKind::Union(_) => {}
        }
    }
    assert!(types > 100, "{types}");
    assert!(bare.is_empty(), "{bare:#?}");
}

#[test]
fn the_text_of_the_schema_is_stable_and_says_where_scalars_come_from() {
    let text = sdl();
    assert_eq!(text, sdl());
    for line in text.lines().filter(|line| line.starts_with("scalar ")) {
        assert!(line.contains("@specifiedBy"), "{line}");
    }
    for name in ["TaskInput", "AuctionTermsInput"] {
        assert!(!text.contains(&format!("input {name} ")), "{name} is flattened and not a type of its own");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_fifty_auctions_takes_four_statements() {
    let world = World::new().await;
    world.fund(&world.alice, 1_000).await;
    let (one, two) = (world.agent(&world.bob, "one").await, world.agent(&world.bob, "two").await);
    for number in 0..51 {
        let auction = world.auction(&world.alice, &format!("auction-{number}"), "OPEN").await;
        world.bid(&world.bob, &auction, &one, "6").await;
        world.bid(&world.bob, &auction, &two, "4").await;
    }
    let query = "{ auctions(first: 50) { pageInfo { hasNextPage endCursor } nodes { id bidCount requester { displayName } \
                 bestBid { price rank score { total } } } } }";
    let before = world.app.store().statements();
    let page = world.ask(&Caller::Anonymous, query, json!({})).await;
    assert!(world.app.store().statements() - before <= 4, "{}", world.app.store().statements() - before);
    let nodes = page["auctions"]["nodes"].as_array().unwrap();
    assert_eq!(nodes.len(), 50);
    assert_eq!(page["auctions"]["pageInfo"]["hasNextPage"], true);
    assert!(nodes.iter().all(|node| node["bidCount"] == 2 && node["bestBid"]["price"] == "4"), "{page}");
    assert!(nodes.iter().all(|node| node["bestBid"]["rank"] == 1 && node["requester"]["displayName"] == "alice"));

    // Bids of all auctions of a page are one statement, their counts are another.
    let before = world.app.store().statements();
    let query = "{ auctions(first: 20) { nodes { bids(first: 1, orderBy: {field: PRICE, direction: DESC}) { totalCount \
                 pageInfo { hasNextPage } nodes { price } } } } }";
    let page = world.ask(&Caller::Anonymous, query, json!({})).await;
    assert_eq!(world.app.store().statements() - before, 3);
    for node in page["auctions"]["nodes"].as_array().unwrap() {
        let wanted = json!({ "totalCount": 2, "pageInfo": { "hasNextPage": true }, "nodes": [{ "price": "6" }] });
        assert_eq!(node["bids"], wanted);
    }
}

#[tokio::test]
async fn pages_fit_together_in_both_directions_and_cursors_belong_to_their_order() {
    let world = World::new().await;
    for number in 0..7 {
        world.agent(&world.bob, &format!("agent-{number}")).await;
    }
    let query = "query($first: Int, $after: String, $last: Int, $before: String, $order: AgentOrder) { \
                 agents(first: $first, after: $after, last: $last, before: $before, orderBy: $order) { totalCount \
                 pageInfo { hasNextPage hasPreviousPage startCursor endCursor } nodes { name } } }";
    for order in [
        json!(null),
        json!({ "field": "PRICE", "direction": "ASC" }),
        json!({ "field": "SCORE", "direction": "DESC" }),
        json!({ "field": "CREATED_AT", "direction": "ASC" }),
    ] {
        let names = |page: &Json| -> Vec<String> {
            page["agents"]["nodes"].as_array().unwrap().iter().map(|node| node["name"].to_string()).collect()
        };
        let all = names(&world.ask(&world.bob, query, json!({ "first": 100, "order": order })).await);
        assert_eq!(all.len(), 7);
        let mut forward = Vec::new();
        let mut after = Json::Null;
        loop {
            let page = world.ask(&world.bob, query, json!({ "first": 3, "after": after, "order": order })).await;
            assert_eq!(page["agents"]["totalCount"], 7);
            assert_eq!(page["agents"]["pageInfo"]["hasPreviousPage"], !after.is_null());
            forward.extend(names(&page));
            after = page["agents"]["pageInfo"]["endCursor"].clone();
            if page["agents"]["pageInfo"]["hasNextPage"] == false {
                break;
            }
        }
        assert_eq!(forward, all);
        let mut backward = Vec::new();
        let mut before = Json::Null;
        loop {
            let page = world.ask(&world.bob, query, json!({ "last": 3, "before": before, "order": order })).await;
            backward.splice(0..0, names(&page));
            before = page["agents"]["pageInfo"]["startCursor"].clone();
            if page["agents"]["pageInfo"]["hasPreviousPage"] == false {
                break;
            }
        }
        assert_eq!(backward, all);
    }
    let page = world.ask(&world.bob, query, json!({ "first": 1 })).await;
    let cursor = &page["agents"]["pageInfo"]["endCursor"];
    for wrong in [
        json!({ "after": cursor, "order": { "field": "PRICE", "direction": "ASC" } }),
        json!({ "after": cursor, "order": { "field": "CREATED_AT", "direction": "ASC" } }),
        json!({ "after": "nonsense" }),
        json!({ "first": 0 }),
        json!({ "first": 101 }),
        json!({ "last": -1 }),
        json!({ "first": 1, "last": 1 }),
    ] {
        assert_eq!(world.code(&world.bob, query, wrong.clone()).await, "BAD_USER_INPUT", "{wrong}");
    }
}

#[tokio::test]
async fn what_is_private_looks_as_if_it_were_not_there() {
    let world = World::new().await;
    world.fund(&world.alice, 100).await;
    let auction = world.auction(&world.alice, "secret", "SEALED").await;
    let agent = world.agent(&world.bob, "bidder").await;
    let bid = world.bid(&world.bob, &auction, &agent, "4").await;
    assert_eq!(bid["bid"]["rank"], Json::Null, "a sealed rank would tell of the others");
    assert_eq!(bid["bid"]["price"], "4");
    let bid = bid["bid"]["id"].as_str().unwrap();

    let query = "query($id: ID!, $bid: ID!) { auction(id: $id) { bidCount reservePrice bestBid { id } bids { totalCount nodes { id } } \
                 task { id title input } requester { displayName email wallet { available } apiKeys { totalCount } \
                 sessions { totalCount } } } node(id: $bid) { id } }";
    let variables = json!({ "id": auction, "bid": bid });
    let stranger = world.ask(&Caller::Anonymous, query, variables.clone()).await;
    assert_eq!(
        stranger,
        json!({ "auction": { "bidCount": 1, "reservePrice": null, "bestBid": null, "bids": { "totalCount": 0, "nodes": [] },
            "task": null, "requester": { "displayName": "alice", "email": null, "wallet": null, "apiKeys": null,
            "sessions": null } }, "node": null })
    );
    let bidder = world.ask(&world.bob, query, variables.clone()).await;
    assert_eq!(bidder["auction"]["bids"], json!({ "totalCount": 1, "nodes": [{ "id": bid }] }));
    assert_eq!(bidder["node"]["id"], bid);
    assert_eq!(bidder["auction"]["task"], Json::Null);
    assert_eq!(bidder["auction"]["reservePrice"], Json::Null);
    let requester = world.ask(&world.alice, query, variables).await;
    assert_eq!(requester["auction"]["reservePrice"], "9");
    assert_eq!(requester["auction"]["bids"]["totalCount"], 0);
    assert_eq!(requester["auction"]["task"]["title"], "secret");
    assert_eq!(requester["auction"]["task"]["input"], json!({ "numbers": [1, 2] }));
    assert_eq!(requester["auction"]["requester"]["email"], "alice@example.com");
    assert_eq!(requester["auction"]["requester"]["wallet"]["available"], "90");
    let task = requester["auction"]["task"]["id"].as_str().unwrap();

    let query = "query($id: ID!) { task(id: $id) { id } taskResult(taskId: $id) { fuel } node(id: $id) { id } }";
    for stranger in [&Caller::Anonymous, &world.bob] {
        let seen = world.ask(stranger, query, json!({ "id": task })).await;
        assert_eq!(seen, json!({ "task": null, "taskResult": null, "node": null }));
    }
    world.clock.advance(Duration::from_hours(1));
    let query = "query($id: ID!) { auction(id: $id) { status bestBid { id rank } bids { nodes { id rank } } } }";
    let sealed = json!({ "auction": { "status": "OPEN", "bestBid": null, "bids": { "nodes": [] } } });
    assert_eq!(world.ask(&Caller::Anonymous, query, json!({ "id": auction })).await, sealed);
    let shown = json!({ "id": bid, "rank": 1 });
    let picks = json!({ "auction": { "status": "OPEN", "bestBid": shown, "bids": { "nodes": [shown] } } });
    assert_eq!(world.ask(&world.alice, query, json!({ "id": auction })).await, picks);
    for (caller, query, code) in [
        (&Caller::Anonymous, "{ me { id } }", "UNAUTHENTICATED"),
        (&Caller::Anonymous, "{ tasks { totalCount } }", "UNAUTHENTICATED"),
        (&world.bob, "{ users { totalCount } }", "FORBIDDEN"),
        (&world.bob, "{ ledgerAudit { ok } }", "FORBIDDEN"),
        (&world.bob, "{ task(id: \"nonsense\") { id } }", "BAD_USER_INPUT"),
        (&world.bob, "{ node(id: \"nonsense\") { id } }", "BAD_USER_INPUT"),
    ] {
        assert_eq!(world.code(caller, query, json!({})).await, code, "{query}");
    }
    let own = world.ask(&world.bob, "{ tasks { totalCount nodes { id } } transfers { totalCount } }", json!({})).await;
    assert_eq!(own, json!({ "tasks": { "totalCount": 0, "nodes": [] }, "transfers": { "totalCount": 0 } }));
    let all =
        world.ask(&world.admin, "{ tasks { totalCount } users { totalCount } ledgerAudit { ok } }", json!({})).await;
    assert_eq!(
        all,
        json!({ "tasks": { "totalCount": 1 }, "users": { "totalCount": 3 }, "ledgerAudit": { "ok": true } })
    );
}

#[tokio::test]
async fn an_intent_is_done_once_and_refusals_are_data() {
    let world = World::new().await;
    let query = "mutation($name: String!, $key: String!) { createApiKey(input: {name: $name, scopes: [READ, BIDS_WRITE], \
                 idempotencyKey: $key}) { apiKey { id name scopes } secret userErrors { code message field } } }";
    let first = world.ask(&world.bob, query, json!({ "name": "bot", "key": "k1" })).await;
    assert!(first["createApiKey"]["secret"].is_string(), "{first}");
    assert_eq!(first["createApiKey"]["apiKey"]["scopes"], json!(["READ", "BIDS_WRITE"]));
    let again = world.ask(&world.bob, query, json!({ "name": "bot", "key": "k1" })).await;
    assert_eq!(again["createApiKey"]["secret"], Json::Null);
    assert_eq!(again["createApiKey"]["apiKey"], first["createApiKey"]["apiKey"]);
    let other = world.ask(&world.bob, query, json!({ "name": "other", "key": "k1" })).await;
    assert_eq!(other["createApiKey"]["userErrors"][0]["code"], "IDEMPOTENCY_KEY_REUSED");
    assert_eq!(other["createApiKey"]["apiKey"], Json::Null);
    let keys = world.ask(&world.bob, "{ me { apiKeys { totalCount } } }", json!({})).await;
    assert_eq!(keys["me"]["apiKeys"]["totalCount"], 1);

    let execute = "mutation($budget: Credits!, $key: String!) { executeTask(input: {title: \"t\", capabilities: [\"sum\"], input: 1, \
                   budget: $budget, idempotencyKey: $key}) { task { id } userErrors { code field message } } }";
    let poor = world.ask(&world.bob, execute, json!({ "budget": "5", "key": "x1" })).await;
    assert_eq!(poor["executeTask"]["userErrors"][0]["code"], "INSUFFICIENT_FUNDS", "{poor}");
    let nothing = world.ask(&world.bob, execute, json!({ "budget": "0", "key": "x2" })).await;
    assert_eq!(nothing["executeTask"]["userErrors"][0]["code"], "INVALID_INPUT");
    assert_eq!(nothing["executeTask"]["userErrors"][0]["field"], json!(["input", "budget"]));
    assert_eq!(world.code(&world.bob, execute, json!({ "budget": "-5", "key": "x3" })).await, "BAD_USER_INPUT");
    assert_eq!(world.code(&Caller::Anonymous, execute, json!({ "budget": "5", "key": "x4" })).await, "UNAUTHENTICATED");
    let missing = "mutation($id: ID!) { pauseAgent(input: {agentId: $id}) { userErrors { code } } }";
    let missing = world.ask(&world.bob, missing, json!({ "id": "agent_00000000000000000000000000" })).await;
    assert_eq!(missing["pauseAgent"]["userErrors"][0]["code"], "NOT_FOUND");
}

#[tokio::test]
async fn a_stream_resumes_where_it_stopped_and_ends_with_its_auction() {
    let world = World::new().await;
    world.app.feed();
    world.fund(&world.alice, 100).await;
    let agent = world.agent(&world.bob, "bidder").await;
    let auction = world.auction(&world.alice, "live", "OPEN").await;
    let query = "subscription($id: ID!, $after: EventCursor) { auctionEvents(auctionId: $id, after: $after) { __typename id \
                 cursor kind occurredAt ... on BidEvent { bidCount price agent { name } } ... on AuctionEvent { amount } } }";
    let mut live = world.follow(&Caller::Anonymous, query, json!({ "id": auction }));
    // The stream subscribes when it is first polled.
    let (first, bid) = tokio::join!(next(&mut live), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        world.bid(&world.bob, &auction, &agent, "4").await
    });
    let first = first.unwrap();
    assert_eq!((&first["kind"], &first["price"]), (&json!("BID_SUBMITTED"), &json!("4")), "{bid}");
    assert_eq!(first["agent"]["name"], "bidder");
    let award = "mutation($id: ID!) { awardAuction(input: {auctionId: $id, idempotencyKey: \"a1\"}) { auction { status \
                 clearingPrice winningBid { rank status } } userErrors { code } } }";
    world.clock.advance(Duration::from_mins(1));
    let awarded = world.ask(&world.alice, award, json!({ "id": auction })).await;
    assert_eq!(awarded["awardAuction"]["auction"]["clearingPrice"], "4", "{awarded}");
    let last = next(&mut live).await.unwrap();
    assert_eq!(last["kind"], "AUCTION_AWARDED");
    assert_eq!(next(&mut live).await, None);

    let mut again = world.follow(&Caller::Anonymous, query, json!({ "id": auction, "after": first["cursor"] }));
    assert_eq!(next(&mut again).await.unwrap()["id"], last["id"]);
    assert_eq!(next(&mut again).await, None);
    for seen in [json!(null), last["cursor"].clone()] {
        let mut over = world.follow(&Caller::Anonymous, query, json!({ "id": auction, "after": seen }));
        assert_eq!(next(&mut over).await, None);
    }
    let log = "query($id: ID!) { events(filter: {auctionId: $id}, first: 2) { nodes { kind } pageInfo { hasNextPage endCursor } } }";
    let log = world.ask(&Caller::Anonymous, log, json!({ "id": auction })).await;
    assert_eq!(log["events"]["nodes"], json!([{ "kind": "AUCTION_OPENED" }, { "kind": "BID_SUBMITTED" }]), "{log}");
    assert_eq!(log["events"]["pageInfo"]["hasNextPage"], true);

    let task = world.ask(&world.alice, "{ tasks { nodes { id } } }", json!({})).await;
    let task = task["tasks"]["nodes"][0]["id"].clone();
    let query = "subscription($id: ID!) { taskEvents(taskId: $id) { kind } }";
    let stranger = Caller::User(crate::caller::Identity {
        user: UserId(uuid::Uuid::from_u128(1)),
        role: Role::User,
        session: None,
        key: None,
        expires_at: None,
    });
    let refused = world.follow(&stranger, query, json!({ "id": task })).next().await.unwrap();
    assert_eq!(refused.errors[0].message, "There is no such task.");
    let bad = "subscription { auctionEvents(auctionId: \"auc_00000000000000000000000000\", after: \"x\") { id } }";
    let refused = world.follow(&stranger, bad, json!({})).next().await.unwrap();
    assert_eq!(refused.errors[0].extensions.as_ref().unwrap().get("code"), Some(&Value::from("BAD_USER_INPUT")));
}

#[tokio::test]
async fn every_list_and_object_of_a_busy_market_resolves() {
    let world = World::new().await;
    world.fund(&world.alice, 100).await;
    let agent = world.agent(&world.bob, "bidder").await;
    let auction = world.auction(&world.alice, "work", "OPEN").await;
    world.bid(&world.bob, &auction, &agent, "4").await;
    let award = "mutation($id: ID!) { awardAuction(input: {auctionId: $id, idempotencyKey: \"a1\"}) { auction { id task { id \
                 channel { id deposit payer { id } agent { id } task { id } } winningBid { score { total } reputation } } } } }";
    let awarded = world.ask(&world.alice, award, json!({ "id": auction })).await;
    assert_eq!(awarded["awardAuction"]["auction"]["task"]["channel"]["deposit"], "4");
    let query = "query($agent: ID!, $channel: ID!) { \
        me { id wallet { available inEscrow } agents { totalCount nodes { earnings minPrice reputation { score factors { name points weight \
          value prior effectiveSamples } successRate } reputationEvents { totalCount } module { id } } } \
          sessions { nodes { createdAt } } } \
        agents(filter: {capabilities: [\"sum\"], minReputation: 10, maxPrice: \"9\", online: false, status: ACTIVE}) { nodes { id online } } \
        agent(id: $agent) { owner { displayName } } reputation(agentId: $agent) { score version asOf tasks agent { name } } \
        reputationEvents(agentId: $agent) { totalCount } leaderboard(capability: \"sum\") { rank score agent { name } } \
        tasks(filter: {side: WORKER, status: [AWARDED]}) { nodes { title input budget price timeout deadlineAt auction { id } } } \
        channels(filter: {side: WORKER}) { totalCount nodes { status deposit task { id } } } \
        transfers { nodes { kind amount debit { kind user { id } balance } credit { kind } task { id } channel { id } } } \
        events(filter: {kinds: [BID_SUBMITTED]}) { edges { cursor node { id } } } \
        economicHealth { booksInOrder creditsInCirculation creditsInWallets creditsInEscrow openAuctions openChannels overdue } \
        marketStats { users tasks { status count } volume averagePrice successRate } \
        serviceInfo { name version fee maxAmount } \
        nodes(ids: [$agent, $channel, \"user_00000000000000000000000000\"]) { __typename id } \
        simulateAuction(input: {budget: \"100\", kind: SECOND_PRICE, bids: [{price: \"60\", reputation: 80}, \
          {price: \"80\", reputation: \"92.00\"}, {price: \"99\", reputation: 1}], minReputation: 5}) { clearingPrice winner { index } \
          bids { index rank score { total price reputation } } } }";
    let channel = &awarded["awardAuction"]["auction"]["task"]["channel"]["id"];
    let seen = world.ask(&world.bob, query, json!({ "agent": agent, "channel": channel })).await;
    assert_eq!(seen["channels"]["totalCount"], 1);
    assert_eq!(seen["economicHealth"]["creditsInCirculation"], "100");
    assert_eq!(seen["economicHealth"]["creditsInEscrow"], "4");
    assert_eq!(seen["leaderboard"][0]["score"], "42.5");
    assert_eq!(seen["nodes"][1]["__typename"], "Channel");
    assert_eq!(seen["nodes"][2], Json::Null);
    assert_eq!(seen["tasks"]["nodes"][0]["price"], "4");
    let simulated = &seen["simulateAuction"];
    assert_eq!(simulated["winner"]["index"], 0);
    assert_eq!(simulated["bids"][0]["score"], json!({ "total": "64", "price": "16", "reputation": "48" }));
    assert_eq!(simulated["bids"][2]["rank"], Json::Null);
    let paid =
        world.ask(&world.alice, "{ transfers(filter: {kinds: [RELEASE]}) { nodes { amount } } }", json!({})).await;
    assert_eq!(paid["transfers"]["nodes"], json!([{ "amount": "6" }]));
}

#[tokio::test]
async fn no_credits_move_while_the_books_are_broken() {
    use sea_orm::ConnectionTrait;
    let world = World::new().await;
    world.fund(&world.alice, 100).await;
    let forge = "UPDATE accounts SET balance = balance + 1 WHERE kind = 'USER'";
    let forged = world.app.store().write(Caller::System, async |work| Ok(work.tx().execute_unprepared(forge).await?));
    assert_eq!(forged.await.unwrap().rows_affected(), 1);
    assert!(!world.app.audit().await.unwrap().ok());
    let execute = "mutation { executeTask(input: {title: \"t\", capabilities: [\"sum\"], input: 1, budget: \"5\", \
                   idempotencyKey: \"x\"}) { userErrors { code } } }";
    assert_eq!(world.code(&world.alice, execute, json!({})).await, "UNAVAILABLE");
    let health = world.ask(&world.alice, "{ economicHealth { booksInOrder } }", json!({})).await;
    assert_eq!(health["economicHealth"]["booksInOrder"], false);
    world.agent(&world.alice, "still").await;
}
