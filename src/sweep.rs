//! The hand of the clock: a loop of verbs for what is due. It alone can finish whatever nobody else finishes: it closes auctions,
//! takes unstarted work away, ends lapsed leases, overdue runs, reviews and disputes, closes streaming channels whose time is over,
//! and takes delegations a step further.
//! Each is a unit of work of its own, and any number of processes may sweep at once, because every verb looks again under its lock.

use std::{sync::Arc, time::Duration};

use entity::task;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    auction,
    caller::Caller,
    channel::stream,
    delegation,
    error::Result,
    execution,
    store::{Store, Work, failpoint},
    task::{self as tasks, dispute as disputes},
};

/// How many of a kind one round takes.
const BATCH: u64 = 100;

/// Does once whatever is due now. Answers how many things it did.
pub async fn once(store: &Store) -> Result<u64> {
    // Nearly everything that is due moves credits. It stays due until they may.
    if store.books().is_err() {
        return Ok(0);
    }
    let now = store.clock().now();
    let mut done = 0_u64;
    for id in auction::due(store.read(), now, BATCH).await? {
        done += step(store, async |work| tasks::close_due(work, id).await).await;
    }
    for (execution, task) in execution::lapsed(store.read(), now, BATCH).await? {
        done += step(store, async |work| execution::expire_lease(work, task, execution).await).await;
    }
    for (id, status) in tasks::due(store.read(), now, BATCH).await? {
        done += match status {
            task::Status::Running => step(store, async |work| execution::end_overdue(work, id).await).await,
            task::Status::Awarded => step(store, async |work| tasks::reassign_due(work, id).await).await,
            task::Status::Submitted => step(store, async |work| disputes::review_due(work, id).await).await,
            task::Status::Disputed => step(store, async |work| disputes::dispute_due(work, id).await).await,
            task::Status::Open
            | task::Status::Completed
            | task::Status::Refunded
            | task::Status::Expired
            | task::Status::Cancelled => 0,
        };
    }
    for id in stream::due(store.read(), now, BATCH).await? {
        done += step(store, async |work| stream::finalise_due(work, id).await).await;
    }
    for id in delegation::due(store.read(), now, BATCH).await? {
        done += step(store, async |work| Box::pin(delegation::advance(work, id)).await).await;
    }
    Ok(done)
}

/// One verb in a unit of work of its own. What fails is logged and stays due, so the next round tries it again, and it does not
/// keep the rest of the round waiting.
async fn step(store: &Store, verb: impl AsyncFnOnce(&mut Work) -> Result<bool>) -> u64 {
    failpoint("sweep::step");
    // Boxed: what a verb keeps on its way is large, and the round would carry that of each.
    match Box::pin(store.write(Caller::System, verb)).await {
        Ok(acted) => u64::from(acted),
        Err(error) => {
            tracing::error!(%error, "something that is due could not be done; it will be tried again");
            0
        }
    }
}

/// Sweeps every `interval`, and at once whenever `prompt` says that a delegation may go on, until `stop`.
pub async fn run(store: Store, interval: Duration, prompt: Arc<Notify>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let pause = match once(&store).await {
            Ok(0) => interval,
            Ok(_) => Duration::ZERO,
            Err(error) => {
                tracing::error!(%error, "the sweeper could not read what is due");
                interval.saturating_mul(5)
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = prompt.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}
