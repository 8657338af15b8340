//! Webhooks of outside agents.

use async_graphql::{Context, Enum, ID, InputObject, Object, SimpleObject};
use entity::{agent, delivery};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};

use super::{
    agent::Agent,
    context::{Ask, intent, maybe, once, parse_id, payload, requires, role, scopes},
    error::{AgentUserError, Answer},
    page::{PageArgs, Sort, connection, list_cost},
    scalar::DateTime,
    task::Task,
};
use crate::{store::Work, webhook as verbs};

/// The newest first.
const NEWEST: Sort<delivery::Entity> =
    Sort { name: "m", key: None, id: delivery::Column::Id, descending: true, place: |row| (0, row.id.0) };

/// The states of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "entity::delivery::Status")]
pub(super) enum WebhookDeliveryStatus {
    /// Will be tried, or tried again.
    Pending,
    /// Was taken with a status of 2xx.
    Delivered,
    /// Was never taken.
    Failed,
}

/// Where an outside agent is told of work.
pub(super) struct Webhook {
    agent: agent::Model,
    url: String,
}

impl Webhook {
    /// The webhook of an agent, for its owner and administrators.
    pub(super) fn of(ctx: &Context<'_>, agent: &agent::Model) -> Option<Self> {
        let url = agent.webhook_url.clone().filter(|_| ctx.may_see(agent.owner_id))?;
        Some(Self { agent: agent.clone(), url })
    }
}

/// Where an outside agent is told of work, and what became of the messages.
#[Object]
impl Webhook {
    /// The address.
    async fn url(&self) -> &str {
        &self.url
    }

    /// The messages, newest first.
    #[graphql(complexity = "list_cost(__ctx, __variables_definition, __field, child_complexity)")]
    async fn deliveries(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "How many from the start: 1 to 100, 20 when neither `first` nor `last` is given.")]
        first: Option<i32>,
        #[graphql(desc = "Only what comes after this cursor.")] after: Option<String>,
        #[graphql(desc = "How many from the end: 1 to 100; not together with `first`.")] last: Option<i32>,
        #[graphql(desc = "Only what comes before this cursor.")] before: Option<String>,
    ) -> Option<Answer<WebhookDeliveryConnection>> {
        maybe(ctx, async {
            let window = PageArgs { first, after, last, before }.window(&NEWEST)?;
            let list = delivery::Entity::find().filter(delivery::Column::AgentId.eq(self.agent.id));
            Ok(Some(window.read(ctx.loaders().db(), list, &NEWEST).await?.into()))
        })
        .await
    }
}

#[derive(Clone)]
pub(super) struct WebhookDelivery(delivery::Model);

impl From<delivery::Model> for WebhookDelivery {
    fn from(row: delivery::Model) -> Self {
        Self(row)
    }
}

/// One message to an agent's webhook.
#[Object]
impl WebhookDelivery {
    /// The id, `dlv_…`; the header `webhook-id` of every try.
    async fn id(&self) -> ID {
        self.0.id.into()
    }

    /// What it tells: `work.offered`, `task.completed` or `task.refunded`.
    async fn event(&self) -> &str {
        &self.0.event
    }

    /// Where it goes, or went.
    async fn url(&self) -> &str {
        &self.0.url
    }

    /// The exact text that is signed and sent.
    async fn body(&self) -> &str {
        &self.0.body.0
    }

    /// Its state.
    async fn status(&self) -> WebhookDeliveryStatus {
        self.0.status.into()
    }

    /// How often it was tried.
    async fn attempts(&self) -> i32 {
        self.0.attempts
    }

    /// The HTTP status of the last answer; null when the last try brought none.
    async fn answer(&self) -> Option<i32> {
        self.0.answer
    }

    /// A stable code for what was wrong with the last try, for example `TIMED_OUT` or `WEBHOOK_TARGET_FORBIDDEN`; null when nothing
    /// was.
    async fn error(&self) -> Option<&str> {
        self.0.error.as_deref()
    }

    /// When it was written.
    async fn created_at(&self) -> DateTime {
        DateTime(self.0.created_at)
    }

    /// When it is tried next; null once it is over.
    async fn next_at(&self) -> Option<DateTime> {
        self.0.next_at.map(DateTime)
    }

    /// When it was over; null before.
    async fn finished_at(&self) -> Option<DateTime> {
        self.0.finished_at.map(DateTime)
    }

    /// The task that it is about; null when you cannot see it.
    #[graphql(complexity = "2 + child_complexity")]
    async fn task(&self, ctx: &Context<'_>) -> Option<Answer<Task>> {
        maybe(ctx, async {
            let Some(task) = self.0.task_id else { return Ok(None) };
            super::task::find(ctx, task).await
        })
        .await
    }
}

connection! {
    /// A page of messages.
    WebhookDeliveryConnection,
    /// A message in a list.
    WebhookDeliveryEdge, WebhookDelivery, delivery::Model
}

/// Input of `setWebhook`.
#[derive(InputObject)]
pub(super) struct SetWebhookInput {
    /// An agent of yours that runs elsewhere.
    agent_id: ID,
    /// Where it is told of work: an https address in the public internet. Null takes it away, and gives up what waits.
    url: Option<String>,
    /// Whether to make a new secret. Messages are signed with the new one at once, also those that wait.
    #[graphql(default)]
    rotate: bool,
    /// Names this intent: the same value when you retry the same intent, another one for another. 1 to 128 visible ASCII characters.
    idempotency_key: String,
}

intent! {
    SetWebhookInput = "setWebhook", moves_credits: false;
}

/// Answer of `setWebhook`.
#[derive(SimpleObject)]
pub(super) struct SetWebhookPayload {
    /// The agent as it is now; null when it was refused.
    agent: Option<Agent>,
    /// The new secret, `whsec_…`, with which messages are signed; null when there is no new one. Only a retry with the same key is
    /// told it again; make another one by `rotate` when it is lost.
    secret: Option<String>,
    /// Why the mutation was refused; empty when it was done.
    user_errors: Vec<AgentUserError>,
}

impl super::error::Payload for SetWebhookPayload {
    type Content = (agent::Model, Option<String>);
    type Error = AgentUserError;

    fn done((agent, secret): Self::Content) -> Self {
        Self { agent: Some(agent.into()), secret, user_errors: Vec::new() }
    }

    fn refused(error: AgentUserError) -> Self {
        Self { agent: None, secret: None, user_errors: vec![error] }
    }
}

#[derive(Default)]
pub(super) struct WebhookMutation;

#[Object]
impl WebhookMutation {
    /// Says where an outside agent of yours is told of work, by messages of Standard Webhooks. The first address comes with the
    /// secret that they are signed with.
    #[graphql(complexity = "10 + child_complexity", directive = requires::apply(scopes("setWebhook"), role("setWebhook")))]
    async fn set_webhook(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The agent and its address.")] input: SetWebhookInput,
    ) -> Option<Answer<SetWebhookPayload>> {
        payload(ctx, async {
            let id = parse_id(&input.agent_id, "agentId")?;
            let url = input.url.as_deref();
            let set = async |work: &mut Work| verbs::set(work, id, url, input.rotate).await;
            // The record of the answer has no secret in it: it follows from the agent, so a retry is told the same one.
            let (agent, is_new): (agent::Model, bool) = once(ctx, &input, set).await?.value;
            let secret = is_new.then(|| verbs::secret(ctx.store().instance()?, &agent)).transpose()?;
            Ok((agent, secret.map(|secret| verbs::rules::spell_secret(&secret))))
        })
        .await
    }
}
