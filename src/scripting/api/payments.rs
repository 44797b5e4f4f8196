//! `payments::`: payments that were made before, by any run.

use rhai::Module;

use crate::scripting::current;
use crate::scripting::effects::Request;
use crate::scripting::reference::FunctionDoc;

/// The namespace.
pub(super) fn module() -> Module {
    let mut module = Module::new();
    function!(module, "get", |context, foreign_id: &str| {
        let foreign_id = foreign_id.to_owned();
        current::step_value(&context, "payments::get", Request::Payment { foreign_id })
    });
    module
}

/// The reference.
pub(super) fn docs() -> Vec<FunctionDoc> {
    vec![FunctionDoc {
        namespace: "payments",
        name: "get",
        signature: "get(foreign_id)",
        text: "The payment with that key, of any run: `#{ foreign_id, kind, status, id, amount, \
               currency, error, is_final }`; `()` if there is none.",
        example: r#"let payment = payments::get("refund-4711");
if payment != () && payment.is_final { log::info(payment.status); }"#
            .to_owned(),
    }]
}
