//! The owner's side of `zerostate agent`: agents on a running server, what they are offered and what they earned.

use std::{io::Write as _, path::PathBuf, time::Duration};

use bytes::Bytes;
use clap::{Args, Subcommand, ValueEnum};
use entity::money::Amount;
use serde_json::{Value, json};

use super::{
    agent,
    failure::Failure,
    operations,
    output::{Output, tell},
    remote::{Link, Remote, credits, duration, nodes, text, words},
};

/// Where an agent's work runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum RuntimeName {
    /// A module in the service's sandbox.
    Hosted,
    /// A program elsewhere that pulls its work.
    External,
}

/// What an API key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ScopeName {
    Read,
    TasksWrite,
    BidsWrite,
    AgentsWrite,
    WorkWrite,
}

impl ScopeName {
    /// The name in the schema.
    fn name(self) -> &'static str {
        match self {
            Self::Read => "READ",
            Self::TasksWrite => "TASKS_WRITE",
            Self::BidsWrite => "BIDS_WRITE",
            Self::AgentsWrite => "AGENTS_WRITE",
            Self::WorkWrite => "WORK_WRITE",
        }
    }
}

/// One agent and where it is.
#[derive(Args, Debug)]
pub(super) struct One {
    /// The agent, `agent_…`.
    id: String,
    /// Print a JSON document.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: Remote,
}

/// The commands of `zerostate agent` that need a server.
#[derive(Debug, Subcommand)]
pub(super) enum SellerCommand {
    /// Put an agent on the market of a running server.
    Register(RegisterArgs),
    /// Print your agents.
    List {
        /// Print a JSON document.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        remote: Remote,
    },
    /// Print an agent.
    Show(One),
    /// Let an agent bid and take no more work until it is resumed.
    Pause(One),
    /// Let a paused agent go on.
    Resume(One),
    /// Take an agent off the market for good.
    Retire(One),
    /// Put a module up for a hosted agent; it works by the new one from then on.
    Upload {
        /// The agent, `agent_…`.
        id: String,
        /// The WebAssembly module or component.
        file: PathBuf,
        /// Print a JSON document.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        remote: Remote,
    },
    /// Print the work that an outside agent won and nobody has claimed.
    Offers {
        #[command(flatten)]
        one: One,
        /// Wait for so many seconds while there is nothing.
        #[arg(long, value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=20))]
        wait: u64,
    },
    /// Print what an agent has earned; with --withdraw, move it to your wallet.
    Earnings {
        #[command(flatten)]
        one: One,
        /// Move it to your wallet.
        #[arg(long)]
        withdraw: bool,
        /// Move no more than so many credits.
        #[arg(long, value_name = "CREDITS", requires = "withdraw", value_parser = credits)]
        amount: Option<Amount>,
    },
    /// Make an API key with which a program acts for one agent, and print its secret, which is shown only now.
    Key {
        #[command(flatten)]
        one: One,
        /// What to call the key.
        #[arg(long, value_name = "TEXT", default_value = "command line")]
        name: String,
        /// What it may do.
        #[arg(long, value_enum, value_delimiter = ',', default_values_t = [ScopeName::Read, ScopeName::BidsWrite, ScopeName::WorkWrite])]
        scope: Vec<ScopeName>,
        /// For how many days it is good; until it is revoked when it is left out.
        #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u64).range(1..=3_650))]
        days: Option<u64>,
    },
}

/// A new agent.
#[derive(Args, Debug)]
pub(super) struct RegisterArgs {
    /// Its name, unique among your agents.
    name: String,
    /// What it can do; several with commas between them.
    #[arg(long, value_name = "NAMES", required = true, value_delimiter = ',')]
    capability: Vec<String>,
    /// What it asks for a task, in credits.
    #[arg(long, value_name = "CREDITS", value_parser = credits)]
    price: Amount,
    /// The least that it works for; its price when it is left out.
    #[arg(long, value_name = "CREDITS", value_parser = credits)]
    min_price: Option<Amount>,
    /// Where its work runs.
    #[arg(long, value_enum, default_value = "hosted")]
    runtime: RuntimeName,
    /// What it does, for people.
    #[arg(long, value_name = "TEXT", default_value = "")]
    description: String,
    /// The module of a hosted agent; without one it cannot bid until `zerostate agent upload`.
    #[arg(long, value_name = "FILE")]
    module: Option<PathBuf>,
    /// Print a JSON document.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: Remote,
}

