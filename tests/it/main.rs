//! The integration tests: one binary, a file a noun.

mod tidy;
