//! Values that are stored as text: lists of short words and JSON documents.

use sea_orm::FromJsonQueryResult;
use serde::{Deserialize, Serialize};

/// A small list of words, stored as a JSON array: capabilities of an agent, scopes of a key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, FromJsonQueryResult)]
#[serde(transparent)]
pub struct Words(pub Vec<String>);

impl Words {
    /// Whether every one of `needed` is in this list.
    #[must_use]
    pub fn contains_all(&self, needed: &Self) -> bool {
        needed.0.iter().all(|word| self.0.contains(word))
    }
}

/// A JSON document kept as the exact text that was hashed; `JSON` columns would reorder it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, sea_orm::DeriveValueType)]
#[serde(transparent)]
pub struct JsonText(pub String);
