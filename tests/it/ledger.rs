//! The books themselves: every invariant is seen when it is broken, nothing moves while one is, strangers can check all of it, and
//! the ledger does what a few lines of arithmetic say.

use std::{collections::BTreeMap, time::Duration};

use entity::{
    account, bond, channel, hold,
    id::{AgentId, AuctionId, BondId, ChannelId, HoldId, TaskId, UserId},
    money::Amount,
};
use proptest::{
    prelude::*,
    test_runner::{Config as Cases, TestRunner},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use sea_orm::{
    ColumnTrait, ConnectOptions, ConnectionTrait, Database, DatabaseConnection, EntityTrait, IntoActiveModel,
    QueryFilter, Statement, sea_query::Expr,
};
use serde_json::{Value, json};
use zerostate::{
    app,
    caller::{Caller, Identity},
    error::Error,
    ledger::{
        self, BondMove, Deposit, Place, Purse, Reach, Stream,
        journal::{References, Signer},
    },
    reputation,
    store::{Store, Work},
};

use crate::world::{Client, World, crashing, echoing, on_postgres, send};

/// A market with paid, refunded and open work in its books, some earnings withdrawn and some fees taken.
async fn busy() -> (World, Client) {
    let world = World::with(|config| config.terms.fee_bps = 250).await;
    let (ada, bob) = (world.user("ada").await, world.user("bob").await);
    world.credit(&ada, "100").await;
    let agent = world.hosted_agent(&bob, "echo", "echo", "3", echoing()).await;
    world.hosted_agent(&bob, "broken", "broken", "4", crashing()).await;
    for capability in ["echo", "broken", "echo"] {
        ada.execute(json!({ "capabilities": [capability], "input": "a secret of ada" })).await;
        world.settle().await;
    }
    ada.open(json!({ "budget": "5" })).await;
    let withdrawal = json!({ "agentId": agent.to_string(), "amount": "1" });
    bob.call("withdrawEarnings", "transfer { id }", withdrawal).await;
    (world, ada)
}

/// A connection of somebody who has the database and no scruples: no constraint, trigger or foreign key stands in the way.
async fn intruder(world: &World) -> DatabaseConnection {
    let url = world.database_url();
    let mut options = ConnectOptions::new(url);
    options.max_connections(1).sqlx_logging(false);
    let db = Database::connect(options).await.unwrap();
    if on_postgres() {
        db.execute_unprepared(
            "DO $$ DECLARE it record; BEGIN \
             FOR it IN SELECT conrelid::regclass AS t, conname AS c FROM pg_constraint WHERE contype IN ('c', 'f') \
             AND connamespace = 'public'::regnamespace LOOP \
             EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', it.t, it.c); END LOOP; \
             FOR it IN SELECT tgrelid::regclass AS t, tgname AS c FROM pg_trigger WHERE NOT tgisinternal AND tgname LIKE '%\\_no\\_%' \
             LOOP EXECUTE format('DROP TRIGGER %I ON %s', it.c, it.t); END LOOP; END $$",
        )
        .await
        .unwrap();
    } else {
        for pragma in ["PRAGMA ignore_check_constraints = ON", "PRAGMA foreign_keys = OFF"] {
            db.execute_unprepared(pragma).await.unwrap();
        }
        let sql = "SELECT name FROM sqlite_schema WHERE type = 'trigger' AND name LIKE '%\\_no\\_%' ESCAPE '\\'";
        let rows = db.query_all_raw(Statement::from_string(db.get_database_backend(), sql)).await.unwrap();
        for row in rows {
            let name: String = row.try_get("", "name").unwrap();
            db.execute_unprepared(&format!("DROP TRIGGER {name}")).await.unwrap();
        }
    }
    db
}

/// The names of the checks that fail, in the eyes of one connection.
async fn broken(world: &World, db: &DatabaseConnection, reach: Reach) -> Vec<&'static str> {
    let signer = Signer::of(world.app.store().instance().unwrap().public_key());
    let mut audit = ledger::audit(db, signer, References::Text, reach).await.unwrap();
    audit.add("L12", reputation::replay_violations(db, None).await.unwrap());
    audit.checks.iter().filter(|check| check.violations > 0).map(|check| check.name).collect()
}

fn id(number: u128) -> String {
    let id = uuid::Uuid::from_u128(number);
    if on_postgres() { format!("'{id}'::uuid") } else { format!("x'{}'", id.simple()) }
}

const EXTERNAL: &str = "(SELECT id FROM accounts WHERE kind = 'EXTERNAL')";
/// The escrow of a task whose budget was given back or paid out.
const OVER: &str = "(SELECT escrow_id FROM holds WHERE status = 'POSTED' ORDER BY id LIMIT 1)";
/// The richest wallet.
const WALLET: &str = "(SELECT id FROM accounts WHERE kind = 'USER' ORDER BY balance DESC LIMIT 1)";

/// A transfer that is right in itself, as somebody would forge it: between the accounts of these ids, at an instant.
fn forged(number: u128, kind: &str, between: [&str; 2], micros: i64, at: i64) -> Vec<String> {
    let (id, [from, to]) = (id(number), between);
    let reference = if kind == "REDEEM" { "'forged'" } else { "NULL" };
    let mut all = vec![format!(
        "INSERT INTO transfers (id, batch_id, kind, debit_id, credit_id, amount, reference, created_at) \
         SELECT {id}, {id}, '{kind}', d.id, c.id, {micros}, {reference}, {at} FROM accounts d, accounts c \
         WHERE d.id = {from} AND c.id = {to}"
    )];
    for (column, sign) in [("debit_id", "-"), ("credit_id", "+")] {
        let account = format!("(SELECT {column} FROM transfers WHERE id = {id})");
        all.push(format!(
            "INSERT INTO entries (account_id, version, transfer_id, amount, previous, current, created_at) \
             SELECT a.id, a.version + 1, {id}, {sign}{micros}, a.balance, a.balance {sign} {micros}, {at} \
             FROM accounts a WHERE a.id = {account}"
        ));
        all.push(format!(
            "UPDATE accounts SET version = version + 1, balance = balance {sign} {micros} WHERE id = {account}"
        ));
    }
    all
}

