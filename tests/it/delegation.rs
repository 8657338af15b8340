//! Delegations: goals that several agents reach together.

use std::{collections::BTreeMap, time::Duration};

use entity::{delegation, delegation_step, delegation_task, id::DelegationId, task, transfer};
use futures_util::future::join_all;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};
use serde_json::{Value, json};
use zerostate::{app::App, caller::Caller, delegation as verbs};

use crate::world::{Client, World, answering, crashing, echoing, fresh_key, on_postgres, sample};

const LOOK: &str = "query($id: ID!) { delegation(id: $id) {
    id goal capabilities input priority budget planningBudget spent returned status progress source plan output failureCode
    failureMessage agentsCount finishedAt plannedAt parent { id }
    steps {
        id name title kind capabilities dependsOn budget status attempts onFailure retries replicas agree output failureCode
        failureMessage
        task { id } cost { paid budget held returned }
        tasks { id status price paid failureCode priority agent { name owner { id } } delegation { id } }
        delegation { id status output }
    }
    costTree { ...Node children { ...Node children { ...Node children { ...Node children { ...Node children { ...Node } } } } } }
} }
fragment Node on CostNode { kind name budget held paid fee returned task { id } }";

async fn market(world: &World) -> (Client, Client) {
    let (ada, bob) = (world.user("ada").await, world.user("bob").await);
    world.credit(&ada, "100").await;
    (ada, bob)
}

/// Delegates: with a budget of ten, but for `over`. Answers the id.
async fn delegate(client: &Client, over: Value) -> String {
    let done = client.call("delegateTask", "delegation { id }", order(over)).await;
    done["delegation"]["id"].as_str().unwrap().to_owned()
}

async fn refused(client: &Client, over: Value) -> String {
    client.refusal("delegateTask", order(over)).await
}

/// One object over another.
fn merged(mut base: Value, over: Value) -> Value {
    let (Value::Object(fields), Value::Object(over)) = (&mut base, over) else { panic!("two objects") };
    fields.extend(over);
    base
}

fn order(over: Value) -> Value {
    merged(json!({ "goal": "A goal", "budget": "10" }), over)
}

fn step(name: &str, capability: &str, more: Value) -> Value {
    merged(json!({ "name": name, "capabilities": [capability] }), more)
}

fn plan(steps: Vec<Value>) -> Value {
    let mut given = json!({ "plan": {} });
    given["plan"]["steps"] = Value::Array(steps);
    given
}

async fn look(client: &Client, id: &str) -> Value {
    client.query(LOOK, json!({ "id": id })).await["delegation"].take()
}

fn of<'a>(seen: &'a Value, step: &str) -> &'a Value {
    let steps = seen["steps"].as_array().unwrap();
    steps.iter().find(|each| each["name"] == step).unwrap_or_else(|| panic!("no step {step}: {seen:#}"))
}

fn states(seen: &Value) -> BTreeMap<&str, &str> {
    let steps = seen["steps"].as_array().unwrap();
    steps.iter().map(|each| (each["name"].as_str().unwrap(), each["status"].as_str().unwrap())).collect()
}

fn micros(text: &Value) -> i64 {
    text.as_str().unwrap().parse::<entity::money::Amount>().unwrap().micros()
}

/// What is paid, held and came back is the budget at every node, and parts are not paid more than the whole.
fn check_costs(node: &Value) {
    let sum = micros(&node["held"]) + micros(&node["paid"]) + micros(&node["returned"]);
    assert_eq!(sum, micros(&node["budget"]), "{node:#}");
    let parts = node["children"].as_array().filter(|parts| !parts.is_empty());
    if let Some(parts) = parts {
        for field in ["paid", "fee"] {
            let sum: i64 = parts.iter().map(|part| micros(&part[field])).sum();
            assert_eq!(sum, micros(&node[field]), "{field} of {node:#}");
        }
        parts.iter().for_each(check_costs);
    }
}

/// What the tasks of a delegation and of those below it were paid, by the books.
async fn transferred(world: &World, root: &str) -> i64 {
    let db = world.app.store().read();
    let mut all: Vec<DelegationId> = vec![root.parse().unwrap()];
    let mut at = 0;
    while at < all.len() {
        let below = delegation::Entity::find().filter(delegation::Column::ParentId.eq(all[at])).all(db).await.unwrap();
        all.extend(below.into_iter().map(|row| row.id));
        at += 1;
    }
    let tasks = task::Entity::find().filter(task::Column::DelegationId.is_in(all)).all(db).await.unwrap();
    let paid = transfer::Entity::find()
        .filter(transfer::Column::TaskId.is_in(tasks.into_iter().map(|task| task.id)))
        .filter(transfer::Column::Kind.is_in([transfer::Kind::Payout, transfer::Kind::Fee]))
        .all(db)
        .await
        .unwrap();
    paid.into_iter().map(|transfer| transfer.amount.micros()).sum()
}

/// A delegation that is over: the costs sum, the books say the same, and the wallet has the rest.
async fn check_end(world: &World, client: &Client, id: &str, had: &str) -> Value {
    let seen = look(client, id).await;
    assert!(seen["finishedAt"].is_string(), "{seen:#}");
    check_costs(&seen["costTree"]);
    assert_eq!(micros(&seen["spent"]), transferred(world, id).await, "{seen:#}");
    assert_eq!(seen["spent"], seen["costTree"]["paid"]);
    assert_eq!(micros(&seen["spent"]) + micros(&seen["returned"]), micros(&seen["budget"]));
    let (available, escrow) = client.wallet().await;
    let had: entity::money::Amount = had.parse().unwrap();
    assert_eq!(micros(&json!(available)), had.micros() - micros(&seen["spent"]));
    assert_eq!(escrow, "0");
    seen
}

