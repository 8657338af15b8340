//! The scalars of the schema. Each reads strictly: one value has one spelling, and whatever else a client sends is refused with
//! a sentence that says what would be accepted.

use std::time::Duration as Span;

use async_graphql::{InputType, InputValueError, InputValueResult, Scalar, ScalarType, Value};
use chrono::DateTime as Calendar;
use entity::{
    money::{Amount, format_micros},
    time::{Timestamp, format_duration, parse_duration, plain_number},
};

use crate::store::Cursor;

/// Milli-points, and basis points, in one point of 0 to 100.
const MILLI: u32 = 1_000;
const BASIS: u32 = 100;

/// Says that a value was not understood, in a way that clients can branch on.
fn refuse<T: InputType>(why: impl std::fmt::Display) -> InputValueError<T> {
    InputValueError::custom(why).with_extension("code", "BAD_USER_INPUT").with_extension("retryable", false)
}

/// The text of a string value.
fn text<T: InputType>(value: Value, example: &str) -> Result<String, InputValueError<T>> {
    match value {
        Value::String(text) => Ok(text),
        Value::Null
        | Value::Number(_)
        | Value::Boolean(_)
        | Value::Binary(_)
        | Value::Enum(_)
        | Value::List(_)
        | Value::Object(_) => Err(refuse(format!("must be a string such as {example:?}"))),
    }
}

/// An amount of credits that is not negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Credits(pub Amount);

/// An amount of credits: an exact decimal number in a string, with at most 6 digits behind the point and without sign,
/// exponent or spaces, for example `"12.5"`. At most 1000000000. Numbers are not accepted, because they lose precision in many
/// clients.
#[Scalar(specified_by_url = "https://www.w3.org/TR/xmlschema11-2/#decimal")]
impl ScalarType for Credits {
    fn parse(value: Value) -> InputValueResult<Self> {
        text(value, "12.5")?.parse().map(Self).map_err(refuse)
    }

    fn to_value(&self) -> Value {
        Value::String(format_micros(self.0.micros()))
    }
}

/// Credits of either sign, in micro-credits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SignedCredits(pub i64);

/// Credits of either sign: an exact decimal number in a string with at most 6 digits behind the point, for example `"-0.25"`.
#[Scalar(specified_by_url = "https://www.w3.org/TR/xmlschema11-2/#decimal")]
impl ScalarType for SignedCredits {
    fn parse(value: Value) -> InputValueResult<Self> {
        let text = text(value, "-0.25")?;
        let (sign, digits) = text.strip_prefix('-').map_or((1, text.as_str()), |digits| (-1, digits));
        let amount: Amount = digits.parse().map_err(refuse)?;
        amount.micros().checked_mul(sign).map(Self).ok_or_else(|| refuse("is too large"))
    }

    fn to_value(&self) -> Value {
        Value::String(format_micros(self.0))
    }
}

/// A whole number that may pass 2³¹.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BigInt(pub i64);

/// A whole number of up to 64 bits in a string, for example `"9007199254740993"`: `Int` has 32 bits, and JSON numbers lose
/// precision above 2⁵³.
#[Scalar(specified_by_url = "https://www.w3.org/TR/xmlschema11-2/#long")]
impl ScalarType for BigInt {
    fn parse(value: Value) -> InputValueResult<Self> {
        let text = text(value, "9007199254740993")?;
        let number: i64 = text.parse().map_err(refuse)?;
        if number.to_string() == text {
            Ok(Self(number))
        } else {
            Err(refuse("must be a whole number in plain digits"))
        }
    }

    fn to_value(&self) -> Value {
        Value::String(self.0.to_string())
    }
}

/// An instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DateTime(pub Timestamp);

/// An instant as in RFC 3339, for example `"2026-01-02T03:04:05.000006Z"`. Answers are in UTC with microseconds; any offset is
/// accepted.
#[Scalar(specified_by_url = "https://www.rfc-editor.org/rfc/rfc3339#section-5.6")]
impl ScalarType for DateTime {
    fn parse(value: Value) -> InputValueResult<Self> {
        let text = text(value, "2026-01-02T03:04:05Z")?;
        let instant = Calendar::parse_from_rfc3339(&text).map_err(|_| refuse("must be an instant as in RFC 3339"))?;
        Ok(Self(Timestamp::from_micros(instant.timestamp_micros())))
    }

    fn to_value(&self) -> Value {
        Value::String(self.0.to_string())
    }
}

/// A length of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Duration(pub Span);

impl Duration {
    /// From a column in milliseconds; a negative one counts as nothing.
    pub(super) fn from_millis(millis: i64) -> Self {
        Self(Span::from_millis(u64::try_from(millis).unwrap_or(0)))
    }

