//! Which document a request means: the text that it brings, or one that it names.
//!
//! A client may name a document by the SHA-256 of its text (`extensions.persistedQuery`, as Apollo's clients do) once the text
//! has passed the [`Guard`]: both look into the same bounded cache, so nothing can be named that was not measured. With a
//! manifest of trusted documents only what stands in it is executed, whether it is named or sent.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use async_graphql::parser::types::ExecutableDocument;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{
    answer::{Fault, code},
    guard::{Guard, Rejected},
};
use crate::{
    config::Config,
    error::{self, Error},
    graphql,
};

/// What clients put before a name that is a hash.
const HASH_PREFIX: &str = "sha256:";

/// The document of a request, as the request says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// By its text.
    Text(String),
    /// By its name: a hash in hexadecimal digits, or the name in the manifest.
    Named(String),
    /// By its text, with the hash under which it is going to be named.
    Both(String, String),
}

/// `extensions.persistedQuery`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Persisted {
    version: u32,
    sha256_hash: String,
}

impl Wanted {
    /// From the parameters of a request; an empty text is an absent one.
    pub(super) fn new(text: String, name: Option<String>, persisted: Option<Value>) -> Result<Self, Fault> {
        let persisted = persisted.filter(|it| !it.is_null()).map(serde_json::from_value::<Persisted>).transpose();
        let hash = match persisted {
            Ok(None) => None,
            Ok(Some(Persisted { version: 1, sha256_hash })) => Some(sha256_hash),
            Ok(Some(_)) | Err(_) => {
                let message = "`extensions.persistedQuery` must be {\"version\": 1, \"sha256Hash\": \"…\"}.";
                return Err(Fault::misshapen(message));
            }
        };
        let name = name.map(|name| name.strip_prefix(HASH_PREFIX).map_or(name.clone(), str::to_owned));
        match (text.trim().is_empty(), hash.or(name)) {
            (false, None) => Ok(Self::Text(text)),
            (false, Some(hash)) => Ok(Self::Both(text, hash)),
            (true, Some(name)) => Ok(Self::Named(name)),
            (true, None) => Err(Fault::misshapen("`query` must be a string with a GraphQL document.")),
        }
    }

    /// The SHA-256 of the text, if the request brings it or names it.
    pub(super) fn hash(&self) -> Option<[u8; 32]> {
        match self {
            Self::Text(text) | Self::Both(text, _) => Some(hash_of(text)),
            Self::Named(name) => read_hash(name),
        }
    }
}

/// The documents that are executed. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Documents {
    guard: Guard,
    trusted: Option<Arc<Trusted>>,
}

/// A manifest, read.
#[derive(Debug)]
struct Trusted {
    by_name: HashMap<String, Arc<ExecutableDocument>>,
    by_hash: HashMap<[u8; 32], Arc<ExecutableDocument>>,
}

impl Documents {
    /// Reads the manifest of trusted documents if the configuration names one.
    pub(super) fn open(config: &Config) -> error::Result<Self> {
        let guard = Guard::new(config.limits.clone()).over(&graphql::sdl())?;
        let trusted = config.http.trusted_documents.as_deref().map(|path| Trusted::read(path, &guard)).transpose()?;
        Ok(Self { guard, trusted: trusted.map(Arc::new) })
    }

    /// The parsed document, which keeps the limits.
    ///
    /// `hash` is that of the request, if its text is at hand or it names one: it takes a while to reckon, and once is enough.
    pub(super) fn find(&self, wanted: &Wanted, hash: Option<[u8; 32]>) -> Result<Arc<ExecutableDocument>, Fault> {
        if let Some(trusted) = &self.trusted {
            return trusted.find(wanted);
        }
        match wanted {
            Wanted::Text(text) => Ok(self.guard.check_as(text, hash.unwrap_or_else(|| hash_of(text)))?),
            Wanted::Both(text, said) => {
                let of_text = hash.unwrap_or_else(|| hash_of(text));
                let document = self.guard.check_as(text, of_text)?;
                if read_hash(said) == Some(of_text) {
                    Ok(document)
                } else {
                    let message = "The hash of the document is not the SHA-256 of `query`.";
                    Err(Fault::of_graphql(code::BAD_USER_INPUT, message, Vec::new()))
                }
            }
            // The message is the one by which clients know that they have to send the text.
            Wanted::Named(name) => read_hash(name)
                .and_then(|hash| self.guard.known(&hash))
                .ok_or_else(|| Fault::of_graphql(code::UNKNOWN_DOCUMENT, "PersistedQueryNotFound", Vec::new())),
        }
    }
}

