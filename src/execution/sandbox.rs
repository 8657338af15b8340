//! The sandbox: runs the module of a hosted agent once, on one input, within limits.
//!
//! ```text
//! run ─ compiled before? ─ no ─► load, check the SHA-256, compile (one at a time per module) ─┐
//!              └ yes ────────────────────────────────────────────────────────────────────────┴► a free slot
//!   ─► a fresh instance on its own thread ─► the guest reads stdin, writes stdout, ends ─► Run
//! ```
//!
//! What must always hold:
//! - A guest can take no more time, memory, stack, output or log than its [`Limits`], whatever it does, its start function
//!   and its sleeping included; and it takes them on a thread of its own, never on one that serves requests.
//! - A guest sees its input and nothing else: no files, no network, no environment. Its clock and its randomness are made
//!   from the request, so the same request gives the same output, the same logs and the same fuel on every machine. Only
//!   the wall clock limit depends on the machine, as the net under the others.
//! - What the guest does wrong is a [`Fault`] and the agent's; what goes wrong around it is a [`SandboxError`] and ours, to
//!   be tried again. Money depends on the difference.
//!
//! **Fuel and epochs.** Fuel counts instructions: it is exact, repeatable and can be billed, but says nothing about time.
//! The epoch is a counter that a thread raises a hundred times a second; compiled code compares it at every loop and call,
//! and then the elapsed time decides. Both are on: fuel is the meter, the epoch is the brake.
//!
//! **Sleeping.** A guest that waits is not made to wait: `poll_oneoff` moves its private clock forward and returns. If that
//! takes the private clock past the wall limit, the run ends as out of time, at once and without holding a slot.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use moka::sync::Cache;
use sha2::{Digest, Sha256};
use tokio::sync::{OnceCell, Semaphore};
use wasmtime::{
    Caller, Config, Engine, EngineWeak, ExternType, InstancePre, Linker, Module, PoolConcurrencyLimitError,
    PoolingAllocationConfig, ResourceLimiter, Store, Trap, UpdateDeadline, WasmFeatures,
};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p1::{self, WasiP1Ctx};
use wasmtime_wasi::p2::pipe::MemoryInputPipe;
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError};
use wasmtime_wasi::{HostMonotonicClock, HostWallClock, WasiCtxBuilder, async_trait};

use crate::agent::modules::FEATURES;

/// How often the epoch moves. A guest is stopped at most about this long after its wall limit.
const TICK: Duration = Duration::from_millis(10);

/// How far the guest's clock moves each time it is read. It must move, or a guest that polls it would spin for ever.
const CLOCK_STEP_NANOS: u64 = 1_000;

/// The only argument a guest gets: programs expect a name in the first place.
const PROGRAM_NAME: &str = "agent";

/// The largest stack that fits the threads of the runtime, which have 2 MiB by default, with room for our own frames.
const MAX_STACK: usize = 1 << 20;

/// Subscriptions that one `poll_oneoff` may have; a guest that really waits has one or two.
const MAX_SUBSCRIPTIONS: u32 = 1_024;

/// Random bytes that one call may ask for. The brake cannot take hold within a call, so every call has to be short.
const MAX_RANDOM: u32 = 1 << 20;

/// What one run may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Fuel, about one unit an instruction. Default 2 000 000 000, some seconds of a busy processor.
    pub fuel: u64,
    /// Time on the wall, from the start of the guest; time in the queue does not count. Default 10 s.
    pub wall: Duration,
    /// Linear memory, in bytes. Default 64 MiB.
    pub memory_bytes: usize,
    /// Elements of each table. Default 10 000.
    pub table_elements: usize,
    /// Bytes on standard output. One more is a fault, never a cut. Default 1 MiB.
    pub output_bytes: usize,
    /// Bytes on standard error that are kept. More is dropped, with a mark. Default 64 KiB.
    pub log_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            fuel: 2_000_000_000,
            wall: Duration::from_secs(10),
            memory_bytes: 64 << 20,
            table_elements: 10_000,
            output_bytes: 1 << 20,
            log_bytes: 64 << 10,
        }
    }
}

/// What the sandbox as a whole may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SandboxConfig {
    /// Guests that run at the same time; more wait in the order of their arrival. Default: two a processor, so that a slow
    /// guest does not hold up the rest.
    pub concurrent_runs: u32,
    /// Modules that are compiled at the same time. Default 1: compiling is the one heavy thing that a stranger can cause.
    pub concurrent_compiles: u32,
    /// Compiled code that is kept, in bytes; the modules unused for longest go first. Default 256 MiB.
    pub cache_bytes: u64,
    /// Stack of a guest, in bytes, the same for every run; at most 1 MiB. Default 1 MiB.
    pub stack_bytes: usize,
}

impl Default for SandboxConfig {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            concurrent_runs: u32::try_from(processors).unwrap_or(1).saturating_mul(2).clamp(2, 64),
            concurrent_compiles: 1,
            cache_bytes: 256 << 20,
            stack_bytes: MAX_STACK,
        }
    }
}

/// One run to be made. The same request always has the same outcome, but for [`Fault::OutOfTime`] by the wall.
#[derive(Clone, Debug)]
pub struct Request {
    /// The SHA-256 of the module's bytes.
    pub sha256: [u8; 32],
    /// What the guest reads on standard input.
    pub input: Bytes,
    /// What it may take.
    pub limits: Limits,
    /// The instant that the guest's calendar clock starts at; before 1970 counts as 1970.
    pub now: DateTime<Utc>,
    /// What the guest's random bytes are made from.
    pub seed: [u8; 32],
}

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Standard output of a guest that ended cleanly, or what it did wrong.
    pub outcome: Result<Bytes, Fault>,
    /// Standard error as text, kept for both outcomes: without broken UTF-8, and without control characters other than
    /// line feed and tab, so that it can be stored in any database and shown on any terminal.
    pub logs: String,
    /// What it took.
    pub usage: Usage,
}

/// What a run took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Fuel that was burnt; repeatable.
    pub fuel: u64,
    /// The largest that the linear memory grew, in bytes; repeatable.
    pub peak_memory_bytes: u64,
    /// Time on the wall, from instance to result; without queue, load and compile.
    pub wall: Duration,
}

/// What a guest did wrong. The texts are made for the people on both sides of a task and hold nothing of this machine; the
/// name of a variant is its stable code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, strum::IntoStaticStr)]
#[strum(serialize_all = "SCREAMING_SNAKE_CASE")]
pub enum Fault {
    /// An instruction that cannot be carried out, such as a division by zero.
    #[error("the agent crashed: {reason}")]
    Trap {
        /// One of a fixed set of short texts.
        reason: String,
    },
    /// The fuel was used up.
    #[error("the agent used up its fuel")]
    OutOfFuel,
    /// The wall limit passed, or the guest wanted to sleep past it.
    #[error("the agent ran out of time")]
    OutOfTime,
    /// Memory or a table was refused to the guest, and it failed.
    #[error("the agent ran out of memory")]
    OutOfMemory,
    /// Calls went too deep.
    #[error("the agent ran out of stack: its calls went too deep")]
    StackOverflow,
    /// More output than allowed.
    #[error("the agent wrote more than {limit} bytes of output")]
    OutputTooLarge {
        /// The most bytes allowed.
        limit: usize,
    },
    /// The guest ended by itself with a code other than zero.
    #[error("the agent ended with exit code {0}")]
    ExitCode(i32),
    /// The module has no `_start` without parameters and results.
    #[error("the agent's module has no entry point `_start`")]
    MissingEntryPoint,
    /// The module cannot be compiled or linked.
    #[error("the agent's module is not valid: {reason}")]
    InvalidModule {
        /// What the compiler or linker found.
        reason: String,
    },
}

