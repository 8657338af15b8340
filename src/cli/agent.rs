//! `zerostate agent`: whether a module can be hosted, and what it does with an input, without a server. Everything that decides is
//! what the service does with an upload and a task: the same inspection, sandbox, limits and verifiers.

use std::{convert::Infallible, io::Write as _, path::Path, path::PathBuf, time::Duration};

use bytes::Bytes;
use chrono::DateTime;
use clap::Subcommand;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    failure::{Exit, Failure},
    output::{Output, tell},
    settings::Settings,
};
use crate::{
    agent::modules::{Interface, Invalid, inspect},
    config::Config,
    execution::{
        self, Attempt,
        sandbox::{Request, Sandbox, SandboxConfig},
    },
};

/// The instant at which a trial begins, in seconds since 1970: the first of 2026. It is always the same, and so is the seed of
/// its randomness, so that two trials can be compared.
const BEGINNING: i64 = 1_767_225_600;

/// `zerostate agent …`
#[derive(Debug, Subcommand)]
pub(super) enum AgentCommand {
    /// Say whether a module can be hosted and how it would be called; exits with 1 when it cannot.
    Check {
        /// The WebAssembly module or component.
        file: PathBuf,
        /// Print a JSON document.
        #[arg(long)]
        json: bool,
    },
    /// Run a module on an input under the limits of the service, and print what it answers; exits with 1 when it is at fault.
    Run {
        /// The WebAssembly module or component.
        file: PathBuf,
        /// The JSON document that it gets; - for standard input.
        #[arg(long, value_name = "FILE")]
        input: PathBuf,
        /// How many seconds it may take; what a task gets that asks for none when it is left out.
        #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=300))]
        timeout: Option<u64>,
        /// Print a JSON document with the output, the log and what the run took.
        #[arg(long)]
        json: bool,
    },
}

/// Runs `zerostate agent`.
pub(super) async fn run(command: AgentCommand, settings: &Settings) -> Result<(), Failure> {
    let config = settings.config();
    match command {
        AgentCommand::Check { file, json } => check(&file, json, &config).await,
        AgentCommand::Run { file, input, timeout, json } => {
            let timeout = timeout.map_or(config.terms.run_timeout, Duration::from_secs);
            try_out(&file, &input, timeout, json, &config).await
        }
    }
}

/// A module that would be refused, or at fault before it is run.
struct Refusal {
    code: &'static str,
    message: String,
}

/// A module as the service would have it after the upload.
struct Candidate {
    bytes: Bytes,
    sha256: [u8; 32],
    interface: Interface,
    sandbox: Sandbox,
}

async fn check(file: &Path, as_json: bool, config: &Config) -> Result<(), Failure> {
    let bytes = read(file)?;
    let candidate = match admit(bytes, config).await? {
        Ok(candidate) => candidate,
        Err(refusal) => {
            if as_json {
                Output::new().json(&json!({ "valid": false, "code": refusal.code, "message": refusal.message }))?;
            }
            return Err(cannot_be_hosted(file, &refusal));
        }
    };
    let (sha256, size) = (hex::encode(candidate.sha256), candidate.bytes.len());
    let interface: &str = candidate.interface.into();
    let mut output = Output::new();
    if as_json {
        output
            .json(&json!({ "valid": true, "interface": interface, "sha256": sha256, "sizeBytes": size.to_string() }))?;
    } else {
        writeln!(output, "{} can be hosted: {}.", file.display(), words(candidate.interface))?;
        writeln!(output, "interface  {interface}\nsize       {size} bytes\nsha256     {sha256}")?;
    }
    Ok(())
}

async fn try_out(file: &Path, input: &Path, timeout: Duration, as_json: bool, config: &Config) -> Result<(), Failure> {
    let bytes = read(file)?;
    let input = json_input(input)?;
    let candidate = match admit(bytes, config).await? {
        Ok(candidate) => candidate,
        Err(refusal) => {
            if as_json {
                let fault = json!({ "code": refusal.code, "message": refusal.message });
                Output::new().json(&json!({ "outcome": "REFUSED", "fault": fault }))?;
            }
            return Err(cannot_be_hosted(file, &refusal));
        }
    };
    let Candidate { bytes, sha256, interface, sandbox } = candidate;
    let request = Request {
        sha256,
        input,
        limits: execution::limits(&config.execution, timeout),
        now: DateTime::from_timestamp(BEGINNING, 0).unwrap_or_default(),
        seed: [0; 32],
    };
    let attempt = execution::attempt(&sandbox, request, async || Ok::<_, Infallible>(bytes), None).await;
    let attempt = attempt.map_err(|error| Failure::failed(format!("{error}."), "Try again with more memory free."))?;
    report(interface, &attempt, as_json)?;
    match attempt.outcome {
        Ok(_) => Ok(()),
        Err(fault) => Err(Failure::failed(
            format!("{} is at fault ({}): {}.", file.display(), fault.code, fault.message.trim_end_matches('.')),
            "A task would be refunded, and nobody paid.",
        )),
    }
}

