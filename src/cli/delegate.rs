//! `zerostate delegate`: a goal that several agents reach step by step, on a running server.

use std::{io::Write as _, path::PathBuf};

use clap::{Args, ValueEnum};
use entity::money::Amount;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    failure::{Exit, Failure},
    follow::{Following, event},
    once, operations,
    output::{Output, tell},
    remote::{Link, Remote, credits, document, duration, nodes, text},
    serve::until_told,
};
use crate::store::Cursor;

/// How much of a hurry there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum PriorityName {
    Low,
    Normal,
    High,
}

impl PriorityName {
    /// The name in the schema.
    fn name(self) -> &'static str {
        match self {
            Self::Low => "LOW",
            Self::Normal => "NORMAL",
            Self::High => "HIGH",
        }
    }
}

/// `zerostate delegate`
#[derive(Args, Debug)]
pub(super) struct DelegateCommand {
    /// What is to be reached.
    #[arg(long, value_name = "TEXT", required_unless_present_any = ["show", "cancel"], requires = "budget")]
    goal: Option<String>,
    /// The most that all of it costs, in credits.
    #[arg(long, value_name = "CREDITS", value_parser = credits)]
    budget: Option<Amount>,
    /// The plan: a file with {"steps": [...], "output": ...}, - for standard input. Without one there is a step for each
    /// --capability, or an agent makes the plan if there is a --planning-budget.
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
    /// What it takes; several with commas between them, in the order in which they are done.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    capability: Vec<String>,
    /// What of the budget an agent may get for making the plan.
    #[arg(long, value_name = "CREDITS", value_parser = credits, conflicts_with = "plan")]
    planning_budget: Option<Amount>,
    /// What steps refer to as `input`: a file, - for standard input. A JSON object or array is taken as such, all else as text.
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// How much of a hurry there is.
    #[arg(long, value_enum, default_value = "normal")]
    priority: PriorityName,
    /// Take bids for each step for so many seconds; the bids that are there at once decide when it is left out.
    #[arg(long, value_name = "SECONDS")]
    closes_in: Option<u64>,
    /// How many seconds it may take.
    #[arg(long, value_name = "SECONDS")]
    deadline: Option<u64>,
    /// Sent again with the same key, the command delegates nothing twice; a fresh key when it is left out.
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Wait for the end: tell the story on standard error, print the output on standard output, and exit with 0 if the goal was
    /// reached, 1 if not.
    #[arg(long)]
    follow: bool,
    /// Print this delegation with its steps and costs.
    #[arg(long, value_name = "ID", conflicts_with_all = ["cancel", "goal", "plan", "budget"])]
    show: Option<String>,
    /// Call this delegation off; what is in work ends and is paid, all else comes back.
    #[arg(long, value_name = "ID", conflicts_with_all = ["goal", "plan", "budget"])]
    cancel: Option<String>,
    /// Print a JSON document.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: Remote,
}

/// Runs `zerostate delegate`.
pub(super) async fn run(command: DelegateCommand) -> Result<(), Failure> {
    if let Some(id) = &command.show {
        let delegation = look(&command.remote.link().await?, id).await?;
        return print(&delegation, command.json);
    }
    if let Some(id) = &command.cancel {
        let link = command.remote.link().await?;
        // A cancellation is the same intent however often it is asked for.
        let input = json!({ "delegationId": id, "idempotencyKey": format!("cli-cancel-{id}") });
        let delegation = link.change(operations::CANCEL_DELEGATION, input, "delegation").await?;
        return short(&delegation, command.json);
    }
    start(&command).await
}

async fn look(link: &Link, id: &str) -> Result<Value, Failure> {
    link.ask(operations::DELEGATION, json!({ "id": id })).await
}

impl DelegateCommand {
    fn order(&self, key: &str) -> Result<Value, Failure> {
        let stdin = |file: &Option<PathBuf>| file.as_ref().is_some_and(|file| file.as_os_str() == "-");
        if stdin(&self.plan) && stdin(&self.input) {
            let what = "Plan and input cannot both come from standard input.";
            return Err(Failure::new(Exit::Usage, what, "Name a file for one of them."));
        }
        let plan = self.plan.as_deref().map(|file| document(file, "plan")).transpose()?;
        Ok(json!({
            "goal": self.goal,
            "budget": self.budget.map(|budget| budget.to_string()),
            "plan": plan,
            "capabilities": self.capability,
            "planningBudget": self.planning_budget.map(|budget| budget.to_string()),
            "input": self.input.as_deref().map(once::read_document_or_text).transpose()?,
            "priority": self.priority.name(),
            "closesIn": self.closes_in.map(duration),
            "deadline": self.deadline.map(duration),
            "idempotencyKey": key,
        }))
    }
}