impl Fault {
    /// The stable code of the fault, such as `OUT_OF_FUEL`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.into()
    }
}

/// What went wrong on our side. Nothing is known about the guest then, so the run is to be tried again.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The bytes of the module could not be had.
    #[error("the module could not be loaded")]
    Load(#[source] Box<dyn StdError + Send + Sync>),
    /// The bytes that were loaded are not those of the hash.
    #[error("the bytes that were loaded do not have the hash of the module")]
    HashMismatch,
    /// The engine could not be set up, or had no room for an instance.
    #[error("the WebAssembly engine failed")]
    Engine(#[source] Box<dyn StdError + Send + Sync>),
    /// The run was given up: nobody waits for it, or the process ends.
    #[error("the run was interrupted")]
    Interrupted,
}

fn engine_error(error: wasmtime::Error) -> SandboxError {
    SandboxError::Engine(error.into())
}

/// Runs guests. Cheap to clone; all clones share one engine, one cache and one set of slots.
#[derive(Clone)]
pub struct Sandbox {
    inner: Arc<Inner>,
}

struct Inner {
    linker: Linker<Guest>,
    engine: Engine,
    compiled: Cache<[u8; 32], Arc<OnceCell<Prepared>>>,
    runs: Arc<Semaphore>,
    compiles: Arc<Semaphore>,
}

/// A module that only waits for an instance; or the fault that every run of it has, kept so that it is found once.
type Prepared = Result<InstancePre<Guest>, Fault>;

impl fmt::Debug for Sandbox {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Sandbox").field("modules", &self.inner.compiled.entry_count()).finish_non_exhaustive()
    }
}

impl Sandbox {
    /// Sets the engine up and starts the thread that moves its epoch. The thread ends when the last clone and the last run
    /// are gone.
    ///
    /// # Errors
    /// [`SandboxError::Engine`] when the processor is not supported, no thread can be started, or the stack is too large.
    pub fn new(config: SandboxConfig) -> Result<Self, SandboxError> {
        if config.stack_bytes > MAX_STACK {
            return Err(SandboxError::Engine(
                format!("the stack of a guest can have at most {MAX_STACK} bytes").into(),
            ));
        }
        let slots = config.concurrent_runs.max(1);
        // With the pool an instance takes memory that is already mapped, about a quarter of the time of mapping anew. It
        // reserves some gigabytes of addresses a slot, though not memory, which a container or a ulimit may forbid.
        let engine = match Engine::new(&engine_config(&config, Some(pool(slots)))) {
            Ok(engine) => engine,
            Err(error) => {
                tracing::warn!(%error, "no room for a pool of instances: each run maps its own memory, which is slower");
                Engine::new(&engine_config(&config, None)).map_err(engine_error)?
            }
        };
        start_ticker(engine.weak())?;

        let mut linker = Linker::new(&engine);
        link(&mut linker).map_err(engine_error)?;
        let permits = |count: u32| Arc::new(Semaphore::new(usize::try_from(count.max(1)).unwrap_or(1)));
        Ok(Self {
            inner: Arc::new(Inner {
                linker,
                engine,
                compiled: Cache::builder().max_capacity(config.cache_bytes >> 10).weigher(kibibytes).build(),
                runs: permits(slots),
                compiles: permits(config.concurrent_compiles),
            }),
        })
    }

    /// Whether a run of this module would need neither its bytes nor a compilation.
    #[must_use]
    pub fn cached(&self, sha256: &[u8; 32]) -> bool {
        self.inner.compiled.get(sha256).is_some_and(|cell| cell.initialized())
    }

    /// Makes one run. `load` is called only if the module is not compiled yet, and once for all runs that wait for it; what
    /// it gives is hashed before it is used. If the future is dropped, the guest is stopped at the next tick.
    ///
    /// # Errors
    /// [`SandboxError`] for all that is not the guest's doing. What the guest does wrong is in [`Run::outcome`].
    pub async fn run<F, L, E>(&self, request: Request, load: F) -> Result<Run, SandboxError>
    where
        F: FnOnce() -> L,
        L: Future<Output = Result<Bytes, E>>,
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        let ready = match self.prepare(request.sha256, load).await? {
            Ok(ready) => ready,
            Err(fault) => return Ok(Run { outcome: Err(fault), logs: String::new(), usage: Usage::default() }),
        };
        let permit = Arc::clone(&self.inner.runs).acquire_owned().await.map_err(|_| SandboxError::Interrupted)?;
        let given_up = GiveUp(Arc::new(AtomicBool::new(false)));
        let watched = Arc::clone(&given_up.0);
        let engine = self.inner.engine.clone();
        let ended = tokio::task::spawn_blocking(move || {
            let ended = execute(&engine, &ready, request, watched);
            // The slot is free only now: the store is gone and its memory is back in the pool.
            drop(permit);
            ended
        });
        ended.await.map_err(interrupted)?
    }

    async fn prepare<F, L, E>(&self, sha256: [u8; 32], load: F) -> Result<Prepared, SandboxError>
    where
        F: FnOnce() -> L,
        L: Future<Output = Result<Bytes, E>>,
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        let inner = &self.inner;
        let cell = inner.compiled.get_with(sha256, Arc::default);
        if let Some(prepared) = cell.get() {
            return Ok(prepared.clone());
        }
        let compile = async || {
            let wasm = load().await.map_err(|error| SandboxError::Load(error.into()))?;
            let permit = Arc::clone(&inner.compiles).acquire_owned().await.map_err(|_| SandboxError::Interrupted)?;
            let inner = Arc::clone(inner);
            let compiled = tokio::task::spawn_blocking(move || {
                let _permit = permit;
                if <[u8; 32]>::from(Sha256::digest(&wasm)) != sha256 {
                    return Err(SandboxError::HashMismatch);
                }
                Ok(inner.compile(&wasm))
            });
            compiled.await.map_err(interrupted)?
        };
        let prepared = cell.get_or_try_init(compile).await?.clone();
        // The cell was empty when the cache weighed it; putting it in again makes the code count.
        inner.compiled.insert(sha256, cell);
        Ok(prepared)
    }
}