/// A streaming channel that took a deposit and gave it back as it closed, and, if `reopened`, did both again later. The clock was
/// set back in between: the deposit is dated after the close.
fn closed_stream(reopened: bool) -> Vec<String> {
    let (channel, zeros) = (id(40), "0".repeat(64));
    let mut all = vec![
        format!(
            "INSERT INTO channels (id, purpose, payer_id, agent_id, deposit, paid, nonce, status, close_reason, opened_at, \
             expires_at, closed_at, hash) SELECT {channel}, 'STREAM', payer_id, agent_id, 9, 0, 1, 'CLOSED', 'EXPIRED', 5, 9, 10, \
             '{zeros}' FROM channels LIMIT 1"
        ),
        format!(
            "INSERT INTO accounts (id, kind, owner_id, shard, balance, version, created_at) \
             VALUES ({channel}, 'ESCROW_CHANNEL', {channel}, 0, 0, 0, 5)"
        ),
    ];
    all.extend(forged(41, "DEPOSIT", [WALLET, &channel], 9, 20));
    all.extend(forged(42, "RELEASE", [&channel, WALLET], 9, 10));
    if reopened {
        all.extend(forged(43, "DEPOSIT", [WALLET, &channel], 9, 30));
        all.extend(forged(44, "RELEASE", [&channel, WALLET], 9, 30));
    }
    all
}

/// Does damage, says which checks fail, and takes the damage back.
async fn damaged(world: &World, db: &DatabaseConnection, damage: &[String]) -> Vec<&'static str> {
    db.execute_unprepared("BEGIN").await.unwrap();
    for sql in damage {
        let done = db.execute_unprepared(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        assert!(done.rows_affected() > 0, "no damage: {sql}");
    }
    let broken = broken(world, db, Reach::Whole).await;
    db.execute_unprepared("ROLLBACK").await.unwrap();
    broken
}

#[tokio::test]
async fn each_invariant_is_seen_when_it_is_broken_and_no_other() {
    let (world, ada) = busy().await;
    // A delegation that is over, and one that has not begun.
    for settled in [true, false] {
        let order = json!({ "goal": "Echo", "budget": "5", "capabilities": ["echo"] });
        ada.call("delegateTask", "delegation { id }", order).await;
        if settled {
            world.settle().await;
        }
    }
    let db = intruder(&world).await;
    assert_eq!(broken(&world, &db, Reach::Whole).await, [""; 0]);
    let issue = "(SELECT id FROM transfers WHERE kind = 'ISSUE')";
    let one = |sql: String| vec![sql];
    // L1 follows from L3 and L4, so nothing breaks it alone; and what breaks a balance breaks its rebuilding.
    for (damage, expected) in [
        (one(format!("UPDATE accounts SET balance = balance + 1 WHERE id = {WALLET}")), &["L1", "L4", "L12"][..]),
        (forged(1, "REDEEM", [WALLET, EXTERNAL], 900_000_000_000, 1), &["L2"]),
        (one("UPDATE transfers SET amount = amount + 1 WHERE kind = 'ISSUE'".to_owned()), &["L3"]),
        (one(format!("UPDATE entries SET transfer_id = {} WHERE transfer_id = {issue}", id(7))), &["L3"]),
        (
            one(format!(
                "UPDATE entries SET previous = previous + 1, current = current + 1 WHERE version = 1 AND account_id = {WALLET}"
            )),
            &["L4"],
        ),
        (
            one(format!("UPDATE entries SET version = version + 50 WHERE version = 1 AND account_id = {WALLET}")),
            &["L4"],
        ),
        (one("UPDATE holds SET amount = amount + 1 WHERE status = 'HELD'".to_owned()), &["L5"]),
        (one("DELETE FROM hold_resolutions WHERE kind = 'VOID'".to_owned()), &["L6", "L9"]),
        (one("UPDATE hold_resolutions SET returned = returned + 1 WHERE kind = 'VOID'".to_owned()), &["L6"]),
        (one("UPDATE tasks SET finished_at = created_at + 1 WHERE status = 'OPEN'".to_owned()), &["L7"]),
        (one("DELETE FROM task_results WHERE outcome = 'SUCCEEDED'".to_owned()), &["L8"]),
        ([forged(1, "DEPOSIT", [WALLET, OVER], 1, 1), forged(2, "RELEASE", [OVER, WALLET], 1, 1)].concat(), &["L9"]),
        (closed_stream(false), &[]),
        (closed_stream(true), &["L9"]),
        (one("UPDATE channels SET paid = paid - 1 WHERE paid > 0".to_owned()), &["L10"]),
        (one("UPDATE delegations SET spent = spent - 1 WHERE spent > 0".to_owned()), &["L11"]),
        (one("UPDATE delegations SET budget = budget + 1 WHERE finished_at IS NULL".to_owned()), &["L11"]),
        (
            one("UPDATE delegations SET finished_at = created_at, spent = 0 WHERE finished_at IS NULL".to_owned()),
            &["L11"],
        ),
        (
            vec![
                "UPDATE transfers SET amount = amount + 1 WHERE kind = 'ISSUE'".to_owned(),
                format!("UPDATE entries SET amount = amount + 1 WHERE amount > 0 AND transfer_id = {issue}"),
                format!("UPDATE entries SET amount = amount - 1 WHERE amount < 0 AND transfer_id = {issue}"),
            ],
            &["L12"],
        ),
        (one("UPDATE reputations SET success_sum = success_sum + 1".to_owned()), &["L12"]),
        (
            one("UPDATE agents SET score = score + 1 WHERE id IN (SELECT agent_id FROM reputations)".to_owned()),
            &["L12"],
        ),
    ] {
        assert_eq!(damaged(&world, &db, &damage).await, expected, "{damage:#?}");
    }

    // The journal: once sealed, what no sum shows is seen too.
    assert!(world.app.seal(false).await.unwrap() > 10);
    assert_eq!(world.app.seal(true).await.unwrap(), 0);
    world.turn(Duration::from_hours(1));
    world.credit(&world.user("late").await, "1").await;
    assert_eq!(world.app.seal(false).await.unwrap(), 1);
    assert_eq!(broken(&world, &db, Reach::Whole).await, [""; 0]);
    let zeros = "0".repeat(64);
    for (damage, expected) in [
        (one(format!("UPDATE journal_lines SET hash = '{zeros}' WHERE place = 2")), &["J1"][..]),
        (one("DELETE FROM journal_lines WHERE place = 3".to_owned()), &["J1", "J3"]),
        (one("UPDATE transfers SET reference = 'another invoice' WHERE kind = 'ISSUE' AND id = (SELECT transfer_id FROM journal_lines WHERE place = 1)".to_owned()), &["J1"]),
        (one("UPDATE entries SET created_at = created_at + 1".to_owned()), &["J1"]),
        (one(format!("UPDATE journal_heads SET signature = '{zeros}{zeros}'")), &["J2"]),
        (one("UPDATE journal_heads SET created_at = created_at - 1".to_owned()), &["J2"]),
        (one("UPDATE journal_heads SET place = place + 1000 WHERE place > 5".to_owned()), &["J2"]),
        (forged(1, "REDEEM", [WALLET, EXTERNAL], 1, 1), &["J3"]),
    ] {
        assert_eq!(damaged(&world, &db, &damage).await, expected, "{damage:#?}");
    }
    db.close().await.unwrap();
    world.check().await;
}

