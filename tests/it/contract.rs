//! The schema as a contract: the file that clients generate code from, what it promises, and what a request may cost.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use async_graphql::parser::parse_schema;
use futures_util::future::join_all;
use serde_json::{Value, json};
use zerostate::graphql;

use crate::world::{PATIENCE, World, fresh_key};

const SCHEMA: &str = "query {
    __schema {
        types {
            kind name description specifiedByURL
            fields(includeDeprecated: true) {
                name description
                args(includeDeprecated: true) { name description ...T }
                ...F
            }
            inputFields { name description ...T }
            enumValues(includeDeprecated: true) { name description }
        }
        directives { name description args { name description } }
    }
}
fragment F on __Field { type { kind name ofType { kind name ofType { kind name ofType { kind name } } } } }
fragment T on __InputValue { type { kind name ofType { kind name ofType { kind name ofType { kind name } } } } }";

/// Parts of names that mean credits.
const MONEY: &[&str] = &[
    "price",
    "budget",
    "amount",
    "deposit",
    "paid",
    "cost",
    "balance",
    "available",
    "escrow",
    "earn",
    "volume",
    "credits",
];
/// What credits are written as. A `Percentage` is a share of them.
const MONEY_TYPES: &[&str] = &["Credits", "SignedCredits", "Percentage"];

/// The scalars of GraphQL itself.
const BUILT_IN: &[&str] = &["Int", "Float", "String", "Boolean", "ID"];

fn items<'a>(of: &'a Value, name: &str) -> &'a [Value] {
    of[name].as_array().map_or(&[], Vec::as_slice)
}

fn text<'a>(of: &'a Value, name: &str) -> &'a str {
    of[name].as_str().unwrap_or("")
}

/// The name of the type at the bottom.
fn named(mut of: &Value) -> &str {
    while !of["ofType"].is_null() {
        of = &of["ofType"];
    }
    of["name"].as_str().expect("four levels are enough")
}

#[test]
fn the_file_is_the_schema() {
    let stored = std::fs::read_to_string("schema.graphql").unwrap_or_default();
    let now = graphql::sdl();
    let different = stored.lines().zip(now.lines()).position(|(stored, now)| stored != now);
    assert!(
        stored.trim_end() == now.trim_end(),
        "schema.graphql is not the schema, from line {} on. Look at the difference, and if it is meant:\n\
         cargo run -- schema > schema.graphql",
        different.unwrap_or_else(|| stored.lines().count().min(now.lines().count())) + 1,
    );
    parse_schema(&stored).expect("schema.graphql can be read by others");
}

#[tokio::test]
async fn the_service_serves_the_file() {
    let world = World::start().await;
    let reply = world.http().get(world.url("/graphql/schema.graphql")).send().await.unwrap();
    assert_eq!(reply.status(), 200);
    assert_eq!(reply.text().await.unwrap().trim_end(), graphql::sdl().trim_end());
    world.check().await;
}

#[tokio::test]
async fn everything_is_described_and_money_is_exact() {
    let world = World::start().await;
    let schema = world.anonymous().query(SCHEMA, json!({})).await["__schema"].clone();
    let mut wrong = BTreeSet::new();
    let mut seen = 0;
    for of in items(&schema, "types") {
        let name = text(of, "name");
        if name.starts_with("__") || BUILT_IN.contains(&name) {
            continue;
        }
        let mut must_say = |place: String, it: &Value| {
            seen += 1;
            if text(it, "description").trim().is_empty() {
                wrong.insert(format!("{place} has no description"));
            }
        };
        must_say(name.to_owned(), of);
        for value in items(of, "enumValues") {
            must_say(format!("{name}.{}", text(value, "name")), value);
        }
        let mut values = Vec::new();
        for field in items(of, "fields") {
            let place = format!("{name}.{}", text(field, "name"));
            must_say(place.clone(), field);
            for argument in items(field, "args") {
                let place = format!("{place}({})", text(argument, "name"));
                must_say(place.clone(), argument);
                values.push((place, argument));
            }
            values.push((place, field));
        }
        for field in items(of, "inputFields") {
            let place = format!("{name}.{}", text(field, "name"));
            must_say(place.clone(), field);
            values.push((place, field));
        }
        for (place, value) in values {
            let (name, of) = (text(value, "name").to_lowercase(), named(&value["type"]));
            if of == "Float" {
                wrong.insert(format!("{place} is a Float"));
            }
            let is_money = MONEY.iter().any(|word| name.contains(word));
            let is_number = ["Int", "Float", "BigInt", "String"].contains(&of);
            if is_money && is_number && !MONEY_TYPES.contains(&of) {
                wrong.insert(format!("{place} is money written as {of}"));
            }
        }
        if of["kind"] == "SCALAR" && of["specifiedByURL"].is_null() {
            wrong.insert(format!("{name} does not say by what it is specified"));
        }
    }
    for directive in items(&schema, "directives") {
        // It describes its arguments too: the text of a schema leaves out what they say of themselves.
        let foreign = ["skip", "include", "deprecated", "specifiedBy", "oneOf"].contains(&text(directive, "name"));
        if !foreign && text(directive, "description").trim().is_empty() {
            wrong.insert(format!("@{} has no description", text(directive, "name")));
        }
    }
    assert!(seen > 500, "{seen}");
    assert!(wrong.is_empty(), "{wrong:#?}");
    world.check().await;
}

