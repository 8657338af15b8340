//! Following what happens, over breaks of the connection and restarts of the server, by the cursor of the last event.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{
    client::{Api, Person, Refused, Socket, pause},
    output::tell,
};

/// How long a server may be silent. It asks for a sign of life more often than that, so its silence is a broken line.
const SILENCE: Duration = Duration::from_mins(2);

/// A thing with a name.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Named {
    pub(super) id: String,
    pub(super) name: String,
}

/// An event as the subscriber saw it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Event {
    pub(super) id: String,
    pub(super) cursor: String,
    pub(super) kind: String,
    pub(super) occurred_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    auction_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    task_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delegation_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<Named>,
    #[serde(skip_serializing_if = "Option::is_none")]
    price: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) amount: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fee: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    returned: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bid_count: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) score_before: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) score_after: Option<String>,
}

impl Event {
    /// What the event tells beside its kind, for people.
    pub(super) fn details(&self) -> String {
        let count = |number: &Option<i32>| number.map(|number| number.to_string());
        let told = [
            ("step", self.step.clone()),
            ("agent", self.agent.as_ref().map(|agent| agent.name.clone())),
            ("price", self.price.clone()),
            ("amount", self.amount.clone()),
            ("fee", self.fee.clone()),
            ("returned", self.returned.clone()),
            ("bids", count(&self.bid_count)),
            ("attempt", count(&self.attempt)),
            ("reason", self.reason.clone()),
            ("score before", self.score_before.clone()),
            ("after", self.score_after.clone()),
        ];
        let told: Vec<String> =
            told.into_iter().filter_map(|(name, value)| Some(format!("{name} {}", value?))).collect();
        told.join(", ")
    }

    /// What the event is about.
    pub(super) fn subject(&self) -> &str {
        let ids = [&self.task_id, &self.auction_id, &self.channel_id, &self.delegation_id];
        let agent = self.agent.as_ref().map(|agent| agent.id.as_str());
        ids.into_iter().find_map(Option::as_deref).or(agent).unwrap_or("-")
    }

    /// One line for people.
    pub(super) fn line(&self) -> String {
        let Self { occurred_at, kind, .. } = self;
        format!("{occurred_at}  {kind:<20}  {:<33}  {}", self.subject(), self.details()).trim_end().to_owned()
    }
}

/// What the values of a subscription are read as. It has to have a cursor.
pub(super) fn event(value: &Value) -> Result<Event, Refused> {
    Event::deserialize(value).map_err(Refused::unexpected)
}

/// A subscription that is taken up again behind its last event whenever it breaks.
pub(super) struct Following<'a> {
    api: &'a Api,
    who: &'a Person,
    document: &'static str,
    variables: Value,
    /// The cursor of the last event.
    after: Option<String>,
    socket: Option<Socket>,
    /// Breaks since something was heard last.
    breaks: u32,
}

impl<'a> Following<'a> {
    /// Begins behind a cursor, or from now on. That the server can be reached and lets us follow is seen here, so that a wrong
    /// address or token is told and not tried for ever.
    pub(super) async fn begin(
        api: &'a Api,
        who: &'a Person,
        document: &'static str,
        variables: Value,
        after: Option<String>,
    ) -> Result<Self, Refused> {
        let mut following = Self { api, who, document, variables, after, socket: None, breaks: 0 };
        match following.connect().await {
            Err(refused) if following.may_sign_in(&refused) => {
                api.login(who).await?;
                following.connect().await?;
            }
            connected => connected?,
        }
        Ok(following)
    }

    /// Where to go on later.
    pub(super) fn after(&self) -> Option<&str> {
        self.after.as_deref()
    }

    /// The next event; none when there is nothing more to come. It waits for a server that is away.
    pub(super) async fn next(&mut self) -> Result<Option<Value>, Refused> {
        loop {
            let heard = match &mut self.socket {
                Some(socket) => socket.next::<Value>(SILENCE).await.map(|(_, value)| value),
                None => self.connect().await.map(|()| Some(Value::Null)),
            };
            match heard {
                // Connected again; that alone does not make the line good.
                Ok(Some(Value::Null)) => {}
                Ok(Some(value)) => {
                    let cursor = value.get("cursor").and_then(Value::as_str);
                    self.after =
                        Some(cursor.ok_or_else(|| Refused::unexpected("an event without a cursor"))?.to_owned());
                    self.breaks = 0;
                    return Ok(Some(value));
                }
                Ok(None) => return Ok(None),
                Err(refused) => self.endure(refused).await?,
            }
        }
    }

    async fn connect(&mut self) -> Result<(), Refused> {
        let mut socket = self.api.socket(self.who).await?;
        let mut variables = self.variables.clone();
        if let (Some(variables), Some(after)) = (variables.as_object_mut(), &self.after) {
            variables.insert("after".to_owned(), json!(after));
        }
        socket.subscribe("follow", self.document, variables).await?;
        self.socket = Some(socket);
        Ok(())
    }

    fn may_sign_in(&self, refused: &Refused) -> bool {
        refused.code == "UNAUTHENTICATED" && self.who.has_password()
    }

    /// Waits after a break, or says that waiting does not help.
    async fn endure(&mut self, refused: Refused) -> Result<(), Refused> {
        self.socket = None;
        // A token that ended is renewed; one that is refused right after is wrong.
        let renew = self.may_sign_in(&refused) && self.breaks < 2;
        if !renew && !refused.is_passing() {
            return Err(refused);
        }
        if self.breaks == 1 {
            tell(&format!("{refused}; trying again until it is back"));
        }
        sleep(pause(self.breaks)).await;
        self.breaks = self.breaks.saturating_add(1);
        if renew {
            match self.api.login(self.who).await {
                Err(refused) if !refused.is_passing() => return Err(refused),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }
}
