//! What a guest sees of the world: its input, a clock and randomness of its own, and two streams that are kept up to a bound.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use rand::TryRng;
use sha2::{Digest, Sha256};
use wasmtime::{Caller, Linker};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p1::{self, WasiP1Ctx};
use wasmtime_wasi::p2::pipe::MemoryInputPipe;
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError};
use wasmtime_wasi::{HostMonotonicClock, HostWallClock, WasiCtxBuilder, WasiCtxView, WasiView, async_trait};

use super::component::Waiting;
use super::{Limits, Meter, Stop};

/// How far the guest's clock moves each time it is read. It must move, or a guest that polls it would spin for ever.
const CLOCK_STEP_NANOS: u64 = 1_000;

/// The only argument a guest gets: programs expect a name in the first place.
const PROGRAM_NAME: &str = "agent";

/// Subscriptions that one `poll_oneoff` may have; a guest that really waits has one or two.
const MAX_SUBSCRIPTIONS: u32 = 1_024;

/// Random bytes that one call may ask for. The brake cannot take hold within a call, so every call has to be short.
const MAX_RANDOM: u32 = 1 << 20;

/// Streams, pollables and the like that a component may hold at once. They are ours to keep, not in its memory.
const MAX_RESOURCES: usize = 1_000;

/// What the host keeps for one guest.
pub(super) struct Guest {
    /// What the WASI library keeps. It is made when it is first asked for: a guest with the JSON interface mostly never does, and making
    /// it costs as much as a short run.
    wasi: Option<WasiP1Ctx>,
    stdin: Bytes,
    stdout: Capture,
    stderr: Capture,
    start: Duration,
    seed: [u8; 32],
    pub(super) meter: Meter,
    pub(super) clock: Arc<PrivateClock>,
    /// What a component waits for within one call.
    pub(super) waiting: Waiting,
    random: Seeded,
    /// Where the calendar clock starts, in nanoseconds since 1970.
    calendar_nanos: u64,
    pub(super) wall_nanos: u64,
}

impl Guest {
    pub(super) fn new(
        stdin: Bytes,
        stdout: Capture,
        stderr: Capture,
        limits: &Limits,
        now: DateTime<Utc>,
        seed: [u8; 32],
    ) -> Self {
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self {
            wasi: None,
            stdin,
            stdout,
            stderr,
            start: since_1970(now),
            seed,
            meter: Meter::new(limits),
            clock: Arc::default(),
            waiting: Waiting::default(),
            random: Seeded::new(seed),
            calendar_nanos: nanos(since_1970(now)),
            wall_nanos: nanos(limits.wall),
        }
    }

    fn wasi(&mut self) -> &mut WasiP1Ctx {
        let Self { wasi, stdin, stdout, stderr, start, seed, clock, .. } = self;
        wasi.get_or_insert_with(|| {
            let mut wasi = WasiCtxBuilder::new()
                .arg(PROGRAM_NAME)
                .stdin(MemoryInputPipe::new(stdin.clone()))
                .stdout(stdout.clone())
                .stderr(stderr.clone())
                .monotonic_clock(Monotonic(Arc::clone(clock)))
                .wall_clock(Calendar { start: *start, clock: Arc::clone(clock) })
                .secure_random(Seeded::new(*seed))
                .insecure_random(Seeded::new(*seed))
                .insecure_random_seed(u128::from_le_bytes(Seeded::new(*seed).bytes()))
                .max_random_size(MAX_RANDOM.into())
                .build_p1();
            wasi.ctx().table.set_max_capacity(MAX_RESOURCES);
            wasi
        })
    }
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.wasi().ctx()
    }
}

/// The guest's own time: nanoseconds since it began. It moves when it is read and when the guest sleeps.
#[derive(Debug, Default)]
pub(super) struct PrivateClock(AtomicU64);

impl PrivateClock {
    pub(super) fn read(&self) -> u64 {
        self.advance(CLOCK_STEP_NANOS)
    }

    /// Moves the clock and returns the new time.
    pub(super) fn advance(&self, nanos: u64) -> u64 {
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

impl Seeded {
    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.byte())
    }
}

impl TryRng for Seeded {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(u32::from_le_bytes(self.bytes()))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(u64::from_le_bytes(self.bytes()))
    }

    fn try_fill_bytes(&mut self, place: &mut [u8]) -> Result<(), Infallible> {
        place.fill_with(|| self.byte());
        Ok(())
    }
}

/// What happens to a write that no longer fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WhenFull {
    /// The guest is stopped: half an output must never pass for a whole one.
    Stop,
    /// The write seems to succeed and the rest is dropped: logging must never fail a guest.
    Drop,
}

/// Standard output or error of a guest, kept in memory up to a bound.
#[derive(Clone, Debug)]
pub(super) struct Capture {
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
    pub(super) fn new(limit: usize, when_full: WhenFull) -> Self {
        Self { limit, when_full, kept: Arc::default() }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // The lock is never held across anything that panics, and the bytes are whole in any case.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn overflowed(&self) -> bool {
        self.kept().overflowed
    }

    pub(super) fn take(&self) -> Bytes {
        std::mem::take(&mut self.kept().bytes).into()
    }

    /// Puts what is known to fit in the place of all that was written.
    pub(super) fn set(&self, bytes: Vec<u8>) {
        self.kept().bytes = bytes;
    }

    /// Keeps as much of some bytes as there is room for. Answers whether that was all.
    pub(super) fn keep(&self, bytes: &[u8]) -> bool {
        let mut kept = self.kept();
        let room = self.limit.saturating_sub(kept.bytes.len());
        let fitting = bytes.get(..room.min(bytes.len())).unwrap_or_default();
        kept.bytes.extend_from_slice(fitting);
        let all = fitting.len() == bytes.len();
        kept.overflowed |= !all;
        all
    }

    pub(super) fn into_text(self) -> String {
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
        if self.keep(&bytes) {
            return Ok(());
        }
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
pub(super) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    p1::add_to_linker_async(linker, Guest::wasi)?;
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
