//! How units of work share a commit on SQLite, where there is one writer and a commit costs a sync of the disk.
//!
//! ```text
//! unit ─► line ─► savepoint ─► verb ─► release ──┐
//! unit ─► line ─► savepoint ─► verb ─► roll back ┼─► nobody waits, or the group is full ─► commit ─► all are answered
//! unit ─► line ─► savepoint ─► verb ─► release ──┘
//! ```
//!
//! Units work one after the other, each behind a savepoint of its own, so each is whole or undone by itself and sees those before
//! it. Whoever leaves while nobody waits commits for the group, so a unit that is alone commits at once, and the units that come
//! while the disk is busy make up the next group.
//!
//! What must always hold: nobody is answered before the group is durable, the refused included, because what they were refused for
//! may be another unit of the group; when a group cannot be committed or one of its units cannot be undone, all of it is undone
//! and all are told; a unit that is abandoned half-way is undone, and the group is committed by somebody all the same.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use entity::event;
use sea_orm::{ConnAcquireErr, ConnectionTrait, DatabaseTransaction, DbErr};
use tokio::sync::{Mutex, OwnedMutexGuard, watch};
use tracing::Instrument;

use super::{Store, failpoint};
use crate::error::{Error, Result};

/// Units that share a commit at most: the first of them waits for all.
const MOST: usize = 64;

/// The line of those who want to write.
#[derive(Debug)]
pub(super) struct Line {
    group: Arc<Mutex<Option<Group>>>,
    waiting: Arc<AtomicUsize>,
    patience: Duration,
}

impl Line {
    /// A line in which nobody waits longer than `patience`.
    pub(super) fn new(patience: Duration) -> Self {
        Self { group: Arc::default(), waiting: Arc::default(), patience }
    }
}

/// The units that will be durable together.
#[derive(Debug)]
struct Group {
    tx: Arc<DatabaseTransaction>,
    units: usize,
    events: Vec<event::Model>,
    end: watch::Sender<End>,
}

/// How a group came out.
#[derive(Clone, Debug)]
enum End {
    Open,
    Durable,
    /// Nothing of it happened; with what the database said to the commit, if it came to that.
    Failed(Option<DbErr>),
}

type Place = OwnedMutexGuard<Option<Group>>;

/// Somebody who waits in the line.
struct Waiting<'a> {
    store: &'a Store,
    line: &'a Line,
    seated: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.line.waiting.fetch_sub(1, Ordering::SeqCst);
        if !self.seated {
            // Whoever left last may have counted on this one to commit.
            let (store, group) = (self.store.clone(), Arc::clone(&self.line.group));
            to_the_end(async move { settle(&store, group.lock_owned().await).await });
        }
    }
}

/// The one unit that works now. Dropped, it is undone.
#[derive(Debug)]
pub(super) struct Seat {
    store: Store,
    place: Option<Place>,
    end: watch::Receiver<End>,
}

impl Seat {
    /// Waits for the turn of a unit and begins it.
    pub(super) async fn take(store: &Store, line: &Line) -> Result<(Self, Arc<DatabaseTransaction>)> {
        line.waiting.fetch_add(1, Ordering::SeqCst);
        let mut waiting = Waiting { store, line, seated: false };
        let place = tokio::time::timeout(line.patience, Arc::clone(&line.group).lock_owned()).await;
        let mut place = place.map_err(|_| DbErr::ConnectionAcquire(ConnAcquireErr::Timeout))?;
        waiting.seated = true;
        drop(waiting);
        let group = match &mut *place {
            Some(group) => group,
            empty @ None => {
                let tx = Arc::new(store.begin_transaction().await?);
                empty.insert(Group { tx, units: 0, events: Vec::new(), end: watch::Sender::new(End::Open) })
            }
        };
        let (tx, end) = (Arc::clone(&group.tx), group.end.subscribe());
        let seat = Self { store: store.clone(), place: Some(place), end };
        tx.execute_unprepared("SAVEPOINT unit").await?;
        Ok((seat, tx))
    }

    /// Undoes what the unit did so far and keeps its place.
    pub(super) async fn begin_anew(&self, tx: &DatabaseTransaction) -> Result<()> {
        Ok(tx.execute_unprepared("ROLLBACK TO unit").await.map(|_| ())?)
    }

    /// Ends the unit, and answers when all of its group is durable. Nothing of it stays without events to tell.
    pub(super) async fn leave(mut self, events: Option<Vec<event::Model>>) -> Result<()> {
        self.give_up(events);
        let end = self.end.wait_for(|end| !matches!(end, End::Open)).await.map(|end| end.clone());
        match end {
            Ok(End::Durable) => Ok(()),
            Ok(End::Failed(Some(error))) => Err(error.into()),
            Ok(End::Open | End::Failed(None)) | Err(_) => {
                Err(Error::Unavailable("What was written with it could not be kept; try again."))
            }
        }
    }

    /// In a task of its own, because whoever works may be dropped at any point, and others wait for what is done here.
    fn give_up(&mut self, events: Option<Vec<event::Model>>) {
        if let Some(place) = self.place.take() {
            to_the_end(end_unit(self.store.clone(), place, events));
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.give_up(None);
    }
}

/// Does what others wait for, whatever becomes of the one who began it.
#[expect(clippy::disallowed_methods, reason = "it ends with the commit, for which every unit of the group waits")]
fn to_the_end(what: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(what.in_current_span());
}

/// Keeps or undoes what the unit did, and commits for the group if nobody else will.
async fn end_unit(store: Store, mut place: Place, events: Option<Vec<event::Model>>) {
    let Some(group) = &mut *place else { return };
    let how = if events.is_some() { "RELEASE unit" } else { "ROLLBACK TO unit; RELEASE unit" };
    let ended = group.tx.execute_unprepared(how).await;
    group.units += 1;
    group.events.extend(events.unwrap_or_default());
    match ended {
        Ok(_) => settle(&store, place).await,
        // When the disk is full or fails, SQLite undoes the whole transaction by itself.
        Err(error) => {
            tracing::warn!(%error, units = group.units, "a unit of work could not be ended; those it shared a commit with are undone");
            if let Some(group) = place.take() {
                group.end.send_replace(End::Failed(None));
            }
        }
    }
}

/// Commits, unless somebody waits who can join the group.
async fn settle(store: &Store, mut place: Place) {
    let may_grow = place.as_ref().is_none_or(|group| group.units < MOST);
    if may_grow && store.0.line.as_ref().is_some_and(|line| line.waiting.load(Ordering::SeqCst) > 0) {
        return;
    }
    let Some(Group { tx, events, end, .. }) = place.take() else { return };
    failpoint("store::before_commit");
    let committed = match Arc::into_inner(tx) {
        Some(tx) => tx.commit().await,
        None => Err(DbErr::Custom("a unit of work outlived its group".to_owned())),
    };
    failpoint("store::after_commit");
    match committed {
        Ok(()) => {
            store.announce(&events);
            end.send_replace(End::Durable);
        }
        Err(error) => {
            end.send_replace(End::Failed(Some(error)));
        }
    }
}
