//! Where a subscription meets whoever delivers its events.
//!
//! Who may follow what is asked once, when a subscription is opened; the answer to an event is worked out when it comes, and for
//! subscribers who ask for the same it is the same answer. So the transport runs a subscription in two parts: it opens it for each
//! subscriber ([`Opening`]), which leaves the lines of the log that this subscriber may see, and has the lines told
//! ([`Telling`]) as often as answers differ. [`Looks`] says when they may differ: when a resolver looked at who asks.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use async_graphql::Context;
use futures_util::{StreamExt, stream, stream::BoxStream};

use super::{
    context::{Ask, answer},
    error::{Answer, Fault},
    event::Event,
};
use crate::{error::Result, store::Line};

/// A line of the log that a subscriber may see, or why there are no more.
#[derive(Clone, Debug)]
pub struct Item(pub(super) Answer<Arc<Line>>);

impl Item {
    /// The line, if it is one.
    #[must_use]
    pub fn line(&self) -> Option<&Arc<Line>> {
        self.0.as_ref().ok()
    }
}

impl From<Arc<Line>> for Item {
    fn from(line: Arc<Line>) -> Self {
        Self(Ok(line))
    }
}

/// What a subscriber may see of the log, up to the line that ends it.
pub type Lines = BoxStream<'static, Item>;

/// How the events of a subscription are delivered where that is not left to the executor.
#[derive(Debug)]
pub enum Delivery {
    /// The checks are made, and the lines left for whoever delivers them.
    Opening(Opening),
    /// The checks were made; what is told is what is put there.
    Telling(Telling),
}

/// Where a subscription that was opened leaves its lines. Cheap to clone.
#[derive(Clone, Default)]
pub struct Opening(Arc<Mutex<Option<Lines>>>);

impl Opening {
    /// The lines, once.
    #[must_use]
    pub fn take(&self) -> Option<Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl std::fmt::Debug for Opening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Opening")
    }
}

/// Where the next thing to be told is put. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Telling(Arc<Mutex<Option<Item>>>);

impl Telling {
    /// Puts the next one there.
    pub fn put(&self, item: Item) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(item);
    }

    fn take(&self) -> Option<Item> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// What the resolvers of a request looked at. An answer for which nobody looked at who asks is the same whoever asks. Cheap to
/// clone.
#[derive(Clone, Debug, Default)]
pub struct Looks(Arc<(AtomicBool, AtomicBool)>);

impl Looks {
    pub(super) fn at_caller(&self) {
        self.0.0.store(true, Ordering::Relaxed);
    }

    pub(super) fn at_budget(&self) {
        self.0.1.store(true, Ordering::Relaxed);
    }

    /// Begins anew.
    pub fn forget(&self) {
        self.0.0.store(false, Ordering::Relaxed);
        self.0.1.store(false, Ordering::Relaxed);
    }

    /// Whether anything depends on who asks.
    #[must_use]
    pub fn personal(&self) -> bool {
        self.0.0.load(Ordering::Relaxed)
    }

    /// Whether anything depends on what the caller may still spend, which is different for each that has no name, too.
    #[must_use]
    pub fn passing(&self) -> bool {
        self.0.1.load(Ordering::Relaxed)
    }
}

/// The stream of a subscription whose checks and lines are `work`.
pub(super) async fn followed(
    ctx: &Context<'_>,
    work: impl Future<Output = Result<Lines>>,
) -> std::result::Result<BoxStream<'static, Answer<Event>>, Fault> {
    let tell = |item: Item| item.0.map(Event::from);
    match ctx.session().delivery() {
        None => Ok(answer(ctx, work).await?.map(tell).boxed()),
        Some(Delivery::Opening(opening)) => {
            let lines = answer(ctx, work).await?;
            *opening.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(lines);
            Ok(stream::empty().boxed())
        }
        Some(Delivery::Telling(telling)) => {
            let telling = telling.clone();
            Ok(stream::poll_fn(move |_| telling.take().map(tell).into()).boxed())
        }
    }
}
