//! The shipped scripts, in a daemon against the simulated gateway; the refund rule has a file of its
//! own.

use std::time::Duration;

use bursar::domain::operation::Operation as Call;
use bursar::domain::secret::Secret;
use bursar::domain::signature::Signer;
use bursar::gateway::{Client, Disposition, prepare};
use bursar::simulator::{Fault, Faults, Operation, Rule};
use bursar::telemetry::Telemetry;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::stage::{Running, Stage, eventually, everything};

/// The library that the paying scripts import.
pub const MERCHANT: &str = include_str!("../../scripts/lib/merchant.rhai");
const PAYOUTS: &str = include_str!("../../scripts/payouts.rhai");
const HOOKS: &str = include_str!("../../scripts/hooks.rhai");

const BATCH: &str = "\
id,customer,currency,amount,address,first_name,last_name,born
1,c-1,BTC,0.1,tb1qone,Ada,Lovelace,1990-12-10
2,c-2,USDTE,25.50,0xtwo,Alan,Turing,1991-06-23
3,c-3,BTC,0.20000000,tb1qthree,Grace,Hopper,1992-12-09
";

async fn stage(scripts: &[(&str, &str)]) -> Stage {
    let stage = Stage::new().await.script("lib/merchant.rhai", MERCHANT);
    for (name, source) in scripts {
        stage.write(&format!("scripts/{name}"), source);
    }
    stage
}

/// Everything scripts logged so far, as `level: text`, runs in the order they were made.
pub fn logged(daemon: &Running) -> Vec<String> {
    let runs = daemon.runner.runs(&everything()).unwrap();
    let mut lines = Vec::new();
    for run in runs.as_array().unwrap().iter().rev() {
        let run = daemon.runner.run(run["id"].as_str().unwrap()).unwrap();
        for step in run["journal"].as_array().unwrap() {
            if step["kind"] == "log" {
                let request: Value =
                    serde_json::from_str(step["request"].as_str().unwrap()).unwrap();
                let (_, log) = request.as_object().unwrap().iter().next().unwrap();
                lines.push(format!(
                    "{}: {}",
                    log["level"].as_str().unwrap(),
                    log["text"].as_str().unwrap()
                ));
            }
        }
    }
    lines
}

/// Waits until a line was logged that contains `text`. Answers it.
pub async fn line(daemon: &Running, text: &str) -> String {
    eventually(&format!("`{text}` is logged"), || async {
        logged(daemon).into_iter().find(|line| line.contains(text))
    })
    .await
}

/// Asks the gateway for something, as the shop would.
pub async fn call(stage: &Stage, operation: Call, arguments: Value) -> Value {
    let client = Client::new(&stage.resolved().gateway, &Telemetry::default()).unwrap();
    let prepared = prepare(operation, &arguments).unwrap();
    let disposition = client.send(&prepared).await;
    let Disposition::Accepted(answer) = disposition else {
        panic!("{disposition:?}");
    };
    answer
}