fn readme() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap()
}

/// A diamond of six steps over four capabilities.
pub fn diamond() -> Value {
    let text = json!({ "$ref": "squeeze#/text" });
    json!({
        "steps": [
            step("squeeze", "text.transform", json!({
                "input": { "text": { "$ref": "input#/text" }, "operation": "squeeze" }, "share": 1000,
            })),
            step("count", "text.stats", json!({ "input": text, "share": 2000 })),
            step("keywords", "text.keywords", json!({
                "input": { "text": text, "limit": 3 }, "share": 3000, "onFailure": "RETRY", "retries": 2,
            })),
            step("table", "csv.summary", json!({ "input": { "$ref": "input#/csv" }, "share": 1500, "onFailure": "SKIP" })),
            step("check", "json.validate", json!({
                "title": "Is it what was asked for?",
                "input": {
                    "schema": { "$literal": { "type": "object", "required": ["words", "keywords"],
                        "properties": { "words": { "type": "integer" }, "keywords": { "type": "array" } } } },
                    "value": {
                        "words": { "$ref": "count#/words" },
                        "keywords": { "$ref": "keywords#/keywords" },
                        "rows": { "$ref": "table#/rows", "default": null },
                    },
                },
                "share": 1500,
            })),
            step("slug", "text.transform", json!({
                "input": { "text": { "$ref": "goal" }, "operation": "reverse" }, "dependsOn": ["check"], "share": 1000,
            })),
        ],
        "output": {
            "words": { "$ref": "count#/words" },
            "keywords": { "$ref": "keywords#/keywords" },
            "rows": { "$ref": "table#/rows", "default": "unknown" },
            "valid": { "$ref": "check#/valid" },
            "backwards": { "$ref": "slug#/text" },
        },
    })
}

/// The agents that a diamond takes: one of them breaks and wins first, another one breaks and is alone.
async fn agents_of_the_diamond(world: &World, owner: &Client) {
    for (name, capability, price) in [
        ("text-transform-lite", "text.transform", "0.2"),
        ("text-stats-lite", "text.stats", "0.3"),
        ("text-keywords-lite", "text.keywords", "0.6"),
        ("json-validate-lite", "json.validate", "0.4"),
    ] {
        world.hosted_agent(owner, name, capability, price, sample(name)).await;
    }
    world.hosted_agent(owner, "broken", "text.keywords", "0.1", crashing()).await;
    world.hosted_agent(owner, "torn", "csv.summary", "0.1", crashing()).await;
}

#[tokio::test]
async fn a_diamond_of_six_steps_over_a_real_file_ends_with_the_right_output_and_the_right_bill() {
    let world = World::with(|config| config.terms.fee_bps = 250).await;
    let (ada, bob) = market(&world).await;
    agents_of_the_diamond(&world, &bob).await;
    let text = readme();
    let input = json!({ "text": text, "csv": "a,b\n1,2" });
    let order = json!({ "goal": "Read it", "plan": diamond(), "input": input, "priority": "HIGH", "capabilities": ["text.stats"] });
    let id = delegate(&ada, order).await;
    // All of it is set aside at once.
    assert_eq!(ada.wallet().await, ("90".to_owned(), "10".to_owned()));
    let seen = look(&ada, &id).await;
    assert_eq!((&seen["status"], &seen["progress"], &seen["source"]), (&json!("RUNNING"), &json!(0), &json!("CLIENT")));
    check_costs(&seen["costTree"]);
    world.settle().await;

    let seen = check_end(&world, &ada, &id, "100").await;
    assert_eq!(
        (&seen["status"], &seen["progress"], &seen["failureCode"]),
        (&json!("COMPLETED"), &json!(100), &json!(null))
    );
    let expected = BTreeMap::from([
        ("squeeze", "COMPLETED"),
        ("count", "COMPLETED"),
        ("keywords", "COMPLETED"),
        ("table", "SKIPPED"),
        ("check", "COMPLETED"),
        ("slug", "COMPLETED"),
    ]);
    assert_eq!(states(&seen), expected);
    // The one that failed was tried again by another agent, and only the second one was paid.
    let keywords = of(&seen, "keywords");
    assert_eq!(keywords["attempts"], 2);
    let tries: Vec<_> =
        keywords["tasks"].as_array().unwrap().iter().map(|it| (&it["agent"]["name"], &it["paid"])).collect();
    assert_eq!(tries, [(&json!("broken"), &json!("0")), (&json!("text-keywords-lite"), &json!("0.6"))]);
    assert_eq!((&of(&seen, "table")["failureCode"], &of(&seen, "table")["attempts"]), (&json!("TRAP"), &json!(1)));
    assert_eq!(of(&seen, "check")["dependsOn"], json!(["count", "keywords", "table"]));
    assert_eq!(of(&seen, "count")["tasks"][0]["priority"], "HIGH");
    assert_eq!(of(&seen, "count")["tasks"][0]["delegation"]["id"], id);
    assert_eq!(seen["agentsCount"], 6);
    assert_eq!(seen["spent"], "1.7");
    assert_eq!(seen["costTree"]["fee"], "0.0425");

    // The same agents give the same to somebody who asks them one by one.
    let squeezed = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let alone = ada.execute(json!({ "capabilities": ["text.stats"], "input": squeezed })).await;
    let words = ada.execute(json!({
        "capabilities": ["text.keywords"], "input": { "text": squeezed, "limit": 3 }, "maxPrice": "0.6", "priceWeight": 0,
    }))
    .await;
    world.settle().await;
    let (count, words) = (ada.task(&alone).await, ada.task(&words).await);
    assert_eq!(
        seen["output"],
        json!({
            "words": count["result"]["output"]["words"],
            "keywords": words["result"]["output"]["keywords"],
            "rows": "unknown",
            "valid": true,
            "backwards": "ti daeR",
        })
    );
    world.check().await;
}

