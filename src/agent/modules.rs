//! The modules of hosted agents: what one must look like, and where its bytes are kept.
//!
//! ```text
//! upload ─ size ─ SHA-256 ─ inspect ─► modules/<sha256>.wasm ─ load ─ SHA-256 again ─► sandbox
//!                              └ a named refusal, nothing is kept
//! ```
//!
//! What must always hold: a module is stored under the hash of its own bytes and is never replaced, so whoever knows the
//! hash knows the program; and bytes that leave the store have been hashed once more, so a damaged or exchanged object is
//! reported and never run.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::fmt;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt, stream};
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use sha2::{Digest, Sha256};
use url::Url;
use wasmparser::types::TypesRef;
use wasmparser::{CompositeInnerType, ExternalKind, Parser, Payload, TypeRef, ValType, Validator, WasmFeatures};

/// The parts of WebAssembly that a module may use. The sandbox configures its engine by this same value, so a module that
/// passes here is never refused there. Left out: threads, garbage-collected types and exceptions, which the engine is built
/// without; several or 64-bit memories, which the memory limit is not made for; and relaxed vectors, whose results may
/// differ from one processor to the next.
pub const FEATURES: WasmFeatures = WasmFeatures::WASM2
    .union(WasmFeatures::EXTENDED_CONST)
    .union(WasmFeatures::TAIL_CALL)
    .union(WasmFeatures::COMPONENT_MODEL)
    .difference(WasmFeatures::GC_TYPES);

/// The largest linear memory a module may ask for at its start, in bytes. It equals the default memory limit of a run.
pub const MAX_INITIAL_MEMORY: u64 = 64 << 20;

/// The largest table a module may ask for at its start, in elements. It equals the default table limit of a run.
pub const MAX_INITIAL_TABLE: u64 = 10_000;

/// The most bytes that are ever read back for one module, whatever limit it was uploaded under.
pub const MAX_MODULE_BYTES: usize = 64 << 20;

/// The module that all imports of a WASI preview 1 command come from.
const WASI: &str = "wasi_snapshot_preview1";

/// The functions a command may import, in the order of the alphabet.
///
/// Every `path_*` function is here although no run ever has a directory: the C library, Rust's standard library and TinyGo
/// import them whether or not a program opens a file, and without a preopened directory there is no descriptor that any of
/// them accepts, so each call ends in "bad descriptor". The `sock_*` functions are not: a program that was built with them
/// expects a network, and it is kinder to say so at the upload than at its first task. `proc_raise` would kill by a signal
/// and is answered by no current toolchain's start-up code.
const ALLOWED_IMPORTS: [&str; 41] = [
    "args_get",
    "args_sizes_get",
    "clock_res_get",
    "clock_time_get",
    "environ_get",
    "environ_sizes_get",
    "fd_advise",
    "fd_allocate",
    "fd_close",
    "fd_datasync",
    "fd_fdstat_get",
    "fd_fdstat_set_flags",
    "fd_fdstat_set_rights",
    "fd_filestat_get",
    "fd_filestat_set_size",
    "fd_filestat_set_times",
    "fd_pread",
    "fd_prestat_dir_name",
    "fd_prestat_get",
    "fd_pwrite",
    "fd_read",
    "fd_readdir",
    "fd_renumber",
    "fd_seek",
    "fd_sync",
    "fd_tell",
    "fd_write",
    "path_create_directory",
    "path_filestat_get",
    "path_filestat_set_times",
    "path_link",
    "path_open",
    "path_readlink",
    "path_remove_directory",
    "path_rename",
    "path_symlink",
    "path_unlink_file",
    "poll_oneoff",
    "proc_exit",
    "random_get",
    "sched_yield",
];

/// The packages of WASI 0.2 that a component may import from. `sockets` is among them because the start-up code of some
/// languages looks for it; a run has no network, and every call says so. `http` and all others are not: a program that was
/// built with them expects the world.
const ALLOWED_PACKAGES: [&str; 6] = ["cli", "clocks", "filesystem", "io", "random", "sockets"];

/// The newest WASI 0.2 that the sandbox knows: 0.2 with this number behind it. A component that was built for a later one may need what is not there.
pub const NEWEST_WASI_0_2: u32 = 12;

/// What a WASI 0.2 command exports, without its version.
const RUN: &str = "wasi:cli/run";

