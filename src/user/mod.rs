//! Users, sessions, keys.
