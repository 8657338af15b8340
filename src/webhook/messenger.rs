//! The one who carries messages: claims what is due, sends it, and writes down how it went. Any number of processes may do so at
//! once. A claim moves the next try past the time that this one can take, so a message whose carrier dies is tried again then.

use std::{collections::HashSet, error::Error as StdError, fmt, net::SocketAddr, time::Duration};

use entity::{
    agent,
    delivery::{self, Status},
    id::{AgentId, DeliveryId},
    time::Timestamp,
};
use futures_util::future::join_all;
use reqwest::{
    Client,
    dns::{Addrs, Name, Resolve, Resolving},
    header::CONTENT_TYPE,
    redirect::Policy,
};
use sea_orm::{
    ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect, Select,
    sea_query::{Expr, LockBehavior, LockType},
};
use tracing::{Instrument, Span, field::Empty};

use super::{
    rules::{self, AfterMiss, MAX_TRIES},
    secret,
};
use crate::{
    caller::Caller,
    error::{Error, Result},
    store::{Store, Work, literally},
    trace,
};

/// How long one try may take, from the look-up of the name to the head of the answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a claim keeps others away: longer than a try and the writing down of it.
const CLAIM: Duration = Duration::from_secs(30);
/// How many messages are under way at once, each to another agent, so that a slow address holds nobody else up for long.
const BATCH: usize = 16;
/// How many due messages a claim looks at to find them.
const CANDIDATES: u64 = 128;

/// Carries messages.
#[derive(Clone, Debug)]
pub struct Messenger {
    store: Store,
    client: Client,
}

/// A message that was claimed.
#[derive(Debug)]
struct Message {
    row: delivery::Model,
    secret: [u8; 32],
    /// When this try was begun.
    at: Timestamp,
}

/// How a try went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Came {
    /// The address answered with this status.
    Answer(u16),
    /// It did not, for a reason with a stable code.
    Nothing(&'static str),
}

/// What a try has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tried {
    /// The address took the message.
    Delivered,
    /// It did not, and the message is tried again.
    Retried,
    /// It did not, and that was the last try.
    GivenUp,
    /// Somebody else has tried since, or the message was given up meanwhile: this try does not count.
    Overtaken,
}

