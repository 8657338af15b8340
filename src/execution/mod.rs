//! The running of awarded work.
