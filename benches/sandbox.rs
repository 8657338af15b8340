//! A warm call of an agent beside plain wasmtime, and what it costs to have a module ready.
//!
//! Both sides run the same modules with the same engine settings: fuel, epochs, canonical not-a-numbers, the pool with the same
//! limits, and a module that is compiled and linked already. Both make a store, limit its memory, instantiate, hand the input
//! over, run, and take the output out.
//!
//! *Plain* is what a program of its own would do: synchronous calls on its own thread, in which a guest that does not end is
//! trapped. *Ours* is `Sandbox::run` as the service calls it, and does more: it looks the module up by its hash, waits for a slot,
//! runs on a stack that can be put down, keeps the wall limit, gives the guest a clock and randomness that repeat, bounds output
//! and log, reads fuel and peak memory, tells the guest's faults from ours, and cleans the log.
//!
//! The ratio is from alternating blocks of calls of both, which a drifting machine meets alike: medians of rounds.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark that meets the unexpected stops, and prints what it finds"
)]

use std::{
    convert::Infallible,
    hint::black_box,
    path::Path,
    time::{Duration, Instant},
};

use bytes::Bytes;
use chrono::DateTime;
use criterion::{BatchSize, Criterion};
use sha2::{Digest, Sha256};
use tokio::runtime::Runtime;
use wasmtime::{Engine, InstancePre, Linker, Module, Store, StoreLimits, StoreLimitsBuilder};
use wasmtime_wasi::{
    I32Exit, WasiCtxBuilder,
    p1::{self, WasiP1Ctx},
    p2::pipe::{MemoryInputPipe, MemoryOutputPipe},
};
use zerostate::execution::sandbox::{Limits, Request, Sandbox, SandboxConfig};

/// A WASI command as agents are: written in C, it reads text and answers JSON.
const STATS: &[u8] = include_bytes!("../agents/wasm/text-stats-lite.wasm");

/// A module with the JSON interface that answers with its input.
const ECHO: &str = r#"(module
    (memory (export "memory") 2)
    (global $len (mut i32) (i32.const 0))
    (func (export "alloc_memory") (param i32) (result i32) (i32.const 1024))
    (func (export "execute") (param $at i32) (param $len i32) (result i32)
        (global.set $len (local.get $len))
        (memory.copy (i32.const 65536) (local.get $at) (local.get $len))
        (i32.const 0))
    (func (export "get_result_ptr") (result i32) (i32.const 65536))
    (func (export "get_result_len") (result i32) (global.get $len)))"#;

const INPUT: &[u8] = br#""one two three""#;

/// Calls of each side in a block, blocks of each side in a round, and rounds.
const BLOCK: u32 = 200;
const BLOCKS: usize = 15;
const ROUNDS: usize = 5;

/// wasmtime without us.
struct Plain {
    engine: Engine,
    linker: Linker<State>,
}

struct State {
    wasi: Option<WasiP1Ctx>,
    limits: StoreLimits,
}