/// Mutations take one input, answer one entity and their user errors, and take a key when they create something or move money.
#[tokio::test]
async fn mutations_have_one_shape() {
    /// Mutations without a key, and why a retry of each does no harm.
    const WITHOUT_KEY: &[(&str, &str)] = &[
        ("registerUser", "there is no user yet to keep an answer for; the address is good for one, who then signs in"),
        ("login", "moves nothing; a second session is another sign-in"),
        ("refreshSession", "the token is the key: shown again within the grace it gives the same successor"),
        ("logout", "ends what has ended"),
        ("updateProfile", "sets what is set"),
        ("changePassword", "a retry with the old password is refused, and the new one signs in"),
        ("revokeApiKey", "ends what has ended"),
        ("updateAgent", "sets what is set, and names the version that it changes"),
        ("pauseAgent", "sets what is set"),
        ("resumeAgent", "sets what is set"),
        ("retireAgent", "sets what is set"),
        ("heartbeat", "gives the lease the same end, or a later one"),
    ];
    let world = World::start().await;
    let schema = world.anonymous().query(SCHEMA, json!({})).await["__schema"].clone();
    let types = items(&schema, "types");
    let find = |name: &str| types.iter().find(|of| of["name"] == name).unwrap_or_else(|| panic!("{name}"));
    for mutation in items(find("Mutation"), "fields") {
        let name = text(mutation, "name");
        let mut capital = name.to_owned();
        capital[..1].make_ascii_uppercase();
        let payload = find(named(&mutation["type"]));
        assert_eq!(text(payload, "name"), format!("{capital}Payload"));
        assert!(items(payload, "fields").iter().any(|field| field["name"] == "userErrors"), "{name}");
        let arguments = items(mutation, "args");
        let Some(input) = arguments.first() else {
            assert_eq!(name, "logout", "{name} takes nothing");
            continue;
        };
        assert_eq!((arguments.len(), text(input, "name")), (1, "input"), "{name}");
        let input = find(named(&input["type"]));
        assert_eq!(text(input, "name"), format!("{capital}Input"));
        let key = items(input, "inputFields").iter().find(|field| field["name"] == "idempotencyKey");
        let without = WITHOUT_KEY.iter().find(|(known, _)| *known == name);
        assert_eq!(key.is_none(), without.is_some(), "{name} and its key: {without:?}");
        if let Some(key) = key {
            assert_eq!(
                (&key["type"]["kind"], named(key.get("type").unwrap())),
                (&json!("NON_NULL"), "String"),
                "{name}"
            );
            assert!(text(key, "description").contains("the same value when you retry the same intent"), "{name}");
        }
    }
    world.check().await;
}

