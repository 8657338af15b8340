//! What makes an output acceptable: JSON, what the task's schema says, and what the task's checker says, in this order. An output
//! that is JSON and breaks the schema or fails the check comes along with the fault: a payer who reviews may want it all the same.
//!
//! A checker is the module of a hosted agent. It gets one JSON value, `{"input": …, "output": …}`, and answers another one,
//! `{"pass": true}` or `{"pass": false, "reason": "…"}`, where the reason may be there in both. A checker that crashes, does not
//! end or answers anything else could not say. Then nothing is known about the work: the agent is not to blame, and the payer,
//! who named the checker, neither pays nor gets the output. If the output came along, a checker that breaks on purpose would buy
//! work for nothing; if the price were paid, one that breaks by accident would pay for anything.

use bytes::Bytes;
use entity::text::JsonText;
use serde::Deserialize;
use serde_json::Value;

use super::sandbox;
use crate::{
    error::{Error, Result},
    task::{Check, Fault, schema},
};

/// Characters of a schema violation, and of a checker's reason, that people are shown.
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

/// What the verifiers say of an output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The output that they accept, or the fault.
    pub outcome: std::result::Result<JsonText, Fault>,
    /// What the checker said, if there is one and it came to a word.
    pub check: Option<Check>,
}

/// What a checker is asked about an output, given the text of the task's input.
#[must_use]
pub fn question(input: &[u8], output: &JsonText) -> Bytes {
    [br#"{"input":"#, input, br#","output":"#, output.0.as_bytes(), b"}"].concat().into()
}

/// What a checker answers.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    pass: bool,
    reason: Option<String>,
}

/// Judges an output by what came of the run of its checker.
#[must_use]
pub fn by_checker(output: JsonText, answered: std::result::Result<Bytes, sandbox::Fault>) -> Judgement {
    let answer = answered.map_err(|fault| fault.to_string()).and_then(|answer| {
        let read = serde_json::from_slice::<Answer>(&answer);
        read.map_err(|_| "the checker did not answer {\"pass\": true or false, \"reason\": text}".to_owned())
    });
    let Answer { pass, reason } = match answer {
        Ok(answer) => answer,
        Err(why) => {
            let why = why.replacen("the agent", "the checker", 1);
            let message =
                format!("The checker that the requester named could not say whether the output is good: {why}.");
            let fault = Fault { of_agent: false, ..fault("CHECKER_FAILED", message) };
            return Judgement { outcome: Err(fault), check: None };
        }
    };
    let reason = reason.map(|reason| readable(&reason)).filter(|reason| !reason.is_empty());
    let outcome = if pass {
        Ok(output)
    } else {
        let message = match &reason {
            Some(reason) => format!("The checker refused the output: {reason}"),
            None => "The checker refused the output.".to_owned(),
        };
        Err(Fault { output: Some(output), ..fault("CHECK_FAILED", message) })
    };
    Judgement { outcome, check: Some(Check { passed: pass, reason }) }
}

/// The beginning of a stranger's text, without what no database or terminal should see.
fn readable(text: &str) -> String {
    let shown = |letter: &char| !letter.is_control() || matches!(letter, '\n' | '\t');
    text.trim().chars().filter(shown).take(MAX_MESSAGE).collect()
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

    fn check(answer: &str) -> Judgement {
        by_checker(JsonText("7".to_owned()), Ok(Bytes::copy_from_slice(answer.as_bytes())))
    }

    #[test]
    fn a_checker_decides_and_says_why() {
        let reason = Some("all primes".to_owned());
        let passed = check(r#" {"pass": true, "reason": " all primes\u0000 "} "#);
        assert_eq!(
            passed,
            Judgement { outcome: Ok(JsonText("7".to_owned())), check: Some(Check { passed: true, reason }) }
        );
        let refused = check(r#"{"pass": false, "reason": "too small"}"#);
        assert_eq!(refused.check, Some(Check { passed: false, reason: Some("too small".to_owned()) }));
        let fault = refused.outcome.unwrap_err();
        assert_eq!((fault.code.as_str(), fault.of_agent), ("CHECK_FAILED", true));
        assert_eq!(fault.message, "The checker refused the output: too small");
        assert_eq!(fault.output, Some(JsonText("7".to_owned())));
        let long = check(&format!(r#"{{"pass": false, "reason": "{}"}}"#, "é".repeat(10_000)));
        assert_eq!(long.check.unwrap().reason.unwrap().chars().count(), MAX_MESSAGE);
    }

    #[test]
    fn a_checker_that_cannot_say_blames_nobody_and_hands_nothing_out() {
        let crashed = by_checker(JsonText("7".to_owned()), Err(sandbox::Fault::OutOfFuel));
        let rubbish =
            ["", "true", "{}", r#"{"pass": 1}"#, r#"{"pass": true, "score": 3}"#, r#"{"pass": true, "reason": 3}"#];
        for judgement in rubbish.map(check).into_iter().chain([crashed]) {
            assert_eq!(judgement.check, None);
            let fault = judgement.outcome.unwrap_err();
            assert_eq!((fault.code.as_str(), fault.of_agent, fault.output), ("CHECKER_FAILED", false, None));
        }
        assert_eq!(question(b"[1]", &JsonText("{}".to_owned())), r#"{"input":[1],"output":{}}"#);
    }

    #[test]
    fn an_output_that_only_breaks_the_schema_comes_along() {
        let schema = JsonText(r#"{"type":"integer"}"#.to_owned());
        let fault = verify(b" \"3\" ", Some(&schema)).unwrap().unwrap_err();
        assert_eq!(fault.output, Some(JsonText("\"3\"".to_owned())));
        assert_eq!(verify(b"three", Some(&schema)).unwrap().unwrap_err().output, None);
    }
}