impl Inner {
    fn compile(&self, wasm: &[u8]) -> Prepared {
        let invalid = |error: wasmtime::Error| Fault::InvalidModule { reason: error.root_cause().to_string() };
        // `Module::new` would take the text format as well if that feature were ever turned on; agents are binaries.
        let module = Module::from_binary(&self.engine, wasm).map_err(invalid)?;
        match module.get_export("_start") {
            Some(ExternType::Func(ty)) if ty.params().len() == 0 && ty.results().len() == 0 => {}
            _ => return Err(Fault::MissingEntryPoint),
        }
        if !matches!(module.get_export("memory"), Some(ExternType::Memory(_))) {
            return Err(Fault::InvalidModule { reason: "it exports no memory named `memory`".to_owned() });
        }
        self.linker.instantiate_pre(&module).map_err(invalid)
    }
}

/// The weight of a module in the cache: its code, and never nothing, so that the number of entries is bounded as well.
fn kibibytes(_: &[u8; 32], cell: &Arc<OnceCell<Prepared>>) -> u32 {
    let code = match cell.get() {
        Some(Ok(ready)) => {
            let image = ready.module().image_range();
            image.end.addr().saturating_sub(image.start.addr())
        }
        Some(Err(_)) | None => 0,
    };
    u32::try_from(code >> 10).unwrap_or(u32::MAX).saturating_add(16)
}

fn interrupted(error: tokio::task::JoinError) -> SandboxError {
    // A panic is a defect of ours and must be seen; the other case is a runtime that shuts down.
    if error.is_panic() { SandboxError::Engine(error.into()) } else { SandboxError::Interrupted }
}

fn engine_config(config: &SandboxConfig, pool: Option<PoolingAllocationConfig>) -> Config {
    let mut engine = Config::new();
    engine
        .wasm_features(WasmFeatures::all(), false)
        .wasm_features(FEATURES, true)
        .consume_fuel(true)
        .epoch_interruption(true)
        .max_wasm_stack(config.stack_bytes)
        // The payload of a not-a-number may differ between processors; canonical ones make results repeatable.
        .cranelift_nan_canonicalization(true)
        // Nobody reads backtraces of guests, and gathering one costs more than a short run.
        .wasm_backtrace_max_frames(None);
    if let Some(pool) = pool {
        engine.allocation_strategy(pool);
    }
    engine
}

fn pool(slots: u32) -> PoolingAllocationConfig {
    let tables = 4;
    let mut pool = PoolingAllocationConfig::new();
    pool.total_core_instances(slots)
        .total_memories(slots)
        .total_tables(slots.saturating_mul(tables))
        .max_memories_per_module(1)
        .max_tables_per_module(tables)
        // What a single run may have is the limiter's to say; the pool only needs room for the largest that could be allowed.
        .table_elements(100_000)
        .max_memory_size(4 << 30)
        .max_unused_warm_slots(slots)
        // Zeroing this much by hand is faster than giving it back to the system and faulting it in again.
        .linear_memory_keep_resident(256 << 10)
        .table_keep_resident(16 << 10);
    pool
}

/// Moves the epoch for as long as the engine lives. A thread of its own: a busy runtime must not be able to stop the clock
/// that limits guests.
fn start_ticker(engine: EngineWeak) -> Result<(), SandboxError> {
    let tick = move || {
        while let Some(engine) = engine.upgrade() {
            engine.increment_epoch();
            drop(engine);
            std::thread::sleep(TICK);
        }
    };
    match std::thread::Builder::new().name("sandbox-epoch".to_owned()).spawn(tick) {
        Ok(_detached) => Ok(()),
        Err(error) => Err(SandboxError::Engine(error.into())),
    }
}

/// The real clock, which the wall limit of foreign code is about. It decides nothing else.
fn stopwatch() -> Instant {
    Instant::now()
}

/// Tells the guest's thread that nobody waits any more.
struct GiveUp(Arc<AtomicBool>);

impl Drop for GiveUp {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Why we stopped a guest. It travels through the engine as an error and is recognised on the other side.
#[derive(Clone, Copy, Debug, thiserror::Error)]
enum Stop {
    #[error("exit")]
    Exit(i32),
    #[error("out of time")]
    Time,
    #[error("too much output")]
    Output,
    #[error("given up")]
    GivenUp,
}

/// What the host keeps for one guest.
struct Guest {
    wasi: WasiP1Ctx,
    meter: Meter,
    random: Seeded,
    clock: Arc<PrivateClock>,
    /// Where the calendar clock starts, in nanoseconds since 1970.
    calendar_nanos: u64,
    wall_nanos: u64,
}

fn execute(
    engine: &Engine,
    ready: &InstancePre<Guest>,
    request: Request,
    given_up: Arc<AtomicBool>,
) -> Result<Run, SandboxError> {
    let Request { sha256: _, input, limits, now, seed } = request;
    let started = stopwatch();
    let clock = Arc::new(PrivateClock::default());
    let output = Capture::new(limits.output_bytes, WhenFull::Stop);
    let logs = Capture::new(limits.log_bytes, WhenFull::Drop);
    let wasi = WasiCtxBuilder::new()
        .arg(PROGRAM_NAME)
        .stdin(MemoryInputPipe::new(input))
        .stdout(output.clone())
        .stderr(logs.clone())
        .monotonic_clock(Monotonic(Arc::clone(&clock)))
        .wall_clock(Calendar { start: since_1970(now), clock: Arc::clone(&clock) })
        .build_p1();
    let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    let guest = Guest {
        wasi,
        meter: Meter::new(&limits),
        random: Seeded::new(seed),
        clock,
        calendar_nanos: nanos(since_1970(now)),
        wall_nanos: nanos(limits.wall),
    };
    let mut store = Store::new(engine, guest);
    store.limiter(|guest| &mut guest.meter);
    store.set_fuel(limits.fuel).map_err(engine_error)?;
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(move |_| {
        if given_up.load(Ordering::Relaxed) {
            Err(Stop::GivenUp.into())
        } else if started.elapsed() >= limits.wall {
            Err(Stop::Time.into())
        } else {
            Ok(UpdateDeadline::Continue(1))
        }
    });

    // The start function, if there is one, runs within `instantiate`, under the same limits.
    let ended = match ready.instantiate(&mut store) {
        Ok(instance) => match instance.get_typed_func::<(), ()>(&mut store, "_start") {
            Ok(start) => start.call(&mut store, ()).map_err(|error| (Phase::Call, error)),
            Err(_) => return Err(SandboxError::Interrupted),
        },
        Err(error) => Err((Phase::Instantiate, error)),
    };

    let usage = Usage {
        fuel: limits.fuel.saturating_sub(store.get_fuel().map_err(engine_error)?),
        peak_memory_bytes: u64::try_from(store.data().meter.peak_bytes).unwrap_or(u64::MAX),
        wall: started.elapsed(),
    };
    let refused = store.data().meter.refused;
    drop(store);

    let fault = match ended {
        Ok(()) => None,
        Err((phase, error)) => judge(phase, error, refused, limits.output_bytes)?,
    };
    let outcome = match fault {
        // The guest may have swallowed the failure of its write and ended cleanly; what it wrote is incomplete all the same.
        None if output.overflowed() => Err(Fault::OutputTooLarge { limit: limits.output_bytes }),
        None => Ok(output.take()),
        Some(fault) => Err(fault),
    };
    Ok(Run { outcome, logs: logs.into_text(), usage })
}

#[derive(Clone, Copy)]
enum Phase {
    Instantiate,
    Call,
}

/// Tells the guest's faults from ours. `None` is a clean end.
fn judge(phase: Phase, error: wasmtime::Error, refused: bool, limit: usize) -> Result<Option<Fault>, SandboxError> {
    let fault = if let Some(stop) = error.downcast_ref::<Stop>() {
        match stop {
            Stop::Exit(0) => return Ok(None),
            Stop::Exit(code) => Fault::ExitCode(*code),
            Stop::Time => Fault::OutOfTime,
            Stop::Output => Fault::OutputTooLarge { limit },
            Stop::GivenUp => return Err(SandboxError::Interrupted),
        }
    } else if let Some(trap) = error.downcast_ref::<Trap>() {
        if *trap == Trap::OutOfFuel {
            Fault::OutOfFuel
        } else if *trap == Trap::Interrupt {
            Fault::OutOfTime
        } else if *trap == Trap::StackOverflow {
            Fault::StackOverflow
        } else {
            let text = trap.to_string();
            Fault::Trap { reason: text.strip_prefix("wasm trap: ").unwrap_or(&text).to_owned() }
        }
    } else {
        match phase {
            // An instance that does not come about without a trap is for want of room: the guest's own limit, or ours.
            Phase::Instantiate if refused => Fault::OutOfMemory,
            Phase::Instantiate => return Err(engine_error(error)),
            Phase::Call if error.is::<PoolConcurrencyLimitError>() => return Err(engine_error(error)),
            // The remaining errors come from system calls with arguments that make no sense, such as foreign addresses.
            Phase::Call => {
                tracing::debug!(%error, "a guest misused a system call");
                Fault::Trap { reason: "a system call was given arguments that make no sense".to_owned() }
            }
        }
    };
    // A program that is refused memory mostly aborts, which looks like a crash or an exit; the refusal is the reason.
    let crashed = matches!(fault, Fault::Trap { .. } | Fault::ExitCode(_));
    Ok(Some(if crashed && refused { Fault::OutOfMemory } else { fault }))
}

/// Refuses memory past the limit, and remembers both the peak and the refusal.
struct Meter {
    memory_bytes: usize,
    table_elements: usize,
    peak_bytes: usize,
    refused: bool,
}

impl Meter {
    fn new(limits: &Limits) -> Self {
        Self { memory_bytes: limits.memory_bytes, table_elements: limits.table_elements, peak_bytes: 0, refused: false }
    }
}

impl ResourceLimiter for Meter {
    fn memory_growing(&mut self, _: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let fits = desired <= self.memory_bytes;
        if fits && maximum.is_none_or(|most| desired <= most) {
            self.peak_bytes = self.peak_bytes.max(desired);
        }
        self.refused |= !fits;
        Ok(fits)
    }

