//! The sandbox: runs the module of a hosted agent once, on one input, within limits.
//!
//! ```text
//! run ─ compiled before? ─ no ─► load, check the SHA-256, compile (one at a time per module) ─┐
//!              └ yes ────────────────────────────────────────────────────────────────────────┴► a free slot
//!   ─► a fresh instance on a stack of its own ─► the guest reads its input, gives its output, ends ─► Run
//! ```
//!
//! A guest is called in one of three ways, which its exports decide: as a WASI preview 1 command, through the four functions of
//! the JSON interface (`json.rs`), or as a WASI 0.2 command, which is a component (`component.rs`). All have the same limits and
//! see the same world (`world.rs`).
//!
//! What must always hold:
//! - A guest can take no more time, memory, stack, output or log than its [`Limits`], whatever it does, its start function
//!   and its sleeping included. A thread that serves requests gives it one slice, [`SLICE`]; what is not over then goes on
//!   on a thread of its own.
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
//! **Threads.** Most guests are over in some microseconds, less than it takes to wake another thread. So a guest begins where
//! it was asked for, on a stack of its own from the pool, and is put down after a slice: the same stack then goes on on a thread
//! that may be blocked. Components begin there, since what the WASI library does for them blocks.
//!
//! **Compiled code** is kept in memory, and in a folder where there is one (`disk.rs`), so that the next process need not compile.
//!
//! **Sleeping.** A guest that waits is not made to wait: `poll_oneoff` moves its private clock forward and returns. If that
//! takes the private clock past the wall limit, the run ends as out of time, at once and without holding a slot.

mod component;
mod disk;
mod json;
#[cfg(test)]
mod tests;
mod world;

use std::error::Error as StdError;
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use moka::sync::Cache;
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use tokio::sync::{OnceCell, Semaphore};
use wasmtime::component::Component;
use wasmtime::{
    Config, Engine, EngineWeak, InstancePre, Linker, Module, PoolConcurrencyLimitError, PoolingAllocationConfig,
    ResourceLimiter, Store, Trap, UpdateDeadline, WasmFeatures,
};
use wasmtime_wasi::I32Exit;
use wasmtime_wasi::p2::bindings::sync::CommandPre;

use crate::agent::modules::{self, FEATURES, Interface, Invalid};
use disk::Disk;
use world::{Capture, Guest, WhenFull};

/// How often the epoch moves. A guest is stopped at most about this long after its wall limit.
const TICK: Duration = Duration::from_millis(10);

/// How much fuel a guest has on a thread that serves requests: some tenths of a millisecond.
const SLICE: u64 = 1_000_000;

/// The largest stack that fits the stacks of the engine and the threads of the runtime, which have 2 MiB by default, with room for
/// our own frames.
const MAX_STACK: usize = 1 << 20;

/// The parts of a component that one run may have. A core module is one instance with one memory and at most four tables; a
/// component is made of several modules, those of its adapters among them, which share few memories.
const PARTS: Parts = Parts { instances: 30, memories: 2, tables: 30 };

/// Bytes that a component may hand over in one call. They are copied to our side, which its memory limit does not count.
const MAX_HANDED_OVER: usize = 2 << 20;

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
    /// Compiled code that is kept in memory, in bytes; the modules unused for longest go first. Default 256 MiB. As much is kept
    /// on disk, where there is a folder for it; the oldest go first there.
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
    /// What the guest reads on standard input, or is given in its memory.
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
    /// Standard output, or the result, of a guest that ended cleanly; or what it did wrong.
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
    /// The largest that the linear memory grew, in bytes, all memories of a component together; repeatable.
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
    /// A guest with the JSON interface answered that it failed; what it said about it is in the log.
    #[error("the agent's function `execute` answered {0}, which means that it failed")]
    ExecuteFailed(i32),
    /// A guest with the JSON interface gave a place that is not within its memory, or no place at all.
    #[error("the agent's function `{function}` answered {bytes} bytes at {at}, which is not within its memory")]
    BadPointer {
        /// The exported function that gave the place.
        function: &'static str,
        /// The place, in bytes from the start of the memory.
        at: u32,
        /// How many bytes should be there.
        bytes: u64,
    },
    /// A guest with the JSON interface succeeded or ended without a result.
    #[error("the agent ended without a result")]
    NoResult,
    /// The module has nothing that it could be called by.
    #[error("the agent's module has no entry point")]
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
    components: wasmtime::component::Linker<Guest>,
    engine: Engine,
    compiled: Cache<[u8; 32], Arc<OnceCell<Prepared>>>,
    runs: Arc<Semaphore>,
    compiles: Arc<Semaphore>,
    disk: Option<Disk>,
    on_asked: OnceLock<AskedHook>,
}

