//! Guests in every interface: what the market takes, what it refuses and why, and that none of them can do harm.

use std::{
    path::Path,
    process::{Command, Output},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::world::{Client, World, answering, sample};

/// A module with the JSON interface whose functions have the given bodies: `alloc_memory(size)`, `execute(at, len)`,
/// `get_result_ptr()` and `get_result_len()`. `data` lies at 64.
fn json_guest(bodies: [&str; 4], fields: &str, data: &str) -> Vec<u8> {
    let [alloc, execute, ptr, len] = bodies;
    let text = format!(
        r#"(module (memory (export "memory") 2) (data (i32.const 64) "{data}")
            (func (export "alloc_memory") (param $size i32) (result i32) {alloc})
            (func (export "execute") (param $at i32) (param $len i32) (result i32) {execute})
            (func (export "get_result_ptr") (result i32) {ptr})
            (func (export "get_result_len") (result i32) {len})
            {fields})"#
    );
    wat::parse_str(text).unwrap()
}

const ALLOC: &str = "i32.const 4096";
const OK: &str = "i32.const 0";
const AT: &str = "i32.const 64";

/// A buyer with 100 credits.
async fn buyer(world: &World) -> Client {
    let ada = world.user("ada").await;
    world.credit(&ada, "100").await;
    ada
}

#[tokio::test]
async fn agents_of_every_interface_are_uploaded_win_work_and_are_paid() {
    let world = World::start().await;
    let ada = buyer(&world).await;
    let bob = world.user("bob").await;
    let component = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("agents/component/text-stats-lite.wasm"));
    let shout = json!({ "text": " a  b ", "operation": "squeeze" });
    for (name, wasm, interface, input, output) in [
        ("command", answering("42"), "WASI_COMMAND", json!(1), json!(42)),
        ("assembly-script", sample("text-transform-lite"), "JSON_ABI", shout.clone(), json!({ "text": "a b" })),
        ("reactor", sample("text-transform-pro"), "JSON_ABI", shout, json!({ "text": "a b" })),
        ("plain", json_guest([ALLOC, OK, AT, "i32.const 2"], "", "17"), "JSON_ABI", json!([]), json!(17)),
        (
            "component",
            component.unwrap(),
            "WASI_COMPONENT",
            json!("Hello, world."),
            json!({ "characters": 13, "bytes": 13, "words": 2, "lines": 1 }),
        ),
    ] {
        let agent = world.hosted_agent(&bob, name, name, "1", wasm).await;
        let query = "query($id: ID!) { agent(id: $id) { module { interface } } }";
        let shown = ada.query(query, json!({ "id": agent.to_string() })).await;
        assert_eq!(shown["agent"]["module"]["interface"], interface, "{name}");
        let id = ada.execute(json!({ "capabilities": [name], "input": input })).await;
        world.settle().await;
        let task = ada.task(&id).await;
        assert_eq!((&task["status"], &task["result"]["output"]), (&json!("COMPLETED"), &output), "{name}: {task:#}");
        assert_eq!(bob.earned(agent).await, "1", "{name}");
    }
    world.check().await;
}