async fn start(command: &DelegateCommand) -> Result<(), Failure> {
    let link = command.remote.link().await?;
    let order = command.order(&command.key.clone().unwrap_or_else(|| link.key()))?;
    let begun = link.change(operations::DELEGATE_TASK, order, "delegation").await?;
    if !command.follow {
        return short(&begun, command.json);
    }
    let id = text(&begun, "id").to_owned();
    let enough = CancellationToken::new();
    let delegation = until_told(enough.clone(), async {
        tokio::select! {
            delegation = end_of(&link, &id) => delegation,
            () = enough.cancelled() => Err(Failure::failed(
                format!("Told to stop; {id} goes on."),
                format!("`zerostate delegate --show {id}` tells what became of it, `zerostate delegate --cancel {id}` calls it off."),
            )),
        }
    })
    .await?;
    let reached = text(&delegation, "status") == "COMPLETED";
    let mut output = Output::new();
    if command.json {
        output.json(&delegation)?;
    } else if reached {
        output.json(delegation.get("output").unwrap_or(&Value::Null))?;
    }
    if reached {
        let (spent, returned) = (text(&delegation, "spent"), text(&delegation, "returned"));
        tell(&format!("{id} is done: {spent} credits spent, {returned} came back"));
        return Ok(());
    }
    let why = [text(&delegation, "failureCode"), text(&delegation, "failureMessage")];
    let why: Vec<&str> = why.into_iter().filter(|word| *word != "-").collect();
    let why = if why.is_empty() { String::new() } else { format!(" ({})", why.join(": ").trim_end_matches('.')) };
    Err(Failure::failed(
        format!("{id} ended as {}{why}; what was not spent came back.", text(&delegation, "status")),
        format!("`zerostate delegate --show {id}` has its steps."),
    ))
}

/// Tells the story of a delegation on standard error and answers the delegation once it has ended.
async fn end_of(link: &Link, id: &str) -> Result<Value, Failure> {
    let from = Some(Cursor::default().to_string());
    let variables = json!({ "delegationId": id });
    let mut story = Following::begin(&link.api, &link.who, operations::DELEGATION_EVENTS, variables, from).await?;
    while let Some(value) = story.next().await? {
        tell(&event(&value)?.line());
    }
    look(link, id).await
}

/// A delegation that was just begun or called off: its id alone for scripts, and its state for people.
fn short(delegation: &Value, as_json: bool) -> Result<(), Failure> {
    let mut output = Output::new();
    if as_json {
        output.json(delegation)?;
    } else {
        writeln!(output, "{}", text(delegation, "id"))?;
        tell(&format!("{} is {}", text(delegation, "id"), text(delegation, "status")));
    }
    Ok(())
}

fn print(delegation: &Value, as_json: bool) -> Result<(), Failure> {
    let mut output = Output::new();
    if as_json {
        output.json(delegation)?;
        return Ok(());
    }
    let of = |key: &str| text(delegation, key);
    let progress = delegation.get("progress").and_then(Value::as_i64).unwrap_or(0);
    writeln!(output, "{}  {}  {progress} %  {}", of("id"), of("status"), of("goal"))?;
    for (name, value) in [
        ("budget", of("budget")),
        ("spent", of("spent")),
        ("returned", of("returned")),
        ("begun", of("createdAt")),
        ("ended", of("finishedAt")),
        ("failure", of("failureCode")),
        ("why", of("failureMessage")),
    ] {
        if value != "-" {
            writeln!(output, "{name:<13} {value}")?;
        }
    }
    writeln!(output, "steps")?;
    for step in nodes(delegation, "/steps") {
        let agent = step.pointer("/task/agent/name").and_then(Value::as_str).unwrap_or("-");
        let attempts = step.get("attempts").and_then(Value::as_i64).unwrap_or(0);
        let (name, status, code) = (text(step, "name"), text(step, "status"), text(step, "failureCode"));
        writeln!(output, "  {name:<24} {status:<10} {attempts:>2} tries  {agent:<24} {code}")?;
    }
    if let Some(tree) = delegation.get("costTree").filter(|tree| !tree.is_null()) {
        writeln!(output, "{:<42} {:>14} {:>14} {:>14}", "cost", "budget", "paid", "returned")?;
        cost(&mut output, tree, 1)?;
    }
    if let Some(out) = delegation.get("output").filter(|out| !out.is_null()) {
        writeln!(output, "output")?;
        output.json(out)?;
    }
    Ok(())
}

/// A part of the cost and what is below it, each level further to the right.
fn cost(output: &mut Output, node: &Value, depth: usize) -> Result<(), Failure> {
    let name: String = format!("{}{} {}", "  ".repeat(depth), text(node, "kind").to_lowercase(), text(node, "name"));
    let (budget, paid, returned) = (text(node, "budget"), text(node, "paid"), text(node, "returned"));
    writeln!(output, "{name:<42} {budget:>14} {paid:>14} {returned:>14}")?;
    nodes(node, "/children").try_for_each(|child| cost(output, child, depth.saturating_add(1)))
}