#[tokio::test]
async fn capabilities_in_order_become_a_chain() {
    let world = World::start().await;
    let (ada, bob) = market(&world).await;
    world.hosted_agent(&bob, "transform", "text.transform", "1", sample("text-transform-lite")).await;
    world.hosted_agent(&bob, "stats", "text.stats", "2", sample("text-stats-lite")).await;
    let input = json!({ "text": "  one   two  ", "operation": "squeeze" });
    let id = delegate(&ada, json!({ "capabilities": ["text.transform", "text.stats"], "input": input })).await;
    world.settle().await;
    let seen = check_end(&world, &ada, &id, "100").await;
    assert_eq!(
        (&seen["status"], &seen["source"], &seen["spent"]),
        (&json!("COMPLETED"), &json!("CAPABILITIES"), &json!("3"))
    );
    assert_eq!(seen["output"], json!({ "characters": 7, "bytes": 7, "words": 2, "lines": 1 }));
    assert_eq!(of(&seen, "step-2")["dependsOn"], json!(["step-1"]));
    world.check().await;
}

#[tokio::test]
async fn an_agent_makes_the_plan_and_is_paid_for_it() {
    let world = World::start().await;
    let (ada, bob) = market(&world).await;
    world.hosted_agent(&bob, "echo", "echo", "1", echoing()).await;
    let made = json!({ "steps": [
        step("a", "echo", json!({ "input": { "$ref": "input#/x" } })),
        step("b", "echo", json!({ "input": [{ "$ref": "a" }, { "$ref": "goal" }] })),
    ] });
    world.hosted_agent(&bob, "planner", "plan", "0.5", answering(&made.to_string())).await;
    let id = delegate(&ada, json!({ "capabilities": ["echo"], "planningBudget": "1", "input": { "x": 7 } })).await;
    let seen = look(&ada, &id).await;
    assert_eq!(
        (&seen["status"], &seen["plan"], &seen["planningBudget"]),
        (&json!("PLANNING"), &json!(null), &json!("1"))
    );
    world.settle().await;
    let seen = check_end(&world, &ada, &id, "100").await;
    assert_eq!(
        (&seen["status"], &seen["source"], &seen["spent"]),
        (&json!("COMPLETED"), &json!("AGENT"), &json!("2.5"))
    );
    assert_eq!((&seen["plan"], &seen["output"]), (&made, &json!([7, "A goal"])));
    assert_eq!(of(&seen, "plan")["kind"], "PLAN");
    // What the plan was made from, and what is left for its steps.
    let task = ada.task(of(&seen, "plan")["task"]["id"].as_str().unwrap()).await;
    let brief = json!({ "goal": "A goal", "capabilities": ["echo"], "input": { "x": 7 }, "budget": "9",
        "limits": { "steps": 64, "depth": 3 } });
    assert_eq!(task["input"], brief);
    assert_eq!(of(&seen, "a")["budget"], "4.5");
    world.check().await;
}

