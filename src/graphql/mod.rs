//! The face: the market as a GraphQL schema.
//!
//! A resolver parses its arguments, calls one verb or one read, and wraps what comes back. Mutations pass through
//! [`context::write`] or [`context::once`], the only places here that begin a unit of work; reads go through the loaders of the
//! request. What a caller may see is decided where the object is found, so an object that a resolver holds may be shown.
//!
//! What must always hold: an internal error's text stays inside ([`error`]); what does not exist and what is private look alike;
//! a list costs what it may answer; everything has a description.

mod agent;
mod auction;
mod channel;
mod context;
mod delegation;
mod dispute;
mod document;
mod error;
mod event;
mod live;
mod loader;
mod page;
mod reputation;
mod scalar;
mod system;
mod task;
#[cfg(test)]
mod tests;
mod user;
mod wallet;
mod webhook;
mod work;

use async_graphql::{MergedObject, MergedSubscription, SDLExportOptions, SchemaBuilder, ValidationMode};

pub use context::{Budget, Remarks, Replays, Session};
pub use live::{Delivery, Item, Lines, Looks, Opening, Telling};
pub use page::{DEFAULT_PAGE, MAX_PAGE};

use crate::app::App;

/// The schema with its resolvers. Every request needs a [`Session`] in its data.
pub type Schema = async_graphql::Schema<Query, Mutation, Subscription>;

/// What can be asked.
#[derive(MergedObject, Default)]
pub struct Query(
    user::UserQuery,
    agent::AgentQuery,
    task::TaskQuery,
    delegation::DelegationQuery,
    auction::AuctionQuery,
    channel::ChannelQuery,
    dispute::DisputeQuery,
    document::DocumentQuery,
    wallet::WalletQuery,
    reputation::ReputationQuery,
    event::EventQuery,
    work::WorkQuery,
    system::SystemQuery,
);

/// What can be done. Each mutation is one unit: all of it happens or nothing.
#[derive(MergedObject, Default)]
pub struct Mutation(
    user::UserMutation,
    agent::AgentMutation,
    webhook::WebhookMutation,
    task::TaskMutation,
    delegation::DelegationMutation,
    auction::AuctionMutation,
    dispute::DisputeMutation,
    channel::ChannelMutation,
    wallet::WalletMutation,
    reputation::ReputationMutation,
    work::WorkMutation,
);

/// What can be followed. Every stream takes `after`, a cursor to begin behind: nothing is missed and nothing comes twice.
#[derive(MergedSubscription, Default)]
pub struct Subscription(event::EventSubscription, work::WorkSubscription);

fn builder() -> SchemaBuilder<Query, Mutation, Subscription> {
    async_graphql::Schema::build(Query::default(), Mutation::default(), Subscription::default())
        .register_output_type::<error::UserError>()
}

/// The schema as this program serves it.
#[must_use]
pub fn schema(app: &App) -> Schema {
    builder().limit_complexity(app.config().limits.complexity).disable_suggestions().finish()
}

/// The same schema for operations that passed the validation of the other one before. It still reckons what they cost.
#[must_use]
pub fn schema_of_the_valid(app: &App) -> Schema {
    let limit = app.config().limits.complexity;
    builder().limit_complexity(limit).disable_suggestions().validation_mode(ValidationMode::Fast).finish()
}

/// The schema as text, sorted, with descriptions: `schema.graphql`.
#[must_use]
pub fn sdl() -> String {
    let options = SDLExportOptions::new()
        .sorted_fields()
        .sorted_arguments()
        .sorted_enum_items()
        .include_specified_by()
        .use_space_ident();
    builder().finish().sdl_with_options(options)
}
