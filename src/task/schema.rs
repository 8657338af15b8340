//! JSON Schemas that a task's output must satisfy. Nothing is fetched: a schema stands alone.

use jsonschema::{PatternOptions, Validator};
use serde_json::Value;

use crate::error::{Error, Result};

/// Bytes of a schema at most.
const MAX_SCHEMA_BYTES: usize = 64 * 1024;

/// Compiles a schema; its patterns run in linear time.
pub fn compile(schema: &Value) -> Result<Validator> {
    if schema.to_string().len() > MAX_SCHEMA_BYTES {
        return Err(Error::invalid("outputSchema", "must be at most 64 KiB"));
    }
    jsonschema::options()
        .with_pattern_options(PatternOptions::regex())
        .build(schema)
        .map_err(|error| Error::invalid("outputSchema", format!("is not a usable JSON Schema: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_schema_that_points_elsewhere_is_refused_and_not_fetched() {
        assert!(compile(&json!({"$ref": "http://127.0.0.1:1/schema.json"})).is_err());
        assert!(compile(&json!({"$ref": "file:///etc/passwd"})).is_err());
    }

    #[test]
    fn nonsense_is_refused() {
        for schema in [json!({"type": "nothing"}), json!(3), json!({"pattern": "("})] {
            assert!(compile(&schema).is_err(), "{schema}");
        }
        assert!(compile(&json!(true)).is_ok());
    }
}
