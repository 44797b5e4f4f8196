//! The shipped refund rule, in a daemon against the simulated gateway: every trap on the way from an
//! invoice that fails to the one payment that gives back what came in.

use std::sync::Arc;
use std::time::Duration;

use bursar::domain::operation::Operation as Call;
use bursar::simulator::{Execution, Fault, Faults, Forgery, Operation, Rule};
use serde_json::{Value, json};

use crate::kit::{SetClock, deliver};
use crate::scripts::{MERCHANT, call, line, logged};
use crate::stage::{Running, Stage, eventually, executed};

const REFUNDS: &str = include_str!("../../scripts/refunds.rhai");

/// When the invoices fail, and when no further part may come any more; neither is a slot.
const FAILED: &str = "2026-11-22T08:31:00Z";
const SETTLED: &str = "2026-11-24T09:32:00Z";

const ADDRESSES: &str = "\
invoice,currency,address,customer,first_name,last_name,born
order-1,BTC,tb1qback,c-1,Ada,Lovelace,1990-12-10
order-2,ETH,0xback,c-2,Ada,Lovelace,1990-12-10
order-3,BTC,tb1qone,c-3,Ada,Lovelace,1990-12-10
order-3,BTC,tb1qother,c-3,Ada,Lovelace,1990-12-10
";

/// The rule as an operator switches it on: one word in its settings.
fn switched_on() -> String {
    let (off, on) = (
        "const EMAIL_REFUNDS_ARE_OFF = false;",
        "const EMAIL_REFUNDS_ARE_OFF = true;",
    );
    assert_eq!(REFUNDS.matches(off).count(), 1);
    REFUNDS.replace(off, on)
}

async fn stage(rule: &str) -> (Stage, Arc<SetClock>) {
    let clock = SetClock::at(FAILED);
    let stage = Stage::new().await.clock(clock.clone());
    let stage = stage.script("lib/merchant.rhai", MERCHANT);
    (stage.script("refunds.rhai", rule), clock)
}

/// Opens an invoice over 100 EUR, which takes parts.
async fn invoice(stage: &Stage, foreign_id: &str) {
    let arguments = json!({
        "foreign_id": foreign_id, "timer": true, "title": "Order", "currency": "EUR",
        "amount": "100", "end_user_reference": "c-1", "email_user": "a@shop.example",
        "url_success": "https://shop.example/y", "url_failed": "https://shop.example/n",
        "type": "good_until_expired",
    });
    call(stage, Call::CreateInvoice, arguments).await;
}

/// Pays towards an invoice in BTC, and waits until that is confirmed or until it never will be.
async fn pay(stage: &Stage, foreign_id: &str, amount: &str, confirmed: bool) {
    let settle = Duration::from_millis(20);
    stage.control.set_settle_after(confirmed.then_some(settle));
    let amount = Some(amount.parse().unwrap());
    stage
        .control
        .pay_invoice(foreign_id, amount, Some("BTC"))
        .unwrap();
    // Part-payments are confirmed without a callback.
    tokio::time::sleep(settle * 20).await;
    stage.control.set_settle_after(Some(settle));
}

/// An invoice that is paid towards and then fails.
async fn failed_invoice(stage: &Stage, foreign_id: &str, paid: &[&str]) {
    invoice(stage, foreign_id).await;
    for amount in paid {
        pay(stage, foreign_id, amount, true).await;
    }
    stage.control.expire_invoice(foreign_id).unwrap();
}

/// The last body that the gateway has sent of an invoice.
fn body(stage: &Stage, foreign_id: &str) -> Value {
    let callbacks = stage.control.callbacks();
    let mut sent = callbacks.iter().rev();
    let last = sent.find(|sent| sent.foreign_id == foreign_id).unwrap();
    serde_json::from_str(&last.body).unwrap()
}

/// The same with one more part.
fn with_part(mut body: Value, id: u64, currency: &str, amount: &str, confirmations: &str) -> Value {
    body["transactions"].as_array_mut().unwrap().push(json!({
        "id": id, "currency": currency, "transaction_type": "blockchain", "type": "deposit",
        "address": "tb1qinvoice", "tag": null, "amount": amount, "txid": format!("t{id}"),
        "confirmations": confirmations,
    }));
    body
}

async fn say(daemon: &Running, body: &Value) {
    let (status, _) = deliver(&daemon.callbacks, body.to_string().as_bytes()).await;
    assert_eq!(status, 200);
}

async fn pass(daemon: &Running) {
    let run = daemon.trigger("refunds", "pass").await;
    assert_eq!(run["state"], "succeeded", "{run:#}");
}

