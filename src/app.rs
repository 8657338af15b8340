//! What the process owns, built once from the configuration.
