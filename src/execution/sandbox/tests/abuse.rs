//! Guests with the JSON interface: what works, and everything that one can do wrong.

use super::*;

/// The four functions, each with a body that answers as a well-behaved echo does. The input lies at 4096.
const ALLOC: &str = r#"(func (export "alloc_memory") (param i32) (result i32) (i32.const 4096))"#;
const EXECUTE: &str = r#"(func (export "execute") (param $at i32) (param $len i32) (result i32)
    (global.set $at (local.get $at)) (global.set $len (local.get $len)) (i32.const 0))"#;
const PTR: &str = r#"(func (export "get_result_ptr") (result i32) (global.get $at))"#;
const LEN: &str = r#"(func (export "get_result_len") (result i32) (global.get $len))"#;

/// A module that gives its input back, but for the functions that are put in the place of others.
fn guest(instead: &[(&str, &str)], fields: &str) -> Bytes {
    let body = |function| instead.iter().find(|(other, _)| *other == function).map_or(function, |(_, body)| *body);
    let functions = [ALLOC, EXECUTE, PTR, LEN].map(body).join("\n");
    wat(&format!(
        r#"(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
            (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 2)
            (global $at (mut i32) (i32.const 0)) (global $len (mut i32) (i32.const 0))
            {functions} {fields})"#
    ))
}

/// A module of which one function answers a number.
fn answering(function: &str, number: &str) -> Bytes {
    let head = function.find("(result i32)").unwrap() + "(result i32)".len();
    let body = format!("{} (i32.const {number}))", &function[..head]);
    guest(&[(function, &body)], "")
}

/// A module of which one function does something and never answers.
fn doing(function: &str, body: &str) -> Bytes {
    let head = function.find("(result i32)").unwrap() + "(result i32)".len();
    guest(&[(function, &format!("{} {body} unreachable)", &function[..head]))], "")
}

async fn outcome(wasm: &Bytes, input: &[u8]) -> Result<Bytes, Fault> {
    run_in(&sandbox(), wasm, input, short()).await.outcome
}

async fn fault_of(wasm: &Bytes) -> Fault {
    outcome(wasm, b"{}").await.unwrap_err()
}

#[tokio::test]
async fn what_is_put_in_comes_out() {
    let echo = guest(&[], "");
    for input in [&b"{\"a\":[1,2,3]}"[..], "\"Gr\u{fc}\u{df}e\"".as_bytes(), &vec![b' '; 100_000]] {
        assert_eq!(outcome(&echo, input).await, Ok(Bytes::copy_from_slice(input)));
    }
    let run = run_in(&sandbox(), &echo, b"{}", short()).await;
    assert_eq!(run.usage.peak_memory_bytes, 2 * 65_536);
    assert!(run.usage.fuel > 0);
    assert_eq!(run.usage.fuel, run_in(&sandbox(), &echo, b"{}", short()).await.usage.fuel);
    // The limit of the output counts for results too, to the byte.
    let limits = |output_bytes| Limits { output_bytes, ..short() };
    assert!(run_in(&sandbox(), &echo, b"1234", limits(4)).await.outcome.is_ok());
    let large = run_in(&sandbox(), &echo, b"12345", limits(4)).await.outcome;
    assert_eq!(large, Err(Fault::OutputTooLarge { limit: 4 }));
}

#[tokio::test]
async fn a_module_is_set_up_before_it_is_asked() {
    let moved = r#"(func (export "alloc_memory") (param i32) (result i32) (global.get $base))"#;
    for name in ["_initialize", "_start"] {
        let fields = format!(
            r#"(global $base (mut i32) (i32.const 0)) (func (export "{name}") (global.set $base (i32.const 8192)))"#
        );
        assert_eq!(outcome(&guest(&[(ALLOC, moved)], &fields), b"7").await, Ok(Bytes::from_static(b"7")), "{name}");
    }
}

