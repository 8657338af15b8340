//! A queue whose members are taken out in batches: what arrives while a batch is under way makes up the next one. What is alone is a
//! batch of one, at once.

use std::{
    collections::VecDeque,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::error::{Error, Result};

/// Members that wait at most.
const ROOM: usize = 10_000;

/// The queue. Cheap to clone.
#[derive(Debug)]
pub struct Queue<T> {
    tracker: TaskTracker,
    sizes: Sizes,
    state: Arc<Mutex<State<T>>>,
}

/// How a queue is worked on.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Batches under way at the same time, at most.
    pub clerks: usize,
    /// How many must wait for a batch to begin beside another one. Few do better to wait for the next batch, because it costs hardly
    /// more with them than without.
    pub crowd: usize,
    /// Members of a batch at most.
    pub most: usize,
    /// A batch that takes longer holds nobody up: the next one begins beside it as if it were not there.
    pub slow: Duration,
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self { tracker: self.tracker.clone(), sizes: self.sizes, state: Arc::clone(&self.state) }
    }
}

#[derive(Debug)]
struct State<T> {
    waiting: VecDeque<T>,
    clerks: usize,
    /// Those of the clerks whose batch takes long.
    slow: usize,
}

impl<T> State<T> {
    /// Whether another clerk is wanted.
    fn lacks(&self, sizes: Sizes) -> bool {
        let wanted = if self.clerks == self.slow { 1 } else { sizes.crowd };
        self.clerks < sizes.clerks && self.waiting.len() >= wanted
    }
}

/// One who works on batches. It is counted until it ends, however that is.
struct Clerk<T> {
    queue: Queue<T>,
    counted: bool,
    slow: bool,
}

impl<T> Drop for Clerk<T> {
    fn drop(&mut self) {
        let queue = self.queue.clone();
        self.leave(&mut queue.state());
    }
}

impl<T: Send + 'static> Queue<T> {
    /// An empty queue. Its clerks are on the tracker.
    #[must_use]
    pub fn new(tracker: TaskTracker, sizes: Sizes) -> Self {
        Self { tracker, sizes, state: Arc::new(Mutex::new(State { waiting: VecDeque::new(), clerks: 0, slow: 0 })) }
    }

    /// Lets a member wait for its batch, on which `work` is done. Every caller gives the same work.
    pub fn hand_in<F>(&self, member: T, work: impl Fn(Vec<T>) -> F + Send + Sync + 'static) -> Result<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut state = self.state();
        if state.waiting.len() >= ROOM {
            return Err(Error::Unavailable("Too many wait for the same already; try again."));
        }
        state.waiting.push_back(member);
        if state.lacks(self.sizes) {
            self.begin(&mut state, Arc::new(work));
        }
        Ok(())
    }

    fn begin<F>(&self, state: &mut State<T>, work: Arc<impl Fn(Vec<T>) -> F + Send + Sync + 'static>)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        state.clerks += 1;
        let clerk = Clerk { queue: self.clone(), counted: true, slow: false };
        self.tracker.spawn(clerk.serve(work));
    }
}

impl<T> Queue<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Send + 'static> Clerk<T> {
    async fn serve<F>(mut self, work: Arc<impl Fn(Vec<T>) -> F + Send + Sync + 'static>)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        while let Some(batch) = self.next() {
            let mut under_way = pin!(work(batch));
            if timeout(self.queue.sizes.slow, &mut under_way).await.is_err() {
                self.is_slow(&work);
                under_way.await;
            }
        }
    }

    /// Lets another clerk begin in the place of this one if somebody waits.
    fn is_slow<F>(&mut self, work: &Arc<impl Fn(Vec<T>) -> F + Send + Sync + 'static>)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let queue = self.queue.clone();
        let mut state = queue.state();
        state.slow += 1;
        self.slow = true;
        if state.lacks(queue.sizes) {
            queue.begin(&mut state, Arc::clone(work));
        }
    }
}

impl<T> Clerk<T> {
    /// Those who wait, or nothing when this clerk is not needed any more. Both under one lock: what is handed in meanwhile is either seen
    /// here or sees that a clerk is missing.
    fn next(&mut self) -> Option<Vec<T>> {
        let queue = self.queue.clone();
        let mut state = queue.state();
        self.leave(&mut state);
        if !state.lacks(queue.sizes) {
            return None;
        }
        state.clerks += 1;
        self.counted = true;
        let count = state.waiting.len().min(queue.sizes.most);
        Some(state.waiting.drain(..count).collect())
    }

    fn leave(&mut self, state: &mut State<T>) {
        state.clerks -= usize::from(std::mem::take(&mut self.counted));
        state.slow -= usize::from(std::mem::take(&mut self.slow));
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::{mpsc, oneshot};

    use super::*;

    const SIZES: Sizes = Sizes { clerks: 2, crowd: 3, most: 4, slow: Duration::MAX };

    type Batch = (Vec<u32>, oneshot::Sender<()>);

    /// A queue and what becomes of it: each batch with what ends it.
    fn queue(sizes: Sizes) -> (impl Fn(u32), mpsc::UnboundedReceiver<Batch>) {
        let (begun, batches) = mpsc::unbounded_channel();
        let queue = Queue::new(TaskTracker::new(), sizes);
        let hand_in = move |member| {
            let begun = begun.clone();
            let work = move |batch| {
                let (end, ended) = oneshot::channel();
                begun.send((batch, end)).unwrap();
                async move { ended.await.unwrap() }
            };
            queue.hand_in(member, work).unwrap();
        };
        (hand_in, batches)
    }

    /// Lets everything go on that can.
    async fn settle() {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn who_is_alone_is_served_at_once_and_those_who_come_meanwhile_together() {
        let (hand_in, mut batches) = queue(SIZES);
        hand_in(1);
        let (first, end) = batches.recv().await.unwrap();
        hand_in(2);
        hand_in(3);
        settle().await;
        assert!(first == [1] && batches.is_empty(), "two wait for the first one");
        end.send(()).unwrap();
        let (second, end) = batches.recv().await.unwrap();
        assert_eq!(second, [2, 3]);
        for member in 4..10 {
            hand_in(member);
        }
        let (third, _end) = batches.recv().await.unwrap();
        settle().await;
        assert!(third == [4, 5, 6, 7] && batches.is_empty(), "a crowd is served beside, by two at most");
        end.send(()).unwrap();
        settle().await;
        assert!(batches.is_empty(), "the two that are left wait for whoever is still at work");
    }

    #[tokio::test]
    async fn a_batch_that_takes_long_holds_nobody_up() {
        let (hand_in, mut batches) = queue(Sizes { slow: Duration::from_millis(1), ..SIZES });
        hand_in(1);
        let (_, first) = batches.recv().await.unwrap();
        hand_in(2);
        let (second, end) = batches.recv().await.unwrap();
        assert_eq!(second, [2], "who waited already");
        hand_in(3);
        end.send(()).unwrap();
        assert_eq!(batches.recv().await.unwrap().0, [3], "who comes now");
        drop(first);
    }

    #[tokio::test]
    async fn a_clerk_that_fails_is_replaced() {
        let (hand_in, mut batches) = queue(Sizes { clerks: 1, ..SIZES });
        for member in 1..4 {
            hand_in(member);
            let (batch, end) = batches.recv().await.unwrap();
            assert_eq!(batch, [member]);
            drop(end);
            settle().await;
        }
    }
}