/// What the shop says of a customer to get an address for deposits.
fn customer() -> Value {
    json!({
        "foreign_id": "c-7", "currency": "BTC", "end_user_reference": "c-7", "sender_type": "natural",
        "sender_data": {"first_name": "Ada", "last_name": "Lovelace", "date_of_birth": "1990-12-10"},
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_paid_once_however_often_its_file_comes() {
    let stage = stage(&[("payouts.rhai", PAYOUTS)]).await;
    let daemon = stage.start().await;
    for _ in 0..2 {
        stage.write("data/payouts.csv", BATCH);
        let run = daemon.trigger("payouts", "payroll").await;
        assert_eq!(run["state"], "succeeded", "{run:#}");
        assert!(!stage.path("data/payouts.csv").exists());
        // Files are named by the second.
        tokio::time::sleep(Duration::from_millis(1100)).await;
    }
    let run = daemon.trigger("payouts", "payroll").await;
    assert_eq!(run["state"], "succeeded", "{run:#}");
    line(&daemon, "there is no payouts.csv").await;
    line(&daemon, "3 rows, 3 confirmed").await;
    line(&daemon, "3 paid, 0 failed, 0 open").await;

    let executions = stage.control.executions();
    assert_eq!(executions.len(), 3);
    let mut rows: Vec<_> = executions
        .iter()
        .map(|e| {
            (
                e.foreign_id.rsplit('-').next().unwrap(),
                &e.currency[..],
                e.amount.normalize().to_string(),
            )
        })
        .collect();
    rows.sort();
    let expected = [
        ("1", "BTC", "0.1"),
        ("2", "USDTE", "25.5"),
        ("3", "BTC", "0.2"),
    ];
    assert_eq!(
        rows,
        expected.map(|(id, currency, amount)| (id, currency, amount.to_owned()))
    );
    assert!(executions.iter().all(|one| one.times_requested == 1));
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_failure_of_one_payout_is_told_and_does_not_stop_the_others() {
    let stage = stage(&[("payouts.rhai", PAYOUTS)])
        .await
        .data("payouts.csv", BATCH);
    stage.control.set_settle_after(None);
    stage.control.set_faults(Faults(vec![Rule {
        operation: Some(Operation::Withdrawal),
        times: Some(1),
        ..Rule::always(Fault::Refuse)
    }]));
    let daemon = stage.start().await;
    let run = daemon.runner.trigger("payouts", "payroll", None).await;
    line(&daemon, "3 rows, 2 accepted, 1 rejected").await;
    let sent = stage.control.executions();
    for (payment, status) in sent.iter().zip(["cancelled", "confirmed"]) {
        stage.control.settle(&payment.foreign_id, status).unwrap();
    }
    line(&daemon, "1 paid, 2 failed, 0 open").await;
    assert!(
        line(&daemon, "was rejected: ")
            .await
            .starts_with("error: payroll-")
    );
    let told = line(&daemon, "was cancelled: ").await;
    assert!(
        told.starts_with(&format!("error: {}", sent[0].foreign_id)),
        "{told}"
    );
    let run = daemon.closed(&run.unwrap().to_string()).await;
    assert_eq!(run["state"], "succeeded", "{run:#}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_with_mistakes_names_them_all_and_sends_nothing() {
    let stage = stage(&[("payouts.rhai", PAYOUTS)]).await.data(
        "payouts.csv",
        "id,customer,currency,amount,adress,first_name,last_name,born\n\
         1,c-1,BTC,0.1,tb1q,Ada,Lovelace,1990-12-10\n\
         2,c-2,BTC,many,tb1q,Alan,Turing,1991-06-23\n\
         3,c-3,BTC,\"0,5\",tb1q,Grace,Hopper,1992-12-09\n",
    );
    let daemon = stage.start().await;
    let run = daemon.trigger("payouts", "payroll").await;
    assert_eq!(run["state"], "parked");
    let error = run["error"].as_str().unwrap();
    for part in [
        "line 1: there is no column `address`; is it `adress`?",
        "line 3: ",
        "line 4: ",
    ] {
        assert!(error.contains(part), "{error}");
    }
    assert!(stage.control.requests().is_empty());
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deposits_are_credited_exactly_and_once_with_every_callback_sent_twice() {
    let stage = stage(&[("hooks.rhai", HOOKS)]).await;
    stage.control.set_faults(Faults(vec![Rule {
        operation: Some(Operation::Deposit),
        ..Rule::always(Fault::CallbackTwice)
    }]));
    let daemon = stage.start().await;
    call(&stage, Call::TakeAddress, customer()).await;
    for amount in ["0.1", "0.2", "0.00001"] {
        stage
            .control
            .deposit("c-7", amount.parse().unwrap(), None)
            .unwrap();
    }
    // 0.3 less 0.8 %; the third is below the minimum.
    line(&daemon, "BTC more, 0.2976").await;
    line(&daemon, "a deposit for c-7 was cancelled").await;
    let callbacks = stage.control.callbacks();
    eventually("every callback was sent twice", || async {
        let sent = stage.control.callbacks();
        sent.iter().all(|one| one.attempts.len() == 2).then_some(())
    })
    .await;
    assert_eq!(callbacks.len(), 6);
    for callback in callbacks {
        stage.control.resend_callback(callback.id).await.unwrap();
    }
    let credits = |line: &&String| line.contains("BTC more");
    assert_eq!(logged(&daemon).iter().filter(credits).count(), 2);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credit_is_posted_to_the_shop_when_there_is_one() {
    let shop = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", shop.local_addr().unwrap());
    let off = "const SHOP_URL = \"\";";
    assert_eq!(HOOKS.matches(off).count(), 1);
    let hooks = HOOKS.replace(off, &format!("const SHOP_URL = \"{origin}/credits\";"));
    let stage = stage(&[("hooks.rhai", &hooks)])
        .await
        .config(&format!("scripts.http.allow = [\"{origin}\"]\n"));
    let daemon = stage.start().await;
    call(&stage, Call::TakeAddress, customer()).await;
    let number = stage
        .control
        .deposit("c-7", "0.1".parse().unwrap(), None)
        .unwrap();

    let (mut connection, _) = shop.accept().await.unwrap();
    let mut request = String::new();
    while !request.ends_with('}') {
        let mut part = [0; 1024];
        let length = connection.read(&mut part).await.unwrap();
        assert_ne!(length, 0, "{request}");
        request.push_str(std::str::from_utf8(&part[..length]).unwrap());
    }
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    connection.write_all(answer).await.unwrap();
    assert!(request.starts_with("POST /credits "), "{request}");
    assert!(request.to_lowercase().contains("\r\nidempotency-key: "));
    let (_, body) = request.split_once("\r\n\r\n").unwrap();
    assert_eq!(
        body,
        format!(r#"{{"amount":0.09920000,"currency":"BTC","customer":"c-7","deposit":{number}}}"#)
    );
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_script_knows_is_reported() {
    let stage = stage(&[("hooks.rhai", HOOKS)]).await;
    let daemon = stage.start().await;
    let options = bursar::simulator::Options::default();
    for body in [
        r#"{"type":"staking","status":"confirmed","id":1}"#,
        r#"{"type":"deposit","status":"not_confirmed","id":2}"#,
        "no JSON",
    ] {
        let signature = Signer::new(&Secret::new(options.secret.clone())).sign(body.as_bytes());
        daemon
            .runner
            .accept(Some(&options.key), Some(&signature), body.as_bytes())
            .await;
    }
    daemon.all_closed(3).await;
    assert_eq!(
        logged(&daemon),
        [
            "warn: the gateway sent a staking.confirmed, which no script knows",
            "error: the gateway sent a signed callback that nobody can read",
        ]
    );
    daemon.stop().await;
}