impl Trusted {
    /// Reads `{"name": "text"}`, which Relay, urql and GraphQL Code Generator write, or the list of operations of Apollo's tools.
    fn read(path: &Path, guard: &Guard) -> error::Result<Self> {
        let wrong = |what: String| Error::internal(format!("the trusted documents in {}: {what}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let listed = listed(&text).map_err(|error| wrong(error.to_string()))?;
        let (mut by_name, mut by_hash) = (HashMap::new(), HashMap::new());
        for (name, text) in listed {
            let document = guard.check(&text).map_err(|rejected| match rejected {
                Rejected::Limit(why) | Rejected::Syntax(why, _) | Rejected::Invalid(why, _) => {
                    wrong(format!("{name}: {why}"))
                }
            })?;
            by_hash.insert(hash_of(&text), Arc::clone(&document));
            by_name.insert(name, document);
        }
        Ok(Self { by_name, by_hash })
    }

    fn find(&self, wanted: &Wanted) -> Result<Arc<ExecutableDocument>, Fault> {
        let found = match wanted {
            Wanted::Text(text) | Wanted::Both(text, _) => self.by_hash.get(&hash_of(text)),
            Wanted::Named(name) => {
                self.by_name.get(name).or_else(|| read_hash(name).and_then(|hash| self.by_hash.get(&hash)))
            }
        };
        found.map(Arc::clone).ok_or_else(|| Fault {
            status: StatusCode::FORBIDDEN,
            ..Fault::of_graphql(
                code::UNTRUSTED_DOCUMENT,
                "This service executes only the documents that its operator listed.",
                Vec::new(),
            )
        })
    }
}

/// The names and texts of a manifest.
fn listed(text: &str) -> serde_json::Result<Vec<(String, String)>> {
    #[derive(Deserialize)]
    struct Manifest {
        operations: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        id: String,
        body: String,
    }
    if let Ok(manifest) = serde_json::from_str::<Manifest>(text) {
        return Ok(manifest.operations.into_iter().map(|entry| (entry.id, entry.body)).collect());
    }
    serde_json::from_str::<HashMap<String, String>>(text).map(|listed| listed.into_iter().collect())
}

fn hash_of(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
}

/// A hash in hexadecimal digits.
fn read_hash(text: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    hex::decode_to_slice(text, &mut hash).is_ok().then_some(hash)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn documents(manifest: Option<&str>) -> error::Result<Documents> {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::in_folder(folder.path());
        config.http.trusted_documents = manifest.map(|text| {
            let path = folder.path().join("documents.json");
            std::fs::write(&path, text).unwrap();
            path
        });
        Documents::open(&config)
    }

    fn found(documents: &Documents, wanted: &Wanted) -> Result<(), String> {
        documents.find(wanted, wanted.hash()).map(|_| ()).map_err(|fault| fault.code.into_owned())
    }

    fn hex_of(text: &str) -> String {
        hex::encode(hash_of(text))
    }

    #[test]
    fn a_request_brings_a_document_or_names_one() {
        let persisted = |hash: &str| Some(json!({ "version": 1, "sha256Hash": hash }));
        let of = |text: &str, name: Option<&str>, persisted| {
            Wanted::new(text.to_owned(), name.map(str::to_owned), persisted).map_err(|fault| fault.message)
        };
        assert_eq!(of("{a}", None, None), Ok(Wanted::Text("{a}".to_owned())));
        assert_eq!(of("", None, persisted("ab")), Ok(Wanted::Named("ab".to_owned())));
        assert_eq!(of(" ", Some("sha256:ab"), None), Ok(Wanted::Named("ab".to_owned())));
        assert_eq!(of("{a}", None, persisted("ab")), Ok(Wanted::Both("{a}".to_owned(), "ab".to_owned())));
        assert_eq!(of("{a}", None, Some(Value::Null)), Ok(Wanted::Text("{a}".to_owned())));
        for wrong in [json!(1), json!({}), json!({ "version": 2, "sha256Hash": "ab" }), json!({ "version": 1 })] {
            assert!(of("{a}", None, Some(wrong)).is_err());
        }
        assert!(of("", None, None).is_err());
    }

    #[test]
    fn a_document_that_passed_may_be_named_by_its_hash() {
        let documents = documents(None).unwrap();
        let (text, hash) = ("{ a }".to_owned(), hex_of("{ a }"));
        let unknown = Err("PERSISTED_QUERY_NOT_FOUND".to_owned());
        assert_eq!(found(&documents, &Wanted::Named(hash.clone())), unknown);
        let other = Wanted::Both(text.clone(), hex_of("{ b }"));
        assert_eq!(found(&documents, &other), Err("BAD_USER_INPUT".to_owned()));
        assert_eq!(found(&documents, &Wanted::Both(text, hash.to_uppercase())), Ok(()));
        assert_eq!(found(&documents, &Wanted::Named(hash)), Ok(()));
        assert_eq!(found(&documents, &Wanted::Named("x".to_owned())), unknown);
        // What did not pass cannot be named.
        let deep = format!("{{a(x:{}{})}}", "[".repeat(200), "]".repeat(200));
        assert_eq!(
            found(&documents, &Wanted::Both(deep.clone(), hex_of(&deep))),
            Err("QUERY_LIMIT_EXCEEDED".to_owned())
        );
        assert_eq!(found(&documents, &Wanted::Named(hex_of(&deep))), unknown);
    }

    #[test]
    fn with_a_manifest_nothing_else_is_executed() {
        let apollo = json!({ "format": "apollo-persisted-query-manifest", "version": 1,
            "operations": [{ "id": "one", "name": "A", "type": "query", "body": "query A { a }" }] });
        for manifest in [r#"{"one": "query A { a }"}"#, &apollo.to_string()] {
            let documents = documents(Some(manifest)).unwrap();
            let (text, name) = ("query A { a }".to_owned(), "one".to_owned());
            assert_eq!(found(&documents, &Wanted::Named(name)), Ok(()));
            assert_eq!(found(&documents, &Wanted::Named(hex_of(&text))), Ok(()));
            assert_eq!(found(&documents, &Wanted::Text(text.clone())), Ok(()));
            for other in [
                Wanted::Text("{ a }".to_owned()),
                Wanted::Named("two".to_owned()),
                Wanted::Both("{ b }".to_owned(), hex_of(&text)),
            ] {
                assert_eq!(found(&documents, &other), Err("PERSISTED_QUERY_NOT_IN_LIST".to_owned()), "{other:?}");
            }
        }
    }

    #[test]
    fn a_manifest_that_cannot_be_used_is_named() {
        for wrong in ["", "[]", r#"{"one": 1}"#, r#"{"one": "{"}"#, r#"{"one": "mutation { a a }"}"#] {
            assert!(documents(Some(wrong)).is_err(), "{wrong}");
        }
    }
}
