//! Compiled code that outlives the process: one file a module, in a folder that is ours alone.
//!
//! The engine can keep what it compiles by itself, and it alone may turn bytes into code; but it would run a file that was damaged
//! and still unpacks. So its own folder is a bench on which nothing lies but the one module that is being made ready. What is kept
//! lies beside it, in files that begin with their SHA-256, and is put on the bench after it was found whole.
//!
//! ```text
//! kept and whole? ─ yes ─► onto the bench ─► the engine reads it ─┬─► off the bench
//!        └─ no, or for another engine ─► the engine compiles ─► kept ─┘
//! ```
//!
//! A file is named by the SHA-256 of the module and a fingerprint of the engine, which has its version, its settings and the
//! features of the processor. The engine looks at all of these again before it takes a file. Nothing that goes wrong here is an error:
//! what cannot be read is compiled.

use std::ffi::OsStr;
use std::fs;
use std::hash::{Hash, Hasher};
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};
use tempfile::{NamedTempFile, TempDir};
use wasmtime::{Cache, CacheConfig, Engine};

use crate::store::keys::make_private_folder;

/// What the names of benches begin with.
const BENCH: &str = ".bench-";

/// Bytes of a SHA-256.
const SEAL: usize = 32;

/// The folder of compiled code.
pub(super) struct Disk {
    folder: PathBuf,
    /// Bytes that all files together may have.
    limit: u64,
    bench: TempDir,
    cache: Cache,
    /// Who uses the bench.
    turn: Mutex<()>,
}

impl Disk {
    /// Opens a folder, or makes it. Fails if others can write to it.
    pub(super) fn open(folder: &Path, limit: u64) -> io::Result<Self> {
        make_private_folder(folder)?;
        ours_alone(folder)?;
        let folder = fs::canonicalize(folder)?;
        // A process that was killed leaves its bench behind. One that lives makes its own again when it needs it.
        for entry in fs::read_dir(&folder)?.flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(BENCH.as_bytes()) {
                fs::remove_dir_all(entry.path())?;
            }
        }
        let bench = tempfile::Builder::new().prefix(BENCH).tempdir_in(&folder)?;
        let mut config = CacheConfig::new();
        config.with_directory(bench.path());
        let cache = Cache::new(config).map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Self { folder, limit, bench, cache, turn: Mutex::new(()) })
    }

    /// What the engine is to be told of.
    pub(super) fn cache(&self) -> Cache {
        self.cache.clone()
    }

    /// Lets the engine make a module ready, and keeps what it compiled. Answers whether it could be read instead.
    pub(super) fn compile<T>(&self, engine: &Engine, sha256: &[u8; 32], compile: impl FnOnce() -> T) -> (T, bool) {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let file = self.folder.join(format!("{}-{:016x}", hex::encode(sha256), fingerprint(engine)));
        if let Err(error) = self.lay(&file) {
            tracing::debug!(file = %file.display(), %error, "compiled code was not there or not whole");
        }
        let before = self.cache.cache_hits();
        let module = compile();
        let read = self.cache.cache_hits() > before;
        if !read && let Err(error) = self.keep(&file) {
            tracing::warn!(file = %file.display(), %error, "compiled code could not be kept");
        }
        for left in code(self.bench.path()) {
            if let Err(error) = fs::remove_file(&left) {
                tracing::debug!(file = %left.display(), %error, "compiled code stays on the bench");
            }
        }
        (module, read)
    }

    /// Puts what is kept of a module onto the bench, if it is whole.
    fn lay(&self, file: &Path) -> io::Result<()> {
        let bytes = fs::read(file)?;
        let (name, code) = open(&bytes).ok_or(io::ErrorKind::InvalidData)?;
        let place = self.bench.path().join(name);
        fs::create_dir_all(place.parent().unwrap_or(self.bench.path()))?;
        fs::write(place, code)
    }

    /// Keeps what the engine left on the bench, and makes room for it.
    fn keep(&self, file: &Path) -> io::Result<()> {
        let made = code(self.bench.path());
        let [made] = made.as_slice() else {
            // What is not a module leaves nothing.
            return Ok(());
        };
        let name = made.strip_prefix(self.bench.path()).map_err(io::Error::other)?;
        let mut kept = NamedTempFile::new_in(&self.folder)?;
        kept.write_all(&seal(name, &fs::read(made)?)?)?;
        kept.persist(file)?;
        self.make_room()
    }

    fn make_room(&self) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let about = entry.metadata()?;
            if about.is_file() {
                files.push((about.modified()?, about.len(), entry.path()));
            }
        }
        files.sort_unstable();
        let mut bytes: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, size, path) in files {
            if bytes <= self.limit {
                break;
            }
            fs::remove_file(path)?;
            bytes = bytes.saturating_sub(size);
        }
        Ok(())
    }
}

/// Fails if others can write to a folder.
#[cfg(unix)]
fn ours_alone(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;

    let about = fs::metadata(folder)?;
    if about.uid() != rustix::process::geteuid().as_raw() || about.mode() & 0o022 != 0 {
        let text = "others can write to it, and so could have any code run; make it yours alone by chown and chmod 700";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    Ok(())
}

#[cfg(not(unix))]
fn ours_alone(_: &Path) -> io::Result<()> {
    Ok(())
}

/// What the engine must be for its code to be of use.
fn fingerprint(engine: &Engine) -> u64 {
    struct Fingerprint(Sha256);

    impl Hasher for Fingerprint {
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }

        fn finish(&self) -> u64 {
            self.0.clone().finalize().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
        }
    }

    let mut fingerprint = Fingerprint(Sha256::new());
    engine.precompile_compatibility_hash().hash(&mut fingerprint);
    fingerprint.finish()
}

/// The files of code on a bench. The engine puts files of its own beside them, which have an extension.
fn code(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(code(&path));
        } else if path.extension().is_none()
            && !path.file_name().unwrap_or(OsStr::new(".")).as_encoded_bytes().starts_with(b".")
        {
            found.push(path);
        }
    }
    found
}

/// A file that can be checked: its SHA-256, then the length of the name, the name on the bench and the code.
pub(super) fn seal(name: &Path, code: &[u8]) -> io::Result<Vec<u8>> {
    let name = name.to_str().ok_or(io::ErrorKind::InvalidFilename)?.as_bytes();
    let length = u16::try_from(name.len()).map_err(io::Error::other)?;
    let mut file = vec![0; SEAL];
    file.extend_from_slice(&length.to_le_bytes());
    file.extend_from_slice(name);
    file.extend_from_slice(code);
    let (seal, rest) = file.split_at_mut(SEAL);
    seal.copy_from_slice(&Sha256::digest(rest));
    Ok(file)
}

/// The name and the code of a file that is whole.
pub(super) fn open(file: &[u8]) -> Option<(&Path, &[u8])> {
    let (seal, rest) = file.split_at_checked(SEAL)?;
    if seal != &Sha256::digest(rest)[..] {
        return None;
    }
    let (length, rest) = rest.split_first_chunk()?;
    let (name, code) = rest.split_at_checked(u16::from_le_bytes(*length).into())?;
    let name = Path::new(std::str::from_utf8(name).ok()?);
    let inside = name.components().all(|part| matches!(part, Component::Normal(_)));
    inside.then_some((name, code))
}
