//! Payments: the state machine, the record that carries one through it, what proves that a
//! transaction of the gateway is ours, and when patience with an unknown fate is at its end.

mod journal;
mod likeness;
mod mask;
mod patience;
mod record;
mod state;

pub use journal::{Line, Unfoldable, fold, tell};
pub use likeness::{Likeness, likeness};
pub use mask::{masked, masked_json};
pub use patience::{AtTheEnd, Patience};
pub use record::{Content, Difference, Origin, Payment, Reply, StoryLine};
pub use state::{Event, IllegalTransition, NextStep, Reported, State, next, next_step};
