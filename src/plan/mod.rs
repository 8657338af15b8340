//! What a plan is: steps with what they need of each other, and what comes out in the end. It is the same JSON whether a client
//! sends it, a file holds it or an agent that plans answers it. Nothing here knows the market; [`rules`] says which plans make
//! sense, [`template`] how the output of one step becomes the input of another.
//!
//! ```json
//! {
//!   "steps": [
//!     { "name": "count", "capabilities": ["text.stats"], "input": { "$ref": "input#/text" }, "share": 4000 },
//!     { "name": "words", "capabilities": ["text.keywords"], "input": { "$ref": "input#/text" }, "share": 6000,
//!       "onFailure": "RETRY", "retries": 2 }
//!   ],
//!   "output": { "words": { "$ref": "count#/words" }, "keywords": { "$ref": "words" } }
//! }
//! ```
//!
//! What must always hold: reading a plan costs no more than a plan of the largest size, however long the text says it is.

pub mod rules;
pub mod template;

use std::{fmt, time::Duration};

use entity::{
    delegation_step::OnFailure,
    time::{format_duration, parse_duration},
};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error as _, IgnoredAny, SeqAccess, Visitor},
};
use serde_json::Value;

/// Steps of a plan at most, those of all its groups included.
pub const MAX_STEPS: usize = 64;
/// Levels of delegations at most.
pub const MAX_DEPTH: i32 = 3;

/// How a goal is reached.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Plan {
    /// In any order; what they need of each other decides.
    #[serde(deserialize_with = "bounded")]
    pub steps: Vec<PlanStep>,
    /// The template of the output; when empty, the outputs of the steps that no other one needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
}

/// One step of a plan: work that agents do, or a group with a plan of its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlanStep {
    /// What others refer to it by.
    pub name: String,
    /// What people call it; its name when empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// What an agent must be able to do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
    /// The names of steps whose end it waits for, beside those that its input refers to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<String>,
    /// The template of its input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Value>,
    /// The JSON Schema that an output must satisfy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_schema: Option<Value>,
    /// Its part of the budget in basis points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<i32>,
    /// What follows when it fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<OnFailure>,
    /// How often it is tried again at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<i32>,
    /// How many agents do the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// How many of them must give the same output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agree: Option<i32>,
    /// The hosted agent that says whether an output is good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checker_id: Option<String>,
    /// How long its auctions take bids.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closes_in: Option<Span>,
    /// The wall-clock limit of one attempt at a task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Span>,
    /// The plan of its own steps, if it is a group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<Box<Plan>>,
}

impl Plan {
    /// Reads a plan, or says in a sentence why a text is none.
    pub fn read(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|error| format!("The text is not a plan: {error}."))
    }

    /// One step for each capability, in order: each gets what the one before it gave, the first one the input of the whole.
    #[must_use]
    pub fn in_order(capabilities: &[String]) -> Self {
        let name = |place: usize| format!("step-{place}");
        let step = |(place, capability): (usize, &String)| PlanStep {
            name: name(place.saturating_add(1)),
            title: Some(capability.clone()),
            capabilities: vec![capability.clone()],
            depends_on: if place > 0 { vec![name(place)] } else { Vec::new() },
            ..PlanStep::default()
        };
        // One more than a plan may have says as well as all of them that there are too many.
        Self { steps: capabilities.iter().take(MAX_STEPS + 1).enumerate().map(step).collect(), output: None }
    }

    /// How many pieces of work there are in it, those of its groups included.
    #[must_use]
    pub fn leaves(&self) -> usize {
        self.steps.iter().map(|step| step.plan.as_ref().map_or(1, |plan| plan.leaves())).sum()
    }
}

impl PlanStep {
    /// What follows when it fails.
    #[must_use]
    pub fn on_failure(&self) -> OnFailure {
        self.on_failure.unwrap_or(OnFailure::Fail)
    }

    /// How often it is tried again at most.
    #[must_use]
    pub fn retries(&self) -> i32 {
        self.retries.unwrap_or(i32::from(self.on_failure() == OnFailure::Retry))
    }

    /// How many agents do the same.
    #[must_use]
    pub fn replicas(&self) -> i32 {
        self.replicas.unwrap_or(1)
    }

    /// How many of them must give the same output: more than half when the plan does not say.
    #[must_use]
    pub fn agree(&self) -> i32 {
        self.agree.unwrap_or(self.replicas().saturating_div(2).saturating_add(1))
    }
}

/// A length of time, written as in ISO 8601.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format_duration(self.0))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let span = parse_duration(&text).map(Self);
        span.ok_or_else(|| D::Error::custom("a duration must be written as in ISO 8601, for example \"PT30S\""))
    }
}

/// Reads steps, but no more than say that there are too many; the rest is passed over without keeping it.
fn bounded<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PlanStep>, D::Error> {
    struct Bounded;

    impl<'de> Visitor<'de> for Bounded {
        type Value = Vec<PlanStep>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a list of steps")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<PlanStep>, A::Error> {
            let mut steps = Vec::new();
            while steps.len() <= MAX_STEPS {
                match list.next_element()? {
                    Some(step) => steps.push(step),
                    None => return Ok(steps),
                }
            }
            while list.next_element::<IgnoredAny>()?.is_some() {}
            Ok(steps)
        }
    }

    deserializer.deserialize_seq(Bounded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_plan_reads_as_it_is_written() {
        let text = json!({ "steps": [
            { "name": "a", "capabilities": ["x"], "onFailure": "RETRY", "retries": 2, "closesIn": "PT10S", "timeout": "PT1.5S" },
            { "name": "b", "dependsOn": ["a"], "plan": { "steps": [{ "name": "c", "capabilities": ["y"], "share": 10000 }] } },
        ], "output": { "$ref": "b" } });
        let plan = Plan::read(&text.to_string()).unwrap();
        assert_eq!(serde_json::to_value(&plan).unwrap(), text);
        assert_eq!((plan.leaves(), plan.steps[0].retries(), plan.steps[0].agree()), (2, 2, 1));
    }

    #[test]
    fn what_is_no_plan_is_said_to_be_none() {
        for text in [
            "",
            "3",
            "{}",
            r#"{"steps":{}}"#,
            r#"{"steps":[{}]}"#,
            r#"{"steps":[{"name":"a","onFailure":"MAYBE"}]}"#,
            r#"{"steps":[{"name":"a","timeout":"soon"}]}"#,
            r#"{"steps":[],"step":1}"#,
            r#"{"steps":[{"name":"a","shares":1}]}"#,
        ] {
            assert!(Plan::read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_million_steps_are_not_kept() {
        let step = r#"{"name":"a"},"#;
        let text = format!(r#"{{"steps":[{}{{"name":"a"}}]}}"#, step.repeat(1_000_000));
        assert_eq!(Plan::read(&text).unwrap().steps.len(), MAX_STEPS + 1);
    }

    #[test]
    fn capabilities_become_a_chain() {
        let plan = Plan::in_order(&["b".to_owned(), "a".to_owned()]);
        let names: Vec<_> = plan.steps.iter().map(|step| (step.name.as_str(), step.depends_on.clone())).collect();
        assert_eq!(names, [("step-1", vec![]), ("step-2", vec!["step-1".to_owned()])]);
        assert_eq!(Plan::in_order(&vec!["a".to_owned(); 1_000]).steps.len(), MAX_STEPS + 1);
    }
}
