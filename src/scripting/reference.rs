//! The reference of what scripts may call. The texts stand beside the functions, in `api`; a test
//! keeps them complete and runs their examples.

use super::api;

/// The reference of one function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionDoc {
    /// `gateway`, `state`, …; empty for what is called without one.
    pub namespace: &'static str,
    /// The name.
    pub name: &'static str,
    /// How it is called, optional parameters in brackets: `get(key, [default])`.
    pub signature: &'static str,
    /// What it does.
    pub text: &'static str,
    /// How it is used: statements as they stand in a handler, or a whole script when
    /// they register handlers themselves.
    pub example: String,
}

impl FunctionDoc {
    /// The name as it is called: `state::get`.
    #[must_use]
    pub fn full_name(&self) -> String {
        if self.namespace.is_empty() {
            self.name.to_owned()
        } else {
            format!("{}::{}", self.namespace, self.name)
        }
    }

    /// `state::get(key, [default])`
    #[must_use]
    pub fn full_signature(&self) -> String {
        if self.namespace.is_empty() {
            self.signature.to_owned()
        } else {
            format!("{}::{}", self.namespace, self.signature)
        }
    }
}

/// Every function that scripts may call beyond Rhai's own, in the order to read them in.
#[must_use]
pub fn reference() -> Vec<FunctionDoc> {
    api::docs()
}

/// The reference of the function called `full_name`.
pub(super) fn doc_of(full_name: &str) -> Option<FunctionDoc> {
    reference()
        .into_iter()
        .find(|doc| doc.full_name() == full_name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::scripting::effects::Effects;
    use crate::scripting::fake_world::{FakeWorld, compile, execute_with, limits, soon};
    use crate::scripting::{Ended, Sources, engine};

    /// What is registered to make operators and texts work, and is not called by name.
    const SILENT: [&str; 3] = ["+", "to_debug", "to_string"];

    #[test]
    fn every_registered_function_is_in_the_reference_and_nothing_else_is() {
        let engine = engine::build(&Sources::default(), &limits(), Arc::default());
        let registered: BTreeSet<String> = engine
            .collect_fn_metadata(
                None,
                |info| Some((info.namespace.to_string(), info.metadata.name.to_string())),
                false,
            )
            .into_iter()
            .filter(|(_, name)| !SILENT.contains(&name.as_str()))
            .map(|(namespace, name)| match namespace.as_str() {
                "" => name,
                _ => format!("{namespace}::{name}"),
            })
            .collect();
        let documented: Vec<String> = reference().iter().map(FunctionDoc::full_name).collect();
        assert_eq!(registered, documented.iter().cloned().collect());
        assert_eq!(documented.len(), registered.len(), "documented twice");
    }

    #[test]
    fn every_example_runs() {
        for doc in reference() {
            let world = FakeWorld::new().with_file("notes.txt", "hello").with_file(
                "payouts.csv",
                "id,currency,amount,address,customer\n1,BTC,0.5,tb1q,c-1\n",
            );
            let event = json!({
                "date": "2026-11-22",
                "crypto_address": {"currency": "BTC"},
                "currency_received": {"amount": 1},
            });
            let ended = if doc.example.contains("|event|") || doc.example.contains("|tick|") {
                let set = compile(&[("t.rhai", &doc.example)]);
                let handler = &set.handlers()[0].id;
                let effects = Arc::clone(&world) as Arc<dyn Effects>;
                set.execute(handler, event, effects, soon())
            } else {
                execute_with(&world, &doc.example, &event)
            };
            match ended {
                Ended::Returned(_) => {}
                Ended::Failed(error) => panic!("{}: {}", doc.full_name(), error.diagnostic),
                Ended::Interrupted(interrupt) => panic!("{}: {interrupt:?}", doc.full_name()),
            }
            let uses = format!("{}(", doc.name);
            assert!(doc.example.contains(&uses), "{}", doc.full_name());
            assert!(doc.signature.starts_with(&uses), "{}", doc.full_name());
        }
    }
}
