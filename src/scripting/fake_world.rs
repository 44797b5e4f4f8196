//! A world for tests: answers every request from memory and keeps what was asked.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::effects::{
    Awaited, Code, Effects, Failure, FileAccess, Interrupt, Request, Site, StateAccess, Stop,
};
use super::{Ended, Known, ScriptSet, Sources};
use crate::config::Limits;
use crate::domain::diagnostic::{Diagnostic, render};
use crate::domain::id::HandlerId;
use crate::domain::money::{decimal_from_json, json_from_decimal};
use crate::domain::operation::Operation;

/// What was asked, and what is stored.
#[derive(Default)]
pub(super) struct FakeWorld {
    asked: Mutex<Vec<(Request, Site)>>,
    state: Mutex<BTreeMap<String, Value>>,
    files: Mutex<BTreeMap<String, String>>,
}

impl FakeWorld {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    pub(super) fn with_file(self: Arc<Self>, path: &str, text: &str) -> Arc<Self> {
        self.files
            .lock()
            .unwrap()
            .insert(path.to_owned(), text.to_owned());
        self
    }

    pub(super) fn asked(&self) -> Vec<Request> {
        let asked = self.asked.lock().unwrap();
        asked.iter().map(|(request, _)| request.clone()).collect()
    }

    pub(super) fn sites(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        asked
            .iter()
            .map(|(_, site)| format!("{}:{}", site.file, site.line))
            .collect()
    }

    pub(super) fn logged(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for request in self.asked() {
            if let Request::Log { text, .. } = request {
                lines.push(text);
            }
        }
        lines
    }

    pub(super) fn state(&self, key: &str) -> Option<Value> {
        self.state.lock().unwrap().get(key).cloned()
    }

    fn state_access(&self, access: StateAccess) -> Value {
        let mut state = self.state.lock().unwrap();
        match access {
            StateAccess::Get { key } => state.get(&key).map_or(Value::Null, |v| json!([v])),
            StateAccess::Set { key, value } => {
                state.insert(key, value);
                Value::Null
            }
            StateAccess::Remove { key } => state.remove(&key).is_some().into(),
            StateAccess::Add { key, number } => {
                let before = state.get(&key).cloned().unwrap_or(json!(0));
                let sum = decimal_from_json(&before).unwrap() + decimal_from_json(&number).unwrap();
                state.insert(key, json_from_decimal(sum));
                json_from_decimal(sum)
            }
            StateAccess::List { prefix } => {
                let found = state.iter().filter(|(key, _)| key.starts_with(&prefix));
                found
                    .map(|(key, value)| (key.clone(), value.clone()))
                    .collect()
            }
        }
    }
}

/// Everything has happened already, but for what has a word in it that says otherwise.
fn wait(on: Awaited) -> Result<Value, Stop> {
    match on {
        Awaited::Time => Ok(Value::Null),
        Awaited::Payment { foreign_id } if foreign_id == "open" => Err(Stop::Failure(
            Failure::new(Code::Timeout, "the payment `open` is still accepted"),
        )),
        Awaited::Payment { foreign_id } if foreign_id == "later" => {
            Err(Stop::Interrupt(Interrupt::Suspended))
        }
        Awaited::Payment { foreign_id } => Ok(settled(&foreign_id)),
        Awaited::Payments { foreign_ids } => {
            let confirmed: Vec<Value> = foreign_ids.iter().map(|id| settled(id)).collect();
            Ok(json!({"confirmed": confirmed, "failed": [], "open": []}))
        }
        Awaited::Event { event, .. } => Ok(json!({"key": "k", "event": {"kind": event}})),
    }
}

fn settled(foreign_id: &str) -> Value {
    let mut payment = payment(&json!({ "foreign_id": foreign_id }));
    payment["status"] = json!("confirmed");
    payment["is_final"] = json!(true);
    payment
}

fn payment(arguments: &Value) -> Value {
    let mut payment = json!({
        "foreign_id": "derived", "kind": "withdrawal", "status": "accepted", "id": 17,
        "error": null, "is_final": false,
    });
    for key in ["foreign_id", "amount", "currency"] {
        if let Some(value) = arguments.get(key) {
            payment[key] = value.clone();
        }
    }
    payment
}

fn answer(operation: Operation) -> Value {
    let text = match operation {
        Operation::Ping => r#""OK""#,
        Operation::ListAccounts => r#"[{"currency":"BTC","type":"crypto","balance":0.04}]"#,
        Operation::ListCurrencies => r#"[{"currency":"BTC","minimum_amount":0.0001}]"#,
        Operation::ListPairs | Operation::ListRates => r#"[{"rate_from":1,"rate_to":8795.80}]"#,
        Operation::TakeAddress => r#"{"address":"tb1q"}"#,
        Operation::CalculateExchange => r#"{"sender_amount":0.02,"price":77314.26}"#,
        Operation::CreateInvoice => r#"{"url":"https://x"}"#,
        Operation::CreatePaymentRequest => r#"{"payment_link":"https://x"}"#,
        Operation::TransactionInfo => r#"{"status":"confirmed"}"#,
        Operation::Withdraw
        | Operation::WithdrawInstant
        | Operation::ExchangeFixed
        | Operation::ExchangeNow => panic!("{operation} is a payment"),
    };
    serde_json::from_str(text).unwrap()
}

