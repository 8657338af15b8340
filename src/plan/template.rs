//! How outputs become inputs. A template is JSON in which an object `{"$ref": "NAME#/json/pointer"}` stands for a value: of the
//! input of the whole (`input`), of its goal (`goal`), or of the output of a step, by its name. `{"$ref": …, "default": …}` has a
//! value for when there is none. `{"$literal": …}` stands for what is in it, as it is.
//!
//! What was put in is never read as a template again, so an agent cannot reach further than its own output. What comes out is
//! measured while it is made: a template that would grow too large is given up before it has.

use serde_json::{Map, Value};

use super::rules::{Flaw, PlanRefused};

/// How deep a template may be nested.
const MAX_NESTING: usize = 32;
/// How deep what comes out may be nested: what JSON readers take, and a little less.
const MAX_RESULT_NESTING: usize = 100;

/// One reference in a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference<'a> {
    /// `input`, `goal` or the name of a step.
    pub name: &'a str,
    /// The JSON Pointer into it; empty for all of it.
    pub pointer: &'a str,
    /// What stands in for it when there is nothing.
    pub default: Option<&'a Value>,
}

/// What an object of a template stands for.
enum Form<'a> {
    Reference(Reference<'a>),
    Literal(&'a Value),
    Object(&'a Map<String, Value>),
}

fn form(object: &Map<String, Value>) -> Result<Form<'_>, Flaw> {
    let (reference, literal) = (object.get("$ref"), object.get("$literal"));
    match (reference, literal) {
        (None, None) => Ok(Form::Object(object)),
        (None, Some(literal)) if object.len() == 1 => Ok(Form::Literal(literal)),
        (Some(Value::String(text)), None) => {
            let default = object.get("default");
            if object.len() != 1 + usize::from(default.is_some()) {
                return Err(unresolved(text, "has something beside it other than a default"));
            }
            let (name, pointer) = text.split_once('#').unwrap_or((text, ""));
            if !(pointer.is_empty() || pointer.starts_with('/')) {
                return Err(unresolved(text, "is not a name, or a name, # and a JSON Pointer"));
            }
            Ok(Form::Reference(Reference { name, pointer, default }))
        }
        (Some(other), None) => Err(unresolved(&other.to_string(), "is not a text")),
        (None | Some(_), Some(_)) => Err(unresolved("$literal", "has something beside it")),
    }
}

fn unresolved(what: &str, why: &str) -> Flaw {
    let what: String = what.chars().take(100).collect();
    PlanRefused::ReferenceUnresolved.at(format!("{what} {why}"))
}

fn too_large(why: &str) -> Flaw {
    PlanRefused::TemplateTooLarge.at(why.to_owned())
}

/// All references of a template.
pub fn references(template: &Value) -> Result<Vec<Reference<'_>>, Flaw> {
    let mut found = Vec::new();
    collect(template, 0, &mut found)?;
    Ok(found)
}

fn collect<'a>(template: &'a Value, depth: usize, found: &mut Vec<Reference<'a>>) -> Result<(), Flaw> {
    if depth > MAX_NESTING {
        return Err(too_large("it is nested too deep"));
    }
    match template {
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
        Value::Array(items) => items.iter().try_for_each(|item| collect(item, depth.saturating_add(1), found)),
        Value::Object(object) => match form(object)? {
            Form::Reference(reference) => {
                found.push(reference);
                Ok(())
            }
            Form::Literal(_) => Ok(()),
            Form::Object(fields) => {
                fields.values().try_for_each(|field| collect(field, depth.saturating_add(1), found))
            }
        },
    }
}

/// The input of a step that has no template: the input of the whole where it waits for nothing, the output of the one step that it
/// waits for, or an object of the outputs of all of them by their names.
#[must_use]
pub fn usual(names: &[String]) -> Value {
    let reference = |name: &str| serde_json::json!({ "$ref": name, "default": null });
    match names {
        [] => serde_json::json!({ "$ref": "input" }),
        [one] => reference(one),
        [..] => Value::Object(names.iter().map(|name| (name.clone(), reference(name))).collect()),
    }
}

/// Puts values in. `values` knows what a name stands for, if there is anything; `room` is how many bytes of compact JSON may come out.
pub fn expand<'v>(template: &Value, values: &impl Fn(&str) -> Option<&'v Value>, room: usize) -> Result<Value, Flaw> {
    let mut left = room;
    fill(template, values, 0, &mut left)
}

fn fill<'v>(
    template: &Value,
    values: &impl Fn(&str) -> Option<&'v Value>,
    depth: usize,
    left: &mut usize,
) -> Result<Value, Flaw> {
    if depth > MAX_NESTING {
        return Err(too_large("it is nested too deep"));
    }
    let deeper = depth.saturating_add(1);
    match template {
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => put(template, depth, left),
        Value::Array(items) => {
            take(items.len().saturating_add(2), left)?;
            items.iter().map(|item| fill(item, values, deeper, left)).collect::<Result<_, _>>().map(Value::Array)
        }
        Value::Object(object) => match form(object)? {
            Form::Literal(literal) => put(literal, depth, left),
            Form::Reference(reference) => {
                let whole = values(reference.name);
                let value = whole.and_then(|whole| whole.pointer(reference.pointer)).or(reference.default);
                let text = || format!("{}#{}", reference.name, reference.pointer);
                put(value.ok_or_else(|| unresolved(&text(), "leads to nothing"))?, depth, left)
            }
            Form::Object(fields) => {
                take(2, left)?;
                let field = |(key, field): (&String, &Value)| {
                    take(key.len().saturating_add(4), left)?;
                    Ok((key.clone(), fill(field, values, deeper, left)?))
                };
                fields.iter().map(field).collect::<Result<_, _>>().map(Value::Object)
            }
        },
    }
}

