//! Payment channels.

use async_graphql::{Context, Enum, ID, InputObject, Object};
use entity::{agent, channel, id::ChannelId};
use sea_orm::{ColumnTrait, Condition, EntityTrait, QueryFilter, QuerySelect, QueryTrait};

use super::{
    agent::Agent,
    context::{Ask, maybe, parse_id},
    error::Answer,
    page::{PageArgs, Sort, connection, list_cost},
    scalar::{BigInt, Credits, DateTime},
    task::{Side, Task},
    user::User,
};
use crate::{caller::Scope, error::Result};

/// The order of channels, newest first.
const NEWEST: Sort<channel::Entity> =
    Sort { name: "c", key: None, id: channel::Column::Id, descending: true, place: |row| (0, row.id.0) };

/// What a channel is for. Deposits of different purposes are never mixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "entity::channel::Purpose")]
pub(super) enum ChannelPurpose {
    /// Backs exactly one task.
    Escrow,
    /// Pays as it goes, by vouchers or deductions.
    Stream,
}

/// The states of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "entity::channel::Status")]
pub(super) enum ChannelStatus {
    /// Holds its deposit.
    Open,
    /// The payer wants it closed; the agent may still claim until then.
    Closing,
    /// Paid out or refunded; for ever.
    Closed,
}

/// How a channel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enum)]
#[graphql(remote = "entity::channel::CloseReason")]
pub(super) enum ChannelCloseReason {
    /// The deposit went to the agent.
    Settled,
    /// The deposit went back to the payer because the work failed.
    Refunded,
    /// The deposit went back to the payer because the agent did not start.
    Forfeited,
    /// The agent closed it; what it had not claimed went back to the payer.
    AgentClosed,
    /// Both parties signed how it is shared out.
    Cooperative,
    /// The delay after the payer's request was over.
    PayerClosed,
    /// Its time was over.
    Expired,
}

#[derive(Clone)]
pub(super) struct Channel(channel::Model);

impl From<channel::Model> for Channel {
    fn from(row: channel::Model) -> Self {
        Self(row)
    }
}

/// A payment channel from a payer to an agent. An escrow channel is opened by an award, backs one task and settles by its
/// outcome. The payer, the agent's owner and administrators see it.
#[Object]
impl Channel {
    /// The id, `chan_…`.
    pub(super) async fn id(&self) -> ID {
        self.0.id.into()
    }

    /// What it is for.
    async fn purpose(&self) -> ChannelPurpose {
        self.0.purpose.into()
    }

    /// Its state.
    async fn status(&self) -> ChannelStatus {
        self.0.status.into()
    }

    /// How it ended; null while it is open.
    async fn close_reason(&self) -> Option<ChannelCloseReason> {
        self.0.close_reason.map(ChannelCloseReason::from)
    }

    /// What the payer put in.
    async fn deposit(&self) -> Credits {
        Credits(self.0.deposit)
    }

    /// What the agent and the fees received.
    async fn paid(&self) -> Credits {
        Credits(self.0.paid)
    }

    /// Counts the changes, from 1 at the opening.
    async fn nonce(&self) -> BigInt {
        BigInt(self.0.nonce)
    }

    /// When it opened.
    async fn opened_at(&self) -> DateTime {
        DateTime(self.0.opened_at)
    }

    /// By when it ends at the latest.
    async fn expires_at(&self) -> DateTime {
        DateTime(self.0.expires_at)
    }

    /// When it closed; null while it is open.
    async fn closed_at(&self) -> Option<DateTime> {
        self.0.closed_at.map(DateTime)
    }

    /// Who pays.
    #[graphql(complexity = "1 + child_complexity")]
    async fn payer(&self, ctx: &Context<'_>) -> Option<Answer<User>> {
        maybe(ctx, super::user::find(ctx, self.0.payer_id)).await
    }

    /// Who is paid.
    #[graphql(complexity = "1 + child_complexity")]
    async fn agent(&self, ctx: &Context<'_>) -> Option<Answer<Agent>> {
        maybe(ctx, super::agent::find(ctx, self.0.agent_id)).await
    }

    /// The task that it backs; null for those who are not party to it any more.
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
    /// A page of channels.
    ChannelConnection,
    /// A channel in a list.
    ChannelEdge, Channel, channel::Model
}

/// Which channels to list. All conditions must hold.
#[derive(Clone, Debug, Default, InputObject)]
pub(super) struct ChannelFilter {
    /// Is in this state.
    status: Option<ChannelStatus>,
    /// You are on this side of it.
    side: Option<Side>,
    /// Pays this agent.
    agent_id: Option<ID>,
}

/// The channel with this id, if the caller is party to it.
pub(super) async fn find(ctx: &Context<'_>, id: ChannelId) -> Result<Option<Channel>> {
    let Some(row) = ctx.loaders().channels(id).await? else { return Ok(None) };
    if ctx.may_see(row.payer_id) {
        return Ok(Some(Channel(row)));
    }
    let Some(viewer) = ctx.viewer() else { return Ok(None) };
    let agent = ctx.loaders().agents(row.agent_id).await?;
    Ok(agent.filter(|agent| agent.owner_id == viewer).map(|_| Channel(row)))
}

#[derive(Default)]
pub(super) struct ChannelQuery;

#[Object]
impl ChannelQuery {
    /// A channel by id; null when there is none, or you are not party to it.
    #[graphql(complexity = "1 + child_complexity")]
    async fn channel(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The id, `chan_…`.")] id: ID,
    ) -> Option<Answer<Channel>> {
        maybe(ctx, async { find(ctx, parse_id(&id, "id")?).await }).await
    }

    /// The channels that you pay into or your agents are paid from, newest first; all channels for administrators.
    #[graphql(complexity = "list_cost(__ctx, __variables_definition, __field, child_complexity)")]
    async fn channels(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which channels.")] filter: Option<ChannelFilter>,
        #[graphql(desc = "How many from the start: 1 to 100, 20 when neither `first` nor `last` is given.")]
        first: Option<i32>,
        #[graphql(desc = "Only what comes after this cursor.")] after: Option<String>,
        #[graphql(desc = "How many from the end: 1 to 100; not together with `first`.")] last: Option<i32>,
        #[graphql(desc = "Only what comes before this cursor.")] before: Option<String>,
    ) -> Option<Answer<ChannelConnection>> {
        maybe(ctx, async {
            let viewer = ctx.caller().with_scope(Scope::Read)?;
            let filter = filter.unwrap_or_default();
            let mine = agent::Entity::find()
                .select_only()
                .column(agent::Column::Id)
                .filter(agent::Column::OwnerId.eq(viewer))
                .into_query();
            let pays = channel::Column::PayerId.eq(viewer);
            let is_paid = channel::Column::AgentId.in_subquery(mine);
            let mut list = channel::Entity::find();
            list = match filter.side {
                Some(Side::Requester) => list.filter(pays),
                Some(Side::Worker) => list.filter(is_paid),
                None if ctx.caller().is_admin() => list,
                None => list.filter(Condition::any().add(pays).add(is_paid)),
            };
            if let Some(status) = filter.status {
                list = list.filter(channel::Column::Status.eq(channel::Status::from(status)));
            }
            if let Some(agent) = &filter.agent_id {
                let agent: entity::id::AgentId = parse_id(agent, "filter.agentId")?;
                list = list.filter(channel::Column::AgentId.eq(agent));
            }
            let window = PageArgs { first, after, last, before }.window(&NEWEST)?;
            Ok(Some(window.read(ctx.store().read(), list, &NEWEST).await?.into()))
        })
        .await
    }
}