#[tokio::test]
async fn what_it_prints_is_its_log_and_nothing_can_be_read() {
    let talker = r#"(func (export "execute") (param $at i32) (param $len i32) (result i32)
        (i32.store (i32.const 0) (i32.const 100)) (i32.store (i32.const 4) (i32.const 5))
        (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
        (drop (call $fd_write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8)))
        (drop (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
        (global.set $at (i32.const 120)) (global.set $len (i32.const 1))
        (i32.store8 (i32.const 120) (i32.add (i32.const 48) (i32.load (i32.const 8)))) (i32.const 0))"#;
    let run =
        run_in(&sandbox(), &guest(&[(EXECUTE, talker)], r#"(data (i32.const 100) "said\n")"#), b"{}", short()).await;
    assert_eq!((run.outcome, run.logs.as_str()), (Ok(Bytes::from_static(b"0")), "said\nsaid\n"));
}

#[tokio::test]
async fn a_failure_is_told_with_its_reason() {
    for status in [1, -1, 77] {
        let body = format!(
            r#"(func (export "execute") (param i32 i32) (result i32)
                (global.set $at (i32.const 100)) (global.set $len (i32.const 14)) (i32.const {status}))"#
        );
        let failing = guest(&[(EXECUTE, &body)], r#"(data (i32.const 100) "{\"error\":\"no\"}")"#);
        let run = run_in(&sandbox(), &failing, b"{}", short()).await;
        assert_eq!(run.outcome, Err(Fault::ExecuteFailed(status)));
        assert_eq!(run.logs, r#"{"error":"no"}"#);
        let cut = run_in(&sandbox(), &failing, b"{}", Limits { log_bytes: 4, ..short() }).await;
        assert_eq!(cut.logs, "{\"er\n[cut: only the first 4 bytes of the log are kept]");
    }
    // A reason that is not there is no reason to trust the rest.
    let lost = r#"(func (export "execute") (param i32 i32) (result i32)
        (global.set $at (i32.const -9)) (global.set $len (i32.const -1)) (i32.const 1))"#;
    let run = run_in(&sandbox(), &guest(&[(EXECUTE, lost)], ""), b"{}", short()).await;
    assert_eq!((run.outcome, run.logs.as_str()), (Err(Fault::ExecuteFailed(1)), ""));
}

#[tokio::test]
async fn places_outside_the_memory_are_faults() {
    let two_pages = 2 * 65_536;
    for at in ["0", "131072", "131071", "-1", "-2", "0x7fffffff", "0x80000000"] {
        let Fault::BadPointer { function, bytes, .. } = fault_of(&answering(ALLOC, at)).await else { panic!("{at}") };
        assert_eq!((function, bytes), ("alloc_memory", 2), "{at}");
    }
    for at in ["131071", "131072", "-1", "0x80000000"] {
        let Fault::BadPointer { function, .. } = fault_of(&answering(PTR, at)).await else { panic!("{at}") };
        assert_eq!(function, "get_result_ptr", "{at}");
    }
    for (len, bytes) in [("-1", u64::from(u32::MAX)), ("131072", two_pages), ("0x80000000", 1 << 31)] {
        let expected = Fault::BadPointer { function: "get_result_ptr", at: 4_096, bytes };
        assert_eq!(fault_of(&answering(LEN, len)).await, expected, "{len}");
    }
    // The last byte of the memory is a place like any other, and so is the input's.
    assert_eq!(outcome(&answering(ALLOC, "131070"), b"{}").await, Ok(Bytes::from_static(b"{}")));
    assert_eq!(outcome(&answering(ALLOC, "1"), b"{}").await, Ok(Bytes::from_static(b"{}")));
    let twice = guest(&[(PTR, &PTR.replace("global.get $at", "i32.const 4096"))], "");
    assert_eq!(outcome(&twice, b"{}").await, Ok(Bytes::from_static(b"{}")));
}

#[tokio::test]
async fn a_result_larger_than_the_limit_is_never_copied() {
    let grown = r#"(func (export "get_result_len") (result i32)
        (drop (memory.grow (i32.const 900))) (i32.const 0x3000000))"#;
    assert_eq!(fault_of(&guest(&[(LEN, grown)], "")).await, Fault::OutputTooLarge { limit: 1 << 20 });
}

#[tokio::test]
async fn no_result_is_a_fault_and_so_is_leaving_early() {
    assert_eq!(fault_of(&answering(LEN, "0")).await, Fault::NoResult);
    for function in [ALLOC, EXECUTE, PTR, LEN] {
        assert_eq!(fault_of(&doing(function, "(call $exit (i32.const 0))")).await, Fault::NoResult);
        assert_eq!(fault_of(&doing(function, "(call $exit (i32.const 3))")).await, Fault::ExitCode(3));
    }
    let started = guest(&[], r#"(func (export "_start") (call $exit (i32.const 0)))"#);
    assert_eq!(fault_of(&started).await, Fault::NoResult);
}

#[tokio::test]
async fn each_function_is_bounded_by_itself() {
    let endless = "(loop $again (br $again))";
    let bomb = "(loop $more (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))";
    for function in [ALLOC, EXECUTE, PTR, LEN] {
        assert!(matches!(fault_of(&doing(function, "")).await, Fault::Trap { .. }), "{function}");
        assert_eq!(fault_of(&doing(function, endless)).await, Fault::OutOfFuel, "{function}");
        assert_eq!(fault_of(&doing(function, bomb)).await, Fault::OutOfMemory, "{function}");
    }
    let wall = Limits { wall: Duration::from_millis(200), ..seconds(1) };
    assert_eq!(run_in(&sandbox(), &doing(ALLOC, endless), b"{}", wall).await.outcome, Err(Fault::OutOfTime));
    for start in ["(start $init)", r#"(export "_initialize" (func $init))"#] {
        let looping = guest(&[], &format!("(func $init {endless}) {start}"));
        assert_eq!(fault_of(&looping).await, Fault::OutOfFuel, "{start}");
    }
    let deep = r#"(func $deep (export "execute") (param i32 i32) (result i32)
        (i32.add (i32.const 1) (call $deep (local.get 0) (local.get 1))))"#;
    let run = run_in(&sandbox(), &guest(&[(EXECUTE, deep)], ""), b"{}", Limits::default()).await;
    assert_eq!(run.outcome, Err(Fault::StackOverflow));
}

#[tokio::test]
async fn an_allocator_that_is_refused_memory_is_out_of_memory() {
    // Answers what `memory.grow` does, in bytes: a refusal is the place -65536.
    let greedy = r#"(func (export "alloc_memory") (param i32) (result i32)
        (i32.mul (i32.const 65536) (memory.grow (i32.const 2000))))"#;
    assert_eq!(fault_of(&guest(&[(ALLOC, greedy)], "")).await, Fault::OutOfMemory);
    let null = r#"(func (export "alloc_memory") (param i32) (result i32)
        (select (i32.const 0) (i32.const 4096) (i32.eq (memory.grow (i32.const 2000)) (i32.const -1))))"#;
    assert_eq!(fault_of(&guest(&[(ALLOC, null)], "")).await, Fault::OutOfMemory);
    // The memory may grow and move between the calls; what was given before is looked up anew.
    let growing = r#"(func (export "get_result_len") (result i32) (drop (memory.grow (i32.const 500))) (i32.const 2))"#;
    assert_eq!(outcome(&guest(&[(LEN, growing)], ""), b"{}").await, Ok(Bytes::from_static(b"{}")));
}

#[tokio::test]
async fn nothing_to_give_is_still_a_place() {
    // The allocator is asked for one byte when the input has none; zero bytes would be undefined.
    let picky = r#"(func (export "alloc_memory") (param $len i32) (result i32)
        (if (i32.eqz (local.get $len)) (then unreachable)) (i32.const 4096))"#;
    assert_eq!(outcome(&guest(&[(ALLOC, picky)], ""), b"").await, Err(Fault::NoResult));
}