    /// From a column in microseconds; a negative one counts as nothing.
    pub(super) fn from_micros(micros: i64) -> Self {
        Self(Span::from_micros(u64::try_from(micros).unwrap_or(0)))
    }
}

/// A length of time as in ISO 8601, of days, hours, minutes and seconds: `"PT30S"`, `"PT1.5S"`, `"P1DT2H"`. Weeks, months and
/// years are not accepted; seconds may have up to 6 digits behind the point.
#[Scalar(specified_by_url = "https://www.rfc-editor.org/rfc/rfc3339#appendix-A")]
impl ScalarType for Duration {
    fn parse(value: Value) -> InputValueResult<Self> {
        let text = text(value, "PT30S")?;
        parse_duration(&text).map(Self).ok_or_else(|| {
            refuse("must be a duration of days, hours, minutes and seconds as in ISO 8601, for example \"PT30S\"")
        })
    }

    fn to_value(&self) -> Value {
        Value::String(format_duration(self.0))
    }
}

/// A JSON document.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Json(pub serde_json::Value);

/// Any JSON value: the input and the output of a task, and JSON Schemas.
#[Scalar(name = "JSON", specified_by_url = "https://www.rfc-editor.org/rfc/rfc8259")]
impl ScalarType for Json {
    fn parse(value: Value) -> InputValueResult<Self> {
        value.into_json().map(Self).map_err(refuse)
    }

    fn to_value(&self) -> Value {
        Value::from_json(self.0.clone()).unwrap_or(Value::Null)
    }
}

/// A place in the event log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EventCursor(pub Cursor);

/// A place in the event log: opaque, and usable wherever events are read or followed. Keep the cursor of the last event that you
/// handled and give it as `after` to go on behind it.
#[Scalar(specified_by_url = "https://www.rfc-editor.org/rfc/rfc4648#section-5")]
impl ScalarType for EventCursor {
    fn parse(value: Value) -> InputValueResult<Self> {
        text(value, "ZTEuMC40Mg")?.parse().map(Self).map_err(refuse)
    }

    fn to_value(&self) -> Value {
        Value::String(self.0.to_string())
    }
}

/// A score or a reputation in milli-points, 0 to 100,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Points(pub i32);

impl Points {
    /// From basis points of 10,000.
    pub(super) fn from_basis(basis_points: i32) -> Self {
        Self(basis_points.saturating_mul(10))
    }
}

/// A number of points from 0 to 100, exact: a decimal number in a string with at most 3 digits behind the point, for example
/// `"87.412"`. Whole numbers are also accepted as `Int`.
#[Scalar(specified_by_url = "https://www.w3.org/TR/xmlschema11-2/#decimal")]
impl ScalarType for Points {
    fn parse(value: Value) -> InputValueResult<Self> {
        hundred(&value, MILLI, "87.412").map(Self)
    }

    fn to_value(&self) -> Value {
        Value::String(fixed(self.0, MILLI))
    }
}

/// A share in basis points, 0 to 10,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Percentage(pub i32);

/// A share in percent from 0 to 100, exact: a decimal number in a string with at most 2 digits behind the point, for example
/// `"40"` or `"33.33"`. Whole numbers are also accepted as `Int`.
#[Scalar(specified_by_url = "https://www.w3.org/TR/xmlschema11-2/#decimal")]
impl ScalarType for Percentage {
    fn parse(value: Value) -> InputValueResult<Self> {
        hundred(&value, BASIS, "33.33").map(Self)
    }

    fn to_value(&self) -> Value {
        Value::String(fixed(self.0, BASIS))
    }
}

/// A decimal number of `scale` parts, without trailing zeros.
fn fixed(parts: i32, scale: u32) -> String {
    let places = usize::try_from(scale.ilog10()).unwrap_or(0);
    let sign = if parts < 0 { "-" } else { "" };
    let (whole, fraction) = (parts.unsigned_abs() / scale, parts.unsigned_abs() % scale);
    if fraction == 0 {
        return format!("{sign}{whole}");
    }
    let digits = format!("{fraction:0places$}");
    format!("{sign}{whole}.{}", digits.trim_end_matches('0'))
}