/// An exported function with its parameters and results.
type Function = (&'static str, &'static [ValType], &'static [ValType]);

/// The functions that the JSON interface consists of.
const JSON_FUNCTIONS: [Function; 4] = [
    ("alloc_memory", &[ValType::I32], &[ValType::I32]),
    ("execute", &[ValType::I32, ValType::I32], &[ValType::I32]),
    ("get_result_ptr", &[], &[ValType::I32]),
    ("get_result_len", &[], &[ValType::I32]),
];

/// Functions that set a module with the JSON interface up, where it has one: the first of them that it exports is called
/// before all else. Compilers of the Go family and of reactors make them.
pub const SET_UP: [&str; 2] = ["_initialize", "_start"];

/// How a module is to be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, strum::IntoStaticStr, strum::Display)]
#[strum(serialize_all = "SCREAMING_SNAKE_CASE")]
pub enum Interface {
    /// A WASI preview 1 command: `_start` runs once, a JSON value on standard input, one on standard output, logs on
    /// standard error.
    WasiCommand,
    /// Four functions: `alloc_memory(size) → pointer` for the input, `execute(pointer, length) → 0` on it, then
    /// `get_result_ptr()` and `get_result_len()` say where the JSON of the result lies.
    JsonAbi,
    /// A WASI 0.2 command, which is a component that exports `wasi:cli/run`; streams as those of a preview 1 command.
    WasiComponent,
}

/// Why bytes are not a module that can be hosted. The texts are written for the person who uploaded them; the name of a
/// variant is its stable code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, strum::IntoStaticStr)]
#[strum(serialize_all = "SCREAMING_SNAKE_CASE")]
pub enum Invalid {
    /// The bytes do not begin as WebAssembly does.
    #[error("this is not WebAssembly: a binary module begins with the four bytes 00 61 73 6d")]
    NotWasm,
    /// The structure or the types of the module are wrong, or it needs a feature that is off.
    #[error("the module is not valid: {reason} (at byte {offset})")]
    Malformed {
        /// What the validator found.
        reason: String,
        /// Where, in bytes from the start.
        offset: usize,
    },
    /// The module needs something from outside that a hosted agent does not get.
    #[error("the module imports {module}.{name}, which hosted agents do not have; they may import {allowed}")]
    ForbiddenImport {
        /// The name of the module that is imported from.
        module: String,
        /// The name of the function or other item.
        name: String,
        /// What may be imported.
        allowed: &'static str,
    },
    /// A component needs something from outside that a hosted agent does not get.
    #[error(
        "the component imports {name}, which hosted agents do not have; they may import the packages cli, clocks, \
         filesystem, io, random and sockets of WASI 0.2.0 to 0.2.{NEWEST_WASI_0_2}"
    )]
    ForbiddenInterface {
        /// The name of the import.
        name: String,
    },
    /// Nothing that a module is called by is there.
    #[error(
        "there is nothing to run: a WASI command exports a function `_start` without parameters and results, and a module \
         with the JSON interface exports `alloc_memory`, `execute`, `get_result_ptr` and `get_result_len`"
    )]
    MissingEntryPoint,
    /// Some functions of the JSON interface are there, but not all.
    #[error("the module exports {found} of the JSON interface, but not {missing}; it needs all of them")]
    IncompleteInterface {
        /// The functions that are there, in words.
        found: String,
        /// The functions that are not, in words.
        missing: String,
    },
    /// A function by which the module is called has other parameters or results.
    #[error("the module's function `{function}` must have the type {expected}")]
    WrongSignature {
        /// The exported function.
        function: &'static str,
        /// Its right type, in words.
        expected: String,
    },
    /// A component does not export `wasi:cli/run`.
    #[error("the component does not export wasi:cli/run@0.2, so there is nothing to run; build it as a command")]
    MissingRun,
    /// There is no memory exported as `memory`.
    #[error("the module exports no memory named `memory`, so it can neither read its input nor write its output")]
    MissingMemory,
    /// More bytes than allowed.
    #[error("the module is larger than {limit} bytes")]
    TooLarge {
        /// The most bytes a module may have.
        limit: usize,
    },
    /// The memory that the module starts with is larger than a run may ever have.
    #[error("the module asks for {bytes} bytes of memory at its start; {limit} are allowed")]
    MemoryTooLarge {
        /// The declared minimum, in bytes.
        bytes: u64,
        /// The most bytes a module may start with.
        limit: u64,
    },
    /// A table that the module starts with is larger than a run may ever have.
    #[error("the module asks for a table of {elements} elements at its start; {limit} are allowed")]
    TableTooLarge {
        /// The declared minimum, in elements.
        elements: u64,
        /// The most elements a table may start with.
        limit: u64,
    },
}

impl Invalid {
    /// The stable code of the refusal, such as `FORBIDDEN_IMPORT`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.into()
    }
}

