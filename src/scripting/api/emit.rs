//! `emit(event, value, [options])`.

use std::time::Duration;

use rhai::{Dynamic, Engine, FuncRegistration, Map, NativeCallContext};

use crate::scripting::current::{self, Called};
use crate::scripting::effects::Request;
use crate::scripting::options::Options;
use crate::scripting::reference::FunctionDoc;

/// Adds `emit`.
pub(super) fn add_to(engine: &mut Engine) {
    FuncRegistration::new("emit").register_into_engine(
        engine,
        |context: NativeCallContext, event: &str, value: Dynamic| {
            emit(&context, event, &value, Map::new())
        },
    );
    FuncRegistration::new("emit").register_into_engine(
        engine,
        |context: NativeCallContext, event: &str, value: Dynamic, options: Map| {
            emit(&context, event, &value, options)
        },
    );
}

fn emit(context: &NativeCallContext, event: &str, value: &Dynamic, options: Map) -> Called<()> {
    if event.is_empty() || event.contains('*') {
        return Err(current::invalid(format!(
            "`{event}` is not a name for an event (it must not be empty and have no *)"
        )));
    }
    let after = Options::new("emit", options, &["after"])
        .and_then(|mut options| options.duration("after"))
        .map_err(current::invalid)?
        .unwrap_or(Duration::ZERO);
    let request = Request::Emit {
        event: event.to_owned(),
        value: current::argument("emit", value)?,
        after_ms: u64::try_from(after.as_millis())
            .map_err(|_| current::invalid("emit option `after` is too long"))?,
    };
    current::step(context, "emit", request).map(|_| ())
}

/// Its reference.
pub(super) fn docs() -> Vec<FunctionDoc> {
    vec![FunctionDoc {
        namespace: "",
        name: "emit",
        signature: "emit(event, value, [options])",
        text: "Makes a durable custom event, now or later, for `on(event, …)` in any script.\n\
               Options: `after` (a duration).",
        example: r#"emit("stock_low", #{ currency: "BTC" }, #{ after: "24h" });"#.to_owned(),
    }]
}
