//! What a check finds: what is wrong and where, and what cannot be checked.

use std::fmt::Display;

use serde::Serialize;

/// Something in a document that is not right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The place in the document, for example `bids[2].score.total`.
    pub at: String,
    /// What is wrong there, as a clause that follows the place.
    pub why: String,
}

/// All that was found in one document.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Findings {
    /// What is not right; empty when everything that can be derived is.
    pub problems: Vec<Finding>,
    /// What rests on the word of the market, in sentences.
    pub notes: Vec<String>,
}

impl Findings {
    /// Something is wrong.
    pub fn problem(&mut self, at: impl Into<String>, why: impl Into<String>) {
        self.problems.push(Finding { at: at.into(), why: why.into() });
    }

    /// Something cannot be checked.
    pub fn note(&mut self, what: impl Into<String>) {
        self.notes.push(what.into());
    }

    /// What is stated must be what is right.
    pub fn expect<T: Copy + PartialEq + Display>(&mut self, at: impl Into<String>, stated: T, right: T) {
        if stated != right {
            self.problem(at, format!("is {stated} and should be {right}"));
        }
    }

    /// The same for what may be absent.
    pub fn expect_maybe<T: PartialEq + Display>(&mut self, at: impl Into<String>, stated: Option<T>, right: Option<T>) {
        if stated != right {
            let spelled = |value: Option<T>| value.map_or_else(|| "null".to_owned(), |value| value.to_string());
            self.problem(at, format!("is {} and should be {}", spelled(stated), spelled(right)));
        }
    }

    /// A condition must hold.
    pub fn demand(&mut self, holds: bool, at: impl Into<String>, why: &str) {
        if !holds {
            self.problem(at, why);
        }
    }

    /// A condition that usually holds; where it does not, it is told and nothing is wrong.
    pub fn remark(&mut self, holds: bool, otherwise: &str) {
        if !holds {
            self.note(otherwise);
        }
    }
}