type AskedHook = Box<dyn Fn(Asked) + Send + Sync>;

/// How a module was found that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// It was compiled before, by this process.
    Ready,
    /// It was compiled before, by another, and read from the disk.
    Read,
    /// It had to be compiled.
    Compiled,
}

impl Inner {
    fn asked(&self, asked: Asked) {
        if let Some(hook) = self.on_asked.get() {
            hook(asked);
        }
    }
}

/// A module that only waits for an instance; or the fault that every run of it has, kept so that it is found once.
type Prepared = Result<Ready, Fault>;

/// What is ready to be run, by the way in which it is called. Cheap to clone.
#[derive(Clone)]
enum Ready {
    Command(InstancePre<Guest>),
    Json(InstancePre<Guest>),
    Component(CommandPre<Guest>),
}

impl Ready {
    /// Bytes of compiled code.
    fn code(&self) -> usize {
        let image = match self {
            Self::Command(ready) | Self::Json(ready) => ready.module().image_range(),
            Self::Component(ready) => ready.instance_pre().component().image_range(),
        };
        image.end.addr().saturating_sub(image.start.addr())
    }
}

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
        Self::open(config, None)
    }

    /// As [`Sandbox::new`], and keeps compiled code in a folder, which it makes where it is not there. Whoever can write to that
    /// folder can run any code with the rights of this process, so a folder that others can write to is not used; nor is
    /// one that cannot be made. That is told in the log, and what would be read is compiled.
    ///
    /// # Errors
    /// Those of [`Sandbox::new`].
    pub fn keeping(config: SandboxConfig, folder: &Path) -> Result<Self, SandboxError> {
        let disk = Disk::open(folder, config.cache_bytes).inspect_err(|error| {
            tracing::warn!(folder = %folder.display(), %error, "compiled modules are not kept on disk, so each start compiles them again");
        });
        Self::open(config, disk.ok())
    }

    fn open(config: SandboxConfig, disk: Option<Disk>) -> Result<Self, SandboxError> {
        if config.stack_bytes > MAX_STACK {
            return Err(SandboxError::Engine(
                format!("the stack of a guest can have at most {MAX_STACK} bytes").into(),
            ));
        }
        let slots = config.concurrent_runs.max(1);
        // With the pool an instance takes memory that is already mapped, about a quarter of the time of mapping anew. It
        // reserves some gigabytes of addresses a slot, though not memory, which a container or a ulimit may forbid.
        let settings = |pool| {
            let mut settings = engine_config(&config, pool);
            settings.cache(disk.as_ref().map(Disk::cache));
            settings
        };
        let engine = match Engine::new(&settings(Some(pool(slots)))) {
            Ok(engine) => engine,
            Err(error) => {
                tracing::warn!(%error, "no room for a pool of instances: each run maps its own memory, which is slower");
                Engine::new(&settings(None)).map_err(engine_error)?
            }
        };
        start_ticker(engine.weak())?;

        let mut linker = Linker::new(&engine);
        world::link(&mut linker).map_err(engine_error)?;
        let mut components = wasmtime::component::Linker::new(&engine);
        component::link(&mut components).map_err(engine_error)?;
        let permits = |count: u32| Arc::new(Semaphore::new(usize::try_from(count.max(1)).unwrap_or(1)));
        Ok(Self {
            inner: Arc::new(Inner {
                linker,
                components,
                engine,
                compiled: Cache::builder().max_capacity(config.cache_bytes >> 10).weigher(kibibytes).build(),
                runs: permits(slots),
                compiles: permits(config.concurrent_compiles),
                disk,
                on_asked: OnceLock::new(),
            }),
        })
    }

    /// Registers the one listener that is told of every module that is asked for.
    pub(crate) fn on_asked(&self, hook: impl Fn(Asked) + Send + Sync + 'static) -> Result<(), SandboxError> {
        let set = self.inner.on_asked.set(Box::new(hook));
        set.map_err(|_| SandboxError::Engine("somebody listens already".into()))
    }

    /// Whether a run of this module would need neither its bytes nor a compilation.
    #[must_use]
    pub fn cached(&self, sha256: &[u8; 32]) -> bool {
        self.inner.compiled.get(sha256).is_some_and(|cell| cell.initialized())
    }

    /// Compiles a module and links it, as the first run of it would. Inside is the fault that every run would have.
    ///
    /// # Errors
    /// [`SandboxError`] for all that is not the module's doing.
    pub async fn check<F, L, E>(&self, sha256: [u8; 32], load: F) -> Result<Result<(), Fault>, SandboxError>
    where
        F: FnOnce() -> L,
        L: Future<Output = Result<Bytes, E>>,
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        Ok(self.prepare(sha256, load).await?.map(|_| ()))
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
        let call = Call::new(&self.inner.engine, &ready, request, Arc::clone(&given_up.0))?;
        // The slot is free only when the store is gone and its memory is back in the pool.
        let begun = match ready {
            Ready::Component(ready) => tokio::task::spawn_blocking(move || {
                let ended = call.component(&ready);
                drop(permit);
                ended
            }),
            Ready::Command(ready) | Ready::Json(ready) => {
                let ended = AssertUnwindSafe(async move {
                    let ended = call.module(&ready).await;
                    drop(permit);
                    ended
                });
                let mut ended = Box::pin(ended.catch_unwind());
                let slice = poll_fn(|context| Poll::Ready(ended.as_mut().poll(context))).await;
                if let Poll::Ready(ended) = slice {
                    return ended.unwrap_or_else(|_| Err(SandboxError::Engine("the host panicked".into())));
                }
                let runtime = Handle::current();
                tokio::task::spawn_blocking(move || {
                    let ended = runtime.block_on(ended);
                    ended.unwrap_or_else(|_| Err(SandboxError::Engine("the host panicked".into())))
                })
            }
        };
        begun.await.map_err(interrupted)?
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
            inner.asked(Asked::Ready);
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
                let (prepared, read) = match &inner.disk {
                    Some(disk) => disk.compile(&inner.engine, &sha256, || inner.compile(&wasm)),
                    None => (inner.compile(&wasm), false),
                };
                inner.asked(if read { Asked::Read } else { Asked::Compiled });
                Ok(prepared)
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
    /// Decides by the rules of the upload, so that what is refused there cannot be run even if it got past.
    fn compile(&self, wasm: &[u8]) -> Prepared {
        let invalid = |error: wasmtime::Error| Fault::InvalidModule { reason: error.root_cause().to_string() };
        let interface = modules::inspect(wasm).map_err(|invalid| unfit(&invalid))?;
        if interface == Interface::WasiComponent {
            let component = Component::from_binary(&self.engine, wasm).map_err(invalid)?;
            let ready = self.components.instantiate_pre(&component).and_then(CommandPre::new).map_err(invalid)?;
            return Ok(Ready::Component(ready));
        }
        // `Module::new` would take the text format as well if that feature were ever turned on; agents are binaries.
        let module = Module::from_binary(&self.engine, wasm).map_err(invalid)?;
        let ready = self.linker.instantiate_pre(&module).map_err(invalid)?;
        Ok(if interface == Interface::JsonAbi { Ready::Json(ready) } else { Ready::Command(ready) })
    }
}