impl Effects for FakeWorld {
    /// Answers as a real world would; keys and URLs with certain words in them fail in the way
    /// they say.
    fn perform(&self, request: Request, site: &Site) -> Result<Value, Stop> {
        self.asked
            .lock()
            .unwrap()
            .push((request.clone(), site.clone()));
        match request {
            Request::Gateway { operation, .. } => Ok(answer(operation)),
            Request::Pay { arguments, .. } => match arguments["foreign_id"].as_str() {
                Some("rejected") => Err(Stop::Failure(Failure {
                    code: Code::GatewayRejected,
                    message: "the gateway refused the withdrawal".to_owned(),
                    details: json!({"errors": {"amount": "too small"}}),
                })),
                Some("diverged") => Err(Stop::Interrupt(Interrupt::Diverged {
                    recorded: "a".to_owned(),
                    requested: "b".to_owned(),
                })),
                _ => Ok(payment(&arguments)),
            },
            Request::PayAll { payments, .. } => Ok(payments.iter().map(payment).collect()),
            Request::Payment { foreign_id } if foreign_id == "none" => Ok(Value::Null),
            Request::Payment { foreign_id } => Ok(payment(&json!({ "foreign_id": foreign_id }))),
            Request::State { access, .. } => Ok(self.state_access(access)),
            Request::OnceBegin { key } => Ok(self.state_access(StateAccess::Get {
                key: format!("once/{key}"),
            })),
            Request::OnceEnd { key, value } => Ok(self.state_access(StateAccess::Set {
                key: format!("once/{key}"),
                value,
            })),
            Request::Http(request) if request.url.contains("down") => Err(Stop::Failure(
                Failure::new(Code::HttpUnavailable, "shop.example did not answer"),
            )),
            Request::Http(_) => Ok(json!({"status": 200, "headers": {}, "body": {"rate": 2}})),
            Request::File(FileAccess::Read { path }) => match self.files.lock().unwrap().get(&path)
            {
                Some(text) => Ok(text.as_str().into()),
                None => Err(Stop::Failure(Failure::new(
                    Code::NotFound,
                    format!("there is no file {path}"),
                ))),
            },
            Request::File(FileAccess::List { .. }) => {
                Ok(json!([{"name": "a", "size": 1, "is_dir": false}]))
            }
            Request::Wait { on, .. } => wait(on),
            Request::Now => Ok(json!(1_763_802_000_000_i64)),
            Request::File(FileAccess::Write { path, text }) => {
                self.files.lock().unwrap().insert(path, text);
                Ok(Value::Null)
            }
            Request::Emit { .. } | Request::File(FileAccess::Move { .. }) | Request::Log { .. } => {
                Ok(Value::Null)
            }
        }
    }
}

pub(super) fn limits() -> Limits {
    Limits {
        operations: 200_000,
        call_depth: 32,
        string_size: 100_000,
        array_size: 10_000,
        map_size: 1_000,
        timeout: Duration::from_mins(1),
        concurrent_runs: 8,
        concurrent_runs_per_script: 4,
        catch_up_per_second: 20,
    }
}

pub(super) fn try_compile(files: &[(&str, &str)]) -> Result<ScriptSet, Vec<Diagnostic>> {
    let sources: Sources = files
        .iter()
        .map(|(path, source)| ((*path).to_owned(), (*source).to_owned()))
        .collect();
    let known = Known {
        secrets: ["SHOP_TOKEN".to_owned()].into(),
    };
    ScriptSet::compile(sources, &limits(), &known)
}

pub(super) fn compile(files: &[(&str, &str)]) -> ScriptSet {
    try_compile(files).unwrap_or_else(|mistakes| panic!("{}", render(&mistakes)))
}

/// The rendered mistakes of a set that must not compile.
pub(super) fn mistakes(files: &[(&str, &str)]) -> String {
    match try_compile(files) {
        Ok(_) => panic!("it compiles: {files:?}"),
        Err(mistakes) => {
            assert!(!mistakes.is_empty(), "a refusal without a reason");
            render(&mistakes)
        }
    }
}

pub(super) fn soon() -> Instant {
    super::current::instant() + Duration::from_mins(1)
}

pub(super) fn id(script: &str, name: &str) -> HandlerId {
    HandlerId {
        script: script.to_owned(),
        name: name.to_owned(),
    }
}

/// Executes statements as the handler `h` of `t.rhai`, with `event` as what it gets.
pub(super) fn execute_with(world: &Arc<FakeWorld>, body: &str, event: &Value) -> Ended {
    let script = format!("on(\"e\", #{{ name: \"h\" }}, |event| {{\n{body}\n}});");
    let set = compile(&[("t.rhai", &script)]);
    set.execute(
        &id("t", "h"),
        event.clone(),
        Arc::clone(world) as Arc<dyn Effects>,
        soon(),
    )
}

/// As [`execute_with`], where the handler must return.
pub(super) fn returned(world: &Arc<FakeWorld>, body: &str) -> Value {
    match execute_with(world, body, &json!({})) {
        Ended::Returned(value) => value,
        Ended::Failed(error) => panic!("{}", error.diagnostic),
        Ended::Interrupted(interrupt) => panic!("{interrupt:?}"),
    }
}