#[tokio::test]
async fn a_recent_audit_reads_what_is_recent_and_finds_fresh_damage() {
    let (world, ada) = busy().await;
    let db = intruder(&world).await;
    let audit = world.app.audit().await.unwrap();
    assert!(audit.ok() && audit.whole);
    world.turn(Duration::from_mins(20));
    assert!(!world.app.audit_recent().await.unwrap().whole);
    world.turn(Duration::from_mins(20));
    world.credit(&ada, "7").await;
    let statements = world.app.store().statements();
    let audit = world.app.audit_recent().await.unwrap();
    assert!(audit.ok() && !audit.whole, "{audit:#?}");
    let asked = world.app.store().statements() - statements;
    assert!(asked < 30, "{asked} statements for one new transfer");

    // Damage to what was audited before is not even looked at; damage to what is new is found.
    let change = async |sql: &str| assert!(db.execute_unprepared(sql).await.unwrap().rows_affected() > 0, "{sql}");
    let old = "(SELECT MIN(created_at) FROM transfers)";
    change(&format!("UPDATE transfers SET amount = amount + 1 WHERE kind = 'ISSUE' AND created_at = {old}")).await;
    assert!(world.app.audit_recent().await.unwrap().ok());
    change(&format!("UPDATE transfers SET amount = amount - 1 WHERE kind = 'ISSUE' AND created_at = {old}")).await;
    let fresh = "(SELECT MAX(created_at) FROM transfers)";
    change(&format!("UPDATE transfers SET amount = amount + 1 WHERE created_at = {fresh}")).await;
    let audit = world.app.audit_recent().await.unwrap();
    let names: Vec<_> = audit.checks.iter().filter(|check| check.violations > 0).map(|check| check.name).collect();
    assert_eq!(names, ["L3"]);
    change(&format!("UPDATE transfers SET amount = amount - 1 WHERE created_at = {fresh}")).await;
    // What was broken is looked at as a whole until it is right.
    let audit = world.app.audit_recent().await.unwrap();
    assert!(audit.ok() && audit.whole, "{audit:#?}");
    // And so is everything once in a while.
    assert!(!world.app.audit_recent().await.unwrap().whole);
    world.turn(Duration::from_hours(1));
    assert!(world.app.audit_recent().await.unwrap().whole);
    db.close().await.unwrap();
    world.check().await;
}

#[tokio::test]
async fn nothing_moves_credits_while_the_books_are_broken() {
    let (world, ada) = busy().await;
    let db = intruder(&world).await;
    // Something is due that would move credits by itself, and work waits for a worker.
    ada.open(json!({ "budget": "2", "closesIn": "PT5M" })).await;
    ada.execute(json!({ "capabilities": ["echo"] })).await;
    let forge = |sign: &str| format!("UPDATE accounts SET balance = balance {sign} 1 WHERE kind = 'EXTERNAL'");
    db.execute_unprepared(&forge("+")).await.unwrap();
    assert!(!world.app.audit().await.unwrap().ok());
    let before = world.rows("transfers").await;
    world.pass(Duration::from_mins(10)).await;
    let admin = world.admin().await;
    let issue = json!({ "userId": ada.id(), "amount": "1", "reference": "r", "idempotencyKey": "issue" });
    let document =
        "mutation($input: IssueCreditsInput!) { issueCredits(input: $input) { transfer { id } userErrors { code } } }";
    let refused = admin.try_query(document, json!({ "input": issue })).await.unwrap_err();
    let told = &refused[0]["extensions"];
    assert_eq!(
        (&told["code"], &told["reason"], &told["retryable"]),
        (&json!("UNAVAILABLE"), &json!("BOOKS_BROKEN"), &json!(true))
    );
    let order = json!({ "title": "x", "capabilities": ["echo"], "input": 1, "budget": "3" });
    assert_eq!(ada.fault("executeTask", order).await, "UNAVAILABLE");
    // No verb gets past it either, whoever calls it.
    let (payer, task) = (ada.id().parse::<UserId>().unwrap(), TaskId(uuid::Uuid::from_u128(1)));
    let amount = Amount::from_micros(1).unwrap();
    let held = world
        .app
        .store()
        .write(Caller::System, async |work| ledger::hold_budget(work, Purse::User(payer), task, amount).await);
    assert!(matches!(held.await, Err(Error::BooksBroken)));
    assert_eq!(world.rows("transfers").await, before);
    assert_eq!(world.app.seal(true).await.unwrap(), 0, "nothing is signed");
    let ready = send(world.http().get(world.url("/ready"))).await;
    assert_eq!(ready.status, 503);
    assert!(ready.text.contains("the books break L1, L4, L12"), "{}", ready.text);
    let metrics = send(world.http().get(world.url("/metrics"))).await.text;
    for line in ["{check=\"L4\"} 1", "{check=\"L2\"} 0", "{check=\"J1\"} 0"] {
        assert!(metrics.contains(&format!("zerostate_ledger_invariant_violations{line}\n")), "{line}");
    }

    db.execute_unprepared(&forge("-")).await.unwrap();
    let audit = admin.query("{ ledgerAudit(full: false) { ok full } }", json!({})).await;
    assert_eq!(audit["ledgerAudit"], json!({ "ok": true, "full": true }));
    assert_eq!(send(world.http().get(world.url("/ready"))).await.status, 200);
    // What was told to be tried again is done now, once, and what was due happens.
    admin.done("issueCredits", document, json!({ "input": issue })).await;
    world.settle().await;
    let tasks = ada.query("{ tasks(filter: { status: [EXPIRED, COMPLETED] }) { totalCount } }", json!({})).await;
    assert_eq!(tasks["tasks"]["totalCount"], 4);
    db.close().await.unwrap();
    world.check().await;
}

