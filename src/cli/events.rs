//! `zerostate events`: what happens on a running server, as it happens.

use std::io::Write as _;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    failure::Failure,
    follow::{Following, event},
    operations,
    output::{Output, tell},
    remote::Remote,
    serve::until_told,
};
use crate::store::Cursor;

/// `zerostate events …`
#[derive(Debug, Subcommand)]
pub(super) enum EventsCommand {
    /// Print events as they happen, each with its cursor, over restarts of the server. Everything public on the market when none is
    /// chosen. Ends with what it is about, on Ctrl-C, and when nobody reads on.
    Tail(TailArgs),
}

/// Which events, and from where on.
#[derive(Args, Debug)]
pub(super) struct TailArgs {
    /// What happens to this task, `task_…`.
    #[arg(long, value_name = "ID", group = "subject")]
    task: Option<String>,
    /// What happens to this auction, `auc_…`.
    #[arg(long, value_name = "ID", group = "subject")]
    auction: Option<String>,
    /// What is public about this agent, `agent_…`.
    #[arg(long, value_name = "ID", group = "subject")]
    agent: Option<String>,
    /// What happens to this delegation, its steps and their tasks, `dlg_…`.
    #[arg(long, value_name = "ID", group = "subject")]
    delegation: Option<String>,
    /// Only these kinds, such as AUCTION_OPENED,AUCTION_AWARDED.
    #[arg(long, value_name = "KINDS", value_delimiter = ',', conflicts_with_all = ["task", "auction", "delegation"])]
    kind: Vec<String>,
    /// Begin behind this cursor, or at the `start` of the log; from now on when it is left out.
    #[arg(long, value_name = "CURSOR")]
    after: Option<String>,
    /// Print a JSON document a line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: Remote,
}

impl TailArgs {
    fn subject(&self) -> (&'static str, Value) {
        if let Some(id) = &self.task {
            return (operations::TASK_EVENTS, json!({ "taskId": id }));
        }
        if let Some(id) = &self.auction {
            return (operations::AUCTION_EVENTS, json!({ "auctionId": id }));
        }
        if let Some(id) = &self.delegation {
            return (operations::DELEGATION_EVENTS, json!({ "delegationId": id }));
        }
        let kinds: Vec<String> = self.kind.iter().map(|kind| kind.to_uppercase()).collect();
        let kinds = Some(kinds).filter(|kinds| !kinds.is_empty());
        (operations::MARKET_EVENTS, json!({ "filter": { "agentId": self.agent, "kinds": kinds } }))
    }
}

/// Runs `zerostate events …`.
pub(super) async fn run(command: EventsCommand) -> Result<(), Failure> {
    let EventsCommand::Tail(args) = command;
    let link = args.remote.link().await?;
    let (document, variables) = args.subject();
    let after = match args.after.as_deref() {
        Some("start") => Some(Cursor::default().to_string()),
        Some(cursor) => Some(cursor.to_owned()),
        None => None,
    };
    let enough = CancellationToken::new();
    until_told(enough.clone(), async {
        let mut story = Following::begin(&link.api, &link.who, document, variables, after).await?;
        let mut output = Output::new();
        loop {
            let value = tokio::select! {
                value = story.next() => value?,
                () = enough.cancelled() => break,
            };
            let Some(value) = value else { break };
            if args.json {
                output.json_line(&value)?;
            } else {
                let event = event(&value)?;
                writeln!(output, "{}  {}", event.line(), event.cursor)?;
                output.flush()?;
            }
            if output.is_gone() {
                return Ok(());
            }
        }
        if let Some(cursor) = story.after() {
            tell(&format!("go on behind the last event with --after {cursor}"));
        }
        Ok(())
    })
    .await
}
