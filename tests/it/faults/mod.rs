//! What the market does when the world around it breaks: processes that die, networks that cut and repeat, disks that lose, fill
//! up or are busy, databases that hand over to another server.
//!
//! ```text
//! workload ─ sends intents, retries each with its key ─► (proxy) ─► program ─► database
//!     │                                                    ▲           ▲          ▲
//!     │                                                  faults      kills     failover
//!     └── what was acknowledged ─► oracle ◄── what the database holds
//! ```
//!
//! [`workload`] has the one table of operations: whoever adds a mutation to the market adds a row there, and every fault is tried
//! on it. [`oracle`] says what must be true afterwards: what was acknowledged is there exactly once and is answered the same again,
//! what was not acknowledged is there once or not at all, everything comes to an end, the money adds up, the audit finds nothing.

pub mod oracle;
pub mod program;
pub mod proxy;
pub mod workload;

mod disk;
mod failover;
mod network;
mod power;
mod rolling;

use std::{path::Path, time::Duration};

/// A number to draw everything from: that of the environment variable, or another one every time. A failing run says which.
pub fn seed(variable: &str) -> u64 {
    match std::env::var(variable) {
        Ok(seed) => seed.parse().unwrap_or_else(|_| panic!("{variable} is a number")),
        Err(_) => std::time::UNIX_EPOCH.elapsed().unwrap().as_secs(),
    }
}

/// A number from the environment, or the usual one.
pub fn setting(variable: &str, usual: usize) -> usize {
    std::env::var(variable).map_or(usual, |text| text.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}

/// A folder that is removed when the test is over, unless it failed.
pub struct Folder(Option<tempfile::TempDir>);

impl Folder {
    pub fn new() -> Self {
        Self(Some(tempfile::tempdir().unwrap()))
    }

    pub fn path(&self) -> &Path {
        self.0.as_ref().unwrap().path()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(folder) = self.0.take()
        {
            eprintln!("the folder of the failed test is kept: {}", folder.keep().display());
        }
    }
}

/// A duration in milliseconds, drawn evenly.
pub fn some_millis(dice: &mut rand::rngs::StdRng, range: std::ops::Range<u64>) -> Duration {
    use rand::RngExt;
    Duration::from_millis(dice.random_range(range))
}
