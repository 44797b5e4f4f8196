//! Keys that are the same on every retry: derived from what makes a thing *this* thing, never from
//! time or chance.

use super::id::{Firing, ForeignId, HandlerId, digest};

/// Where in a handler a payment or a write stands.
#[derive(Debug, Clone, Copy)]
pub enum Position<'a> {
    /// A step of a run, and the row in a batch.
    Step {
        /// The run's handler.
        handler: &'a HandlerId,
        /// What started the run.
        firing: &'a Firing,
        /// The step in the run's journal, from 0.
        step: u64,
        /// The row in a batch, from 0; 0 for a single one.
        row: usize,
    },
    /// A step inside `once(key, …)`: whichever run gets there, it is the same one.
    Once {
        /// The script whose `once` it is.
        script: &'a str,
        /// Its key.
        key: &'a str,
        /// How many steps stand before it in the closure.
        step: u64,
        /// The row in a batch, from 0; 0 for a single one.
        row: usize,
    },
}

/// The key of what stands at `position`: `bursar-` and 20 hex digits.
#[must_use]
pub fn derive(position: Position<'_>) -> ForeignId {
    let text = match position {
        Position::Step {
            handler,
            firing,
            step,
            row,
        } => digest(&[
            "step",
            &handler.script,
            &handler.name,
            &firing.to_string(),
            &step.to_string(),
            &row.to_string(),
        ]),
        Position::Once {
            script,
            key,
            step,
            row,
        } => digest(&["once", script, key, &step.to_string(), &row.to_string()]),
    };
    format!("bursar-{text}")
        .parse()
        .expect("a prefix and hex digits are a foreign_id")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn keys_are_stable_and_differ_in_every_part() {
        let handlers = ["a", "b"].map(|name| HandlerId {
            script: "s".into(),
            name: name.into(),
        });
        let mut keys = BTreeSet::new();
        let mut count = 0;
        for handler in &handlers {
            for event in ["x", "y"] {
                let firing = Firing::Event(event.into());
                for step in 0..3 {
                    for row in 0..3 {
                        let position = Position::Step {
                            handler,
                            firing: &firing,
                            step,
                            row,
                        };
                        assert_eq!(derive(position), derive(position));
                        keys.insert(derive(position));
                        count += 1;
                    }
                }
            }
        }
        keys.insert(derive(Position::Once {
            script: "s",
            key: "a",
            step: 0,
            row: 0,
        }));
        assert_eq!(keys.len(), count + 1);
    }
}
