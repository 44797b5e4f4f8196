//! What starts handlers: the one-second wake-up, the planner of slots, and the intake of callbacks.
//!
//! Everything here computes or signals; nothing is stored and nothing is run. The runner asks the
//! planner at each wake-up and the verifier for each callback, makes the answer durable, and then
//! acts on it.

pub mod intake;
pub mod planner;
pub mod wakeups;
