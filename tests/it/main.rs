//! Stories through the running service, one file a noun. Each starts a [`world::World`] of its own and ends with
//! [`world::World::check`].

#![expect(unreachable_pub, reason = "`pub` here means: for every story")]

#[cfg(test)]
mod world;

#[cfg(test)]
mod agent;
#[cfg(test)]
mod assets;
#[cfg(test)]
mod auction;
#[cfg(test)]
mod auction_abuse;
#[cfg(test)]
mod auction_model;
#[cfg(test)]
mod backup;
#[cfg(test)]
mod channel;
#[cfg(test)]
mod channel_model;
#[cfg(test)]
mod cli;
#[cfg(test)]
mod clock;
#[cfg(test)]
mod commit_reveal;
#[cfg(test)]
mod contract;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod crowd;
#[cfg(test)]
mod delegation;
#[cfg(test)]
mod desk;
#[cfg(test)]
mod differential;
#[cfg(test)]
mod dispute;
#[cfg(test)]
mod document;
#[cfg(test)]
mod events;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod group;
#[cfg(test)]
mod guest;
#[cfg(test)]
mod history;
#[cfg(test)]
mod idempotency;
#[cfg(test)]
mod ledger;
#[cfg(test)]
mod live;
#[cfg(test)]
mod matrix;
#[cfg(test)]
mod meter;
#[cfg(test)]
mod metrics;
#[cfg(test)]
mod migration;
#[cfg(test)]
mod outside;
#[cfg(test)]
mod permission;
#[cfg(test)]
mod race;
#[cfg(test)]
mod read;
#[cfg(test)]
mod release;
#[cfg(test)]
mod reputation;
#[cfg(test)]
mod retention;
#[cfg(test)]
mod secrets;
#[cfg(test)]
mod settings;
#[cfg(test)]
mod sse;
#[cfg(test)]
mod story;
#[cfg(test)]
mod subscription;
#[cfg(test)]
mod subscription_market;
#[cfg(test)]
mod task;
#[cfg(test)]
mod task_model;
#[cfg(test)]
mod tidy;
#[cfg(test)]
mod trace;
#[cfg(test)]
mod transport;
#[cfg(test)]
mod upgrade;
#[cfg(test)]
mod user;
#[cfg(test)]
mod verifier;
#[cfg(test)]
mod wallet;
#[cfg(test)]
mod webhook;
#[cfg(test)]
mod work;
