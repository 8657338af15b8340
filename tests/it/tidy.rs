//! The architecture as a test: who may use whom, what rules may contain, where the edge's libraries may be named.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// The dependency rule of the source tree: each module with its rank, from the ground up. A module may use modules of a lower
/// rank, itself, and those of its own rank that are listed as exceptions.
const RANKS: &[(&str, u8)] = &[
    ("trace", 0),
    ("voucher", 0),
    ("error", 1),
    ("caller", 1),
    ("config", 1),
    ("plan", 2),
    ("store", 2),
    ("ledger", 3),
    ("user", 3),
    ("agent", 4),
    ("webhook", 5),
    ("reputation", 5),
    ("channel", 5),
    ("auction", 6),
    ("document", 7),
    ("task", 8),
    ("execution", 9),
    ("delegation", 10),
    ("metrics", 11),
    ("sweep", 11),
    ("app", 12),
    ("graphql", 13),
    ("transport", 14),
    ("cli", 15),
    ("main", 16),
    ("lib", 16),
];

/// `error` is what the other two of its rank answer with.
const EXCEPTIONS: &[(&str, &str)] = &[("caller", "error"), ("config", "error")];

/// Names that may stand only in the files below the given folders.
const CONFINED: &[(&str, &[&str])] = &[
    ("async_graphql", &["src/graphql/", "src/transport/"]),
    ("axum", &["src/transport/", "src/cli/"]),
    ("wasmtime", &["src/execution/sandbox/", "src/agent/modules.rs"]),
    ("object_store", &["src/agent/modules.rs"]),
    ("jsonwebtoken", &["src/user/"]),
    ("argon2", &["src/user/", "src/config.rs"]),
    ("opentelemetry", &["src/trace.rs", "src/cli/otlp.rs"]),
];

/// What a `rules.rs` must not name: it decides from values alone.
const IMPURE: &[&str] = &[
    "async ",
    ".await",
    "ConnectionTrait",
    "&Work",
    "mut Work",
    "Store",
    "Clock",
    "tracing::",
    "DatabaseTransaction",
    "Utc::now",
];

/// Names of modules that say nothing.
const EMPTY_NAMES: &[&str] =
    &["utils", "util", "common", "core", "helper", "helpers", "manager", "service", "types", "misc"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn files(folder: &str) -> BTreeMap<String, String> {
    let mut found = Vec::new();
    sources(&root().join(folder), &mut found);
    found
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
            (name, fs::read_to_string(&path).unwrap())
        })
        .collect()
}

/// The code of a file without its tests: everything before the first `#[cfg(test)]`, and nothing of a file of tests. Comments are
/// left out too.
fn code(name: &str, text: &str) -> String {
    if name.ends_with("/tests.rs") || name.contains("/tests/") {
        return String::new();
    }
    let text = text.find("#[cfg(test)]\nmod tests {").map_or(text, |end| &text[..end]);
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn module_of(name: &str) -> &str {
    let rest = name.strip_prefix("src/").unwrap();
    rest.split(['/', '.']).next().unwrap()
}

fn rank(module: &str) -> u8 {
    RANKS
        .iter()
        .find(|(known, _)| *known == module)
        .unwrap_or_else(|| panic!("src/{module} has no rank: add it to the dependency table"))
        .1
}

/// The top-level modules of this crate that a piece of code names, also inside `use crate::{…}`.
fn used_modules(code: &str) -> Vec<String> {
    let mut used = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0_usize;
            let mut word = String::new();
            for letter in group.chars() {
                match letter {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => {
                        used.push(std::mem::take(&mut word));
                        continue;
                    }
                    _ => {}
                }
                if depth == 0 {
                    word.push(letter);
                }
            }
            used.push(word);
        } else {
            used.push(rest.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect());
        }
    }
    used.into_iter()
        .map(|word| word.trim().split("::").next().unwrap().trim().split(' ').next().unwrap().to_owned())
        .filter(|word| RANKS.iter().any(|(known, _)| known == word))
        .collect()
}

#[test]
fn a_module_uses_only_what_stands_above_it() {
    let mut broken = Vec::new();
    for (name, text) in files("src") {
        let module = module_of(&name);
        for used in used_modules(&code(&name, &text)) {
            let allowed = used == module || rank(&used) < rank(module) || EXCEPTIONS.contains(&(module, used.as_str()));
            if !allowed {
                broken.push(format!("{name} uses {used}"));
            }
        }
    }
    assert!(broken.is_empty(), "the dependency rule is broken:\n{}", broken.join("\n"));
}

#[test]
fn rules_are_pure() {
    let mut broken = Vec::new();
    for (name, text) in files("src").into_iter().filter(|(name, _)| name.ends_with("/rules.rs")) {
        let code = code(&name, &text);
        // `Work` is a type, and `WorkNotOffered` is not.
        let whole = |word: &str| code.split(|letter: char| !letter.is_alphanumeric()).any(|name| name == word);
        let is_named = |word: &&&str| if **word == "Work" { whole(word) } else { code.contains(**word) };
        broken.extend(IMPURE.iter().filter(is_named).map(|word| format!("{name} names {word}")));
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn the_libraries_of_the_edge_stay_at_the_edge() {
    let mut broken = Vec::new();
    for (name, text) in files("src") {
        let code = code(&name, &text);
        for (library, places) in CONFINED {
            let named = code.contains(&format!("{library}::")) || code.contains(&format!("{library}!"));
            if named && !places.iter().any(|place| name.starts_with(place)) {
                broken.push(format!("{name} names {library}"));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn only_the_ledger_writes_the_books() {
    let mut broken = Vec::new();
    for (name, text) in files("src").into_iter().filter(|(name, _)| !name.starts_with("src/ledger/")) {
        let code = code(&name, &text);
        for table in ["account", "transfer", "entry", "hold", "hold_resolution"] {
            for verb in ["insert", "insert_many", "update", "update_many", "delete", "delete_many", "delete_by_id"] {
                if code.contains(&format!("{table}::Entity::{verb}(")) {
                    broken.push(format!("{name} writes {table}"));
                }
            }
            if code.contains(&format!("{table}::ActiveModel")) {
                broken.push(format!("{name} makes a row of {table}"));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn modules_have_names_that_say_something_and_open_with_what_they_are() {
    for (name, text) in files("src").into_iter().chain(files("entity/src")).chain(files("migration/src")) {
        let stem = Path::new(&name).file_stem().unwrap().to_string_lossy().into_owned();
        assert!(!EMPTY_NAMES.contains(&stem.as_str()), "{name} says nothing");
        assert!(text.starts_with("//!"), "{name} does not say what it is");
    }
}

/// Where a value is dropped on purpose, with the reason at the place.
const DROPPED: &[&str] = &[
    "src/agent/modules.rs",
    "src/cli/client.rs",
    "src/cli/mod.rs",
    "src/cli/output.rs",
    "src/cli/settings.rs",
    "src/graphql/loader.rs",
    "src/store/keys.rs",
    "src/transport/ws.rs",
];

#[test]
fn nothing_is_left_unfinished_or_swallowed() {
    let mut broken = Vec::new();
    for (name, text) in files("src").into_iter().chain(files("entity/src")).chain(files("migration/src")) {
        for line in code(&name, &text).lines() {
            let unfinished = ["todo!", "unimplemented!", "FIXME"].iter().any(|word| line.contains(word));
            let swallowed = line.contains("let _ = ") && !DROPPED.contains(&name.as_str());
            if unfinished || swallowed {
                broken.push(format!("{name}: {}", line.trim()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}
