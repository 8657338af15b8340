//! What a GraphQL document may ask for, decided before anything expensive looks at it.
//!
//! ```text
//! text ─ bytes, tokens, brackets ─► parser ─ fields, aliases, directives, depth ─► validation ─► execution
//!         one pass over the bytes             every fragment is costed once
//! ```
//!
//! The parser recurses with every bracket, so a list of a few thousand brackets would overflow its stack and end the process;
//! the validator expands fragments wherever they are spread, so a kilobyte of fragments that spread each other twice would
//! keep it busy for minutes. Neither ever sees such a document: both checks here are linear in its length. Further, the
//! executor runs a repeated field of a mutation once per occurrence, which for payments is a second payment, so a mutation
//! may name each response once.
//!
//! Documents that passed are kept, parsed, under the hash of their text; clients send the same few again and again.

use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::sync::Arc;

use async_graphql::{
    Pos, Positioned,
    parser::{
        self, parse_query,
        types::{Directive, ExecutableDocument, Field, OperationDefinition, OperationType, Selection, SelectionSet},
    },
};
use moka::sync::Cache;
use sha2::{Digest, Sha256};

use super::integers::Integers;
use crate::{config::Limits, error};

/// Why a document is not executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// It asks for too much.
    Limit(String),
    /// It is not GraphQL.
    Syntax(String, Vec<Pos>),
    /// It is GraphQL and yet not a request that is executed.
    Invalid(String, Vec<Pos>),
}

/// The limits with the documents that are known to keep them. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Guard {
    limits: Limits,
    integers: Integers,
    checked: Cache<[u8; 32], Checked>,
}

/// A document that passed, and the length of its text.
#[derive(Clone, Debug)]
struct Checked {
    document: Arc<ExecutableDocument>,
    bytes: u32,
}

impl Guard {
    /// A guard that has seen nothing yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        // The parsed form takes a few dozen times as much as the text that is counted.
        let capacity = limits.document_cache_bytes;
        let checked = Cache::builder().max_capacity(capacity).weigher(|_, it: &Checked| it.bytes.max(64)).build();
        Self { limits, integers: Integers::default(), checked }
    }

    /// The same for documents that are about a schema.
    pub fn over(self, sdl: &str) -> error::Result<Self> {
        Ok(Self { integers: Integers::of(sdl)?, ..self })
    }

    /// The document with this SHA-256 if it passed not long ago.
    pub(super) fn known(&self, hash: &[u8; 32]) -> Option<Arc<ExecutableDocument>> {
        self.checked.get(hash).map(|known| known.document)
    }

    /// Parses a document that keeps the limits, or says which one it breaks.
    pub fn check(&self, text: &str) -> Result<Arc<ExecutableDocument>, Rejected> {
        self.check_as(text, Sha256::digest(text).into())
    }

    /// The same for a text whose SHA-256 is known already.
    pub(super) fn check_as(&self, text: &str, hash: [u8; 32]) -> Result<Arc<ExecutableDocument>, Rejected> {
        if let Some(known) = self.known(&hash) {
            return Ok(known);
        }
        scan(text, &self.limits)?;
        let document = parse_query(text).map_err(|error| syntax(&error))?;
        measure(&document, &self.limits)?;
        self.integers.check(&document)?;
        for (_, operation) in document.operations.iter() {
            plain_selections(&operation.node.selection_set.node)?;
        }
        document.fragments.values().try_for_each(|it| plain_selections(&it.node.selection_set.node))?;
        let document = Arc::new(document);
        let bytes = u32::try_from(text.len()).unwrap_or(u32::MAX);
        self.checked.insert(hash, Checked { document: Arc::clone(&document), bytes });
        Ok(document)
    }
}

fn too_much(what: impl Display, limit: impl Display) -> Rejected {
    Rejected::Limit(format!("The document has too many {what}; {limit} are allowed."))
}

fn too_deep(limit: impl Display) -> Rejected {
    Rejected::Limit(format!("The document is nested too deeply; {limit} levels are allowed."))
}

/// The directives that a document may have, all of them on what it selects.
const DIRECTIVES: [&str; 2] = ["include", "skip"];

/// Whether all directives are known and stand once. The validator does not look at those of `__typename`.
fn plain(directives: &[Positioned<Directive>]) -> Result<(), Rejected> {
    let mut seen = HashSet::new();
    for Positioned { pos, node } in directives {
        let name = node.name.node.as_str();
        if !DIRECTIVES.contains(&name) {
            return Err(Rejected::Invalid(format!("Unknown directive \"@{name}\"."), vec![*pos]));
        }
        if !seen.insert(name) {
            let message = format!("The directive \"@{name}\" can stand only once in one place.");
            return Err(Rejected::Invalid(message, vec![*pos]));
        }
    }
    Ok(())
}