/// What a run of a module comes to that should have been refused at its upload.
fn unfit(invalid: &Invalid) -> Fault {
    match invalid {
        Invalid::MissingEntryPoint | Invalid::MissingRun => Fault::MissingEntryPoint,
        Invalid::MemoryTooLarge { .. } | Invalid::TableTooLarge { .. } => Fault::OutOfMemory,
        Invalid::NotWasm
        | Invalid::Malformed { .. }
        | Invalid::ForbiddenImport { .. }
        | Invalid::ForbiddenInterface { .. }
        | Invalid::IncompleteInterface { .. }
        | Invalid::WrongSignature { .. }
        | Invalid::MissingMemory
        | Invalid::TooLarge { .. } => Fault::InvalidModule { reason: invalid.to_string() },
    }
}

/// The weight of a module in the cache: its code, and never nothing, so that the number of entries is bounded as well.
fn kibibytes(_: &[u8; 32], cell: &Arc<OnceCell<Prepared>>) -> u32 {
    let code = match cell.get() {
        Some(Ok(ready)) => ready.code(),
        Some(Err(_)) | None => 0,
    };
    u32::try_from(code >> 10).unwrap_or(u32::MAX).saturating_add(16)
}

fn interrupted(error: tokio::task::JoinError) -> SandboxError {
    // A panic is a defect of ours and must be seen; the other case is a runtime that shuts down.
    if error.is_panic() { SandboxError::Engine(error.into()) } else { SandboxError::Interrupted }
}

