//! The scenario: a batch of payouts one reply to which is lost, an invoice that fails half-paid,
//! and deposits. It sets things off, waits until they rest, and tells what is then to be seen.

use chrono::TimeDelta;
use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::observer::Observer;
use super::shipped::PAYOUTS;
use super::stage::{SETTLE, Stage};
use super::story;
use crate::cli::exit_code::{Failure, Outcome};
use crate::cli::output::{field, print, table};
use crate::domain::clock::{Clock, SystemClock, Timestamp};
use crate::domain::money::decimal_from_json;
use crate::domain::operation::Operation;
use crate::simulator::{self, ControlError, Fault, Faults, Rule};

/// Plays everything. Answers whether all came out as it should.
pub(super) async fn play(stage: &Stage) -> Result<bool, Failure> {
    let mut observer = Observer::new(stage);
    payouts(stage, &mut observer).await?;
    invoice(stage, &mut observer).await?;
    deposits(stage, &mut observer).await?;
    summary(&observer)
}

async fn payouts(stage: &Stage, observer: &mut Observer<'_>) -> Outcome {
    print(
        "A batch of 5 payouts. The gateway will execute row 3 and then cut the line, so that its reply is lost.",
    );
    let slot = noon();
    stage.control.set_faults(Faults(vec![Rule {
        operation: Some(simulator::Operation::Withdrawal),
        foreign_id: Some(format!("payroll-{}-3", slot.format("%Y-%m-%d"))),
        ..Rule::always(Fault::DropAnswer)
    }]));
    stage.put_data("payouts.csv", PAYOUTS)?;
    if let Err(error) = observer.fire("payouts", "payroll", slot).await {
        print(&format!("  left out: {error}"));
        return Ok(());
    }
    observer.rest("withdrawal", "confirmed", 1).await?;
    tell(observer)?;
    for fate in observer.fates()? {
        print(&format!("  {}", story::of(&fate)));
    }

    print("\nThe same file again, as if somebody had fired the batch twice.");
    let withdrawals = || {
        let requests = stage.control.requests();
        let count = requests.get(&simulator::Operation::Withdrawal);
        count.copied().unwrap_or_default()
    };
    let before = withdrawals();
    stage.put_data("payouts.csv", PAYOUTS)?;
    let later = slot + TimeDelta::minutes(1);
    let fired = observer.fire("payouts", "payroll", later).await;
    fired.map_err(Failure::failed)?;
    observer.rest("withdrawal", "confirmed", 1).await?;
    tell(observer)?;
    let sent = withdrawals().saturating_sub(before);
    print(&format!(
        "  requests for payments that reached the gateway: {sent}"
    ));
    Ok(())
}

async fn invoice(stage: &Stage, observer: &mut Observer<'_>) -> Outcome {
    print("\nAn invoice over 100 EUR. Half of it is paid, then its time runs out.");
    let order = json!({
        "foreign_id": "order-1", "timer": true, "title": "Order 1", "currency": "EUR",
        "amount": "100", "end_user_reference": "customer-8", "email_user": "payer@shop.example",
        "url_success": "https://shop.example/paid", "url_failed": "https://shop.example/failed",
    });
    stage.ask(Operation::CreateInvoice, &order).await?;
    let half = Decimal::new(65, 5);
    let control = &stage.control;
    control
        .pay_invoice("order-1", Some(half), Some("BTC"))
        .map_err(not_played)?;
    // The gateway confirms a part without saying so.
    tokio::time::sleep(SETTLE * 2).await;
    control.expire_invoice("order-1").map_err(not_played)?;
    observer.rest("invoice", "failed", 1).await?;
    tell(observer)?;
    for failed in observer.callbacks("invoice", "failed") {
        print(&format!("  {}", story::of_callback(&failed)));
    }
    let fates = observer.fates()?;
    let refunds = fates
        .iter()
        .filter(|fate| fate.foreign_id.ends_with("order-1"));
    let executed: usize = refunds.map(|fate| fate.executed).sum();
    print(&format!("  refunds that the gateway executed: {executed}"));
    Ok(())
}

