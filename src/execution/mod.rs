//! The running of awarded work.
pub mod sandbox;
