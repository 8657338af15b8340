//! What things are: one typed row a noun, with the values that rows are made of.
//!
//! Nothing here has behaviour beyond arithmetic. What may happen to a row is decided in the `zerostate` crate, in the module of
//! the same name; how the rows look in the database is decided in the `migration` crate, which repeats their invariants as
//! constraints.
//!
//! Conventions that hold for every table: ids are UUIDs of version 7, money is [`money::Amount`] in micro-credits, an instant is
//! a [`time::Timestamp`] in microseconds of UTC, shares and reputations are whole basis points of 10,000, an enumeration is its
//! SCREAMING_SNAKE_CASE name with a CHECK, JSON is text.

pub mod id;
pub mod money;
pub mod text;
pub mod time;

pub mod api_key;
pub mod session;
pub mod user;

pub mod agent;
pub mod agent_capability;
pub mod agent_module;

pub mod auction;
pub mod bid;
pub mod bond;
pub mod channel;
pub mod channel_change;
pub mod commitment;
pub mod delegation;
pub mod delegation_step;
pub mod delegation_task;
pub mod delivery;
pub mod dispute;
pub mod document;
pub mod equivocation;
pub mod evidence;
pub mod execution;
pub mod task;
pub mod task_result;

pub mod account;
pub mod entry;
pub mod hold;
pub mod hold_resolution;
pub mod instance;
pub mod journal_head;
pub mod journal_line;
pub mod transfer;

pub mod rating;
pub mod reputation;
pub mod reputation_event;

pub mod event;
pub mod idempotency;

/// Declares an enumeration that is stored, serialised and spoken as its SCREAMING_SNAKE_CASE names.
macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, sea_orm::EnumIter, sea_orm::DeriveActiveEnum,
            serde::Serialize, serde::Deserialize,
        )]
        #[sea_orm(rs_type = "String", db_type = "Text")]
        pub enum $name {
            $($(#[$variant_doc])* #[sea_orm(string_value = $text)] #[serde(rename = $text)] $variant,)+
        }

        impl $name {
            /// The name as it is stored and spoken.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }
    };
}
pub(crate) use choice;
