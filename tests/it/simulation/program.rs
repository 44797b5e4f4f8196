//! Random handlers, as lists of steps.

use serde_json::{Value, json};

use super::chance::Chance;

/// One step of a handler.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Pays one row.
    Pay,
    /// Pays that many rows.
    PayAll(usize),
    /// Waits for the payment made last, so many hours; goes on at the end of the time.
    Wait(u32),
    /// Waits for all payments made so far, so many hours or however long it takes.
    WaitAll(Option<u32>),
    /// Sleeps so many minutes.
    Sleep(u32),
    /// Waits for an event with this tag, so many hours; goes on at the end of the time.
    WaitFor(usize, u32),
    /// Emits an event with this tag.
    Emit(usize),
    /// Adds to a sum.
    Add(usize),
    /// Asks a shop, which may fail the run.
    Http,
    /// The same, and goes on when it fails.
    HttpCaught,
    /// Pays a row at most once for this key, whichever run comes first.
    Once(usize),
}

/// How many tags and keys there are: few, so that runs meet.
pub const TAGS: usize = 3;

impl Step {
    fn any(chance: &mut Chance) -> Self {
        let hours = u32::try_from(1 + chance.below(48)).unwrap();
        match chance.below(12) {
            0 | 1 => Self::Pay,
            2 => Self::PayAll(1 + chance.below(4)),
            3 => Self::Wait(hours),
            4 => Self::WaitAll(chance.per_mille(500).then_some(hours)),
            5 => Self::Sleep(u32::try_from(chance.below(300)).unwrap()),
            6 => Self::WaitFor(chance.below(TAGS), hours),
            7 => Self::Emit(chance.below(TAGS)),
            8 => Self::Add(1 + chance.below(9)),
            9 => Self::Http,
            10 => Self::HttpCaught,
            _ => Self::Once(chance.below(TAGS)),
        }
    }

    /// What the journal knows the step by, in a handler of that version.
    pub fn request(&self, version: usize) -> Value {
        json!({ "version": version, "step": format!("{self:?}") })
    }

    /// Whether what came before must be on disk first.
    pub fn writes_outside(&self) -> bool {
        match self {
            Self::Pay | Self::PayAll(_) | Self::Http | Self::HttpCaught | Self::Once(_) => true,
            Self::Wait(_)
            | Self::WaitAll(_)
            | Self::Sleep(_)
            | Self::WaitFor(..)
            | Self::Emit(_)
            | Self::Add(_) => false,
        }
    }
}

/// A handler of one to eight steps.
pub fn any(chance: &mut Chance) -> Vec<Step> {
    let steps = 1 + chance.below(8);
    (0..steps).map(|_| Step::any(chance)).collect()
}
