//! What is known of an agent.