#[tokio::test]
async fn a_transfer_that_commits_late_gets_a_later_place() {
    if !on_postgres() {
        // SQLite has one writer: nothing can commit late there.
        return;
    }
    let (world, ada) = busy().await;
    world.app.seal(false).await.unwrap();
    let agents: Vec<(AgentId, UserId)> = entity::agent::Entity::find()
        .all(world.app.store().read())
        .await
        .unwrap()
        .into_iter()
        .map(|agent| (agent.id, agent.owner_id))
        .collect();
    let mut late = None;
    for (agent, owner) in agents {
        let earned = ledger::balance_of(world.app.store().read(), account::Kind::Agent, agent.0).await.unwrap();
        if earned > 0 {
            late = Some((agent, owner));
        }
    }
    let (agent, owner) = late.expect("an agent that earned something");
    let (posted, is_posted) = tokio::sync::oneshot::channel();
    let (go_on, may_go_on) = tokio::sync::oneshot::channel();
    let caller = Caller::User(Identity {
        user: owner,
        role: entity::user::Role::User,
        session: None,
        key: None,
        expires_at: None,
    });
    let slow = world.app.store().write(caller, async |work| {
        let transfer = ledger::withdraw(work, agent, None).await?;
        posted.send(()).unwrap();
        may_go_on.await.unwrap();
        Ok(transfer)
    });
    let others = async {
        is_posted.await.unwrap();
        world.turn(Duration::from_mins(1));
        world.credit(&ada, "1").await;
        assert_eq!(world.app.seal(false).await.unwrap(), 1, "the late one is not visible yet");
        go_on.send(()).unwrap();
    };
    let (slow, ()) = tokio::join!(slow, others);
    let slow = slow.unwrap();
    assert_eq!(world.app.seal(false).await.unwrap(), 1);
    let line = entity::journal_line::Entity::find()
        .filter(entity::journal_line::Column::TransferId.eq(slow.id))
        .one(world.app.store().read())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(line.place, world.rows("transfers").await, "it is the last one");
    world.check().await;
}

#[tokio::test]
async fn a_process_seals_the_journal_as_it_ends_and_everybody_may_keep_the_head() {
    let (world, _) = busy().await;
    let document = "{ journalHead { place hash signature publicKey instanceId signedAt } }";
    assert_eq!(world.anonymous().query(document, json!({})).await["journalHead"], Value::Null);
    let peer = world.another().await;
    peer.app.shutdown(Duration::from_secs(5)).await;
    let head = world.anonymous().query(document, json!({})).await["journalHead"].clone();
    assert_eq!(head["place"], json!(world.rows("transfers").await.to_string()));
    let instance = world.app.store().instance().unwrap();
    assert_eq!(head["publicKey"], hex::encode(instance.public_key()));
    // As a stranger would check it, by the documentation.
    let at = chrono::DateTime::parse_from_rfc3339(head["signedAt"].as_str().unwrap()).unwrap().timestamp_micros();
    let place: u64 = head["place"].as_str().unwrap().parse().unwrap();
    let bytes = |field: &str| hex::decode(head[field].as_str().unwrap()).unwrap();
    let message =
        [b"ZSJH-HEAD-v1\0", &bytes("instanceId")[..], &place.to_be_bytes(), &bytes("hash"), &at.to_be_bytes()].concat();
    let key: [u8; 32] = bytes("publicKey").try_into().unwrap();
    let key = ed25519_dalek::VerifyingKey::from_bytes(&key).unwrap();
    let signature = ed25519_dalek::Signature::from_slice(&bytes("signature")).unwrap();
    key.verify_strict(&message, &signature).unwrap();
    world.check().await;
}

/// What verifying a file comes to: nothing for a file that is no archive, or the checks that fail.
async fn verdict(file: &[u8], key: Option<[u8; 32]>, kept: Option<(i64, String)>) -> Option<Vec<&'static str>> {
    let verdict = app::verify(file, key, kept).await.ok()?;
    Some(verdict.audit.checks.iter().filter(|check| check.violations > 0).map(|check| check.name).collect())
}