/// Runs a command of `zerostate agent` that needs a server.
pub(super) async fn run(command: SellerCommand) -> Result<(), Failure> {
    match command {
        SellerCommand::Register(args) => register(&args).await,
        SellerCommand::List { json, remote } => {
            let me = remote.link().await?.ask(operations::LIST_AGENTS, json!({})).await?;
            list(&me, json)
        }
        SellerCommand::Show(one) => {
            let agent = one.remote.link().await?.ask(operations::SHOW_AGENT, json!({ "id": one.id })).await?;
            print(&agent, one.json)
        }
        SellerCommand::Pause(one) => change(&one, operations::PAUSE_AGENT).await,
        SellerCommand::Resume(one) => change(&one, operations::RESUME_AGENT).await,
        SellerCommand::Retire(one) => change(&one, operations::RETIRE_AGENT).await,
        SellerCommand::Upload { id, file, json, remote } => {
            let module = agent::read(&file)?;
            let link = remote.link().await?;
            let sha256 = upload(&link, &id, module).await?;
            let mut output = Output::new();
            if json {
                output.json(&json!({ "agentId": id, "sha256": sha256 }))?;
            } else {
                writeln!(output, "{sha256}")?;
            }
            Ok(())
        }
        SellerCommand::Offers { one, wait } => offers(&one, wait).await,
        SellerCommand::Earnings { one, withdraw, amount } => earnings(&one, withdraw, amount).await,
        SellerCommand::Key { one, name, scope, days } => {
            let link = one.remote.link().await?;
            let scopes: Vec<&str> = scope.into_iter().map(ScopeName::name).collect();
            let day = Duration::from_hours(24).as_secs();
            let input = json!({
                "name": name, "agentId": one.id, "scopes": scopes, "idempotencyKey": link.key(),
                "expiresIn": days.map(|days| duration(days.saturating_mul(day))),
            });
            let made = link.ask(operations::CREATE_API_KEY, json!({ "input": input })).await?;
            let mut output = Output::new();
            if one.json {
                output.json(&json!({ "apiKey": made.get("apiKey"), "secret": made.get("secret") }))?;
            } else {
                tell("keep this; it is not shown again:");
                writeln!(output, "{}", text(&made, "secret"))?;
            }
            Ok(())
        }
    }
}

async fn register(args: &RegisterArgs) -> Result<(), Failure> {
    let module = args.module.as_deref().map(agent::read).transpose()?;
    let link = args.remote.link().await?;
    let input = json!({
        "name": args.name,
        "description": args.description,
        "capabilities": args.capability,
        "runtime": match args.runtime { RuntimeName::Hosted => "HOSTED", RuntimeName::External => "EXTERNAL" },
        "price": args.price.to_string(),
        "minPrice": args.min_price.map(|price| price.to_string()),
        "idempotencyKey": link.key(),
    });
    let agent = link.change(operations::REGISTER_AGENT, input, "agent").await?;
    let id = text(&agent, "id").to_owned();
    if let Some(module) = module {
        upload(&link, &id, module).await?;
    }
    let mut output = Output::new();
    if args.json {
        output.json(&link.ask(operations::SHOW_AGENT, json!({ "id": id })).await?)?;
        return Ok(());
    }
    writeln!(output, "{id}")?;
    if args.runtime == RuntimeName::External {
        tell(&format!("`zerostate agent key {id}` makes the key with which its program works"));
    } else if args.module.is_none() {
        tell(&format!("it cannot bid yet: `zerostate agent upload {id} FILE` gives it a module"));
    }
    Ok(())
}

async fn upload(link: &Link, id: &str, module: Bytes) -> Result<String, Failure> {
    link.api.upload(&link.who, id, module).await.map_err(|refused| match refused.code.as_str() {
        "UNREACHABLE" | "UNAUTHENTICATED" => refused.into(),
        _ => Failure::failed(
            format!("The module was not taken for {id}: {refused}."),
            "`zerostate agent check` says more about a module.",
        ),
    })
}

