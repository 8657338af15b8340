//! What guests do to each other and to us, which is nothing.

mod abuse;
mod component;
mod disk;
mod samples;

use super::*;
use std::convert::Infallible;
use std::sync::atomic::AtomicU32;

use tokio::task::JoinSet;

/// A fuel that no test can burn before the wall limit of a second or two.
const ENDLESS_FUEL: u64 = u64::MAX / 2;

fn sandbox() -> Sandbox {
    Sandbox::new(SandboxConfig { concurrent_runs: 2, ..SandboxConfig::default() }).unwrap()
}

fn wat(text: &str) -> Bytes {
    wat::parse_str(text).unwrap().into()
}

/// A command with the usual imports, one memory, and the given fields.
fn command(fields: &str) -> Bytes {
    wat(&format!(
        r#"(module
            (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "random_get" (func $random_get (param i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
            (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
            (memory (export "memory") 2)
            (func $print (param $fd i32) (param $at i32) (param $len i32)
                (i32.store (i32.const 0) (local.get $at))
                (i32.store (i32.const 4) (local.get $len))
                (drop (call $fd_write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8))))
            {fields})"#
    ))
}

fn request(wasm: &Bytes, input: &[u8], limits: Limits) -> Request {
    Request {
        sha256: Sha256::digest(wasm).into(),
        input: Bytes::copy_from_slice(input),
        limits,
        now: DateTime::from_timestamp(1_700_000_000, 250_000_000).unwrap(),
        seed: [9; 32],
    }
}

async fn run_in(sandbox: &Sandbox, wasm: &Bytes, input: &[u8], limits: Limits) -> Run {
    let bytes = wasm.clone();
    sandbox.run(request(wasm, input, limits), async || Ok::<_, Infallible>(bytes)).await.unwrap()
}

async fn run(wasm: &Bytes, limits: Limits) -> Run {
    run_in(&sandbox(), wasm, b"", limits).await
}

async fn fault(wasm: &Bytes, limits: Limits) -> Fault {
    run(wasm, limits).await.outcome.unwrap_err()
}

fn short() -> Limits {
    Limits { fuel: 50_000_000, ..Limits::default() }
}

fn seconds(seconds: u64) -> Limits {
    Limits { fuel: ENDLESS_FUEL, wall: Duration::from_secs(seconds), ..Limits::default() }
}

const LOOP: &str = r#"(func (export "_start") (loop $again (br $again)))"#;

#[tokio::test]
async fn an_endless_loop_ends_by_fuel() {
    let run = run(&command(LOOP), short()).await;
    assert_eq!(run.outcome, Err(Fault::OutOfFuel));
    assert_eq!(run.usage.fuel, 50_000_000);
    assert_eq!(run.usage.peak_memory_bytes, 2 * 65_536);
}

#[tokio::test]
async fn an_endless_loop_with_endless_fuel_ends_by_the_wall_and_starves_nobody() {
    // One worker thread: if the guest ran on it, the other task could not tick.
    let sandbox = sandbox();
    let ticks = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&ticks);
    let mut server = JoinSet::new();
    server.spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(10)).await;
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    let wasm = command(LOOP);
    let run = run_in(&sandbox, &wasm, b"", seconds(1)).await;
    assert_eq!(run.outcome, Err(Fault::OutOfTime));
    assert!(run.usage.wall >= Duration::from_secs(1));
    assert!(run.usage.wall < Duration::from_secs(20));
    assert!(ticks.load(Ordering::Relaxed) >= 10);
}

