//! `bursar call OPERATION [JSON]`: one signed request to the gateway, from the shell.

use serde_json::Value;

use super::exit_code::{Failure, Outcome, with_causes};
use super::output::{complain, print_json};
use super::settings::Settings;
use crate::config::Need;
use crate::domain::diagnostic::closest;
use crate::domain::operation::{Effect, Operation};
use crate::gateway::{ArgumentError, Client, Disposition, Prepared, Rejection, prepare};
use crate::telemetry::Telemetry;

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// The operation, as scripts name it: ping, list_accounts, transaction_info, …
    #[arg(value_parser = operation)]
    operation: Operation,
    /// Its arguments, as a JSON object
    #[arg(value_name = "JSON", default_value = "{}", value_parser = arguments)]
    arguments: Value,
    /// Also call what makes something or moves money. The daemon does not know of a payment sent
    /// this way: it does not record it, look it up, or keep it from being sent again
    #[arg(long)]
    yes: bool,
}

fn operation(name: &str) -> Result<Operation, String> {
    let names = || Operation::ALL.into_iter().map(Operation::name);
    Operation::by_name(name).ok_or_else(|| match closest(name, names()) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("there are {}", names().collect::<Vec<_>>().join(", ")),
    })
}

fn arguments(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

pub(super) fn run(settings: &Settings, options: Options) -> Outcome {
    let Options {
        operation,
        arguments,
        yes,
    } = options;
    let prepared = prepare(operation, &arguments).map_err(|errors| refused(operation, &errors))?;
    if operation.effect() != Effect::Read && !yes {
        return Err(Failure::usage(unconfirmed(operation)));
    }
    let gateway = settings.load(Need::Gateway)?.gateway;
    if operation.effect() == Effect::Pay {
        complain(&format!(
            "warning: the daemon does not record this payment; it goes to {}",
            gateway.base_url
        ));
    }
    let failed = |error: &dyn std::error::Error| Failure::failed(with_causes(error));
    let client = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| failed(&error))?;
    let disposition = client.block_on(async {
        let client =
            Client::new(&gateway, &Telemetry::default()).map_err(|error| failed(&error))?;
        Ok(client.send(&prepared).await)
    })?;
    conclude(&prepared, disposition)
}

fn refused(operation: Operation, errors: &[ArgumentError]) -> Failure {
    let errors: Vec<String> = errors.iter().map(|error| format!("\n  {error}")).collect();
    Failure::usage(format!(
        "the arguments of {operation} have mistakes{}",
        errors.concat()
    ))
}

fn unconfirmed(operation: Operation) -> String {
    let does = if operation.effect() == Effect::Pay {
        "moves money, and the daemon neither records a payment sent this way nor keeps it from being sent again"
    } else {
        "makes something at the gateway"
    };
    format!("{operation} {does}; if that is what you want, add --yes")
}

fn conclude(prepared: &Prepared, disposition: Disposition) -> Outcome {
    match disposition {
        Disposition::Accepted(answer) => {
            print_json(&answer);
            Ok(())
        }
        Disposition::Rejected(rejection) => Err(Failure::failed(rejected(&rejection))),
        Disposition::NotSent { reason } => {
            Err(Failure::failed(format!("nothing was sent: {reason}")))
        }
        Disposition::Unknown { reason, status } => {
            let status = status.map_or_else(String::new, |status| format!(" (status {status})"));
            Err(Failure::failed(format!(
                "{reason}{status}{}",
                look_up(prepared)
            )))
        }
    }
}

fn rejected(rejection: &Rejection) -> String {
    let mut text = format!("the gateway refused it with {}", rejection.status);
    if let Some(code) = &rejection.code {
        text = format!("{text} ({code})");
    }
    if rejection.errors.is_empty() {
        return format!("{text}: {}", rejection.message);
    }
    let errors = rejection.errors.iter();
    let errors: Vec<String> = errors
        .map(|(field, message)| format!("\n  `{field}` {message}"))
        .collect();
    format!("{text}:{}", errors.concat())
}

/// What to do before anything is sent again.
fn look_up(prepared: &Prepared) -> String {
    let Some(foreign_id) = prepared.foreign_id() else {
        return String::new();
    };
    if prepared.operation().effect() == Effect::Read {
        return String::new();
    }
    let arguments = serde_json::json!({"foreign_id": foreign_id});
    format!(
        "\nit may or may not have happened: look it up before you send it again, with\n  bursar call transaction_info '{arguments}'"
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_was_meant_is_called() {
        assert_eq!(operation("ping"), Ok(Operation::Ping));
        assert_eq!(
            operation("withdrw").unwrap_err(),
            "did you mean `withdraw`?"
        );
        assert!(operation("teleport").unwrap_err().contains("list_accounts"));
    }

    #[test]
    fn a_lost_answer_says_how_to_look_the_payment_up() {
        let arguments = json!({"foreign_id": "p1", "sender_currency": "BTC", "receiver_currency": "EUR", "sender_amount": "1"});
        let prepared = prepare(Operation::ExchangeNow, &arguments).unwrap();
        let lost = |reason: &str| Disposition::Unknown {
            reason: reason.to_owned(),
            status: Some(502),
        };
        let failure = conclude(&prepared, lost("the answer broke off")).unwrap_err();
        assert!(failure.text.contains("(status 502)"), "{}", failure.text);
        assert!(
            failure
                .text
                .contains(r#"transaction_info '{"foreign_id":"p1"}'"#),
            "{}",
            failure.text
        );
        let prepared = prepare(Operation::ListAccounts, &json!({})).unwrap();
        let failure = conclude(&prepared, lost("the answer broke off")).unwrap_err();
        assert!(!failure.text.contains("look it up"), "{}", failure.text);
    }
}
