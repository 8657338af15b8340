//! Named places at which a test lets the process die.
//!
//! `FAILPOINTS=store::before_commit=3` kills the process, without a word to anybody, as it passes that place the third time;
//! several are separated by `;`. Builds for release have none of it.

/// Every place that may be named, in the order in which a task passes them.
pub const POINTS: &[&str] = &[
    "task::held",
    "once::before_record",
    "store::before_events",
    "store::before_commit",
    "store::after_commit",
    "worker::claimed",
    "worker::ran",
    "task::paid",
    "sweep::step",
];

/// A place that a test may have named.
#[cfg(debug_assertions)]
pub fn failpoint(name: &str) {
    armed::pass(name);
}

/// Nothing, in a build for release.
#[cfg(not(debug_assertions))]
pub fn failpoint(_: &str) {}

#[cfg(debug_assertions)]
mod armed {
    use std::sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    };

    /// A place and how often it may still be passed; the last time is the end.
    struct Point {
        name: String,
        left: AtomicU64,
    }

    static ARMED: LazyLock<Vec<Point>> = LazyLock::new(|| parse(&std::env::var("FAILPOINTS").unwrap_or_default()));

    fn parse(text: &str) -> Vec<Point> {
        let point = |part: &str| {
            let (name, count) = part.split_once('=')?;
            let known = super::POINTS.contains(&name);
            debug_assert!(known, "there is no failpoint {name}");
            let left = AtomicU64::new(count.parse().ok()?);
            known.then(|| Point { name: name.to_owned(), left })
        };
        text.split(';').filter_map(point).collect()
    }

    pub(super) fn pass(name: &str) {
        debug_assert!(super::POINTS.contains(&name), "{name} is missing in the list of failpoints");
        for point in ARMED.iter().filter(|point| point.name == name) {
            if point.left.fetch_sub(1, Ordering::SeqCst) == 1 {
                std::process::abort();
            }
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn points_are_read_with_their_counts() {
            let points = parse("store::before_commit=3;sweep::step=1");
            let read: Vec<(&str, u64)> =
                points.iter().map(|point| (point.name.as_str(), point.left.load(Ordering::SeqCst))).collect();
            assert_eq!(read, [("store::before_commit", 3), ("sweep::step", 1)]);
            assert!(parse("").is_empty());
        }
    }
}
