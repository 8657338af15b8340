//! WASI 0.2 commands: components that export `wasi:cli/run` and see the same world as a preview 1 command.
//!
//! The functions are those of the WASI library, over the guest's own context: without directories, network and environment,
//! with its own clocks and randomness. Only waiting is ours: a pollable of the monotonic clock does not wait for real time but
//! moves the private clock, as `poll_oneoff` of preview 1 does here.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use wasmtime::component::{Linker, Resource};
use wasmtime::{Store, StoreContextMut};
use wasmtime_wasi::p2::bindings::sync::{Command, io::poll};
use wasmtime_wasi::p2::{DynPollable, Pollable, add_to_linker_sync, subscribe};
use wasmtime_wasi::{WasiView, async_trait};

use super::world::{Guest, PrivateClock};
use super::{Fault, Stop};
use crate::agent::modules::NEWEST_WASI_0_2;

/// Runs a guest, which reads and writes its streams as it likes.
pub(super) fn call(store: &mut Store<Guest>, command: &Command) -> wasmtime::Result<()> {
    // The end of a program that says no more than that it failed is exit code 1 in every language.
    command.wasi_cli_run().call_run(store)?.map_err(|()| Fault::ExitCode(1).into())
}

/// Defines what a component may import: WASI 0.2, with waiting of our own.
pub(super) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    add_to_linker_sync(linker)?;
    linker.allow_shadowing(true);
    let mut clock = linker.instance(&format!("wasi:clocks/monotonic-clock@0.2.{NEWEST_WASI_0_2}"))?;
    clock.func_wrap("subscribe-instant", |mut store: StoreContextMut<'_, Guest>, (at,): (u64,)| {
        Ok((wait_until(store.data_mut(), at)?,))
    })?;
    clock.func_wrap("subscribe-duration", |mut store: StoreContextMut<'_, Guest>, (nanos,): (u64,)| {
        let guest = store.data_mut();
        let at = guest.clock.advance(0).saturating_add(nanos);
        Ok((wait_until(guest, at)?,))
    })?;
    let mut polls = linker.instance(&format!("wasi:io/poll@0.2.{NEWEST_WASI_0_2}"))?;
    polls.func_wrap("poll", |mut store: StoreContextMut<'_, Guest>, (all,): (Vec<Resource<DynPollable>>,)| {
        let guest = store.data_mut();
        let ready = poll::Host::poll(guest.ctx().table, all)?;
        in_time(guest)?;
        Ok((ready,))
    })?;
    polls.func_wrap(
        "[method]pollable.block",
        |mut store: StoreContextMut<'_, Guest>, (one,): (Resource<DynPollable>,)| {
            let guest = store.data_mut();
            poll::HostPollable::block(guest.ctx().table, one)?;
            in_time(guest)
        },
    )
}

/// Ends a guest that slept past the wall limit.
fn in_time(guest: &Guest) -> wasmtime::Result<()> {
    if guest.clock.advance(0) < guest.wall_nanos { Ok(()) } else { Err(Stop::Time.into()) }
}

fn wait_until(guest: &mut Guest, at: u64) -> wasmtime::Result<Resource<DynPollable>> {
    let wait = Wait { at, clock: Arc::clone(&guest.clock), waiting: guest.waiting.clone() };
    let table = guest.ctx().table;
    let wait = table.push(wait)?;
    subscribe(table, wait)
}

/// What is waited for in one call.
#[derive(Clone, Debug, Default)]
pub(super) struct Waiting(Arc<Mutex<Call>>);

#[derive(Debug, Default)]
struct Call {
    /// The instants, with how often each.
    instants: BTreeMap<u64, u32>,
    /// Whether the clock was moved to the earliest of them, which happens once a call.
    moved: bool,
}

/// An instant of the private clock, in nanoseconds, that can be waited for.
struct Wait {
    at: u64,
    clock: Arc<PrivateClock>,
    waiting: Waiting,
}

impl Waiting {
    fn call(&self) -> MutexGuard<'_, Call> {
        // The lock is never held across anything that panics.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, at: u64) -> Entry {
        let mut call = self.call();
        let count = call.instants.entry(at).or_default();
        *count = count.saturating_add(1);
        Entry { at, waiting: self.clone() }
    }

    /// Moves the clock to the earliest instant, if nobody did so in this call.
    fn pass(&self, clock: &PrivateClock) {
        let mut call = self.call();
        if let Some((earliest, _)) = call.instants.first_key_value().filter(|_| !call.moved) {
            clock.advance(earliest.saturating_sub(clock.advance(0)));
            call.moved = true;
        }
    }
}

/// One that waits; no longer when it is dropped. The call is over when nobody does.
struct Entry {
    at: u64,
    waiting: Waiting,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut call = self.waiting.call();
        let left = call.instants.get(&self.at).map_or(0, |count| count.saturating_sub(1));
        if left > 0 {
            call.instants.insert(self.at, left);
        } else {
            call.instants.remove(&self.at);
        }
        call.moved &= !call.instants.is_empty();
    }
}

#[async_trait]
impl Pollable for Wait {
    /// The first look registers the instant and lets all others be looked at: a stream among them is ready at once, and then
    /// no time passes. If none is, the second look moves the clock to the earliest instant.
    async fn ready(&mut self) {
        // Each look moves the clock, or a guest that asks again and again would spin for ever.
        if self.clock.read() >= self.at {
            return;
        }
        let _entry = self.waiting.enter(self.at);
        let mut looked = false;
        poll_fn(|context| {
            if looked {
                self.waiting.pass(&self.clock);
            }
            if self.clock.advance(0) >= self.at {
                return Poll::Ready(());
            }
            looked = true;
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
}
