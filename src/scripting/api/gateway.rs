//! `gateway::`: one function per operation of the gateway's API.

use rhai::{Array, Dynamic, Map, Module, NativeCallContext};
use serde_json::{Value, json};

use crate::domain::operation::{Effect, Operation};
use crate::scripting::current::{self, Called};
use crate::scripting::effects::{Code, Failure, Request};
use crate::scripting::options::{Options, type_in_words};
use crate::scripting::reference::FunctionDoc;

/// The most requests a batch may ask to have in flight, as in `gateway.max_in_flight`.
const MAX_CONCURRENCY: u32 = 256;

/// The namespace.
pub(super) fn module() -> Module {
    let mut module = Module::new();
    for operation in Operation::ALL {
        let name = operation.name();
        if takes_arguments(operation) {
            function!(module, name, |context, arguments: Map| {
                current::argument(&full_name(operation), &Dynamic::from_map(arguments))
                    .and_then(|arguments| call(&context, operation, arguments))
            });
        }
        if takes_nothing(operation) {
            function!(module, name, |context| call(&context, operation, json!({})));
        }
    }
    for operation in [Operation::ListPairs, Operation::ListRates] {
        function!(module, operation.name(), |context, from: &str, to: &str| {
            let arguments = json!({"currency_from": from, "currency_to": to});
            call(&context, operation, arguments)
        });
    }
    let info = Operation::TransactionInfo;
    function!(module, info.name(), |context, foreign_id: &str| {
        call(&context, info, json!({ "foreign_id": foreign_id }))
    });
    function!(module, "withdraw_all", |context, payments: Array| {
        withdraw_all(&context, &payments, Map::new())
    });
    function!(
        module,
        "withdraw_all",
        |context, payments: Array, options: Map| { withdraw_all(&context, &payments, options) }
    );
    module
}

fn full_name(operation: Operation) -> String {
    format!("gateway::{operation}")
}

fn takes_arguments(operation: Operation) -> bool {
    !matches!(operation, Operation::Ping | Operation::ListAccounts)
}

fn takes_nothing(operation: Operation) -> bool {
    matches!(
        operation,
        Operation::Ping
            | Operation::ListAccounts
            | Operation::ListCurrencies
            | Operation::ListPairs
            | Operation::ListRates
    )
}

fn call(context: &NativeCallContext, operation: Operation, arguments: Value) -> Called<Dynamic> {
    let request = match operation.effect() {
        Effect::Pay => Request::Pay {
            operation,
            arguments,
        },
        Effect::Read | Effect::Create => Request::Gateway {
            operation,
            arguments,
        },
    };
    current::step_value(context, &full_name(operation), request)
}

fn withdraw_all(context: &NativeCallContext, payments: &Array, options: Map) -> Called<Dynamic> {
    let name = "gateway::withdraw_all";
    let read = || {
        let mut options = Options::new("withdraw_all", options, &["concurrency", "approve"])?;
        let approve = options.flag("approve")?.unwrap_or(false);
        let concurrency = match options.count("concurrency")? {
            Some(count) if count > MAX_CONCURRENCY => Err(format!(
                "withdraw_all option `concurrency` must be at most {MAX_CONCURRENCY}"
            )),
            count => Ok(count.and_then(|count| usize::try_from(count).ok())),
        };
        Ok::<_, String>((concurrency?, approve))
    };
    let (concurrency, approve) = read().map_err(current::invalid)?;
    let mut rows = Vec::with_capacity(payments.len());
    let mut errors = Vec::new();
    for (index, payment) in payments.iter().enumerate() {
        if payment.is_map() {
            match current::argument(name, payment) {
                Ok(row) => rows.push(row),
                Err(error) => errors.push(format!("payment {index}: {error}")),
            }
        } else {
            let found = type_in_words(payment);
            errors.push(format!("payment {index} must be a map, not {found}"));
        }
    }
    if !errors.is_empty() {
        return Err(current::failure(Failure {
            code: Code::InvalidArgument,
            message: format!("{name}: {}", errors.join("; ")),
            details: json!({ "errors": errors }),
        }));
    }
    let request = Request::PayAll {
        payments: rows,
        concurrency,
        approve,
    };
    current::step_value(context, name, request)
}

/// The reference.
pub(super) fn docs() -> Vec<FunctionDoc> {
    let mut docs: Vec<FunctionDoc> = DOCS
        .into_iter()
        .map(|(operation, signature, text, example)| FunctionDoc {
            namespace: "gateway",
            name: operation.name(),
            signature,
            text,
            example: example.to_owned(),
        })
        .collect();
    docs.push(FunctionDoc {
        namespace: "gateway",
        name: "withdraw_all",
        signature: "withdraw_all(list, [options])",
        text: "Sends many withdrawals with a bounded number in flight and answers their payments \
               in the same order. All are validated before the first is sent, and the errors of \
               all are reported at once. Each map is as in `gateway::withdraw`.\n\
               Options: `concurrency` (default `gateway.max_in_flight`); `approve`: with `true`, \
               people must approve of the batch as a whole first. Then the rows are also checked \
               against the gateway's currencies, precision, minimums and tags, the batch becomes a \
               plan (`bursar batches show`), and the run waits, suspended, until the plan is \
               decided. Exactly what was approved is paid. When it is rejected, nobody decides \
               in time, or the script asks for something else than before, it throws \
               `policy_refused`, and none of it is paid. The same happens without the option when \
               policy leaves any of the payments to people.",
        example: r#"let rows = csv::read("payouts.csv");
let payments = gateway::withdraw_all(rows.map(|row| #{
    foreign_id: `payroll-2026-11-22-${row.id}`,
    currency: row.currency,
    amount: row.amount,
    address: row.address,
    end_user_reference: row.customer,
}), #{ concurrency: 4, approve: true });
log::info(`${payments.len()} sent`);"#
            .to_owned(),
    });
    docs
}

