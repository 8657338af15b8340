//! A queue whose members are taken out in batches: what arrives while a batch is under way makes up the next one. What is alone is a
//! batch of one, at once.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::task::TaskTracker;

use crate::error::{Error, Result};

/// Members that wait at most.
const ROOM: usize = 10_000;

/// The queue. Cheap to clone.
#[derive(Debug)]
pub struct Queue<T> {
    tracker: TaskTracker,
    /// Batches under way at the same time.
    clerks: usize,
    /// Members of a batch at most.
    most: usize,
    state: Arc<Mutex<State<T>>>,
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self { tracker: self.tracker.clone(), state: Arc::clone(&self.state), ..*self }
    }
}

#[derive(Debug)]
struct State<T> {
    waiting: VecDeque<T>,
    clerks: usize,
}

/// One who works on batches. It is counted until it ends, however that is.
struct Clerk<T> {
    queue: Queue<T>,
    counted: bool,
}

impl<T> Drop for Clerk<T> {
    fn drop(&mut self) {
        if self.counted {
            self.queue.state().leave();
        }
    }
}

impl<T> State<T> {
    fn leave(&mut self) {
        self.clerks = self.clerks.saturating_sub(1);
    }
}

impl<T: Send + 'static> Queue<T> {
    /// A queue whose clerks, `clerks` at most, are on the tracker and take `most` members at most.
    #[must_use]
    pub fn new(tracker: TaskTracker, clerks: usize, most: usize) -> Self {
        Self { tracker, clerks, most, state: Arc::new(Mutex::new(State { waiting: VecDeque::new(), clerks: 0 })) }
    }

    /// Lets a member wait for its batch, on which `work` is done. Every caller gives the same work.
    pub fn hand_in<F>(&self, member: T, work: impl Fn(Vec<T>) -> F + Send + 'static) -> Result<()>
    where
        F: Future<Output = ()> + Send,
    {
        let mut state = self.state();
        if state.waiting.len() >= ROOM {
            return Err(Error::Unavailable("Too many wait for the same already; try again."));
        }
        state.waiting.push_back(member);
        if state.clerks < self.clerks {
            state.clerks += 1;
            let mut clerk = Clerk { queue: self.clone(), counted: true };
            self.tracker.spawn(async move {
                while let Some(batch) = clerk.next() {
                    work(batch).await;
                }
            });
        }
        Ok(())
    }
}

impl<T> Queue<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Clerk<T> {
    /// Those who wait, or nothing when this clerk is not needed any more. Both under one lock: what is handed in meanwhile is either
    /// seen here or sees that a clerk is missing.
    fn next(&mut self) -> Option<Vec<T>> {
        let mut state = self.queue.state();
        let count = state.waiting.len().min(self.queue.most);
        if count == 0 {
            state.leave();
            drop(state);
            self.counted = false;
            return None;
        }
        Some(state.waiting.drain(..count).collect())
    }
}
