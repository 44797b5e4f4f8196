//! `once(key, || …)`.

use rhai::{Array, Dynamic, Engine, FnPtr, FuncRegistration, NativeCallContext};

use crate::scripting::current::{self, Called};
use crate::scripting::effects::Request;
use crate::scripting::reference::FunctionDoc;

/// Adds `once`.
pub(super) fn add_to(engine: &mut Engine) {
    FuncRegistration::new("once").register_into_engine(
        engine,
        |context: NativeCallContext, key: &str, function: FnPtr| once(&context, key, &function),
    );
}

fn once(context: &NativeCallContext, key: &str, function: &FnPtr) -> Called<Dynamic> {
    let begin = Request::OnceBegin {
        key: key.to_owned(),
    };
    let recorded = current::step_value(context, "once", begin)?;
    if let Some(value) = recorded
        .try_cast::<Array>()
        .and_then(|mut values| values.pop())
    {
        return Ok(value);
    }
    execute(context, key, function).inspect_err(|_| current::once_failed())
}

fn execute(context: &NativeCallContext, key: &str, function: &FnPtr) -> Called<Dynamic> {
    let value = function.call_within_context::<Dynamic>(context, ())?;
    let end = Request::OnceEnd {
        key: key.to_owned(),
        value: current::argument("once", &value)?,
    };
    current::step(context, "once", end)?;
    Ok(value)
}

/// Its reference.
pub(super) fn docs() -> Vec<FunctionDoc> {
    vec![FunctionDoc {
        namespace: "",
        name: "once",
        signature: "once(key, || …)",
        text: "Runs the closure at most once successfully per script and key, for ever, and \
               answers the recorded value afterwards. When the closure fails, nothing is recorded.\n\
               While another run is in the midst of it, that is a `timeout`, and the run is tried \
               again later.",
        example: r#"let address = once("welcome/customer-7", || {
    http::post("https://shop.example/welcome", #{ customer: 7 }).status
});"#
            .to_owned(),
    }]
}