/// Signature, text and example of each operation.
const DOCS: [(Operation, &str, &str, &str); 14] = [
    (
        Operation::Ping,
        "ping()",
        "Asks whether the gateway is there; answers its text.",
        r"log::info(gateway::ping());",
    ),
    (
        Operation::ListAccounts,
        "list_accounts()",
        "The merchant's balances: a list of `#{ currency, type, balance }`.",
        r"for account in gateway::list_accounts() {
    if account.balance < 0.5 { log::warn(`${account.currency} is low: ${account.balance}`); }
}",
    ),
    (
        Operation::ListCurrencies,
        "list_currencies([map])",
        "The currencies with their minimum amounts, fees and precision. The map may have `visible`.",
        r"let currencies = gateway::list_currencies();
let minimum = currencies.find(|c| c.currency == `BTC`).minimum_amount;",
    ),
    (
        Operation::ListPairs,
        "list_pairs([from, to])",
        "The pairs that can be exchanged, with their minimum amounts and rates; also with a map of `currency_from` and `currency_to`.",
        r#"let pairs = gateway::list_pairs("BTC", "EUR");"#,
    ),
    (
        Operation::ListRates,
        "list_rates([from, to])",
        "The rates between currencies; also with a map of `currency_from` and `currency_to`.",
        r#"let rate = gateway::list_rates("BTC", "EUR")[0].rate_to;"#,
    ),
    (
        Operation::TakeAddress,
        "take_address(map)",
        "A deposit address for a customer. Remembered: the same `foreign_id`, `currency` and `convert_to` give the same address without asking the gateway again.",
        r#"let address = gateway::take_address(#{
    foreign_id: "customer-7", currency: "BTC", convert_to: "EUR", end_user_reference: "customer-7",
}).address;"#,
    ),
    (
        Operation::Withdraw,
        "withdraw(map)",
        "Pays out; answers the payment. With `convert_to` the amount is converted, and `amount_to` gives the amount to arrive instead of `amount`. Amounts are decimals or decimal texts and are kept exactly. Without `foreign_id` the key is derived from the run and the step. Same key and same content: the recorded payment, nothing is sent again. Same key and other content: `conflict`.",
        r#"let payment = gateway::withdraw(#{
    foreign_id: "refund-4711", currency: "BTC", amount: 0.0002,
    address: "tb1qfdxh6gkfr0qgyatnlkd8khcnxph9tw06n6qwjc", end_user_reference: "customer-7",
});
log::info(`${payment.foreign_id} is ${payment.status}`);"#,
    ),
    (
        Operation::WithdrawInstant,
        "withdraw_instant(map)",
        "Pays out within two minutes (BTC, BCH, LTC, DOGE; the account must allow it); answers the payment. As `withdraw`.",
        r#"let payment = gateway::withdraw_instant(#{
    foreign_id: "instant-12", currency: "LTC", amount: "1.5",
    address: "ltc1qexample", end_user_reference: "customer-7",
});"#,
    ),
    (
        Operation::CalculateExchange,
        "calculate_exchange(map)",
        "A quote for 60 seconds: `sender_currency`, `receiver_currency` and one of `sender_amount` and `receiver_amount`.",
        r#"let quote = gateway::calculate_exchange(#{
    sender_currency: "BTC", receiver_currency: "EUR", sender_amount: 0.02,
});"#,
    ),
    (
        Operation::ExchangeFixed,
        "exchange_fixed(map)",
        "Exchanges at the price of a quote; answers the payment. Amount and `price` must be those of the quote.",
        r#"let quote = gateway::calculate_exchange(#{ sender_currency: "BTC", receiver_currency: "EUR", sender_amount: 0.02 });
let payment = gateway::exchange_fixed(#{
    foreign_id: "exchange-1", sender_currency: "BTC", receiver_currency: "EUR",
    sender_amount: quote.sender_amount, price: quote.price,
});"#,
    ),
    (
        Operation::ExchangeNow,
        "exchange_now(map)",
        "Exchanges at the price of the moment; answers the payment. An exchange whose answer is lost has no id to be found by: it is `unknown`, never sent again, and a person decides.",
        r#"let payment = gateway::exchange_now(#{
    foreign_id: "exchange-2", sender_currency: "BTC", receiver_currency: "EUR", sender_amount: 0.02,
});"#,
    ),
    (
        Operation::CreateInvoice,
        "create_invoice(map)",
        "Makes an invoice; answers it with its `url`. The gateway has no look-up for invoices: when its answer is lost the status is `unknown`, there is no `url`, and only a callback can tell.",
        r#"let invoice = gateway::create_invoice(#{
    foreign_id: "order-99", timer: true, title: "Order 99", currency: "EUR", amount: 100,
    end_user_reference: "customer-7", email_user: "customer@shop.example",
    url_success: "https://shop.example/paid", url_failed: "https://shop.example/failed",
});"#,
    ),
    (
        Operation::CreatePaymentRequest,
        "create_payment_request(map)",
        "Makes a payment request; answers it with its `payment_link`. The gateway has no look-up for payment requests: when its answer is lost the status is `unknown`, there is no link, and only a callback can tell.",
        r#"let request = gateway::create_payment_request(#{
    foreign_id: "order-100", amount: "0.3", currency: #{ iso: "ETH" }, life_time_duration: 3600,
});"#,
    ),
    (
        Operation::TransactionInfo,
        "transaction_info(foreign_id)",
        "What the gateway knows about one transaction; also with a map of one of `id`, `foreign_id` and `txid`.",
        r#"let info = gateway::transaction_info("refund-4711");
log::info(info.status);"#,
    ),
];
