//! Which plans make sense. Everything that can be known before anything is spent is checked here.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::collections::{BTreeMap, BTreeSet};

use entity::{delegation_step::OnFailure, money::Amount};
use serde_json::Value;

use super::{
    MAX_DEPTH, MAX_STEPS, Plan, PlanStep,
    template::{self, Reference},
};
use crate::error::{Error, Refusal, refusals};

/// All of a budget, in basis points.
const WHOLE: i32 = 10_000;
/// How often a step may be tried again at most.
pub const MAX_RETRIES: i32 = 10;
/// How many agents may do the same at most.
pub const MAX_REPLICAS: i32 = 9;
/// Names with a meaning of their own.
const RESERVED: &[&str] = &["input", "goal", "plan"];

refusals! {
    /// Why a plan cannot be carried out.
    PlanRefused {
        /// There is nothing to do.
        NoSteps = "A plan needs at least one step.",
        /// The whole tree is counted.
        TooManySteps = "A plan has at most 64 steps, those of its groups included.",
        /// A delegation, its groups and their groups: no more.
        TooDeep = "Groups are nested too deep; there are at most 3 levels.",
        /// Names are for references, titles for people.
        StepNameInvalid = "The name of a step must be 1 to 40 of a to z, 0 to 9, _ and -, begin with a letter and not be input, goal or \
                           plan; its title must be 1 to 200 characters.",
        /// Names are unique in their plan.
        StepNameTaken = "Two steps have the same name.",
        /// A group has a plan and no work of its own.
        StepIsBoth = "A step is either work or a group: what has a plan has no capabilities, outputSchema, checkerId or timeout.",
        /// Neither capabilities nor a plan.
        StepDoesNothing = "A step needs capabilities, or a plan if it is a group.",
        /// Two answers must not both win.
        ReplicasInvalid = "There are 1 to 9 replicas, of which more than half must agree, and a group has one.",
        /// Only with RETRY.
        RetriesInvalid = "With onFailure RETRY there are 1 to 10 retries, and otherwise none.",
        /// A name that no step has.
        UnknownStep = "A step depends on one that does not exist.",
        /// The steps wait for each other.
        PlanHasCycle = "The steps of the plan wait for each other in a circle.",
        /// Basis points: all or none, together 10,000.
        SharesDoNotSum = "Shares are given for all steps, each more than 0 and together 10000, or for none.",
        /// A step would get nothing.
        BudgetTooSmall = "The budget is too small: a step would get nothing.",
        /// A reference that leads to nothing, or may.
        ReferenceUnresolved = "A reference leads to nothing.",
        /// Measured before it is built.
        TemplateTooLarge = "What a template gives is too large.",
        /// Nobody on the market can do it.
        UnknownCapability = "No agent that could take the work has these capabilities.",
        /// A checker is a hosted agent with a module.
        UnknownChecker = "The checker is not an active hosted agent with a module.",
    }
}

impl PlanRefused {
    /// The refusal with what it is about.
    #[must_use]
    pub fn at(self, detail: impl Into<String>) -> Flaw {
        Flaw { refused: self, detail: detail.into() }
    }
}

/// What is wrong with a plan, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    pub refused: PlanRefused,
    pub detail: String,
}

impl Flaw {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.refused.into()
    }

    /// The sentence for people.
    #[must_use]
    pub fn message(&self) -> String {
        if self.detail.is_empty() { self.refused.to_string() } else { format!("{} ({})", self.refused, self.detail) }
    }

    fn of_step(self, step: &PlanStep) -> Self {
        let detail = if self.detail.is_empty() { named(step) } else { format!("{}: {}", named(step), self.detail) };
        Self { detail, ..self }
    }
}

impl From<Flaw> for Error {
    fn from(flaw: Flaw) -> Self {
        Self::Refused(Refusal { code: flaw.code().to_owned(), message: flaw.message() })
    }
}

fn named(step: &PlanStep) -> String {
    step.name.chars().take(40).collect()
}

