//! The grammar of what limits and rules match.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::Weekday;

use super::limits::read_currency;
use super::rows::Row;
use super::{Reading, addresses, delta};
use crate::config::duration;
use crate::config::refusal::Refusal;
use crate::domain::diagnostic::closest;
use crate::domain::money::parse_decimal;
use crate::domain::operation::{Effect, Operation};
use crate::domain::policy::{Hours, Matchers, Weekdays};

const DAYS: [(&str, Weekday); 7] = [
    ("mon", Weekday::Mon),
    ("tue", Weekday::Tue),
    ("wed", Weekday::Wed),
    ("thu", Weekday::Thu),
    ("fri", Weekday::Fri),
    ("sat", Weekday::Sat),
    ("sun", Weekday::Sun),
];

pub(super) fn read(row: &mut Row<'_>, reading: &mut Reading) -> Option<Matchers> {
    let before = row.mistakes();
    let matchers = Matchers {
        currencies: set(row, "currency", read_currency),
        above: number(row, "above"),
        below: number(row, "below"),
        scripts: set(row, "script", script),
        handlers: set(row, "handler", |text| Ok(text.to_owned())),
        kinds: set(row, "kind", kind),
        addresses: addresses::read(row, reading, "address"),
        not_addresses: addresses::read(row, reading, "not_address"),
        first_seen: row.text("first_seen").and_then(|(text, place)| {
            let range = Duration::from_mins(1)..=Duration::from_hours(3650 * 24);
            let length = duration::parse(&text, &range).map(delta);
            row.checked("first_seen", &place, length)
        }),
        hours: row
            .text("hours")
            .and_then(|(text, place)| row.checked("hours", &place, hours(&text))),
        weekdays: weekdays(row),
        batch_above: row.integer("batch_above", 0..=100_000),
    };
    amounts_have_a_currency(row, &matchers);
    let contradicts = matches!((matchers.above, matchers.below), (Some(a), Some(b)) if a >= b);
    if contradicts && let Some(place) = row.place_of("below") {
        let refusal = Refusal::new("is not more than `above`, so nothing would ever match")
            .help("payments above `above` and below `below` match");
        row.refuse("below", &place, refusal);
    }
    (row.mistakes() == before).then_some(matchers)
}

/// A number says nothing without its currency: 100 of one is much, of another nothing.
fn amounts_have_a_currency(row: &mut Row<'_>, matchers: &Matchers) {
    let one = matchers
        .currencies
        .as_ref()
        .is_some_and(|currencies| currencies.len() == 1);
    if one
        || row
            .place_of("currency")
            .is_some_and(|_| matchers.currencies.is_none())
    {
        return;
    }
    for key in ["above", "below"] {
        if let Some(place) = row.place_of(key) {
            let refusal = Refusal::new("it is not said in which currency")
                .help("name one `currency` in the same table");
            row.refuse(key, &place, refusal);
        }
    }
}

fn set<T: Ord>(
    row: &mut Row<'_>,
    key: &'static str,
    read: impl Fn(&str) -> Result<T, Refusal>,
) -> Option<BTreeSet<T>> {
    let texts = row.texts(key)?;
    let values = texts
        .into_iter()
        .filter_map(|(text, place)| row.checked(key, &place, read(&text)));
    let values: BTreeSet<T> = values.collect();
    (!values.is_empty()).then_some(values)
}

fn number(row: &mut Row<'_>, key: &'static str) -> Option<rust_decimal::Decimal> {
    let (text, place) = row.text(key)?;
    let number = parse_decimal(&text).map_err(|error| Refusal::new(error.to_string()));
    let number = number.and_then(|number| {
        if number.is_sign_negative() {
            Err(Refusal::new("amounts are not negative"))
        } else {
            Ok(number)
        }
    });
    row.checked(key, &place, number)
}

fn script(text: &str) -> Result<String, Refusal> {
    match text.strip_suffix(".rhai") {
        Some(name) => Err(Refusal::new("scripts are named without their ending")
            .help(format!("write \"{name}\""))),
        None => Ok(text.to_owned()),
    }
}

fn kind(text: &str) -> Result<Operation, Refusal> {
    let paying = || {
        let all = Operation::ALL.into_iter();
        all.filter(|operation| operation.effect() == Effect::Pay)
    };
    paying()
        .find(|operation| operation.name() == text)
        .ok_or_else(|| {
            let refusal = Refusal::new(format!("`{text}` is no kind of payment"));
            let names: Vec<_> = paying().map(Operation::name).collect();
            match closest(text, names.iter().copied()) {
                Some(name) => refusal.help(format!("did you mean \"{name}\"?")),
                None => refusal.help(format!("there are {}", names.join(", "))),
            }
        })
}

fn hours(text: &str) -> Result<Hours, Refusal> {
    let minute = |time: &str| -> Option<u32> {
        let (hour, minute) = time.split_once(':')?;
        let digits = |text: &str| {
            let two = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
            two.then(|| text.parse::<u32>().ok()).flatten()
        };
        let (hour, minute) = (digits(hour)?, digits(minute)?);
        let total = hour * 60 + minute;
        (minute < 60 && total <= 24 * 60).then_some(total)
    };
    let read = || {
        let (from, to) = text.split_once('-')?;
        Some((minute(from.trim())?, minute(to.trim())?))
    };
    let Some((from, to)) = read() else {
        return Err(Refusal::new(format!("`{text}` is no stretch of the day"))
            .help("write it as \"09:00-18:00\"; \"22:00-06:00\" goes over midnight"));
    };
    if from % (24 * 60) == to % (24 * 60) {
        return Err(Refusal::new(format!(
            "`{text}` ends when it begins: it is empty, or the whole day"
        ))
        .help("leave `hours` out for the whole day"));
    }
    Ok(Hours {
        from: from % (24 * 60),
        to,
    })
}

fn weekdays(row: &mut Row<'_>) -> Option<Weekdays> {
    let texts = row.texts("weekdays")?;
    let mut days = Vec::new();
    for (text, place) in texts {
        if let Some(read) = row.checked("weekdays", &place, stretch(&text)) {
            days.extend(read);
        }
    }
    Some(days.into_iter().collect())
}

/// `mon`, or `mon-fri`, also over the end of the week.
fn stretch(text: &str) -> Result<Vec<Weekday>, Refusal> {
    let day = |word: &str| {
        let word = word.trim().to_lowercase();
        DAYS.iter()
            .find(|(name, _)| *name == word)
            .map(|(_, day)| *day)
            .ok_or_else(|| {
                let refusal = Refusal::new(format!("`{word}` is no day of the week"));
                refusal.help("write mon, tue, wed, thu, fri, sat or sun, or a stretch: \"mon-fri\"")
            })
    };
    let Some((from, to)) = text.split_once('-') else {
        return day(text).map(|day| vec![day]);
    };
    let (from, to) = (day(from)?, day(to)?);
    let mut days = vec![from];
    let mut last = from;
    while last != to {
        last = last.succ();
        days.push(last);
    }
    Ok(days)
}
