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