#[tokio::test]
async fn a_stranger_checks_the_books_and_sees_every_change() {
    let (world, _) = busy().await;
    let mut file = Vec::new();
    let contents = world.app.export(&mut file).await.unwrap();
    let transfers = world.rows("transfers").await;
    assert_eq!(contents.rows["transfers"], u64::try_from(transfers).unwrap());
    let instance = world.app.store().instance().unwrap();
    let (key, store) = (instance.public_key(), world.app.store());
    let head = ledger::journal::head(store.read()).await.unwrap().unwrap();
    let kept = (head.place, head.hash.clone());
    assert_eq!(verdict(&file, Some(key), Some(kept.clone())).await.unwrap(), [""; 0]);
    assert_eq!(verdict(&file, Some([7; 32]), None).await.unwrap(), ["A3"]);
    assert_eq!(verdict(&file, None, Some((kept.0, "0".repeat(64)))).await.unwrap(), ["A4"]);
    assert_eq!(verdict(&file, None, Some((kept.0 + 1, kept.1.clone()))).await.unwrap(), ["A4"]);

    // Nobody is named in it.
    let text = String::from_utf8(file.clone()).unwrap();
    let references: Vec<Option<String>> = entity::transfer::Entity::find()
        .all(store.read())
        .await
        .unwrap()
        .into_iter()
        .map(|transfer| transfer.reference)
        .collect();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let words: Vec<&str> =
        lines.iter().flat_map(|line| line.as_object().unwrap().values()).filter_map(Value::as_str).collect();
    for private in references.iter().flatten().map(String::as_str).chain(["ada", "bob", "echo", "a secret of ada"]) {
        assert!(!words.contains(&private), "{private} is in the archive");
    }
    assert!(!text.contains('@') && !text.contains("secret of"));

    // Any change of any byte, and any line that is gone, twice or moved.
    let mut dice = StdRng::seed_from_u64(0xb00c);
    for _ in 0..60 {
        let mut other = file.clone();
        let at = dice.random_range(0..other.len());
        other[at] = match other[at] {
            b'0' => b'1',
            _ => b'0',
        };
        let found = verdict(&other, None, None).await;
        assert!(found.as_ref().is_none_or(|broken| !broken.is_empty()), "byte {at} was changed and nobody saw it");
    }
    let of = |lines: &[&str]| (lines.join("\n") + "\n").into_bytes();
    let whole: Vec<&str> = text.lines().collect();
    for _ in 0..10 {
        let (mut gone, mut twice, mut moved) = (whole.clone(), whole.clone(), whole.clone());
        let at = dice.random_range(1..whole.len() - 2);
        gone.remove(at);
        twice.insert(at, whole[at]);
        moved.swap(at, at + 1);
        for (what, lines) in [("gone", gone), ("twice", twice), ("moved", moved)] {
            let found = verdict(&of(&lines), None, None).await.unwrap();
            assert!(found.contains(&"A2"), "line {at} is {what}: {found:?}");
        }
    }
    for cut in [0, 1, whole.len() - 1] {
        let found = verdict(&of(&whole[..cut]), None, None).await;
        assert!(found.is_none_or(|broken| broken.contains(&"A2")), "cut at {cut}");
    }

    // The market itself, with its key, changes one transfer consistently: the chain of hashes says so.
    let change = |line: &Value| {
        let mut line = line.clone();
        let micros = |value: &Value| value.as_i64().unwrap();
        match line["table"].as_str() {
            Some("transfers") if line["kind"] == "ISSUE" => line["amount"] = json!(micros(&line["amount"]) + 5),
            Some("entries") if line["version"] == 1 && micros(&line["amount"]) == -100_000_000 => {
                line["amount"] = json!(-100_000_005);
                line["current"] = json!(-100_000_005);
            }
            _ => {}
        }
        line
    };
    let changed: Vec<String> = lines[..lines.len() - 1].iter().map(|line| format!("{}\n", change(line))).collect();
    let resigned = |lines: &str| {
        use sha2::Digest;
        let digest = sha2::Sha256::digest(lines);
        let signature = instance.sign(&[b"ZSJA-ARCHIVE-v1\0", &instance.id()[..], &digest].concat());
        let seal = json!({ "digest": hex::encode(digest), "signature": hex::encode(signature) });
        format!("{lines}{seal}\n").into_bytes()
    };
    let found = verdict(&resigned(&changed.concat()), Some(key), None).await.unwrap();
    assert!(!found.contains(&"A2") && found.contains(&"J1"), "{found:?}");
    // The same lines signed again are the same archive.
    let same: Vec<String> = lines[..lines.len() - 1].iter().map(|line| format!("{line}\n")).collect();
    assert_eq!(verdict(&resigned(&same.concat()), Some(key), Some(kept)).await.unwrap(), [""; 0]);
    world.check().await;
}

#[tokio::test]
async fn the_command_line_writes_and_checks_an_archive() {
    let (world, _) = busy().await;
    let file = world.folder().join("books.ndjson");
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_zerostate"));
        for (name, _) in std::env::vars() {
            if name.starts_with("ZEROSTATE_") || ["DATABASE_URL", "HOST", "PORT", "RUST_LOG"].contains(&name.as_str()) {
                command.env_remove(name);
            }
        }
        command.env("ZEROSTATE_DATA", world.folder()).env("DATABASE_URL", world.database_url());
        let output = command.arg("audit").args(arguments).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        (output.status.code().unwrap(), said)
    };
    let path = file.to_str().unwrap();
    assert_eq!(run(&["--json"]).0, 0);
    let (code, said) = run(&["export", path]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(run(&["export", path]).0, 1, "an archive is never written over");
    let key = hex::encode(world.app.store().instance().unwrap().public_key());
    let (code, said) = run(&["verify", path, "--public-key", &key]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("A3   ok") && said.contains("L12  ok"), "{said}");
    let text = std::fs::read_to_string(&file).unwrap().replacen("\"COMPLETED\"", "\"REFUNDED\"", 1);
    std::fs::write(&file, text).unwrap();
    let (code, said) = run(&["verify", path]);
    assert_eq!(code, 1);
    assert!(said.contains("The archive breaks A2, L7, L8"), "{said}");
    assert_eq!(run(&["verify", path, "--public-key", "nonsense"]).0, 2);
    world.check().await;
}