/// Whether a document has no directive but those that everybody knows.
fn plain_selections(set: &SelectionSet) -> Result<(), Rejected> {
    set.items.iter().try_for_each(|item| match &item.node {
        Selection::Field(field) => {
            plain(&field.node.directives)?;
            plain_selections(&field.node.selection_set.node)
        }
        Selection::InlineFragment(inline) => {
            plain(&inline.node.directives)?;
            plain_selections(&inline.node.selection_set.node)
        }
        Selection::FragmentSpread(spread) => plain(&spread.node.directives),
    })
}

fn syntax(error: &parser::Error) -> Rejected {
    let positions: Vec<Pos> = error.positions().collect();
    let text = error.to_string();
    // A syntax error is a drawing of several lines, of which the last says what was expected.
    let reason = text.lines().filter_map(|line| line.trim_start().strip_prefix("= ")).next_back();
    let reason = reason.map_or_else(
        || text.lines().next().unwrap_or("the document cannot be read").trim_end_matches('.').to_owned(),
        |expected| expected.replace('_', " "),
    );
    let message = match positions.first() {
        Some(Pos { line, column }) => format!("Syntax error at line {line}, column {column}: {reason}."),
        None => format!("Syntax error: {reason}."),
    };
    Rejected::Syntax(message, positions)
}

/// Reads the document once, byte by byte, counting tokens and the brackets that are open. What stands in strings and comments
/// does not count. A string that does not end is refused here: the parser would try to read it in another way, and what it
/// found then had not been counted.
fn scan(text: &str, limits: &Limits) -> Result<(), Rejected> {
    if text.len() > limits.document_bytes {
        return Err(too_much("bytes", limits.document_bytes));
    }
    let (mut tokens, mut open) = (0, 0);
    let mut rest = text.as_bytes();
    loop {
        let after = match rest {
            [] => return Ok(()),
            [b' ' | b'\t' | b'\r' | b'\n' | b',', after @ ..] => {
                rest = after;
                continue;
            }
            [b'#', after @ ..] => {
                rest = skip_while(after, |byte| !is_line_end(byte));
                continue;
            }
            [b'"', b'"', b'"', after @ ..] => after_block_string(after).ok_or_else(|| unterminated(text, rest))?,
            [b'"', after @ ..] => after_string(after).ok_or_else(|| unterminated(text, rest))?,
            [b'.', b'.', b'.', after @ ..] => after,
            [b'{' | b'[' | b'(', after @ ..] => {
                open += 1;
                if open > limits.nesting {
                    return Err(too_deep(limits.nesting));
                }
                after
            }
            [b'}' | b']' | b')', after @ ..] => {
                open = open.saturating_sub(1);
                after
            }
            [first, after @ ..] if is_word(*first) => skip_while(after, |byte| is_word(byte) || byte == b'.'),
            [_, after @ ..] => after,
        };
        tokens += 1;
        if tokens > limits.tokens {
            return Err(too_much("tokens", limits.tokens));
        }
        rest = after;
    }
}

/// What a name or a number is made of.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'+') || !byte.is_ascii()
}

fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

fn skip_while(mut rest: &[u8], more: impl Fn(u8) -> bool) -> &[u8] {
    while let [byte, after @ ..] = rest
        && more(*byte)
    {
        rest = after;
    }
    rest
}

fn after_string(mut rest: &[u8]) -> Option<&[u8]> {
    loop {
        rest = match rest {
            [b'"', after @ ..] => return Some(after),
            [] | [b'\n' | b'\r', ..] => return None,
            [b'\\', _, after @ ..] | [_, after @ ..] => after,
        };
    }
}

fn after_block_string(mut rest: &[u8]) -> Option<&[u8]> {
    loop {
        rest = match rest {
            [b'"', b'"', b'"', after @ ..] => return Some(after),
            [] => return None,
            [b'\\', b'"', b'"', b'"', after @ ..] | [_, after @ ..] => after,
        };
    }
}

fn unterminated(text: &str, rest: &[u8]) -> Rejected {
    let before = text.get(..text.len().saturating_sub(rest.len())).unwrap_or_default();
    let line = before.lines().count().max(1);
    let column = before.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1;
    let line = if before.ends_with('\n') { line + 1 } else { line };
    let message = format!("Syntax error at line {line}, column {column}: the string does not end.");
    Rejected::Syntax(message, vec![Pos { line, column }])
}