#[tokio::test]
async fn a_plan_that_cannot_be_carried_out_is_not_paid() {
    let world = World::start().await;
    let (ada, bob) = market(&world).await;
    world.hosted_agent(&bob, "echo", "echo", "1", echoing()).await;
    let many: Vec<Value> = (0..200).map(|place| step(&format!("s{place}"), "echo", json!({}))).collect();
    for (number, (made, why)) in [
        ("3".to_owned(), "not a plan"),
        (r#"{"steps":[]}"#.to_owned(), "NO_STEPS"),
        (json!({ "steps": [step("a", "echo", json!({ "dependsOn": ["a"] }))] }).to_string(), "PLAN_HAS_CYCLE"),
        (json!({ "steps": [step("a", "sing", json!({}))] }).to_string(), "UNKNOWN_CAPABILITY"),
        (json!({ "steps": [step("a", "echo", json!({ "timeout": "P7D" }))] }).to_string(), "INVALID_INPUT"),
        (json!({ "steps": many }).to_string(), "TOO_MANY_STEPS"),
    ]
    .into_iter()
    .enumerate()
    {
        let planner = world.hosted_agent(&bob, &format!("planner-{number}"), "plan", "0.5", answering(&made)).await;
        let id = delegate(&ada, json!({ "planningBudget": "1" })).await;
        world.settle().await;
        let seen = check_end(&world, &ada, &id, "100").await;
        assert_eq!((&seen["status"], &seen["failureCode"]), (&json!("FAILED"), &json!("OUTPUT_NOT_A_PLAN")), "{made}");
        assert!(seen["failureMessage"].as_str().unwrap().contains(why), "{why}: {seen:#}");
        assert_eq!(bob.earned(planner).await, "0");
        let tries = of(&seen, "plan")["tasks"].as_array().unwrap().len();
        assert_eq!(tries, 1);
        bob.call("retireAgent", "agent { id }", json!({ "agentId": planner.to_string() })).await;
    }
    assert_eq!(refused(&ada, json!({ "planningBudget": "1" })).await, "UNKNOWN_CAPABILITY");
    world.check().await;
}

#[tokio::test]
async fn groups_are_delegations_of_their_own_three_levels_deep() {
    let world = World::start().await;
    let (ada, bob) = market(&world).await;
    world.hosted_agent(&bob, "echo", "echo", "1", echoing()).await;
    let echo = |name: &str, input: Value| step(name, "echo", json!({ "input": input }));
    let innermost = json!({ "steps": [echo("c", json!({ "c": { "$ref": "input" } }))] });
    let middle = json!({ "steps": [
        echo("b", json!({ "b": { "$ref": "input" } })),
        { "name": "deep", "plan": innermost, "input": { "$ref": "b" } },
    ], "output": { "$ref": "deep" } });
    let id = delegate(
        &ada,
        json!({ "input": 1, "plan": { "steps": [
        echo("a", json!({ "a": { "$ref": "input" } })),
        { "name": "inside", "plan": middle, "dependsOn": ["a"] },
        echo("z", json!({ "z": { "$ref": "inside#/c" } })),
    ] } }),
    )
    .await;
    world.settle().await;
    let seen = check_end(&world, &ada, &id, "100").await;
    assert_eq!((&seen["status"], &seen["spent"], &seen["progress"]), (&json!("COMPLETED"), &json!("4"), &json!(100)));
    assert_eq!(seen["output"], json!({ "z": { "b": { "a": 1 } } }));
    let inside = of(&seen, "inside")["delegation"]["id"].as_str().unwrap().to_owned();
    let below = look(&ada, &inside).await;
    assert_eq!((&below["parent"]["id"], &below["output"]), (&json!(id), &json!({ "c": { "b": { "a": 1 } } })));
    assert_eq!((&below["budget"], &below["spent"]), (&json!("3.333333"), &json!("2")));
    let deep = look(&ada, of(&below, "deep")["delegation"]["id"].as_str().unwrap()).await;
    assert_eq!((&deep["parent"]["id"], &deep["spent"]), (&json!(inside), &json!("1")));
    let count = async |group: Value| {
        let document =
            "query($filter: DelegationFilter) { delegations(filter: $filter) { totalCount nodes { progress } } }";
        ada.query(document, json!({ "filter": { "group": group } })).await["delegations"]["totalCount"].clone()
    };
    assert_eq!(
        (count(json!(null)).await, count(json!(true)).await, count(json!(false)).await),
        (json!(3), json!(2), json!(1))
    );
    world.check().await;
}

#[tokio::test]
async fn a_group_that_fails_is_tried_again_with_what_is_left() {
    let world = World::start().await;
    let (ada, bob) = market(&world).await;
    world.hosted_agent(&bob, "echo", "echo", "1", echoing()).await;
    world.hosted_agent(&bob, "broken", "break", "1", crashing()).await;
    let inner =
        json!({ "steps": [step("fine", "echo", json!({})), step("bad", "break", json!({ "dependsOn": ["fine"] }))] });
    let group = json!({ "name": "group", "plan": inner, "onFailure": "RETRY", "retries": 2 });
    let id = delegate(&ada, json!({ "plan": { "steps": [group] }, "budget": "4" })).await;
    world.settle().await;
    let seen = check_end(&world, &ada, &id, "100").await;
    assert_eq!((&seen["status"], &seen["failureCode"]), (&json!("FAILED"), &json!("TRAP")));
    // 4, then 3, then 2 credits: each time the first step is paid and the second one is not. With the last, a step has 1.
    assert_eq!((&of(&seen, "group")["attempts"], &seen["spent"]), (&json!(3), &json!("3")));
    assert_eq!(seen["costTree"]["children"][0]["children"].as_array().unwrap().len(), 3);
    world.check().await;
}

/// A market on which three owners can do the same; the third one's agent answers something else.
async fn three_of_a_kind(world: &World, last: &str) -> (Client, Vec<(Client, entity::id::AgentId)>) {
    let ada = world.user("ada").await;
    world.credit(&ada, "100").await;
    let mut agents = Vec::new();
    for (number, output) in ["{\"a\":1,\"b\":[2]}", "{ \"b\": [2.0], \"a\": 1 }", last].into_iter().enumerate() {
        let owner = world.user(&format!("owner-{number}")).await;
        let price = (number + 1).to_string();
        let agent = world.hosted_agent(&owner, "agent", "same", &price, answering(output)).await;
        agents.push((owner, agent));
    }
    (ada, agents)
}

#[tokio::test]
async fn two_of_three_agree_and_the_third_is_not_paid() {
    let world = World::start().await;
    let (ada, agents) = three_of_a_kind(&world, "3").await;
    let before = world.score(agents[2].1).await;
    // The dissenter comes first.
    for (owner, agent, price) in [(&agents[2].0, agents[2].1, "0.5")] {
        owner.call("updateAgent", "agent { id }", json!({ "agentId": agent.to_string(), "price": price })).await;
    }
    let id = delegate(&ada, plan(vec![step("same", "same", json!({ "replicas": 3, "agree": 2 }))])).await;
    world.settle().await;
    let seen = check_end(&world, &ada, &id, "100").await;
    assert_eq!((&seen["status"], &seen["output"]), (&json!("COMPLETED"), &json!({ "a": 1, "b": [2] })));
    let tasks = of(&seen, "same")["tasks"].as_array().unwrap();
    let ends: Vec<_> = tasks
        .iter()
        .map(|it| (it["status"].as_str().unwrap(), it["paid"].as_str().unwrap(), it["failureCode"].as_str()))
        .collect();
    assert_eq!(ends, [("REFUNDED", "0", Some("DISAGREES")), ("COMPLETED", "1", None), ("COMPLETED", "2", None)]);
    assert_eq!(seen["spent"], "3");
    assert_eq!(agents[2].0.earned(agents[2].1).await, "0");
    let after = world.score(agents[2].1).await;
    assert!(after.parse::<f64>().unwrap() < before.parse::<f64>().unwrap(), "{before} {after}");
    assert!(world.score(agents[0].1).await.parse::<f64>().unwrap() > 42.5);
    world.check().await;
}

#[tokio::test]
async fn where_nobody_agrees_nobody_is_paid_and_nobody_is_blamed() {
    let world = World::start().await;
    let ada = world.user("ada").await;
    world.credit(&ada, "100").await;
    let mut agents = Vec::new();
    for number in 1..4 {
        let owner = world.user(&format!("owner-{number}")).await;
        agents.push(world.hosted_agent(&owner, "agent", "same", "1", answering(&number.to_string())).await);
    }
    let id = delegate(&ada, plan(vec![step("same", "same", json!({ "replicas": 3 }))])).await;
    world.settle().await;
    let seen = check_end(&world, &ada, &id, "100").await;
    assert_eq!(
        (&seen["status"], &seen["failureCode"], &seen["spent"]),
        (&json!("FAILED"), &json!("NO_AGREEMENT"), &json!("0"))
    );
    for agent in agents {
        assert_eq!(world.score(agent).await, "42.5");
    }
    // Two owners cannot give three answers, but they can agree. The auctions that take time come one after the other.
    let lone = world.user("lone").await;
    for name in ["one", "two"] {
        world.hosted_agent(&lone, name, "alone", "1", answering("1")).await;
    }
    let alone = json!({ "replicas": 3, "agree": 2, "closesIn": "PT10S" });
    let id = delegate(&ada, plan(vec![step("same", "alone", alone.clone())])).await;
    world.settle().await;
    assert_eq!(of(&look(&ada, &id).await, "same")["tasks"].as_array().unwrap().len(), 1);
    for _ in 0..4 {
        world.pass(Duration::from_secs(10)).await;
    }
    // One owner's two agents are one voice.
    let seen = check_end(&world, &ada, &id, "100").await;
    assert_eq!((&seen["status"], &seen["failureCode"]), (&json!("FAILED"), &json!("NO_AGREEMENT")));
    let another = world.user("another").await;
    world.hosted_agent(&another, "third", "alone", "2", answering("1.0")).await;
    let id = delegate(&ada, plan(vec![step("same", "alone", alone)])).await;
    for _ in 0..4 {
        world.pass(Duration::from_secs(10)).await;
    }
    let seen = check_end(&world, &ada, &id, "100").await;
    assert_eq!((&seen["status"], &seen["spent"]), (&json!("COMPLETED"), &json!("3")));
    world.check().await;
}

#[tokio::test]
async fn a_result_that_waits_for_others_can_neither_be_accepted_nor_disputed() {
    let world = World::start().await;
    let (ada, _) = three_of_a_kind(&world, "3").await;
    let id =
        delegate(&ada, plan(vec![step("same", "same", json!({ "replicas": 3, "agree": 3, "closesIn": "PT10S" }))]))
            .await;
    world.settle().await;
    world.pass(Duration::from_secs(10)).await;
    let task = of(&look(&ada, &id).await, "same")["tasks"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(ada.task(&task).await["status"], "SUBMITTED");
    assert_eq!(ada.refusal("acceptResult", json!({ "taskId": task })).await, "TASK_NOT_SUBMITTED");
    let quarrel = json!({ "taskId": task, "reason": "no" });
    assert_eq!(ada.refusal("rejectResult", quarrel).await, "TASK_NOT_SUBMITTED");
    // Three must agree and one cannot be had: what was given is given back.
    world.pass(Duration::from_secs(10)).await;
    world.pass(Duration::from_secs(10)).await;
    let seen = check_end(&world, &ada, &id, "100").await;
    assert_eq!((&seen["status"], &seen["failureCode"]), (&json!("FAILED"), &json!("NO_AGREEMENT")));
    world.check().await;
}

#[tokio::test]
async fn a_step_that_fails_stops_the_rest_and_the_rest_comes_back() {
    let world = World::start().await;
    let (ada, bob) = market(&world).await;
    world.hosted_agent(&bob, "echo", "echo", "1", echoing()).await;
    world.hosted_agent(&bob, "broken", "break", "1", crashing()).await;
    let slow = world.agent(&bob, "slow", "EXTERNAL", "slow", "1").await;
    let id = delegate(
        &ada,
        plan(vec![
            step("fine", "echo", json!({})),
            step("bad", "break", json!({ "onFailure": "RETRY", "retries": 2 })),
            step("open", "slow", json!({ "closesIn": "PT1H" })),
            step("never", "echo", json!({ "dependsOn": ["bad"] })),
        ]),
    )
    .await;
    for _ in 0..4 {
        world.app.sweep_once().await.unwrap();
    }
    assert_eq!(look(&ada, &id).await["status"], "RUNNING");
    world.settle().await;
    let seen = check_end(&world, &ada, &id, "100").await;
    assert_eq!(
        (&seen["status"], &seen["failureCode"], &seen["spent"]),
        (&json!("FAILED"), &json!("TRAP"), &json!("1"))
    );
    assert!(seen["failureMessage"].as_str().unwrap().contains("bad"), "{seen:#}");
    let expected =
        BTreeMap::from([("fine", "COMPLETED"), ("bad", "FAILED"), ("open", "CANCELLED"), ("never", "CANCELLED")]);
    assert_eq!(states(&seen), expected);
    // Nobody else can do it, so the one who can was asked again.
    assert_eq!(of(&seen, "bad")["attempts"], 3);
    assert_eq!(of(&seen, "open")["tasks"][0]["status"], "CANCELLED");
    assert_eq!((of(&seen, "never")["attempts"].clone(), bob.earned(slow).await.as_str()), (json!(0), "0"));
    world.check().await;
}

#[tokio::test]
async fn what_is_in_work_when_a_delegation_is_called_off_ends_first_and_is_paid() {
    let world = World::start().await;
    let (ada, bob) = market(&world).await;
    world.hosted_agent(&bob, "echo", "echo", "1", echoing()).await;
    let inner = json!({ "steps": [step("a", "echo", json!({})), step("b", "echo", json!({ "dependsOn": ["a"] }))] });
    let id = delegate(
        &ada,
        plan(vec![
            step("first", "echo", json!({})),
            json!({ "name": "group", "plan": inner }),
            step("last", "echo", json!({ "dependsOn": ["first", "group"] })),
        ]),
    )
    .await;
    // Both begin; their agents have not.
    for _ in 0..8 {
        world.app.sweep_once().await.unwrap();
    }
    let seen = look(&ada, &id).await;
    assert_eq!(of(&seen, "first")["tasks"][0]["status"], "AWARDED");
    let group = of(&seen, "group")["delegation"]["id"].as_str().unwrap().to_owned();
    ada.call("cancelDelegation", "delegation { status failureCode }", json!({ "delegationId": id })).await;
    assert_eq!(look(&ada, &id).await["status"], "STOPPING");
    assert_eq!(ada.refusal("cancelDelegation", json!({ "delegationId": id })).await, "DELEGATION_OVER");
    world.settle().await;
    let seen = check_end(&world, &ada, &id, "100").await;
    assert_eq!(
        (&seen["status"], &seen["failureCode"], &seen["spent"]),
        (&json!("CANCELLED"), &json!("CANCELLED"), &json!("2"))
    );
    let expected = BTreeMap::from([("first", "COMPLETED"), ("group", "CANCELLED"), ("last", "CANCELLED")]);
    assert_eq!(states(&seen), expected);
    let below = look(&ada, &group).await;
    assert_eq!(states(&below), BTreeMap::from([("a", "COMPLETED"), ("b", "CANCELLED")]));
    assert_eq!(ada.refusal("cancelDelegation", json!({ "delegationId": id })).await, "DELEGATION_OVER");
    // One that has done nothing costs nothing.
    let id = delegate(&ada, plan(vec![step("a", "echo", json!({}))])).await;
    ada.call("cancelDelegation", "delegation { id }", json!({ "delegationId": id })).await;
    world.settle().await;
    assert_eq!(look(&ada, &id).await["spent"], "0");
    world.check().await;
}

#[tokio::test]
async fn a_deadline_stops_what_takes_too_long() {
    let world = World::start().await;
    let (ada, bob) = market(&world).await;
    world.agent(&bob, "slow", "EXTERNAL", "slow", "1").await;
    let late = plan(vec![step("slow", "slow", json!({ "closesIn": "PT1H" }))]);
    let mut order = late.clone();
    order["deadline"] = json!("PT30S");
    let id = delegate(&ada, order).await;
    world.pass(Duration::from_secs(29)).await;
    assert_eq!(look(&ada, &id).await["status"], "RUNNING");
    world.pass(Duration::from_secs(1)).await;
    let seen = check_end(&world, &ada, &id, "100").await;
    assert_eq!((&seen["status"], &seen["failureCode"]), (&json!("FAILED"), &json!("DEADLINE_EXCEEDED")));
    // Nobody bids: that is the end of a step, and of the delegation.
    let id = delegate(&ada, late).await;
    world.pass(Duration::from_hours(1)).await;
    let seen = check_end(&world, &ada, &id, "100").await;
    assert!(["NO_ELIGIBLE_BID", "DEADLINE_EXCEEDED"].contains(&seen["failureCode"].as_str().unwrap()), "{seen:#}");
    world.check().await;
}

#[tokio::test]
async fn what_cannot_be_carried_out_is_refused_by_name_before_anything_is_spent() {
    let world = World::start().await;
    let (ada, bob) = market(&world).await;
    world.hosted_agent(&bob, "echo", "echo", "1", echoing()).await;
    world.hosted_agent(&ada, "own", "mine", "1", echoing()).await;
    let one = |more: Value| plan(vec![step("a", "echo", more)]);
    let many = |count: usize| plan((0..count).map(|place| step(&format!("s{place}"), "echo", json!({}))).collect());
    let nested = (0..3).fold(
        json!({ "steps": [step("a", "echo", json!({}))] }),
        |inner, _| json!({ "steps": [{ "name": "g", "plan": inner }] }),
    );
    let checker = world.agent(&bob, "checker", "EXTERNAL", "check", "1").await.to_string();
    for (order, code) in [
        (json!({}), "NO_STEPS"),
        (many(65), "TOO_MANY_STEPS"),
        (json!({ "capabilities": vec!["echo"; 65] }), "TOO_MANY_STEPS"),
        (json!({ "plan": nested }), "TOO_DEEP"),
        (plan(vec![step("A", "echo", json!({}))]), "STEP_NAME_INVALID"),
        (plan(vec![step("a", "echo", json!({})), step("a", "echo", json!({}))]), "STEP_NAME_TAKEN"),
        (plan(vec![json!({ "name": "a", "capabilities": ["echo"], "plan": { "steps": [] } })]), "STEP_IS_BOTH"),
        (plan(vec![json!({ "name": "a" })]), "STEP_DOES_NOTHING"),
        (one(json!({ "replicas": 4, "agree": 2 })), "REPLICAS_INVALID"),
        (one(json!({ "retries": 1 })), "RETRIES_INVALID"),
        (one(json!({ "dependsOn": ["b"] })), "UNKNOWN_STEP"),
        (
            plan(vec![
                step("a", "echo", json!({ "dependsOn": ["b"] })),
                step("b", "echo", json!({ "dependsOn": ["a"] })),
            ]),
            "PLAN_HAS_CYCLE",
        ),
        (one(json!({ "share": 9000 })), "SHARES_DO_NOT_SUM"),
        (one(json!({ "input": { "$ref": "b" } })), "REFERENCE_UNRESOLVED"),
        (one(json!({ "input": { "$ref": "input#/x" } })), "REFERENCE_UNRESOLVED"),
        (plan(vec![step("a", "sing", json!({}))]), "UNKNOWN_CAPABILITY"),
        (plan(vec![step("a", "mine", json!({}))]), "UNKNOWN_CAPABILITY"),
        (one(json!({ "checkerId": checker })), "UNKNOWN_CHECKER"),
        (one(json!({ "checkerId": "nobody" })), "UNKNOWN_CHECKER"),
        (one(json!({ "outputSchema": { "type": 3 } })), "INVALID_INPUT"),
        (one(json!({ "timeout": "P1D" })), "INVALID_INPUT"),
        (one(json!({ "closesIn": "PT0.5S" })), "INVALID_INPUT"),
        (json!({ "capabilities": ["echo"], "goal": " " }), "INVALID_INPUT"),
        (json!({ "capabilities": ["echo"], "deadline": "P8D" }), "INVALID_INPUT"),
        (json!({ "capabilities": ["echo"], "closesIn": "PT0.5S" }), "INVALID_INPUT"),
        (json!({ "capabilities": ["not a word"] }), "INVALID_INPUT"),
        (json!({ "capabilities": ["echo"], "planningBudget": "10" }), "INVALID_INPUT"),
        (json!({ "capabilities": ["echo"], "budget": "0" }), "INVALID_INPUT"),
        (json!({ "capabilities": ["echo"], "budget": "101" }), "INSUFFICIENT_FUNDS"),
    ] {
        assert_eq!(refused(&ada, order.clone()).await, code, "{order}");
    }
    let mut both = one(json!({}));
    both["planningBudget"] = json!("1");
    assert_eq!(refused(&ada, both).await, "INVALID_INPUT");
    let mut poor = many(3);
    poor["budget"] = json!("0.000002");
    assert_eq!(refused(&ada, poor).await, "BUDGET_TOO_SMALL");
    // One large value named a thousand times.
    let mut blast = one(json!({ "input": vec![json!({ "$ref": "input" }); 1_000] }));
    blast["input"] = json!("x".repeat(10_000));
    assert_eq!(refused(&ada, blast).await, "TEMPLATE_TOO_LARGE");
    for table in ["delegations", "delegation_steps", "tasks"] {
        assert_eq!(world.rows(table).await, 0, "{table}");
    }
    assert_eq!(ada.wallet().await, ("100".to_owned(), "0".to_owned()));

    // A million steps are too many for a request, and as many as one can take are too many for a plan.
    let steps = |count: usize| vec![json!({ "name": "a" }); count];
    let document = "mutation($input: DelegateTaskInput!) { delegateTask(input: $input) { userErrors { code } } }";
    let input = |count: usize| {
        let mut input = order(json!({ "plan": { "steps": steps(count) } }));
        input["idempotencyKey"] = json!(fresh_key());
        json!({ "input": input })
    };
    let reply = ada.raw(document, &input(1_000_000)).await;
    assert_eq!((reply.status, reply.code().as_str()), (413, "PAYLOAD_TOO_LARGE"));
    assert_eq!(ada.refused("delegateTask", document, input(20_000)).await, ["TOO_MANY_STEPS"]);
    world.check().await;
}

#[tokio::test]
async fn an_output_that_grows_too_large_fails_the_step_that_wants_it() {
    let world = World::start().await;
    let (ada, bob) = market(&world).await;
    world.hosted_agent(&bob, "echo", "echo", "1", echoing()).await;
    world.hosted_agent(&bob, "big", "big", "1", answering(&format!("\"{}\"", "x".repeat(20_000)))).await;
    let blast = json!({ "input": vec![json!({ "$ref": "a" }); 1_000] });
    let id = delegate(&ada, plan(vec![step("a", "big", json!({})), step("b", "echo", blast)])).await;
    let missing = json!({ "input": { "$ref": "a#/nothing" }, "onFailure": "RETRY", "retries": 5 });
    let other = delegate(&ada, plan(vec![step("a", "big", json!({})), step("b", "echo", missing)])).await;
    world.settle().await;
    let seen = look(&ada, &id).await;
    assert_eq!(
        (&seen["status"], &seen["failureCode"], &seen["spent"]),
        (&json!("FAILED"), &json!("TEMPLATE_TOO_LARGE"), &json!("1"))
    );
    // Trying again would not help.
    let seen = look(&ada, &other).await;
    assert_eq!((&seen["failureCode"], &of(&seen, "b")["attempts"]), (&json!("REFERENCE_UNRESOLVED"), &json!(0)));
    // An output of the whole that leads to nothing is a failure too, after everything was paid.
    let mut order = plan(vec![step("a", "echo", json!({}))]);
    order["plan"]["output"] = json!({ "$ref": "a#/nothing" });
    let id = delegate(&ada, order).await;
    world.settle().await;
    let seen = look(&ada, &id).await;
    assert_eq!(
        (&seen["status"], &seen["failureCode"], &seen["spent"]),
        (&json!("FAILED"), &json!("REFERENCE_UNRESOLVED"), &json!("1"))
    );
    // Where every step is skipped nothing was done.
    world.hosted_agent(&bob, "broken", "break", "1", crashing()).await;
    let id = delegate(&ada, plan(vec![step("a", "break", json!({ "onFailure": "SKIP" }))])).await;
    world.settle().await;
    let seen = look(&ada, &id).await;
    assert_eq!(
        (&seen["status"], &seen["failureCode"], &states(&seen)["a"]),
        (&json!("FAILED"), &json!("NOTHING_DONE"), &"SKIPPED")
    );
    world.check().await;
}

#[tokio::test]
async fn strangers_see_nothing_and_the_requester_follows_everything() {
    let world = World::start().await;
    let (ada, bob) = market(&world).await;
    let eve = world.user("eve").await;
    world.hosted_agent(&bob, "echo", "echo", "1", echoing()).await;
    let after = world.cursor().await;
    let id = delegate(&ada, json!({ "goal": "the-secret", "input": "the-secret", "capabilities": ["echo"] })).await;
    let document = "subscription($id: ID!, $after: EventCursor) { delegationEvents(delegationId: $id, after: $after) {
        kind ... on DelegationEvent { step reason amount returned delegation { status } } ... on TaskEvent { task { status } } } }";
    let mut stream = ada.subscribe(document, json!({ "id": id, "after": after })).await;
    world.settle().await;
    let mut kinds = Vec::new();
    loop {
        let message = stream.socket().message().await;
        if message["type"] == "complete" {
            break;
        }
        kinds.push(message["payload"]["data"]["delegationEvents"]["kind"].as_str().expect("an event").to_owned());
    }
    assert_eq!(
        kinds,
        [
            "DELEGATION_CREATED",
            "DELEGATION_PLANNED",
            "TASK_POSTED",
            "STEP_STARTED",
            "TASK_STARTED",
            "TASK_COMPLETED",
            "STEP_COMPLETED",
            "DELEGATION_COMPLETED"
        ]
    );
    let everything = "query($id: ID!) { delegation(id: $id) { goal } node(id: $id) { id } nodes(ids: [$id]) { id }
        delegations { totalCount nodes { goal } } }";
    for stranger in [&eve, &bob] {
        let seen = stranger.query(everything, json!({ "id": id })).await;
        assert_eq!((&seen["delegation"], &seen["node"], &seen["nodes"]), (&Value::Null, &Value::Null, &json!([null])));
        assert_eq!(seen["delegations"]["totalCount"], 0);
        assert_eq!(stranger.refusal("cancelDelegation", json!({ "delegationId": id })).await, "NOT_FOUND");
    }
    for party in [&ada, &world.admin().await] {
        let seen = party.query(everything, json!({ "id": id })).await;
        assert_eq!((&seen["delegation"]["goal"], &seen["node"]["id"]), (&json!("the-secret"), &json!(id)));
    }
    // The agent's owner sees the task and not the delegation.
    let task = of(&look(&ada, &id).await, "step-1")["task"]["id"].clone();
    let seen = bob.query("query($id: ID!) { task(id: $id) { input delegation { id } } }", json!({ "id": task })).await;
    assert_eq!(seen["task"], json!({ "input": "the-secret", "delegation": null }));
    // What a retry of the same intent answers is the same delegation.
    let again = json!({ "capabilities": ["echo"], "idempotencyKey": "once" });
    assert_eq!(delegate(&ada, again.clone()).await, delegate(&ada, again).await);
    world.settle().await;
    world.check().await;
}

