//! Builds the daemon from its parts, runs it and shuts it down.

pub mod watch;
