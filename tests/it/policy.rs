//! Policy, between scripts and a gateway that would pay everything.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bursar::simulator::{Fault, Faults, Options, Rule};
use rust_decimal::Decimal;
use serde_json::{Value, json};

use crate::kit::{SetClock, Shop, counted, post};
use crate::payments::{by_hand, telling, withdraw};
use crate::stage::{Running, Stage, eventually, executed};

/// Pays the rows that stand in the data folder.
const PAYER: &str = r#"schedule("go", "0 0 1 1 *", |tick| {
    gateway::withdraw_all(json::parse(file::read("rows.json")));
});"#;

/// A row that pays `amount` of bitcoin.
fn row(foreign_id: &str, amount: &str, address: &str) -> Value {
    json!({
        "foreign_id": foreign_id, "currency": "BTC", "amount": amount, "address": address,
        "end_user_reference": "customer-1",
        "sender_type": "legal",
        "sender_data": {"legal_name": "Shop Ltd", "country_of_registration": "DEU"},
        "receiver_type": "natural",
        "receiver_data": {"first_name": "Ada", "last_name": "Lovelace", "date_of_birth": "1990-12-10"},
    })
}

/// A stage with two scripts that pay, and this policy.
async fn stage(options: Options, policy: &str) -> Stage {
    Stage::with(options)
        .await
        .script("payer.rhai", PAYER)
        .script("other.rhai", PAYER)
        .config(policy)
}

/// Lets a script pay rows in one batch. Answers why each was refused; nothing for those that were
/// not.
async fn pay(stage: &Stage, daemon: &Running, script: &str, rows: &[Value]) -> Vec<String> {
    stage.write("data/rows.json", &json!(rows).to_string());
    let run = daemon.trigger(script, "go").await;
    assert_eq!(run["state"], "succeeded", "{run:#}");
    let refusals = rows.iter().map(|row| {
        let payment = daemon.runner.payment(row["foreign_id"].as_str().unwrap());
        let payment = payment.unwrap();
        if payment["status"] == "refused" {
            payment["error"].as_str().unwrap().to_owned()
        } else {
            String::new()
        }
    });
    refusals.collect()
}

/// Lets a script pay one row.
async fn pay_one(stage: &Stage, daemon: &Running, script: &str, row: Value) -> String {
    pay(stage, daemon, script, &[row]).await.remove(0)
}

