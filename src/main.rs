//! The `zerostate` binary.

fn main() {}
