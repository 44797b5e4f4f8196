//! `state::` and `shared_state::`: durable values by key.

use rhai::{Dynamic, Module, NativeCallContext};
use serde_json::Value;

use crate::domain::money::{json_from_decimal, parse_decimal};
use crate::scripting::current::{self, Called};
use crate::scripting::effects::{Request, Space, StateAccess};
use crate::scripting::options::type_in_words;
use crate::scripting::reference::FunctionDoc;

/// One of the two namespaces.
pub(super) struct Kind {
    namespace: &'static str,
    space: Space,
}

/// The script's own.
pub(super) const SCRIPT: Kind = Kind {
    namespace: "state",
    space: Space::Script,
};

/// All scripts'.
pub(super) const SHARED: Kind = Kind {
    namespace: "shared_state",
    space: Space::Shared,
};

fn access(
    context: &NativeCallContext,
    space: Space,
    function: &str,
    access: StateAccess,
) -> Called<Dynamic> {
    let namespace = match space {
        Space::Script => SCRIPT.namespace,
        Space::Shared => SHARED.namespace,
    };
    let request = Request::State { space, access };
    current::step_value(context, &format!("{namespace}::{function}"), request)
}

fn get(context: &NativeCallContext, space: Space, key: &str, default: Dynamic) -> Called<Dynamic> {
    let key = key.to_owned();
    let found = access(context, space, "get", StateAccess::Get { key })?;
    let value = found
        .try_cast::<rhai::Array>()
        .and_then(|mut recorded| recorded.pop());
    Ok(value.unwrap_or(default))
}

/// What can be added: a number, or a text that is one.
fn number(value: &Dynamic) -> Called<Value> {
    if value.is_int() || value.is_decimal() {
        return current::argument("add", value);
    }
    if let Ok(text) = value.as_immutable_string_ref() {
        return parse_decimal(&text)
            .map(json_from_decimal)
            .map_err(|error| current::invalid(format!("add: {error}")));
    }
    let found = type_in_words(value);
    Err(current::invalid(format!("add takes a number, not {found}")))
}

/// The namespace.
pub(super) fn module(kind: &Kind) -> Module {
    let space = kind.space;
    let mut module = Module::new();
    function!(module, "get", |context, key: &str| {
        get(&context, space, key, Dynamic::UNIT)
    });
    function!(module, "get", |context, key: &str, default: Dynamic| {
        get(&context, space, key, default)
    });
    function!(module, "set", |context, key: &str, value: Dynamic| {
        current::argument("set", &value).and_then(|value| {
            let key = key.to_owned();
            access(&context, space, "set", StateAccess::Set { key, value })
        })
    });
    function!(module, "remove", |context, key: &str| {
        let key = key.to_owned();
        access(&context, space, "remove", StateAccess::Remove { key })
    });
    function!(module, "add", |context, key: &str, value: Dynamic| {
        number(&value).and_then(|number| {
            let key = key.to_owned();
            access(&context, space, "add", StateAccess::Add { key, number })
        })
    });
    function!(module, "list", |context, prefix: &str| {
        let prefix = prefix.to_owned();
        access(&context, space, "list", StateAccess::List { prefix })
    });
    module
}

/// The reference.
pub(super) fn docs(kind: &Kind) -> Vec<FunctionDoc> {
    let doc = |name, signature, text, example: &str| FunctionDoc {
        namespace: kind.namespace,
        name,
        signature,
        text,
        example: example.replace("state::", &format!("{}::", kind.namespace)),
    };
    vec![
        doc(
            "get",
            "get(key, [default])",
            "The value of a key; the default, or `()`, when it has none. `state::` belongs to the \
             script alone, `shared_state::` to all scripts.",
            r#"let seen = state::get("seen", 0);"#,
        ),
        doc(
            "set",
            "set(key, value)",
            "Sets a key, in the same durable commit as the run's journal.",
            r#"state::set("last", #{ id: 7, amount: 1.50 });"#,
        ),
        doc(
            "remove",
            "remove(key)",
            "Removes a key; answers whether it had a value.",
            r#"if state::remove("last") { log::info("removed"); }"#,
        ),
        doc(
            "add",
            "add(key, number)",
            "Adds to a number that starts at 0 and answers the sum, exactly. A retried run never \
             adds twice.",
            r#"let balance = state::add("balance/customer-7", 0.1);"#,
        ),
        doc(
            "list",
            "list(prefix)",
            "A map of all keys with that prefix and their values.",
            r#"for key in state::list("balance/").keys() { log::info(key); }"#,
        ),
    ]
}
