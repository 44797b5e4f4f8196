//! What goes on while the daemon is killed: a deposit starts a batch of payouts whose callbacks
//! come back and which waits for them, a schedule fires every second, the scripts are changed. And what must be true in the
//! end, whatever happened.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use bursar::simulator::{Fault, Faults, Operation, Options, Rule};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::machine::{Machine, Process};
use crate::stage::{PATIENCE, SENDER, executed};

/// The fault that makes the gateway pay again whatever is sent again.
pub fn pays_again() -> Rule {
    Rule::always(Fault::ExecuteRepeat)
}

/// A fault that strikes so many of a thousand payouts and their callbacks.
pub fn now_and_then(fault: Fault, per_mille: u16) -> Rule {
    Rule {
        operation: Some(Operation::Withdrawal),
        per_mille: Some(per_mille),
        ..Rule::always(fault)
    }
}

/// A machine and the batch that it is to pay.
pub struct Scene {
    pub machine: Machine,
    script: String,
    rows: usize,
    deposited: bool,
    /// The script set before the change.
    before: Option<Value>,
}

/// What a look at the daemon says.
enum Look {
    /// Not everything has happened yet; what is missing.
    Not(String),
    Settled,
}

impl Scene {
    /// A batch of `rows` payouts, `at_once` of them under way at a time, at a gateway with these
    /// faults that takes `latency` for each request.
    pub async fn new(rows: usize, at_once: usize, faults: Vec<Rule>, latency: Duration) -> Self {
        let script = script(rows, at_once);
        let options = Options {
            faults: Faults(faults),
            latency,
            ..Options::default()
        };
        Self {
            machine: Machine::new(&script, options).await,
            script,
            rows,
            deposited: false,
            before: None,
        }
    }

    /// Plays the customer, the gateway and the person who edits scripts until everything has
    /// happened (`None`) or the daemon has ended.
    pub async fn play(&mut self, process: &mut Process) -> Option<ExitStatus> {
        self.play_until(process, Instant::now() + PATIENCE, true)
            .await
    }