/// The processes of a world: one, and on PostgreSQL a second one.
async fn processes(world: &World) -> (Vec<App>, Option<crate::world::Peer>) {
    if !on_postgres() {
        return (vec![world.app.clone(), world.app.clone()], None);
    }
    let peer = world.another().await;
    (vec![world.app.clone(), peer.app.clone()], Some(peer))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixty_four_hands_at_once_buy_and_pay_everything_once() {
    let world = World::start().await;
    let (ada, bob) = market(&world).await;
    agents_of_the_diamond(&world, &bob).await;
    for number in 0..3 {
        let owner = world.user(&format!("owner-{number}")).await;
        world.hosted_agent(&owner, "same", "same", "0.1", answering("1")).await;
    }
    let (apps, _peer) = processes(&world).await;
    let input = json!({ "text": "one two three", "csv": "" });
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(delegate(&ada, json!({ "plan": diamond(), "input": input })).await);
    }
    let inner = json!({ "steps": [step("x", "same", json!({ "replicas": 3 })), step("y", "text.stats", json!({ "input": "a" }))] });
    let grouped = plan(vec![json!({ "name": "g", "plan": inner }), step("same", "same", json!({ "replicas": 3 }))]);
    for _ in 0..2 {
        ids.push(delegate(&ada, grouped.clone()).await);
    }
    for round in 0..2_000 {
        let hands = (0..64).map(async |hand: usize| {
            let app = &apps[hand % apps.len()];
            let id: DelegationId = ids[hand % ids.len()].parse().unwrap();
            match hand % 8 {
                0 => app.sweep_once().await.unwrap() > 0,
                1 => app.run_ready().await.unwrap() > 0,
                _ => app.store().write(Caller::System, async |work| verbs::advance(work, id).await).await.unwrap(),
            }
        });
        let acted = join_all(hands).await;
        if !acted.contains(&true) {
            break;
        }
        assert!(round < 1_999, "it does not come to rest");
    }
    world.settle().await;
    for id in &ids {
        let seen = look(&ada, id).await;
        assert_eq!(seen["status"], "COMPLETED", "{seen:#}");
        check_costs(&seen["costTree"]);
        assert_eq!(micros(&seen["spent"]), transferred(&world, id).await);
    }
    let db = world.app.store().read();
    let links = delegation_task::Entity::find().all(db).await.unwrap();
    let tasks = task::Entity::find().all(db).await.unwrap();
    assert_eq!(links.len(), tasks.len());
    // Six tasks of a diamond and one more try; three and three and one of the others.
    assert_eq!(tasks.len(), 4 * 7 + 2 * 7);
    for step in delegation_step::Entity::find().all(db).await.unwrap() {
        let bought = links.iter().filter(|link| link.step_id == step.id).count();
        let expected = if step.child_id.is_some() { 0 } else { step.attempts * step.replicas };
        assert_eq!(bought, usize::try_from(expected).unwrap(), "{}", step.name);
    }
    world.check().await;
}