/// Says how a module is to be called, after its whole structure has been validated. It runs nothing, takes time in
/// proportion to the size, and is meant for a thread that may be busy for some milliseconds.
///
/// A module that has all of the JSON interface is called through it even if it exports `_start` as well, which then only sets
/// it up; compilers of the Go family give every module one.
///
/// # Errors
/// The first rule of [`Invalid`] that the bytes break, in the order: kind of file, structure, imports, sizes, exports.
pub fn inspect(wasm: &[u8]) -> Result<Interface, Invalid> {
    if !wasm.starts_with(b"\0asm") {
        return Err(Invalid::NotWasm);
    }
    let types = Validator::new_with_features(FEATURES).validate_all(wasm).map_err(|error| malformed(&error))?;

    // Validation has covered all sections; these are the ones that decide whether and how a module can be called. Modules
    // and components within a component come in between, and what they import they get from the component.
    let mut depth = 0_u32;
    let mut exports = HashMap::new();
    let mut runs = false;
    for payload in Parser::new(0).parse_all(wasm) {
        let payload = payload.map_err(|error| malformed(&error))?;
        if let Payload::ModuleSection { .. } | Payload::ComponentSection { .. } = payload {
            depth = depth.saturating_add(1);
        } else if let Payload::End(_) = payload {
            depth = depth.saturating_sub(1);
        } else if let Payload::MemorySection(section) = payload {
            for memory in section {
                let bytes = memory.map_err(|error| malformed(&error))?.initial.saturating_mul(65_536);
                if bytes > MAX_INITIAL_MEMORY {
                    return Err(Invalid::MemoryTooLarge { bytes, limit: MAX_INITIAL_MEMORY });
                }
            }
        } else if let Payload::TableSection(section) = payload {
            for table in section {
                let elements = table.map_err(|error| malformed(&error))?.ty.initial;
                if elements > MAX_INITIAL_TABLE {
                    return Err(Invalid::TableTooLarge { elements, limit: MAX_INITIAL_TABLE });
                }
            }
        } else if depth > 0 {
            // What follows is asked of the outermost level alone.
        } else if let Payload::ImportSection(section) = payload {
            for import in section.into_imports() {
                let import = import.map_err(|error| malformed(&error))?;
                let function = matches!(import.ty, TypeRef::Func(_) | TypeRef::FuncExact(_));
                if !function || import.module != WASI || !ALLOWED_IMPORTS.contains(&import.name) {
                    return Err(Invalid::ForbiddenImport {
                        module: import.module.to_owned(),
                        name: import.name.to_owned(),
                        allowed: "functions of wasi_snapshot_preview1 other than those for sockets and signals",
                    });
                }
            }
        } else if let Payload::ExportSection(section) = payload {
            for export in section {
                let export = export.map_err(|error| malformed(&error))?;
                exports.insert(export.name, (export.kind, export.index));
            }
        } else if let Payload::ComponentImportSection(section) = payload {
            for import in section {
                let name = import.map_err(|error| malformed(&error))?.name.name;
                if !is_allowed_interface(name) {
                    return Err(Invalid::ForbiddenInterface { name: name.to_owned() });
                }
            }
        } else if let Payload::ComponentExportSection(section) = payload {
            for export in section {
                let name = export.map_err(|error| malformed(&error))?.name.name;
                runs |= wasi_0_2(name).is_some_and(|interface| interface == RUN);
            }
        }
    }
    if Parser::is_component(wasm) {
        return if runs { Ok(Interface::WasiComponent) } else { Err(Invalid::MissingRun) };
    }

    called_by(&Exports { exports, types: types.as_ref() })
}

/// The exported functions of a core module.
struct Exports<'a> {
    exports: HashMap<&'a str, (ExternalKind, u32)>,
    types: TypesRef<'a>,
}

impl Exports<'_> {
    /// Whether a function is exported under a name, and then whether it has these parameters and results.
    fn function(&self, name: &str, params: &[ValType], results: &[ValType]) -> Option<bool> {
        let Some((ExternalKind::Func | ExternalKind::FuncExact, index)) = self.exports.get(name) else { return None };
        let id = self.types.core_function_at(*index);
        Some(match self.types.get(id).map(|ty| &ty.composite_type.inner) {
            Some(CompositeInnerType::Func(ty)) => ty.params() == params && ty.results() == results,
            _ => false,
        })
    }
}

