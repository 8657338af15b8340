//! The only place that asks what time it is and draws random numbers.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicI64, Ordering},
};
use std::time::Duration;

use chrono::Utc;
use entity::time::Timestamp;
use rand::{Rng, SeedableRng, rngs::StdRng};
use uuid::{Builder, Uuid};

/// Where the program gets its time.
#[derive(Clone, Debug)]
pub enum Clock {
    /// The computer's clock.
    System,
    /// A clock that stands still until it is turned, for tests.
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// A clock that stands at `start`.
    #[must_use]
    pub fn manual(start: Timestamp) -> Self {
        Self::Manual(Arc::new(AtomicI64::new(start.micros())))
    }

    /// The present instant.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one place that may ask")]
    pub fn now(&self) -> Timestamp {
        match self {
            Self::System => Utc::now().into(),
            Self::Manual(micros) => Timestamp::from_micros(micros.load(Ordering::SeqCst)),
        }
    }

    /// Turns a manual clock forward; the computer's clock turns itself.
    pub fn advance(&self, by: Duration) {
        if let Self::Manual(micros) = self {
            let by = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
            micros.fetch_add(by, Ordering::SeqCst);
        }
    }

    /// Turns a manual clock back, as somebody may do with the computer's.
    pub fn step_back(&self, by: Duration) {
        if let Self::Manual(micros) = self {
            let by = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
            micros.fetch_sub(by, Ordering::SeqCst);
        }
    }
}

/// Where ids and secrets get their randomness: the operating system's generator, or a seed for repeatable tests.
#[derive(Clone, Debug)]
pub struct Entropy(Arc<Mutex<Source>>);

#[derive(Debug)]
struct Source {
    random: StdRng,
    /// The instant of the newest id and how many ids that instant has had.
    newest: (Timestamp, u32),
}

impl Entropy {
    /// A generator that is seeded from the operating system.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one place that may ask")]
    pub fn system() -> Self {
        Self::from(StdRng::from_rng(&mut rand::rng()))
    }

    /// A generator whose output depends on `seed` alone.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self::from(StdRng::seed_from_u64(seed))
    }

    fn from(random: StdRng) -> Self {
        Self(Arc::new(Mutex::new(Source { random, newest: (Timestamp::from_micros(0), 0) })))
    }

    /// Fresh random bytes.
    #[must_use]
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.source().random.fill_bytes(&mut bytes);
        bytes
    }

    /// A UUID of version 7 for the instant `now`. Behind the milliseconds stand the microseconds (RFC 9562, method 3) and then a
    /// counter of the ids of that instant (method 1), so that the ids of one process sort in the order in which they were made.
    #[must_use]
    pub fn uuid(&self, now: Timestamp) -> Uuid {
        let mut tail = [0; 10];
        let mut source = self.source();
        source.random.fill_bytes(&mut tail);
        let (instant, count) = source.newest;
        let count = if instant == now { count.wrapping_add(1) } else { 0 };
        source.newest = (now, count);
        drop(source);

        let micros = u64::try_from(now.micros()).unwrap_or(0);
        let fraction = u16::try_from((micros % 1000) * 4096 / 1000).unwrap_or(0);
        // The counter has 22 bits: the variant takes two of the three bytes' 24.
        let [_, high, middle, low] = (count & 0x003f_ffff).to_be_bytes();
        let ordered = fraction.to_be_bytes().into_iter().chain([high, middle, low]);
        tail.iter_mut().zip(ordered).for_each(|(byte, value)| *byte = value);
        Builder::from_unix_timestamp_millis(micros / 1000, &tail).into_uuid()
    }

    fn source(&self) -> MutexGuard<'_, Source> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_in_the_order_in_which_they_were_made() {
        let entropy = Entropy::seeded(1);
        let instants = [0, 0, 0, 1, 1, 999, 1000, 1_000_000, 1_000_000];
        let ids = instants.map(|micros: i64| entropy.uuid(Timestamp::from_micros(1_700_000_000_000_000 + micros)));
        assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "{ids:?}");
        assert!(ids.iter().all(|id| id.get_version_num() == 7));
    }

    #[test]
    fn a_manual_clock_moves_only_when_it_is_turned() {
        let clock = Clock::manual(Timestamp::from_micros(5));
        assert_eq!(clock.now(), clock.now());
        clock.advance(Duration::from_micros(3));
        assert_eq!(clock.now(), Timestamp::from_micros(8));
    }
}