#[tokio::test]
async fn a_start_function_is_bounded_too() {
    let looping = wat(r#"(module (memory (export "memory") 1) (func $init (loop $again (br $again))) (start $init)
            (func (export "_start")))"#);
    assert_eq!(fault(&looping, short()).await, Fault::OutOfFuel);
    assert_eq!(fault(&looping, seconds(1)).await, Fault::OutOfTime);
    let crashing =
        wat(r#"(module (memory (export "memory") 1) (func $init unreachable) (start $init) (func (export "_start")))"#);
    assert!(matches!(fault(&crashing, short()).await, Fault::Trap { .. }));
}

#[tokio::test]
async fn a_memory_bomb_is_out_of_memory() {
    // Grows by a megabyte until it is refused, then crashes, as an allocator does.
    let bomb = command(
        r#"(func (export "_start")
            (loop $more (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
            unreachable)"#,
    );
    let run = run(&bomb, short()).await;
    assert_eq!(run.outcome, Err(Fault::OutOfMemory));
    assert!(run.usage.peak_memory_bytes <= 64 << 20);
    assert!(run.usage.peak_memory_bytes > 60 << 20);
    // Who asks for too much and lives with less has done nothing wrong.
    let modest = command(r#"(func (export "_start") (drop (memory.grow (i32.const 60000))))"#);
    assert_eq!(self::run(&modest, short()).await.outcome, Ok(Bytes::new()));
    let greedy = wat(r#"(module (memory (export "memory") 2000) (func (export "_start")))"#);
    assert_eq!(fault(&greedy, short()).await, Fault::OutOfMemory);
}

#[tokio::test]
async fn tables_are_bounded() {
    let bomb = wat(r#"(module (memory (export "memory") 1) (table $t 1 funcref)
            (func (export "_start")
                (if (i32.eq (table.grow $t (ref.null func) (i32.const 20000)) (i32.const -1)) (then unreachable))))"#);
    assert_eq!(fault(&bomb, short()).await, Fault::OutOfMemory);
}

#[tokio::test]
async fn deep_recursion_is_a_stack_overflow() {
    let deep = command(
        r#"(func $deeper (param i32) (result i32)
                (i32.add (i32.const 1) (call $deeper (i32.add (local.get 0) (i32.const 1)))))
            (func (export "_start") (drop (call $deeper (i32.const 0))))"#,
    );
    assert_eq!(fault(&deep, Limits::default()).await, Fault::StackOverflow);
}

#[tokio::test]
async fn too_much_output_is_a_fault_and_never_cut() {
    let flood = command(
        r#"(func (export "_start") (loop $more (call $print (i32.const 1) (i32.const 0) (i32.const 65536)) (br $more)))"#,
    );
    assert_eq!(fault(&flood, Limits::default()).await, Fault::OutputTooLarge { limit: 1 << 20 });
    let exact = command(r#"(func (export "_start") (call $print (i32.const 1) (i32.const 16) (i32.const 1000)))"#);
    let limits = |output_bytes| Limits { output_bytes, ..short() };
    assert_eq!(run(&exact, limits(1_000)).await.outcome.unwrap().len(), 1_000);
    assert_eq!(fault(&exact, limits(999)).await, Fault::OutputTooLarge { limit: 999 });
}

#[tokio::test]
async fn crashes_and_exit_codes_are_told() {
    let crash = command(r#"(func (export "_start") unreachable)"#);
    assert_eq!(fault(&crash, short()).await.code(), "TRAP");
    let division = command(r#"(func (export "_start") (drop (i32.div_s (i32.const 1) (i32.const 0))))"#);
    assert_eq!(fault(&division, short()).await.to_string(), "the agent crashed: integer divide by zero");
    let outside = command(r#"(func (export "_start") (drop (i32.load (i32.const -4))))"#);
    assert!(matches!(fault(&outside, short()).await, Fault::Trap { .. }));
    for code in [1, 125, 126, 255, -1] {
        let exit = command(&format!(r#"(func (export "_start") (call $exit (i32.const {code})))"#));
        assert_eq!(fault(&exit, short()).await, Fault::ExitCode(code));
    }
    let clean = command(
        r#"(data (i32.const 16) "{}")
           (func (export "_start") (call $print (i32.const 1) (i32.const 16) (i32.const 2)) (call $exit (i32.const 0)))"#,
    );
    assert_eq!(run(&clean, short()).await.outcome, Ok(Bytes::from_static(b"{}")));
}

#[tokio::test]
async fn bad_addresses_in_system_calls_harm_only_the_guest() {
    let bad = command(
        r#"(func (export "_start")
            (drop (call $fd_write (i32.const 1) (i32.const -8) (i32.const 1000) (i32.const -4)))
            (drop (call $poll (i32.const -8) (i32.const -8) (i32.const 1000) (i32.const -8)))
            (drop (call $poll (i32.const 0) (i32.const 131070) (i32.const 1) (i32.const -1)))
            (drop (call $random_get (i32.const -1) (i32.const 2147483647)))
            unreachable)"#,
    );
    assert!(matches!(fault(&bad, short()).await, Fault::Trap { .. }));
}

#[tokio::test]
async fn modules_that_cannot_run_are_named() {
    let none = wat(r#"(module (memory (export "memory") 1))"#);
    assert_eq!(fault(&none, short()).await, Fault::MissingEntryPoint);
    let wrong = wat(r#"(module (memory (export "memory") 1) (func (export "_start") (result i32) i32.const 0))"#);
    assert_eq!(fault(&wrong, short()).await, Fault::MissingEntryPoint);
    assert_eq!(fault(&Bytes::from_static(b"hello"), short()).await.code(), "INVALID_MODULE");
    let foreign = wat(r#"(module (import "env" "f" (func)) (memory (export "memory") 1) (func (export "_start")))"#);
    assert_eq!(fault(&foreign, short()).await.code(), "INVALID_MODULE");
    let twisted = wat(r#"(module (import "wasi_snapshot_preview1" "fd_write" (func)) (memory (export "memory") 1)
            (func (export "_start")))"#);
    assert_eq!(fault(&twisted, short()).await.code(), "INVALID_MODULE");
}

/// Sleeps for the given nanoseconds of the monotonic clock, then prints the number of events and that clock.
fn sleeper(nanos: u64) -> Bytes {
    command(&format!(
        r#"(func (export "_start")
            (i64.store (i32.const 1000) (i64.const 77))
            (i32.store (i32.const 1016) (i32.const 1))
            (i64.store (i32.const 1024) (i64.const {nanos}))
            (drop (call $poll (i32.const 1000) (i32.const 2000) (i32.const 1) (i32.const 16)))
            (drop (call $clock (i32.const 1) (i64.const 0) (i32.const 24)))
            (call $print (i32.const 1) (i32.const 16) (i32.const 16)))"#
    ))
}

#[tokio::test]
async fn a_sleep_takes_no_real_time_and_ends_by_the_wall_limit() {
    let hour = fault(&sleeper(3_600_000_000_000), seconds(600)).await;
    assert_eq!(hour, Fault::OutOfTime);
    let run = run(&sleeper(300_000_000_000), seconds(600)).await;
    assert!(run.usage.wall < Duration::from_mins(1));
    let output = run.outcome.unwrap();
    assert_eq!(output[..4], 1_u32.to_le_bytes());
    assert_eq!(output[8..], 300_000_001_000_u64.to_le_bytes());
}

#[tokio::test]
async fn input_arrives_whole() {
    // Copies standard input to standard output, 16 KiB at a time.
    let echo = command(
        r#"(func (export "_start")
            (loop $more
                (i32.store (i32.const 0) (i32.const 1024))
                (i32.store (i32.const 4) (i32.const 16384))
                (drop (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
                (if (i32.load (i32.const 8)) (then
                    (i32.store (i32.const 12) (i32.load (i32.const 8)))
                    (call $print (i32.const 1) (i32.const 1024) (i32.load (i32.const 12)))
                    (br $more)))))"#,
    );
    let sandbox = sandbox();
    for length in [0_usize, 1, 4_096, 100_000] {
        let input: Vec<u8> = (0_u8..251).cycle().take(length).collect();
        assert_eq!(run_in(&sandbox, &echo, &input, short()).await.outcome, Ok(Bytes::from(input)));
    }
}

#[tokio::test]
async fn logs_are_kept_and_bounded() {
    let talker = command(
        r#"(data (i32.const 16) "one\n\1b[31m\00two")
           (func (export "_start") (local $n i32)
            (call $print (i32.const 2) (i32.const 16) (i32.const 13))
            (loop $more
                (call $print (i32.const 2) (i32.const 16) (i32.const 4))
                (local.set $n (i32.add (local.get $n) (i32.const 1)))
                (br_if $more (i32.lt_s (local.get $n) (i32.const 100))))
            (call $print (i32.const 1) (i32.const 16) (i32.const 3)))"#,
    );
    let whole = run(&talker, short()).await;
    assert!(whole.logs.starts_with("one\n\u{fffd}[31m\u{fffd}two"), "{:?}", whole.logs);
    assert!(!whole.logs.contains("[cut"));
    let cut = run(&talker, Limits { log_bytes: 50, ..short() }).await;
    assert_eq!(cut.outcome, Ok(Bytes::from_static(b"one")));
    assert!(cut.logs.ends_with("\n[cut: only the first 50 bytes of the log are kept]"));
    let failing = command(
        r#"(data (i32.const 16) "why")
           (func (export "_start") (call $print (i32.const 2) (i32.const 16) (i32.const 3)) (call $exit (i32.const 1)))"#,
    );
    let failed = run(&failing, short()).await;
    assert_eq!((failed.outcome, failed.logs.as_str()), (Err(Fault::ExitCode(1)), "why"));
}

#[tokio::test]
async fn the_same_request_gives_the_same_run() {
    // Prints 1000 random bytes and both clocks.
    let dice = command(
        r#"(func (export "_start")
            (drop (call $random_get (i32.const 1024) (i32.const 1000)))
            (drop (call $clock (i32.const 0) (i64.const 0) (i32.const 2024)))
            (drop (call $clock (i32.const 1) (i64.const 0) (i32.const 2032)))
            (call $print (i32.const 1) (i32.const 1024) (i32.const 1016)))"#,
    );
    let first = run(&dice, short()).await;
    let second = run(&dice, short()).await;
    assert_eq!(first.outcome, second.outcome);
    assert_eq!(first.usage.fuel, second.usage.fuel);
    let output = first.outcome.unwrap();
    assert_eq!(output[1000..1008], 1_700_000_000_250_001_000_u64.to_le_bytes());
    assert_eq!(output[1008..], 2_000_u64.to_le_bytes());
    // The sequence is part of the contract: SHA-256 of the seed and a block number.
    let block = Sha256::new().chain_update([9; 32]).chain_update(1_u64.to_le_bytes()).finalize();
    assert_eq!(output[32..64], block[..]);

    let mut other = request(&dice, b"", short());
    other.seed = [10; 32];
    let other = sandbox().run(other, async || Ok::<_, Infallible>(dice.clone())).await.unwrap();
    assert_ne!(other.outcome.unwrap()[..1000], output[..1000]);
}

#[tokio::test]
async fn a_module_is_loaded_and_compiled_once() {
    let sandbox = sandbox();
    let wasm = command(r#"(func (export "_start"))"#);
    let wanted = request(&wasm, b"", short());
    assert!(!sandbox.cached(&wanted.sha256));
    let loads = Arc::new(AtomicU32::new(0));
    let mut runs = JoinSet::new();
    for _ in 0..8 {
        let (sandbox, wanted, wasm, loads) = (sandbox.clone(), wanted.clone(), wasm.clone(), Arc::clone(&loads));
        runs.spawn(async move {
            let load = || async move {
                loads.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                Ok::<_, std::io::Error>(wasm)
            };
            sandbox.run(wanted, load).await.unwrap().outcome
        });
    }
    for outcome in runs.join_all().await {
        assert_eq!(outcome, Ok(Bytes::new()));
    }
    assert_eq!(loads.load(Ordering::Relaxed), 1);
    assert!(sandbox.cached(&wanted.sha256));
}

#[tokio::test]
async fn our_own_faults_are_errors_and_can_be_tried_again() {
    let sandbox = sandbox();
    let wasm = command(r#"(func (export "_start"))"#);
    let wanted = request(&wasm, b"", short());
    let gone = sandbox.run(wanted.clone(), async || Err::<Bytes, _>(std::io::Error::other("gone"))).await;
    assert!(matches!(gone, Err(SandboxError::Load(_))));
    let other = sandbox.run(wanted.clone(), async || Ok::<_, Infallible>(Bytes::from_static(b"\0asm"))).await;
    assert!(matches!(other, Err(SandboxError::HashMismatch)));
    assert!(!sandbox.cached(&wanted.sha256));
    assert!(run_in(&sandbox, &wasm, b"", short()).await.outcome.is_ok());
}

#[tokio::test]
async fn a_run_that_nobody_waits_for_frees_its_slot() {
    let sandbox = Sandbox::new(SandboxConfig { concurrent_runs: 1, ..SandboxConfig::default() }).unwrap();
    let endless = command(LOOP);
    let given_up =
        tokio::time::timeout(Duration::from_millis(200), run_in(&sandbox, &endless, b"", seconds(3_600))).await;
    assert!(given_up.is_err());
    let quick = command(r#"(func (export "_start"))"#);
    let next = run_in(&sandbox, &quick, b"", short());
    assert!(tokio::time::timeout(Duration::from_secs(30), next).await.unwrap().outcome.is_ok());
}

#[tokio::test]
async fn more_runs_than_slots_all_end() {
    let sandbox = sandbox();
    let wasm = command(LOOP);
    let mut runs = JoinSet::new();
    for _ in 0..20 {
        let (sandbox, wasm) = (sandbox.clone(), wasm.clone());
        runs.spawn(async move { run_in(&sandbox, &wasm, b"", Limits { fuel: 1_000_000, ..short() }).await.outcome });
    }
    for outcome in runs.join_all().await {
        assert_eq!(outcome, Err(Fault::OutOfFuel));
    }
}

#[test]
fn the_epoch_thread_ends_with_its_engine() {
    let sandbox = sandbox();
    let engine = sandbox.inner.engine.weak();
    drop(sandbox);
    let patience = stopwatch();
    while engine.upgrade().is_some() {
        assert!(patience.elapsed() < Duration::from_secs(30));
        std::thread::sleep(TICK);
    }
}

#[tokio::test]
async fn without_a_pool_everything_works_as_well() {
    let config = SandboxConfig::default();
    let engine = Engine::new(&engine_config(&config, None)).unwrap();
    let mut linker = Linker::new(&engine);
    world::link(&mut linker).unwrap();
    let module = Module::from_binary(&engine, &command(LOOP)).unwrap();
    let ready = linker.instantiate_pre(&module).unwrap();
    let wanted = request(&Bytes::new(), b"", short());
    let call = Call::new(&engine, &Ready::Command(ready.clone()), wanted, Arc::default()).unwrap();
    let run = call.module(&ready).await.unwrap();
    assert_eq!(run.outcome, Err(Fault::OutOfFuel));
}

#[test]
fn a_stack_that_does_not_fit_is_refused() {
    let config = SandboxConfig { stack_bytes: 2 << 20, ..SandboxConfig::default() };
    assert!(matches!(Sandbox::new(config), Err(SandboxError::Engine(_))));
}

#[tokio::test]
async fn a_guest_that_is_put_down_goes_on_where_it_was() {
    // Counts past many slices, on whichever threads, and gives the count.
    let counter = command(
        r#"(func (export "_start") (local $n i32)
            (loop $more
                (local.set $n (i32.add (local.get $n) (i32.const 1)))
                (br_if $more (i32.lt_u (local.get $n) (i32.const 3000000))))
            (i32.store (i32.const 16) (local.get $n))
            (call $print (i32.const 1) (i32.const 16) (i32.const 4)))"#,
    );
    let sandbox = sandbox();
    let first = run_in(&sandbox, &counter, b"", short()).await;
    assert_eq!(first.outcome, Ok(Bytes::copy_from_slice(&3_000_000_u32.to_le_bytes())));
    assert!(first.usage.fuel > 10 * SLICE);
    assert_eq!(run_in(&sandbox, &counter, b"", short()).await.usage.fuel, first.usage.fuel);
}

#[tokio::test]
async fn a_guest_that_is_over_in_a_slice_wakes_no_other_thread() {
    let sandbox = sandbox();
    let quick = command(r#"(func (export "_start"))"#);
    assert!(run_in(&sandbox, &quick, b"", short()).await.outcome.is_ok());
    // The module is ready now, so a single look must be enough.
    let wanted = request(&quick, b"", short());
    let mut run = Box::pin(sandbox.run(wanted, async || Ok::<_, Infallible>(Bytes::new())));
    let Poll::Ready(run) = poll_fn(|context| Poll::Ready(run.as_mut().poll(context))).await else {
        panic!("it went to another thread");
    };
    assert!(run.unwrap().outcome.is_ok());
}
