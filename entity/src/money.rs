//! Credits as exact integers. One credit is 1,000,000 micro-credits; nothing smaller exists and no float ever holds money.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::{fmt, iter::Sum, str::FromStr};

use sea_orm::DeriveValueType;
use serde::{Deserialize, Serialize};

/// Micro-credits in one credit.
pub const MICROS_PER_CREDIT: i64 = 1_000_000;
/// Fraction digits of a credit on the wire.
pub const FRACTION_DIGITS: usize = 6;
/// The largest amount that one operation may name: one billion credits. It keeps every product of the scoring rules far
/// inside `i128` and every balance inside `i64`.
pub const MAX_AMOUNT: Amount = Amount(1_000_000_000 * MICROS_PER_CREDIT);

/// Why a text is not an amount of credits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAmount {
    /// Not a plain decimal number.
    #[error("must be a decimal number such as \"12.5\", without sign, exponent or spaces")]
    Malformed,
    /// More than six digits behind the point.
    #[error("has more than 6 fraction digits")]
    TooPrecise,
    /// Above [`MAX_AMOUNT`].
    #[error("is above the limit of 1000000000 credits")]
    TooLarge,
}

/// A non-negative number of micro-credits.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, DeriveValueType,
)]
#[serde(transparent)]
pub struct Amount(i64);

impl Amount {
    /// No credits.
    pub const ZERO: Self = Self(0);

    /// An amount of micro-credits, or `None` below zero.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Option<Self> {
        if micros < 0 { None } else { Some(Self(micros)) }
    }

    /// Whole credits; `None` where they do not fit.
    #[must_use]
    pub fn from_credits(credits: u32) -> Option<Self> {
        i64::from(credits).checked_mul(MICROS_PER_CREDIT).map(Self)
    }

    /// The amount in micro-credits, never negative.
    #[must_use]
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// Whether nothing is left.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// The sum, or `None` when it does not fit 63 bits.
    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// The difference, or `None` when it would be negative.
    #[must_use]
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).and_then(Self::from_micros)
    }

    /// The part of this amount that `basis_points` of 10,000 take, rounded down; at most the amount itself.
    #[must_use]
    pub fn basis_points(self, basis_points: u16) -> Self {
        let share = i128::from(self.0).saturating_mul(i128::from(basis_points)) / 10_000;
        Self(i64::try_from(share).unwrap_or(self.0).min(self.0))
    }
}

impl Sum for Amount {
    /// Adds up, staying at `i64::MAX` where the true sum would pass it.
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        Self(amounts.fold(0, |sum, amount| sum.saturating_add(amount.0)))
    }
}

/// Micro-credits of either sign, written as credits: `-0.25` for −250,000.
#[must_use]
pub fn format_micros(micros: i64) -> String {
    const PER_CREDIT: u64 = MICROS_PER_CREDIT.unsigned_abs();
    let sign = if micros < 0 { "-" } else { "" };
    let (whole, fraction) = (micros.unsigned_abs() / PER_CREDIT, micros.unsigned_abs() % PER_CREDIT);
    if fraction == 0 {
        return format!("{sign}{whole}");
    }
    let digits = format!("{fraction:0width$}", width = FRACTION_DIGITS);
    format!("{sign}{whole}.{}", digits.trim_end_matches('0'))
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format_micros(self.0))
    }
}

impl FromStr for Amount {
    type Err = InvalidAmount;

    fn from_str(text: &str) -> Result<Self, InvalidAmount> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let leading_zero = whole.len() > 1 && whole.starts_with('0');
        if !digits(whole) || !digits(fraction) || leading_zero {
            return Err(InvalidAmount::Malformed);
        }
        if fraction.len() > FRACTION_DIGITS {
            return Err(InvalidAmount::TooPrecise);
        }
        let whole: i64 = whole.parse().map_err(|_| InvalidAmount::TooLarge)?;
        let fraction: i64 =
            format!("{fraction:0<width$}", width = FRACTION_DIGITS).parse().map_err(|_| InvalidAmount::Malformed)?;
        whole
            .checked_mul(MICROS_PER_CREDIT)
            .and_then(|micros| micros.checked_add(fraction))
            .map(Self)
            .filter(|amount| *amount <= MAX_AMOUNT)
            .ok_or(InvalidAmount::TooLarge)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn amounts_are_read_exactly_or_refused() {
        for (text, expected) in [
            ("0", Ok(0)),
            ("12.5", Ok(12_500_000)),
            ("0.000001", Ok(1)),
            ("1000000000", Ok(1_000_000_000_000_000)),
            ("1000000000.000001", Err(InvalidAmount::TooLarge)),
            ("99999999999999999999", Err(InvalidAmount::TooLarge)),
            ("0.0000001", Err(InvalidAmount::TooPrecise)),
            ("", Err(InvalidAmount::Malformed)),
            (".5", Err(InvalidAmount::Malformed)),
            ("5.", Err(InvalidAmount::Malformed)),
            ("-1", Err(InvalidAmount::Malformed)),
            ("+1", Err(InvalidAmount::Malformed)),
            ("1e3", Err(InvalidAmount::Malformed)),
            ("01", Err(InvalidAmount::Malformed)),
            (" 1", Err(InvalidAmount::Malformed)),
            ("1,5", Err(InvalidAmount::Malformed)),
            ("٣", Err(InvalidAmount::Malformed)),
        ] {
            assert_eq!(text.parse::<Amount>().map(Amount::micros), expected, "{text}");
        }
    }

    #[test]
    fn negative_micros_are_written_with_their_sign() {
        assert_eq!(format_micros(-250_000), "-0.25");
        assert_eq!(format_micros(i64::MIN), "-9223372036854.775808");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(micros in 0..=MAX_AMOUNT.micros()) {
            let amount = Amount::from_micros(micros).unwrap();
            prop_assert_eq!(amount.to_string().parse::<Amount>(), Ok(amount));
        }

        #[test]
        fn a_share_and_its_remainder_make_the_whole(micros in 0..=MAX_AMOUNT.micros(), points in 0..=10_000_u16) {
            let whole = Amount::from_micros(micros).unwrap();
            let share = whole.basis_points(points);
            let rest = whole.checked_sub(share).unwrap();
            prop_assert_eq!(share.checked_add(rest), Some(whole));
            prop_assert!(i128::from(share.micros()) * 10_000 <= i128::from(micros) * i128::from(points));
        }

        #[test]
        fn no_text_panics(text in ".{0,30}") {
            let _ = text.parse::<Amount>();
        }
    }
}