impl SandboxConfig {
    /// The settings of the engine, with its pool of instances; also for who measures what the sandbox adds to it.
    #[must_use]
    pub fn engine(&self) -> Config {
        engine_config(self, Some(pool(self.concurrent_runs.max(1))))
    }
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
    let Parts { instances, memories, tables } = PARTS;
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(slots)
        .total_core_instances(slots.saturating_mul(instances))
        .total_memories(slots.saturating_mul(memories))
        .total_tables(slots.saturating_mul(tables))
        .total_stacks(slots)
        .max_core_instances_per_component(instances)
        .max_memories_per_component(memories)
        .max_tables_per_component(tables)
        .max_memories_per_module(1)
        .max_tables_per_module(4)
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

/// One run, from the store to the result.
struct Call {
    store: Store<Guest>,
    input: Bytes,
    output: Capture,
    logs: Capture,
    limits: Limits,
    started: Instant,
    json: bool,
}

impl Call {
    fn new(engine: &Engine, ready: &Ready, request: Request, given_up: Arc<AtomicBool>) -> Result<Self, SandboxError> {
        let Request { sha256: _, input, limits, now, seed } = request;
        let started = stopwatch();
        let output = Capture::new(limits.output_bytes, WhenFull::Stop);
        let logs = Capture::new(limits.log_bytes, WhenFull::Drop);
        let json = matches!(ready, Ready::Json(_));
        // A guest with the JSON interface has no business with the standard streams: what it prints is its log.
        let (stdin, stdout) = if json { (Bytes::new(), &logs) } else { (input.clone(), &output) };
        let guest = Guest::new(stdin, stdout.clone(), logs.clone(), &limits, now, seed);
        let mut store = Store::new(engine, guest);
        store.limiter(|guest| &mut guest.meter);
        store.set_fuel(limits.fuel).map_err(engine_error)?;
        let component = matches!(ready, Ready::Component(_));
        if component {
            store.set_hostcall_fuel(MAX_HANDED_OVER);
        } else {
            store.fuel_async_yield_interval(Some(SLICE)).map_err(engine_error)?;
        }
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(move |_| {
            if given_up.load(Ordering::Relaxed) {
                Err(Stop::GivenUp.into())
            } else if started.elapsed() >= limits.wall {
                Err(Stop::Time.into())
            } else if component {
                Ok(UpdateDeadline::Continue(1))
            } else {
                // Calls into the host take time but little fuel, so that the slice may be over by the clock too.
                Ok(UpdateDeadline::Yield(1))
            }
        });
        Ok(Self { store, input, output, logs, limits, started, json })
    }

    /// Runs a module. It lets go after each slice.
    async fn module(mut self, ready: &InstancePre<Guest>) -> Result<Run, SandboxError> {
        let ended = self.call(ready).await;
        self.end(ended)
    }

    async fn call(&mut self, ready: &InstancePre<Guest>) -> Result<(), (Phase, wasmtime::Error)> {
        let store = &mut self.store;
        // The start functions, if there are any, run within, under the same limits.
        let instance = ready.instantiate_async(&mut *store).await.map_err(|error| (Phase::Instantiate, error))?;
        if self.json {
            let called = json::call(store, &instance, &self.input, self.limits.output_bytes, &self.logs).await;
            self.output.set(called.map_err(while_called)?);
            return Ok(());
        }
        let start = instance.get_typed_func::<(), ()>(&mut *store, "_start").map_err(while_called)?;
        start.call_async(&mut *store, ()).await.map_err(while_called)
    }