fn called_by(module: &Exports<'_>) -> Result<Interface, Invalid> {
    let has = |function: &Function| module.function(function.0, function.1, function.2).is_some();
    let (found, missing): (Vec<_>, Vec<_>) = JSON_FUNCTIONS.iter().partition(|function| has(function));
    let interface = if missing.is_empty() {
        let set_up = SET_UP.iter().map(|name| -> Function { (*name, &[], &[]) });
        for (function, params, results) in JSON_FUNCTIONS.into_iter().chain(set_up) {
            if module.function(function, params, results) == Some(false) {
                return Err(Invalid::WrongSignature { function, expected: signature(params, results) });
            }
        }
        Interface::JsonAbi
    } else if module.function("_start", &[], &[]) == Some(true) {
        Interface::WasiCommand
    } else if found.is_empty() {
        return Err(Invalid::MissingEntryPoint);
    } else {
        let words = |functions: &[&Function]| {
            let names: Vec<_> = functions.iter().map(|function| format!("`{}`", function.0)).collect();
            names.join(", ")
        };
        return Err(Invalid::IncompleteInterface { found: words(&found), missing: words(&missing) });
    };
    if matches!(module.exports.get("memory"), Some((ExternalKind::Memory, _))) {
        Ok(interface)
    } else {
        Err(Invalid::MissingMemory)
    }
}

/// A type of a function as the text format writes it.
fn signature(params: &[ValType], results: &[ValType]) -> String {
    let words = |types: &[ValType]| types.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    format!("({}) -> ({})", words(params), words(results))
}

/// The interface of a name such as `wasi:cli/run@0.2.6`, if it is of WASI 0.2 and not newer than what the sandbox knows.
fn wasi_0_2(name: &str) -> Option<&str> {
    let (interface, version) = name.split_once("@0.2.")?;
    let patch: u32 = version.parse().ok()?;
    (interface.starts_with("wasi:") && patch <= NEWEST_WASI_0_2).then_some(interface)
}

fn is_allowed_interface(name: &str) -> bool {
    let package = wasi_0_2(name).and_then(|interface| interface.strip_prefix("wasi:")?.split_once('/'));
    package.is_some_and(|(package, _)| ALLOWED_PACKAGES.contains(&package))
}

fn malformed(error: &wasmparser::Error) -> Invalid {
    Invalid::Malformed { reason: error.message().to_string(), offset: error.offset() }
}

/// A module that is in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The SHA-256 of its bytes, which is also its name.
    pub sha256: [u8; 32],
    /// How many bytes it has.
    pub size: u64,
    /// How it is called.
    pub interface: Interface,
}

