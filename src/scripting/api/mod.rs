//! What scripts may call: one file per namespace, each with its functions, their reference texts
//! and an example of each.

/// Adds a function to a namespace's module: module, name, closure. The closure's errors are placed
/// where the script called.
macro_rules! function {
    ($module:expr, $name:expr, |$context:ident $(, $argument:ident: $type:ty)*| $body:expr) => {
        rhai::FuncRegistration::new($name).set_into_module(
            &mut $module,
            move |$context: rhai::NativeCallContext $(, $argument: $type)*| {
                let answer = $body;
                crate::scripting::current::placed(&$context, answer)
            },
        )
    };
}

mod csv;
mod emit;
mod file;
mod gateway;
mod http;
mod json;
mod log;
mod once;
mod payments;
mod register;
pub(super) mod secret;
mod state;
mod time;
mod wait;

use std::collections::BTreeSet;
use std::sync::Arc;

use rhai::{Engine, Module};

use super::reference::FunctionDoc;

/// Adds every function to `engine`. `secrets` are the names that `secret(…)` knows.
pub(super) fn add_to(engine: &mut Engine, secrets: Arc<BTreeSet<String>>) {
    register::add_to(engine);
    once::add_to(engine);
    emit::add_to(engine);
    secret::add_to(engine, secrets);
    json::add_to(engine);
    log::add_to(engine);
    wait::add_to(engine);
    for (namespace, module) in namespaces() {
        engine.register_static_module(namespace, module.into());
    }
}

/// The namespaces and what is in them.
pub(super) fn namespaces() -> Vec<(&'static str, Module)> {
    vec![
        ("csv", csv::module()),
        ("file", file::module()),
        ("gateway", gateway::module()),
        ("http", http::module()),
        ("json", json::module()),
        ("log", log::module()),
        ("payments", payments::module()),
        ("shared_state", state::module(&state::SHARED)),
        ("state", state::module(&state::SCRIPT)),
        ("time", time::module()),
    ]
}

/// The reference of everything, in the order it is read in.
pub(super) fn docs() -> Vec<FunctionDoc> {
    [
        register::docs(),
        gateway::docs(),
        payments::docs(),
        wait::docs(),
        state::docs(&state::SCRIPT),
        state::docs(&state::SHARED),
        once::docs(),
        emit::docs(),
        http::docs(),
        csv::docs(),
        json::docs(),
        file::docs(),
        log::docs(),
        time::docs(),
        secret::docs(),
    ]
    .concat()
}