    /// Runs a component, on a thread that may be blocked.
    fn component(mut self, ready: &CommandPre<Guest>) -> Result<Run, SandboxError> {
        let ended = match ready.instantiate(&mut self.store) {
            Ok(command) => component::call(&mut self.store, &command).map_err(while_called),
            Err(error) => Err((Phase::Instantiate, error)),
        };
        self.end(ended)
    }

    fn end(self, ended: Result<(), (Phase, wasmtime::Error)>) -> Result<Run, SandboxError> {
        let Self { store, input: _, output, logs, limits, started, json } = self;
        let usage = Usage {
            fuel: limits.fuel.saturating_sub(store.get_fuel().map_err(engine_error)?),
            peak_memory_bytes: u64::try_from(store.data().meter.peak_bytes).unwrap_or(u64::MAX),
            wall: started.elapsed(),
        };
        let refused = store.data().meter.refused;
        drop(store);

        let fault = match ended {
            Ok(()) => None,
            Err((phase, error)) => match judge(phase, error, refused, limits.output_bytes)? {
                // A command that exits has ended; through the JSON interface that is an end before the result.
                None if json => Some(Fault::NoResult),
                fault => fault,
            },
        };
        let outcome = match fault {
            // The guest may have swallowed the failure of its write and ended cleanly; what it wrote is incomplete all the same.
            None if output.overflowed() => Err(Fault::OutputTooLarge { limit: limits.output_bytes }),
            None => Ok(output.take()),
            Some(fault) => Err(fault),
        };
        Ok(Run { outcome, logs: logs.into_text(), usage })
    }
}

fn while_called(error: wasmtime::Error) -> (Phase, wasmtime::Error) {
    (Phase::Call, error)
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
    } else if let Some(fault) = error.downcast_ref::<Fault>() {
        // The JSON interface finds faults by itself; they travel as [`Stop`] does.
        fault.clone()
    } else if let Some(I32Exit(code)) = error.downcast_ref::<I32Exit>() {
        match code {
            0 => return Ok(None),
            code => Fault::ExitCode(*code),
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
    let crashed = matches!(fault, Fault::Trap { .. } | Fault::ExitCode(_) | Fault::BadPointer { .. });
    Ok(Some(if crashed && refused { Fault::OutOfMemory } else { fault }))
}

/// How many parts of each kind there may be.
#[derive(Clone, Copy, Debug)]
struct Parts {
    instances: u32,
    memories: u32,
    tables: u32,
}

/// Refuses memory past the limit, and remembers both the peak and the refusal.
#[derive(Debug)]
struct Meter {
    memory_bytes: usize,
    table_elements: usize,
    /// All memories together, as of now.
    bytes: usize,
    /// By how much the last growth changed that.
    grown: usize,
    peak_bytes: usize,
    refused: bool,
}

impl Meter {
    fn new(limits: &Limits) -> Self {
        Self {
            memory_bytes: limits.memory_bytes,
            table_elements: limits.table_elements,
            bytes: 0,
            grown: 0,
            peak_bytes: 0,
            refused: false,
        }
    }
}

impl ResourceLimiter for Meter {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let grown = desired.saturating_sub(current);
        let bytes = self.bytes.saturating_add(grown);
        let fits = bytes <= self.memory_bytes;
        if fits && maximum.is_none_or(|most| desired <= most) {
            (self.bytes, self.grown) = (bytes, grown);
            self.peak_bytes = self.peak_bytes.max(bytes);
        }
        self.refused |= !fits;
        Ok(fits)
    }

    fn memory_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.bytes = self.bytes.saturating_sub(std::mem::take(&mut self.grown));
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
        usize::try_from(PARTS.instances).unwrap_or(usize::MAX)
    }

    fn memories(&self) -> usize {
        usize::try_from(PARTS.memories).unwrap_or(usize::MAX)
    }

    fn tables(&self) -> usize {
        usize::try_from(PARTS.tables).unwrap_or(usize::MAX)
    }
}
