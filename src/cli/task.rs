//! `zerostate task`: buying work from a running server, and looking after what was bought.

use std::{io::Write as _, path::PathBuf};

use clap::{Args, Subcommand};
use entity::money::Amount;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    failure::Failure,
    follow::{Following, event},
    once, operations,
    output::{Output, tell},
    remote::{Link, Remote, credits, document, duration, nodes, text, words},
    serve::until_told,
};
use crate::store::Cursor;

/// `zerostate task …`
#[derive(Debug, Subcommand)]
pub(super) enum TaskCommand {
    /// Post a task. With --follow: tell its story on standard error, print the output on standard output, and exit with 0 if the
    /// agent was paid, 1 if not.
    Run(RunArgs),
    /// Print a task with its result.
    Show {
        /// The task, `task_…`.
        id: String,
        /// Print a JSON document.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        remote: Remote,
    },
    /// Print the newest of your tasks.
    List {
        /// Only tasks in these states, such as OPEN,RUNNING.
        #[arg(long, value_name = "STATES", value_delimiter = ',')]
        status: Vec<String>,
        /// Tasks that your agents do, not those that you pay.
        #[arg(long)]
        work: bool,
        /// How many at most.
        #[arg(long, value_name = "COUNT", default_value_t = 20, value_parser = clap::value_parser!(u8).range(1..=100))]
        first: u8,
        /// Print a JSON document.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        remote: Remote,
    },
    /// Call a task off; what it holds comes back if nobody works on it yet.
    Cancel {
        /// The task, `task_…`.
        id: String,
        /// Print a JSON document.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        remote: Remote,
    },
}

/// What to buy.
#[derive(Args, Debug)]
pub(super) struct RunArgs {
    /// What an agent must be able to do; several with commas between them.
    #[arg(long, value_name = "NAMES", required = true, value_delimiter = ',')]
    capability: Vec<String>,
    /// What the agent gets: a file, - for standard input. It is text; for `json.*`, and with --json-input, a JSON document.
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// The most to pay, in credits.
    #[arg(long, value_name = "CREDITS", value_parser = credits)]
    budget: Amount,
    /// What to call the task.
    #[arg(long, value_name = "TEXT")]
    title: Option<String>,
    /// Take bids for so many seconds; the bids that are there at once decide when it is left out.
    #[arg(long, value_name = "SECONDS")]
    closes_in: Option<u64>,
    /// How many seconds the work may take.
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// A file with the JSON Schema that the output must match.
    #[arg(long, value_name = "FILE")]
    output_schema: Option<PathBuf>,
    /// The input is a JSON document, whatever the capability.
    #[arg(long)]
    json_input: bool,
    /// Sent again with the same key, the command buys nothing twice; a fresh key when it is left out.
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Wait for the end.
    #[arg(long)]
    follow: bool,
    /// Print a JSON document with the task and its result, not the output alone.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: Remote,
}

/// Runs `zerostate task …`.
pub(super) async fn run(command: TaskCommand) -> Result<(), Failure> {
    match command {
        TaskCommand::Run(args) => buy(&args).await,
        TaskCommand::Show { id, json, remote } => {
            let link = remote.link().await?;
            let task = link.ask(operations::SHOW_TASK, json!({ "id": id })).await?;
            print(&task, json)
        }
        TaskCommand::List { status, work, first, json, remote } => {
            let link = remote.link().await?;
            let states: Vec<String> = status.iter().map(|state| state.to_uppercase()).collect();
            let states = Some(states).filter(|states| !states.is_empty());
            let side = if work { "WORKER" } else { "REQUESTER" };
            let variables = json!({ "filter": { "side": side, "status": states }, "first": first });
            list(&link.ask(operations::LIST_TASKS, variables).await?, json)
        }
        TaskCommand::Cancel { id, json, remote } => {
            let link = remote.link().await?;
            // A cancellation is the same intent however often it is asked for.
            let input = json!({ "taskId": id, "idempotencyKey": format!("cli-cancel-{id}") });
            let task = link.change(operations::CANCEL_TASK, input, "task").await?;
            short(&task, json)
        }
    }
}

impl RunArgs {
    fn title(&self) -> String {
        let capabilities = self.capability.join(", ");
        self.title.clone().unwrap_or_else(|| format!("{capabilities} from the command line"))
    }

    fn order(&self, key: &str) -> Result<Value, Failure> {
        let capability = self.capability.first().map_or("", String::as_str);
        let input =
            if self.json_input { document(&self.input, "input")? } else { once::read_input(&self.input, capability)? };
        let schema = self.output_schema.as_deref().map(|file| document(file, "schema")).transpose()?;
        Ok(json!({
            "title": self.title(),
            "capabilities": self.capability,
            "input": input,
            "budget": self.budget.to_string(),
            "closesIn": self.closes_in.map(duration),
            "timeout": self.timeout.map(duration),
            "outputSchema": schema,
            "idempotencyKey": key,
        }))
    }
}

