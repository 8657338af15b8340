//! The hand of the clock: a loop of verbs for what is due.
