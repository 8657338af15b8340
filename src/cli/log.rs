//! The log of the process: on standard error, for people or for machines.

use std::io::{self, IsTerminal};

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

use super::failure::Failure;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// Pretty on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// Lines for people.
    Pretty,
    /// One JSON object a line.
    Json,
}

/// Starts the log. `filter` is what the operator set, `default` what the command logs otherwise.
pub(super) fn start(format: LogFormat, filter: Option<&str>, default: &str) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(filter.unwrap_or(default)).map_err(|error| {
        let what = format!("The log filter cannot be read: {error}.");
        Failure::configuration(what, "Set --log or RUST_LOG to a level such as info, or to zerostate=debug,info.")
    })?;
    let terminal = io::stderr().is_terminal();
    let json = match format {
        LogFormat::Auto => !terminal,
        LogFormat::Pretty => false,
        LogFormat::Json => true,
    };
    // Where a line cannot be written, as on a full disk, neither can a complaint about it, and trying would be a panic.
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).log_internal_errors(false);
    let started = if json {
        log.json().flatten_event(true).with_current_span(false).try_init()
    } else {
        log.with_ansi(terminal).try_init()
    };
    started.map_err(|error| {
        Failure::failed(format!("The log cannot be started: {error}."), "Start one process at a time.")
    })
}
