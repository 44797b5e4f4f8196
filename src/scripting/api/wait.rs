//! Suspension: `payment.wait`, `list.wait`, `sleep` and `wait_for`.

use std::collections::BTreeMap;
use std::time::Duration;

use rhai::{Array, Dynamic, Engine, FuncRegistration, Map, NativeCallContext};
use serde_json::Value;

use crate::domain::duration;
use crate::scripting::current::{self, Called};
use crate::scripting::effects::{Awaited, Code, Failure, Request};
use crate::scripting::json;
use crate::scripting::options::type_in_words;
use crate::scripting::reference::FunctionDoc;

/// Adds a function that is called without a namespace, or on a value: name, closure.
macro_rules! global {
    ($engine:expr, $name:expr, |$context:ident $(, $argument:ident: $type:ty)*| $body:expr) => {
        FuncRegistration::new($name).register_into_engine(
            $engine,
            |$context: NativeCallContext $(, $argument: $type)*| $body,
        );
    };
}

/// Adds the functions.
pub(super) fn add_to(engine: &mut Engine) {
    global!(engine, "wait", |context, payment: &mut Map| {
        wait(&context, payment, None)
    });
    global!(
        engine,
        "wait",
        |context, payment: &mut Map, timeout: Dynamic| { wait(&context, payment, Some(&timeout)) }
    );
    global!(engine, "wait", |context, payments: &mut Array| {
        wait_all(&context, payments, None)
    });
    global!(
        engine,
        "wait",
        |context, payments: &mut Array, timeout: Dynamic| {
            wait_all(&context, payments, Some(&timeout))
        }
    );
    global!(engine, "sleep", |context, length: &str| {
        sleep(&context, length)
    });
    // So that the error says more than that there is no such function.
    global!(engine, "sleep", |_context, length: i64| {
        Err::<(), _>(current::invalid(format!(
            "sleep takes a duration such as \"{length}s\", not the number {length}"
        )))
    });
    global!(engine, "wait_for", |context, event: &str, filter: Map| {
        wait_for(&context, event, filter, None)
    });
    global!(
        engine,
        "wait_for",
        |context, event: &str, filter: Map, timeout: Dynamic| {
            wait_for(&context, event, filter, Some(&timeout))
        }
    );
}

fn wait(context: &NativeCallContext, payment: &Map, timeout: Option<&Dynamic>) -> Called<Dynamic> {
    let request = Request::Wait {
        on: Awaited::Payment {
            foreign_id: key_of(payment).ok_or_else(|| {
                current::invalid("`wait` is for payments, and this map has no `foreign_id`")
            })?,
        },
        timeout_ms: timeout
            .map(|timeout| milliseconds("wait", timeout))
            .transpose()?,
    };
    current::step_value(context, "wait", request)
}

fn wait_all(
    context: &NativeCallContext,
    payments: &Array,
    timeout: Option<&Dynamic>,
) -> Called<Dynamic> {
    let foreign_ids = payments
        .iter()
        .enumerate()
        .map(|(index, payment)| {
            let key = payment.as_map_ref().ok().and_then(|map| key_of(&map));
            key.ok_or_else(|| {
                current::invalid(format!(
                    "`wait` is for lists of payments, and element {index} is {}",
                    type_in_words(payment)
                ))
            })
        })
        .collect::<Called<Vec<String>>>()?;
    let request = Request::Wait {
        on: Awaited::Payments { foreign_ids },
        timeout_ms: timeout
            .map(|timeout| milliseconds("wait", timeout))
            .transpose()?,
    };
    current::step_value(context, "wait", request)
}

fn key_of(payment: &Map) -> Option<String> {
    let key = payment.get("foreign_id")?;
    key.clone().into_string().ok().filter(|key| !key.is_empty())
}

fn sleep(context: &NativeCallContext, length: &str) -> Called<()> {
    let request = Request::Wait {
        on: Awaited::Time,
        timeout_ms: Some(milliseconds("sleep", &length.into())?),
    };
    current::step(context, "sleep", request).map(|_| ())
}

fn wait_for(
    context: &NativeCallContext,
    event: &str,
    filter: Map,
    timeout: Option<&Dynamic>,
) -> Called<Dynamic> {
    if event.is_empty() {
        return Err(current::invalid("wait_for needs the name of an event"));
    }
    let filter: BTreeMap<String, Value> = filter
        .into_iter()
        .map(|(path, value)| Ok((path.to_string(), current::argument("wait_for", &value)?)))
        .collect::<Called<_>>()?;
    let request = Request::Wait {
        on: Awaited::Event {
            event: event.to_owned(),
            filter,
        },
        timeout_ms: timeout
            .map(|timeout| milliseconds("wait_for", timeout))
            .transpose()?,
    };
    let mut answer = current::step(context, "wait_for", request)?;
    let event = answer.get_mut("event").map(Value::take);
    json::to_dynamic(event.unwrap_or_default()).map_err(|message| {
        current::failure(Failure::new(
            Code::InvalidData,
            format!("wait_for: {message}"),
        ))
    })
}

fn milliseconds(name: &str, length: &Dynamic) -> Called<u64> {
    let text = length.clone().into_string().map_err(|_| {
        current::invalid(format!(
            "{name} takes a duration such as \"90m\", not {}",
            type_in_words(length)
        ))
    })?;
    let length: Duration =
        duration::parse(&text).map_err(|error| current::invalid(format!("{name}: {error}")))?;
    u64::try_from(length.as_millis())
        .map_err(|_| current::invalid(format!("{name}: {text} is too long")))
}

