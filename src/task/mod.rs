//! A task's whole life.