    /// The same, but no longer than until `end`.
    pub async fn play_until(
        &mut self,
        process: &mut Process,
        end: Instant,
        must_settle: bool,
    ) -> Option<ExitStatus> {
        loop {
            if let Some(status) = process.ended() {
                return Some(status);
            }
            let missing = match self.act().await {
                Look::Settled => return None,
                Look::Not(missing) => missing,
            };
            if Instant::now() >= end {
                assert!(!must_settle, "waited in vain: {missing}");
                return None;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn act(&mut self) -> Look {
        if !self.deposited {
            self.deposited = self.machine.post_callback(&deposit(1, "customer")).await;
            return Look::Not("the deposit is not taken".into());
        }
        if self.before.is_none() && !self.machine.control.executions().is_empty() {
            let Some(overview) = self.machine.get("/api/v1/overview").await else {
                return Look::Not("the daemon does not answer".into());
            };
            self.before = Some(overview["set"].clone());
            self.machine
                .write_script(&format!("{}\n// changed\n", self.script));
        }
        let look = self.look().await;
        look.unwrap_or_else(|| Look::Not("the daemon does not answer".into()))
    }

    /// Whether everything that is to happen has happened.
    async fn look(&self) -> Option<Look> {
        let not = |missing: String| Some(Look::Not(missing));
        let machine = &self.machine;
        let payments = machine.list("payments?limit=1000").await?;
        let executed = executed(&machine.control);
        for payment in &payments {
            let status = payment["status"].as_str()?;
            let done = match executed.get(payment["foreign_id"].as_str()?) {
                Some(_) => status == "confirmed",
                None => ["unknown", "held"].contains(&status),
            };
            if !done {
                return not(format!("{payment}"));
            }
        }
        if payments.len() != self.rows {
            return not(format!("{} payments", payments.len()));
        }
        let callbacks = machine.control.callbacks();
        let delivered = callbacks.iter().filter(|callback| callback.delivered);
        if delivered.count() < executed.len() {
            return not("callbacks are under way".into());
        }
        let runs = machine.list("runs?limit=1000").await?;
        let count = |handler: &str, state: &str| {
            let wanted = |run: &&Value| run["handler"] == handler && run["state"] == state;
            runs.iter().filter(wanted).count()
        };
        for (handler, least) in [
            ("deposit.confirmed", 1),
            ("paid", 1),
            ("withdrawal.*", executed.len()),
            ("beat", 2),
        ] {
            assert_eq!(count(handler, "parked"), 0, "{runs:#?}");
            if count(handler, "succeeded") < least {
                return not(format!("{least} runs of {handler}: {runs:#?}"));
            }
        }
        let set = machine.get("/api/v1/overview").await?["set"].clone();
        if self.before.as_ref().is_none_or(|before| *before == set) {
            return not("the changed script is not in use".into());
        }
        Some(Look::Settled)
    }

    /// Judges what the gateway did and what the scripts remember, once everything is settled.
    /// Answers how many payments never happened; all of those are reported as of unknown fate.
    pub async fn judge(&self) -> usize {
        let executions = self.machine.control.executions();
        for execution in &executions {
            assert_eq!(execution.times_requested, 1, "sent again: {execution:?}");
        }
        let executed = executed(&self.machine.control);
        assert!(executed.values().all(|times| *times == 1), "{executed:?}");

        let payments = self.machine.list("payments?limit=1000").await.unwrap();
        let names = |wanted: &dyn Fn(&Value) -> bool| -> BTreeSet<String> {
            let rows = payments.iter().filter(|payment| wanted(&payment["status"]));
            rows.map(|payment| payment["foreign_id"].as_str().unwrap().to_owned())
                .collect()
        };
        let all: BTreeSet<String> = (0..self.rows).map(|row| format!("row-{row}")).collect();
        let happened: BTreeSet<String> = executed.into_keys().collect();
        let doubtful = names(&|status| *status == "unknown" || *status == "held");
        assert_eq!(names(&|_| true), all);
        assert_eq!(names(&|status| *status == "confirmed"), happened);
        assert_eq!(&all - &happened, doubtful);

        self.judge_runs().await;
        doubtful.len()
    }

    /// Every event and every slot was handled exactly once.
    async fn judge_runs(&self) {
        let runs = self.machine.list("runs?limit=1000").await.unwrap();
        let state = self.machine.tell().await;
        let mut firings = BTreeSet::new();
        let mut beats = 0;
        for run in &runs {
            assert!(
                firings.insert((run["handler"].to_string(), run["firing"].to_string())),
                "fired twice: {run}"
            );
            beats += usize::from(run["handler"] == "beat" && run["state"] == "succeeded");
        }
        let mut expected = BTreeMap::new();
        for name in ["begun", "settled", "ended", "paid", "once"] {
            expected.insert(format!("count/{name}"), json!(1));
        }
        let callbacks = self.machine.control.callbacks();
        let delivered = callbacks.iter().filter(|callback| callback.delivered);
        let events: BTreeSet<String> = delivered
            .map(|callback| format!("withdrawal.{}/{}", callback.status, callback.foreign_id))
            .collect();
        expected.insert("count/withdrawals".into(), json!(events.len()));
        expected.extend(events.into_iter().map(|event| (event, json!(1))));
        let (slots, rest): (BTreeMap<_, _>, BTreeMap<_, _>) = state
            .into_iter()
            .partition(|(key, _)| key.starts_with("slot/"));
        assert_eq!(rest, expected);
        assert!(slots.values().all(|times| *times == json!(1)), "{slots:?}");
        assert!(slots.len() >= beats, "{beats} slots: {slots:?}");
    }
}

/// Whether the daemon died by an abort.
pub fn aborted(status: ExitStatus) -> bool {
    const SIGABRT: i32 = 6;
    status.signal() == Some(SIGABRT)
}

/// A confirmed deposit of that number.
pub fn deposit(id: usize, customer: &str) -> String {
    let sample = include_str!("../callbacks/deposit-confirmed.json");
    let mut body: Value = serde_json::from_str(sample).unwrap();
    body["id"] = json!(id);
    body["crypto_address"]["foreign_id"] = json!(customer);
    body.to_string()
}

fn script(rows: usize, at_once: usize) -> String {
    format!(
        r#"
schedule("beat", "* * * * * *", |tick| {{
    state::add(`slot/${{tick.scheduled_at}}`, 1);
}});

on("deposit.confirmed", |event| {{
    state::add("count/begun", 1);
    let rows = [];
    for n in 0..{rows} {{
        rows.push(#{{ {SENDER}
            foreign_id: `row-${{n}}`, currency: "BTC", amount: 0.01, address: `tb1q${{n}}`,
        }});
    }}
    let payments = gateway::withdraw_all(rows, #{{ concurrency: {at_once} }});
    once("report", || {{
        state::add("count/once", 1);
        csv::write("report.csv", payments.map(|payment| #{{ id: payment.foreign_id }}));
        payments.len()
    }});
    sleep("20ms");
    let settled = payments.wait("5s");
    if settled.confirmed.len() + settled.failed.len() + settled.open.len() == payments.len() {{
        state::add("count/settled", 1);
    }}
    sleep("20ms");
    state::add("count/ended", 1);
    emit("paid", #{{ rows: payments.len() }});
}});

on("paid", |event| {{
    state::add("count/paid", 1);
}});

on("withdrawal.*", |event| {{
    state::add(`${{event.kind}}/${{event.foreign_id}}`, 1);
    state::add("count/withdrawals", 1);
}});

schedule("tell", "0 0 1 1 *", |tick| {{
    state::list("count/");
    state::list("slot/");
    state::list("withdrawal.");
}});
"#
    )
}