/// The reference.
pub(super) fn docs() -> Vec<FunctionDoc> {
    let doc = |name, signature, text, example: &str| FunctionDoc {
        namespace: "",
        name,
        signature,
        text,
        example: example.to_owned(),
    };
    vec![
        doc(
            "wait",
            "wait(payment, [timeout])",
            "Written `payment.wait(…)`: suspends the run until the payment is final and answers it \
             as it is then; at the end of the timeout throws `timeout`. Written `list.wait(…)` on \
             a list of payments: until all are final; answers `#{ confirmed, failed, open }`, and \
             at the end of the timeout too, with the rest under `open`. A suspended run holds no \
             thread, for however long, over restarts and reloads. Neither the time it waits nor \
             its waiting counts for the handler's limits.",
            r#"let payment = gateway::withdraw(#{
    foreign_id: "refund-4711", currency: "BTC", amount: 0.0002,
    address: "tb1qfdxh6gkfr0qgyatnlkd8khcnxph9tw06n6qwjc", end_user_reference: "customer-7",
}).wait("12h");
log::info(`${payment.foreign_id} is ${payment.status}`);
let settled = [payment].wait("1h");
log::info(`${settled.confirmed.len()} paid, ${settled.failed.len()} failed, ${settled.open.len()} open`);"#,
        ),
        doc(
            "sleep",
            "sleep(duration)",
            "Suspends the run for that long.",
            r#"sleep("10m");"#,
        ),
        doc(
            "wait_for",
            "wait_for(event, where, [timeout])",
            "Suspends the run until an event happens: a callback (`\"invoice.confirmed\"`, `*` for \
             either part) or a custom one, with exact matches on dotted paths as in `on`. Answers \
             the event; at the end of the timeout throws `timeout`. Events that came since the \
             run's firing count, so none is missed between a request and the wait for what comes \
             of it; each is answered once in a run.",
            r#"let invoice = gateway::create_invoice(#{
    foreign_id: "order-99", timer: true, title: "Order 99", currency: "EUR", amount: 100,
    end_user_reference: "customer-7", email_user: "customer@shop.example",
    url_success: "https://shop.example/paid", url_failed: "https://shop.example/failed",
});
let paid = wait_for("invoice.confirmed", #{ foreign_id: "order-99" }, "24h");
log::info(`order 99: ${paid.kind}`);"#,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::scripting::Ended;
    use crate::scripting::effects::{Awaited, Code, Interrupt, Request};
    use crate::scripting::fake_world::{FakeWorld, execute_with, returned};

    #[test]
    fn waits_ask_for_what_they_wait_for() {
        let world = FakeWorld::new();
        let body = r#"
            let payment = #{ foreign_id: "a" };
            let one = payment.wait("2h");
            let all = [payment, #{ foreign_id: "b" }].wait();
            sleep("10m");
            let event = wait_for("invoice.*", #{ "currency.id": 7 }, "1d");
            [one.status, all.confirmed.len(), event.kind]
        "#;
        assert_eq!(returned(&world, body), json!(["confirmed", 2, "invoice.*"]));
        let wait = |on, timeout_ms| Request::Wait { on, timeout_ms };
        let payment = |id: &str| Awaited::Payment {
            foreign_id: id.to_owned(),
        };
        assert_eq!(
            world.asked(),
            [
                wait(payment("a"), Some(7_200_000)),
                wait(
                    Awaited::Payments {
                        foreign_ids: vec!["a".to_owned(), "b".to_owned()],
                    },
                    None
                ),
                wait(Awaited::Time, Some(600_000)),
                wait(
                    Awaited::Event {
                        event: "invoice.*".to_owned(),
                        filter: [("currency.id".to_owned(), json!(7))].into(),
                    },
                    Some(86_400_000)
                ),
            ]
        );
    }

    #[test]
    fn a_suspension_cannot_be_caught_and_a_timeout_can() {
        let suspended = r#"
            try { #{ foreign_id: "later" }.wait(); } catch { log::info("caught"); }
            log::info("gone on");
        "#;
        let world = FakeWorld::new();
        assert_eq!(
            execute_with(&world, suspended, &json!({})),
            Ended::Interrupted(Interrupt::Suspended)
        );
        assert!(world.logged().is_empty());
        let timed_out = r#"
            let code = "";
            try { #{ foreign_id: "open" }.wait("1s"); } catch (e) { code = e.code; }
            code
        "#;
        assert_eq!(returned(&world, timed_out), json!("timeout"));
    }

    #[test]
    fn what_cannot_be_waited_for_is_refused() {
        for (body, said) in [
            ("#{ a: 1 }.wait()", "no `foreign_id`"),
            (
                "[#{ foreign_id: `a` }, 7].wait()",
                "element 1 is the number 7",
            ),
            ("sleep(10)", r#""10s""#),
            (r#"sleep("soon")"#, "soon"),
            ("#{ foreign_id: `a` }.wait(5)", "a duration such as"),
            (r#"wait_for("", #{})"#, "name of an event"),
        ] {
            let Ended::Failed(error) = execute_with(&FakeWorld::new(), body, &json!({})) else {
                panic!("`{body}` is not refused");
            };
            assert_eq!(error.failure.unwrap().code, Code::InvalidArgument, "{body}");
            let text = error.diagnostic.to_string();
            assert!(text.contains(said), "{body}: {text}");
        }
    }
}
