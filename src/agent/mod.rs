//! Sellers of work.
pub mod modules;