async fn change(one: &One, document: &'static str) -> Result<(), Failure> {
    let link = one.remote.link().await?;
    let agent = link.change(document, json!({ "agentId": one.id }), "agent").await?;
    let mut output = Output::new();
    if one.json {
        output.json(&agent)?;
    } else {
        writeln!(output, "{}  {}", text(&agent, "id"), text(&agent, "status"))?;
    }
    Ok(())
}

fn list(me: &Value, as_json: bool) -> Result<(), Failure> {
    let mut output = Output::new();
    if as_json {
        output.json(&me.pointer("/agents/nodes"))?;
        return Ok(());
    }
    for agent in nodes(me, "/agents/nodes") {
        let (id, status, runtime) = (text(agent, "id"), text(agent, "status"), text(agent, "runtime"));
        let (name, price, earned) = (text(agent, "name"), text(agent, "price"), text(agent, "earnings"));
        let (score, capabilities) = (text(agent, "score"), words(agent, "capabilities"));
        writeln!(
            output,
            "{id}  {status:<7}  {runtime:<8}  asks {price:<10}  earned {earned:<10}  reputation {score:<6}  {name}  {capabilities}"
        )?;
    }
    Ok(())
}

fn print(agent: &Value, as_json: bool) -> Result<(), Failure> {
    let mut output = Output::new();
    if as_json {
        output.json(agent)?;
        return Ok(());
    }
    writeln!(output, "{}  {}  {}", text(agent, "id"), text(agent, "status"), text(agent, "name"))?;
    let empty = Value::Null;
    let module = agent.get("module").unwrap_or(&empty);
    let reputation = agent.get("reputation").unwrap_or(&empty);
    let online = agent.get("online").and_then(Value::as_bool).unwrap_or(false);
    for (name, value) in [
        ("runtime", text(agent, "runtime")),
        ("capabilities", words(agent, "capabilities").as_str()),
        ("price", text(agent, "price")),
        ("at least", text(agent, "minPrice")),
        ("online", if online { "yes" } else { "no" }),
        ("last seen", text(agent, "lastSeenAt")),
        ("earnings", text(agent, "earnings")),
        ("reputation", text(reputation, "score")),
        ("tasks", text(reputation, "tasks")),
        ("successes", text(reputation, "successes")),
        ("module", text(module, "sha256")),
        ("interface", text(module, "interface")),
        ("description", text(agent, "description")),
    ] {
        if value != "-" && !value.is_empty() {
            writeln!(output, "{name:<13} {value}")?;
        }
    }
    Ok(())
}

async fn offers(one: &One, wait: u64) -> Result<(), Failure> {
    let link = one.remote.link().await?;
    let variables = json!({ "agentId": one.id, "wait": (wait > 0).then(|| duration(wait)) });
    // The long poll ends within the patience of a request.
    let found = link.ask(operations::WORK_OFFERS, variables).await?;
    let mut output = Output::new();
    if one.json {
        output.json(&found)?;
        return Ok(());
    }
    for offer in nodes(&found, "") {
        let title = offer.pointer("/task/title").and_then(Value::as_str).unwrap_or("-");
        let (task, price, by) = (text(offer, "taskId"), text(offer, "price"), text(offer, "claimBy"));
        writeln!(output, "{task}  {price:>12}  claim by {by}  {title}")?;
    }
    Ok(())
}

async fn earnings(one: &One, withdraw: bool, amount: Option<Amount>) -> Result<(), Failure> {
    let link = one.remote.link().await?;
    if withdraw {
        let amount = amount.map(|amount| amount.to_string());
        let input = json!({ "agentId": one.id, "amount": amount, "idempotencyKey": link.key() });
        let moved = link.change(operations::WITHDRAW_EARNINGS, input, "transfer").await?;
        tell(&format!("{} credits moved to your wallet", text(&moved, "amount")));
    }
    let agent = link.ask(operations::SHOW_AGENT, json!({ "id": one.id })).await?;
    let mut output = Output::new();
    if one.json {
        output.json(&json!({ "agentId": one.id, "earnings": agent.get("earnings") }))?;
    } else {
        writeln!(output, "{}", text(&agent, "earnings"))?;
    }
    Ok(())
}
