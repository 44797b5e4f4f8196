//! How long the payments of a million lines take to be made anew from the payment journal, beside
//! walking the same lines to verify them.

use std::time::Instant;

use bursar::domain::id::{HandlerId, RunId};
use bursar::domain::operation::Operation;
use bursar::domain::payment::{Content, Event, Origin, Payment, Reported, tell};
use bursar::store::{
    Changes, Options, Rows, Store, put_payment, rebuild_payments, verify_payment_journal,
};
use bursar::telemetry::Telemetry;
use tokio::task::JoinSet;

use crate::world;

const PAYMENTS: u64 = 250_000;
/// What happens to each of them.
const STEPS: [Event; 4] = [
    Event::Allowed,
    Event::SendStarted,
    Event::Accepted,
    Event::Reported(Reported::Confirmed),
];
const TASKS: u64 = 64;

pub fn measure() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    world::runtime().block_on(async {
        let store = Store::open(&path, &Options::default(), &Telemetry::default()).unwrap();
        let mut tasks = JoinSet::new();
        for task in 0..TASKS {
            let store = store.clone();
            tasks.spawn(async move {
                for number in (task..PAYMENTS).step_by(usize::try_from(TASKS).unwrap()) {
                    pay(&store, number).await;
                }
            });
        }
        tasks.join_all().await;
        store.close().await.unwrap();
    });
    let begun = Instant::now();
    let audit = verify_payment_journal(&path, None).unwrap();
    assert!(audit.findings.is_empty());
    println!(
        "verify {} lines: {:.1} s",
        audit.lines,
        begun.elapsed().as_secs_f64()
    );
    for part in ["index", "journal"] {
        std::fs::remove_dir_all(path.join(part)).unwrap();
    }
    let begun = Instant::now();
    let made = rebuild_payments(&path, &Telemetry::default()).unwrap();
    let made = made.made.unwrap();
    assert_eq!(made.payments, PAYMENTS);
    println!(
        "rebuild {} payments from {} lines, until the store is verified: {:.1} s",
        made.payments,
        made.lines,
        begun.elapsed().as_secs_f64()
    );
}

/// Commits the steps of one payment, one line each.
async fn pay(store: &Store, number: u64) {
    let body = format!(
        r#"{{"address":"tb1q{number}","amount":"0.01","currency":"BTC","end_user_reference":"customer-{number}","foreign_id":"order-{number}","receiver_data":{{"date_of_birth":"1990-12-10","first_name":"Ada","last_name":"Lovelace"}},"receiver_type":"natural"}}"#
    );
    let content = Content::new(Operation::Withdraw, body);
    let handler = HandlerId {
        script: "payouts".to_owned(),
        name: "daily".to_owned(),
    };
    let origin = Origin {
        run: RunId::new(number),
        handler,
        step: 1,
        file: "payouts.rhai".to_owned(),
        line: 12,
        set: "0".repeat(64),
    };
    let at = chrono::DateTime::from_timestamp(1_800_000_000, 0).unwrap();
    let id = format!("order-{number}").parse().unwrap();
    let mut payment = Payment::planned(id, content, origin, at);
    for step in STEPS {
        payment.apply(step, None, at).unwrap();
        if step == Event::Accepted {
            payment.gateway_id = Some(number.to_string());
        }
        let rows = if payment.told == 0 {
            Rows::New
        } else {
            Rows::Known
        };
        let mut changes = Changes::new();
        for line in tell(&mut payment).unwrap().lines {
            changes.tell(&line);
        }
        put_payment(&mut changes, &payment, rows);
        store.commit(changes).await.unwrap();
    }
}
