//! `log::`, `print` and `debug`: lines in the run's log.

use rhai::{Dynamic, Engine, FuncRegistration, Map, Module, NativeCallContext};
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

/// Adds `print` and `debug`.
pub(super) fn add_to(engine: &mut Engine) {
    FuncRegistration::new("print").register_into_engine(
        engine,
        |context: NativeCallContext, value: Dynamic| {
            line(
                &context,
                "print",
                LogLevel::Info,
                shown(&value),
                Value::Null,
            )
        },
    );
    FuncRegistration::new("debug").register_into_engine(
        engine,
        |context: NativeCallContext, value: Dynamic| {
            let site = current::site(&context);
            let fields = json!({"file": site.file, "line": site.line});
            line(
                &context,
                "debug",
                LogLevel::Debug,
                format!("{value:?}"),
                fields,
            )
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