    fn memory_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.refused = true;
        Ok(())
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let fits = desired <= self.table_elements;
        self.refused |= !fits;
        Ok(fits)
    }

    fn table_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.refused = true;
        Ok(())
    }

    fn instances(&self) -> usize {
        1
    }

    fn memories(&self) -> usize {
        1
    }

    fn tables(&self) -> usize {
        4
    }
}

/// The guest's own time: nanoseconds since it began. It moves when it is read and when the guest sleeps.
#[derive(Debug, Default)]
struct PrivateClock(AtomicU64);

impl PrivateClock {
    fn read(&self) -> u64 {
        self.advance(CLOCK_STEP_NANOS)
    }

    /// Moves the clock and returns the new time.
    fn advance(&self, nanos: u64) -> u64 {
        let now = self.0.load(Ordering::Relaxed).saturating_add(nanos);
        self.0.store(now, Ordering::Relaxed);
        now
    }
}

struct Monotonic(Arc<PrivateClock>);

impl HostMonotonicClock for Monotonic {
    fn resolution(&self) -> u64 {
        CLOCK_STEP_NANOS
    }

    fn now(&self) -> u64 {
        self.0.read()
    }
}

struct Calendar {
    start: Duration,
    clock: Arc<PrivateClock>,
}

impl HostWallClock for Calendar {
    fn resolution(&self) -> Duration {
        Duration::from_nanos(CLOCK_STEP_NANOS)
    }

    fn now(&self) -> Duration {
        self.start.saturating_add(Duration::from_nanos(self.clock.read()))
    }
}

fn since_1970(instant: DateTime<Utc>) -> Duration {
    let seconds = u64::try_from(instant.timestamp()).unwrap_or(0);
    Duration::new(seconds, instant.timestamp_subsec_nanos().min(999_999_999))
}

/// Random bytes from a seed: SHA-256 of the seed and a block number, block after block. The generators of libraries may
/// change with their versions; this sequence never does, so a run can be repeated years later.
struct Seeded {
    seed: [u8; 32],
    block: u64,
    rest: std::iter::Take<std::array::IntoIter<u8, 32>>,
}

impl Seeded {
    fn new(seed: [u8; 32]) -> Self {
        Self { seed, block: 0, rest: [0; 32].into_iter().take(0) }
    }

    fn byte(&mut self) -> u8 {
        loop {
            if let Some(byte) = self.rest.next() {
                return byte;
            }
            let digest = Sha256::new().chain_update(self.seed).chain_update(self.block.to_le_bytes()).finalize();
            self.block = self.block.wrapping_add(1);
            self.rest = <[u8; 32]>::from(digest).into_iter().take(32);
        }
    }
}

/// What happens to a write that no longer fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WhenFull {
    /// The guest is stopped: half an output must never pass for a whole one.
    Stop,
    /// The write seems to succeed and the rest is dropped: logging must never fail a guest.
    Drop,
}

/// Standard output or error of a guest, kept in memory up to a bound.
#[derive(Clone, Debug)]
struct Capture {
    limit: usize,
    when_full: WhenFull,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    bytes: Vec<u8>,
    overflowed: bool,
}

impl Capture {
    fn new(limit: usize, when_full: WhenFull) -> Self {
        Self { limit, when_full, kept: Arc::default() }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // The lock is never held across anything that panics, and the bytes are whole in any case.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn overflowed(&self) -> bool {
        self.kept().overflowed
    }

    fn take(&self) -> Bytes {
        std::mem::take(&mut self.kept().bytes).into()
    }

    fn into_text(self) -> String {
        let kept = std::mem::take(&mut *self.kept());
        let text: String = String::from_utf8_lossy(&kept.bytes)
            .chars()
            .map(|letter| if letter.is_control() && letter != '\n' && letter != '\t' { '\u{fffd}' } else { letter })
            .collect();
        if kept.overflowed {
            format!("{text}\n[cut: only the first {} bytes of the log are kept]", self.limit)
        } else {
            text
        }
    }
}

