//! The unit of work: one transaction, one caller, one instant, one batch of events.

use std::sync::OnceLock;

use entity::{event, id::Id, time::Timestamp};
use sea_orm::{ActiveValue::Set, DatabaseTransaction, EntityTrait, NotSet};
use uuid::{Builder, Uuid};

use super::{Event, Instance, Store};
use crate::{
    caller::Caller,
    config::Terms,
    error::{Error, Result},
};

/// What a verb works on. Verbs read and write through [`Work::tx`] and never begin or commit, so they compose into larger verbs.
#[derive(Debug)]
pub struct Work {
    store: Store,
    tx: DatabaseTransaction,
    caller: Caller,
    began: Timestamp,
    locked: OnceLock<Timestamp>,
    events: Vec<Event>,
}

impl Work {
    pub(super) fn new(store: Store, tx: DatabaseTransaction, caller: Caller) -> Self {
        let began = store.clock().now();
        Self { store, tx, caller, began, locked: OnceLock::new(), events: Vec::new() }
    }

    /// The transaction, for queries.
    #[must_use]
    pub fn tx(&self) -> &DatabaseTransaction {
        &self.tx
    }

    /// Who asked.
    #[must_use]
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The one instant at which all of this happens: when it got its first lock, or when it began if it needs none.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.locked.get().copied().unwrap_or(self.began)
    }

    /// Says that a lock was got on what this work decides on. It may have waited for others that began later and are done now;
    /// from the first lock on it happens after them, so that the history of a subject never goes back in time.
    pub fn got_lock(&self) {
        self.locked.get_or_init(|| self.store.clock().now());
    }

    /// The terms of the market.
    #[must_use]
    pub fn terms(&self) -> &Terms {
        self.store.terms()
    }

    /// The market that signs for what happens here.
    pub fn instance(&self) -> Result<&Instance> {
        self.store.instance()
    }

    /// Fails with `BooksBroken` while an audit says so; whatever moves credits asks first.
    pub fn books(&self) -> Result<()> {
        self.store.books()
    }

    /// An id that nothing has yet; ids sort in the order of the calls.
    pub fn fresh<I: Id>(&mut self) -> I {
        I::from_uuid(self.store.entropy().uuid(self.now()))
    }

    /// Fresh random bytes, for secrets and jitter.
    #[must_use]
    pub fn random<const N: usize>(&self) -> [u8; N] {
        self.store.entropy().bytes()
    }

    /// Stages an event. It is written with the commit and told to subscribers after it.
    pub fn record(&mut self, event: Event) {
        self.events.push(event);
    }

    /// Writes the staged events; the caller commits.
    async fn write_events(&mut self) -> Result<Vec<event::Model>> {
        let (actor_id, now) = (self.caller.user_id(), self.now());
        let rows: Vec<event::ActiveModel> = self
            .events
            .drain(..)
            .map(|event| event::ActiveModel {
                id: NotSet,
                kind: Set(event.kind),
                auction_id: Set(event.auction_id),
                task_id: Set(event.task_id),
                channel_id: Set(event.channel_id),
                agent_id: Set(event.agent_id),
                payer_id: Set(event.payer_id),
                owner_id: Set(event.owner_id),
                actor_id: Set(actor_id),
                payload: Set(event.payload),
                occurred_at: Set(now),
            })
            .collect();
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        Ok(event::Entity::insert_many(rows).exec_with_returning(&self.tx).await?)
    }

    /// Makes all of it durable and visible at once, then tells.
    pub(super) async fn commit(mut self) -> Result<()> {
        let events = self.write_events().await?;
        let Self { store, tx, .. } = self;
        tx.commit().await?;
        store.announce(&events);
        Ok(())
    }

    /// Undoes all of it.
    pub(super) async fn rollback(self) -> Result<()> {
        self.tx.rollback().await.map_err(Error::from)
    }
}

/// A UUID that depends on its parts alone, so that a retry makes the same one: version 5 under a namespace of ours.
#[must_use]
pub fn derived_uuid(parts: &[&[u8]]) -> Uuid {
    const NAMESPACE: Uuid = Uuid::from_u128(0x6f1d_2f0a_52c4_4d6e_9b77_7a65_726f_7374);
    let mut name = Vec::new();
    for part in parts {
        name.extend_from_slice(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        name.extend_from_slice(part);
    }
    Uuid::new_v5(&NAMESPACE, &name)
}

/// The least id that something of this instant or later can have, to read the newest rows by their key.
#[must_use]
pub fn first_id(at: Timestamp) -> Uuid {
    let millis = u64::try_from(at.micros()).unwrap_or(0) / 1_000;
    Builder::from_unix_timestamp_millis(millis, &[0; 10]).into_uuid()
}