/// What a selection set comes to when its fragments are written out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cost {
    fields: u64,
    aliases: u64,
    directives: u64,
    /// Fields inside one another.
    depth: u32,
    /// Selection sets inside one another, those of fragments included.
    levels: u32,
    /// Fields of this level alone.
    width: u64,
    /// Values that a schema of usual size has for these fields, if they are fields of introspection.
    values: u64,
    /// The values of what is introspection.
    introspection: u64,
}

/// How many a list of introspection usually has; what follows a wrapped type is asked for less and less often.
fn in_introspection(name: &str, values: u64) -> u64 {
    match name {
        "types" => values.saturating_mul(200),
        "fields" => values.saturating_mul(12),
        "directives" | "enumValues" | "possibleTypes" => values.saturating_mul(5),
        "inputFields" => values.saturating_mul(4),
        "args" => values.saturating_mul(2),
        "ofType" => values / 2,
        _ => values,
    }
}

impl Cost {
    /// This beside another one in the same selection set.
    fn beside(self, other: Self) -> Self {
        Self {
            fields: self.fields.saturating_add(other.fields),
            aliases: self.aliases.saturating_add(other.aliases),
            directives: self.directives.saturating_add(other.directives),
            depth: self.depth.max(other.depth),
            levels: self.levels.max(other.levels),
            width: self.width.saturating_add(other.width),
            values: self.values.saturating_add(other.values),
            introspection: self.introspection.saturating_add(other.introspection),
        }
    }

    fn with_directives(self, directives: usize) -> Self {
        Self { directives: self.directives.saturating_add(count(directives)), ..self }
    }

    fn keeps(self, limits: &Limits) -> Result<(), Rejected> {
        if self.fields > limits.fields {
            Err(too_much("fields", limits.fields))
        } else if self.aliases > limits.aliases {
            Err(too_much("aliases", limits.aliases))
        } else if self.directives > limits.directives {
            Err(too_much("directives", limits.directives))
        } else if self.introspection > limits.introspection {
            Err(Rejected::Limit("The document asks for too much of the schema at once.".to_owned()))
        } else if self.depth > limits.depth {
            Err(too_deep(limits.depth))
        } else if self.levels > limits.nesting {
            Err(too_deep(limits.nesting))
        } else {
            Ok(())
        }
    }
}

fn count(items: usize) -> u64 {
    u64::try_from(items).unwrap_or(u64::MAX)
}

/// Checks what the parsed document comes to, every operation and every fragment of it: the validator walks all of them,
/// whichever operation is asked for.
fn measure(document: &ExecutableDocument, limits: &Limits) -> Result<(), Rejected> {
    let mut meter = Meter { document, limits, costs: HashMap::new() };
    for (_, operation) in document.operations.iter() {
        meter.operation(&operation.node)?;
    }
    for (name, fragment) in &document.fragments {
        meter.fragment(name.as_str(), fragment.pos, 0)?.keeps(limits)?;
    }
    Ok(())
}

/// Costs selection sets; the cost of a fragment is found once.
struct Meter<'a> {
    document: &'a ExecutableDocument,
    limits: &'a Limits,
    /// `None` while the fragment is being costed: whoever meets it again has walked in a circle.
    costs: HashMap<&'a str, Option<Cost>>,
}

impl<'a> Meter<'a> {
    fn operation(&mut self, operation: &'a OperationDefinition) -> Result<(), Rejected> {
        let on_variables: usize = operation.variable_definitions.iter().map(|it| it.node.directives.len()).sum();
        let cost = self
            .selections(&operation.selection_set.node, 0)?
            .with_directives(operation.directives.len())
            .with_directives(on_variables);
        cost.keeps(self.limits)?;
        if cost.width > self.limits.root_fields {
            return Err(too_much("fields at the root", self.limits.root_fields));
        }
        match operation.ty {
            OperationType::Query => Ok(()),
            OperationType::Mutation => mutation(operation),
            OperationType::Subscription => subscription(operation),
        }
    }