impl IsTerminal for Capture {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Capture {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    /// Preview 1 writes through the other stream only; this one goes nowhere.
    fn async_stream(&self) -> Box<dyn tokio::io::AsyncWrite + Send + Sync> {
        Box::new(tokio::io::sink())
    }
}

#[async_trait]
impl Pollable for Capture {
    async fn ready(&mut self) {}
}

impl OutputStream for Capture {
    fn write(&mut self, bytes: Bytes) -> Result<(), StreamError> {
        let mut kept = self.kept();
        let room = self.limit.saturating_sub(kept.bytes.len());
        let fitting = bytes.get(..room.min(bytes.len())).unwrap_or_default();
        kept.bytes.extend_from_slice(fitting);
        if fitting.len() == bytes.len() {
            return Ok(());
        }
        kept.overflowed = true;
        match self.when_full {
            WhenFull::Stop => Err(StreamError::Trap(Stop::Output.into())),
            WhenFull::Drop => Ok(()),
        }
    }

    fn flush(&mut self) -> Result<(), StreamError> {
        Ok(())
    }

    fn check_write(&mut self) -> Result<usize, StreamError> {
        // Always more than one write brings, so that the decision is made in `write` alone.
        Ok(64 << 10)
    }
}

/// Defines what a guest may import: WASI preview 1, with three functions of our own in place of the usual ones.
fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    p1::add_to_linker_sync(linker, |guest: &mut Guest| &mut guest.wasi)?;
    linker.allow_shadowing(true);
    // The usual one takes codes above 125 for a fault of the caller's; here every code is the guest's to choose.
    linker.func_wrap("wasi_snapshot_preview1", "proc_exit", |code: i32| -> wasmtime::Result<()> {
        Err(Stop::Exit(code).into())
    })?;
    // The usual one takes its bytes from generators that may change with their versions.
    linker.func_wrap("wasi_snapshot_preview1", "random_get", random_get)?;
    // The usual one really sleeps.
    linker.func_wrap("wasi_snapshot_preview1", "poll_oneoff", poll_oneoff)?;
    Ok(())
}

/// Error numbers of WASI preview 1.
mod errno {
    pub(super) const SUCCESS: i32 = 0;
    pub(super) const BAD_DESCRIPTOR: i32 = 8;
    pub(super) const FAULT: i32 = 21;
    pub(super) const INVALID: i32 = 28;
}

/// Fills a piece of the guest's memory from its seed.
fn random_get(mut caller: Caller<'_, Guest>, at: u32, len: u32) -> i32 {
    if len > MAX_RANDOM {
        return errno::INVALID;
    }
    let Some(memory) = caller.get_export("memory").and_then(wasmtime::Extern::into_memory) else {
        return errno::FAULT;
    };
    let (memory, guest) = memory.data_and_store_mut(&mut caller);
    let place = usize::try_from(at).ok().and_then(|at| memory.get_mut(at..));
    let Some(place) = place.and_then(|rest| rest.get_mut(..usize::try_from(len).ok()?)) else {
        return errno::FAULT;
    };
    place.fill_with(|| guest.random.byte());
    errno::SUCCESS
}

/// One thing a guest waits for, as far as it matters here.
#[derive(Clone, Copy, Debug)]
struct Subscription {
    userdata: [u8; 8],
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// An instant of the private clock, in nanoseconds.
    Until(u64),
    /// A standard stream; tag 1 is reading, 2 writing. They are ready always.
    Ready(u8),
    /// Something that cannot be waited for: its tag and an error number.
    Wrong(u8, i32),
}

/// Waits without waiting. A stream among the subscriptions is ready at once; otherwise the private clock jumps to the
/// earliest instant that is waited for. See WASI preview 1 for the layout of both arrays.
fn poll_oneoff(
    mut caller: Caller<'_, Guest>,
    subscriptions: u32,
    events: u32,
    count: u32,
    written: u32,
) -> wasmtime::Result<i32> {
    if count == 0 || count > MAX_SUBSCRIPTIONS {
        return Ok(errno::INVALID);
    }
    let Some(memory) = caller.get_export("memory").and_then(wasmtime::Extern::into_memory) else {
        return Ok(errno::FAULT);
    };
    let (memory, guest) = memory.data_and_store_mut(&mut caller);
    let Some(waited_for) = read_subscriptions(memory, subscriptions, count, guest) else {
        return Ok(errno::FAULT);
    };

    let streams = waited_for.iter().any(|subscription| !matches!(subscription.kind, Kind::Until(_)));
    let earliest = waited_for.iter().filter_map(|subscription| match subscription.kind {
        Kind::Until(instant) => Some(instant),
        Kind::Ready(_) | Kind::Wrong(..) => None,
    });
    let mut now = guest.clock.advance(0);
    if let Some(instant) = earliest.min().filter(|_| !streams) {
        now = guest.clock.advance(instant.saturating_sub(now));
    }
    if now >= guest.wall_nanos {
        return Err(Stop::Time.into());
    }

    let mut at = events;
    let mut happened = 0_u32;
    for Subscription { userdata, kind } in waited_for {
        let (tag, error) = match kind {
            Kind::Until(instant) if instant > now => continue,
            Kind::Until(_) => (0, errno::SUCCESS),
            Kind::Ready(tag) => (tag, errno::SUCCESS),
            Kind::Wrong(tag, error) => (tag, error),
        };
        let mut event = [0_u8; 32];
        let fields = [
            (0_u32, userdata.as_slice()),
            (8, u16::try_from(error).unwrap_or(u16::MAX).to_le_bytes().as_slice()),
            (10, [tag].as_slice()),
            // How many bytes are there is not known in advance; one keeps a guest from taking it for the end.
            (16, 1_u64.to_le_bytes().as_slice()),
        ]
        .into_iter()
        .all(|(offset, bytes)| put(&mut event, offset, bytes));
        if !fields || !put(memory, at, &event) {
            return Ok(errno::FAULT);
        }
        at = at.saturating_add(32);
        happened = happened.saturating_add(1);
    }
    Ok(if put(memory, written, &happened.to_le_bytes()) { errno::SUCCESS } else { errno::FAULT })
}

/// Reads what a guest waits for; `None` if the array is not within its memory.
fn read_subscriptions(memory: &[u8], start: u32, count: u32, guest: &Guest) -> Option<Vec<Subscription>> {
    let mut all = Vec::new();
    for index in 0..count {
        let at = start.checked_add(index.checked_mul(48)?)?;
        let userdata = get(memory, at)?;
        let [tag] = get(memory, at.checked_add(8)?)?;
        let number = u32::from_le_bytes(get(memory, at.checked_add(16)?)?);
        let kind = match tag {
            0 => {
                let timeout = u64::from_le_bytes(get(memory, at.checked_add(24)?)?);
                let absolute = u16::from_le_bytes(get(memory, at.checked_add(40)?)?) & 1 == 1;
                let origin = match number {
                    // The calendar runs in step with the private clock, so an instant of one is an instant of the other.
                    0 => Some(guest.calendar_nanos),
                    1 => Some(0),
                    _ => None,
                };
                match origin {
                    Some(origin) if absolute => Kind::Until(timeout.saturating_sub(origin)),
                    Some(_) => Kind::Until(guest.clock.advance(0).saturating_add(timeout)),
                    None => Kind::Wrong(tag, errno::INVALID),
                }
            }
            1 | 2 if number <= 2 => Kind::Ready(tag),
            1 | 2 => Kind::Wrong(tag, errno::BAD_DESCRIPTOR),
            _ => return None,
        };
        all.push(Subscription { userdata, kind });
    }
    Some(all)
}

