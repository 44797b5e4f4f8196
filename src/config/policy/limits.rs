//! The grammar of `[[policy.limit]]`.

use std::time::Duration;

use super::rows::Row;
use super::{Reading, TERM_KEYS, delta, matchers, no_terms, terms};
use crate::config::refusal::Refusal;
use crate::config::{choice, duration};
use crate::domain::diagnostic::{Diagnostic, closest};
use crate::domain::money::{Amount, Currency};
use crate::domain::policy::{By, Cap, Limit, Matchers, Per, Verdict};

/// The periods that have names.
const PERIODS: [(&str, Per); 4] = [
    ("payment", Per::Payment),
    ("day", Per::Day),
    ("week", Per::Week),
    ("month", Per::Month),
];

pub(super) fn read(row: &mut Row<'_>, reading: &mut Reading) -> Option<Limit> {
    let name = reading.name(row);
    let of = matchers::read(row, reading);
    row.knows(&TERM_KEYS);
    let cap = cap(row, of.as_ref());
    let per = row
        .required_text("per", "\"day\"")
        .and_then(|(text, place)| row.checked("per", &place, per(&text)));
    let by = match row.text("by") {
        None => row.place_of("by").is_none().then_some(By::All),
        Some((text, place)) => {
            let words = [
                ("all", By::All),
                ("script", By::Script),
                ("address", By::Address),
            ];
            row.checked("by", &place, choice::parse(&text, &words))
        }
    };
    let over = match row.text("over") {
        None => row.place_of("over").is_none().then_some(false),
        Some((text, place)) => {
            let words = [("refuse", false), ("approve", true)];
            row.checked("over", &place, choice::parse(&text, &words))
        }
    };
    let over = match over {
        Some(true) => Some(Verdict::Approve(terms(row))),
        Some(false) => {
            no_terms(row, "over");
            Some(Verdict::Refuse)
        }
        None => None,
    };
    if let (Some(Per::Payment), Some(By::Script | By::Address)) = (per, by)
        && let Some(place) = row.place_of("by")
    {
        let refusal = Refusal::new("means nothing for a limit on each payment")
            .help("remove it, or count over a period such as \"day\"");
        row.refuse("by", &place, refusal);
    }
    Some(Limit {
        name: name?,
        of: of?,
        cap: cap?,
        per: per?,
        by: by?,
        over: over?,
    })
}

/// `amount`, or `amount_in`.
fn cap(row: &mut Row<'_>, of: Option<&Matchers>) -> Option<Cap> {
    let amount = row.text("amount");
    let given = (row.place_of("amount"), row.place_of("amount_in"));
    match given {
        (None, None) => {
            let place = row.place();
            row.report(
                Diagnostic::new("this limit has no `amount`")
                    .at(place)
                    .help(
                        "add amount = \"1\" with a `currency`, or amount_in = { EUR = \"5000\" }",
                    ),
            );
            None
        }
        (Some(_), Some(place)) => {
            let refusal = Refusal::new("there is an `amount` too").help("keep one of the two");
            row.refuse("amount_in", &place, refusal);
            None
        }
        (Some(_), None) => {
            let (text, place) = amount?;
            let parsed = row.checked("amount", &place, read_amount(&text));
            let one = of?
                .currencies
                .as_ref()
                .filter(|currencies| currencies.len() == 1)
                .and_then(|currencies| currencies.first().cloned());
            if one.is_none() {
                let refusal = Refusal::new("it is not said in which currency").help(
                    "name one `currency`, or write amount_in = { EUR = \"5000\" } to add several up",
                );
                row.refuse("amount", &place, refusal);
            }
            Some(Cap {
                amount: parsed?,
                currency: one?,
                converted: false,
            })
        }
        (None, Some(place)) => {
            let Some((pairs, place)) = row.inner("amount_in") else {
                let refusal = Refusal::new("must name a currency and an amount in it")
                    .help("write amount_in = { EUR = \"5000\" }");
                row.refuse("amount_in", &place, refusal);
                return None;
            };
            let [(currency, amount)] = pairs.as_slice() else {
                let refusal = Refusal::new("must name one currency")
                    .help("write amount_in = { EUR = \"5000\" }; further currencies are limits of their own");
                row.refuse("amount_in", &place, refusal);
                return None;
            };
            let code = row.checked("amount_in", &place, read_currency(currency));
            let amount = row.checked("amount_in", &place, read_amount(amount));
            Some(Cap {
                amount: amount?,
                currency: code?,
                converted: true,
            })
        }
    }
}

fn read_amount(text: &str) -> Result<rust_decimal::Decimal, Refusal> {
    text.parse::<Amount>()
        .map(Amount::value)
        .map_err(|error| Refusal::new(error.to_string()))
}

/// A currency code; only its form can be checked, since the gateway's list is its own.
pub(super) fn read_currency(text: &str) -> Result<String, Refusal> {
    text.parse::<Currency>()
        .map(|currency| currency.as_str().to_owned())
        .map_err(|error| {
            let refusal = Refusal::new(error.to_string());
            let upper = text.to_uppercase();
            match upper.parse::<Currency>() {
                Ok(_) if upper != text => refusal.help(format!("did you mean \"{upper}\"?")),
                Ok(_) | Err(_) => refusal,
            }
        })
}

fn per(text: &str) -> Result<Per, Refusal> {
    if let Some((_, per)) = PERIODS.iter().find(|(word, _)| *word == text) {
        return Ok(*per);
    }
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        let range = Duration::from_mins(1)..=Duration::from_hours(366 * 24);
        return duration::parse(text, &range).map(|length| Per::Rolling(delta(length)));
    }
    let refusal = Refusal::new(format!("`{text}` is no period"));
    Err(match closest(text, PERIODS.map(|(word, _)| word)) {
        Some(word) => refusal.help(format!("did you mean \"{word}\"?")),
        None => refusal.help(
            "there are \"payment\", \"day\", \"week\", \"month\", and durations such as \"24h\"",
        ),
    })
}
