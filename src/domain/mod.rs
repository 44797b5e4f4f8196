//! What Bursar decides, without doing anything: pure types and functions.
//!
//! Nothing here reads a clock, a file, the network or a random number; nothing here is async.
//! Everything else in the crate performs what this module decides. That is what makes the rules
//! that protect money testable on their own, and what makes recovery take the same decisions as
//! live work.

pub mod approval;
pub mod callback;
pub mod clock;
pub mod diagnostic;
pub mod duration;
pub mod exact;
pub mod handler;
pub mod id;
pub mod idempotency;
pub mod money;
pub mod operation;
pub mod pause;
pub mod payment;
pub mod person;
pub mod plan;
pub mod policy;
pub mod retry;
pub mod run;
pub mod schedule;
pub mod secret;
pub mod signature;
pub mod wait;
