//! Payments: the state machine, and the record that carries one through it.

mod record;
mod state;

pub use record::{Content, Difference, Origin, Payment, StoryLine};
pub use state::{Event, IllegalTransition, NextStep, Reported, State, next, next_step};
