//! `log::`, `print` and `debug`: lines in the run's log.

use rhai::{
    Array, Dynamic, Engine, FnPtr, FuncRegistration, ImmutableString, Map, Module,
    NativeCallContext, Variant,
};
use serde_json::{Value, json};

use super::secret::SecretText;
use crate::scripting::current::{self, Called};
use crate::scripting::effects::{LogLevel, Request};
use crate::scripting::reference::FunctionDoc;

const LEVELS: [(&str, LogLevel); 3] = [
    ("info", LogLevel::Info),
    ("warn", LogLevel::Warn),
    ("error", LogLevel::Error),
];

fn line(
    context: &NativeCallContext,
    name: &str,
    level: LogLevel,
    text: String,
    fields: Value,
) -> Called<()> {
    let request = Request::Log {
        level,
        text,
        fields,
    };
    current::step(context, name, request).map(|_| ())
}

/// A value as a line.
fn shown(value: &Dynamic) -> String {
    value
        .clone()
        .try_cast::<SecretText>()
        .map_or_else(|| value.to_string(), |secret| format!("{secret:?}"))
}

/// Adds `print` and `debug`. Rhai has its own for some types, which lead nowhere and would be taken
/// before one for values of any type, so those types have one each.
pub(super) fn add_to(engine: &mut Engine) {
    add_for::<Dynamic>(engine);
    add_for::<ImmutableString>(engine);
    add_for::<char>(engine);
    add_for::<bool>(engine);
    add_for::<()>(engine);
    add_for::<Array>(engine);
    add_for::<Map>(engine);
    add_for::<FnPtr>(engine);
}

fn add_for<T: Variant + Clone>(engine: &mut Engine) {
    FuncRegistration::new("print").register_into_engine(
        engine,
        |context: NativeCallContext, value: T| {
            let text = shown(&Dynamic::from(value));
            line(&context, "print", LogLevel::Info, text, Value::Null)
        },
    );
    FuncRegistration::new("debug").register_into_engine(
        engine,
        |context: NativeCallContext, value: T| {
            let site = current::site(&context);
            let fields = json!({"file": site.file, "line": site.line});
            let text = format!("{:?}", Dynamic::from(value));
            line(&context, "debug", LogLevel::Debug, text, fields)
        },
    );
}

/// The namespace.
pub(super) fn module() -> Module {
    let mut module = Module::new();
    for (name, level) in LEVELS {
        function!(module, name, |context, text: Dynamic| {
            line(&context, "log", level, shown(&text), Value::Null)
        });
        function!(module, name, |context, text: Dynamic, fields: Map| {
            current::argument("log", &Dynamic::from_map(fields))
                .and_then(|fields| line(&context, "log", level, shown(&text), fields))
        });
    }
    module
}

/// The reference.
pub(super) fn docs() -> Vec<FunctionDoc> {
    let doc = |namespace, name, signature, text, example: &str| FunctionDoc {
        namespace,
        name,
        signature,
        text,
        example: example.to_owned(),
    };
    vec![
        doc(
            "log",
            "info",
            "info(text, [fields])",
            "A line in the run's log.",
            r#"log::info("paid", #{ count: 3 });"#,
        ),
        doc(
            "log",
            "warn",
            "warn(text, [fields])",
            "A warning in the run's log.",
            r#"log::warn("balance is low", #{ currency: "BTC" });"#,
        ),
        doc(
            "log",
            "error",
            "error(text, [fields])",
            "An error in the run's log; the run goes on.",
            r#"log::error("the shop does not know this customer");"#,
        ),
        doc(
            "",
            "print",
            "print(value)",
            "As `log::info`, of any value.",
            r"print(1 + 1);",
        ),
        doc(
            "",
            "debug",
            "debug(value)",
            "A line of level debug with file and line; texts are shown with quotes.",
            r"debug(#{ amount: 0.1 + 0.2 });",
        ),
    ]
}
