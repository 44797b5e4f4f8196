//! `schedule` and `on`.

use rhai::{Engine, FnPtr, FuncRegistration, Map, NativeCallContext};

use crate::scripting::current::Called;
use crate::scripting::reference::FunctionDoc;
use crate::scripting::registration;

/// Adds `schedule` and `on`.
pub(super) fn add_to(engine: &mut Engine) {
    FuncRegistration::new("schedule").register_into_engine(
        engine,
        |context: NativeCallContext, name: &str, cron: &str, function: FnPtr| -> Called<()> {
            registration::schedule(&context, name, cron, Map::new(), function)
        },
    );
    FuncRegistration::new("schedule").register_into_engine(
        engine,
        |context: NativeCallContext,
         name: &str,
         cron: &str,
         options: Map,
         function: FnPtr|
         -> Called<()> { registration::schedule(&context, name, cron, options, function) },
    );
    FuncRegistration::new("on").register_into_engine(
        engine,
        |context: NativeCallContext, pattern: &str, function: FnPtr| -> Called<()> {
            registration::on(&context, pattern, Map::new(), function)
        },
    );
    FuncRegistration::new("on").register_into_engine(
        engine,
        |context: NativeCallContext, pattern: &str, options: Map, function: FnPtr| -> Called<()> {
            registration::on(&context, pattern, options, function)
        },
    );
}

/// Their reference.
pub(super) fn docs() -> Vec<FunctionDoc> {
    vec![
        FunctionDoc {
            namespace: "",
            name: "schedule",
            signature: "schedule(name, cron, [options], |tick| …)",
            text: "Registers a handler that starts on a cron schedule: 5 fields, or 6 with seconds \
                   first. Top level only. (script, name) is its identity for ever.\n\
                   Options: `timezone` (default \"UTC\"), `missed`: \"skip\" | \"last\" | \"all\" \
                   (default \"skip\"), `overlap`: \"skip\" | \"queue\" | \"allow\" (default \
                   \"skip\"), `jitter` (a duration), `retry: #{ attempts, first, max }`, \
                   `timeout` (a duration).\n\
                   `tick` has `scheduled_at`, `date`, `fired_at`, `name`, `late` and `missed`.",
            example: r#"schedule("payroll", "0 9 * * MON-FRI", #{ timezone: "Europe/Berlin" }, |tick| {
    log::info(`paying for ${tick.date}`);
});"#
                .to_owned(),
        },
        FunctionDoc {
            namespace: "",
            name: "on",
            signature: "on(event, [options], |event| …)",
            text: "Registers a handler for callbacks of the gateway (\"type.status\", with * for \
                   either part, or * for everything) and for custom events made with `emit`. Top \
                   level only.\n\
                   Options: `name` (default: the event), `where` (exact matches on dotted paths), \
                   `retry: #{ attempts, first, max }`, `timeout`.\n\
                   `event` is the callback as a map, with amounts as decimals, and `kind`, \
                   `final`, `received_at`, `paid` and `source`.",
            example: r#"on("deposit.confirmed", #{ where: #{ "crypto_address.currency": "BTC" } }, |event| {
    log::info(`got ${event.currency_received.amount}`);
});"#
                .to_owned(),
        },
    ]
}