#[tokio::test]
async fn what_costs_too_much_is_refused_before_it_runs() {
    let world = World::start().await;
    let page = "auctions(first: 100) { nodes { id status bidCount requester { displayName } bestBid { price agent { name } } } }";
    let lists = "auctions(first: 100) { nodes { bids(first: 100) { nodes { agent { owner { agents(first: 100) { nodes { id } } } } } } } }";
    let in_variables = "query($n: Int) { agents(first: $n) { nodes { reputationEvents(first: $n) { nodes { agent { owner { agents(first: $n) { nodes { id } } } } } } } } }";
    let from_the_end = lists.replace("first", "last");
    let deep = |levels: usize| {
        let (open, close) = ("owner { agents { nodes { ", "} } } ");
        format!("{{ agents {{ nodes {{ {}id {} }} }} }}", open.repeat(levels), close.repeat(levels))
    };
    for (what, document, variables, refused) in [
        ("a usual page", format!("{{ {page} }}"), json!({}), false),
        ("lists in lists", format!("{{ {lists} }}"), json!({}), true),
        ("lists from the end", format!("{{ {from_the_end} }}"), json!({}), true),
        ("sizes in variables", in_variables.to_owned(), json!({ "n": 100 }), true),
        ("small sizes in variables", in_variables.to_owned(), json!({ "n": 3 }), false),
        ("sizes left out", in_variables.to_owned(), json!({}), false),
        ("a shallow chain", deep(1), json!({}), false),
        ("a deep chain", deep(6), json!({}), true),
        (
            "many pages side by side",
            format!("{{ {} }}", (0..28).map(|n| format!("a{n}: {page}")).collect::<Vec<_>>().join(" ")),
            json!({}),
            true,
        ),
        ("too many at once", "{ auctions(first: 101) { nodes { id } } }".to_owned(), json!({}), true),
    ] {
        let before = world.app.store().statements();
        let reply = world.anonymous().raw(&document, &variables).await;
        if refused {
            let code = reply.code();
            let expected = if what == "too many at once" { "BAD_USER_INPUT" } else { "QUERY_LIMIT_EXCEEDED" };
            assert_eq!(code, expected, "{what}");
            // The feed reads its log now and then; a page would be read by more than that.
            assert!(world.app.store().statements() - before <= 2, "{what} reached the database");
        } else {
            assert!(reply.json()["errors"].is_null(), "{what}: {}", reply.text);
        }
    }
    world.check().await;
}

#[tokio::test]
async fn a_page_of_fifty_auctions_takes_four_statements() {
    let world = World::start().await;
    let owner = world.user("owner").await;
    let agents = [
        world.agent(&owner, "one", "EXTERNAL", "page", "1").await,
        world.agent(&owner, "two", "EXTERNAL", "page", "1").await,
    ];
    for number in 0..5 {
        let payer = world.user(&format!("payer-{number}")).await;
        world.credit(&payer, "100").await;
        join_all((0..10).map(async |_| {
            let input = json!({
                "title": "One of many", "capabilities": ["page"], "input": 1, "budget": "5", "closesIn": "PT60S",
                "visibility": "OPEN", "idempotencyKey": fresh_key(),
            });
            let create = "mutation($input: CreateAuctionInput!) { createAuction(input: $input) { auction { id } userErrors { code } } }";
            let made = payer.done("createAuction", create, json!({ "input": input })).await;
            for (agent, price) in agents.iter().zip(["3", "2"]) {
                let bid = "mutation($input: SubmitBidInput!) { submitBid(input: $input) { bid { id } userErrors { code } } }";
                let input = json!({
                    "auctionId": made["auction"]["id"], "agentId": agent.to_string(), "price": price,
                    "idempotencyKey": fresh_key(),
                });
                owner.done("submitBid", bid, json!({ "input": input })).await;
            }
        }))
        .await;
    }
    let page = "{ auctions(first: 50) { nodes { id bidCount requester { displayName } bestBid { price } } } }";
    let mut least = u64::MAX;
    let since = Instant::now();
    while least > 4 && since.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let before = world.app.store().statements();
        let found = world.anonymous().query(page, json!({})).await;
        // The feed reads its log meanwhile, now and then; so this is tried until it does not.
        least = least.min(world.app.store().statements() - before);
        let nodes = found["auctions"]["nodes"].as_array().unwrap();
        assert_eq!(nodes.len(), 50);
        assert!(nodes.iter().all(|node| node["bidCount"] == 2 && node["bestBid"]["price"] == "2"), "{nodes:#?}");
        assert!(nodes.iter().all(|node| node["requester"]["displayName"].as_str().unwrap().starts_with("payer-")));
    }
    assert!(least <= 4, "a page took {least} statements");
    world.check().await;
}