/// What people do to the ledger.
#[derive(Clone, Debug)]
enum Step {
    Issue { user: usize, amount: i64, again: bool },
    Redeem { user: usize, amount: i64 },
    Hold { user: usize, amount: i64 },
    Award { hold: usize, price: i64 },
    Release { hold: usize },
    Settle { deposit: usize, amount: i64 },
    Open { user: usize, amount: i64 },
    Pay { stream: usize, amount: i64 },
    Close { stream: usize, amount: i64 },
    Bond { user: usize, amount: i64 },
    Unbond { bond: usize, forfeit: Option<usize> },
    Withdraw { agent: usize, amount: Option<i64> },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (user, amount, which) = (0..3_usize, 1..60_i64, 0..6_usize);
    let step = prop_oneof![
        3 => (user.clone(), 0..100_i64, prop::bool::weighted(0.1)).prop_map(|(user, amount, again)| Step::Issue { user, amount, again }),
        1 => (user.clone(), amount.clone()).prop_map(|(user, amount)| Step::Redeem { user, amount }),
        3 => (user.clone(), amount.clone()).prop_map(|(user, amount)| Step::Hold { user, amount }),
        2 => (which.clone(), amount.clone()).prop_map(|(hold, price)| Step::Award { hold, price }),
        1 => which.clone().prop_map(|hold| Step::Release { hold }),
        3 => (which.clone(), 0..60_i64).prop_map(|(deposit, amount)| Step::Settle { deposit, amount }),
        2 => (user.clone(), amount.clone()).prop_map(|(user, amount)| Step::Open { user, amount }),
        2 => (which.clone(), amount.clone()).prop_map(|(stream, amount)| Step::Pay { stream, amount }),
        1 => (which.clone(), 0..60_i64).prop_map(|(stream, amount)| Step::Close { stream, amount }),
        1 => (user.clone(), amount.clone()).prop_map(|(user, amount)| Step::Bond { user, amount }),
        1 => (which, prop::option::of(user)).prop_map(|(bond, forfeit)| Step::Unbond { bond, forfeit }),
        2 => (0..2_usize, prop::option::of(amount)).prop_map(|(agent, amount)| Step::Withdraw { agent, amount }),
    ];
    prop::collection::vec(step, 15..45)
}

/// A hold or a stream as the model knows it.
#[derive(Clone, Debug)]
struct Lot {
    hold: HoldId,
    task: TaskId,
    channel: ChannelId,
    user: usize,
    amount: i64,
    paid: i64,
    live: bool,
}

/// The reference: balances by account, and what is set aside.
struct Model {
    users: Vec<UserId>,
    agents: Vec<AgentId>,
    auctions: Vec<(AuctionId, TaskId)>,
    fee_bps: i64,
    balances: BTreeMap<uuid::Uuid, i64>,
    references: Vec<String>,
    budgets: Vec<Lot>,
    deposits: Vec<Lot>,
    streams: Vec<Lot>,
    bonds: Vec<(bond::Model, bool)>,
    number: u128,
}

impl Model {
    fn fresh(&mut self) -> uuid::Uuid {
        self.number += 1;
        uuid::Uuid::from_u128(0xfeed << 64 | self.number)
    }

    fn balance(&self, place: Place) -> i64 {
        self.balances.get(&place.id().0).copied().unwrap_or(0)
    }

    /// Moves all of it, or nothing where something would be overdrawn.
    fn moves(&mut self, all: &[(Place, Place, i64)]) -> bool {
        let before = self.balances.clone();
        for (from, to, amount) in all {
            *self.balances.entry(from.id().0).or_default() -= amount;
            *self.balances.entry(to.id().0).or_default() += amount;
            if *from != Place::EXTERNAL && self.balance(*from) < 0 {
                self.balances = before;
                return false;
            }
        }
        true
    }

