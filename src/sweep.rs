//! The hand of the clock: a loop of verbs for what is due. It alone can finish whatever nobody else finishes: it closes auctions,
//! takes unstarted work away, ends lapsed leases, overdue runs, reviews and disputes, closes streaming channels whose time is over,
//! and takes delegations a step further.
//! Each is a unit of work of its own, and any number of processes may sweep at once, because every verb looks again under its lock.

use std::{sync::Arc, time::Duration};

use entity::{
    id::{Id, TaskId},
    task,
};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span, field::Empty};

use crate::{
    auction,
    caller::Caller,
    channel::stream,
    delegation,
    error::Result,
    execution,
    store::{Aged, Store, Work, failpoint},
    task::{self as tasks, dispute as disputes},
    trace,
};

/// How many of a kind one round takes.
const BATCH: u64 = 100;
/// How often it is looked for what need not be kept any more.
const TIDY: Duration = Duration::from_mins(1);

/// What need not be kept for ever besides the event log.
const ANSWERS: Aged =
    Aged { table: "idempotency_records", key: "user_id, operation, key", since: "created_at", and: "TRUE", only: None };
const DELIVERIES: Aged =
    Aged { table: "deliveries", key: "id", since: "finished_at", and: "finished_at IS NOT NULL", only: None };
const SESSIONS: Aged = Aged { table: "sessions", key: "id", since: "expires_at", and: "TRUE", only: None };
const LOGS: Aged =
    Aged { table: "task_results", key: "task_id", since: "created_at", and: "logs <> ''", only: Some("logs") };

/// Does once whatever is due now. Answers how many things it did.
pub async fn once(store: &Store) -> Result<u64> {
    // Nearly everything that is due moves credits. It stays due until they may.
    if store.books().is_err() {
        return Ok(0);
    }
    let now = store.clock().now();
    let mut pass = Pass { store, span: None };
    let mut done = 0_u64;
    for id in auction::due(store.read(), now, BATCH).await? {
        done += pass.step("auction closes", &id, None, async |work| tasks::close_due(work, id).await).await;
    }
    for (execution, task) in execution::lapsed(store.read(), now, BATCH).await? {
        let expire = async |work: &mut Work| execution::expire_lease(work, task, execution).await;
        done += pass.step("lease ends", &task, Some(task), expire).await;
    }
    for (id, status) in tasks::due(store.read(), now, BATCH).await? {
        let task = Some(id);
        done += match status {
            task::Status::Running => {
                pass.step("run ends", &id, task, async |work| execution::end_overdue(work, id).await).await
            }
            task::Status::Awarded => {
                pass.step("award moves on", &id, task, async |work| tasks::reassign_due(work, id).await).await
            }
            task::Status::Submitted => {
                pass.step("review ends", &id, task, async |work| disputes::review_due(work, id).await).await
            }
            task::Status::Disputed => {
                pass.step("dispute ends", &id, task, async |work| disputes::dispute_due(work, id).await).await
            }
            task::Status::Open
            | task::Status::Completed
            | task::Status::Refunded
            | task::Status::Expired
            | task::Status::Cancelled => 0,
        };
    }
    for id in stream::due(store.read(), now, BATCH).await? {
        done += pass.step("channel closes", &id, None, async |work| stream::finalise_due(work, id).await).await;
    }
    for id in delegation::due(store.read(), now, BATCH).await? {
        let advance = async |work: &mut Work| Box::pin(delegation::advance(work, id)).await;
        done += pass.step("delegation advances", &id, None, advance).await;
    }
    if let Some(span) = &pass.span {
        span.record("zerostate.done", trace::whole(done));
    }
    Ok(done)
}

/// Takes out what need not be kept any more, a bounded number of rows of each kind. Answers how many there were. While the books
/// are broken everything is kept, because it may help to find out why.
pub async fn tidy(store: &Store) -> Result<u64> {
    if store.books().is_err() {
        return Ok(0);
    }
    let (keep, now) = (&store.terms().keep, store.clock().now());
    let mut done = 0_u64;
    if let Some(span) = keep.events {
        done += store.forget_events(now.before(span)).await?;
    }
    let kinds = [(keep.answers, ANSWERS), (keep.deliveries, DELIVERIES), (keep.sessions, SESSIONS), (keep.logs, LOGS)];
    for (span, aged) in kinds {
        if let Some(span) = span {
            done += store.forget(&aged, now.before(span)).await?;
        }
    }
    Ok(done)
}

/// One round. It has a span as soon as something is due, and most rounds find nothing.
struct Pass<'a> {
    store: &'a Store,
    span: Option<Span>,
}

impl Pass<'_> {
    /// One verb in a unit of work of its own. What fails is logged and stays due, so the next round tries it again, and it does not
    /// keep the rest of the round waiting.
    async fn step(
        &mut self,
        what: &'static str,
        subject: &impl Id,
        task: Option<TaskId>,
        verb: impl AsyncFnOnce(&mut Work) -> Result<bool>,
    ) -> u64 {
        failpoint("sweep::step");
        let root = self.span.get_or_insert_with(|| {
            let span = tracing::info_span!(
                target: trace::ROOT,
                parent: None,
                "sweep",
                "zerostate.done" = Empty,
                trace_id = Empty,
                span_id = Empty
            );
            trace::begin(&span, &trace::Parent::default());
            span
        });
        let step = async {
            let span = tracing::info_span!(
                target: trace::INNER,
                "step",
                "zerostate.step" = what,
                "zerostate.subject" = subject.to_string(),
            );
            if let Some(task) = task {
                self.store.posted().link(task.uuid(), &span);
            }
            // Boxed: what a verb keeps on its way is large, and the round would carry that of each.
            match Box::pin(self.store.write(Caller::System, verb)).instrument(span).await {
                Ok(acted) => u64::from(acted),
                Err(error) => {
                    tracing::error!(%error, "something that is due could not be done; it will be tried again");
                    0
                }
            }
        };
        step.instrument(root.clone()).await
    }
}

/// Sweeps every `interval`, and at once whenever `prompt` says that a delegation may go on, until `stop`.
pub async fn run(store: Store, interval: Duration, prompt: Arc<Notify>, stop: CancellationToken) {
    let mut next_tidy = Instant::now();
    while !stop.is_cancelled() {
        if Instant::now() >= next_tidy {
            // As long as there is something to take out, each round takes a little of it.
            match tidy(&store).await {
                Ok(0) => next_tidy = Instant::now() + TIDY,
                Ok(_) => {}
                Err(error) => {
                    tracing::error!(%error, "what need not be kept could not be taken out; it will be tried again");
                    next_tidy = Instant::now() + TIDY;
                }
            }
        }
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
