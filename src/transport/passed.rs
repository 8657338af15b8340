//! Operations that passed validation: asked for again, they are not validated again.
//!
//! What validation says of an operation depends on its document, on which operation of it is meant, and on the values of the
//! variables as far as types go: an argument that is a variable is held against the type of the argument. So what is kept is a hash of
//! the document's hash, the operation's name, and the shape of the variables: which there are, and of each value its kind, all the way
//! down. Two strings have the same shape unless one of them is the name of a value of an enumeration, since those have types. What an
//! operation costs depends on more than the shape, and is reckoned every time.
//!
//! An operation passed when it was answered without any error; it then goes to a second copy of the schema, whose executor does all
//! but the validation.

use std::collections::HashSet;

use async_graphql::{
    Value, Variables,
    parser::{
        parse_schema,
        types::{TypeKind, TypeSystemDefinition},
    },
};
use moka::sync::Cache;
use sha2::{Digest, Sha256};

use crate::{
    error::{Error, Result},
    graphql::Schema,
};

/// How many operations are remembered.
const KEPT: u64 = 4_096;

/// The operations that passed. Cheap to clone.
#[derive(Clone)]
pub(super) struct Passed {
    schema: Schema,
    shapes: Shapes,
    seen: Cache<Key, ()>,
}

/// What says how a validation goes.
pub(super) type Key = [u8; 32];

impl Passed {
    /// Nothing passed yet. `schema` is the one that does not validate, and `sdl` its text.
    pub(super) fn new(schema: Schema, sdl: &str) -> Result<Self> {
        Ok(Self { schema, shapes: Shapes::of(sdl)?, seen: Cache::new(KEPT) })
    }

    /// The key of an operation in a document with this hash.
    pub(super) fn key(&self, document: &[u8; 32], operation: Option<&str>, variables: &Variables) -> Key {
        self.shapes.key(document, operation, variables)
    }

    /// The schema for an operation that passed before.
    pub(super) fn schema_for(&self, key: &Key) -> Option<&Schema> {
        self.seen.contains_key(key).then_some(&self.schema)
    }

    /// Remembers that an operation passed.
    pub(super) fn remember(&self, key: Key) {
        self.seen.insert(key, ());
    }
}

/// What tells strings apart: the names of the values of all enumerations.
#[derive(Clone, Debug, Default)]
struct Shapes {
    names: std::sync::Arc<HashSet<String>>,
}

impl Shapes {
    fn of(sdl: &str) -> Result<Self> {
        let mut names = HashSet::new();
        for definition in parse_schema(sdl).map_err(Error::internal)?.definitions {
            if let TypeSystemDefinition::Type(definition) = definition
                && let TypeKind::Enum(of) = definition.node.kind
            {
                names.extend(of.values.into_iter().map(|value| value.node.value.node.to_string()));
            }
        }
        Ok(Self { names: names.into() })
    }

    fn key(&self, document: &[u8; 32], operation: Option<&str>, variables: &Variables) -> Key {
        let mut hash = Sha256::new();
        hash.update(document);
        text(&mut hash, operation.unwrap_or_default());
        for (name, value) in variables.iter() {
            text(&mut hash, name);
            self.shape(&mut hash, value);
        }
        hash.finalize().into()
    }

    fn shape(&self, hash: &mut Sha256, value: &Value) {
        match value {
            Value::Null => hash.update(b"0"),
            Value::Boolean(_) => hash.update(b"b"),
            Value::Binary(_) => hash.update(b"x"),
            Value::Number(number) if number.is_i64() => {
                hash.update(if number.is_u64() { b"u" } else { b"i" });
            }
            Value::Number(number) => hash.update(if number.is_u64() { b"l" } else { b"f" }),
            Value::String(string) if self.names.contains(string) => {
                hash.update(b"n");
                text(hash, string);
            }
            Value::String(_) => hash.update(b"s"),
            Value::Enum(name) => {
                hash.update(b"e");
                text(hash, name);
            }
            Value::List(items) => {
                hash.update(b"[");
                for item in items {
                    self.shape(hash, item);
                }
                hash.update(b"]");
            }
            Value::Object(fields) => {
                hash.update(b"{");
                for (name, value) in fields {
                    text(hash, name);
                    self.shape(hash, value);
                }
                hash.update(b"}");
            }
        }
    }
}

/// A text with its length, so that what follows cannot be taken for more of it.
fn text(hash: &mut Sha256, text: &str) {
    hash.update(u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
    hash.update(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_validation_can_tell_apart_has_another_key() {
        let shapes = Shapes::of("enum Way { UP DOWN } type Query { a(way: Way): Int }").unwrap();
        let key = |document: u8, name: Option<&str>, variables| {
            shapes.key(&[document; 32], name, &Variables::from_json(variables))
        };
        let base = key(1, Some("A"), json!({ "id": "x", "n": 1, "way": "UP", "in": { "to": ["a"] } }));
        for same in [
            json!({ "id": "y", "n": 2, "way": "UP", "in": { "to": ["b"] } }),
            json!({ "id": "", "n": 2_147_483_647, "way": "UP", "in": { "to": [""] } }),
        ] {
            assert_eq!(key(1, Some("A"), same.clone()), base, "{same}");
        }
        for other in [
            json!({ "id": "x", "n": 1, "way": "DOWN", "in": { "to": ["a"] } }),
            json!({ "id": "x", "n": 1, "way": "LEFT", "in": { "to": ["a"] } }),
            json!({ "id": "UP", "n": 1, "way": "UP", "in": { "to": ["a"] } }),
            json!({ "id": 1, "n": 1, "way": "UP", "in": { "to": ["a"] } }),
            json!({ "id": "x", "n": 1.5, "way": "UP", "in": { "to": ["a"] } }),
            json!({ "id": "x", "n": -1, "way": "UP", "in": { "to": ["a"] } }),
            json!({ "id": "x", "n": null, "way": "UP", "in": { "to": ["a"] } }),
            json!({ "id": "x", "way": "UP", "in": { "to": ["a"] } }),
            json!({ "id": "x", "n": 1, "way": "UP", "in": { "to": ["a", "b"] } }),
            json!({ "id": "x", "n": 1, "way": "UP", "in": { "to": [["a"]] } }),
            json!({ "id": "x", "n": 1, "way": "UP", "in": { "too": ["a"] } }),
            json!({ "id": "x", "n": 1, "way": "UP", "in": { "to": ["a"], "x": true } }),
        ] {
            assert_ne!(key(1, Some("A"), other.clone()), base, "{other}");
        }
        let variables = json!({ "id": "x", "n": 1, "way": "UP", "in": { "to": ["a"] } });
        assert_ne!(key(2, Some("A"), variables.clone()), base);
        assert_ne!(key(1, Some("B"), variables.clone()), base);
        assert_ne!(key(1, None, variables), base);
    }
}
