//! WASI 0.2 commands: the same world and the same limits as for all others.

use super::*;
use crate::execution::sandbox::component::link;

/// `text-stats-lite` as a component; `agents/README.md` says how it is made.
const STATS: &[u8] = include_bytes!("../../../../agents/component/text-stats-lite.wasm");

/// A component that runs the given core functions, of which one is exported as `run` and answers 0 for success. They may call
/// `$print(fd, at, len)`, `$now() → ns`, `$wait(ns) → pollable`, `$until(ns) → pollable`, `$block(pollable)`,
/// `$is_ready(pollable)`, `$poll(list, count, answer)`, `$random(count, answer)`, `$exit(result)` and `$tcp(family, answer)`.
fn component(fields: &str) -> Bytes {
    wat(&format!(
        r#"(component
        (import "wasi:io/error@0.2.0" (instance $errors (export "error" (type (sub resource)))))
        (alias export $errors "error" (type $error))
        (import "wasi:io/poll@0.2.0" (instance $polls
            (export "pollable" (type $p (sub resource)))
            (export "[method]pollable.block" (func (param "self" (borrow $p))))
            (export "[method]pollable.ready" (func (param "self" (borrow $p)) (result bool)))
            (export "poll" (func (param "in" (list (borrow $p))) (result (list u32))))))
        (alias export $polls "pollable" (type $pollable))
        (import "wasi:io/streams@0.2.0" (instance $streams
            (alias outer 1 $error (type $e')) (export "error" (type $e (eq $e')))
            (type $failed' (variant (case "last-operation-failed" (own $e)) (case "closed")))
            (export "stream-error" (type $failed (eq $failed')))
            (export "output-stream" (type $out (sub resource)))
            (export "[method]output-stream.blocking-write-and-flush"
                (func (param "self" (borrow $out)) (param "contents" (list u8)) (result (result (error $failed)))))))
        (alias export $streams "output-stream" (type $output))
        (import "wasi:cli/stdout@0.2.0" (instance $stdout
            (alias outer 1 $output (type $o')) (export "output-stream" (type $o (eq $o')))
            (export "get-stdout" (func (result (own $o))))))
        (import "wasi:cli/stderr@0.2.0" (instance $stderr
            (alias outer 1 $output (type $o')) (export "output-stream" (type $o (eq $o')))
            (export "get-stderr" (func (result (own $o))))))
        (import "wasi:cli/exit@0.2.0" (instance $exits (export "exit" (func (param "status" (result))))))
        (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock
            (alias outer 1 $pollable (type $p')) (export "pollable" (type $p (eq $p')))
            (export "now" (func (result u64)))
            (export "subscribe-instant" (func (param "when" u64) (result (own $p))))
            (export "subscribe-duration" (func (param "when" u64) (result (own $p))))))
        (import "wasi:random/random@0.2.0" (instance $random
            (export "get-random-bytes" (func (param "len" u64) (result (list u8))))))
        (import "wasi:sockets/network@0.2.0" (instance $network
            (type $code' (enum "unknown" "access-denied" "not-supported" "invalid-argument" "out-of-memory" "timeout"
                "concurrency-conflict" "not-in-progress" "would-block" "invalid-state" "new-socket-limit"
                "address-not-bindable" "address-in-use" "remote-unreachable" "connection-refused" "connection-reset"
                "connection-aborted" "datagram-too-large" "name-unresolvable" "temporary-resolver-failure"
                "permanent-resolver-failure"))
            (export "error-code" (type $code (eq $code')))
            (type $family' (enum "ipv4" "ipv6")) (export "ip-address-family" (type $family (eq $family')))))
        (alias export $network "error-code" (type $code))
        (alias export $network "ip-address-family" (type $family))
        (import "wasi:sockets/tcp@0.2.0" (instance $tcp (export "tcp-socket" (type (sub resource)))))
        (alias export $tcp "tcp-socket" (type $socket))
        (import "wasi:sockets/tcp-create-socket@0.2.0" (instance $create
            (alias outer 1 $code (type $c')) (export "error-code" (type $c (eq $c')))
            (alias outer 1 $family (type $f')) (export "ip-address-family" (type $f (eq $f')))
            (alias outer 1 $socket (type $s')) (export "tcp-socket" (type $s (eq $s')))
            (export "create-tcp-socket" (func (param "address-family" $f) (result (result (own $s) (error $c)))))))

        (core module $room
            (memory (export "memory") 2)
            (global $free (mut i32) (i32.const 65536))
            (func (export "realloc") (param i32 i32 i32 i32) (result i32)
                (global.get $free) (global.set $free (i32.add (global.get $free) (local.get 3)))))
        (core instance $room (instantiate $room))
        (alias core export $room "memory" (core memory $memory))
        (alias core export $room "realloc" (core func $realloc))
        (core func $write (canon lower (func $streams "[method]output-stream.blocking-write-and-flush") (memory $memory)))
        (core func $get-stdout (canon lower (func $stdout "get-stdout")))
        (core func $get-stderr (canon lower (func $stderr "get-stderr")))
        (core func $exit (canon lower (func $exits "exit")))
        (core func $now (canon lower (func $clock "now")))
        (core func $until (canon lower (func $clock "subscribe-instant")))
        (core func $wait (canon lower (func $clock "subscribe-duration")))
        (core func $block (canon lower (func $polls "[method]pollable.block")))
        (core func $is_ready (canon lower (func $polls "[method]pollable.ready")))
        (core func $poll (canon lower (func $polls "poll") (memory $memory) (realloc $realloc)))
        (core func $random (canon lower (func $random "get-random-bytes") (memory $memory) (realloc $realloc)))
        (core func $tcp (canon lower (func $create "create-tcp-socket") (memory $memory)))
        (core instance $host
            (export "memory" (memory $memory)) (export "write" (func $write)) (export "exit" (func $exit))
            (export "get-stdout" (func $get-stdout)) (export "get-stderr" (func $get-stderr))
            (export "now" (func $now)) (export "until" (func $until)) (export "wait" (func $wait))
            (export "block" (func $block)) (export "is_ready" (func $is_ready)) (export "poll" (func $poll))
            (export "random" (func $random)) (export "tcp" (func $tcp)))
        (core module $guest
            (import "host" "memory" (memory 1))
            (import "host" "write" (func $write (param i32 i32 i32 i32)))
            (import "host" "get-stdout" (func $stdout (result i32)))
            (import "host" "get-stderr" (func $stderr (result i32)))
            (import "host" "exit" (func $exit (param i32)))
            (import "host" "now" (func $now (result i64)))
            (import "host" "until" (func $until (param i64) (result i32)))
            (import "host" "wait" (func $wait (param i64) (result i32)))
            (import "host" "block" (func $block (param i32)))
            (import "host" "is_ready" (func $is_ready (param i32) (result i32)))
            (import "host" "poll" (func $poll (param i32 i32 i32)))
            (import "host" "random" (func $random (param i64 i32)))
            (import "host" "tcp" (func $tcp (param i32 i32)))
            (func $print (param $fd i32) (param $at i32) (param $len i32)
                (call $write (if (result i32) (i32.eq (local.get $fd) (i32.const 1))
                    (then (call $stdout)) (else (call $stderr))) (local.get $at) (local.get $len) (i32.const 0)))
            {fields})
        (core instance $guest (instantiate $guest (with "host" (instance $host))))
        (func $run (result (result)) (canon lift (core func $guest "run")))
        (instance $command (export "run" (func $run)))
        (export "wasi:cli/run@0.2.0" (instance $command)))"#
    ))
}