/// Reads a number from 0 to 100 in whole parts of `scale`.
fn hundred<T: InputType>(value: &Value, scale: u32, example: &str) -> Result<i32, InputValueError<T>> {
    let parts = match value {
        Value::Number(number) => number.as_u64().and_then(|whole| whole.checked_mul(scale.into())),
        Value::String(text) => decimal(text, scale),
        Value::Null | Value::Boolean(_) | Value::Binary(_) | Value::Enum(_) | Value::List(_) | Value::Object(_) => None,
    };
    parts
        .filter(|parts| *parts <= u64::from(scale) * 100)
        .and_then(|parts| i32::try_from(parts).ok())
        .ok_or_else(|| refuse(format!("must be a number from 0 to 100 such as {example:?}")))
}

/// A plain decimal number in whole parts of `scale`.
fn decimal(text: &str, scale: u32) -> Option<u64> {
    let places = usize::try_from(scale.ilog10()).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let leading_zero = whole.len() > 1 && whole.starts_with('0');
    if leading_zero || fraction.len() > places {
        return None;
    }
    plain_number(fraction)?;
    let fraction = plain_number(&format!("{fraction:0<places$}"))?;
    plain_number(whole)?.checked_mul(scale.into())?.checked_add(fraction)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read<T: ScalarType>(value: impl Into<Value>) -> Option<T> {
        <T as ScalarType>::parse(value.into()).ok()
    }

    fn write(value: &impl ScalarType) -> Value {
        ScalarType::to_value(value)
    }

    #[test]
    fn durations_are_read_strictly_and_written_in_one_way() {
        for (text, micros) in [
            ("PT0S", 0),
            ("PT30S", 30_000_000),
            ("PT1.5S", 1_500_000),
            ("PT0.000001S", 1),
            ("PT1M", 60_000_000),
            ("PT1H30M", 5_400_000_000),
            ("P1D", 86_400_000_000),
            ("P1DT2H0.25S", 93_600_250_000),
        ] {
            assert_eq!(parse_duration(text), Some(Span::from_micros(micros)), "{text}");
            assert_eq!(format_duration(Span::from_micros(micros)), text);
        }
        for bad in [
            "",
            "P",
            "PT",
            "P1",
            "P1W",
            "P1Y",
            "P1M",
            "-PT1S",
            "PT-1S",
            "PT1S1M",
            "PT1M1M",
            "PT1",
            "pt1s",
            "PT1,5S",
            "PT.5S",
            "PT1.S",
            "PT0.0000001S",
            "PT 1S",
            "P1DT",
            "PT1H1D",
            "P36526D",
            "PT99999999999999999999S",
            "PT1.5M",
        ] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn points_and_percentages_are_exact() {
        assert_eq!(read("87.412"), Some(Points(87_412)));
        assert_eq!(read("33.33"), Some(Percentage(3_333)));
        assert_eq!(read(100), Some(Points(100_000)));
        assert_eq!(write(&Points(50_500)), Value::from("50.5"));
        assert_eq!(write(&Percentage(4_000)), Value::from("40"));
        for bad in ["", "-1", "100.001", "1.0000", "01", ".5", "5.", "1e1", "101"] {
            assert_eq!(read::<Points>(bad), None, "{bad}");
        }
        assert_eq!(read::<Percentage>(101), None);
        assert_eq!(read::<Percentage>(40.5), None);
        assert_eq!(read::<Percentage>("33.333"), None);
    }

    #[test]
    fn money_is_a_string_and_nothing_else() {
        assert_eq!(read::<Credits>("12.5").map(|credits| credits.0.micros()), Some(12_500_000));
        assert_eq!(read::<Credits>(12), None);
        assert_eq!(read::<Credits>(Value::Null), None);
        assert_eq!(read::<Credits>("-1"), None);
        assert_eq!(read("-0.25"), Some(SignedCredits(-250_000)));
        assert_eq!(read::<SignedCredits>("--1"), None);
        assert_eq!(write(&SignedCredits(-250_000)), Value::from("-0.25"));
    }

    #[test]
    fn instants_of_any_offset_become_utc() {
        let instant: DateTime = read("2026-01-02T05:04:05.000006+02:00").unwrap();
        assert_eq!(write(&instant), Value::from("2026-01-02T03:04:05.000006Z"));
        assert_eq!(read::<DateTime>("2026-01-02"), None);
    }

    #[test]
    fn big_numbers_have_one_spelling() {
        assert_eq!(read("9007199254740993"), Some(BigInt(9_007_199_254_740_993)));
        for bad in ["01", "+1", "1.0", "", "-0"] {
            assert_eq!(read::<BigInt>(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_duration_round_trips(micros in 0..3_155_760_000_000_000_u64) {
            let span = Span::from_micros(micros);
            prop_assert_eq!(parse_duration(&format_duration(span)), Some(span));
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = parse_duration(&text);
            let _ = decimal(&text, MILLI);
            let _ = read::<EventCursor>(text);
        }
    }
}
