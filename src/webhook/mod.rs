//! Webhooks: messages to an outside agent's own address, so that it need not ask for work all the time.
//!
//! ```text
//! PENDING ─ a try ─┬─ 2xx ───────────────────────────────► DELIVERED
//!    ▲             ├─ 410, the last try, or taken away ──► FAILED
//!    └─ a pause ◄──┘
//! ```
//!
//! Messages are those of Standard Webhooks: the headers `webhook-id`, `webhook-timestamp` and `webhook-signature`, an HMAC under a
//! secret of the agent's. The secret is not stored: it follows from the market's own key, the agent and the number of secrets that
//! the agent has had.
//!
//! What must always hold: a message is there if and only if what it tells is; it holds nothing private; no transaction is open
//! while it is sent; it may come twice, never not at all while the address takes messages; and it goes to no address of a private
//! network unless the configuration says so, whatever a name leads to at that moment.

pub mod messenger;
pub mod rules;

use entity::{
    agent::{self, Runtime},
    delivery::{self, Status},
    id::AgentId,
    task,
    text::JsonText,
    time::Timestamp,
};
use sea_orm::{ActiveValue::Set, ColumnTrait, EntityTrait, QueryFilter, sea_query::Expr};
use serde_json::json;

use crate::{
    agent as agents,
    error::Result,
    store::{Instance, Work},
};
use rules::WebhookRefused;

/// What is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// The agent has won a task and may claim it.
    WorkOffered,
    /// Its work was accepted and paid.
    TaskCompleted,
    /// Its work was not paid.
    TaskRefunded,
}

impl Told {
    fn name(self) -> &'static str {
        match self {
            Self::WorkOffered => "work.offered",
            Self::TaskCompleted => "task.completed",
            Self::TaskRefunded => "task.refunded",
        }
    }
}

/// Gives an outside agent of the caller's an address, or takes it away. The first address, and `rotate`, make a new secret. What
/// waits goes to the new address; without one it is given up. Answers the agent and whether there is a new secret.
pub async fn set(work: &mut Work, id: AgentId, url: Option<&str>, rotate: bool) -> Result<(agent::Model, bool)> {
    let url = url.map(|url| rules::target(url, work.terms().allow_private_webhooks)).transpose()?.map(String::from);
    let old = agents::lock_own(work, id).await?;
    if old.runtime != Runtime::External {
        return Err(WebhookRefused::AgentNotExternal.into());
    }
    let is_new = url.is_some() && (rotate || old.webhook_url.is_none());
    let generation = old.webhook_generation.saturating_add(i32::from(is_new));
    let agent = agents::set_webhook(work, old, url, generation).await?;
    let mut waiting = delivery::Entity::update_many()
        .filter(delivery::Column::AgentId.eq(id))
        .filter(delivery::Column::Status.eq(Status::Pending));
    waiting = match &agent.webhook_url {
        Some(url) => waiting.col_expr(delivery::Column::Url, Expr::value(url.as_str())),
        None => waiting
            .col_expr(delivery::Column::Status, Expr::value(Status::Failed))
            .col_expr(delivery::Column::Error, Expr::value("WEBHOOK_TAKEN_AWAY"))
            .col_expr(delivery::Column::NextAt, Expr::value(None::<Timestamp>))
            .col_expr(delivery::Column::FinishedAt, Expr::value(work.now())),
    };
    waiting.exec(work.tx()).await?;
    Ok((agent, is_new))
}

/// The secret with which messages to an agent are signed.
pub fn secret(instance: &Instance, agent: &agent::Model) -> Result<[u8; 32]> {
    instance.derive("webhook", &[agent.id.0.as_bytes(), &agent.webhook_generation.to_be_bytes()])
}

/// Tells an outside agent something about a task of its, if it has an address: in the unit of work in which it happens. The message
/// says nothing that is private to the requester.
pub async fn tell(work: &mut Work, agent: &agent::Model, task: &task::Model, what: Told) -> Result<()> {
    let Some(url) = agent.webhook_url.clone().filter(|_| agent.runtime == Runtime::External) else { return Ok(()) };
    let now = work.now();
    let told = json!({
        "taskId": task.id.to_string(),
        "agentId": agent.id.to_string(),
        "status": task.status.name(),
        "price": task.price.map(|price| price.to_string()),
        "paid": task.paid.map(|paid| paid.to_string()),
        "failureCode": task.failure_code,
        // By when it must be claimed.
        "claimBy": task.deadline_at.filter(|_| what == Told::WorkOffered).map(|deadline| deadline.to_string()),
    });
    let body = json!({ "type": what.name(), "timestamp": now.to_string(), "data": told }).to_string();
    let row = delivery::ActiveModel {
        id: Set(work.fresh()),
        agent_id: Set(agent.id),
        task_id: Set(Some(task.id)),
        event: Set(what.name().to_owned()),
        url: Set(url),
        body: Set(JsonText(body)),
        status: Set(Status::Pending),
        attempts: Set(0),
        next_at: Set(Some(now)),
        answer: Set(None),
        error: Set(None),
        created_at: Set(now),
        finished_at: Set(None),
    };
    delivery::Entity::insert(row).exec_without_returning(work.tx()).await?;
    Ok(())
}
