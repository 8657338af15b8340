//! ZeroState: a market where software agents bid for tasks, with escrow, execution and reputation, behind GraphQL.
//!
//! A user posts a task with a budget. Agents bid. The best composite of price and reputation wins; its price goes into an escrow
//! channel; the agent does the work, as a WebAssembly module in our sandbox; the outcome settles or refunds the money and moves
//! the agent's reputation. Subscribers watch every step.
//!
//! # The rings
//!
//! One noun has four places: the row in the `entity` crate, the verbs and the pure rules in the module of that name here, the face
//! in [`graphql`], the proof in `tests/it`. A module uses only what stands above it; `tests/it/tidy.rs` holds this table as data:
//!
//! | modules | what they are |
//! |---|---|
//! | `entity` (crate) | typed rows, ids, money, instants |
//! | [`error`] [`caller`] [`config`] | why not; who asks; every setting |
//! | [`plan`] | what a plan is and which make sense |
//! | [`store`] | the unit of work, the event log, the clock |
//! | [`ledger`] [`user`] | accounts, transfers, holds, audit; sign-in and keys |
//! | [`agent`] | sellers of work and their modules |
//! | [`reputation`] [`channel`] [`webhook`] | what is known of an agent; where a price waits; messages to outside agents |
//! | [`auction`] | bids, scores, closes |
//! | [`document`] | signed certificates of awards and receipts of settlements |
//! | [`task`] | the one path that buys work: award to settlement |
//! | [`execution`] | leases, the sandbox, verifiers |
//! | [`delegation`] | one goal split over several agents |
//! | [`metrics`] [`sweep`] [`app`] | what is counted; the hand of the clock; what the process owns |
//! | [`graphql`] [`transport`] [`cli`] | the face, HTTP and WebSocket, the command line |
//!
//! # What must always hold
//!
//! - `rules.rs` files are pure: no async, no database, no clock, no logging. They take rows and values and answer a decision or a
//!   named refusal.
//! - Verbs take [`store::Work`] and never begin or commit, so they compose. Only [`store`] begins and commits; [`store::Store::write`]
//!   is the one place where a unit of work starts, ends and is announced.
//! - All checks precede all writes.
//! - Money moves only through [`ledger`], as immutable transfers of two entries in exact integers. Holds are resolved exactly once.
//! - Rows are locked in one order: delegation, auction, task, channel, hold, then accounts by ascending id. The first write of a unit of work
//!   comes after its first lock.
//! - No transaction is open while foreign code runs: a claim is one unit of work, the result another.
//! - Every state that is not terminal has a deadline, and the sweeper alone can finish it.
//! - A refusal is a value with a stable code. The text of an internal error is logged once and never sent.
//! - The event log is the truth for subscribers; the live feed only makes it prompt.
//! - Time and randomness are parameters: only `store/clock.rs` asks for them.
//!
//! # Walkthrough: submitBid, from request to event
//!
//! 1. [`transport`] reads the bearer token and turns it into a [`caller::Caller`], limits the body and the document, parses it once
//!    and hands it to the schema.
//! 2. The resolver parses its input and hands the bid in at the [`task::desk`] with its idempotency key. Bids that arrive while
//!    others are being written are written together by [`auction::together`], each admitted or refused by itself; a bid that is alone
//!    goes the way of every other mutation, as follows.
//! 3. [`store::Store::write_once`] begins a unit of work (READ COMMITTED on PostgreSQL; on SQLite behind a savepoint, in a group that
//!    shares a commit), looks the key up, and runs [`task::submit_bid`], which locks the auction and its task.
//! 4. [`auction::submit_bid`] loads the agent, asks [`auction::rules::admit_bid`], puts the bond down where there is one, replaces an
//!    earlier bid of the same agent, inserts the new one and stages `BID_SUBMITTED`. If that was the bid that the auction waited
//!    for, [`task`] decides it in the same unit of work.
//! 5. The commit writes the staged events and the idempotency record with everything else; after it, metrics count the events and
//!    the feed wakes.
//! 6. The answer is the bid; its auction and agent resolve through loaders that batch by request.
//!
//! # Walkthrough: auctionEvents, from socket to stream
//!
//! 1. [`transport`] upgrades to graphql-transport-ws; `connection_init` authenticates once; the socket ends when the token does.
//! 2. The resolver follows [`store::Topic::Auction`] from the cursor `after`.
//! 3. [`store::Follow`] attaches to the live feed, then reads the log behind the cursor, then follows the feed, dropping what it has
//!    seen. A reader that is too slow for the feed's bounded buffer reads the log again from where it is.
//! 4. The order comes from the log: row numbers on SQLite; on PostgreSQL places that are given to committed lines in the order of
//!    their row numbers, so that nothing appears behind a cursor and no other transaction holds the log up.
//! 5. Another instance over the same PostgreSQL needs only a prompt: a coalesced `NOTIFY` wakes its tailer, and a slow poll is the
//!    net.

pub mod agent;
pub mod app;
pub mod auction;
pub mod caller;
pub mod channel;
pub mod cli;
pub mod config;
pub mod delegation;
pub mod document;
pub mod error;
pub mod execution;
pub mod graphql;
pub mod ledger;
pub mod metrics;
pub mod plan;
pub mod reputation;
pub mod store;
pub mod sweep;
pub mod task;
pub mod trace;
pub mod transport;
pub mod user;
pub mod voucher;
pub mod webhook;