fn spent(stage: &Stage) -> Decimal {
    let executions = stage.control.executions();
    executions.iter().map(|one| one.amount).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_an_error_that_names_the_rule_and_nothing_is_sent() {
    let shop = Shop::open().await;
    let script = [
        telling(&shop, "/single", &withdraw("single", "0.06")),
        telling(
            &shop,
            "/again",
            "gateway::withdraw_all([1, 2].map(|n| #{ foreign_id: `b${n}`, currency: \"BTC\", amount: 0.03 * n, address: \"tb1q\", end_user_reference: \"c\", sender_type: \"legal\", sender_data: #{ legal_name: \"Shop Ltd\", country_of_registration: \"DEU\" }, receiver_type: \"legal\", receiver_data: #{ legal_name: \"Shop Ltd\", country_of_registration: \"DEU\" } }))",
        ),
    ]
    .join(";\n");
    let stage = Stage::new().await.config(&shop.allowed()).config(
        "[[policy.limit]]\nname = \"one payment\"\ncurrency = \"BTC\"\namount = \"0.05\"\nper = \"payment\"\n",
    );
    let stage = stage.script("a.rhai", &by_hand(&script));
    let daemon = stage.start().await;
    let run = daemon.trigger("a", "go").await;
    assert_eq!(run["state"], "succeeded", "{run:#}");
    let told = &shop.received("/single")[0].body;
    assert_eq!(told["code"], "policy_refused", "{told}");
    let expected = "`one payment`: 0.06 BTC is above 0.05 BTC";
    assert!(
        told["message"].as_str().unwrap().contains(expected),
        "{told}"
    );
    let told = &shop.received("/again")[0].body;
    assert_eq!(told[0]["foreign_id"], "b1", "{told}");
    assert_ne!(told[0]["status"], "refused", "{told}");
    assert_eq!(told[1]["status"], "refused", "{told}");
    assert_eq!(told[1]["error"], expected, "{told}");
    assert_eq!(executed(&stage.control), [("b1".into(), 1)].into());
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_two_hundred_never_goes_above_a_cap() {
    let policy =
        "[[policy.limit]]\nname = \"day\"\ncurrency = \"BTC\"\namount = \"0.505\"\nper = \"day\"\n";
    let options = Options {
        latency: Duration::from_millis(5),
        ..Options::default()
    };
    let stage = stage(options, policy).await;
    let daemon = stage.start().await;
    let rows: Vec<Value> = (0..200)
        .map(|n| row(&format!("row-{n}"), "0.01", &format!("tb1q{n}")))
        .collect();
    let refusals = pay(&stage, &daemon, "payer", &rows).await;
    let refused = refusals.iter().filter(|text| !text.is_empty()).count();
    assert_eq!(refused, 150);
    assert_eq!(stage.control.executions().len(), 50);
    assert_eq!(spent(&stage), Decimal::new(50, 2));
    let text = refusals.iter().find(|text| !text.is_empty()).unwrap();
    assert_eq!(
        text,
        "`day`: 0.5 of 0.505 BTC spent today, 0.01 more would be 0.51"
    );
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_and_addresses_have_sums_of_their_own() {
    let policy = r#"
[[policy.limit]]
name = "by script"
currency = "BTC"
amount = "0.03"
per = "week"
by = "script"
[[policy.limit]]
name = "by address"
currency = "BTC"
amount = "0.02"
per = "24h"
by = "address"
"#;
    let stage = stage(Options::default(), policy).await;
    let daemon = stage.start().await;
    let asked = [
        ("payer", "a1", "0.02", "tb1qa", ""),
        (
            "payer",
            "a2",
            "0.01",
            "TB1QA",
            "`by address`: 0.02 of 0.02 BTC spent in the last 1d to this address, 0.01 more would be 0.03",
        ),
        ("payer", "a3", "0.01", "tb1qb", ""),
        (
            "payer",
            "a4",
            "0.001",
            "tb1qc",
            "`by script`: 0.03 of 0.03 BTC spent this week by this script, 0.001 more would be 0.031",
        ),
        ("other", "a5", "0.01", "tb1qb", ""),
        (
            "other",
            "a6",
            "0.001",
            "tb1qb",
            "`by address`: 0.02 of 0.02 BTC spent in the last 1d to this address, 0.001 more would be 0.021",
        ),
    ];
    for (script, id, amount, address, expected) in asked {
        let refusal = pay_one(&stage, &daemon, script, row(id, amount, address)).await;
        assert_eq!(refusal, expected, "{id}");
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn periods_pass_and_survive_a_restart() {
    let policy = r#"
policy.timezone = "Europe/Berlin"
[[policy.limit]]
name = "day"
currency = "BTC"
amount = "0.1"
per = "day"
[[policy.limit]]
name = "rolling"
currency = "BTC"
amount = "0.12"
per = "10h"
"#;
    let clock = SetClock::at("2026-10-24T20:00:00Z");
    let stage = stage(Options::default(), policy)
        .await
        .clock(Arc::clone(&clock) as _);
    let mut daemon = stage.start().await;
    // The day on which the clocks are set back has 25 hours in Berlin.
    let asked = [
        ("2026-10-24T20:00:00Z", "0.1", ""),
        (
            "2026-10-24T21:59:00Z",
            "0.01",
            "`day`: 0.1 of 0.1 BTC spent today, 0.01 more would be 0.11",
        ),
        ("2026-10-24T22:00:00Z", "0.02", ""),
        (
            "2026-10-25T05:59:59Z",
            "0.01",
            "`rolling`: 0.12 of 0.12 BTC spent in the last 10h, 0.01 more would be 0.13",
        ),
        ("2026-10-25T06:00:00Z", "0.08", ""),
        (
            "2026-10-25T22:59:59Z",
            "0.01",
            "`day`: 0.1 of 0.1 BTC spent today, 0.01 more would be 0.11",
        ),
        ("2026-10-25T23:00:00Z", "0.01", ""),
        // A clock that is set back does not make room.
        (
            "2026-10-24T21:00:00Z",
            "0.01",
            "`day`: 0.21 of 0.1 BTC spent today, 0.01 more would be 0.22",
        ),
    ];
    for (number, (at, amount, expected)) in asked.into_iter().enumerate() {
        clock.set(at);
        if number % 2 == 1 {
            daemon.stop().await;
            daemon = stage.start().await;
        }
        let asked = row(&format!("r{number}"), amount, "tb1qa");
        let refusal = pay_one(&stage, &daemon, "payer", asked).await;
        assert_eq!(refusal, expected, "{at}");
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_paid_is_given_back_once() {
    let policy =
        "[[policy.limit]]\nname = \"day\"\ncurrency = \"BTC\"\namount = \"0.1\"\nper = \"day\"\n";
    let faults = Faults(vec![Rule {
        foreign_id: Some("rejected".into()),
        ..Rule::always(Fault::Refuse)
    }]);
    let options = Options {
        faults,
        settle_after: None,
        ..Options::default()
    };
    let stage = stage(options, policy).await;
    let daemon = stage.start().await;
    let pay = async |daemon: &Running, id: &str, amount: &str| {
        pay_one(&stage, daemon, "payer", row(id, amount, "tb1qa")).await
    };
    assert_eq!(pay(&daemon, "kept", "0.04").await, "");
    assert_eq!(pay(&daemon, "rejected", "0.06").await, "");
    daemon.payment("rejected", "rejected").await;
    assert_eq!(pay(&daemon, "cancelled", "0.06").await, "");
    assert!(
        pay(&daemon, "late", "0.01")
            .await
            .contains("0.1 of 0.1 BTC")
    );
    // This time a callback says that nothing moved; saying it again gives nothing more back.
    stage.control.settle("cancelled", "cancelled").unwrap();
    daemon.payment("cancelled", "cancelled").await;
    assert_eq!(pay(&daemon, "next", "0.05").await, "");
    let full = "`day`: 0.09 of 0.1 BTC spent today, 0.02 more would be 0.11";
    assert_eq!(pay(&daemon, "too much", "0.02").await, full);
    stage.control.settle("kept", "confirmed").unwrap();
    daemon.payment("kept", "confirmed").await;
    daemon.stop().await;
    let daemon = stage.start().await;
    assert_eq!(pay(&daemon, "too much again", "0.02").await, full);
    assert_eq!(pay(&daemon, "last", "0.01").await, "");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn new_addresses_wait_until_they_have_been_paid_long_enough() {
    let policy = r#"
[[policy.rule]]
name = "trusted"
script = "other"
decide = "allow"
[[policy.rule]]
name = "new address"
first_seen = "24h"
decide = "refuse"
"#;
    let clock = SetClock::at("2026-11-20T09:00:00Z");
    let stage = stage(Options::default(), policy)
        .await
        .clock(Arc::clone(&clock) as _);
    let daemon = stage.start().await;
    let refusal = pay_one(&stage, &daemon, "payer", row("n1", "0.01", "tb1qa")).await;
    assert_eq!(
        refusal,
        "`new address`: refused: the address was never paid before"
    );
    let refusal = pay_one(&stage, &daemon, "other", row("n2", "0.01", "tb1qa")).await;
    assert_eq!(refusal, "");
    daemon.payment("n2", "confirmed").await;
    clock.set("2026-11-21T08:59:59Z");
    let refusal = pay_one(&stage, &daemon, "payer", row("n3", "0.01", "tb1qa")).await;
    assert_eq!(
        refusal,
        "`new address`: refused: the address was first paid at 2026-11-20T09:00:00.000Z, within the last 1d"
    );
    clock.set("2026-11-21T09:00:00Z");
    let rows = [row("n4", "0.01", "TB1QA"), row("n5", "0.01", "tb1qb")];
    let refusals = pay(&stage, &daemon, "payer", &rows).await;
    assert_eq!(refusals[0], "");
    assert!(refusals[1].contains("never paid"), "{}", refusals[1]);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_look_at_the_clock_of_their_zone_and_at_whole_batches() {
    let policy = r#"
[policy]
otherwise = "refuse"
max_batch = 3
timezone = "America/New_York"
[[policy.rule]]
name = "large batches"
batch_above = 2
decide = "refuse"
[[policy.rule]]
name = "office hours"
hours = "09:00-18:00"
weekdays = "mon-fri"
decide = "allow"
"#;
    let clock = SetClock::at("2026-11-20T13:59:00Z");
    let stage = stage(Options::default(), policy)
        .await
        .clock(Arc::clone(&clock) as _);
    let daemon = stage.start().await;
    let rows = |from: usize, count: usize| -> Vec<Value> {
        (from..from + count)
            .map(|n| row(&format!("r{n}"), "0.01", "tb1qa"))
            .collect()
    };
    let nothing = "`otherwise`: refused: no rule speaks of this payment";
    assert_eq!(pay(&stage, &daemon, "payer", &rows(0, 1)).await, [nothing]);
    clock.set("2026-11-20T14:00:00Z");
    assert_eq!(pay(&stage, &daemon, "payer", &rows(1, 2)).await, ["", ""]);
    let refusals = pay(&stage, &daemon, "payer", &rows(3, 3)).await;
    let large = "`large batches`: refused: 3 are asked for together, above 2";
    assert_eq!(refusals, [large; 3]);
    let refusals = pay(&stage, &daemon, "payer", &rows(6, 4)).await;
    let too_large = "`max_batch`: 4 payments are asked for together, at most 3 may be";
    assert_eq!(refusals, [too_large; 4]);
    // Saturday in New York, while it is Sunday in Tokyo.
    clock.set("2026-11-21T15:00:00Z");
    assert_eq!(pay(&stage, &daemon, "payer", &rows(10, 1)).await, [nothing]);
    assert_eq!(executed(&stage.control).len(), 2);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn amounts_are_converted_and_without_fresh_rates_nothing_is_paid() {
    let policy = r#"
[[policy.limit]]
name = "euros"
amount_in = { EUR = "1000" }
per = "day"
"#;
    let clock = SetClock::at("2026-11-20T09:00:00Z");
    let stage = stage(Options::default(), policy)
        .await
        .clock(Arc::clone(&clock) as _);
    let daemon = stage.start().await;
    // A start waits for the first rates, so that nothing is refused for want of them.
    assert_eq!(
        pay_one(&stage, &daemon, "payer", row("e1", "0.001", "tb1qa")).await,
        ""
    );
    let refusal = pay_one(&stage, &daemon, "payer", row("e2", "1", "tb1qa")).await;
    assert!(
        refusal.starts_with("`euros`: ") && refusal.contains(" of 1000 EUR spent today, "),
        "{refusal}"
    );
    stage
        .control
        .set_faults(Faults(vec![Rule::always(Fault::DropRequest)]));
    clock.set("2026-11-20T09:10:01Z");
    let refusal = pay_one(&stage, &daemon, "payer", row("e3", "0.001", "tb1qa")).await;
    assert_eq!(
        refusal,
        "`euros`: the rate from BTC to EUR is 10m1s old, at most 10m is allowed, and without a fresh rate nothing is paid"
    );
    stage.control.set_faults(Faults(Vec::new()));
    let mut number = 0;
    eventually("fresh rates are there", || {
        number += 1;
        let id = format!("f{number}");
        let (stage, daemon) = (&stage, &daemon);
        async move {
            let refusal = pay_one(stage, daemon, "payer", row(&id, "0.001", "tb1qa")).await;
            refusal.is_empty().then_some(())
        }
    })
    .await;
    assert_eq!(stage.control.executions().len(), 2);
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_people_is_not_sent_and_counts() {
    let policy = r#"
[[policy.limit]]
name = "day"
currency = "BTC"
amount = "0.1"
per = "day"
[[policy.rule]]
name = "large"
currency = "BTC"
above = "0.05"
decide = "approve"
"#;
    let stage = stage(Options::default(), policy).await;
    let stage = stage.script("single.rhai", &by_hand(&withdraw("w1", "0.06")));
    let daemon = stage.start().await;
    let run = daemon.trigger("single", "go").await;
    assert_eq!(run["state"], "succeeded", "{run:#}");
    daemon.payment("w1", "awaiting_approval").await;
    assert_eq!(
        pay_one(&stage, &daemon, "payer", row("w2", "0.05", "tb1qa")).await,
        "`day`: 0.06 of 0.1 BTC spent today, 0.05 more would be 0.11"
    );
    assert_eq!(
        pay_one(&stage, &daemon, "payer", row("w3", "0.04", "tb1qa")).await,
        ""
    );
    assert_eq!(executed(&stage.control), BTreeMap::from([("w3".into(), 1)]));
    daemon.stop().await;
}

/// Starts a daemon whose configuration is a file, so that it can be changed.
async fn start_with_file(stage: &Stage, policy: &str) -> Running {
    write_policy(stage, policy);
    let options = Options::default();
    let environment = BTreeMap::from([
        ("KEY".to_owned(), options.key),
        ("SECRET".to_owned(), options.secret),
    ]);
    let path = stage.path("daemon.toml");
    let config = bursar::config::load(Some(&path), &environment, bursar::config::Need::Everything);
    let config =
        config.unwrap_or_else(|errors| panic!("{}", bursar::domain::diagnostic::render(&errors)));
    stage.start_as(config).await
}

/// Saves the file as editors do: another one takes its place.
fn write_policy(stage: &Stage, policy: &str) {
    stage.write("daemon.toml.new", &format!("{}{policy}", stage.toml()));
    std::fs::rename(stage.path("daemon.toml.new"), stage.path("daemon.toml")).unwrap();
}

/// Waits until policy was taken over, or refused, so often.
async fn reloaded(daemon: &Running, outcome: &str, times: u64) {
    let counter = format!("bursar_policy_reloads_total{{outcome=\"{outcome}\"}}");
    eventually(&format!("{counter} is {times}"), || async {
        (counted(daemon, &counter).await == times).then_some(())
    })
    .await;
}

fn cap(name: &str, amount: &str) -> String {
    format!(
        "[[policy.limit]]\nname = \"{name}\"\ncurrency = \"BTC\"\namount = \"{amount}\"\nper = \"day\"\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_policy_takes_effect_and_a_broken_one_does_not() {
    let stage = stage(Options::default(), "").await;
    let daemon = start_with_file(&stage, &cap("first", "0.1")).await;
    let pay = async |id: &str, amount: &str| {
        pay_one(&stage, &daemon, "payer", row(id, amount, "tb1qa")).await
    };
    assert_eq!(pay("p1", "0.06").await, "");
    assert!(
        pay("p2", "0.05")
            .await
            .starts_with("`first`: 0.06 of 0.1 BTC")
    );

    write_policy(&stage, &cap("second", "0.12"));
    reloaded(&daemon, "swapped", 1).await;
    // What was spent before counts for the limits of today.
    assert_eq!(pay("p3", "0.05").await, "");
    let full = "`second`: 0.11 of 0.12 BTC spent today, 0.02 more would be 0.13";
    assert_eq!(pay("p4", "0.02").await, full);

    write_policy(&stage, &cap("third", "ten"));
    reloaded(&daemon, "failed", 1).await;
    assert_eq!(pay("p5", "0.02").await, full);
    // A good policy beside a mistake elsewhere is not taken over either.
    write_policy(&stage, &format!("[gatewy]\n{}", cap("third", "10")));
    reloaded(&daemon, "failed", 2).await;
    assert_eq!(pay("p6", "0.02").await, full);

    let deny = "[[policy.rule]]\nname = \"never here\"\naddress = { file = \"deny.txt\" }\ndecide = \"refuse\"\n";
    write_policy(&stage, deny);
    reloaded(&daemon, "failed", 3).await;
    assert_eq!(pay("p7", "0.02").await, full);
    // The mistake was in the file that the policy names: it was not there.
    stage.write("deny.txt", "tb1qthief\n");
    reloaded(&daemon, "swapped", 2).await;
    assert_eq!(pay("p8", "0.02").await, "");
    stage.write("deny.txt", "tb1qthief\nTB1QA # changed sides\n");
    reloaded(&daemon, "swapped", 3).await;
    assert_eq!(
        pay("p9", "0.02").await,
        "`never here`: refused: the address is listed in `address`"
    );
    stage.write("deny.txt", "tb1q a\n");
    reloaded(&daemon, "failed", 4).await;
    assert!(!pay("p10", "0.02").await.is_empty());
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_be_decided_is_explained_and_changes_nothing() {
    let policy = cap("day", "0.1")
        + "[[policy.rule]]\nname = \"large\"\ncurrency = \"BTC\"\nabove = \"0.05\"\ndecide = \"approve\"\nquorum = 2\n[[policy.rule]]\nname = \"small\"\ndecide = \"allow\"\n";
    let stage = stage(Options::default(), &policy).await;
    let daemon = stage.start().await;
    assert_eq!(
        pay_one(&stage, &daemon, "payer", row("t1", "0.02", "tb1qa")).await,
        ""
    );
    let ask = async |body: Value| -> (u16, Value) {
        let url = format!("{}/api/v1/policy/test", daemon.admin);
        let headers = [("Content-Type", "application/json")];
        let (status, text) = post(&url, &headers, body.to_string().as_bytes()).await;
        (status, serde_json::from_str(&text).unwrap())
    };
    let asked = json!([
        {"currency": "BTC", "amount": "0.06", "address": "tb1qa"},
        {"currency": "BTC", "amount": "0.03", "address": "tb1qa"},
        {"currency": "BTC", "amount": "0.02", "address": "tb1qa", "at": "2100-01-01T00:00:00Z"},
    ]);
    for _ in 0..2 {
        let (status, told) = ask(asked.clone()).await;
        assert_eq!(status, 200, "{told:#}");
        assert_eq!(told["source"], "daemon");
        let payments = &told["payments"];
        assert_eq!(payments[0]["verdict"], "approve", "{told:#}");
        assert_eq!(payments[0]["approval"]["quorum"], 2);
        assert_eq!(payments[0]["not_looked_at"], json!(["small"]));
        assert_eq!(payments[1]["verdict"], "refuse", "{told:#}");
        assert_eq!(
            payments[1]["because"],
            "`day`: 0.08 of 0.1 BTC spent today, 0.03 more would be 0.11"
        );
        assert_eq!(payments[2]["verdict"], "allow", "{told:#}");
    }
    let (status, told) = ask(json!({"curency": "BTC"})).await;
    assert_eq!(status, 400);
    let message = told["error"]["message"].as_str().unwrap();
    assert!(message.contains("did you mean `currency`?"), "{message}");
    // Nothing of it was reserved.
    assert_eq!(
        pay_one(&stage, &daemon, "payer", row("t2", "0.05", "tb1qa")).await,
        ""
    );
    daemon.stop().await;
}

/// The binary in that folder, with nothing in its environment. Answers exit code, standard output
/// and standard error.
fn bursar(folder: &std::path::Path, arguments: &[&str]) -> (i32, String, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_bursar"));
    let command = command.args(arguments).current_dir(folder).env_clear();
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (
        output.status.code().unwrap(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn check_finds_what_cannot_have_been_meant() {
    let stage = stage(Options::default(), "").await;
    let folder = stage.folder.path();
    let check = |policy: &str| {
        stage.write("daemon.toml", policy);
        bursar(folder, &["check"])
    };
    let (code, out, err) = check(&cap("day", "1"));
    assert_eq!(code, 0, "{out}{err}");
    let odd = r#"
[[policy.rule]]
name = "all of it"
currency = ["BTC", "ETH"]
decide = "refuse"
[[policy.rule]]
name = "some of it"
currency = "ETH"
above = "1"
decide = "allow"
[[policy.rule]]
name = "whose?"
script = "payroll"
handler = "going"
decide = "allow"
[[policy.rule]]
name = "whose else?"
script = "payr"
decide = "allow"
"#;
    let (code, _, err) = check(&format!("{}{odd}", cap("day", "1")));
    assert_eq!(code, 64, "{err}");
    for expected in [
        "the limit `day` never counts anything: the rule `all of it` refuses",
        "the rule `some of it` never decides: `all of it`, which comes before it",
        "`whose?` speaks of the script `payroll`, which is not there",
        "`whose else?` speaks of the script `payr`, which is not there",
        "did you mean \"payer\"?",
        "daemon.toml:11:1",
    ] {
        assert!(err.contains(expected), "{expected} is missing in\n{err}");
    }
    let (code, _, err) = check(&cap("day", "1").replace("BTC", "BTX"));
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("warning: `day` speaks of BTX"), "{err}");
    let (code, _, err) = check(
        "[[policy.rule]]\nname = \"d\"\naddress = { file = \"deny.txt\" }\ndecide = \"refuse\"\n",
    );
    assert_eq!(code, 64, "{err}");
    assert!(err.contains("`deny.txt` cannot be read"), "{err}");
    stage.write("deny.txt", "good\nnot good\n");
    let (code, _, err) = bursar(folder, &["check"]);
    assert_eq!(code, 64, "{err}");
    assert!(err.contains("deny.txt:2:1"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn policy_is_tested_from_the_shell_with_and_without_a_daemon() {
    let stage = stage(Options::default(), &cap("day", "0.1")).await;
    let daemon = stage.start().await;
    assert_eq!(
        pay_one(&stage, &daemon, "payer", row("s1", "0.06", "tb1qa")).await,
        ""
    );
    let folder = stage.folder.path();
    let listen = daemon.admin.strip_prefix("http://").unwrap();
    stage.write(
        "daemon.toml",
        &format!("admin.listen = \"{listen}\"\n{}", cap("day", "0.1")),
    );
    stage.write("one.json", &row("t", "0.05", "tb1qa").to_string());
    let (code, out, err) = bursar(folder, &["policy", "test", "one.json"]);
    assert_eq!(code, 0, "{err}");
    assert!(
        out.contains("refused: `day`: 0.06 of 0.1 BTC spent today"),
        "{out}"
    );
    let (code, out, _) = bursar(
        folder,
        &["policy", "test", "one.json", "--offline", "--json"],
    );
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &told["source"]), (0, &json!("configuration")));
    assert_eq!(told["payments"][0]["verdict"], "allow", "{told:#}");
    daemon.stop().await;
    let (code, out, _) = bursar(folder, &["policy", "test", "one.json"]);
    assert_eq!(code, 0);
    assert!(out.contains("nothing counts as spent"), "{out}");
    stage.write("one.json", "{\"amount\": \"x\"}");
    let (code, _, err) = bursar(folder, &["policy", "test", "one.json"]);
    assert_eq!(code, 64, "{err}");
    assert!(
        err.contains("it has no `currency`") && err.contains("`x` is not a decimal"),
        "{err}"
    );
    let (code, _, err) = bursar(folder, &["policy", "test", "none.json"]);
    assert_eq!(code, 1, "{err}");
}

/// A page of the project.
fn page(name: &str) -> String {
    std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policies_that_are_shown_are_policies() {
    let shown = page("docs/policy.md");
    let shown = shown.split("```toml\n").nth(1).unwrap();
    let shown = shown.split("```").next().unwrap();
    // In the file of defaults the lists are examples, and therefore remarks.
    let defaults = page("daemon.toml");
    let examples = defaults.split("\n# [[policy.limit]]").nth(1).unwrap();
    let examples = examples.split("\n\n# What is kept").next().unwrap();
    let examples = examples.replace("\n# ", "\n");
    let stage = stage(Options::default(), "").await;
    stage.write("deny.txt", "tb1qthief\n");
    for (policy, rows) in [
        (shown.to_owned(), 6),
        (format!("[[policy.limit]]{examples}"), 2),
    ] {
        stage.write("daemon.toml", &policy);
        let config = bursar::config::load(
            Some(&stage.path("daemon.toml")),
            &BTreeMap::new(),
            bursar::config::Need::Nothing,
        );
        let policy = config
            .unwrap_or_else(|errors| panic!("{}", bursar::domain::diagnostic::render(&errors)))
            .policy;
        assert_eq!(policy.places.len(), rows);
        assert_eq!(policy.doubts, Vec::new());
    }
}
