//! `bursar policy test`: what policy would say about payments, and why.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::admin_client::Daemon;
use super::exit_code::{Failure, Outcome};
use super::listed::Shown;
use super::output::{field, list};
use super::settings::Settings;
use crate::config::Need;
use crate::domain::clock::{Clock, SystemClock};
use crate::domain::diagnostic::Diagnostic;
use crate::domain::policy::{Facts, Rates, Sums, Verdict, decide, explained, proposed};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Say what would be decided about payments, and why
    ///
    /// Nothing is paid and nothing is reserved. The running daemon is asked, which knows what has
    /// been spent. When none runs, the configuration alone decides: then nothing counts as spent,
    /// no address was ever paid, and there are no rates. Payments of a list are asked for together,
    /// and each counts for those behind it.
    Test {
        /// One payment as JSON, or a list: the fields of `gateway::withdraw`; and `script`,
        /// `handler`, `kind` (default `withdraw`) and `at` (an instant, default now), if they
        /// matter
        file: PathBuf,
        /// Ask the configuration alone, also when a daemon runs
        #[arg(long)]
        offline: bool,
        #[command(flatten)]
        shown: Shown,
    },
}

pub(super) fn run(settings: &Settings, command: Command) -> Outcome {
    let Command::Test {
        file,
        offline,
        shown,
    } = command;
    let name = file.display();
    let text = std::fs::read_to_string(&file)
        .map_err(|error| Failure::failed(format!("cannot read `{name}`: {error}")))?;
    let value: Value = serde_json::from_str(&text)
        .map_err(|error| wrong(&[format!("`{name}` is not JSON: {error}")]))?;
    let explained = if offline {
        by_configuration(settings, &value)?
    } else {
        match Daemon::of(settings)?.post_if_there("policy/test", &value)? {
            Some(explained) => explained,
            None => by_configuration(settings, &value)?,
        }
    };
    shown.show(&explained, for_people);
    Ok(())
}

fn wrong(mistakes: &[String]) -> Failure {
    let mistakes: Vec<_> = mistakes.iter().map(Diagnostic::new).collect();
    Failure::bad_input(&mistakes)
}

/// What is decided when nothing has happened yet.
fn by_configuration(settings: &Settings, value: &Value) -> Result<Value, Failure> {
    let policy = settings.load(Need::Nothing)?.policy.rules;
    let now = SystemClock.now();
    let proposals = proposed(value, now).map_err(|mistakes| wrong(&mistakes))?;
    let earliest = proposals.iter().map(|one| one.at).min().unwrap_or(now);
    let mut sums = Sums::new(&policy, Sums::needed_from(&policy, earliest));
    let rates = Rates::default();
    let explanations: Vec<Value> = proposals
        .iter()
        .map(|proposal| {
            let facts = Facts {
                sums: &sums,
                first_paid: None,
                rates: &rates,
            };
            let decision = decide(&policy, proposal, &facts);
            if decision.verdict != Verdict::Refuse {
                sums.count(&policy, proposal, None);
            }
            explained(&policy, proposal, &decision)
        })
        .collect();
    Ok(json!({
        "source": "configuration",
        "note": "by the configuration alone: nothing counts as spent, no address was ever paid, and there are no rates",
        "payments": explanations,
    }))
}

fn for_people(explained: &Value) -> String {
    let mut parts = vec![field(explained, "note")];
    parts.extend(list(explained, "payments").iter().map(one));
    parts.join("\n\n")
}

fn one(payment: &Value) -> String {
    let amount = match field(payment, "amount") {
        amount if amount.is_empty() => "an unknown amount of".to_owned(),
        amount => amount,
    };
    let address = match field(payment, "address") {
        address if address.is_empty() => String::new(),
        address => format!(" to {address}"),
    };
    let verdict = match field(payment, "verdict").as_str() {
        "allow" => "allowed".to_owned(),
        "refuse" => "refused".to_owned(),
        _ => needs_approval(payment),
    };
    let mut lines = vec![
        format!(
            "{}: {} {amount} {}{address}, by {}/{}, at {}",
            field(payment, "foreign_id"),
            field(payment, "kind"),
            field(payment, "currency"),
            field(payment, "script"),
            field(payment, "handler"),
            field(payment, "at"),
        ),
        format!("  {verdict}: {}", field(payment, "because")),
    ];
    lines.extend(list(payment, "looked_at").iter().map(|reason| {
        let speaks = reason.get("matches") == Some(&Value::Bool(true));
        let mark = if speaks { '*' } else { '-' };
        format!(
            "    {mark} {}: {}",
            field(reason, "name"),
            field(reason, "text")
        )
    }));
    lines.extend(
        list(payment, "not_looked_at")
            .iter()
            .filter_map(Value::as_str)
            .map(|name| format!("      {name}: not looked at, a rule before it decides")),
    );
    lines.join("\n")
}

fn needs_approval(payment: &Value) -> String {
    let terms = payment.get("approval").unwrap_or(&Value::Null);
    let expires = terms.get("expires_after").and_then(Value::as_u64);
    let expires = std::time::Duration::from_secs(expires.unwrap_or_default());
    let editor = if terms.get("editor_may_approve") == Some(&Value::Bool(false)) {
        ", not the script's last editor"
    } else {
        ""
    };
    format!(
        "needs approval by {} within {}{editor}",
        field(terms, "quorum"),
        crate::domain::duration::format(expires)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_payment_is_explained_in_order() {
        let amount: Value = serde_json::from_str("0.40").unwrap();
        let explained = json!({
            "note": "by the running daemon",
            "payments": [
                {"foreign_id": "p-1", "kind": "withdraw", "currency": "ETH", "amount": amount,
                 "address": "0xabc", "script": "payroll", "handler": "monthly",
                 "at": "2026-11-20T12:00:00.000Z", "verdict": "refuse", "by": "ether per day",
                 "because": "`ether per day`: 0.7 of 1 ETH spent today, 0.4 more would be 1.1",
                 "approval": null,
                 "looked_at": [
                    {"name": "ether per day", "matches": true,
                     "text": "0.7 of 1 ETH spent today, 0.4 more would be 1.1"},
                    {"name": "never here", "matches": false,
                     "text": "the address is not listed in `address`"},
                    {"name": "payroll", "matches": true, "text": "allowed: every payment"},
                 ],
                 "not_looked_at": ["last"]},
                {"foreign_id": "p-2", "kind": "exchange_now", "currency": "BTC", "amount": null,
                 "address": null, "script": "s", "handler": "h",
                 "at": "2026-11-20T12:00:00.000Z", "verdict": "approve", "by": "large",
                 "because": "`large`: needs approval",
                 "approval": {"quorum": 2, "expires_after": 5400, "editor_may_approve": false},
                 "looked_at": [], "not_looked_at": []},
            ],
        });
        insta::assert_snapshot!(for_people(&explained));
    }
}
