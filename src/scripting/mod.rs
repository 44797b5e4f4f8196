//! Scripts: reading them, compiling and checking them as a set, and executing their handlers.
//!
//! The only module that knows Rhai. It performs no I/O but reading the scripts folder: whatever a
//! handler asks of the world goes through [`effects::Effects`]. It knows neither runs nor their
//! journal, neither the gateway nor the store. `daemon` compiles sets, `runner` executes handlers,
//! `cli` checks folders and prints the reference.

mod api;
mod call_check;
mod current;
pub mod effects;
mod engine;
mod errors;
mod json;
mod module_jail;
mod options;
mod reference;
mod registration;
mod script_set;
mod sources;

#[cfg(test)]
mod fake_world;

pub use reference::{FunctionDoc, reference};
pub use script_set::{Ended, Known, Script, ScriptError, ScriptSet};
pub use sources::{MAX_SOURCE_BYTES, Sources};
