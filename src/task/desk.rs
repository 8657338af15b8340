//! The desk at which bids are handed in: those that arrive while others are being written are written together.
//!
//! A clerk takes all bids that wait, up to a bound, and writes them as one unit of work; a bid that is alone is written alone, at
//! once. Each is admitted or refused by itself and remembered under its own idempotency key. If a unit of work fails as a whole,
//! each of its bids is tried alone.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use entity::{
    bid,
    id::{AgentId, AuctionId, UserId},
};
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, Span};

use crate::{
    auction::{NewBid, together},
    caller::{Caller, Scope},
    error::{Error, Refusal, Result},
    store::{self, Answer, Once, Store, Work},
};

/// Bids that are written together at most.
const MOST: usize = 64;
/// Units of work of the desk at the same time.
const CLERKS: usize = 2;
/// Bids that wait at most.
const ROOM: usize = 10_000;

/// The desk. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Desk {
    store: Store,
    tracker: TaskTracker,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Request>,
    clerks: usize,
}

impl State {
    fn leave(&mut self) {
        self.clerks = self.clerks.saturating_sub(1);
    }
}

/// A bid that waits.
#[derive(Debug)]
struct Request {
    /// Where its trace goes on.
    span: Span,
    user: UserId,
    caller: Caller,
    once: Once,
    offer: NewBid,
    reply: oneshot::Sender<Result<Answer<bid::Model>>>,
}

impl Request {
    async fn alone(self, store: Store) {
        let verb = async |work: &mut Work| super::submit_bid(work, self.offer).await;
        let answer = Box::pin(store.write_once(self.caller, self.once, verb)).instrument(self.span).await;
        tell(self.reply, answer);
    }
}

/// Who does not wait any more has to be told nothing: the bid stands all the same, under its key.
fn tell(reply: oneshot::Sender<Result<Answer<bid::Model>>>, answer: Result<Answer<bid::Model>>) {
    drop(reply.send(answer));
}

/// One who writes bids. It is counted until it ends, however that is.
struct Clerk {
    desk: Desk,
    counted: bool,
}

impl Drop for Clerk {
    fn drop(&mut self) {
        if self.counted {
            self.desk.state().leave();
        }
    }
}

impl Desk {
    /// The desk over a database. Its clerks are on the tracker.
    #[must_use]
    pub fn new(store: Store, tracker: TaskTracker) -> Self {
        Self { store, tracker, state: Arc::default() }
    }

    /// Hands a bid in and waits for what came of it, as [`Store::write_once`] of [`super::submit_bid`] would answer it.
    pub async fn submit(&self, caller: Caller, once: Once, offer: NewBid) -> Result<Answer<bid::Model>> {
        let user = caller.with_scope(Scope::BidsWrite)?;
        let (reply, answer) = oneshot::channel();
        {
            let mut state = self.state();
            if state.waiting.len() >= ROOM {
                return Err(Error::Unavailable("Too many bids wait already; try again."));
            }
            state.waiting.push_back(Request { span: Span::current(), user, caller, once, offer, reply });
            if state.clerks < CLERKS {
                state.clerks += 1;
                self.tracker.spawn(Clerk { desk: self.clone(), counted: true }.work());
            }
        }
        answer.await.map_err(|_| Error::internal("a bid was not answered"))?
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clerk {
    async fn work(mut self) {
        while let Some(mut batch) = self.next() {
            match batch.pop() {
                Some(request) if batch.is_empty() => request.alone(self.desk.store.clone()).await,
                Some(request) => {
                    batch.push(request);
                    self.together(batch).await;
                }
                None => {}
            }
        }
    }

    /// The bids that wait, or nothing when this clerk is not needed any more. Both under one lock: a bid that is handed in meanwhile
    /// is either seen here or sees that a clerk is missing.
    fn next(&mut self) -> Option<Vec<Request>> {
        let mut state = self.desk.state();
        let count = state.waiting.len().min(MOST);
        if count == 0 {
            state.leave();
            drop(state);
            self.counted = false;
            return None;
        }
        Some(state.waiting.drain(..count).collect())
    }

    /// Writes all of them that can be, and leaves the others to be written alone.
    async fn together(&self, batch: Vec<Request>) {
        let store = &self.desk.store;
        let (plain, mut rest) = apart(batch);
        match Box::pin(store.write(Caller::System, async |work| write(work, &plain).await)).await {
            Ok(answers) => {
                for (request, answer) in plain.into_iter().zip(answers) {
                    match answer {
                        Some(answer) => tell(request.reply, answer),
                        None => rest.push(request),
                    }
                }
            }
            Err(error) => {
                tracing::warn!(%error, bids = plain.len(), "bids could not be written together; each is tried alone");
                rest.extend(plain);
            }
        }
        for request in rest {
            self.desk.tracker.spawn(request.alone(store.clone()));
        }
    }
}

/// Those that do not meet, in their order, and those that repeat a key or are a second bid of an agent in an auction.
fn apart(batch: Vec<Request>) -> (Vec<Request>, Vec<Request>) {
    let mut keys: HashSet<(UserId, String)> = HashSet::new();
    let mut agents: HashSet<(AuctionId, AgentId)> = HashSet::new();
    batch.into_iter().partition(|it| {
        let new_key = keys.insert((it.user, it.once.key().to_owned()));
        let new_agent = agents.insert((it.offer.auction, it.offer.agent));
        new_key && new_agent
    })
}

/// What came of each request; nothing for those that have to be asked for alone.
async fn write(work: &mut Work, requests: &[Request]) -> Result<Vec<Option<Result<Answer<bid::Model>>>>> {
    for request in requests {
        Span::current().follows_from(&request.span);
    }
    let intents: Vec<(UserId, &Once)> = requests.iter().map(|it| (it.user, &it.once)).collect();
    let known = store::answered(work, &intents).await?;
    let fresh: Vec<&Request> =
        requests.iter().zip(&known).filter(|(_, known)| known.is_none()).map(|(request, _)| request).collect();
    let offers: Vec<(&Caller, &NewBid)> = fresh.iter().map(|it| (&it.caller, &it.offer)).collect();
    let outcomes = together::submit_bids(work, &offers).await?;

    let mut answers: Vec<Option<Result<std::result::Result<bid::Model, Refusal>>>> = Vec::new();
    for outcome in outcomes {
        answers.push(match outcome {
            together::Outcome::Bid(bid) => Some(Ok(Ok(*bid))),
            together::Outcome::No(Error::Refused(refusal)) => Some(Ok(Err(refusal))),
            together::Outcome::No(error) => Some(Err(error)),
            together::Outcome::Alone => None,
        });
    }
    let kept: Vec<_> = fresh
        .iter()
        .zip(&answers)
        .filter_map(|(request, answer)| match answer {
            Some(Ok(outcome)) => Some((request.user, &request.once, outcome)),
            Some(Err(_)) | None => None,
        })
        .collect();
    store::keep(work, &kept).await?;

    let mut answers = answers.into_iter();
    let answer = |known: Option<Result<Answer<bid::Model>>>| match known {
        Some(known) => Some(known),
        None => answers.next().flatten().map(|it| it.map(|outcome| Answer { outcome, replayed: false })),
    };
    Ok(known.into_iter().map(answer).collect())
}