    /// `level` is how deep in the recursion this is, which bounds it before the cost is known.
    fn selections(&mut self, set: &'a SelectionSet, level: u32) -> Result<Cost, Rejected> {
        if set.items.is_empty() {
            return Ok(Cost::default());
        }
        if level >= self.limits.nesting {
            return Err(too_deep(self.limits.nesting));
        }
        let mut cost = Cost::default();
        for selection in &set.items {
            let item = match &selection.node {
                Selection::Field(field) => self.field(&field.node, level)?,
                Selection::InlineFragment(fragment) => self
                    .selections(&fragment.node.selection_set.node, level + 1)?
                    .with_directives(fragment.node.directives.len()),
                Selection::FragmentSpread(spread) => self
                    .fragment(spread.node.fragment_name.node.as_str(), selection.pos, level + 1)?
                    .with_directives(spread.node.directives.len()),
            };
            cost = cost.beside(item);
        }
        cost.levels = cost.levels.saturating_add(1);
        Ok(cost)
    }

    fn field(&mut self, field: &'a Field, level: u32) -> Result<Cost, Rejected> {
        let inner = self.selections(&field.selection_set.node, level + 1)?.with_directives(field.directives.len());
        let name = field.name.node.as_str();
        let values = in_introspection(name, inner.values).saturating_add(1);
        let introspection = if matches!(name, "__schema" | "__type") { values } else { inner.introspection };
        Ok(Cost {
            values,
            introspection,
            fields: inner.fields.saturating_add(1),
            aliases: inner.aliases.saturating_add(u64::from(field.alias.is_some())),
            depth: inner.depth.saturating_add(1),
            width: 1,
            ..inner
        })
    }

    fn fragment(&mut self, name: &str, at: Pos, level: u32) -> Result<Cost, Rejected> {
        // A fragment that nobody defined costs nothing and still has to be walked, so it cannot be left to the validator.
        let Some((name, fragment)) = self.document.fragments.get_key_value(name) else {
            return Err(Rejected::Invalid(format!("Unknown fragment \"{name}\"."), vec![at]));
        };
        match self.costs.get(name.as_str()) {
            Some(Some(cost)) => Ok(*cost),
            Some(None) => Err(Rejected::Invalid(format!("Fragment \"{name}\" contains itself."), vec![at])),
            None => {
                self.costs.insert(name.as_str(), None);
                let cost = self
                    .selections(&fragment.node.selection_set.node, level)?
                    .with_directives(fragment.node.directives.len());
                self.costs.insert(name.as_str(), Some(cost));
                Ok(cost)
            }
        }
    }
}

fn mutation(operation: &OperationDefinition) -> Result<(), Rejected> {
    let mut names = HashSet::new();
    for selection in &operation.selection_set.node.items {
        let Selection::Field(Positioned { node: field, .. }) = &selection.node else {
            return Err(Rejected::Invalid(
                "A mutation names its fields directly, without fragments.".to_owned(),
                vec![selection.pos],
            ));
        };
        let name = field.response_key().node.as_str();
        if !names.insert(name) {
            let message = format!("A mutation may have one response named \"{name}\"; give each call its own alias.");
            return Err(Rejected::Invalid(message, vec![selection.pos]));
        }
    }
    Ok(())
}