fn running(body: &str) -> Bytes {
    component(&format!(r#"(func (export "run") (result i32) {body} (i32.const 0))"#))
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().unwrap())
}

#[tokio::test]
async fn what_a_compiler_makes_answers_as_the_preview_1_command_does() {
    let (sandbox, input) = (sandbox(), br#""Gr\u00fc\u00dfe, world.\nHello!""#);
    let component = Bytes::from_static(STATS);
    let run = run_in(&sandbox, &component, input, short()).await;
    let command = include_bytes!("../../../../agents/wasm/text-stats-lite.wasm");
    let same = run_in(&sandbox, &Bytes::from_static(command), input, short()).await;
    assert_eq!(run.outcome, same.outcome);
    assert_eq!(run.outcome.unwrap(), r#"{"characters":20,"bytes":22,"words":3,"lines":2}"#);
    assert_eq!(run.usage.fuel, run_in(&sandbox, &component, input, short()).await.usage.fuel);
    let refused = run_in(&sandbox, &component, b"7", short()).await;
    assert_eq!(refused.outcome, Err(Fault::ExitCode(1)));
    assert_eq!(refused.logs, "the input must be a string, or an object with a string named text\n");
}

#[tokio::test]
async fn streams_and_ends_are_those_of_a_command() {
    let talker = component(
        r#"(data (i32.const 100) "outerr")
           (func (export "run") (result i32)
            (call $print (i32.const 1) (i32.const 100) (i32.const 3))
            (call $print (i32.const 2) (i32.const 103) (i32.const 3)) (i32.const 0))"#,
    );
    let run = run(&talker, short()).await;
    assert_eq!((run.outcome, run.logs.as_str()), (Ok(Bytes::from_static(b"out")), "err"));
    assert_eq!(
        fault(&component(r#"(func (export "run") (result i32) (i32.const 1))"#), short()).await,
        Fault::ExitCode(1)
    );
    assert_eq!(fault(&running("(call $exit (i32.const 1))"), short()).await, Fault::ExitCode(1));
    assert_eq!(self::run(&running("(call $exit (i32.const 0)) unreachable"), short()).await.outcome, Ok(Bytes::new()));
    assert!(matches!(fault(&running("unreachable"), short()).await, Fault::Trap { .. }));
    // A handle that was never given.
    assert!(matches!(fault(&running("(call $block (i32.const 77))"), short()).await, Fault::Trap { .. }));
}

#[tokio::test]
async fn a_component_is_bounded_as_all_are() {
    assert_eq!(fault(&running("(loop $again (br $again))"), short()).await, Fault::OutOfFuel);
    assert_eq!(fault(&running("(loop $again (br $again))"), seconds(1)).await, Fault::OutOfTime);
    let start = component(
        r#"(func $init (loop $again (br $again))) (start $init) (func (export "run") (result i32) (i32.const 0))"#,
    );
    assert_eq!(fault(&start, short()).await, Fault::OutOfFuel);
    let bomb = "(loop $more (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable";
    let run = run(&running(bomb), short()).await;
    assert_eq!(run.outcome, Err(Fault::OutOfMemory));
    assert!((60 << 20..=64 << 20).contains(&run.usage.peak_memory_bytes), "{:?}", run.usage);
    let flood = "(loop $more (call $print (i32.const 1) (i32.const 0) (i32.const 4096)) (br $more))";
    assert_eq!(fault(&running(flood), Limits::default()).await, Fault::OutputTooLarge { limit: 1 << 20 });
    let deep = component(r#"(func $deep (export "run") (result i32) (i32.add (i32.const 1) (call $deep)))"#);
    assert_eq!(fault(&deep, Limits::default()).await, Fault::StackOverflow);
}

#[tokio::test]
async fn memories_of_one_component_count_together() {
    let modules = |count: u32| {
        let mut text = String::new();
        for _ in 0..count {
            text.push_str("(core instance (instantiate $part))");
        }
        wat(&format!(
            r#"(component
            (core module $part (memory 700))
            (core module $main (func (export "run") (result i32) (i32.const 0)))
            {text}
            (core instance $main (instantiate $main))
            (func $run (result (result)) (canon lift (core func $main "run")))
            (instance $command (export "run" (func $run)))
            (export "wasi:cli/run@0.2.3" (instance $command)))"#
        ))
    };
    assert_eq!(run(&modules(1), short()).await.outcome, Ok(Bytes::new()));
    assert_eq!(fault(&modules(2), short()).await, Fault::OutOfMemory);
    assert_eq!(fault(&modules(3), short()).await.code(), "INVALID_MODULE");
    // Without a pool nobody looks at the number beforehand; the limiter does.
    let engine = Engine::new(&engine_config(&SandboxConfig::default(), None)).unwrap();
    let mut linker = wasmtime::component::Linker::new(&engine);
    link(&mut linker).unwrap();
    let made = Component::from_binary(&engine, &modules(3)).unwrap();
    let ready = CommandPre::new(linker.instantiate_pre(&made).unwrap()).unwrap();
    let limits = Limits { memory_bytes: 1 << 30, ..short() };
    let call =
        Call::new(&engine, &Ready::Component(ready.clone()), request(&Bytes::new(), b"", limits), Arc::default());
    assert!(call.unwrap().component(&ready).is_err());
}

#[tokio::test]
async fn waiting_moves_the_private_clock_alone() {
    // Prints the clock before and after.
    let report = "(i64.store (i32.const 108) (call $now)) (call $print (i32.const 1) (i32.const 100) (i32.const 16))";
    let sleep = |nanos: u64, how: &str| {
        running(&format!(
            "(i64.store (i32.const 100) (call $now)) (call $block (call ${how} (i64.const {nanos}))) {report}"
        ))
    };
    for how in ["wait", "until"] {
        let run = run(&sleep(300_000_000_000, how), seconds(600)).await;
        assert!(run.usage.wall < Duration::from_mins(1));
        let output = run.outcome.unwrap();
        let (before, after) = (number(&output[..8]), number(&output[8..]));
        assert_eq!(before, 1_000);
        assert!((300_000_000_000..300_000_010_000).contains(&after), "{how} {after}");
        assert_eq!(fault(&sleep(3_600_000_000_000, how), seconds(600)).await, Fault::OutOfTime);
        assert_eq!(fault(&sleep(u64::MAX, how), seconds(600)).await, Fault::OutOfTime);
    }
    // Of two instants the earlier one is waited for, in whatever order they are given.
    for (first, second, ready) in [(5_000_000_u64, 9_000_000_u64, 0_u32), (9_000_000, 5_000_000, 1)] {
        let two = running(&format!(
            "(i32.store (i32.const 200) (call $wait (i64.const {first}))) (i32.store (i32.const 204) (call $wait (i64.const {second})))
             (call $poll (i32.const 200) (i32.const 2) (i32.const 300))
             (i64.store (i32.const 100) (i64.load32_u (i32.load (i32.const 300))))
             (i64.store (i32.const 116) (i64.load32_u (i32.const 304)))
             (i64.store (i32.const 108) (call $now)) (call $print (i32.const 1) (i32.const 100) (i32.const 24))"
        ));
        let output = run(&two, seconds(1)).await.outcome.unwrap();
        assert_eq!((number(&output[..8]), number(&output[16..])), (u64::from(ready), 1));
        assert!((5_000_000..5_100_000).contains(&number(&output[8..16])), "{output:?}");
    }
    // One who asks again and again instead of waiting gets there as well.
    let busy = running(&format!(
        "(local $p i32) (i64.store (i32.const 100) (i64.const 0)) (local.set $p (call $wait (i64.const 50000)))
         (loop $again (br_if $again (i32.eqz (call $is_ready (local.get $p))))) {report}"
    ));
    let output = run(&busy, short()).await.outcome.unwrap();
    assert!(number(&output[8..]) >= 50_000);
}

#[tokio::test]
async fn randomness_is_the_same_for_the_same_request() {
    let dice = running(
        "(call $random (i64.const 1000) (i32.const 300))
         (call $print (i32.const 1) (i32.load (i32.const 300)) (i32.load (i32.const 304)))",
    );
    let first = run(&dice, short()).await;
    let again = run(&dice, short()).await;
    assert_eq!((&first.outcome, first.usage.fuel), (&again.outcome, again.usage.fuel));
    let first = first.outcome.unwrap();
    assert_eq!(first.len(), 1_000);
    let mut other = request(&dice, b"", short());
    other.seed = [10; 32];
    let other = sandbox().run(other, async || Ok::<_, Infallible>(dice.clone())).await.unwrap();
    assert_ne!(other.outcome.unwrap(), first);
    let much = running("(call $random (i64.const 0x100001) (i32.const 300))");
    assert!(matches!(fault(&much, short()).await, Fault::Trap { .. }));
}

#[tokio::test]
async fn there_is_no_network() {
    // The answer is an error and the error says that access is denied.
    let dialler =
        running("(call $tcp (i32.const 0) (i32.const 300)) (call $print (i32.const 1) (i32.const 300) (i32.const 5))");
    assert_eq!(run(&dialler, short()).await.outcome.unwrap()[..], [1, 0, 0, 0, 1]);
}

#[tokio::test]
async fn handles_cannot_be_hoarded() {
    let hoarder = running("(loop $more (drop (call $wait (i64.const 5))) (br $more))");
    let run = run(&hoarder, Limits::default()).await;
    assert!(matches!(run.outcome, Err(Fault::Trap { .. })), "{run:?}");
    assert!(run.usage.fuel < 1_000_000);
    // A list of handles is copied to our side before it is looked at, so its size is bounded as well.
    let list = running(
        "(i32.store (i32.const 0) (call $wait (i64.const 5))) (drop (memory.grow (i32.const 900)))
         (call $poll (i32.const 0) (i32.const 14000000) (i32.const 300))",
    );
    assert!(matches!(fault(&list, Limits::default()).await, Fault::Trap { .. }));
}