fn get<const N: usize>(memory: &[u8], at: u32) -> Option<[u8; N]> {
    memory.get(usize::try_from(at).ok()?..)?.first_chunk().copied()
}

fn put(memory: &mut [u8], at: u32, bytes: &[u8]) -> bool {
    let place =
        usize::try_from(at).ok().and_then(|at| memory.get_mut(at..)).and_then(|rest| rest.get_mut(..bytes.len()));
    match place {
        Some(place) => {
            place.copy_from_slice(bytes);
            true
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;
    use std::fmt::Write as _;
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
        let crashing = wat(
            r#"(module (memory (export "memory") 1) (func $init unreachable) (start $init) (func (export "_start")))"#,
        );
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
        let foreign =
            wat(r#"(module (import "env" "f" (func)) (memory (export "memory") 1) (func (export "_start")))"#);
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
            runs.spawn(
                async move { run_in(&sandbox, &wasm, b"", Limits { fuel: 1_000_000, ..short() }).await.outcome },
            );
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
        link(&mut linker).unwrap();
        let module = Module::from_binary(&engine, &command(LOOP)).unwrap();
        let ready = linker.instantiate_pre(&module).unwrap();
        let wanted = request(&Bytes::new(), b"", short());
        let run = execute(&engine, &ready, wanted, Arc::default()).unwrap();
        assert_eq!(run.outcome, Err(Fault::OutOfFuel));
    }

    #[test]
    fn a_stack_that_does_not_fit_is_refused() {
        let config = SandboxConfig { stack_bytes: 2 << 20, ..SandboxConfig::default() };
        assert!(matches!(Sandbox::new(config), Err(SandboxError::Engine(_))));
    }

    fn agent(name: &str) -> Bytes {
        let bytes: &[u8] = match name {
            "text-stats-lite" => include_bytes!("../../agents/wasm/text-stats-lite.wasm"),
            "text-stats-pro" => include_bytes!("../../agents/wasm/text-stats-pro.wasm"),
            "csv-summary-lite" => include_bytes!("../../agents/wasm/csv-summary-lite.wasm"),
            "csv-summary-pro" => include_bytes!("../../agents/wasm/csv-summary-pro.wasm"),
            "json-validate-lite" => include_bytes!("../../agents/wasm/json-validate-lite.wasm"),
            "json-validate-pro" => include_bytes!("../../agents/wasm/json-validate-pro.wasm"),
            "text-keywords-lite" => include_bytes!("../../agents/wasm/text-keywords-lite.wasm"),
            "text-keywords-pro" => include_bytes!("../../agents/wasm/text-keywords-pro.wasm"),
            other => panic!("no sample agent is called {other}"),
        };
        Bytes::copy_from_slice(bytes)
    }

    /// Runs a sample agent; `Err` is its log.
    async fn ask(sandbox: &Sandbox, name: &str, input: &str) -> Result<String, String> {
        let run = run_in(sandbox, &agent(name), input.as_bytes(), Limits::default()).await;
        match run.outcome {
            Ok(output) => Ok(String::from_utf8(output.into()).unwrap()),
            Err(Fault::ExitCode(1)) => Err(run.logs),
            Err(fault) => panic!("{name} on {input}: {fault}"),
        }
    }

    #[tokio::test]
    async fn every_agent_of_the_catalogue_is_a_valid_module() {
        let catalogue: serde_json::Value = serde_json::from_str(include_str!("../../agents/agents.json")).unwrap();
        let agents = catalogue.as_array().unwrap();
        assert_eq!(agents.len(), 8);
        let mut offers = std::collections::HashMap::<_, u32>::new();
        for listed in agents {
            let name = listed["name"].as_str().unwrap();
            assert_eq!(listed["module"], format!("{name}.wasm"));
            let interface = crate::agent::modules::inspect(&agent(name)).unwrap();
            assert_eq!(interface, crate::agent::modules::Interface::WasiCommand);
            for capability in listed["capabilities"].as_array().unwrap() {
                *offers.entry(capability.as_str().unwrap()).or_default() += 1;
            }
        }
        assert!(offers.values().all(|offers| *offers >= 2), "an auction needs two bidders: {offers:?}");
    }

    #[tokio::test]
    async fn text_stats() {
        let sandbox = sandbox();
        let text = r#""The cat sat. The cat's hat? It's 3.14 \u00dcber-caf\u00e9s\n\nna\u00efve \ud83d\ude80!\n""#;
        assert_eq!(
            ask(&sandbox, "text-stats-lite", text).await.unwrap(),
            r#"{"characters":59,"bytes":65,"words":11,"lines":3}"#
        );
        assert_eq!(
            ask(&sandbox, "text-stats-pro", text).await.unwrap(),
            concat!(
                r#"{"characters":59,"bytes":65,"words":11,"lines":3,"charactersWithoutSpaces":47,"sentences":3,"paragraphs":2,"#,
                r#""uniqueWords":10,"averageWordLength":3.818182,"averageSentenceLength":3.666667,"longestWord":"über-cafés","#,
                r#""readingSeconds":3,"mostCommonWords":[{"word":"the","count":2},{"word":"14","count":1},{"word":"3","count":1},"#,
                r#"{"word":"cat","count":1},{"word":"cat's","count":1},{"word":"hat","count":1},{"word":"it's","count":1},"#,
                r#"{"word":"naïve","count":1},{"word":"sat","count":1},{"word":"über-cafés","count":1}]}"#
            )
        );
        assert_eq!(
            ask(&sandbox, "text-stats-lite", r#"{"text":""}"#).await.unwrap(),
            r#"{"characters":0,"bytes":0,"words":0,"lines":0}"#
        );
        for agent in ["text-stats-lite", "text-stats-pro"] {
            for (input, reason) in [
                ("7", "the input must be a string, or an object with a string named text\n"),
                ("", "the input is not JSON: it ends too early\n"),
                ("\"a", "the input is not JSON: a string has no end\n"),
                ("\"a\" x", "the input is not JSON: something follows the value\n"),
                (r#""\ud800""#, "the input is not JSON: half of a surrogate pair\n"),
                ("[1,]", "the input is not JSON: a number wants a digit\n"),
            ] {
                assert_eq!(ask(&sandbox, agent, input).await.unwrap_err(), reason, "{input}");
            }
            let deep = "[".repeat(100_000);
            assert_eq!(ask(&sandbox, agent, &deep).await.unwrap_err(), "the input is nested too deeply\n");
        }
    }

    #[tokio::test]
    async fn csv_summary() {
        let sandbox = sandbox();
        let table = r#""name,price,when,ok,code\r\n\"Smith, \"\"J\"\"\",1.5,2024-01-02,true,007\r\nÄnn,-2,2023-12-31,FALSE,010\r\n\r\nx,,,,\r\ny,1e2\r\n""#;
        assert_eq!(
            ask(&sandbox, "csv-summary-lite", table).await.unwrap(),
            concat!(
                r#"{"rows":4,"columns":[{"name":"name","count":4,"missing":0},{"name":"price","count":3,"missing":1},"#,
                r#"{"name":"when","count":2,"missing":2},{"name":"ok","count":2,"missing":2},{"name":"code","count":2,"missing":2}]}"#
            )
        );
        assert_eq!(
            ask(&sandbox, "csv-summary-pro", table).await.unwrap(),
            concat!(
                r#"{"rows":4,"raggedRows":1,"delimiter":",","columns":["#,
                r#"{"name":"name","count":4,"missing":0,"type":"string","distinct":4,"min":"Smith, \"J\"","max":"Änn"},"#,
                r#"{"name":"price","count":3,"missing":1,"type":"number","distinct":3,"min":-2,"max":100,"sum":99.5,"mean":33.166667},"#,
                r#"{"name":"when","count":2,"missing":2,"type":"date","distinct":2,"min":"2023-12-31","max":"2024-01-02"},"#,
                r#"{"name":"ok","count":2,"missing":2,"type":"boolean","distinct":2,"min":"FALSE","max":"true"},"#,
                r#"{"name":"code","count":2,"missing":2,"type":"string","distinct":2,"min":"007","max":"010"}]}"#
            )
        );
        let semicolons = r#"{"csv":"a;b\n1;9007199254740993\n2;1e300\n0.1;\n0.2;"}"#;
        assert_eq!(
            ask(&sandbox, "csv-summary-pro", semicolons).await.unwrap(),
            concat!(
                r#"{"rows":4,"raggedRows":0,"delimiter":";","columns":["#,
                r#"{"name":"a","count":4,"missing":0,"type":"number","distinct":4,"min":0.1,"max":2,"sum":3.3,"mean":0.825},"#,
                r#"{"name":"b","count":2,"missing":2,"type":"number","distinct":2,"min":9.00719925474099e15,"max":1e300,"sum":1e300,"mean":5e299}]}"#
            )
        );
        assert_eq!(
            ask(&sandbox, "csv-summary-lite", r#"{"csv":"a\tb\n1\t2","delimiter":"\t"}"#).await.unwrap(),
            r#"{"rows":1,"columns":[{"name":"a","count":1,"missing":0},{"name":"b","count":1,"missing":0}]}"#
        );
        for agent in ["csv-summary-lite", "csv-summary-pro"] {
            for (input, reason) in [
                (r#""""#, "the CSV is empty: its first record must name the columns\n"),
                (r#""a\n\"b""#, "the CSV has a quoted field without an end\n"),
                (r#""a\n\"b\"c""#, "the CSV has characters after a closing quote\n"),
                (
                    r#"{"csv":"a","delimiter":"ab"}"#,
                    "the delimiter must be one ASCII character other than a quote or a line end\n",
                ),
            ] {
                assert_eq!(ask(&sandbox, agent, input).await.unwrap_err(), reason, "{input}");
            }
        }
    }

    #[tokio::test]
    async fn json_validate() {
        let sandbox = sandbox();
        let simple = r#"{"schema":{"type":"object","required":["id"],"properties":{"id":{"type":"integer"},
            "tags":{"type":"array","items":{"enum":["a","b"]}}}},"value":{"tags":["a","c"],"id":1.5}}"#;
        assert_eq!(
            ask(&sandbox, "json-validate-lite", simple).await.unwrap(),
            r#"{"valid":false,"errors":[{"path":"/tags/1","message":"the value is not one of the enum"}]}"#
        );
        assert_eq!(
            ask(&sandbox, "json-validate-pro", simple).await.unwrap(),
            concat!(
                r#"{"valid":false,"errors":[{"path":"/tags/1","message":"the value is not one of the enum"},"#,
                r#"{"path":"/id","message":"expected integer, found number"}],"truncated":false}"#
            )
        );
        // Each case: a schema, a value that satisfies it, one that does not, and the only error of the latter.
        let cases = [
            (r#"{"type":["string","null"]}"#, "null", "1", ("", "expected string or null, found number")),
            (r#"{"const":{"a":[1,2]}}"#, r#"{"a":[1.0,2e0]}"#, r#"{"a":[2,1]}"#, ("", "the value is not the constant")),
            (r#"{"required":["x"]}"#, r#"{"x":null}"#, "{}", ("", "the member x is missing")),
            (
                r#"{"properties":{"a/b~":{"type":"null"}}}"#,
                r#"{"a/b~":null}"#,
                r#"{"a/b~":1}"#,
                ("/a~1b~0", "expected null, found number"),
            ),
            (
                r#"{"additionalProperties":false,"properties":{"a":true}}"#,
                r#"{"a":1}"#,
                r#"{"b":1}"#,
                ("/b", "this member is not allowed"),
            ),
            (
                r#"{"additionalProperties":{"minimum":3}}"#,
                r#"{"a":3}"#,
                r#"{"b":2}"#,
                ("/b", "the number is below the minimum"),
            ),
            (r#"{"maximum":3}"#, "3", "3.5", ("", "the number is above the maximum")),
            (r#"{"exclusiveMinimum":3}"#, "4", "3", ("", "the number is not above the exclusive minimum")),
            (r#"{"exclusiveMaximum":3}"#, "2", "3", ("", "the number is not below the exclusive maximum")),
            (r#"{"multipleOf":0.1}"#, "0.3", "0.25", ("", "the number is not a multiple of multipleOf")),
            (r#"{"minLength":2}"#, r#""éé""#, r#""é""#, ("", "there are 1 characters, fewer than minLength")),
            (r#"{"maxLength":1}"#, r#""é""#, r#""ab""#, ("", "there are 2 characters, more than maxLength")),
            (r#"{"minItems":1}"#, "[1]", "[]", ("", "there are 0 items, fewer than minItems")),
            (r#"{"uniqueItems":true}"#, "[1,\"1\"]", r#"[{"a":1,"b":2},{"b":2,"a":1}]"#, ("", "two items are equal")),
            (r#"{"maxProperties":0}"#, "{}", r#"{"a":1}"#, ("", "there are 1 members, more than maxProperties")),
            (
                r#"{"anyOf":[{"type":"null"},{"minimum":5}]}"#,
                "6",
                "4",
                ("", "the value satisfies none of the schemas of anyOf"),
            ),
            (
                r#"{"oneOf":[{"minimum":1},{"minimum":5}]}"#,
                "4",
                "6",
                ("", "the value satisfies 2 of the schemas of oneOf, not exactly one"),
            ),
            (r#"{"allOf":[{"minimum":1},{"maximum":5}]}"#, "4", "6", ("", "the number is above the maximum")),
            (r#"{"not":{"type":"null"}}"#, "4", "null", ("", "the value satisfies the schema of not")),
            ("false", "", "4", ("", "no value is allowed here")),
            (
                r##"{"$ref":"#/$defs/n","$defs":{"n":{"properties":{"next":{"$ref":"#/$defs/n"},"v":{"type":"string"}}}}}"##,
                r#"{"next":{"next":{"v":""}}}"#,
                r#"{"next":{"next":{"v":1}}}"#,
                ("/next/next/v", "expected string, found number"),
            ),
        ];
        for (schema, good, bad, (path, message)) in cases {
            if !good.is_empty() {
                let input = format!(r#"{{"schema":{schema},"value":{good}}}"#);
                let answer = ask(&sandbox, "json-validate-pro", &input).await.unwrap();
                assert_eq!(answer, r#"{"valid":true,"errors":[],"truncated":false}"#, "{input}");
            }
            let input = format!(r#"{{"schema":{schema},"value":{bad}}}"#);
            let answer = ask(&sandbox, "json-validate-pro", &input).await.unwrap();
            let expected =
                format!(r#"{{"valid":false,"errors":[{{"path":"{path}","message":"{message}"}}],"truncated":false}}"#);
            assert_eq!(answer, expected, "{input}");
        }
        let many = format!(r#"{{"schema":{{"items":false}},"value":[{}0]}}"#, "0,".repeat(200));
        let answer: serde_json::Value =
            serde_json::from_str(&ask(&sandbox, "json-validate-pro", &many).await.unwrap()).unwrap();
        assert_eq!((answer["errors"].as_array().unwrap().len(), &answer["truncated"]), (100, &true.into()));
        let exactly = format!(r#"{{"schema":{{"items":false}},"value":[{}0]}}"#, "0,".repeat(99));
        let answer: serde_json::Value =
            serde_json::from_str(&ask(&sandbox, "json-validate-pro", &exactly).await.unwrap()).unwrap();
        assert_eq!((answer["errors"].as_array().unwrap().len(), &answer["truncated"]), (100, &false.into()));
        for (agent, input, reason) in [
            (
                "json-validate-lite",
                r#"{"schema":{"minimum":1},"value":1}"#,
                "the schema has a keyword that this agent does not support: minimum\n",
            ),
            (
                "json-validate-pro",
                r#"{"schema":{"pattern":"a"},"value":1}"#,
                "the schema has a keyword that this agent does not support: pattern\n",
            ),
            (
                "json-validate-pro",
                r##"{"schema":{"$ref":"#"},"value":1}"##,
                "the schema refers to itself without end, or is nested too deeply\n",
            ),
            ("json-validate-pro", r##"{"schema":{"$ref":"#/x"},"value":1}"##, "the schema refers to nothing: #/x\n"),
            (
                "json-validate-lite",
                r#"{"schema":{"type":"text"},"value":1}"#,
                "the schema names an unknown type: text\n",
            ),
            ("json-validate-lite", "{}", "the input must be an object with the members schema and value\n"),
        ] {
            assert_eq!(ask(&sandbox, agent, input).await.unwrap_err(), reason, "{input}");
        }
    }

    #[tokio::test]
    async fn text_keywords() {
        let sandbox = sandbox();
        let text = r#"{"text":"A payment channel holds money. The payment channel is opened by a payer; each payment channel is closed once, in 2024.","limit":3}"#;
        assert_eq!(
            ask(&sandbox, "text-keywords-lite", text).await.unwrap(),
            concat!(
                r#"{"keywords":[{"keyword":"channel","count":3,"score":3},{"keyword":"payment","count":3,"score":3},"#,
                r#"{"keyword":"closed","count":1,"score":1}]}"#
            )
        );
        assert_eq!(
            ask(&sandbox, "text-keywords-pro", text).await.unwrap(),
            concat!(
                r#"{"keywords":[{"keyword":"payment channel holds money","count":1,"score":13.333333},"#,
                r#"{"keyword":"payment channel","count":2,"score":10.666667},{"keyword":"closed","count":1,"score":1}]}"#
            )
        );
        assert_eq!(ask(&sandbox, "text-keywords-lite", r#""""#).await.unwrap(), r#"{"keywords":[]}"#);
        for agent in ["text-keywords-lite", "text-keywords-pro"] {
            let refused = ask(&sandbox, agent, r#"{"text":"a","limit":0}"#).await;
            assert_eq!(refused.unwrap_err(), "the limit must be a number from 1 to 100\n");
        }
    }

    #[tokio::test]
    async fn the_examples_of_the_readme_are_true() {
        let sandbox = sandbox();
        let mut capability = String::new();
        let mut examples: Vec<(String, String)> = Vec::new();
        for line in include_str!("../../agents/README.md").lines().take_while(|line| *line != "## Building") {
            if let Some(name) = line.strip_prefix("**`").and_then(|rest| rest.split_once('`')) {
                capability = name.0.replace('.', "-");
            }
            for label in ["in ", "lite ", "pro "] {
                if let Some(text) = line.strip_prefix(label) {
                    examples.push((format!("{capability}-{}", label.trim()), text.trim().to_owned()));
                }
            }
            if let Some(more) = line.strip_prefix("       ").filter(|more| !more.starts_with('|')) {
                examples.last_mut().unwrap().1.push_str(more.trim());
            }
        }
        let mut input = String::new();
        let mut checked = 0;
        for (agent, text) in examples {
            if agent.ends_with("-in") {
                input = text;
                continue;
            }
            let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
            assert_eq!(json(&ask(&sandbox, &agent, &input).await.unwrap()), json(&text), "{agent}");
            checked += 1;
        }
        assert_eq!(checked, 8);
    }

    #[tokio::test]
    async fn large_inputs_are_within_the_default_limits() {
        let sandbox = sandbox();
        let text = format!("\"{}\"", "The quick brown fox jumps over the lazy dog, 12345 times. ".repeat(17_000));
        for agent in ["text-stats-lite", "text-stats-pro", "text-keywords-lite", "text-keywords-pro"] {
            let run = run_in(&sandbox, &self::agent(agent), text.as_bytes(), Limits::default()).await;
            assert!(run.outcome.is_ok(), "{agent}: {run:?}");
        }
        let mut rows = String::new();
        for row in 0..30_000 {
            write!(rows, "{row},\\\"name {row}\\\",{}.5\\n", row * 7).unwrap();
        }
        let table = format!("\"id,name,value\\n{rows}\"");
        for agent in ["csv-summary-lite", "csv-summary-pro"] {
            let run = run_in(&sandbox, &self::agent(agent), table.as_bytes(), Limits::default()).await;
            assert!(run.outcome.is_ok(), "{agent}: {run:?}");
        }
    }
}
