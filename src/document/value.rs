//! Values as documents spell them. Money, large numbers, ids, instants and hashes are text with exactly one spelling; the numbers
//! that stay numbers are small and whole.

use std::{fmt, str::FromStr};

use chrono::{DateTime, Utc};
use entity::time::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest as _, Sha256};

/// A value that is written as text. Reading refuses every spelling but the one that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text<T>(pub T);

impl<T: fmt::Display> fmt::Display for Text<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<T: fmt::Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de, T: fmt::Display + FromStr> Deserialize<'de> for Text<T>
where
    T::Err: fmt::Display,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let value: T = text.parse().map_err(|error| de::Error::custom(format!("{text:?} {error}")))?;
        if value.to_string() != text {
            return Err(de::Error::custom(format!("{text:?} must be spelled {:?}", value.to_string())));
        }
        Ok(Self(value))
    }
}

/// An instant, spelled in RFC 3339 in UTC with six digits behind the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(pub Timestamp);

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Instant {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = DateTime::parse_from_rfc3339(text).map_err(|_| "is not an instant in RFC 3339")?;
        Ok(Self(read.with_timezone(&Utc).into()))
    }
}

impl Instant {
    /// An instant as documents hold it.
    #[must_use]
    pub fn text(at: Timestamp) -> Text<Self> {
        Text(Self(at))
    }
}

/// Bytes, spelled in lower-case hex.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hex<const N: usize>(pub [u8; N]);

/// A SHA-256.
pub type Digest = Hex<32>;
/// An Ed25519 public key.
pub type PublicKey = Hex<32>;
/// An Ed25519 signature.
pub type Signature = Hex<64>;

/// The SHA-256 of some bytes.
#[must_use]
pub fn sha256(bytes: &[u8]) -> Digest {
    Hex(Sha256::digest(bytes).into())
}

impl<const N: usize> fmt::Display for Hex<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl<const N: usize> FromStr for Hex<N> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; N];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| format!("is not {N} bytes of hex"))?;
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use entity::money::Amount;

    use super::*;

    #[test]
    fn every_value_has_one_spelling() {
        let amount = |text: &str| serde_json::from_str::<Text<Amount>>(text).is_ok();
        assert!(amount("\"12.5\""));
        for other in ["\"12.50\"", "\"012.5\"", "12.5", "\"-1\"", "null"] {
            assert!(!amount(other), "{other}");
        }
        let instant = |text: &str| serde_json::from_str::<Text<Instant>>(text).is_ok();
        assert!(instant("\"2026-11-23T12:00:00.000000Z\""));
        for other in ["\"2026-11-23T12:00:00Z\"", "\"2026-11-23T13:00:00.000000+01:00\"", "\"yesterday\""] {
            assert!(!instant(other), "{other}");
        }
        let digest = |text: &str| serde_json::from_value::<Text<Digest>>(text.into()).is_ok();
        assert!(digest(&"0a".repeat(32)));
        assert!(!digest(&"0A".repeat(32)));
        assert!(!digest("0a"));
    }
}