/// Where a plan is to be carried out.
#[derive(Clone, Copy, Debug)]
pub struct Setting<'a> {
    pub goal: &'a str,
    /// The input of the whole; empty while it is not known, as that of a group whose turn has not come.
    pub input: Option<&'a Value>,
    /// What its steps may cost together.
    pub budget: Amount,
    /// The level of the delegation, from 1.
    pub depth: i32,
    /// Bytes that the input of a task may have.
    pub max_input: usize,
}

/// A plan that makes sense, with what follows from it. The lists have the order of the steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arranged {
    /// What each step may cost.
    pub budgets: Vec<Amount>,
    /// What each step waits for, by name and in the order of the steps: what it says and what its input refers to.
    pub depends_on: Vec<Vec<String>>,
}

/// Checks a plan and the plans of its groups.
pub fn arrange(plan: &Plan, setting: &Setting<'_>) -> Result<Arranged, Flaw> {
    let mut room = MAX_STEPS;
    count(plan, &mut room)?;
    arrange_level(plan, setting)
}

fn count(plan: &Plan, room: &mut usize) -> Result<(), Flaw> {
    plan.steps.iter().try_for_each(|step| {
        *room = room.checked_sub(1).ok_or_else(|| PlanRefused::TooManySteps.at(""))?;
        step.plan.as_ref().map_or(Ok(()), |plan| count(plan, room))
    })
}

fn arrange_level(plan: &Plan, setting: &Setting<'_>) -> Result<Arranged, Flaw> {
    if plan.steps.is_empty() {
        return Err(PlanRefused::NoSteps.at(""));
    }
    let mut names = BTreeMap::new();
    for (place, step) in plan.steps.iter().enumerate() {
        check_step(step, setting.depth).map_err(|flaw| flaw.of_step(step))?;
        if names.insert(step.name.as_str(), place).is_some() {
            return Err(PlanRefused::StepNameTaken.at(named(step)));
        }
    }
    let depends_on = plan
        .steps
        .iter()
        .map(|step| needs(step, plan, &names, setting).map_err(|flaw| flaw.of_step(step)))
        .collect::<Result<Vec<_>, _>>()?;
    if let Some(output) = &plan.output {
        check_template(output, plan, &names, setting)?;
    }
    order(&depends_on)
        .map_err(|place| PlanRefused::PlanHasCycle.at(plan.steps.get(place).map_or_else(String::new, named)))?;
    let budgets = shares(plan, setting.budget)?;
    for (step, budget) in plan.steps.iter().zip(&budgets) {
        let each = budget.micros().checked_div(step.replicas().into()).unwrap_or(0);
        if each == 0 {
            return Err(PlanRefused::BudgetTooSmall.at(named(step)));
        }
        if let Some(plan) = &step.plan {
            let goal = step.title.as_deref().unwrap_or(&step.name);
            let depth = setting.depth.saturating_add(1);
            let inner = Setting { goal, input: None, budget: *budget, depth, ..*setting };
            arrange_level(plan, &inner).map_err(|flaw| flaw.of_step(step))?;
        }
    }
    let names = depends_on
        .iter()
        .map(|places| places.iter().filter_map(|place| plan.steps.get(*place)).map(|step| step.name.clone()).collect())
        .collect();
    Ok(Arranged { budgets, depends_on: names })
}

fn check_step(step: &PlanStep, depth: i32) -> Result<(), Flaw> {
    let refuse = |refused: PlanRefused| Err(refused.at(""));
    if !is_name(&step.name) || !step.title.as_deref().is_none_or(is_title) {
        return refuse(PlanRefused::StepNameInvalid);
    }
    let group = step.plan.is_some();
    let works = !step.capabilities.is_empty();
    let checked = step.output_schema.is_some() || step.checker_id.is_some() || step.timeout.is_some();
    match (group, works) {
        (true, true) => return refuse(PlanRefused::StepIsBoth),
        (true, false) if checked => return refuse(PlanRefused::StepIsBoth),
        (false, false) => return refuse(PlanRefused::StepDoesNothing),
        (true, false) if depth >= MAX_DEPTH => return refuse(PlanRefused::TooDeep),
        (true, false) | (false, true) => {}
    }
    let (replicas, agree) = (step.replicas(), step.agree());
    let sure = agree <= replicas && agree.saturating_mul(2) > replicas;
    if !(1..=MAX_REPLICAS).contains(&replicas) || !sure || (group && replicas > 1) {
        return refuse(PlanRefused::ReplicasInvalid);
    }
    let fits = match step.on_failure() {
        OnFailure::Retry => (1..=MAX_RETRIES).contains(&step.retries()),
        OnFailure::Fail | OnFailure::Skip => step.retries() == 0,
    };
    if fits { Ok(()) } else { refuse(PlanRefused::RetriesInvalid) }
}