/// A value as it is, once it is known that there is room for it.
fn put(value: &Value, depth: usize, left: &mut usize) -> Result<Value, Flaw> {
    measure(value, depth, left)?;
    Ok(value.clone())
}

fn measure(value: &Value, depth: usize, left: &mut usize) -> Result<(), Flaw> {
    if depth > MAX_RESULT_NESTING {
        return Err(too_large("what it gives is nested too deep"));
    }
    let deeper = depth.saturating_add(1);
    match value {
        Value::Null | Value::Bool(_) => take(4, left),
        Value::Number(number) => take(number.to_string().len(), left),
        Value::String(text) => take(text.len().saturating_add(2), left),
        Value::Array(items) => {
            take(items.len().saturating_add(2), left)?;
            items.iter().try_for_each(|item| measure(item, deeper, left))
        }
        Value::Object(fields) => {
            take(2, left)?;
            fields.iter().try_for_each(|(key, field)| {
                take(key.len().saturating_add(4), left)?;
                measure(field, deeper, left)
            })
        }
    }
}

fn take(bytes: usize, left: &mut usize) -> Result<(), Flaw> {
    *left = left.checked_sub(bytes).ok_or_else(|| too_large("what it gives is too large"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn with(template: &Value, room: usize) -> Result<Value, PlanRefused> {
        let (input, a) = (json!({ "text": "hello", "n": [1, 2] }), json!({ "words": 2, "next": { "$ref": "input" } }));
        let goal = json!("count");
        let values = |name: &str| match name {
            "input" => Some(&input),
            "goal" => Some(&goal),
            "a" => Some(&a),
            _ => None,
        };
        expand(template, &values, room).map_err(|flaw| flaw.refused)
    }

    #[test]
    fn references_become_values_and_the_rest_stays() {
        for (template, expected) in [
            (json!({ "$ref": "input#/text" }), json!("hello")),
            (
                json!({ "x": [{ "$ref": "input#/n/1" }, 7, null], "g": { "$ref": "goal" } }),
                json!({ "x": [2, 7, null], "g": "count" }),
            ),
            (json!({ "$ref": "a#/words", "default": 9 }), json!(2)),
            (json!({ "$ref": "a#/missing", "default": 9 }), json!(9)),
            (json!({ "$ref": "skipped", "default": null }), json!(null)),
            (json!({ "$literal": { "$ref": "input" } }), json!({ "$ref": "input" })),
            // What an agent gave is not a template.
            (json!({ "$ref": "a#/next" }), json!({ "$ref": "input" })),
        ] {
            assert_eq!(with(&template, 1_000), Ok(expected), "{template}");
        }
    }

    #[test]
    fn what_leads_nowhere_is_refused() {
        for template in [
            json!({ "$ref": "input#/missing" }),
            json!({ "$ref": "nobody" }),
            json!({ "$ref": "input#text" }),
            json!({ "$ref": 3 }),
            json!({ "$ref": "input", "more": 1 }),
            json!({ "$literal": 1, "$ref": "input" }),
            json!({ "$literal": 1, "more": 1 }),
        ] {
            assert_eq!(with(&template, 1_000), Err(PlanRefused::ReferenceUnresolved), "{template}");
        }
    }

    #[test]
    fn a_bomb_is_given_up_before_it_goes_off() {
        let big = json!("x".repeat(100_000));
        let values = |_: &str| Some(&big);
        let bomb = Value::Array(vec![json!({ "$ref": "a" }); 100_000]);
        let flaw = expand(&bomb, &values, 256 * 1024).unwrap_err();
        assert_eq!(flaw.refused, PlanRefused::TemplateTooLarge);
        let deep = (0..40).fold(json!(1), |inner, _| json!([inner]));
        assert_eq!(with(&deep, 1_000), Err(PlanRefused::TemplateTooLarge));
        assert_eq!(references(&deep).unwrap_err().refused, PlanRefused::TemplateTooLarge);
        let deep = (0..120).fold(json!(1), |inner, _| json!([inner]));
        assert_eq!(with(&json!({ "$literal": deep }), 1_000), Err(PlanRefused::TemplateTooLarge));
    }

    #[test]
    fn what_comes_out_is_no_longer_than_was_measured() {
        let template = json!({ "a\"b": ["x", 1.5, true, { "$ref": "input" }], "é": {} });
        let expanded = with(&template, 10_000).unwrap();
        let length = expanded.to_string().len();
        assert!(with(&template, length + 16).is_ok());
        assert_eq!(with(&template, length / 2), Err(PlanRefused::TemplateTooLarge));
    }

    #[test]
    fn without_a_template_the_input_follows_from_what_a_step_waits_for() {
        assert_eq!(usual(&[]), json!({ "$ref": "input" }));
        assert_eq!(with(&usual(&["a".to_owned()]), 100), Ok(json!({ "words": 2, "next": { "$ref": "input" } })));
        let two = with(&usual(&["a".to_owned(), "gone".to_owned()]), 1_000).unwrap();
        assert_eq!(two, json!({ "a": { "words": 2, "next": { "$ref": "input" } }, "gone": null }));
    }
}