/// What the gateway has sent back.
fn refunds(stage: &Stage) -> Vec<Execution> {
    let executions = stage.control.executions().into_iter();
    executions.filter(|one| one.kind == "withdrawal").collect()
}

/// Asserts that one refund was made, and which.
fn one_refund(stage: &Stage, foreign_id: &str, amount: &str) {
    let made = refunds(stage);
    let [refund] = &made[..] else {
        panic!("{made:#?}");
    };
    assert_eq!(refund.foreign_id, foreign_id);
    assert_eq!(
        (&refund.currency[..], refund.address.as_deref()),
        ("BTC", Some("tb1qback"))
    );
    assert_eq!(refund.amount.normalize().to_string(), amount);
    assert_eq!(refund.times_requested, 1);
}

/// How many lines with that text were logged.
fn told(daemon: &Running, text: &str) -> usize {
    let lines = logged(daemon);
    lines.iter().filter(|line| line.contains(text)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn as_shipped_it_only_warns_and_what_failed_then_stays_the_gateways_to_refund() {
    let (stage, clock) = stage(REFUNDS).await;
    stage.write("data/refund_addresses.csv", ADDRESSES);
    let daemon = stage.start().await;
    failed_invoice(&stage, "order-1", &["0.0005"]).await;
    let warned = line(&daemon, "order-1").await;
    assert!(
        warned.starts_with("warn: invoice order-1 failed with 0.0005"),
        "{warned}"
    );
    clock.set(SETTLED);
    pass(&daemon).await;

    stage.write("scripts/refunds.rhai", &switched_on());
    eventually("the new rule is in use", || async {
        let sources = bursar::scripting::Sources::read(&stage.path("scripts")).unwrap();
        daemon.runner.is_current(&sources).then_some(())
    })
    .await;
    pass(&daemon).await;
    // Also when more is said of it only now.
    say(
        &daemon,
        &with_part(body(&stage, "order-1"), 9, "BTC", "0.0001", "1"),
    )
    .await;
    line(&daemon, "order-1 failed with 0.0006").await;
    clock.set("2026-11-28T09:32:00Z");
    pass(&daemon).await;
    assert_eq!(told(&daemon, "nothing is sent back from here"), 2);
    assert_eq!(
        executed(&stage.control).keys().collect::<Vec<_>>(),
        ["order-1"]
    );
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_pays_what_came_in_to_the_address_supplied_later_and_once() {
    let (stage, clock) = stage(&switched_on()).await;
    stage.control.set_faults(Faults(vec![
        Rule {
            operation: Some(Operation::Invoice),
            ..Rule::always(Fault::CallbackTwice)
        },
        Rule {
            operation: Some(Operation::Invoice),
            ..Rule::always(Fault::CallbackForged)
        },
    ]));
    let daemon = stage.start().await;
    // Half of 100 EUR: what is asked for is never what is paid back.
    failed_invoice(&stage, "order-1", &["0.0005"]).await;
    line(&daemon, "order-1 failed with 0.0005").await;
    clock.set(SETTLED);
    pass(&daemon).await;
    line(&daemon, "order-1 (BTC, 0 lines)").await;
    assert_eq!(refunds(&stage), []);

    stage.write("data/refund_addresses.csv", ADDRESSES);
    for _ in 0..3 {
        pass(&daemon).await;
    }
    let callbacks = stage.control.callbacks();
    let failed = callbacks.iter().find(|sent| sent.status == "failed");
    let failed = failed.unwrap();
    assert!(failed.attempts.len() >= 3, "{failed:?}");
    stage.control.resend_callback(failed.id).await.unwrap();
    daemon.payment("refund-order-1", "confirmed").await;
    pass(&daemon).await;
    line(&daemon, "refund-order-1 is confirmed").await;
    clock.set("2026-12-31T09:32:00Z");
    for _ in 0..2 {
        pass(&daemon).await;
    }
    stage.control.resend_callback(failed.id).await.unwrap();
    pass(&daemon).await;
    one_refund(&stage, "refund-order-1", "0.0005");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_are_waited_for_and_summed_once_in_whatever_order_they_are_told() {
    let (stage, clock) = stage(&switched_on()).await;
    stage.write("data/refund_addresses.csv", ADDRESSES);
    let daemon = stage.start().await;
    failed_invoice(&stage, "order-1", &["0.0001", "0.0002"]).await;
    line(&daemon, "order-1 failed with 0.0003").await;
    pass(&daemon).await;
    let two = body(&stage, "order-1");
    let three = with_part(two.clone(), 900, "BTC", "0.00000007", "1");

    // A late part a day later: the wait begins anew. Then the older report again, as another
    // event, because the part it leaves out is missing.
    clock.set("2026-11-23T12:01:00Z");
    say(&daemon, &three).await;
    line(&daemon, "order-1 failed with 0.00030007").await;
    let mut older = two.clone();
    older["status"] = json!("processing");
    older["currency_sent"]["remaining_amount"] = json!("0.5");
    say(&daemon, &older).await;
    clock.set(SETTLED);
    pass(&daemon).await;
    assert_eq!(refunds(&stage), []);
    clock.set("2026-11-25T13:02:00Z");
    for _ in 0..2 {
        pass(&daemon).await;
    }
    one_refund(&stage, "refund-order-1", "0.00030007");

    // What comes after that is for a person.
    let four = with_part(three, 901, "BTC", "0.001", "1");
    say(&daemon, &four).await;
    line(&daemon, "order-1 failed with 0.00130007").await;
    clock.set("2026-11-29T13:02:00Z");
    for _ in 0..3 {
        pass(&daemon).await;
    }
    assert_eq!(told(&daemon, "look at the rest by hand"), 1);
    one_refund(&stage, "refund-order-1", "0.00030007");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_part_changes_nothing() {
    let (stage, clock) = stage(&switched_on()).await;
    stage.write("data/refund_addresses.csv", ADDRESSES);
    let daemon = stage.start().await;
    invoice(&stage, "order-1").await;
    pay(&stage, "order-1", "0.0005", true).await;
    // The gateway's word that it failed reaches nobody: somebody else says so.
    stage.control.set_faults(Faults(vec![Rule {
        operation: Some(Operation::Invoice),
        ..Rule::always(Fault::CallbackNever)
    }]));
    stage.control.expire_invoice("order-1").unwrap();
    let failed = stage.control.callbacks();
    let failed = failed.iter().find(|sent| sent.status == "failed").unwrap();
    for forgery in [Forgery::Signature, Forgery::Key] {
        let answer = stage.control.forge_callback(failed.id, forgery).await;
        assert_eq!(answer.unwrap(), Some(403));
    }
    clock.set(SETTLED);
    pass(&daemon).await;
    assert_eq!(refunds(&stage), []);
    assert_eq!(told(&daemon, "order-1"), 0, "{:#?}", logged(&daemon));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_much_is_given_back_whole_when_the_invoice_failed_and_told_when_it_did_not() {
    let (stage, clock) = stage(&switched_on()).await;
    stage.write("data/refund_addresses.csv", ADDRESSES);
    let daemon = stage.start().await;
    // 100 EUR are 0.0013 BTC. The first is confirmed as an invoice, the second not in time.
    invoice(&stage, "order-4").await;
    pay(&stage, "order-4", "0.002", true).await;
    let warned = line(&daemon, "order-4 is paid with").await;
    assert!(
        warned.contains("0.0007") && warned.contains("BTC more"),
        "{warned}"
    );
    invoice(&stage, "order-1").await;
    pay(&stage, "order-1", "0.002", false).await;
    stage.control.set_callback_url(None);
    stage.control.expire_invoice("order-1").unwrap();
    let mut late = body(&stage, "order-1");
    late["transactions"][0]["confirmations"] = json!("3");
    say(&daemon, &late).await;
    line(&daemon, "order-1 failed with 0.002").await;
    clock.set(SETTLED);
    for _ in 0..2 {
        pass(&daemon).await;
    }
    one_refund(&stage, "refund-order-1", "0.002");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_machine_should_not_pay_is_told_once_and_never_paid() {
    let (stage, clock) = stage(&switched_on()).await;
    let mut addresses = ADDRESSES.to_owned();
    for order in 10..15 {
        let row = format!("order-{order},BTC,tb1q{order},c,Ada,Lovelace,1990-12-10\n");
        addresses.push_str(&row);
    }
    stage.write("data/refund_addresses.csv", &addresses);
    let daemon = stage.start().await;
    // Nothing came in; not confirmed; of several currencies; contradicted; confirmed as well.
    failed_invoice(&stage, "order-1", &[]).await;
    invoice(&stage, "order-10").await;
    pay(&stage, "order-10", "0.0005", false).await;
    stage.control.expire_invoice("order-10").unwrap();
    for order in 11..14 {
        failed_invoice(&stage, &format!("order-{order}"), &["0.0005"]).await;
    }
    // Less than the gateway pays out.
    failed_invoice(&stage, "order-14", &["0.00001"]).await;
    line(&daemon, "order-14 failed with").await;
    let mixed = with_part(body(&stage, "order-11"), 911, "USDTE", "5", "1");
    let mut other = body(&stage, "order-12");
    other["transactions"][0]["amount"] = json!("0.5");
    other["currency_sent"]["remaining_amount"] = json!("0");
    let mut confirmed = body(&stage, "order-13");
    confirmed["status"] = json!("confirmed");
    for said in [mixed, other, confirmed] {
        say(&daemon, &said).await;
    }
    line(&daemon, "order-11 failed with 0.0005").await;
    eventually("everything is said", || async {
        let open = daemon.runner.runs(&crate::stage::everything()).unwrap();
        let open = open.as_array().unwrap().clone();
        open.iter()
            .all(|run| run["state"] == "succeeded")
            .then_some(())
    })
    .await;
    clock.set(SETTLED);
    for _ in 0..3 {
        pass(&daemon).await;
    }
    for (order, why) in [
        (10, "not all of it is confirmed"),
        (11, "several currencies"),
        (12, "different amounts for one part"),
        (13, "confirmed as well"),
        (14, "amount"),
    ] {
        let lines = logged(&daemon);
        let of = format!("error: invoice order-{order}: ");
        let of: Vec<_> = lines.iter().filter(|line| line.starts_with(&of)).collect();
        assert!(of.len() == 1 && of[0].contains(why), "{lines:#?}");
    }
    assert_eq!(told(&daemon, "invoice order-1 "), 0);
    assert_eq!(refunds(&stage), []);
    assert_eq!(stage.control.requests()[&Operation::Withdrawal], 1);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_line_two_lines_and_the_wrong_currency_are_no_address() {
    let (stage, clock) = stage(&switched_on()).await;
    stage.write("data/refund_addresses.csv", ADDRESSES);
    let daemon = stage.start().await;
    for order in ["order-2", "order-3", "order-4"] {
        failed_invoice(&stage, order, &["0.0005"]).await;
    }
    line(&daemon, "order-4 failed with").await;
    clock.set(SETTLED);
    pass(&daemon).await;
    let waits = line(&daemon, "without one line").await;
    for told in [
        "order-2 (BTC, 1 lines)",
        "order-3 (BTC, 2 lines)",
        "order-4 (BTC, 0 lines)",
    ] {
        assert!(waits.contains(told), "{waits}");
    }
    // The invoice's own address, from which nobody would get anything back.
    let own = body(&stage, "order-4")["crypto_address"]["address"].clone();
    let row = format!(
        "invoice,currency,address,customer,first_name,last_name,born\norder-4,BTC,{},c,A,B,1990-12-10\n",
        own.as_str().unwrap()
    );
    stage.write("data/refund_addresses.csv", &row);
    pass(&daemon).await;
    line(&daemon, "the invoice itself was paid to").await;
    assert_eq!(refunds(&stage), []);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn restarts_and_a_lost_reply_make_no_second_refund() {
    let (stage, clock) = stage(&switched_on()).await;
    stage.write("data/refund_addresses.csv", ADDRESSES);
    let daemon = stage.start().await;
    failed_invoice(&stage, "order-1", &["0.0005"]).await;
    line(&daemon, "order-1 failed with").await;
    daemon.stop().await;

    // It was down while the parts were waited for, and the reply is lost.
    clock.set(SETTLED);
    stage.control.set_faults(Faults(vec![
        Rule {
            operation: Some(Operation::Withdrawal),
            ..Rule::always(Fault::DropAnswer)
        },
        Rule {
            operation: Some(Operation::Withdrawal),
            ..Rule::always(Fault::CallbackNever)
        },
        Rule::always(Fault::ExecuteRepeat),
    ]));
    let daemon = stage.start().await;
    pass(&daemon).await;
    daemon.stop().await;
    let daemon = stage.start().await;
    for _ in 0..2 {
        pass(&daemon).await;
    }
    one_refund(&stage, "refund-order-1", "0.0005");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_that_the_gateway_gives_up_is_told_and_not_made_again() {
    let (stage, clock) = stage(&switched_on()).await;
    stage.write("data/refund_addresses.csv", ADDRESSES);
    let daemon = stage.start().await;
    failed_invoice(&stage, "order-1", &["0.0005"]).await;
    line(&daemon, "order-1 failed with").await;
    clock.set(SETTLED);
    stage.control.set_settle_after(None);
    pass(&daemon).await;
    stage.control.settle("refund-order-1", "cancelled").unwrap();
    daemon.payment("refund-order-1", "cancelled").await;
    for _ in 0..3 {
        pass(&daemon).await;
    }
    assert_eq!(told(&daemon, "error: refund-order-1 was cancelled"), 1);
    one_refund(&stage, "refund-order-1", "0.0005");
    daemon.stop().await;
}