    /// Does a step in the model and in the books. Answers whether the model did it and whether the books did.
    async fn step(&mut self, work: &mut Work, step: &Step) -> (bool, zerostate::error::Result<()>) {
        let amount_of = |micros: i64| Amount::from_micros(micros).unwrap();
        let user = |model: &Self, user: usize| Place::user(model.users[user]);
        match step {
            Step::Issue { user: to, amount, again } => {
                let old = self.references.first().filter(|_| *again).cloned();
                let expected =
                    *amount > 0 && old.is_none() && self.moves(&[(Place::EXTERNAL, user(self, *to), *amount)]);
                let reference = old.unwrap_or_else(|| self.fresh().to_string());
                if expected {
                    self.references.push(reference.clone());
                }
                let done = ledger::issue(work, self.users[*to], amount_of(*amount), &reference).await;
                (expected, done.map(|_| ()))
            }
            Step::Redeem { user: from, amount } => {
                let expected = self.moves(&[(user(self, *from), Place::EXTERNAL, *amount)]);
                let reference = self.fresh().to_string();
                let done = ledger::redeem(work, self.users[*from], amount_of(*amount), &reference).await;
                (expected, done.map(|_| ()))
            }
            Step::Hold { user: from, amount } => {
                let task = TaskId(self.fresh());
                let expected = self.moves(&[(user(self, *from), Place::task(task), *amount)]);
                match ledger::hold_budget(work, Purse::User(self.users[*from]), task, amount_of(*amount)).await {
                    Ok(row) => {
                        let (hold, channel) = (row.id, ChannelId(self.fresh()));
                        self.budgets.push(Lot {
                            hold,
                            task,
                            channel,
                            user: *from,
                            amount: *amount,
                            paid: 0,
                            live: true,
                        });
                        (expected, Ok(()))
                    }
                    Err(error) => (expected, Err(error)),
                }
            }
            Step::Award { hold, price } => {
                let Some(lot) = self.budgets.get(*hold).cloned() else { return (true, Ok(())) };
                let expected = lot.live
                    && *price <= lot.amount
                    && self.moves(&[
                        (Place::task(lot.task), Place::channel(lot.channel), *price),
                        (Place::task(lot.task), user(self, lot.user), lot.amount - price),
                    ]);
                let payer = self.users[lot.user];
                match ledger::award(work, lot.hold, Purse::User(payer), lot.task, lot.channel, amount_of(*price)).await
                {
                    Ok(row) => {
                        self.budgets[*hold].live = false;
                        self.deposits.push(Lot { hold: row.id, amount: *price, ..lot });
                        (expected, Ok(()))
                    }
                    Err(error) => (expected, Err(error)),
                }
            }
            Step::Release { hold } => {
                let Some(lot) = self.budgets.get(*hold).cloned() else { return (true, Ok(())) };
                let expected = lot.live && self.moves(&[(Place::task(lot.task), user(self, lot.user), lot.amount)]);
                let done = ledger::release_budget(work, lot.hold, Purse::User(self.users[lot.user]), lot.task).await;
                self.budgets[*hold].live = false;
                (expected, done.map(|_| ()))
            }
            Step::Settle { deposit, amount } => {
                let Some(lot) = self.deposits.get(*deposit).cloned() else { return (true, Ok(())) };
                let (agent, fee) = (self.agents[*deposit % 2], amount * self.fee_bps / 10_000);
                let from = Place::channel(lot.channel);
                let expected = lot.live
                    && *amount <= lot.amount
                    && self.moves(&[
                        (from, Place::agent(agent), amount - fee),
                        (from, Place::fees(lot.channel), fee),
                        (from, user(self, lot.user), lot.amount - amount),
                    ]);
                let payer = self.users[lot.user];
                let of =
                    Deposit { hold: lot.hold, payer: Purse::User(payer), agent, task: lot.task, channel: lot.channel };
                let done = ledger::settle(work, of, amount_of(*amount)).await;
                if done.is_ok() {
                    self.deposits[*deposit].live = false;
                }
                (expected, done.map(|_| ()))
            }
            Step::Open { user: from, amount } => {
                let channel = ChannelId(self.fresh());
                let expected = self.moves(&[(user(self, *from), Place::channel(channel), *amount)]);
                let done = ledger::deposit(work, self.users[*from], channel, amount_of(*amount)).await;
                if done.is_ok() {
                    let (task, hold) = (TaskId(self.fresh()), HoldId(self.fresh()));
                    self.streams.push(Lot { hold, task, channel, user: *from, amount: *amount, paid: 0, live: true });
                    let row = stream_row(channel, self.users[*from], self.agents[0], *amount, work.now());
                    channel::Entity::insert(row.into_active_model()).exec_without_returning(work.tx()).await.unwrap();
                }
                (expected, done.map(|_| ()))
            }
            Step::Pay { stream, amount } => {
                let Some(lot) = self.streams.get(*stream).filter(|lot| lot.live).cloned() else {
                    return (true, Ok(()));
                };
                let done = self.pay(work, &lot, *amount, 0).await;
                if done.1.is_ok() {
                    self.streams[*stream].paid += amount;
                    note(work, lot.channel, lot.paid + amount, None).await;
                }
                done
            }
            Step::Close { stream, amount } => {
                let Some(lot) = self.streams.get(*stream).filter(|lot| lot.live).cloned() else {
                    return (true, Ok(()));
                };
                let rest = lot.amount - lot.paid - amount;
                if rest < 0 {
                    return (true, Ok(()));
                }
                let done = self.pay(work, &lot, *amount, rest).await;
                self.streams[*stream].live = false;
                note(work, lot.channel, lot.paid + amount, Some(work.now())).await;
                done
            }
            Step::Bond { user: from, amount } => {
                let (auction_id, task_id) = self.auctions[self.bonds.len() % self.auctions.len()];
                let row = bond::Model {
                    id: BondId(self.fresh()),
                    auction_id,
                    task_id,
                    agent_id: self.agents[0],
                    bidder_id: self.users[*from],
                    amount: amount_of(*amount),
                    status: bond::Status::Held,
                    created_at: work.now(),
                    resolved_at: None,
                };
                if self.bonds.iter().any(|(other, live)| *live && other.auction_id == auction_id) {
                    return (true, Ok(()));
                }
                let expected = self.moves(&[(user(self, *from), Place::bond(row.id), *amount)]);
                let done = ledger::move_bonds(work, &[(row.clone(), BondMove::Put)]).await;
                if done.is_ok() {
                    bond::Entity::insert(row.clone().into_active_model())
                        .exec_without_returning(work.tx())
                        .await
                        .unwrap();
                    self.bonds.push((row, true));
                }
                (expected, done.map(|_| ()))
            }
            Step::Unbond { bond, forfeit } => {
                let Some((row, live)) = self.bonds.get(*bond).cloned() else { return (true, Ok(())) };
                let to = forfeit.map_or(row.bidder_id, |user| self.users[user]);
                let how = forfeit.map_or(BondMove::Return, |_| BondMove::Forfeit(to));
                let expected = live && self.moves(&[(Place::bond(row.id), Place::user(to), row.amount.micros())]);
                let done = ledger::move_bonds(work, &[(row.clone(), how)]).await;
                if done.is_ok() {
                    self.bonds[*bond].1 = false;
                    bond::Entity::update_many()
                        .col_expr(bond::Column::Status, Expr::value(bond::Status::Returned))
                        .col_expr(bond::Column::ResolvedAt, Expr::value(work.now()))
                        .filter(bond::Column::Id.eq(row.id))
                        .exec(work.tx())
                        .await
                        .unwrap();
                }
                (expected, done.map(|_| ()))
            }
            Step::Withdraw { agent, amount } => {
                let from = Place::agent(self.agents[*agent]);
                let all = amount.unwrap_or(self.balance(from));
                let expected = all > 0 && self.moves(&[(from, user(self, 0), all)]);
                let done = ledger::withdraw(work, self.agents[*agent], amount.map(amount_of)).await;
                (expected, done.map(|_| ()))
            }
        }
    }