async fn deposits(stage: &Stage, observer: &mut Observer<'_>) -> Outcome {
    print(
        "\nTwo deposits by customer-9, first unconfirmed, then confirmed. The gateway sends one confirmation once more.",
    );
    let customer = json!({
        "foreign_id": "customer-9", "currency": "BTC", "end_user_reference": "customer-9",
        "sender_type": "natural",
        "sender_data": {"first_name": "Niklaus", "last_name": "Wirth", "date_of_birth": "1994-02-15"},
    });
    stage.ask(Operation::TakeAddress, &customer).await?;
    for amount in [Decimal::new(1, 1), Decimal::new(2, 1)] {
        stage
            .control
            .deposit("customer-9", amount, None)
            .map_err(not_played)?;
    }
    observer.rest("deposit", "confirmed", 2).await?;
    let confirmations = observer.callbacks("deposit", "confirmed");
    if let Some(first) = confirmations.iter().min_by_key(|sent| sent.operation_id) {
        let again = stage.control.resend_callback(first.id).await;
        again.map_err(not_played)?;
    }
    observer.rest("deposit", "confirmed", 2).await?;
    for status in ["not_confirmed", "confirmed"] {
        let mut callbacks = observer.callbacks("deposit", status);
        callbacks.sort_by_key(|sent| sent.operation_id);
        for sent in callbacks {
            print(&format!("  {}", story::of_callback(&sent)));
        }
    }
    tell(observer)
}

/// Counts what is to be seen on both sides, and answers whether it is as it should be.
fn summary(observer: &Observer<'_>) -> Result<bool, Failure> {
    let fates = observer.fates()?;
    let count = |holds: &dyn Fn(&super::observer::Fate) -> bool| {
        fates.iter().filter(|fate| holds(fate)).count()
    };
    let asked = count(&|fate| !fate.payment.is_null());
    let confirmed = count(&|fate| field(&fate.payment, "status") == "confirmed");
    let lost = count(&|fate| fate.has("answer_lost"));
    let twice = count(&|fate| fate.executed > 1);
    let executed: usize = fates.iter().map(|fate| fate.executed).sum();
    let sound = count(&|fate| fate.is_sound());

    let confirmations = observer.callbacks("deposit", "confirmed");
    let deliveries: usize = confirmations.iter().map(|sent| sent.attempts.len()).sum();
    let received: Decimal = confirmations
        .iter()
        .filter_map(|sent| net(&sent.body))
        .sum();
    let credits = observer.credits()?;
    let credited: Decimal = credits.iter().sum();

    let row = |what: &str, many: String| vec![what.to_owned(), many];
    let rows = [
        row("payments asked for by scripts", asked.to_string()),
        row("payments executed by the gateway", executed.to_string()),
        row("payments confirmed", confirmed.to_string()),
        row("replies lost", lost.to_string()),
        row("double payments", twice.to_string()),
        row(
            "deposits confirmed by the gateway",
            format!(
                "{}, {received} BTC, told {deliveries} times",
                confirmations.len()
            ),
        ),
        row(
            "deposits credited by scripts",
            format!("{}, {credited} BTC", credits.len()),
        ),
    ];
    print(&format!("\n{}", table(&["SUMMARY", ""], &rows)));
    let rows = PAYOUTS.lines().count().saturating_sub(1);
    let paid = asked == rows && sound == fates.len() && lost == 1;
    Ok(paid && credits.len() == confirmations.len() && credited == received)
}

/// What a deposit brought after fees.
fn net(body: &str) -> Option<Decimal> {
    let body: Value = serde_json::from_str(body).ok()?;
    let received = body.get("currency_received")?.get("amount_minus_fee")?;
    decimal_from_json(received).ok()
}

fn tell(observer: &mut Observer<'_>) -> Outcome {
    for line in observer.news()? {
        print(&format!("  {line}"));
    }
    Ok(())
}

/// Noon of today in UTC, which is the same date in most zones.
fn noon() -> Timestamp {
    let now = SystemClock.now();
    now.date_naive()
        .and_hms_opt(12, 0, 0)
        .map_or(now, |noon| noon.and_utc())
}

fn not_played(error: ControlError) -> Failure {
    Failure::failed(error)
}