fn subscription(operation: &OperationDefinition) -> Result<(), Rejected> {
    let set = &operation.selection_set;
    let [selection] = set.node.items.as_slice() else {
        return Err(Rejected::Invalid("A subscription has exactly one field at its root.".to_owned(), vec![set.pos]));
    };
    let refused = match &selection.node {
        Selection::Field(field) if field.node.name.node.starts_with("__") => {
            "A subscription's one field cannot be one of introspection."
        }
        Selection::Field(field) if !field.node.directives.is_empty() => {
            "A subscription's one field cannot be skipped or included."
        }
        Selection::Field(_) => return Ok(()),
        Selection::InlineFragment(_) | Selection::FragmentSpread(_) => {
            "A subscription names its one field directly, without fragments."
        }
    };
    Err(Rejected::Invalid(refused.to_owned(), vec![selection.pos]))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    /// Checks under the default limits, and that no answer takes long: a check that is not linear would hang here.
    fn check(text: &str) -> Result<Arc<ExecutableDocument>, Rejected> {
        let started = Instant::now();
        let answer = Guard::new(Limits::default()).check(text);
        assert!(started.elapsed() < Duration::from_secs(2), "took {:?}", started.elapsed());
        answer
    }

    #[track_caller]
    fn over_limit(text: &str, what: &str) {
        match check(text) {
            Err(Rejected::Limit(message)) if message.contains(what) => {}
            other => panic!("expected a limit on {what}, got {other:?}"),
        }
    }

    #[track_caller]
    fn invalid(text: &str, what: &str) {
        match check(text) {
            Err(Rejected::Invalid(message, positions)) if message.contains(what) && positions.len() == 1 => {}
            other => panic!("expected {what:?}, got {other:?}"),
        }
    }

    /// `count` pieces of text, numbered.
    fn pieces(count: u32, piece: impl Fn(u32) -> String) -> String {
        (0..count).map(piece).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn ordinary_documents_pass() {
        for text in [
            "{ a }",
            "query Q($id: ID!, $n: Int = 5) @d { node(id: $id) { ...F ... on User { name } } } fragment F on Node { id }",
            "mutation { a: bump b: bump }",
            "subscription { ticks(n: 3) }",
            "{ a(text: \"[[[[ # \\\" \") b(text: \"\"\"{{{{ \\\"\"\" \"quoted\" \"\"\") } # ((((",
            "{ a(text: \"\", list: [1, -2.5e+3, [\"\"]]) }",
        ] {
            assert!(check(text).is_ok(), "{text}: {:?}", check(text));
        }
    }

    #[test]
    fn a_known_document_is_not_parsed_again() {
        let guard = Guard::new(Limits::default());
        let first = guard.check("{ a }").unwrap();
        assert!(Arc::ptr_eq(&first, &guard.check("{ a }").unwrap()));
        assert!(!Arc::ptr_eq(&first, &guard.check("{ a  }").unwrap()));
    }

    #[test]
    fn brackets_are_counted_before_the_parser_recurses() {
        for depth in [65, 500, 2_000, 10_000] {
            over_limit(&format!("{{ a(x: {}{}) }}", "[".repeat(depth), "]".repeat(depth)), "nested");
            over_limit(&format!("{{ a(x: {}1{}) }}", "{x:".repeat(depth), "}".repeat(depth)), "nested");
            over_limit(&format!("{}a{}", "{a".repeat(depth), "}".repeat(depth)), "nested");
            over_limit(&format!("query($x: {}Int{}) {{ a }}", "[".repeat(depth), "]".repeat(depth)), "nested");
        }
    }

    #[test]
    fn brackets_cannot_hide_in_strings_that_are_none() {
        let deep = "[".repeat(2_000);
        // Without the closing quotes the parser reads an empty string, a string of one space, and then the brackets.
        for text in [
            format!("{{ a(x: [\"\"\" \" {deep}"),
            format!("{{ a(x: \" {deep}"),
            format!("{{ a(x: \"\n {deep}"),
            format!("{{ a(x: \"\"\"\" {deep}"),
        ] {
            assert!(matches!(check(&text), Err(Rejected::Syntax(..))), "{:?}", check(&text));
        }
        over_limit(&format!("{{ a # \"\n (x: {deep}"), "nested");
        over_limit(&format!("{{ a # \"\r (x: {deep}"), "nested");
        over_limit(&format!("{{ a(x: \"\\\\\", y: {deep}"), "nested");
    }

    #[test]
    fn an_unterminated_string_is_found_where_it_begins() {
        let Err(Rejected::Syntax(message, positions)) = check("{\n  a(x: \"b) }") else { panic!() };
        assert_eq!(positions, [Pos { line: 2, column: 8 }]);
        assert_eq!(message, "Syntax error at line 2, column 8: the string does not end.");
    }

    #[test]
    fn size_and_tokens_are_bounded() {
        over_limit(&format!("{{ a }} # {}", "x".repeat(64 * 1024)), "bytes");
        over_limit(&format!("{{ {} }}", "a ".repeat(4_000)), "tokens");
        over_limit(&format!("{{ a(x: [{}]) }}", "1,".repeat(4_000)), "tokens");
        assert!(check(&format!("{{ a(x: \"{}\") }} #{}", "1,".repeat(9_000), "{".repeat(9_000))).is_ok());
    }

    #[test]
    fn twenty_thousand_aliases_of_typename_are_refused() {
        let aliases = |count| pieces(count, |n| format!("a{n}:__typename"));
        assert!(matches!(check(&format!("{{ {} }}", aliases(20_000))), Err(Rejected::Limit(_))));
        over_limit(&format!("{{ a {{ {} }} }}", aliases(201)), "aliases");
    }

    #[test]
    fn laced_fragments_are_costed_once_each() {
        // 31 fragments of which each spreads the next one twice: 849 bytes that stand for two thousand million fields.
        let fragments = pieces(30, |n| format!("fragment F{n} on Q{{...F{0} ...F{0}}}", n + 1));
        let lace = format!("{{...F0}}{fragments}");
        over_limit(&format!("{lace}fragment F30 on Q{{a}}"), "fields");
        invalid(&lace, "Unknown fragment \"F30\"");
        // The same where no operation uses it.
        over_limit(&format!("{{a}}{fragments}fragment F30 on Q{{a}}"), "fields");
    }

    #[test]
    fn long_chains_of_fragments_are_too_deep() {
        let chain = pieces(400, |n| format!("fragment F{n} on Q{{...F{}}}", n + 1));
        over_limit(&format!("{{...F0}}{chain}fragment F400 on Q{{a}}"), "nested");
    }

    #[test]
    fn fragments_do_not_contain_themselves() {
        invalid("{...A} fragment A on Q {...A}", "contains itself");
        invalid("{...A} fragment A on Q { a {...B} } fragment B on Q { b {...A} }", "contains itself");
        invalid("{a} fragment A on Q {...B} fragment B on Q {...A}", "contains itself");
    }

    #[test]
    fn depth_directives_and_root_fields_are_bounded() {
        over_limit(&format!("{}a{}", "{a".repeat(17), "}".repeat(17)), "nested");
        over_limit(&format!("{{ a {} }}", "@skip(if: false) ".repeat(51)), "directives");
        over_limit(&format!("query {} {{ a }}", "@d ".repeat(51)), "directives");
        over_limit(&format!("query($x: Int {}) {{ a }}", "@d ".repeat(51)), "directives");
        let roots = |count| pieces(count, |n| format!("f{n}"));
        over_limit(&format!("{{ {} }}", roots(31)), "root");
        over_limit(&format!("{{ ...R ...R }} fragment R on Q {{ {} }}", roots(16)), "root");
    }

    #[test]
    fn the_standard_introspection_query_fits() {
        let of_type = (0..9).fold("kind name".to_owned(), |inner, _| format!("kind name ofType {{ {inner} }}"));
        let text = format!(
            "query IntrospectionQuery {{ __schema {{ queryType {{ name }} types {{ ...FullType }} \
             directives {{ name args {{ ...InputValue }} }} }} }} \
             fragment FullType on __Type {{ kind fields(includeDeprecated: true) {{ name args {{ ...InputValue }} \
             type {{ ...TypeRef }} }} }} \
             fragment InputValue on __InputValue {{ name type {{ ...TypeRef }} defaultValue }} \
             fragment TypeRef on __Type {{ {of_type} }}"
        );
        assert!(check(&text).is_ok(), "{:?}", check(&text));
    }

    #[test]
    fn a_mutation_names_each_response_once() {
        invalid("mutation { bump bump }", "one response named \"bump\"");
        invalid("mutation { bump other: bump other: bump }", "one response named \"other\"");
        invalid("mutation { ...F } fragment F on Mutation { bump }", "without fragments");
        invalid("mutation { ... { bump } }", "without fragments");
        invalid("query A { a } mutation B { bump bump }", "one response named");
    }

    #[test]
    fn a_subscription_has_one_field() {
        invalid("subscription { a b }", "exactly one");
        invalid("subscription { a a }", "exactly one");
        invalid("subscription { ...F } fragment F on Subscription { a b }", "without fragments");
        invalid("subscription { __typename }", "introspection");
        invalid("subscription { a @skip(if: true) }", "skipped");
    }

    #[test]
    fn syntax_errors_take_one_line() {
        for text in ["", "{", "{ a(", "query Q { a } query Q { b }", "{ a } { b }", "garbage", "\u{0}"] {
            let Err(Rejected::Syntax(message, _)) = check(text) else { panic!("{text:?} passed") };
            assert!(!message.contains('\n') && message.starts_with("Syntax error"), "{text:?}: {message}");
        }
        let Err(Rejected::Syntax(message, positions)) = check("{ a(") else { panic!() };
        assert_eq!(positions, [Pos { line: 1, column: 5 }]);
        assert!(message.starts_with("Syntax error at line 1, column 5: expected"), "{message}");
    }

    #[test]
    fn any_text_is_answered() {
        let parts =
            ["{", "}", "[", "(", "\"", "\"\"\"", "\\", "...", "a", "#", "\n", "é", ":", "1", "$", "fragment A on B"];
        let mut state = 7_u64;
        for _ in 0..20_000 {
            let mut text = String::from("{");
            for _ in 0..24 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                text += parts[usize::try_from(state >> 33).unwrap() % parts.len()];
            }
            let _ = Guard::new(Limits::default()).check(&text);
        }
    }
}
