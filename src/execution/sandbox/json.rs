//! The JSON interface: four functions that a module exports, and its memory in between.
//!
//! ```text
//! _initialize() or _start(), where there is one ─► alloc_memory(length) → at ─► the input is written there
//!   ─► execute(at, length) → 0 ─► get_result_ptr() → at, get_result_len() → length ─► the output is read from there
//! ```
//!
//! `execute` answers 0 when it succeeded; anything else is a failure, and the result then says why and goes into the log. The
//! numbers that a guest gives are taken for what they are, a stranger's: every place is looked up in the memory as it is at that
//! moment, with its length, before a byte is read or written. `dealloc_memory`, which many of these modules have, is not called:
//! the instance and its memory end with the run.

use wasmtime::{AsContextMut, Instance, Memory, Store, TypedFunc, WasmParams, WasmResults};

use super::Fault;
use super::world::{Capture, Guest};
use crate::agent::modules::SET_UP;

/// Runs a guest on its input. At most `limit` bytes of a result are read, and as much of a reason as the log has room for.
pub(super) async fn call(
    store: &mut Store<Guest>,
    instance: &Instance,
    input: &[u8],
    limit: usize,
    logs: &Capture,
) -> wasmtime::Result<Vec<u8>> {
    let memory = instance.get_memory(&mut *store, "memory").ok_or(Fault::MissingEntryPoint)?;
    if let Some(name) = SET_UP.into_iter().find(|name| instance.get_func(&mut *store, name).is_some()) {
        function::<(), ()>(store, instance, name)?.call_async(&mut *store, ()).await?;
    }

    let len = u32::try_from(input.len()).map_err(|_| Fault::OutOfMemory)?;
    // Allocating nothing is undefined in the allocators of some languages.
    let at = function::<u32, u32>(store, instance, "alloc_memory")?.call_async(&mut *store, len.max(1)).await?;
    let place = within(&memory, store, at, len).filter(|_| at != 0);
    let place = place.ok_or(Fault::BadPointer { function: "alloc_memory", at, bytes: len.into() })?;
    place.copy_from_slice(input);

    let status = function::<(u32, u32), i32>(store, instance, "execute")?.call_async(&mut *store, (at, len)).await?;
    let at = function::<(), u32>(store, instance, "get_result_ptr")?.call_async(&mut *store, ()).await?;
    let len = function::<(), u32>(store, instance, "get_result_len")?.call_async(&mut *store, ()).await?;
    let result = within(&memory, store, at, len);
    if status != 0 {
        logs.keep(result.as_deref().unwrap_or_default());
        return Err(Fault::ExecuteFailed(status).into());
    }
    if len == 0 {
        return Err(Fault::NoResult.into());
    }
    let result = result.ok_or(Fault::BadPointer { function: "get_result_ptr", at, bytes: len.into() })?;
    if result.len() > limit {
        return Err(Fault::OutputTooLarge { limit }.into());
    }
    Ok(result.to_vec())
}

/// An exported function. That it is there with this type was found out before the module was compiled.
fn function<P: WasmParams, R: WasmResults>(
    store: &mut Store<Guest>,
    instance: &Instance,
    name: &str,
) -> wasmtime::Result<TypedFunc<P, R>> {
    instance.get_typed_func(&mut *store, name)
}

/// A piece of the guest's memory, if all of it is there.
fn within<'a>(memory: &Memory, store: &'a mut Store<Guest>, at: u32, len: u32) -> Option<&'a mut [u8]> {
    let (at, len) = (usize::try_from(at).ok()?, usize::try_from(len).ok()?);
    memory.data_mut(store.as_context_mut()).get_mut(at..)?.get_mut(..len)
}
