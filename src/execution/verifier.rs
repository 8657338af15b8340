//! What makes an output acceptable: JSON, and what the task's schema says. An output that is JSON and only breaks the schema comes
//! along with the fault: a payer who reviews may want it all the same.

use entity::text::JsonText;
use serde_json::Value;

use crate::{
    error::{Error, Result},
    task::{Fault, schema},
};

/// Characters of a schema violation that people are shown.
const MAX_MESSAGE: usize = 500;

/// Checks the bytes that an agent wrote to standard output. `Err` inside is the agent's fault; outside it is ours.
pub fn verify(output: &[u8], output_schema: Option<&JsonText>) -> Result<std::result::Result<JsonText, Fault>> {
    let Ok(text) = std::str::from_utf8(output) else {
        return Ok(Err(fault("OUTPUT_NOT_JSON", "The output is not UTF-8 text.".to_owned())));
    };
    let text = text.trim();
    let value: Value = match serde_json::from_str(text) {
        Ok(value) => value,
        Err(error) => return Ok(Err(fault("OUTPUT_NOT_JSON", format!("The output is not JSON: {error}.")))),
    };
    if let Some(JsonText(output_schema)) = output_schema {
        let output_schema = serde_json::from_str(output_schema)?;
        let validator = schema::compile(&output_schema).map_err(|error| Error::internal(error.to_string()))?;
        if let Err(violation) = validator.validate(&value) {
            let message =
                format!("The output does not satisfy the schema at \"{}\": {violation}", violation.instance_path());
            let fault = fault("OUTPUT_SCHEMA_VIOLATION", message.chars().take(MAX_MESSAGE).collect());
            return Ok(Err(Fault { output: Some(JsonText(text.to_owned())), ..fault }));
        }
    }
    Ok(Ok(JsonText(text.to_owned())))
}

fn fault(code: &str, message: String) -> Fault {
    Fault { code: code.to_owned(), message, of_agent: true, output: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(output: &[u8], output_schema: Option<&str>) -> std::result::Result<String, String> {
        let output_schema = output_schema.map(|text| JsonText(text.to_owned()));
        verify(output, output_schema.as_ref()).unwrap().map(|text| text.0).map_err(|fault| fault.code)
    }

    #[test]
    fn json_that_satisfies_the_schema_is_accepted_as_it_was_written() {
        assert_eq!(verdict(b" {\"b\": 1, \"a\": 2}\n", None), Ok("{\"b\": 1, \"a\": 2}".to_owned()));
        assert_eq!(verdict(b"3", Some(r#"{"type":"integer"}"#)), Ok("3".to_owned()));
    }

    #[test]
    fn anything_else_is_the_agents_fault() {
        for output in [&b""[..], b"hello", b"{\"a\":", b"\xff\xfe", b"1 2"] {
            assert_eq!(verdict(output, None), Err("OUTPUT_NOT_JSON".to_owned()), "{output:?}");
        }
        assert_eq!(verdict(b"\"3\"", Some(r#"{"type":"integer"}"#)), Err("OUTPUT_SCHEMA_VIOLATION".to_owned()));
    }

    #[test]
    fn an_output_that_only_breaks_the_schema_comes_along() {
        let schema = JsonText(r#"{"type":"integer"}"#.to_owned());
        let fault = verify(b" \"3\" ", Some(&schema)).unwrap().unwrap_err();
        assert_eq!(fault.output, Some(JsonText("\"3\"".to_owned())));
        assert_eq!(verify(b"three", Some(&schema)).unwrap().unwrap_err().output, None);
    }
}