#[tokio::test]
async fn a_guest_with_the_json_interface_that_does_harm_is_not_paid() {
    let world = World::with(|config| config.execution.fuel = 50_000_000).await;
    let ada = buyer(&world).await;
    let endless = "(loop $again (br $again)) unreachable";
    let bomb = "(loop $more (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable";
    let grown = "(drop (memory.grow (i32.const 900))) i32.const 0x3000000";
    let two = "i32.const 2";
    let init = "(func $init (loop $again (br $again)))";
    let abuse: [(&str, Vec<u8>, &str); 19] = [
        ("result-out-of-bounds", json_guest([ALLOC, OK, "i32.const 131071", two], "", ""), "BAD_POINTER"),
        ("result-at-the-end", json_guest([ALLOC, OK, "i32.const -1", two], "", ""), "BAD_POINTER"),
        ("four-gibibytes", json_guest([ALLOC, OK, AT, "i32.const -1"], "", ""), "BAD_POINTER"),
        ("alloc-null", json_guest([OK, OK, AT, two], "", "{}"), "BAD_POINTER"),
        ("alloc-out-of-bounds", json_guest(["i32.const 131070", OK, AT, two], "", "{}"), "BAD_POINTER"),
        ("alloc-refused", json_guest(["(memory.grow (i32.const 60000))", OK, AT, two], "", "{}"), "OUT_OF_MEMORY"),
        ("execute-traps", json_guest([ALLOC, "unreachable", AT, two], "", ""), "TRAP"),
        ("execute-fails", json_guest([ALLOC, "i32.const 1", AT, two], "", "no"), "EXECUTE_FAILED"),
        ("alloc-loops", json_guest([endless, OK, AT, two], "", ""), "OUT_OF_FUEL"),
        ("execute-loops", json_guest([ALLOC, endless, AT, two], "", ""), "OUT_OF_FUEL"),
        ("length-loops", json_guest([ALLOC, OK, AT, endless], "", ""), "OUT_OF_FUEL"),
        ("memory-bomb", json_guest([ALLOC, bomb, AT, two], "", ""), "OUT_OF_MEMORY"),
        ("start-loops", json_guest([ALLOC, OK, AT, two], &format!("{init} (start $init)"), ""), "OUT_OF_FUEL"),
        (
            "set-up-loops",
            json_guest([ALLOC, OK, AT, two], &format!(r#"{init} (export "_initialize" (func $init))"#), ""),
            "OUT_OF_FUEL",
        ),
        (
            "deep",
            json_guest(
                [ALLOC, "(i32.add (i32.const 1) (call $deep))", AT, two],
                "(func $deep (result i32) (i32.add (i32.const 1) (call $deep)))",
                "",
            ),
            "STACK_OVERFLOW",
        ),
        ("not-utf-8", json_guest([ALLOC, OK, AT, two], "", "\\ff\\fe"), "OUTPUT_NOT_JSON"),
        ("not-json", json_guest([ALLOC, OK, AT, two], "", "{]"), "OUTPUT_NOT_JSON"),
        ("huge-result", json_guest([ALLOC, OK, AT, grown], "", ""), "OUTPUT_TOO_LARGE"),
        ("no-result", json_guest([ALLOC, OK, AT, "i32.const 0"], "", ""), "NO_RESULT"),
    ];
    for (name, wasm, code) in abuse {
        let owner = world.user(name).await;
        let agent = world.hosted_agent(&owner, name, name, "1", wasm).await;
        let started = Instant::now();
        let id = ada.execute(json!({ "capabilities": [name], "input": { "a": 1 } })).await;
        world.settle().await;
        assert!(started.elapsed() < Duration::from_secs(30), "{name} took {:?}", started.elapsed());
        let task = ada.task(&id).await;
        assert_eq!((&task["status"], &task["failureCode"]), (&json!("REFUNDED"), &json!(code)), "{name}: {task:#}");
        let result = &task["result"];
        assert_eq!((&result["faultCode"], &result["output"]), (&json!(code), &Value::Null), "{name}");
        assert_eq!(ada.wallet().await, ("100".to_owned(), "0".to_owned()), "{name}");
        assert_eq!(owner.earned(agent).await, "0", "{name}");
        // The agent is to blame: its reputation moved.
        assert_eq!(world.score(agent).await, "40.277", "{name}");
    }
    world.check().await;
}

#[tokio::test]
async fn what_an_upload_lacks_is_said() {
    let world = World::start().await;
    let bob = world.user("bob").await;
    let id = world.agent(&bob, "hosted", "HOSTED", "a", "1").await.to_string();
    let wat = |text: &str| wat::parse_str(text).unwrap();
    let run = r#"(core module $m (func (export "run") (result i32) i32.const 0)) (core instance $i (instantiate $m))
        (func $run (result (result)) (canon lift (core func $i "run"))) (instance $c (export "run" (func $run)))
        (export "wasi:cli/run@0.2.0" (instance $c))"#;
    for (module, code, said) in [
        (
            wat(
                r#"(module (memory (export "memory") 1) (func (export "execute") (param i32 i32) (result i32) i32.const 0))"#,
            ),
            "INCOMPLETE_INTERFACE",
            "but not `alloc_memory`, `get_result_ptr`, `get_result_len`",
        ),
        (
            wat(
                r#"(module (memory (export "memory") 1) (func (export "add") (param i32 i32) (result i32) i32.const 0))"#,
            ),
            "MISSING_ENTRY_POINT",
            "`_start`",
        ),
        (
            json_guest([ALLOC, OK, AT, OK], r#"(func (export "_start") (param i32))"#, ""),
            "WRONG_SIGNATURE",
            "`_start` must have the type () -> ()",
        ),
        (
            wat(r#"(module (import "env" "abort" (func)) (memory (export "memory") 1) (func (export "_start")))"#),
            "FORBIDDEN_IMPORT",
            "env.abort",
        ),
        (wat("(component)"), "MISSING_RUN", "wasi:cli/run"),
        (
            wat(&format!(r#"(component (import "wasi:http/types@0.2.0" (instance)) {run})"#)),
            "FORBIDDEN_INTERFACE",
            "wasi:http/types@0.2.0",
        ),
    ] {
        let reply = bob.upload(&id, module).await;
        let error = reply.json()["errors"][0].take();
        assert_eq!((reply.status, &error["extensions"]["code"]), (422, &json!(code)), "{error}");
        assert!(error["message"].as_str().unwrap().contains(said), "{error}");
    }
    assert_eq!(world.rows("agent_modules").await, 0);
    world.check().await;
}

/// Runs the program with a module and an input in a folder of their own.
fn zerostate(arguments: &[&str], module: &[u8], input: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("module.wasm"), module).unwrap();
    std::fs::write(folder.path().join("input.json"), input).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_zerostate"));
    for (name, _) in std::env::vars() {
        if name.starts_with("ZEROSTATE_") || ["DATABASE_URL", "RUST_LOG"].contains(&name.as_str()) {
            command.env_remove(name);
        }
    }
    let output = command.current_dir(folder.path()).arg("agent").args(arguments).output().unwrap();
    assert!(!folder.path().join("data").exists(), "a trial needs no data folder");
    output
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn a_module_is_checked_without_a_server() {
    let good = zerostate(&["check", "module.wasm", "--json"], &sample("text-transform-lite"), "");
    let document: Value = serde_json::from_slice(&good.stdout).unwrap();
    assert_eq!(
        (good.status.code(), &document["valid"], &document["interface"]),
        (Some(0), &json!(true), &json!("JSON_ABI"))
    );
    let plain = zerostate(&["check", "module.wasm"], &answering("1"), "");
    assert!(plain.status.success() && text(&plain.stdout).contains("WASI_COMMAND"), "{plain:?}");

    let bad = wat::parse_str(r#"(module (memory (export "memory") 1) (func (export "get_result_ptr")))"#).unwrap();
    let refused = zerostate(&["check", "module.wasm", "--json"], &bad, "");
    let document: Value = serde_json::from_slice(&refused.stdout).unwrap();
    assert_eq!((refused.status.code(), &document["code"]), (Some(1), &json!("INCOMPLETE_INTERFACE")));
    assert!(text(&refused.stderr).contains("`alloc_memory`, `execute`, `get_result_len`"), "{refused:?}");
    // What only the linker sees is seen as well.
    let twisted = r#"(module (import "wasi_snapshot_preview1" "fd_write" (func)) (memory (export "memory") 1)
        (func (export "_start")))"#;
    let refused = zerostate(&["check", "module.wasm"], &wat::parse_str(twisted).unwrap(), "");
    assert!(refused.status.code() == Some(1) && text(&refused.stderr).contains("INVALID_MODULE"), "{refused:?}");
    assert_eq!(zerostate(&["check", "nothing.wasm"], &bad, "").status.code(), Some(2));
}

#[test]
fn a_module_is_tried_without_a_server() {
    let run = ["run", "module.wasm", "--input", "input.json", "--json"];
    let input = r#"{ "text": "abc", "operation": "reverse" }"#;
    let tried = zerostate(&run, &sample("text-transform-pro"), input);
    assert_eq!(tried.status.code(), Some(0), "{tried:?}");
    let document: Value = serde_json::from_slice(&tried.stdout).unwrap();
    assert_eq!((&document["outcome"], &document["output"]), (&json!("SUCCEEDED"), &json!({ "text": "cba" })));
    let fuel = document["usage"]["fuel"].as_str().unwrap().to_owned();
    assert!(fuel.parse::<u64>().unwrap() > 1_000, "{fuel}");
    let again = zerostate(&run, &sample("text-transform-pro"), input);
    let document: Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!(document["usage"]["fuel"], fuel, "a run can be repeated");

    // The output alone is on standard output; the log and the usage are for people.
    let plain = zerostate(&["run", "module.wasm", "--input", "input.json"], &answering("[1]"), "0");
    assert_eq!(text(&plain.stdout), "[1]\n");
    assert!(text(&plain.stderr).contains("log:\ndone\n") && text(&plain.stderr).contains("units of fuel"), "{plain:?}");

    for (module, code) in [
        (json_guest([ALLOC, OK, AT, "i32.const -1"], "", ""), "BAD_POINTER"),
        (json_guest([ALLOC, OK, AT, "i32.const 2"], "", "{]"), "OUTPUT_NOT_JSON"),
        (json_guest([ALLOC, "(loop $again (br $again)) unreachable", AT, OK], "", ""), "OUT_OF_FUEL"),
    ] {
        let failed = zerostate(&run, &module, "null");
        assert_eq!(failed.status.code(), Some(1), "{failed:?}");
        let document: Value = serde_json::from_slice(&failed.stdout).unwrap();
        assert_eq!((&document["outcome"], &document["fault"]["code"]), (&json!("FAILED"), &json!(code)));
        assert!(text(&failed.stderr).contains(code), "{failed:?}");
    }
    let refused = zerostate(&run, b"hello", "null");
    let document: Value = serde_json::from_slice(&refused.stdout).unwrap();
    assert_eq!((refused.status.code(), &document["fault"]["code"]), (Some(1), &json!("NOT_WASM")));
    assert_eq!(zerostate(&run, &answering("1"), "no json").status.code(), Some(2));
}