async fn buy(args: &RunArgs) -> Result<(), Failure> {
    let link = args.remote.link().await?;
    let order = args.order(&args.key.clone().unwrap_or_else(|| link.key()))?;
    let posted = link.change(operations::EXECUTE_TASK, order, "task").await?;
    if !args.follow {
        return short(&posted, args.json);
    }
    let id = text(&posted, "id").to_owned();
    let enough = CancellationToken::new();
    let task = until_told(enough.clone(), async {
        tokio::select! {
            task = end_of(&link, &id) => task,
            () = enough.cancelled() => Err(Failure::failed(
                format!("Told to stop; {id} goes on."),
                format!("`zerostate task show {id}` tells what became of it, `zerostate task cancel {id}` calls it off."),
            )),
        }
    })
    .await?;
    let mut output = Output::new();
    let paid = text(&task, "status") == "COMPLETED";
    if args.json {
        output.json(&task)?;
    } else if paid {
        output.json(task.pointer("/result/output").unwrap_or(&Value::Null))?;
    }
    if paid {
        let agent = task.pointer("/agent/name").and_then(Value::as_str).unwrap_or("-");
        tell(&format!("{id} is done: {} credits to {agent}", text(&task, "paid")));
        return Ok(());
    }
    let why = [text(&task, "failureCode"), text(&task, "failureMessage")];
    let why: Vec<&str> = why.into_iter().filter(|word| *word != "-").collect();
    let why = if why.is_empty() { String::new() } else { format!(" ({})", why.join(": ").trim_end_matches('.')) };
    Err(Failure::failed(
        format!("{id} ended as {}{why}; what was not paid came back.", text(&task, "status")),
        format!("`zerostate task show {id}` has the log."),
    ))
}

/// Tells the story of a task on standard error and answers the task once it has ended.
async fn end_of(link: &Link, id: &str) -> Result<Value, Failure> {
    let from = Some(Cursor::default().to_string());
    let variables = json!({ "taskId": id });
    let mut story = Following::begin(&link.api, &link.who, operations::TASK_EVENTS, variables, from).await?;
    while let Some(value) = story.next().await? {
        tell(&event(&value)?.line());
    }
    link.ask(operations::SHOW_TASK, json!({ "id": id })).await
}

/// A task that was just posted or called off: its id alone for scripts, and its state for people.
fn short(task: &Value, as_json: bool) -> Result<(), Failure> {
    let mut output = Output::new();
    if as_json {
        output.json(task)?;
    } else {
        writeln!(output, "{}", text(task, "id"))?;
        tell(&format!("{} is {}", text(task, "id"), text(task, "status")));
    }
    Ok(())
}

fn list(page: &Value, as_json: bool) -> Result<(), Failure> {
    let mut output = Output::new();
    if as_json {
        output.json(&page.get("nodes"))?;
        return Ok(());
    }
    for task in nodes(page, "/nodes") {
        let (id, status, price) = (text(task, "id"), text(task, "status"), text(task, "price"));
        let (capabilities, title) = (words(task, "capabilities"), text(task, "title"));
        writeln!(
            output,
            "{id}  {status:<9}  {price:>12} of {:<12}  {capabilities:<16}  {title}",
            text(task, "budget")
        )?;
    }
    Ok(())
}

fn print(task: &Value, as_json: bool) -> Result<(), Failure> {
    let mut output = Output::new();
    if as_json {
        output.json(task)?;
        return Ok(());
    }
    writeln!(output, "{}  {}  {}", text(task, "id"), text(task, "status"), text(task, "title"))?;
    let agent = task.pointer("/agent/name").and_then(Value::as_str).unwrap_or("-");
    for (name, value) in [
        ("capabilities", words(task, "capabilities").as_str()),
        ("budget", text(task, "budget")),
        ("price", text(task, "price")),
        ("paid", text(task, "paid")),
        ("agent", agent),
        ("posted", text(task, "createdAt")),
        ("awarded", text(task, "awardedAt")),
        ("started", text(task, "startedAt")),
        ("ended", text(task, "finishedAt")),
        ("failure", text(task, "failureCode")),
        ("why", text(task, "failureMessage")),
    ] {
        if value != "-" && !value.is_empty() {
            writeln!(output, "{name:<13} {value}")?;
        }
    }
    if let Some(result) = task.get("result").filter(|result| !result.is_null()) {
        let logs = text(result, "logs");
        if !logs.is_empty() && logs != "-" {
            writeln!(output, "log\n{}", logs.trim_end())?;
        }
        if let Some(out) = result.get("output").filter(|out| !out.is_null()) {
            writeln!(output, "output")?;
            output.json(out)?;
        }
    }
    Ok(())
}
