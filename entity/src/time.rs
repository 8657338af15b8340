//! Instants, stored as whole microseconds since 1970 in UTC: the same bytes, order and precision on every database.

use std::{fmt, time::Duration};

use chrono::{DateTime, SecondsFormat, Utc};
use sea_orm::DeriveValueType;
use serde::{Deserialize, Serialize};

/// An instant in UTC with microsecond precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, DeriveValueType)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Microseconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// This instant and a duration later; stays at the last representable instant rather than wrapping.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)))
    }

    /// This instant and a duration earlier; stays at the first representable instant rather than wrapping.
    #[must_use]
    pub fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)))
    }

    /// How long after `earlier` this is; zero when it is not after.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// The same instant for the calendar; `None` outside the years that chrono knows.
    #[must_use]
    pub fn datetime(self) -> Option<DateTime<Utc>> {
        DateTime::from_timestamp_micros(self.0)
    }
}

impl From<DateTime<Utc>> for Timestamp {
    fn from(datetime: DateTime<Utc>) -> Self {
        Self(datetime.timestamp_micros())
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC with microseconds, for example `2026-01-02T03:04:05.000006Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.datetime() {
            Some(datetime) => f.write_str(&datetime.to_rfc3339_opts(SecondsFormat::Micros, true)),
            None => write!(f, "{}us", self.0),
        }
    }
}

/// Seconds in the units of a duration.
const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
/// The longest duration that is read: a hundred years.
const LONGEST: Duration = Duration::from_secs(36_525 * DAY);

/// Writes a duration as in ISO 8601, in the largest units that fit, without the parts that are zero.
#[must_use]
pub fn format_duration(span: Duration) -> String {
    let part = |count: u64, unit: char| if count > 0 { format!("{count}{unit}") } else { String::new() };
    let seconds = span.as_secs();
    let rest = seconds % MINUTE;
    let rest = match span.subsec_micros() {
        0 => part(rest, 'S'),
        micros => format!("{rest}.{}S", format!("{micros:06}").trim_end_matches('0')),
    };
    let time = format!("{}{}{rest}", part(seconds % DAY / HOUR, 'H'), part(seconds % HOUR / MINUTE, 'M'));
    match (seconds / DAY, time.as_str()) {
        (0, "") => "PT0S".to_owned(),
        (days, "") => format!("P{days}D"),
        (days, time) => format!("P{}T{time}", part(days, 'D')),
    }
}

/// Reads `PnDTnHnMn.nS` of ISO 8601: each part at most once, in this order, at least one, none empty.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let rest = text.strip_prefix('P')?;
    let (days, time) = match rest.split_once('T') {
        Some((days, time)) => (days, Some(time)),
        None => (rest, None),
    };
    if time == Some("") || (days.is_empty() && time.is_none()) {
        return None;
    }
    let mut seconds = match days {
        "" => 0,
        _ => plain_number(days.strip_suffix('D')?)?.checked_mul(DAY)?,
    };
    let mut rest = time.unwrap_or("");
    for (unit, length) in [('H', HOUR), ('M', MINUTE)] {
        if let Some((count, behind)) = rest.split_once(unit) {
            seconds = seconds.checked_add(plain_number(count)?.checked_mul(length)?)?;
            rest = behind;
        }
    }
    let mut micros = 0;
    if !rest.is_empty() {
        let count = rest.strip_suffix('S')?;
        let (whole, fraction) = count.split_once('.').unwrap_or((count, "0"));
        if fraction.len() > 6 {
            return None;
        }
        plain_number(fraction)?;
        micros = plain_number(&format!("{fraction:0<6}"))?;
        seconds = seconds.checked_add(plain_number(whole)?)?;
    }
    let span = Duration::from_secs(seconds).checked_add(Duration::from_micros(micros))?;
    (span <= LONGEST).then_some(span)
}

/// Plain digits.
#[must_use]
pub fn plain_number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_written_in_utc_and_do_not_wrap() {
        assert_eq!(Timestamp::from_micros(1_000_006).to_string(), "1970-01-01T00:00:01.000006Z");
        assert_eq!(Timestamp::from_micros(i64::MAX).after(Duration::from_secs(1)).micros(), i64::MAX);
        assert_eq!(Timestamp::from_micros(5).since(Timestamp::from_micros(9)), Duration::ZERO);
    }
}
