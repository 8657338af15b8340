//! What an operation costs, in points, before it runs and after.
//!
//! Before: a field is a point and what it selects; what has `first` or `last` costs what it selects that many times, and so does
//! what takes a list of `ids`; what answers a page without saying how long counts as a page of the usual length. A mutation's or
//! subscription's root field is ten points more. After: the fields of the answer, counted in the same way, and never less than a
//! tenth of what was reckoned before, because also what answers nothing had to be looked for.
//!
//! A fragment is counted once and added wherever it is spread, so the count takes as long as the document is long. That documents
//! end, and how deep they are, the guard has seen to.

use std::collections::HashMap;

use async_graphql::{
    Name, Positioned, Value as Answered, Variables,
    parser::types::{
        ExecutableDocument, Field, FragmentDefinition, OperationDefinition, OperationType, Selection, SelectionSet,
    },
};

use crate::graphql::{DEFAULT_PAGE, MAX_PAGE};

/// The root field of a mutation or a subscription, beside its points as a field.
const WRITE: u64 = 10;
/// What part of the reckoned points is kept at least.
const KEPT: u64 = 10;

/// The points of an operation before it runs.
pub(super) fn reckoned(document: &ExecutableDocument, operation: &OperationDefinition, variables: &Variables) -> u64 {
    let mut reckoning = Reckoning { fragments: &document.fragments, variables, known: HashMap::new() };
    let roots = u64::try_from(operation.selection_set.node.items.len()).unwrap_or(u64::MAX);
    reckoning.selection(&operation.selection_set.node).saturating_add(write(operation.ty).saturating_mul(roots))
}

/// The points of an operation after it ran.
pub(super) fn actual(kind: OperationType, data: &Answered, reckoned: u64) -> u64 {
    let roots = if let Answered::Object(fields) = data { u64::try_from(fields.len()).unwrap_or(u64::MAX) } else { 1 };
    let answered = fields(data).saturating_add(write(kind).saturating_mul(roots));
    answered.max(reckoned / KEPT).max(1)
}

fn write(kind: OperationType) -> u64 {
    match kind {
        OperationType::Query => 0,
        OperationType::Mutation | OperationType::Subscription => WRITE,
    }
}

struct Reckoning<'a> {
    fragments: &'a HashMap<Name, Positioned<FragmentDefinition>>,
    variables: &'a Variables,
    known: HashMap<&'a Name, u64>,
}

impl<'a> Reckoning<'a> {
    fn selection(&mut self, selection: &'a SelectionSet) -> u64 {
        selection.items.iter().fold(0, |sum: u64, item| {
            sum.saturating_add(match &item.node {
                Selection::Field(field) => self.field(&field.node),
                Selection::InlineFragment(inline) => self.selection(&inline.node.selection_set.node),
                Selection::FragmentSpread(spread) => self.fragment(&spread.node.fragment_name.node),
            })
        })
    }

    fn fragment(&mut self, name: &'a Name) -> u64 {
        if let Some(points) = self.known.get(name) {
            return *points;
        }
        let Some(fragment) = self.fragments.get(name) else { return 0 };
        let points = self.selection(&fragment.node.selection_set.node);
        self.known.insert(name, points);
        points
    }

    fn field(&mut self, field: &'a Field) -> u64 {
        let inside = self.selection(&field.selection_set.node);
        inside.saturating_mul(self.times(field)).saturating_add(1)
    }

    /// How often a field answers what it selects, at most.
    fn times(&self, field: &Field) -> u64 {
        let argument = |name: &str| {
            let (_, value) = field.arguments.iter().find(|(argument, _)| argument.node == name)?;
            value.node.clone().into_const_with(|variable| self.variables.get(&variable).cloned().ok_or(())).ok()
        };
        let number = |name: &str| match argument(name)? {
            Answered::Number(number) => number.as_u64(),
            Answered::List(items) => u64::try_from(items.len()).ok(),
            Answered::Null
            | Answered::String(_)
            | Answered::Boolean(_)
            | Answered::Binary(_)
            | Answered::Enum(_)
            | Answered::Object(_) => None,
        };
        let page = |item: &Positioned<Selection>| matches!(&item.node, Selection::Field(field) if ["nodes", "edges"].contains(&field.node.name.node.as_str()));
        let said = ["first", "last", "ids"].into_iter().find_map(number).map(|times| times.clamp(1, length(MAX_PAGE)));
        said.unwrap_or(if field.selection_set.node.items.iter().any(page) { length(DEFAULT_PAGE) } else { 1 })
    }
}