/// What can go wrong with the store of modules. Only [`ModulesError::Invalid`] is the uploader's doing and may be shown.
#[derive(Debug, thiserror::Error)]
pub enum ModulesError {
    /// The bytes are not a module that can be hosted.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The upload broke off.
    #[error("the upload broke off")]
    Upload(#[source] Box<dyn StdError + Send + Sync>),
    /// No module has this hash.
    #[error("no module with the hash {} is stored", Hex(.0))]
    Missing([u8; 32]),
    /// The stored bytes are not those that were uploaded.
    #[error("the module stored as {} has the hash {}", Hex(.expected), Hex(.found))]
    HashMismatch {
        /// The hash that names the module.
        expected: [u8; 32],
        /// The hash of the bytes that were found.
        found: [u8; 32],
    },
    /// The place of the store is not a folder, a `file://` or an `s3://` address.
    #[error("modules cannot be kept at {place:?}: {reason}")]
    Place {
        /// The place as it was configured.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The store did not answer as it should.
    #[error("the store of modules failed")]
    Store(#[from] object_store::Error),
    /// The thread that inspects a module ended before it was done, as at a shutdown.
    #[error("the inspection of a module was interrupted")]
    Interrupted(#[source] tokio::task::JoinError),
}

/// Shows a hash in the way it names a file.
struct Hex<'a>(&'a [u8; 32]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

/// The store of modules: a folder, or a bucket that several instances share. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Modules {
    objects: Arc<dyn ObjectStore>,
}

impl Modules {
    /// Keeps modules in the given object store.
    #[must_use]
    pub fn new(objects: Arc<dyn ObjectStore>) -> Self {
        Self { objects }
    }

    /// Opens a store by its address: the path of a folder, which is created when missing; `file:///…`, the same; or
    /// `s3://bucket/prefix`, for which the endpoint, the region and the keys are those of the usual `AWS_*` variables.
    /// Nothing is sent over the network yet.
    ///
    /// # Errors
    /// [`ModulesError::Place`] when the address cannot be used, [`ModulesError::Store`] when the store refuses its settings.
    pub fn open(url_or_folder: &str) -> Result<Self, ModulesError> {
        let refuse = |reason: String| ModulesError::Place { place: url_or_folder.to_owned(), reason };
        if !url_or_folder.contains("://") {
            return Self::folder(PathBuf::from(url_or_folder)).map_err(refuse);
        }
        let url = Url::parse(url_or_folder).map_err(|error| refuse(error.to_string()))?;
        match url.scheme() {
            "file" => {
                let folder = url.to_file_path().map_err(|()| refuse("it names no path of this machine".to_owned()))?;
                Self::folder(folder).map_err(refuse)
            }
            "s3" => {
                let bucket = url.host_str().ok_or_else(|| refuse("it names no bucket".to_owned()))?;
                // The HTTP client is built without a cryptography of its own. A second installation is refused, which is
                // what is wanted: the first one stays.
                let _ = rustls::crypto::ring::default_provider().install_default();
                let store = AmazonS3Builder::from_env().with_bucket_name(bucket).build()?;
                let prefix = url.path().trim_matches('/');
                Ok(if prefix.is_empty() {
                    Self::new(Arc::new(store))
                } else {
                    let prefix = Path::parse(prefix).map_err(|error| refuse(error.to_string()))?;
                    Self::new(Arc::new(PrefixStore::new(store, prefix)))
                })
            }
            other => Err(refuse(format!("{other}:// is not known; use a folder, file:// or s3://"))),
        }
    }

    fn folder(folder: PathBuf) -> Result<Self, String> {
        std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        let store = LocalFileSystem::new_with_prefix(folder).map_err(|error| error.to_string())?;
        // An upload that was acknowledged must survive a power cut, as the row that names it does.
        Ok(Self::new(Arc::new(store.with_fsync(true))))
    }

    /// Takes an upload in, chunk by chunk, and keeps it under its hash if it is a module that can be hosted. Storing the
    /// same bytes again changes nothing and gives the same answer. At most `limit` bytes are held in memory.
    ///
    /// # Errors
    /// [`ModulesError::Invalid`] for what the uploader can mend, [`ModulesError::Upload`] when the stream fails,
    /// [`ModulesError::HashMismatch`] when damaged bytes already have the name, and [`ModulesError::Store`].
    pub async fn store<S, E>(&self, chunks: S, limit: usize) -> Result<Stored, ModulesError>
    where
        S: Stream<Item = Result<Bytes, E>>,
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        let limit = limit.min(MAX_MODULE_BYTES);
        let mut chunks = pin!(chunks);
        let mut bytes = BytesMut::new();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|error| ModulesError::Upload(error.into()))?;
            // The check comes before the copy, so that no sender can make the buffer grow past the limit.
            if chunk.len() > limit.saturating_sub(bytes.len()) {
                return Err(Invalid::TooLarge { limit }.into());
            }
            bytes.extend_from_slice(&chunk);
        }
        let bytes = bytes.freeze();

        let examined = bytes.clone();
        let (sha256, interface) = tokio::task::spawn_blocking(move || (hash(&examined), inspect(&examined)))
            .await
            .map_err(ModulesError::Interrupted)?;
        let interface = interface?;
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);

        let path = path(sha256);
        let once = PutOptions::from(PutMode::Create);
        match self.objects.put_opts(&path, PutPayload::from_bytes(bytes.clone()), once).await {
            Ok(_) => {}
            // The name is a hash, so what is there is the same module; reading it back proves that it still is.
            Err(object_store::Error::AlreadyExists { .. }) => drop(self.load(sha256).await?),
            // Some servers of the S3 protocol cannot write on a condition. Two writers of one name write the same bytes, so
            // a look beforehand is enough to leave what is there alone.
            Err(object_store::Error::NotImplemented { .. }) => match self.load(sha256).await {
                Ok(_) => {}
                Err(ModulesError::Missing(_)) => drop(self.objects.put(&path, PutPayload::from_bytes(bytes)).await?),
                Err(error) => return Err(error),
            },
            Err(error) => return Err(error.into()),
        }
        Ok(Stored { sha256, size, interface })
    }

    /// Keeps a module that is already in memory, such as one of the sample agents.
    ///
    /// # Errors
    /// Those of [`Modules::store`].
    pub async fn store_bytes(&self, wasm: Bytes, limit: usize) -> Result<Stored, ModulesError> {
        self.store(stream::iter([Ok::<_, std::convert::Infallible>(wasm)]), limit).await
    }

    /// Reads a module and proves by its hash that the bytes are those that were uploaded.
    ///
    /// # Errors
    /// [`ModulesError::Missing`], [`ModulesError::HashMismatch`], [`ModulesError::Store`], and
    /// [`ModulesError::Invalid`] with `TooLarge` when the object has grown past what is ever read.
    pub async fn load(&self, sha256: [u8; 32]) -> Result<Bytes, ModulesError> {
        let object = match self.objects.get(&path(sha256)).await {
            Err(object_store::Error::NotFound { .. }) => return Err(ModulesError::Missing(sha256)),
            other => other?,
        };
        if object.meta.size > u64::try_from(MAX_MODULE_BYTES).unwrap_or(u64::MAX) {
            return Err(Invalid::TooLarge { limit: MAX_MODULE_BYTES }.into());
        }
        let bytes = object.bytes().await?;
        let examined = bytes.clone();
        let found = tokio::task::spawn_blocking(move || hash(&examined)).await.map_err(ModulesError::Interrupted)?;
        if found == sha256 { Ok(bytes) } else { Err(ModulesError::HashMismatch { expected: sha256, found }) }
    }
}

