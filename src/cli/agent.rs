//! `zerostate agent`: whether a module can be hosted, and what it does with an input, without a server. Everything that decides is
//! what the service does with an upload and a task: the same inspection, sandbox, limits and verifiers. The commands that need a
//! server are in [`super::seller`].

use std::{convert::Infallible, io::Write as _, path::Path, path::PathBuf, time::Duration};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use clap::Subcommand;
use entity::{id::TaskId, money::Amount, text::JsonText};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    failure::{Exit, Failure},
    output::{Output, tell},
    seller::{self, SellerCommand},
    settings::Settings,
};
use crate::{
    agent::modules::{Interface, Invalid, inspect},
    auction::rules,
    config::Config,
    execution::{
        self, Attempt, AttemptError, Judgement,
        sandbox::{Request, Sandbox, SandboxConfig},
    },
    task::{Check, Fault, Usage, rules::MAX_CHECK},
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
        /// A module that says whether the output is good, as the checker of a task does.
        #[arg(long, value_name = "FILE")]
        checker: Option<PathBuf>,
        /// How many seconds it may take; what a task gets that asks for none when it is left out.
        #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=300))]
        timeout: Option<u64>,
        /// Print the bill too: what the run costs at this price for a million units of fuel.
        #[arg(long, value_name = "CREDITS", requires = "cap")]
        price_per_million_fuel: Option<Amount>,
        /// The most that it may cost: the price of the award.
        #[arg(long, value_name = "CREDITS", requires = "price_per_million_fuel")]
        cap: Option<Amount>,
        /// Run it with the randomness that this task gave it, to repeat its run.
        #[arg(long, value_name = "ID")]
        task_id: Option<TaskId>,
        /// Let its clock begin at this instant, the `createdAt` of a task.
        #[arg(long, value_name = "INSTANT")]
        created_at: Option<DateTime<Utc>>,
        /// Print a JSON document with the output, the log and what the run took.
        #[arg(long)]
        json: bool,
    },
    #[command(flatten)]
    OnServer(Box<SellerCommand>),
}

/// Runs `zerostate agent`.
pub(super) async fn run(command: AgentCommand, settings: &Settings) -> Result<(), Failure> {
    let config = settings.config();
    match command {
        AgentCommand::OnServer(command) => seller::run(*command).await,
        AgentCommand::Check { file, json } => check(&file, json, &config).await,
        AgentCommand::Run { file, input, checker, timeout, price_per_million_fuel, cap, task_id, created_at, json } => {
            let timeout = timeout.map_or(config.terms.run_timeout, Duration::from_secs);
            let now = created_at.or(DateTime::from_timestamp(BEGINNING, 0)).unwrap_or_default();
            let seed = task_id.map_or([0; 32], execution::seed);
            let terms = price_per_million_fuel.zip(cap);
            try_out(Trial { file, input, checker, timeout, now, seed, terms, json }, &config).await
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

/// What is tried, on what, and how.
struct Trial {
    file: PathBuf,
    input: PathBuf,
    checker: Option<PathBuf>,
    timeout: Duration,
    /// What its clock and its randomness begin with.
    now: DateTime<Utc>,
    seed: [u8; 32],
    /// The price of a million units of fuel and the most that a run may cost.
    terms: Option<(Amount, Amount)>,
    json: bool,
}

async fn try_out(trial: Trial, config: &Config) -> Result<(), Failure> {
    let Trial { file, input, checker, timeout, now, seed, terms, json } = trial;
    let bytes = read(&file)?;
    let input = json_input(&input)?;
    let checker = checker.map(|checker| Ok::<_, Failure>((read(&checker)?, checker))).transpose()?;
    let Candidate { bytes, sha256, interface, sandbox } = candidate(&file, bytes, json, config).await?;
    let checker = match checker {
        Some((bytes, place)) => {
            let Candidate { bytes, sha256, .. } = candidate(&place, bytes, json, config).await?;
            Some((bytes, sha256))
        }
        None => None,
    };
    let request = Request { sha256, input, limits: execution::limits(&config.execution, timeout), now, seed };
    let limits = execution::limits(&config.execution, timeout.min(MAX_CHECK));
    let checker = checker.map(|(bytes, sha256)| {
        let request = Request { sha256, limits, ..request.clone() };
        (request, async || Ok::<_, Infallible>(bytes))
    });
    let broken = |error: AttemptError| Failure::failed(format!("{error}."), "Try again with more memory free.");
    let attempt = execution::attempt(&sandbox, request, async || Ok::<_, Infallible>(bytes)).await.map_err(broken)?;
    let Attempt { outcome, logs, usage } = attempt;
    let Judgement { outcome, check } = match outcome {
        Ok(output) => execution::verify(&sandbox, output, None, checker).await.map_err(broken)?,
        Err(fault) => Judgement { outcome: Err(fault), check: None },
    };
    let bill = terms.map(|(fuel_price, cap)| rules::metered(cap, usage.fuel, fuel_price));
    report(interface, &Outcome { outcome: &outcome, check: check.as_ref(), logs: &logs, usage, bill }, json)?;
    let Err(fault) = outcome else { return Ok(()) };
    let guilty = if fault.of_agent { "is at fault" } else { "cannot be judged" };
    Err(Failure::failed(
        format!("{} {guilty} ({}): {}.", file.display(), fault.code, fault.message.trim_end_matches('.')),
        "A task would be refunded, and nobody paid.",
    ))
}

/// A module that can be hosted; the failure is told of any other.
async fn candidate(file: &Path, bytes: Bytes, as_json: bool, config: &Config) -> Result<Candidate, Failure> {
    match admit(bytes, config).await? {
        Ok(candidate) => Ok(candidate),
        Err(refusal) => {
            if as_json {
                let fault = json!({ "code": refusal.code, "message": refusal.message });
                Output::new().json(&json!({ "outcome": "REFUSED", "fault": fault }))?;
            }
            Err(cannot_be_hosted(file, &refusal))
        }
    }
}

/// What a trial came to.
struct Outcome<'a> {
    outcome: &'a Result<JsonText, Fault>,
    check: Option<&'a Check>,
    logs: &'a str,
    usage: Usage,
    /// What good work would be paid.
    bill: Option<Amount>,
}

/// Prints what a trial came to: the output alone on standard output, all else for people on standard error; or one document.
fn report(interface: Interface, came: &Outcome<'_>, as_json: bool) -> Result<(), Failure> {
    let Outcome { outcome, check, logs, usage, bill } = came;
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
            "check": check.map(|check| json!({ "passed": check.passed, "reason": check.reason })),
            "logs": logs,
            "usage": {
                "fuel": usage.fuel.to_string(),
                "peakMemoryBytes": usage.peak_memory_bytes.to_string(),
                "wallMicros": usage.wall.as_micros().to_string(),
            },
            "bill": bill.map(|bill| bill.to_string()),
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
    if let Some(Check { passed: true, reason: Some(reason) }) = check {
        tell(&format!("the checker passed it: {reason}"));
    }
    let (fuel, memory, wall) = (usage.fuel, usage.peak_memory_bytes >> 10, usage.wall.as_micros());
    tell(&format!("took {fuel} units of fuel, {memory} KiB of memory, {wall} \u{b5}s"));
    if let Some(bill) = bill {
        tell(&format!("good work is paid {bill}"));
    }
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

pub(super) fn read(file: &Path) -> Result<Bytes, Failure> {
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