/// Prints what a trial came to: the output alone on standard output, all else for people on standard error; or one document.
fn report(interface: Interface, attempt: &Attempt, as_json: bool) -> Result<(), Failure> {
    let Attempt { outcome, logs, usage } = attempt;
    let mut printed = Output::new();
    if as_json {
        let interface: &str = interface.into();
        let fault = outcome.as_ref().err().map(|fault| json!({ "code": fault.code, "message": fault.message }));
        // The verifiers have parsed it before.
        let output: Option<Value> = outcome.as_ref().ok().and_then(|output| serde_json::from_str(&output.0).ok());
        printed.json(&json!({
            "outcome": if outcome.is_ok() { "SUCCEEDED" } else { "FAILED" },
            "interface": interface,
            "output": output,
            "fault": fault,
            "logs": logs,
            "usage": {
                "fuel": usage.fuel.to_string(),
                "peakMemoryBytes": usage.peak_memory_bytes.to_string(),
                "wallMicros": usage.wall.as_micros().to_string(),
            },
        }))?;
        return Ok(());
    }
    if let Ok(output) = outcome {
        writeln!(printed, "{}", output.0)?;
        printed.flush()?;
    }
    if !logs.is_empty() {
        tell(&format!("log:\n{}", logs.trim_end()));
    }
    let (fuel, memory, wall) = (usage.fuel, usage.peak_memory_bytes >> 10, usage.wall.as_micros());
    tell(&format!("took {fuel} units of fuel, {memory} KiB of memory, {wall} \u{b5}s"));
    Ok(())
}

/// Does with bytes what an upload and the first run do.
async fn admit(bytes: Bytes, config: &Config) -> Result<Result<Candidate, Refusal>, Failure> {
    let limit = config.terms.max_module_bytes;
    let inspected = if bytes.len() > limit { Err(Invalid::TooLarge { limit }) } else { inspect(&bytes) };
    let interface = match inspected {
        Ok(interface) => interface,
        Err(invalid) => return Ok(Err(Refusal { code: invalid.code(), message: invalid.to_string() })),
    };
    let broken =
        |error: &dyn std::error::Error| Failure::failed(format!("{error}."), "Run it again with RUST_LOG=debug.");
    let sandbox = Sandbox::new(SandboxConfig { concurrent_runs: 1, ..SandboxConfig::default() });
    let sandbox = sandbox.map_err(|error| broken(&error))?;
    let sha256: [u8; 32] = Sha256::digest(&bytes).into();
    let loaded = bytes.clone();
    let compiled = sandbox.check(sha256, async || Ok::<_, Infallible>(loaded)).await;
    Ok(match compiled.map_err(|error| broken(&error))? {
        Ok(()) => Ok(Candidate { bytes, sha256, interface, sandbox }),
        Err(fault) => Err(Refusal { code: fault.code(), message: fault.to_string() }),
    })
}

fn cannot_be_hosted(file: &Path, refusal: &Refusal) -> Failure {
    let what = format!("{} cannot be hosted ({}): {}.", file.display(), refusal.code, refusal.message);
    Failure::failed(what, "docs/agents.md says what a module must look like.")
}

fn words(interface: Interface) -> &'static str {
    match interface {
        Interface::WasiCommand => "a WASI preview 1 command",
        Interface::JsonAbi => "a module with the JSON interface",
        Interface::WasiComponent => "a WASI 0.2 command component",
    }
}

fn read(file: &Path) -> Result<Bytes, Failure> {
    let read = std::fs::read(file).map(Bytes::from);
    read.map_err(|error| {
        Failure::new(Exit::Usage, format!("{} cannot be read: {error}.", file.display()), "Name the file of a module.")
    })
}

/// An input in the form in which a task keeps it.
fn json_input(file: &Path) -> Result<Bytes, Failure> {
    let wrong = |error: &dyn std::error::Error| {
        let what = format!("The input {} cannot be used: {error}.", file.display());
        Failure::new(Exit::Usage, what, "Name a file with one JSON document by --input, or - for standard input.")
    };
    let text =
        if file == Path::new("-") { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(file) };
    let value: Value = serde_json::from_str(&text.map_err(|error| wrong(&error))?).map_err(|error| wrong(&error))?;
    serde_json::to_vec(&value).map(Bytes::from).map_err(|error| wrong(&error))
}
