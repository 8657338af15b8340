//! Sellers of work.
