//! What `bursar check` says about policy beyond its grammar: limits and rules that nobody can have
//! meant, scripts and handlers that are not there, currencies that are not known.

use std::collections::BTreeSet;

use crate::config::Policy;
use crate::domain::diagnostic::{Diagnostic, closest};
use crate::domain::policy::Matchers;
use crate::scripting::ScriptSet;

/// The codes in the gateway's documentation. An account may have others: which ones, only the
/// gateway says.
const DOCUMENTED: [&str; 31] = [
    "ADA", "BCH", "BNB", "BNB-BSC", "BTC", "CPD", "CSC", "DAI", "DOGE", "ETH", "ETHA", "ETHBASE",
    "EUR", "EURCBASE", "EURCE", "EURCS", "EURS", "GBP", "LTC", "POL", "SNACK", "TRX", "USD",
    "USDC", "USDTB", "USDTE", "USDTT", "VERSE", "WBTC", "XED", "XRP",
];

/// Everything that must be wrong.
pub(super) fn mistakes(policy: &Policy, set: &ScriptSet) -> Vec<Diagnostic> {
    let mut found = policy.doubts.clone();
    let handlers = set.handlers();
    let scripts: BTreeSet<&str> = handlers.iter().map(|one| one.id.script.as_str()).collect();
    for (name, of) in matchers(policy) {
        let wanted = of.scripts.iter().flatten();
        for script in wanted.filter(|script| !scripts.contains(script.as_str())) {
            let meant = closest(script, scripts.iter().copied());
            found.push(about(policy, name, "script", script, meant));
        }
        let possible: BTreeSet<&str> = handlers
            .iter()
            .filter(|one| {
                let scripts = of.scripts.as_ref();
                scripts.is_none_or(|scripts| scripts.contains(&one.id.script))
            })
            .map(|one| one.id.name.as_str())
            .collect();
        let wanted = of.handlers.iter().flatten();
        for handler in wanted.filter(|handler| !possible.contains(handler.as_str())) {
            let meant = closest(handler, possible.iter().copied());
            found.push(about(policy, name, "handler", handler, meant));
        }
    }
    found
}

/// What may be wrong.
pub(super) fn warnings(policy: &Policy) -> Vec<Diagnostic> {
    let caps = policy.rules.limits.iter();
    let caps = caps.map(|limit| (limit.name.as_str(), &limit.cap.currency));
    let matched = matchers(policy).flat_map(|(name, of)| {
        let currencies = of.currencies.iter().flatten();
        currencies.map(move |currency| (name, currency))
    });
    let all: BTreeSet<(&str, &String)> = caps.chain(matched).collect();
    let unknown = all
        .into_iter()
        .filter(|(_, currency)| !DOCUMENTED.contains(&currency.as_str()));
    unknown
        .map(|(name, currency)| {
            let known = "the gateway's documentation does not know this currency";
            let help = "`bursar call list_currencies` shows those of the account";
            let help = closest(currency, DOCUMENTED).map_or_else(
                || help.to_owned(),
                |meant| format!("did you mean {meant}? {help}"),
            );
            placed(
                policy,
                name,
                format!("`{name}` speaks of {currency}: {known}"),
            )
            .help(help)
        })
        .collect()
}

fn matchers(policy: &Policy) -> impl Iterator<Item = (&str, &Matchers)> {
    let limits = policy.rules.limits.iter();
    let limits = limits.map(|limit| (limit.name.as_str(), &limit.of));
    let rules = policy.rules.rules.iter();
    limits.chain(rules.map(|rule| (rule.name.as_str(), &rule.of)))
}

fn about(
    policy: &Policy,
    name: &str,
    what: &str,
    missing: &str,
    meant: Option<&str>,
) -> Diagnostic {
    let message = format!("`{name}` speaks of the {what} `{missing}`, which is not there");
    placed(policy, name, message).help(match meant {
        Some(meant) => format!("did you mean \"{meant}\"?"),
        None => format!("name a {what} that is there, or remove it"),
    })
}

fn placed(policy: &Policy, name: &str, message: String) -> Diagnostic {
    Diagnostic {
        message,
        place: policy.places.get(name).cloned(),
        help: None,
    }
}