    async fn pay(
        &mut self,
        work: &mut Work,
        lot: &Lot,
        amount: i64,
        rest: i64,
    ) -> (bool, zerostate::error::Result<()>) {
        let (agent, from, fee) = (self.agents[0], Place::channel(lot.channel), amount * self.fee_bps / 10_000);
        let expected = self.moves(&[
            (from, Place::agent(agent), amount - fee),
            (from, Place::fees(lot.channel), fee),
            (from, Place::user(self.users[lot.user]), rest),
        ]);
        let of = |micros: i64| Amount::from_micros(micros).unwrap();
        let stream = Stream {
            channel: lot.channel,
            payer: self.users[lot.user],
            agent,
            earned: of(amount - fee),
            fee: of(fee),
            returned: of(rest),
        };
        (expected, ledger::pay_stream(work, stream).await.map(|_| ()))
    }
}

fn stream_row(
    id: ChannelId,
    payer: UserId,
    agent: AgentId,
    amount: i64,
    now: entity::time::Timestamp,
) -> channel::Model {
    channel::Model {
        id,
        purpose: channel::Purpose::Stream,
        payer_id: payer,
        agent_id: agent,
        task_id: None,
        hold_id: None,
        deposit: Amount::from_micros(amount).unwrap(),
        paid: Amount::ZERO,
        nonce: 1,
        status: channel::Status::Open,
        close_reason: None,
        opened_at: now,
        expires_at: now.after(Duration::from_hours(1)),
        closed_at: None,
        hash: Some(format!("{:064x}", id.0.as_u128())),
        signer_key: None,
        salt: Some("0".repeat(64)),
        settle_delay_s: Some(900),
        voucher_nonce: 0,
        fee_bps: 0,
        close_at: None,
    }
}

/// Writes down what a stream has paid, and that it is over.
async fn note(work: &Work, id: ChannelId, paid: i64, closed: Option<entity::time::Timestamp>) {
    let mut change = channel::Entity::update_many()
        .col_expr(channel::Column::Paid, Expr::value(paid))
        .filter(channel::Column::Id.eq(id));
    if let Some(closed) = closed {
        change = change
            .col_expr(channel::Column::Status, Expr::value(channel::Status::Closed))
            .col_expr(channel::Column::CloseReason, Expr::value(channel::CloseReason::AgentClosed))
            .col_expr(channel::Column::ClosedAt, Expr::value(closed));
    }
    change.exec(work.tx()).await.unwrap();
}

/// All balances that are not zero.
async fn balances(db: &impl ConnectionTrait) -> BTreeMap<uuid::Uuid, i64> {
    let all = account::Entity::find().all(db).await.unwrap();
    all.into_iter().filter(|account| account.balance != 0).map(|account| (account.id.0, account.balance)).collect()
}

/// One history in one unit of work that is undone at its end. Because it is one, a refusal that had written anything would show.
async fn history(store: &Store, admin: &Caller, begun: &Model, steps: &[Step]) -> usize {
    let signer = Signer::of(store.instance().unwrap().public_key());
    let mut model = Model {
        users: begun.users.clone(),
        agents: begun.agents.clone(),
        auctions: begun.auctions.clone(),
        balances: BTreeMap::new(),
        references: Vec::new(),
        budgets: Vec::new(),
        deposits: Vec::new(),
        streams: Vec::new(),
        bonds: Vec::new(),
        ..*begun
    };
    let mut done = 0;
    let undone = store.write(admin.clone(), async |work| {
        model.balances = balances(work.tx()).await;
        for step in steps {
            let before = balances(work.tx()).await;
            let (expected, came) = model.step(work, step).await;
            assert_eq!(expected, came.is_ok(), "{step:?} of {steps:?}: {came:?}");
            let now = balances(work.tx()).await;
            if came.is_err() {
                assert_eq!(now, before, "{step:?} was refused and left a trace");
            }
            model.balances.retain(|_, balance| *balance != 0);
            assert_eq!(now, model.balances, "{step:?} of {steps:?}");
            assert_eq!(now.values().sum::<i64>(), 0);
            let audit = ledger::audit(work.tx(), signer, References::Text, Reach::Whole).await?;
            assert!(audit.ok(), "{step:?} of {steps:?}: {audit:#?}");
            done += 1;
        }
        Err::<(), _>(Error::Unavailable("undone"))
    });
    assert!(matches!(undone.await, Err(Error::Unavailable("undone"))));
    done
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ledger_does_what_a_few_lines_of_arithmetic_say() {
    let world = World::with(|config| config.terms.fee_bps = 1_000).await;
    let admin = world.admin().await;
    world.credit(&admin, "2").await;
    let mut auctions = Vec::new();
    for _ in 0..2 {
        let auction = admin.open(json!({ "budget": "1" })).await;
        let task = admin.auction(&auction).await["task"]["id"].as_str().unwrap().to_owned();
        auctions.push((auction.parse().unwrap(), task.parse().unwrap()));
    }
    let agents = vec![
        world.agent(&admin, "one", "EXTERNAL", "a", "1").await,
        world.agent(&admin, "two", "EXTERNAL", "a", "1").await,
    ];
    let users =
        [&admin, &world.user("ada").await, &world.user("bob").await].map(|user| user.id().parse().unwrap()).to_vec();
    let model = Model {
        users,
        agents,
        auctions,
        fee_bps: 1_000,
        balances: BTreeMap::new(),
        references: Vec::new(),
        budgets: Vec::new(),
        deposits: Vec::new(),
        streams: Vec::new(),
        bonds: Vec::new(),
        number: 0,
    };
    let caller = Caller::User(Identity {
        user: model.users[0],
        role: entity::user::Role::Admin,
        session: None,
        key: None,
        expires_at: None,
    });
    let done = std::cell::Cell::new(0);
    let mut runner = TestRunner::new(Cases { cases: 240, failure_persistence: None, ..Cases::default() });
    let runtime = tokio::runtime::Handle::current();
    runner
        .run(&steps(), |steps| {
            let ran = history(world.app.store(), &caller, &model, &steps);
            done.set(done.get() + tokio::task::block_in_place(|| runtime.block_on(ran)));
            Ok(())
        })
        .unwrap();
    assert!(done.get() >= 6_000, "only {} steps", done.get());
    assert_eq!(hold::Entity::find().all(world.app.store().read()).await.unwrap().len(), 2, "all of it was undone");
    world.check().await;
}