/// The length of a page as points are counted.
fn length(page: i32) -> u64 {
    page.unsigned_abs().into()
}

/// The fields of an answer.
fn fields(value: &Answered) -> u64 {
    match value {
        Answered::Object(object) => {
            object.values().fold(0, |sum: u64, value| sum.saturating_add(1).saturating_add(fields(value)))
        }
        Answered::List(items) => items.iter().map(fields).fold(0, u64::saturating_add),
        Answered::Null
        | Answered::Number(_)
        | Answered::String(_)
        | Answered::Boolean(_)
        | Answered::Binary(_)
        | Answered::Enum(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use async_graphql::parser::{parse_query, types::DocumentOperations};
    use serde_json::json;

    use super::*;

    fn points(text: &str, variables: serde_json::Value) -> u64 {
        let document = parse_query(text).unwrap();
        let operation = match &document.operations {
            DocumentOperations::Single(operation) => &operation.node,
            DocumentOperations::Multiple(operations) => &operations.values().next().unwrap().node,
        };
        reckoned(&document, operation, &Variables::from_json(variables))
    }

    #[test]
    fn a_field_is_a_point_and_a_list_is_its_length_times_its_content() {
        for (text, variables, expected) in [
            ("{ a }", json!({}), 1),
            ("{ a b { c d } }", json!({}), 4),
            ("{ a(first: 10) { nodes { b } } }", json!({}), 1 + 10 * 2),
            ("{ a(last: 3) { edges { node { b } } } }", json!({}), 1 + 3 * 3),
            ("{ a { nodes { b } } }", json!({}), 1 + 20 * 2),
            ("query($n: Int) { a(first: $n) { nodes { b } } }", json!({ "n": 50 }), 1 + 50 * 2),
            ("query($n: Int) { a(first: $n) { nodes { b } } }", json!({}), 1 + 20 * 2),
            ("{ a(first: 1000000) { nodes { b } } }", json!({}), 1 + 100 * 2),
            ("{ a(ids: [1, 2, 3]) { b } }", json!({}), 1 + 3),
            ("query($ids: [ID!]!) { a(ids: $ids) { b } }", json!({ "ids": ["x", "y"] }), 1 + 2),
            ("{ ...F ...F } fragment F on Q { a { b } }", json!({}), 4),
            ("{ a { ... on B { c } ...F } } fragment F on B { d }", json!({}), 3),
            ("mutation { a { b } }", json!({}), 12),
            ("subscription { a { b } }", json!({}), 12),
        ] {
            assert_eq!(points(text, variables), expected, "{text}");
        }
    }

    #[test]
    fn fragments_that_spread_one_another_take_no_longer_than_they_are() {
        let fragments: String = (0..60)
            .map(|n| format!("fragment F{n} on Q {{ ...F{} ...F{} }}", n + 1, n + 1))
            .collect::<Vec<_>>()
            .join(" ");
        let text = format!("{{ ...F0 }} {fragments} fragment F60 on Q {{ a }}");
        assert_eq!(points(&text, json!({})), 1 << 60);
    }

    #[test]
    fn afterwards_the_answer_counts_but_not_for_nothing() {
        let data = |value| Answered::from_json(value).unwrap();
        let page = data(json!({ "a": { "nodes": [{ "b": 1 }, { "b": 2 }] } }));
        assert_eq!(actual(OperationType::Query, &page, 41), 4);
        assert_eq!(actual(OperationType::Query, &data(json!({ "a": null })), 1_000), 100);
        assert_eq!(actual(OperationType::Mutation, &data(json!({ "a": { "b": 1 } })), 12), 12);
        assert_eq!(actual(OperationType::Query, &Answered::Null, 5), 1);
    }
}
