//! How many points one caller may spend: a bucket for each that fills up at a steady rate.
//!
//! Of a bucket only the moment is kept at which it is full again. A bucket that is full is forgotten, which changes nothing, so the
//! memory of this is bounded by who came lately, and by a number.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use moka::sync::Cache;

use super::places::Holder;

/// Callers that are remembered at most.
const HOLDERS: u64 = 100_000;

/// The buckets of all callers. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Budgets(Option<Arc<Rate>>);

#[derive(Debug)]
struct Rate {
    most: u64,
    per_second: u64,
    full_at: Cache<Holder, Arc<Mutex<Instant>>>,
}

/// Where a caller stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) most: u64,
    pub(super) remaining: u64,
    /// How long until the bucket is full again.
    pub(super) full_in: Duration,
    /// How long an empty one takes.
    pub(super) window: Duration,
}

impl Budgets {
    /// Buckets of `most` points that fill with `per_second` points a second; none when that is nothing.
    pub(super) fn new(most: u64, per_second: u64) -> Self {
        if per_second == 0 || most == 0 {
            return Self(None);
        }
        let full_at = Cache::builder().max_capacity(HOLDERS).time_to_idle(time(most, per_second)).build();
        Self(Some(Arc::new(Rate { most, per_second, full_at })))
    }

    /// Takes points out of a holder's bucket, or says how long they are missing. More than a whole bucket is a whole bucket.
    /// Answers nothing where there are no buckets, or nobody known asks.
    pub(super) fn take(&self, holder: Option<Holder>, points: u64, now: Instant) -> Result<Option<Taken>, Duration> {
        let (Some(rate), Some(holder)) = (&self.0, holder) else { return Ok(None) };
        let bucket = rate.full_at.get_with(holder, || Arc::new(Mutex::new(now)));
        let points = points.min(rate.most);
        let mut full_at = lock(&bucket);
        let next = (*full_at).max(now) + time(points, rate.per_second);
        let missing = (next - now).saturating_sub(time(rate.most, rate.per_second));
        if !missing.is_zero() {
            return Err(missing);
        }
        *full_at = next;
        drop(full_at);
        Ok(Some(Taken { rate: Arc::clone(rate), bucket, points }))
    }
}

/// Points that were taken.
#[derive(Debug)]
pub(super) struct Taken {
    rate: Arc<Rate>,
    bucket: Arc<Mutex<Instant>>,
    points: u64,
}

impl Taken {
    /// Puts back what was taken beyond `actual`.
    pub(super) fn spend(&self, actual: u64) {
        let back = time(self.points.saturating_sub(actual), self.rate.per_second);
        let mut full_at = lock(&self.bucket);
        *full_at = full_at.checked_sub(back).unwrap_or(*full_at);
    }

    /// Where the caller stands now.
    pub(super) fn standing(&self, now: Instant) -> Standing {
        let full_in = lock(&self.bucket).saturating_duration_since(now);
        let missing = full_in.as_nanos().saturating_mul(self.rate.per_second.into()).div_ceil(1_000_000_000);
        let remaining = self.rate.most.saturating_sub(u64::try_from(missing).unwrap_or(u64::MAX));
        Standing { most: self.rate.most, remaining, full_in, window: time(self.rate.most, self.rate.per_second) }
    }
}

fn lock(bucket: &Mutex<Instant>) -> MutexGuard<'_, Instant> {
    bucket.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long so many points take to come.
fn time(points: u64, per_second: u64) -> Duration {
    let nanos = u128::from(points).saturating_mul(1_000_000_000) / u128::from(per_second.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(last: u8) -> Holder {
        Holder::Network(std::net::Ipv4Addr::new(10, 0, 0, last).into())
    }

    #[test]
    fn a_bucket_empties_and_fills() {
        let (budgets, start) = (Budgets::new(100, 10), Instant::now());
        let taken = budgets.take(Some(at(1)), 60, start).unwrap().unwrap();
        let (full_in, window) = (Duration::from_secs(6), Duration::from_secs(10));
        assert_eq!(taken.standing(start), Standing { most: 100, remaining: 40, full_in, window });
        assert_eq!(budgets.take(Some(at(1)), 60, start).unwrap_err(), Duration::from_secs(2));
        assert!(budgets.take(Some(at(2)), 60, start).is_ok(), "the bucket of somebody else");
        let later = start + Duration::from_secs(2);
        let again = budgets.take(Some(at(1)), 60, later).unwrap().unwrap();
        assert_eq!(again.standing(later).remaining, 0);
        again.spend(10);
        assert_eq!(again.standing(later).remaining, 50);
        assert_eq!(again.standing(later + Duration::from_mins(1)).remaining, 100);
    }

    #[test]
    fn more_than_a_bucket_is_a_bucket() {
        let (budgets, start) = (Budgets::new(100, 10), Instant::now());
        assert!(budgets.take(Some(at(1)), 1_000_000, start).unwrap().is_some());
        assert_eq!(budgets.take(Some(at(1)), 1_000_000, start).unwrap_err(), Duration::from_secs(10));
    }

    #[test]
    fn without_a_rate_or_a_name_nothing_is_taken() {
        assert!(Budgets::new(100, 0).take(Some(at(1)), 1_000, Instant::now()).unwrap().is_none());
        assert!(Budgets::new(100, 1).take(None, 1_000, Instant::now()).unwrap().is_none());
    }
}
