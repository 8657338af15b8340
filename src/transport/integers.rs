//! Integers that do not fit. `Int` has 32 bits, and a literal beyond them makes a document invalid; the validator lets it pass, and
//! the executor notices it only where it reads the argument, with other fields executed already, or never.
//!
//! Which arguments take an `Int` is read from the schema, by name: a name counts when it stands for an `Int` wherever it stands. What
//! is inside a `JSON` argument is anything.

use std::collections::{HashMap, HashSet};

use async_graphql::{
    Name, Pos, Positioned, Value, Variables,
    parser::{
        parse_schema,
        types::{
            BaseType, ExecutableDocument, InputValueDefinition, OperationDefinition, Selection, SelectionSet, Type,
            TypeKind, TypeSystemDefinition,
        },
    },
};

use super::guard::Rejected;
use crate::error::{Error, Result};

const INT: &str = "Int";
const JSON: &str = "JSON";

/// The names that take integers of 32 bits: of arguments, and of the fields of input objects.
#[derive(Clone, Debug, Default)]
pub(super) struct Integers {
    arguments: Names,
    fields: Names,
}

/// Names that stand for an `Int` wherever they stand, and names that stand for anything somewhere.
#[derive(Clone, Debug, Default)]
struct Names {
    integers: HashSet<String>,
    anything: HashSet<String>,
}

/// The types that each name has.
type Types = HashMap<String, HashSet<String>>;

impl Names {
    fn of(types: &Types) -> Self {
        let names = |is: &dyn Fn(&HashSet<String>) -> bool| {
            types.iter().filter(|(_, types)| is(types)).map(|(name, _)| name.clone()).collect()
        };
        let integers = names(&|types| types.len() == 1 && types.contains(INT));
        Self { integers, anything: names(&|types| types.contains(JSON)) }
    }
}

fn take(types: &mut Types, inputs: &[Positioned<InputValueDefinition>]) {
    for input in inputs {
        let (name, ty) = (input.node.name.node.to_string(), base(&input.node.ty.node).to_owned());
        types.entry(name).or_default().insert(ty);
    }
}

impl Integers {
    /// Reads the names from a schema.
    pub(super) fn of(sdl: &str) -> Result<Self> {
        let (mut arguments, mut inputs) = (Types::new(), Types::new());
        for definition in parse_schema(sdl).map_err(Error::internal)?.definitions {
            let TypeSystemDefinition::Type(definition) = definition else { continue };
            match definition.node.kind {
                TypeKind::Object(object) => {
                    object.fields.iter().for_each(|field| take(&mut arguments, &field.node.arguments));
                }
                TypeKind::InputObject(input) => take(&mut inputs, &input.fields),
                // The fields of an interface are those of its objects.
                TypeKind::Interface(_) | TypeKind::Scalar | TypeKind::Union(_) | TypeKind::Enum(_) => {}
            }
        }
        Ok(Self { arguments: Names::of(&arguments), fields: Names::of(&inputs) })
    }

    /// Whether every integer in a document fits where it stands.
    pub(super) fn check(&self, document: &ExecutableDocument) -> std::result::Result<(), Rejected> {
        for (_, operation) in document.operations.iter() {
            self.selection(&operation.node.selection_set.node)?;
        }
        document.fragments.values().try_for_each(|fragment| self.selection(&fragment.node.selection_set.node))
    }

    fn selection(&self, selection: &SelectionSet) -> std::result::Result<(), Rejected> {
        selection.items.iter().try_for_each(|item| match &item.node {
            Selection::Field(field) => {
                for (name, value) in &field.node.arguments {
                    // Variables are looked at with their values.
                    let value_of = value.node.clone().into_const_with(|_| Ok::<_, ()>(Value::Null));
                    self.value(&self.arguments, &name.node, &value_of.unwrap_or_default(), value.pos)?;
                }
                self.selection(&field.node.selection_set.node)
            }
            Selection::InlineFragment(inline) => self.selection(&inline.node.selection_set.node),
            Selection::FragmentSpread(_) => Ok(()),
        })
    }

    fn value(&self, known: &Names, name: &Name, value: &Value, at: Pos) -> std::result::Result<(), Rejected> {
        if known.anything.contains(name.as_str()) {
            return Ok(());
        }
        if known.integers.contains(name.as_str()) && !fits(value) {
            let message = format!("Int cannot represent a value of \"{name}\": it must be a whole number of 32 bits.");
            return Err(Rejected::Invalid(message, vec![at]));
        }
        match value {
            Value::Object(fields) => {
                fields.iter().try_for_each(|(name, value)| self.value(&self.fields, name, value, at))
            }
            Value::List(items) => items.iter().try_for_each(|item| self.value(known, name, item, at)),
            Value::Null
            | Value::Number(_)
            | Value::String(_)
            | Value::Boolean(_)
            | Value::Binary(_)
            | Value::Enum(_) => Ok(()),
        }
    }
}

/// Whether the variables of type `Int` fit; answers the first that does not.
pub(super) fn unfit_variable(operation: &OperationDefinition, given: &Variables) -> Option<(Name, Pos)> {
    let integers = operation.variable_definitions.iter().filter(|it| base(&it.node.var_type.node) == INT);
    let unfit = integers.filter(|it| given.get(&it.node.name.node).is_some_and(|value| !fits(value)));
    unfit.map(|it| (it.node.name.node.clone(), it.pos)).next()
}

/// Whether a number, or each in a list of them, has 32 bits at most. What is no number the validator refuses.
fn fits(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.as_i64().is_some_and(|number| i32::try_from(number).is_ok()),
        Value::List(items) => items.iter().all(fits),
        Value::Null | Value::String(_) | Value::Boolean(_) | Value::Binary(_) | Value::Enum(_) | Value::Object(_) => {
            true
        }
    }
}

fn base(ty: &Type) -> &str {
    match &ty.base {
        BaseType::Named(name) => name.as_str(),
        BaseType::List(inner) => base(inner),
    }
}

#[cfg(test)]
mod tests {
    use async_graphql::parser::parse_query;

    use super::*;

    fn refused(query: &str) -> bool {
        let integers = Integers::of(&crate::graphql::sdl()).unwrap();
        integers.check(&parse_query(query).unwrap()).is_err()
    }

    #[test]
    fn an_integer_fits_where_the_schema_has_one() {
        for (query, wrong) in [
            ("{ tasks(first: 20) { nodes { id } } }", false),
            ("{ tasks(first: 99999999999) { nodes { id } } }", true),
            ("{ ... on Query { tasks(last: -99999999999) { nodes { id } } } }", true),
            ("{ ...F } fragment F on Query { tasks(first: 18446744073709551615) { nodes { id } } }", true),
            (
                "mutation { rateAgent(input: { taskId: \"x\", stars: 5000000000, idempotencyKey: \"k\" }) { userErrors { code } } }",
                true,
            ),
            (
                "mutation { executeTask(input: { input: { stars: 5000000000 }, idempotencyKey: \"k\" }) { userErrors { code } } }",
                false,
            ),
            ("{ node(id: 5000000000) { id } }", false),
        ] {
            assert_eq!(refused(query), wrong, "{query}");
        }
    }
}
