//! `json::`: JSON with exact numbers.

use rhai::{Dynamic, Engine, FuncRegistration, Map, Module};
use serde_json::Value;

use crate::scripting::current::{self, Called};
use crate::scripting::effects::{Code, Failure};
use crate::scripting::json;
use crate::scripting::reference::FunctionDoc;

fn parse(text: &str) -> Called<Dynamic> {
    let invalid = |message: String| {
        current::failure(Failure::new(
            Code::InvalidData,
            format!("json::parse: {message}"),
        ))
    };
    let value: Value = serde_json::from_str(text).map_err(|error| invalid(error.to_string()))?;
    json::to_dynamic(value).map_err(invalid)
}

fn stringify(value: &Dynamic) -> Called<String> {
    current::argument("json::stringify", value).map(|value| value.to_string())
}

/// Puts an exact `to_json` in the place of Rhai's, which sends decimals through binary fractions.
pub(super) fn add_to(engine: &mut Engine) {
    FuncRegistration::new("to_json")
        .register_into_engine(engine, |map: Map| stringify(&Dynamic::from_map(map)));
}

/// The namespace.
pub(super) fn module() -> Module {
    let mut module = Module::new();
    function!(module, "parse", |context, text: &str| parse(text));
    function!(module, "stringify", |context, value: Dynamic| stringify(
        &value
    ));
    module
}

/// The reference.
pub(super) fn docs() -> Vec<FunctionDoc> {
    vec![
        FunctionDoc {
            namespace: "json",
            name: "parse",
            signature: "parse(text)",
            text: "The value of a JSON text. Numbers with a point are exact decimals; a number \
                   that cannot be held exactly is `invalid_data`.",
            example: r#"let amount = json::parse(`{"amount": 1.10}`).amount;"#.to_owned(),
        },
        FunctionDoc {
            namespace: "json",
            name: "stringify",
            signature: "stringify(value)",
            text: "The JSON text of a value, numbers exact.",
            example: r"let text = json::stringify(#{ amount: 1.10, paid: true });".to_owned(),
        },
        FunctionDoc {
            namespace: "",
            name: "to_json",
            signature: "to_json(map)",
            text: "As `json::stringify`, for a map: `map.to_json()`.",
            example: r"let text = #{ amount: 1.10 }.to_json();".to_owned(),
        },
    ]
}