/// Whether a text can be the name of a step.
fn is_name(text: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-');
    let begins = text.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
    begins && text.len() <= 40 && text.bytes().all(letter) && !RESERVED.contains(&text)
}

fn is_title(text: &str) -> bool {
    let length = text.chars().count();
    (1..=200).contains(&length) && !text.trim().is_empty() && !text.chars().any(char::is_control)
}

/// The places of the steps that a step waits for, in order.
fn needs(
    step: &PlanStep,
    plan: &Plan,
    names: &BTreeMap<&str, usize>,
    setting: &Setting<'_>,
) -> Result<BTreeSet<usize>, Flaw> {
    let mut needed = BTreeSet::new();
    for name in &step.depends_on {
        let place = names
            .get(name.as_str())
            .ok_or_else(|| PlanRefused::UnknownStep.at(name.chars().take(40).collect::<String>()))?;
        needed.insert(*place);
    }
    if let Some(input) = &step.input {
        needed.extend(check_template(input, plan, names, setting)?);
    }
    Ok(needed)
}

/// Checks what a template refers to; answers the places of the steps among it.
fn check_template(
    template: &Value,
    plan: &Plan,
    names: &BTreeMap<&str, usize>,
    setting: &Setting<'_>,
) -> Result<BTreeSet<usize>, Flaw> {
    let goal = Value::String(setting.goal.to_owned());
    let mut needed = BTreeSet::new();
    for Reference { name, pointer, default } in template::references(template)? {
        let text = || {
            format!("{}#{}", name.chars().take(40).collect::<String>(), pointer.chars().take(60).collect::<String>())
        };
        let resolves = match (name, names.get(name)) {
            ("input", _) => setting.input.is_none_or(|input| input.pointer(pointer).is_some()) || default.is_some(),
            ("goal", _) => goal.pointer(pointer).is_some() || default.is_some(),
            (_, Some(place)) => {
                needed.insert(*place);
                let may_be_skipped = plan.steps.get(*place).is_some_and(|step| step.on_failure() == OnFailure::Skip);
                !may_be_skipped || default.is_some()
            }
            (_, None) => false,
        };
        if !resolves {
            return Err(PlanRefused::ReferenceUnresolved.at(text()));
        }
    }
    // What is known now must fit now; what steps give is measured when they have given it.
    let known = |name: &str| match name {
        "input" => Some(setting.input.unwrap_or(&Value::Null)),
        "goal" => Some(&goal),
        _ => None,
    };
    match template::expand(&without_steps(template), &known, setting.max_input) {
        Err(flaw) if flaw.refused == PlanRefused::TemplateTooLarge => Err(flaw),
        // References into an input that is not known yet.
        Ok(_) | Err(_) => Ok(needed),
    }
}

/// The same template with nothing in the places of what steps will give.
fn without_steps(template: &Value) -> Value {
    match template {
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => template.clone(),
        Value::Array(items) => Value::Array(items.iter().map(without_steps).collect()),
        Value::Object(fields) => {
            let known = |text: &str| matches!(text.split('#').next(), Some("input" | "goal"));
            match fields.get("$ref") {
                Some(Value::String(text)) if known(text) => template.clone(),
                Some(_) => Value::Null,
                None if fields.contains_key("$literal") => template.clone(),
                None => Value::Object(fields.iter().map(|(key, field)| (key.clone(), without_steps(field))).collect()),
            }
        }
    }
}

/// An order in which every step comes behind those that it waits for, the first of the plan first; or a step of a circle.
fn order(needs: &[BTreeSet<usize>]) -> Result<Vec<usize>, usize> {
    let mut ordered = Vec::with_capacity(needs.len());
    let mut done = BTreeSet::new();
    while ordered.len() < needs.len() {
        let ready = needs.iter().enumerate().find(|(place, needs)| !done.contains(place) && needs.is_subset(&done));
        match ready {
            Some((place, _)) => {
                done.insert(place);
                ordered.push(place);
            }
            None => return Err((0..needs.len()).find(|place| !done.contains(place)).unwrap_or(0)),
        }
    }
    Ok(ordered)
}