impl Plain {
    fn new() -> Self {
        let engine = Engine::new(&SandboxConfig::default().engine()).unwrap();
        let ticking = engine.weak();
        std::thread::spawn(move || {
            while let Some(engine) = ticking.upgrade() {
                engine.increment_epoch();
                drop(engine);
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        let mut linker = Linker::new(&engine);
        p1::add_to_linker_sync(&mut linker, |state: &mut State| state.wasi.as_mut().unwrap()).unwrap();
        Self { engine, linker }
    }

    fn ready(&self, wasm: &[u8]) -> InstancePre<State> {
        let module = Module::from_binary(&self.engine, wasm).unwrap();
        self.linker.instantiate_pre(&module).unwrap()
    }

    fn store(&self, wasi: Option<WasiP1Ctx>) -> Store<State> {
        let limits = StoreLimitsBuilder::new().memory_size(64 << 20).table_elements(10_000).build();
        let mut store = Store::new(&self.engine, State { wasi, limits });
        store.limiter(|state| &mut state.limits);
        store.set_fuel(2_000_000_000).unwrap();
        // Ten seconds of ticks; then it traps.
        store.set_epoch_deadline(1_000);
        store
    }

    fn command(&self, ready: &InstancePre<State>, input: Bytes) -> Bytes {
        let output = MemoryOutputPipe::new(1 << 20);
        let wasi = WasiCtxBuilder::new()
            .arg("agent")
            .stdin(MemoryInputPipe::new(input))
            .stdout(output.clone())
            .stderr(MemoryOutputPipe::new(64 << 10))
            .build_p1();
        let mut store = self.store(Some(wasi));
        let instance = ready.instantiate(&mut store).unwrap();
        let start = instance.get_typed_func::<(), ()>(&mut store, "_start").unwrap();
        if let Err(error) = start.call(&mut store, ()) {
            assert!(matches!(error.downcast_ref(), Some(I32Exit(0))), "{error:?}");
        }
        drop(store);
        output.contents()
    }

    fn json(&self, ready: &InstancePre<State>, input: &[u8]) -> Vec<u8> {
        let mut store = self.store(None);
        let instance = ready.instantiate(&mut store).unwrap();
        let memory = instance.get_memory(&mut store, "memory").unwrap();
        let len = u32::try_from(input.len()).unwrap();
        let alloc = instance.get_typed_func::<u32, u32>(&mut store, "alloc_memory").unwrap();
        let at = alloc.call(&mut store, len).unwrap();
        memory.write(&mut store, usize::try_from(at).unwrap(), input).unwrap();
        let execute = instance.get_typed_func::<(u32, u32), i32>(&mut store, "execute").unwrap();
        assert_eq!(execute.call(&mut store, (at, len)).unwrap(), 0);
        let number = |store: &mut Store<State>, name| {
            let function = instance.get_typed_func::<(), u32>(&mut *store, name).unwrap();
            usize::try_from(function.call(store, ()).unwrap()).unwrap()
        };
        let at = number(&mut store, "get_result_ptr");
        let mut output = vec![0; number(&mut store, "get_result_len")];
        memory.read(&store, at, &mut output).unwrap();
        output
    }
}

async fn ours(sandbox: &Sandbox, request: &Request, wasm: &'static [u8]) -> Bytes {
    let load = || std::future::ready(Ok::<_, Infallible>(Bytes::from_static(wasm)));
    sandbox.run(request.clone(), load).await.unwrap().outcome.unwrap()
}

fn median<T: Ord + Copy>(mut of: Vec<T>) -> T {
    of.sort_unstable();
    of.get(of.len() / 2).copied().unwrap()
}

/// Both sides in alternating blocks; the medians of a call of each.
fn interleaved(mut ours: impl FnMut(), mut plain: impl FnMut()) -> (Duration, Duration) {
    let time = |side: &mut dyn FnMut()| {
        let began = Instant::now();
        for _ in 0..BLOCK {
            side();
        }
        began.elapsed() / BLOCK
    };
    let (mut of_ours, mut of_plain) = (Vec::new(), Vec::new());
    for _ in 0..BLOCKS {
        of_ours.push(time(&mut ours));
        of_plain.push(time(&mut plain));
    }
    (median(of_ours), median(of_plain))
}

fn warm(criterion: &mut Criterion, runtime: &Runtime) {
    let echo: &'static [u8] = Box::leak(wat::parse_str(ECHO).unwrap().into_boxed_slice());
    let sandbox = Sandbox::new(SandboxConfig::default()).unwrap();
    let plain = Plain::new();
    for (name, wasm, json) in [("JSON interface, echo", echo, true), ("WASI command, text-stats-lite", STATS, false)] {
        let ready = plain.ready(wasm);
        let request = Request {
            sha256: Sha256::digest(wasm).into(),
            input: Bytes::from_static(INPUT),
            limits: Limits::default(),
            now: DateTime::UNIX_EPOCH,
            seed: [0; 32],
        };
        let plainly = || {
            if json { Bytes::from(plain.json(&ready, INPUT)) } else { plain.command(&ready, Bytes::from_static(INPUT)) }
        };
        let by_us = || runtime.block_on(ours(&sandbox, &request, wasm));
        assert_eq!(by_us(), plainly(), "both sides answer the same");

        let mut group = criterion.benchmark_group(format!("warm call, {name}"));
        group.bench_function("ours", |bencher| bencher.iter(by_us));
        group.bench_function("plain wasmtime", |bencher| bencher.iter(plainly));
        group.finish();

        let mut ratios = Vec::new();
        for round in 1..=ROUNDS {
            let (by_us, by_plain) = interleaved(|| drop(black_box(by_us())), || drop(black_box(plainly())));
            let percent = by_us.as_nanos() * 100 / by_plain.as_nanos();
            println!("{name}, round {round}: ours {by_us:.1?}, plain {by_plain:.1?}, {percent} %");
            ratios.push(percent);
        }
        println!("{name}: ours takes {} % of plain wasmtime\n", median(ratios));
    }
}

/// From the bytes of a module to one that waits for an instance, as the first run has it; and the instance alone.
fn ready(criterion: &mut Criterion, runtime: &Runtime) {
    let folder = tempfile::tempdir().unwrap();
    let sha256 = Sha256::digest(STATS).into();
    let check = |sandbox: &Sandbox| {
        let load = || std::future::ready(Ok::<_, Infallible>(Bytes::from_static(STATS)));
        runtime.block_on(sandbox.check(sha256, load)).unwrap().unwrap();
    };
    let keeping = |path: &Path| Sandbox::keeping(SandboxConfig::default(), path).unwrap();
    check(&keeping(folder.path()));

    let mut group = criterion.benchmark_group("module, text-stats-lite");
    group.sample_size(20);
    group.bench_function("compiled", |bencher| {
        let new = || Sandbox::new(SandboxConfig::default()).unwrap();
        bencher.iter_batched_ref(new, |sandbox| check(sandbox), BatchSize::PerIteration);
    });
    group.bench_function("read from the disk", |bencher| {
        bencher.iter_batched_ref(|| keeping(folder.path()), |sandbox| check(sandbox), BatchSize::PerIteration);
    });
    let plain = Plain::new();
    let pre = plain.ready(STATS);
    group.bench_function("instantiated", |bencher| {
        bencher.iter(|| pre.instantiate(&mut plain.store(None)).unwrap());
    });
    group.finish();
}

fn main() {
    let runtime = Runtime::new().unwrap();
    let mut criterion = Criterion::default()
        .measurement_time(Duration::from_secs(3))
        .warm_up_time(Duration::from_secs(1))
        .configure_from_args();
    warm(&mut criterion, &runtime);
    ready(&mut criterion, &runtime);
    criterion.final_summary();
}
