//! The desk at which bids are handed in: those that arrive while others are being written are written together.
//!
//! A clerk takes all bids that wait, up to a bound, and writes them as one unit of work; a bid that is alone is written alone, at
//! once. Each is admitted or refused by itself and remembered under its own idempotency key. If a unit of work fails as a whole,
//! each of its bids is tried alone.

use std::{collections::HashSet, time::Duration};

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
    store::{self, Answer, Once, Queue, Sizes, Store, Work},
};

/// How bids are written together.
const SIZES: Sizes = Sizes { clerks: 2, crowd: 8, most: 64, slow: Duration::from_millis(25) };

/// The desk. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Desk {
    store: Store,
    tracker: TaskTracker,
    queue: Queue<Request>,
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

impl Desk {
    /// The desk over a database. Its clerks are on the tracker.
    #[must_use]
    pub fn new(store: Store, tracker: TaskTracker) -> Self {
        let queue = Queue::new(tracker.clone(), SIZES);
        Self { store, tracker, queue }
    }

    /// Hands a bid in and waits for what came of it, as [`Store::write_once`] of [`super::submit_bid`] would answer it.
    pub async fn submit(&self, caller: Caller, once: Once, offer: NewBid) -> Result<Answer<bid::Model>> {
        let user = caller.with_scope(Scope::BidsWrite)?;
        let (reply, answer) = oneshot::channel();
        let desk = self.clone();
        self.queue.hand_in(Request { span: Span::current(), user, caller, once, offer, reply }, move |batch| {
            let desk = desk.clone();
            async move { desk.work(batch).await }
        })?;
        answer.await.map_err(|_| Error::internal("a bid was not answered"))?
    }

    async fn work(&self, mut batch: Vec<Request>) {
        match batch.pop() {
            Some(request) if batch.is_empty() => request.alone(self.store.clone()).await,
            Some(request) => {
                batch.push(request);
                self.together(batch).await;
            }
            None => {}
        }
    }

    /// Writes all of them that can be, and leaves the others to be written alone.
    async fn together(&self, batch: Vec<Request>) {
        let store = &self.store;
        let (plain, mut rest) = apart(batch);
        // Hardly ever does somebody ask again, so nobody is looked up before the keys say that it is so.
        let mut repeated = false;
        let mut written = Box::pin(store.write(Caller::System, async |work| {
            let answers = write(work, &plain, false).await?;
            repeated = answers.is_none();
            answers.ok_or(Error::Unavailable("An identical request was answered already; try again."))
        }))
        .await;
        if repeated {
            written = Box::pin(store.write(Caller::System, async |work| {
                let answers = write(work, &plain, true).await?;
                answers.ok_or(Error::Unavailable("An identical request was in progress; try again."))
            }))
            .await;
        }
        match written {
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
            self.tracker.spawn(request.alone(store.clone()));
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

/// What came of each request of a batch; nothing for those that have to be asked for alone.
type Answers = Vec<Option<Result<Answer<bid::Model>>>>;

/// Writes a batch, after it looked for answers that were given before, or without. Nothing when one of the requests was answered before
/// and that was not looked for; the unit of work has to be undone then.
async fn write(work: &mut Work, requests: &[Request], look: bool) -> Result<Option<Answers>> {
    for request in requests {
        Span::current().follows_from(&request.span);
    }
    let intents: Vec<(UserId, &Once)> = requests.iter().map(|it| (it.user, &it.once)).collect();
    let known = if look { store::answered(work, &intents).await? } else { requests.iter().map(|_| None).collect() };
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
    if !store::keep(work, &kept).await? {
        return Ok(None);
    }

    let mut answers = answers.into_iter();
    let answer = |known: Option<Result<Answer<bid::Model>>>| match known {
        Some(known) => Some(known),
        None => answers.next().flatten().map(|it| it.map(|outcome| Answer { outcome, replayed: false })),
    };
    Ok(Some(known.into_iter().map(answer).collect()))
}