/// What each step may cost: its share rounded down, and what is left over to those with the largest remainders, the first ones first.
/// Together exactly the budget.
fn shares(plan: &Plan, budget: Amount) -> Result<Vec<Amount>, Flaw> {
    let given: Vec<i32> = plan.steps.iter().filter_map(|step| step.share).collect();
    let weights: Vec<i128> = if given.is_empty() {
        plan.steps.iter().map(|_| 1).collect()
    } else {
        let sums = given.iter().try_fold(0_i32, |sum, share| sum.checked_add(*share)) == Some(WHOLE);
        if given.len() != plan.steps.len() || !sums || given.iter().any(|share| *share <= 0) {
            return Err(PlanRefused::SharesDoNotSum.at(""));
        }
        given.into_iter().map(i128::from).collect()
    };
    split(budget, &weights).ok_or_else(|| PlanRefused::BudgetTooSmall.at(""))
}

/// Splits an amount by weights without losing anything.
fn split(amount: Amount, weights: &[i128]) -> Option<Vec<Amount>> {
    let (amount, whole) = (i128::from(amount.micros()), weights.iter().sum::<i128>());
    let parts = weights
        .iter()
        .map(|weight| {
            let product = amount.checked_mul(*weight)?;
            Some((product.checked_div(whole)?, product.checked_rem(whole)?))
        })
        .collect::<Option<Vec<_>>>()?;
    let mut left = amount.checked_sub(parts.iter().map(|(part, _)| part).sum())?;
    let mut by_remainder: Vec<usize> = (0..parts.len()).collect();
    by_remainder.sort_by_key(|place| (std::cmp::Reverse(parts.get(*place).map(|(_, rest)| *rest)), *place));
    let mut more = vec![0_i128; parts.len()];
    for place in by_remainder {
        if let Some(one) = more.get_mut(place).filter(|_| left > 0) {
            *one = 1;
            left = left.checked_sub(1)?;
        }
    }
    let total = |((part, _), more): (&(i128, i128), i128)| i64::try_from(part.checked_add(more)?).ok();
    parts.iter().zip(more).map(|both| total(both).and_then(Amount::from_micros)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn refused(plan: &Value) -> Option<PlanRefused> {
        refused_with(plan, "10", 1)
    }

    fn refused_with(plan: &Value, budget: &str, depth: i32) -> Option<PlanRefused> {
        let input = json!({ "text": "hello" });
        let setting =
            Setting { goal: "a goal", input: Some(&input), budget: budget.parse().unwrap(), depth, max_input: 10_000 };
        arrange(&Plan::read(&plan.to_string()).unwrap(), &setting).err().map(|flaw| flaw.refused)
    }

    /// One object over another.
    fn merged(mut base: Value, over: Value) -> Value {
        let (Value::Object(fields), Value::Object(over)) = (&mut base, over) else { panic!("two objects") };
        fields.extend(over);
        base
    }

    fn step(name: &str, more: Value) -> Value {
        merged(json!({ "name": name, "capabilities": ["x"] }), more)
    }

    fn plan(steps: Vec<Value>) -> Value {
        let mut plan = json!({});
        plan["steps"] = Value::Array(steps);
        plan
    }

    fn group(name: &str, inner: Value) -> Value {
        let mut group = json!({ "name": name });
        group["plan"] = inner;
        group
    }

    #[test]
    fn a_sound_plan_says_what_its_steps_cost_and_wait_for() {
        let input = json!({ "text": "hello" });
        let text = plan(vec![
            step("last", json!({ "input": [{ "$ref": "left" }, { "$ref": "right#/n" }], "dependsOn": ["first"] })),
            step("right", json!({ "dependsOn": ["first"] })),
            step("left", json!({ "input": { "$ref": "first" } })),
            step("first", json!({ "input": { "$ref": "input#/text" } })),
        ]);
        let budget = "10.000003".parse().unwrap();
        let setting = Setting { goal: "", input: Some(&input), budget, depth: 1, max_input: 1_000 };
        let arranged = arrange(&Plan::read(&text.to_string()).unwrap(), &setting).unwrap();
        assert_eq!(arranged.depends_on, [vec!["right", "left", "first"], vec!["first"], vec!["first"], vec![]]);
        let budgets: Vec<String> = arranged.budgets.iter().map(ToString::to_string).collect();
        assert_eq!(budgets, ["2.500001", "2.500001", "2.500001", "2.5"]);
    }

    #[test]
    fn every_flaw_has_its_name() {
        use PlanRefused as P;
        let one = |more: Value| plan(vec![step("a", more)]);
        let nested = |levels: usize| {
            (0..levels).fold(plan(vec![step("a", json!({}))]), |inner, _| plan(vec![group("g", inner)]))
        };
        let many = |count: usize| plan((0..count).map(|place| step(&format!("s{place}"), json!({}))).collect());
        for (text, expected) in [
            (plan(vec![]), Some(P::NoSteps)),
            (plan(vec![group("g", plan(vec![]))]), Some(P::NoSteps)),
            (many(64), None),
            (many(65), Some(P::TooManySteps)),
            (plan(vec![group("g", many(63))]), None),
            (plan(vec![group("g", many(64))]), Some(P::TooManySteps)),
            (nested(2), None),
            (nested(3), Some(P::TooDeep)),
            (nested(20), Some(P::TooDeep)),
            (plan(vec![step("A", json!({}))]), Some(P::StepNameInvalid)),
            (plan(vec![step("input", json!({}))]), Some(P::StepNameInvalid)),
            (plan(vec![step("1", json!({}))]), Some(P::StepNameInvalid)),
            (one(json!({ "title": "a\u{7}" })), Some(P::StepNameInvalid)),
            (plan(vec![step("a", json!({})), step("a", json!({}))]), Some(P::StepNameTaken)),
            (plan(vec![step("a", json!({ "plan": many(1) }))]), Some(P::StepIsBoth)),
            (plan(vec![json!({ "name": "a", "plan": many(1), "timeout": "PT1S" })]), Some(P::StepIsBoth)),
            (plan(vec![json!({ "name": "a" })]), Some(P::StepDoesNothing)),
            (one(json!({ "replicas": 3, "agree": 2 })), None),
            (one(json!({ "replicas": 3 })), None),
            (one(json!({ "replicas": 4, "agree": 2 })), Some(P::ReplicasInvalid)),
            (one(json!({ "replicas": 2, "agree": 3 })), Some(P::ReplicasInvalid)),
            (one(json!({ "replicas": 10 })), Some(P::ReplicasInvalid)),
            (one(json!({ "replicas": 0 })), Some(P::ReplicasInvalid)),
            (one(json!({ "replicas": 3, "agree": i32::MAX })), Some(P::ReplicasInvalid)),
            (plan(vec![json!({ "name": "a", "plan": many(1), "replicas": 2 })]), Some(P::ReplicasInvalid)),
            (one(json!({ "onFailure": "RETRY" })), None),
            (one(json!({ "onFailure": "RETRY", "retries": 0 })), Some(P::RetriesInvalid)),
            (one(json!({ "onFailure": "RETRY", "retries": 11 })), Some(P::RetriesInvalid)),
            (one(json!({ "retries": 1 })), Some(P::RetriesInvalid)),
            (one(json!({ "dependsOn": ["b"] })), Some(P::UnknownStep)),
            (one(json!({ "dependsOn": ["a"] })), Some(P::PlanHasCycle)),
            (one(json!({ "input": { "$ref": "a" } })), Some(P::PlanHasCycle)),
            (
                plan(vec![step("a", json!({ "dependsOn": ["b"] })), step("b", json!({ "input": { "$ref": "a" } }))]),
                Some(P::PlanHasCycle),
            ),
            (one(json!({ "share": 10000 })), None),
            (one(json!({ "share": 9999 })), Some(P::SharesDoNotSum)),
            (one(json!({ "share": -1 })), Some(P::SharesDoNotSum)),
            (plan(vec![step("a", json!({ "share": 10000 })), step("b", json!({}))]), Some(P::SharesDoNotSum)),
            (
                plan(vec![step("a", json!({ "share": 10001 })), step("b", json!({ "share": -1 }))]),
                Some(P::SharesDoNotSum),
            ),
            (
                plan(vec![step("a", json!({ "share": i32::MAX })), step("b", json!({ "share": i32::MAX }))]),
                Some(P::SharesDoNotSum),
            ),
            (one(json!({ "input": { "$ref": "input#/text" } })), None),
            (one(json!({ "input": { "$ref": "input#/nothing" } })), Some(P::ReferenceUnresolved)),
            (one(json!({ "input": { "$ref": "input#/nothing", "default": 1 } })), None),
            (one(json!({ "input": { "$ref": "goal#/x" } })), Some(P::ReferenceUnresolved)),
            (one(json!({ "input": { "$ref": "b" } })), Some(P::ReferenceUnresolved)),
            (
                plan(vec![step("a", json!({ "onFailure": "SKIP" })), step("b", json!({ "input": { "$ref": "a" } }))]),
                Some(P::ReferenceUnresolved),
            ),
            (
                plan(vec![
                    step("a", json!({ "onFailure": "SKIP" })),
                    step("b", json!({ "input": { "$ref": "a", "default": 0 } })),
                ]),
                None,
            ),
            (json!({ "steps": [step("a", json!({}))], "output": { "$ref": "b" } }), Some(P::ReferenceUnresolved)),
            (one(json!({ "input": "x".repeat(20_000) })), Some(P::TemplateTooLarge)),
            (one(json!({ "input": vec![json!({ "$ref": "input" }); 1_000] })), Some(P::TemplateTooLarge)),
            // Inside a group nobody knows the input yet.
            (plan(vec![group("g", one(json!({ "input": { "$ref": "input#/nothing" } })))]), None),
        ] {
            assert_eq!(refused(&text), expected, "{text}");
        }
        assert_eq!(refused_with(&many(3), "0.000002", 1), Some(P::BudgetTooSmall));
        assert_eq!(refused_with(&one(json!({ "replicas": 3 })), "0.000002", 1), Some(P::BudgetTooSmall));
        assert_eq!(refused_with(&many(3), "0.000003", 1), None);
        assert_eq!(refused_with(&plan(vec![group("g", many(1))]), "1", 3), Some(P::TooDeep));
    }

    proptest! {
        #[test]
        fn shares_sum_exactly_and_are_off_by_less_than_one(
            micros in 1..1_000_000_000_000_000_i64, weights in proptest::collection::vec(1..10_000_i128, 1..64),
        ) {
            let amount = Amount::from_micros(micros).unwrap();
            let parts = split(amount, &weights).unwrap();
            prop_assert_eq!(parts.iter().map(|part| part.micros()).sum::<i64>(), micros);
            let whole: i128 = weights.iter().sum();
            for (part, weight) in parts.iter().zip(&weights) {
                let off = i128::from(part.micros()) * whole - i128::from(micros) * weight;
                prop_assert!(off.abs() < whole, "{} of {}", part, amount);
            }
        }

        #[test]
        fn an_order_puts_every_step_behind_what_it_waits_for(
            edges in proptest::collection::vec((0..20_usize, 0..20_usize), 0..60),
        ) {
            let mut needs = vec![BTreeSet::new(); 20];
            for (from, to) in &edges {
                needs[*from].insert(*to);
            }
            let mut reaches = vec![vec![false; 20]; 20];
            for (from, to) in &edges {
                reaches[*from][*to] = true;
            }
            for middle in 0..20 {
                for from in 0..20 {
                    for to in 0..20 {
                        reaches[from][to] |= reaches[from][middle] && reaches[middle][to];
                    }
                }
            }
            let circle = (0..20).any(|step| reaches[step][step]);
            let ordered = order(&needs);
            prop_assert_eq!(ordered.is_err(), circle);
            if let Ok(ordered) = ordered {
                let place = |step: usize| ordered.iter().position(|other| *other == step).unwrap();
                prop_assert_eq!(ordered.len(), 20);
                prop_assert!(edges.iter().all(|(from, to)| place(*to) < place(*from)));
            }
        }
    }
}