impl Messenger {
    /// Nothing is sent yet.
    pub fn new(store: Store) -> Result<Self> {
        let allow_private = store.terms().allow_private_webhooks;
        let client = Client::builder()
            .dns_resolver(Lookup { allow_private })
            // A proxy would look names up by itself, a redirect leads past what was checked, and a connection that is kept would
            // be used again without a look.
            .no_proxy()
            .redirect(Policy::none())
            .pool_max_idle_per_host(0)
            .timeout(PATIENCE)
            .user_agent(concat!("zerostate/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(Error::internal)?;
        Ok(Self { store, client })
    }

    /// Sends what is due, one message for an agent at most. Answers what each try came to.
    pub async fn carry(&self) -> Result<Vec<Tried>> {
        // Looking first keeps an idle messenger from the one writer of SQLite.
        if due(self.store.clock().now()).limit(1).one(self.store.read()).await?.is_none() {
            return Ok(Vec::new());
        }
        let messages = self.store.write(Caller::System, async |work| claim(work).await).await?;
        let carried = join_all(messages.iter().map(|message| {
            let span = span_of(message);
            async {
                let came = self.send(message).await;
                self.store.write(Caller::System, async |work| note(work, message, came).await).await
            }
            .instrument(span)
        }));
        carried.await.into_iter().collect()
    }

    async fn send(&self, message: &Message) -> Came {
        let Message { row, secret, at } = message;
        let Ok(url) = rules::target(&row.url, self.store.terms().allow_private_webhooks) else {
            return Came::Nothing("WEBHOOK_TARGET_FORBIDDEN");
        };
        let (id, seconds) = (row.id.to_string(), at.micros().div_euclid(1_000_000));
        let Ok(signature) = rules::signature(secret, &id, seconds, &row.body.0) else {
            return Came::Nothing("NOT_SIGNED");
        };
        let span = Span::current();
        let mut request = self
            .client
            .post(url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", seconds)
            .header("webhook-signature", signature)
            .body(row.body.0.clone());
        for (name, value) in trace::outgoing(&span) {
            request = request.header(name, value);
        }
        span.record("server.address", url.host_str());
        // What the answer says beside its status is never read.
        match request.send().await {
            Ok(answer) => {
                let status = answer.status().as_u16();
                span.record("http.response.status_code", i64::from(status));
                Came::Answer(status)
            }
            Err(error) => {
                let code = what_failed(&error);
                span.record("zerostate.code", code);
                Came::Nothing(code)
            }
        }
    }
}

/// The span of a try. Of the address it has the host alone: paths may have secrets in them.
fn span_of(message: &Message) -> Span {
    let span = tracing::info_span!(
        target: trace::ROOT,
        parent: None,
        "webhook",
        "otel.kind" = "client",
        "http.request.method" = "POST",
        "http.response.status_code" = Empty,
        "server.address" = Empty,
        "zerostate.agent" = %message.row.agent_id,
        "zerostate.attempt" = message.row.attempts,
        "zerostate.code" = Empty,
        trace_id = Empty,
        span_id = Empty,
    );
    trace::begin(&span, &trace::Parent::default());
    span
}

fn what_failed(error: &reqwest::Error) -> &'static str {
    let mut source: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = source {
        if error.is::<Forbidden>() {
            return "WEBHOOK_TARGET_FORBIDDEN";
        }
        source = error.source();
    }
    if error.is_timeout() {
        "TIMED_OUT"
    } else if error.is_connect() {
        "NOT_REACHED"
    } else {
        "BROKEN_ANSWER"
    }
}

/// Messages that are due at `now`, the longest due first.
fn due(now: Timestamp) -> Select<delivery::Entity> {
    delivery::Entity::find()
        .filter(literally(delivery::Column::Status, Status::Pending))
        .filter(delivery::Column::NextAt.lte(now))
        .order_by_asc(delivery::Column::NextAt)
        .order_by_asc(delivery::Column::Id)
}

/// Claims messages that are due.
async fn claim(work: &mut Work) -> Result<Vec<Message>> {
    let now = work.now();
    // A message that another process has locked is being claimed, or noted, right now.
    let due = due(now)
        .limit(CANDIDATES)
        .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked)
        .all(work.tx())
        .await?;
    let mut busy: HashSet<AgentId> = HashSet::new();
    let mut messages = Vec::new();
    for row in due {
        if messages.len() >= BATCH {
            break;
        }
        if !busy.insert(row.agent_id) {
            continue;
        }
        // Its carrier died at the last try.
        if row.attempts >= MAX_TRIES {
            end(work, row.id, Status::Failed, (row.answer, Some("GIVEN_UP"))).await?;
            continue;
        }
        let agent = agent::Entity::find_by_id(row.agent_id).one(work.tx()).await?;
        let agent = agent.ok_or_else(|| Error::internal("a message to an agent that does not exist"))?;
        let row = delivery::Model { attempts: row.attempts.saturating_add(1), ..row };
        delivery::Entity::update_many()
            .col_expr(delivery::Column::NextAt, Expr::value(Some(now.after(CLAIM))))
            .col_expr(delivery::Column::Attempts, Expr::value(row.attempts))
            .filter(delivery::Column::Id.eq(row.id))
            .exec(work.tx())
            .await?;
        messages.push(Message { secret: secret(work.instance()?, &agent)?, row, at: now });
    }
    Ok(messages)
}

/// Writes down how a try went, unless somebody else has tried since or the message was given up.
async fn note(work: &mut Work, message: &Message, came: Came) -> Result<Tried> {
    let row = delivery::Entity::find_by_id(message.row.id)
        .filter(delivery::Column::Status.eq(Status::Pending))
        .filter(delivery::Column::Attempts.eq(message.row.attempts))
        .lock_exclusive()
        .one(work.tx())
        .await?;
    let Some(row) = row else { return Ok(Tried::Overtaken) };
    let (answer, error) = match came {
        Came::Answer(status @ 200..=299) => {
            end(work, row.id, Status::Delivered, (Some(i32::from(status)), None)).await?;
            return Ok(Tried::Delivered);
        }
        Came::Answer(status) => (Some(i32::from(status)), "REFUSED"),
        Came::Nothing(code) => (None, code),
    };
    let noise = u32::from_be_bytes(work.random());
    match rules::after_miss(row.attempts, answer == Some(410), noise) {
        AfterMiss::GiveUp => {
            end(work, row.id, Status::Failed, (answer, Some(error))).await?;
            Ok(Tried::GivenUp)
        }
        AfterMiss::Retry(pause) => {
            delivery::Entity::update_many()
                .col_expr(delivery::Column::NextAt, Expr::value(Some(work.now().after(pause))))
                .col_expr(delivery::Column::Answer, Expr::value(answer))
                .col_expr(delivery::Column::Error, Expr::value(Some(error)))
                .filter(delivery::Column::Id.eq(row.id))
                .exec(work.tx())
                .await?;
            Ok(Tried::Retried)
        }
    }
}

async fn end(work: &Work, id: DeliveryId, status: Status, (answer, error): (Option<i32>, Option<&str>)) -> Result<()> {
    delivery::Entity::update_many()
        .col_expr(delivery::Column::Status, Expr::value(status))
        .col_expr(delivery::Column::NextAt, Expr::value(None::<Timestamp>))
        .col_expr(delivery::Column::Answer, Expr::value(answer))
        .col_expr(delivery::Column::Error, Expr::value(error))
        .col_expr(delivery::Column::FinishedAt, Expr::value(Some(work.now())))
        .filter(delivery::Column::Id.eq(id))
        .exec(work.tx())
        .await?;
    Ok(())
}

/// A name led to an address to which nothing is sent.
#[derive(Clone, Copy, Debug)]
struct Forbidden;

impl fmt::Display for Forbidden {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("the name leads to a private, local or reserved address")
    }
}

impl StdError for Forbidden {}

/// Looks names up and gives out public addresses alone. The connection goes to what it gives out, so nothing can change in between.
struct Lookup {
    allow_private: bool,
}

impl Resolve for Lookup {
    fn resolve(&self, name: Name) -> Resolving {
        let allow_private = self.allow_private;
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            // One private address among public ones is a name that wants to be taken for something else.
            if !allow_private && found.iter().any(|address| !rules::is_public(address.ip())) {
                return Err(Forbidden.into());
            }
            Ok::<Addrs, _>(Box::new(found.into_iter()))
        })
    }
}