fn path(sha256: [u8; 32]) -> Path {
    Path::from(format!("modules/{}.wasm", Hex(&sha256)))
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALLEST: &str = r#"(module (memory (export "memory") 1) (func (export "_start")))"#;

    fn wat(text: &str) -> Vec<u8> {
        wat::parse_str(text).unwrap()
    }

    fn refusal(text: &str) -> Invalid {
        inspect(&wat(text)).unwrap_err()
    }

    #[test]
    fn a_command_is_recognised() {
        assert_eq!(inspect(&wat(SMALLEST)), Ok(Interface::WasiCommand));
        let with_imports = r#"(module
            (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "sched_yield" (func (result i32)))
            (import "wasi_snapshot_preview1" "path_open"
                (func (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
            (memory (export "memory") 1) (func (export "_start")))"#;
        assert_eq!(inspect(&wat(with_imports)), Ok(Interface::WasiCommand));
    }

    #[test]
    fn other_files_are_refused_by_kind() {
        assert_eq!(inspect(b""), Err(Invalid::NotWasm));
        assert_eq!(inspect(b"#!/bin/sh\n"), Err(Invalid::NotWasm));
        assert!(matches!(inspect(b"\0asm\x01\0\0\0\xff"), Err(Invalid::Malformed { .. })));
        let mut cut = wat(SMALLEST);
        cut.truncate(cut.len() - 3);
        assert!(matches!(inspect(&cut), Err(Invalid::Malformed { .. })));
    }

    #[test]
    fn a_body_of_the_wrong_type_is_malformed() {
        let text = r#"(module (memory (export "memory") 1) (func (export "_start") i32.const 1))"#;
        assert!(matches!(refusal(text), Invalid::Malformed { .. }));
    }

    #[test]
    fn features_that_are_off_are_refused() {
        for text in [
            "(module (memory 1) (memory 1))",
            "(module (memory i64 1))",
            "(module (memory 1 1 shared))",
            "(module (table 1 externref))",
            "(module (func (param v128) (drop (i8x16.relaxed_swizzle (local.get 0) (local.get 0)))))",
        ] {
            assert!(matches!(refusal(text), Invalid::Malformed { .. }), "{text}");
        }
    }

    #[test]
    fn imports_outside_the_list_are_refused() {
        for (module, name) in [
            ("wasi_snapshot_preview1", "sock_send"),
            ("env", "fd_write"),
            ("wasi_unstable", "fd_write"),
            ("zero", "transfer"),
        ] {
            let text = format!(
                r#"(module (import "{module}" "{name}" (func)) (memory (export "memory") 1) (func (export "_start")))"#
            );
            let Invalid::ForbiddenImport { module: from, name: item, .. } = refusal(&text) else { panic!("{text}") };
            assert_eq!((from.as_str(), item.as_str()), (module, name));
        }
        let memory = r#"(module (import "wasi_snapshot_preview1" "fd_read" (memory 1)) (func (export "_start")))"#;
        assert!(matches!(refusal(memory), Invalid::ForbiddenImport { .. }));
    }

    #[test]
    fn exports_and_sizes_are_checked() {
        assert_eq!(refusal(r#"(module (memory (export "memory") 1))"#), Invalid::MissingEntryPoint);
        assert_eq!(
            refusal(r#"(module (memory (export "memory") 1) (func (export "_start") (param i32)))"#),
            Invalid::MissingEntryPoint
        );
        assert_eq!(
            refusal(r#"(module (memory (export "memory") 1) (global (export "_start") i32 i32.const 0))"#),
            Invalid::MissingEntryPoint
        );
        assert_eq!(refusal(r#"(module (memory 1) (func (export "_start")))"#), Invalid::MissingMemory);
        assert_eq!(
            refusal(r#"(module (memory (export "memory") 1025) (func (export "_start")))"#),
            Invalid::MemoryTooLarge { bytes: 1025 * 65_536, limit: MAX_INITIAL_MEMORY }
        );
        assert_eq!(
            refusal(r#"(module (table 10001 funcref) (memory (export "memory") 1) (func (export "_start")))"#),
            Invalid::TableTooLarge { elements: 10_001, limit: MAX_INITIAL_TABLE }
        );
    }

    const JSON: &str = r#"(module (memory (export "memory") 1)
        (func (export "alloc_memory") (param i32) (result i32) i32.const 8)
        (func (export "execute") (param i32 i32) (result i32) i32.const 0)
        (func (export "get_result_ptr") (result i32) i32.const 8)
        (func (export "get_result_len") (result i32) i32.const 8))"#;

    #[test]
    fn the_json_interface_is_recognised_and_what_lacks_is_named() {
        assert_eq!(inspect(&wat(JSON)), Ok(Interface::JsonAbi));
        // What sets a module up does not make it a command, and what a command exports besides does not make it more.
        let with_start = JSON.replace("(module", r#"(module (func (export "_start"))"#);
        assert_eq!(inspect(&wat(&with_start)), Ok(Interface::JsonAbi));
        let command = r#"(module (memory (export "memory") 1) (func (export "_start"))
            (func (export "execute") (param i32 i32) (result i32) i32.const 0))"#;
        assert_eq!(inspect(&wat(command)), Ok(Interface::WasiCommand));

        let part = JSON.replace(r#"(export "alloc_memory")"#, "").replace(r#"(export "get_result_len")"#, "");
        let refused = refusal(&part);
        let (found, missing) =
            ("`execute`, `get_result_ptr`".to_owned(), "`alloc_memory`, `get_result_len`".to_owned());
        assert_eq!(refused, Invalid::IncompleteInterface { found, missing });
        assert_eq!(
            refused.to_string(),
            "the module exports `execute`, `get_result_ptr` of the JSON interface, but not `alloc_memory`, `get_result_len`; \
             it needs all of them"
        );
        let unknown = JSON.replace("(module", r#"(module (import "env" "abort" (func (param i32 i32 i32 i32)))"#);
        assert!(
            refusal(&unknown).to_string().starts_with("the module imports env.abort, which hosted agents do not have")
        );
        assert_eq!(refusal(&JSON.replace(r#"(export "memory")"#, "")), Invalid::MissingMemory);
    }

    #[test]
    fn functions_of_other_types_are_named_with_the_right_one() {
        for (from, to, function, expected) in [
            ("(param i32) (result i32)", "(param i64) (result i32)", "alloc_memory", "(i32) -> (i32)"),
            ("(param i32 i32) (result i32) i32.const 0", "(param i32 i32)", "execute", "(i32 i32) -> (i32)"),
            (
                r#""get_result_len") (result i32) i32"#,
                r#""get_result_len") (result i64) i64"#,
                "get_result_len",
                "() -> (i32)",
            ),
            ("(module", r#"(module (func (export "_initialize") (param i32))"#, "_initialize", "() -> ()"),
        ] {
            let expected = expected.to_owned();
            assert_eq!(refusal(&JSON.replace(from, to)), Invalid::WrongSignature { function, expected }, "{function}");
        }
    }

    /// A component that exports something under a name, and has the given fields besides.
    fn component(export: &str, fields: &str) -> String {
        format!(
            r#"(component {fields}
                (core module $m (import "a" "b" (func)) (memory 1) (func (export "run") (result i32) i32.const 0))
                (core module $n (func (export "b")))
                (core instance $b (instantiate $n))
                (core instance $i (instantiate $m (with "a" (instance $b))))
                (func $run (result (result)) (canon lift (core func $i "run")))
                (instance $c (export "run" (func $run)))
                (export "{export}" (instance $c)))"#
        )
    }

    #[test]
    fn a_component_is_recognised_by_what_it_exports_and_imports() {
        for version in ["0.2.0", "0.2.3", "0.2.12"] {
            assert_eq!(inspect(&wat(&component(&format!("wasi:cli/run@{version}"), ""))), Ok(Interface::WasiComponent));
        }
        for name in ["run", "wasi:cli/run@0.2.13", "wasi:cli/run@0.3.0", "wasi:cli/runner@0.2.0", "my:cli/run@0.2.0"] {
            assert_eq!(refusal(&component(name, "")), Invalid::MissingRun, "{name}");
        }
        for name in ["wasi:io/error@0.2.6", "wasi:sockets/network@0.2.0"] {
            let text = component("wasi:cli/run@0.2.0", &format!(r#"(import "{name}" (instance))"#));
            assert_eq!(inspect(&wat(&text)), Ok(Interface::WasiComponent), "{name}");
        }
        for name in [
            "wasi:http/outgoing-handler@0.2.0",
            "wasi:io/error@0.2.99",
            "wasi:io/error@0.2.0-rc",
            "my:own/thing",
            "plain",
        ] {
            let text = component("wasi:cli/run@0.2.0", &format!(r#"(import "{name}" (instance))"#));
            assert_eq!(refusal(&text), Invalid::ForbiddenInterface { name: name.to_owned() });
        }
        let greedy = component("wasi:cli/run@0.2.0", "(core module (memory 1025))");
        assert!(matches!(refusal(&greedy), Invalid::MemoryTooLarge { .. }));
    }

    #[test]
    fn codes_are_stable() {
        assert_eq!(Invalid::NotWasm.code(), "NOT_WASM");
        assert_eq!(refusal(r#"(module (import "a" "b" (func)))"#).code(), "FORBIDDEN_IMPORT");
        assert_eq!(refusal(r#"(module (func (export "execute")))"#).code(), "INCOMPLETE_INTERFACE");
        assert_eq!(Interface::WasiCommand.to_string(), "WASI_COMMAND");
        assert_eq!(Interface::JsonAbi.to_string(), "JSON_ABI");
        assert_eq!(Interface::WasiComponent.to_string(), "WASI_COMPONENT");
    }

    #[tokio::test]
    async fn what_is_stored_comes_back_and_only_once() {
        let folder = tempfile::tempdir().unwrap();
        let nested = folder.path().join("a/b");
        let modules = Modules::open(nested.to_str().unwrap()).unwrap();
        let wasm = wat(SMALLEST);
        let pieces: Vec<_> =
            wasm.chunks(7).map(|piece| Ok::<_, std::io::Error>(Bytes::copy_from_slice(piece))).collect();
        let first = modules.store(stream::iter(pieces), 1_000).await.unwrap();
        assert_eq!(first.size, u64::try_from(wasm.len()).unwrap());
        assert_eq!(first.sha256, hash(&wasm));
        assert_eq!(modules.store_bytes(Bytes::from(wasm.clone()), 1_000).await.unwrap(), first);
        assert_eq!(modules.load(first.sha256).await.unwrap(), wasm);
        let names: Vec<_> =
            std::fs::read_dir(nested.join("modules")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, [std::ffi::OsString::from(format!("{}.wasm", Hex(&first.sha256)))]);
    }

    #[tokio::test]
    async fn an_address_of_a_file_opens_the_same_folder() {
        let folder = tempfile::tempdir().unwrap();
        let by_path = Modules::open(folder.path().to_str().unwrap()).unwrap();
        let stored = by_path.store_bytes(Bytes::from(wat(SMALLEST)), 1_000).await.unwrap();
        let by_url = Modules::open(Url::from_file_path(folder.path()).unwrap().as_str()).unwrap();
        assert!(by_url.load(stored.sha256).await.is_ok());
    }

    #[test]
    fn unknown_addresses_are_refused() {
        assert!(matches!(Modules::open("ftp://host/modules"), Err(ModulesError::Place { .. })));
        assert!(matches!(Modules::open("s3://"), Err(ModulesError::Place { .. })));
    }

    #[tokio::test]
    async fn the_limit_holds_while_reading() {
        let folder = tempfile::tempdir().unwrap();
        let modules = Modules::open(folder.path().to_str().unwrap()).unwrap();
        // The stream never ends by itself: only the limit can end the upload.
        let endless = stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(b"\0asm\x01\0\0\0")));
        let refused = modules.store(endless, 100).await;
        assert!(matches!(refused, Err(ModulesError::Invalid(Invalid::TooLarge { limit: 100 }))));
        let broken = stream::iter([Ok(Bytes::from_static(b"\0asm")), Err(std::io::Error::other("gone"))]);
        assert!(matches!(modules.store(broken, 100).await, Err(ModulesError::Upload(_))));
        let invalid = modules.store_bytes(Bytes::from_static(b"hello"), 100).await;
        assert!(matches!(invalid, Err(ModulesError::Invalid(Invalid::NotWasm))));
        assert!(!folder.path().join("modules").exists(), "nothing that was refused is kept");
    }

    #[tokio::test]
    async fn missing_and_damaged_modules_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let modules = Modules::open(folder.path().to_str().unwrap()).unwrap();
        assert!(matches!(modules.load([7; 32]).await, Err(ModulesError::Missing(_))));
        let wasm = Bytes::from(wat(SMALLEST));
        let stored = modules.store_bytes(wasm.clone(), 1_000).await.unwrap();
        std::fs::write(folder.path().join(format!("modules/{}.wasm", Hex(&stored.sha256))), b"other").unwrap();
        assert!(matches!(modules.load(stored.sha256).await, Err(ModulesError::HashMismatch { .. })));
        assert!(matches!(modules.store_bytes(wasm, 1_000).await, Err(ModulesError::HashMismatch { .. })));
    }
}
