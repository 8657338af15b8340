//! Canonical JSON as RFC 8785 defines it: one document has one text, whoever writes it.
//!
//! Documents hold no numbers but whole ones of at most 2⁵³ − 1, so that the part of the RFC about floats never applies: anything
//! else is refused here. What is left is the order of the keys, by their UTF-16 code units, and the escapes of strings, which are
//! those of `serde_json`.

use serde_json::{Number, Value};

/// The largest whole number that every reader of JSON keeps exactly.
const MAX_SAFE: u64 = (1 << 53) - 1;

/// Why a value has no canonical text here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotCanonical {
    /// A fraction, or a whole number that floats cannot hold.
    #[error("the number {0} is not a whole number of at most 2^53 - 1")]
    Number(String),
    /// A string that cannot be written; no string of Rust is one.
    #[error("a string cannot be written as JSON: {0}")]
    String(String),
}

/// The canonical text of a value.
pub fn canonical(value: &Value) -> Result<String, NotCanonical> {
    let mut text = String::new();
    write(value, &mut text, &whole)?;
    Ok(text)
}

/// A text that two values share if and only if they are the same to a reader of JSON: canonical, and with any number. It is for
/// comparing alone: fractions are not written as the RFC has them.
pub fn comparable(value: &Value) -> Result<String, NotCanonical> {
    let mut text = String::new();
    write(value, &mut text, &|number| Ok(any(number)))?;
    Ok(text)
}

/// A whole number that every reader keeps.
fn whole(number: &Number) -> Result<String, NotCanonical> {
    let size = number.as_i64().map(i64::unsigned_abs).or_else(|| number.as_u64());
    if size.is_none_or(|size| size > MAX_SAFE) {
        return Err(NotCanonical::Number(number.to_string()));
    }
    Ok(number.to_string())
}

/// Any number; `1`, `1.0` and `10e-1` are one.
fn any(number: &Number) -> String {
    match number.as_f64() {
        Some(float) if number.is_f64() && float == 0.0 => "0".to_owned(),
        Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < 9.0e15 => format!("{float:.0}"),
        Some(float) if number.is_f64() => format!("{float:e}"),
        Some(_) | None => number.to_string(),
    }
}

fn write(
    value: &Value,
    text: &mut String,
    number_text: &impl Fn(&Number) -> Result<String, NotCanonical>,
) -> Result<(), NotCanonical> {
    match value {
        Value::Null => text.push_str("null"),
        Value::Bool(true) => text.push_str("true"),
        Value::Bool(false) => text.push_str("false"),
        Value::Number(number) => {
            text.push_str(&number_text(number)?);
        }
        Value::String(string) => quote(string, text)?,
        Value::Array(items) => {
            text.push('[');
            for (place, item) in items.iter().enumerate() {
                if place > 0 {
                    text.push(',');
                }
                write(item, text, number_text)?;
            }
            text.push(']');
        }
        Value::Object(fields) => {
            let mut fields: Vec<(&String, &Value)> = fields.iter().collect();
            fields.sort_by(|(one, _), (other, _)| one.encode_utf16().cmp(other.encode_utf16()));
            text.push('{');
            for (place, (key, field)) in fields.into_iter().enumerate() {
                if place > 0 {
                    text.push(',');
                }
                quote(key, text)?;
                text.push(':');
                write(field, text, number_text)?;
            }
            text.push('}');
        }
    }
    Ok(())
}

fn quote(string: &str, text: &mut String) -> Result<(), NotCanonical> {
    let quoted = serde_json::to_string(string).map_err(|error| NotCanonical::String(error.to_string()))?;
    text.push_str(&quoted);
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_readers_take_for_the_same_compares_as_the_same() {
        for (one, other, same) in [
            ("1", "1.0", true),
            ("-0.0", "0", true),
            ("1e2", "100", true),
            ("0.1", "1e-1", true),
            ("1.5", "1.25", false),
            ("9007199254740993", "9007199254740992", false),
            (r#"{"a":1,"b":[2]}"#, r#"{ "b": [2.0], "a": 1 }"#, true),
            (r#""1""#, "1", false),
            ("null", "false", false),
        ] {
            let text = |text: &str| comparable(&serde_json::from_str(text).unwrap()).unwrap();
            assert_eq!(text(one) == text(other), same, "{one} and {other}");
        }
    }

    #[test]
    fn keys_are_sorted_by_utf_16_as_in_section_3_2_3_of_the_rfc() {
        let value: Value = serde_json::from_str(
            r#"{"\u20ac":"Euro Sign","\r":"Carriage Return","\ufb33":"Hebrew Letter Dalet With Dagesh","1":"One",
                "\ud83d\ude00":"Emoji: Grinning Face","\u0080":"Control","\u00f6":"Latin Small Letter O With Diaeresis"}"#,
        )
        .unwrap();
        let sorted = [
            r#"{"\r":"Carriage Return","1":"One","#,
            "\"\u{80}\":\"Control\",",
            r#""ö":"Latin Small Letter O With Diaeresis","€":"Euro Sign","😀":"Emoji: Grinning Face","#,
            "\"\u{fb33}\":\"Hebrew Letter Dalet With Dagesh\"}",
        ];
        assert_eq!(canonical(&value).unwrap(), sorted.concat());
    }

    #[test]
    fn strings_are_escaped_as_in_section_3_2_2_of_the_rfc() {
        let value: Value = serde_json::from_str(r#""\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/""#).unwrap();
        assert_eq!(canonical(&value).unwrap(), r#""€$\u000f\nA'B\"\\\\\"/""#);
        let controls = json!("\u{0}\u{1}\u{8}\t\n\u{b}\u{c}\r\u{1f} \u{7f}");
        assert_eq!(canonical(&controls).unwrap(), "\"\\u0000\\u0001\\b\\t\\n\\u000b\\f\\r\\u001f \u{7f}\"");
    }

    #[test]
    fn literals_nesting_and_whole_numbers_have_no_spaces() {
        let text = r#" { "b" : [ 1 , -7 , null , [ ] ] , "a" : { } , "aa" : false, "ab": true } "#;
        let value: Value = serde_json::from_str(text).unwrap();
        assert_eq!(canonical(&value).unwrap(), r#"{"a":{},"aa":false,"ab":true,"b":[1,-7,null,[]]}"#);
    }

    #[test]
    fn numbers_that_floats_change_are_refused() {
        for safe in [json!(0), json!(9_007_199_254_740_991_u64), json!(-9_007_199_254_740_991_i64)] {
            assert_eq!(canonical(&safe).unwrap(), safe.to_string());
        }
        for other in ["1.5", "1.0", "-0", "1e3", "9007199254740992", "-9007199254740992", "18446744073709551615"] {
            let value: Value = serde_json::from_str(other).unwrap();
            assert!(canonical(&value).is_err(), "{other}");
        }
    }

    proptest! {
        #[test]
        fn reading_the_canonical_text_gives_it_again(keys in prop::collection::vec(".{0,6}", 0..6), text in ".{0,12}") {
            let fields: serde_json::Map<String, Value> =
                keys.into_iter().enumerate().map(|(place, key)| (key, json!([place, text]))).collect();
            let written = canonical(&Value::Object(fields)).unwrap();
            let read: Value = serde_json::from_str(&written).unwrap();
            prop_assert_eq!(canonical(&read).unwrap(), written);
        }
    }
}
