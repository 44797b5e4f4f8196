//! The policy itself: limits, rules and what they speak of. Read from `daemon.toml` by `config`;
//! nothing here is decided yet.

use std::collections::BTreeSet;

use chrono::{NaiveTime, TimeDelta, Weekday};
use chrono_tz::Tz;
use rust_decimal::Decimal;

use super::decision::Verdict;
use crate::domain::operation::Operation;

/// What may be paid. Every limit must hold, and the first rule that speaks of a payment decides.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// What happens to a payment that no rule speaks of.
    pub otherwise: Verdict,
    /// The most payments that may be asked for together.
    pub max_batch: usize,
    /// The zone of days, weeks, months, hours and weekdays.
    pub zone: Tz,
    /// How old a rate may be to be used.
    pub rates_max_age: TimeDelta,
    /// The limits, in the order written.
    pub limits: Vec<Limit>,
    /// The rules, in the order written.
    pub rules: Vec<Rule>,
}

impl Policy {
    /// Whether it can leave any payment to people.
    #[must_use]
    pub fn asks_people(&self) -> bool {
        let limits = self.limits.iter().map(|limit| &limit.over);
        let rules = self.rules.iter().map(|rule| &rule.decide);
        std::iter::once(&self.otherwise)
            .chain(limits)
            .chain(rules)
            .any(|verdict| matches!(verdict, Verdict::Approve(_)))
    }
}

impl Default for Policy {
    /// Allows everything.
    fn default() -> Self {
        Self {
            otherwise: Verdict::Allow,
            max_batch: usize::MAX,
            zone: Tz::UTC,
            rates_max_age: TimeDelta::minutes(10),
            limits: Vec::new(),
            rules: Vec::new(),
        }
    }
}

impl Policy {
    /// The currencies that amounts must be converted to; empty when no limit needs a rate.
    #[must_use]
    pub fn converts_to(&self) -> BTreeSet<&str> {
        let caps = self.limits.iter().map(|limit| &limit.cap);
        caps.filter(|cap| cap.converted)
            .map(|cap| cap.currency.as_str())
            .collect()
    }
}

/// How much may be paid of something in a period.
#[derive(Debug, Clone, PartialEq)]
pub struct Limit {
    /// Its name, unique in the policy.
    pub name: String,
    /// Which payments it counts and holds.
    pub of: Matchers,
    /// How much.
    pub cap: Cap,
    /// In which time.
    pub per: Per,
    /// Whether each script or address has a sum of its own.
    pub by: By,
    /// What happens to a payment above it: refused, or left to people.
    pub over: Verdict,
}

/// An amount that sums are held against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cap {
    /// Above zero.
    pub amount: Decimal,
    /// Its currency.
    pub currency: String,
    /// Whether payments in other currencies count too, converted by the rates of the moment.
    pub converted: bool,
}

/// The time in which a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Per {
    /// Each payment by itself.
    Payment,
    /// From midnight.
    Day,
    /// From midnight before Monday.
    Week,
    /// From midnight before the first.
    Month,
    /// So long before the payment, at every instant.
    Rolling(TimeDelta),
}

/// What has a sum of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum By {
    /// Everything together.
    All,
    /// Each script.
    Script,
    /// Each address.
    Address,
}

/// A verdict on payments of some kind.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Its name, unique in the policy.
    pub name: String,
    /// Which payments it speaks of.
    pub of: Matchers,
    /// What it says about them.
    pub decide: Verdict,
}

/// Which payments a limit or a rule speaks of: those that everything here holds for.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Matchers {
    /// The currency that leaves the account is one of these.
    pub currencies: Option<BTreeSet<String>>,
    /// More than this leaves.
    pub above: Option<Decimal>,
    /// Less than this leaves.
    pub below: Option<Decimal>,
    /// One of these scripts asks.
    pub scripts: Option<BTreeSet<String>>,
    /// A handler of one of these names asks.
    pub handlers: Option<BTreeSet<String>>,
    /// One of these operations makes it.
    pub kinds: Option<BTreeSet<Operation>>,
    /// It goes to one of these addresses.
    pub addresses: Option<Addresses>,
    /// It goes to an address, and to none of these.
    pub not_addresses: Option<Addresses>,
    /// It goes to an address to which no payment was confirmed so long ago or longer.
    pub first_seen: Option<TimeDelta>,
    /// It is asked for between these times of day.
    pub hours: Option<Hours>,
    /// It is asked for on one of these days.
    pub weekdays: Option<Weekdays>,
    /// More payments than this are asked for together.
    pub batch_above: Option<usize>,
}

/// A set of addresses, however they are written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Addresses(BTreeSet<String>);

impl Addresses {
    /// Whether the address is one of them.
    #[must_use]
    pub fn contains(&self, address: &str) -> bool {
        self.0.contains(&canonical(address))
    }

    /// Whether all of these are among the others.
    #[must_use]
    pub fn are_among(&self, others: &Self) -> bool {
        self.0.is_subset(&others.0)
    }

    /// Whether none of these is among the others.
    #[must_use]
    pub fn are_apart_from(&self, others: &Self) -> bool {
        self.0.is_disjoint(&others.0)
    }

    /// How many they are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T: AsRef<str>> FromIterator<T> for Addresses {
    fn from_iter<I: IntoIterator<Item = T>>(addresses: I) -> Self {
        let addresses = addresses.into_iter();
        Self(addresses.map(|one| canonical(one.as_ref())).collect())
    }
}

/// One way to write an address. Hexadecimal addresses and those in one case only (Bech32) are the
/// same in either case, and some currencies allow a scheme in front; a list of addresses must not
/// be got around by writing them differently.
#[must_use]
pub fn canonical(address: &str) -> String {
    let address = address.trim();
    let address = address.rsplit(':').next().unwrap_or(address);
    let is_hex = address.starts_with("0x") || address.starts_with("0X");
    let has = |case: fn(&char) -> bool| address.chars().any(|c| case(&c));
    let is_mixed = has(char::is_ascii_lowercase) && has(char::is_ascii_uppercase);
    if is_hex || !is_mixed {
        address.to_ascii_lowercase()
    } else {
        address.to_owned()
    }
}

/// A stretch of the day, over midnight when it ends before it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hours {
    /// The first minute of the day in it, from 0.
    pub from: u32,
    /// The first minute after it, up to 1440. Never the same as `from`.
    pub to: u32,
}

impl Hours {
    /// Whether a time of day lies in it.
    #[must_use]
    pub fn contains(self, time: NaiveTime) -> bool {
        use chrono::Timelike;
        self.has_minute(time.num_seconds_from_midnight() / 60)
    }

    /// Whether a minute of the day lies in it.
    #[must_use]
    pub const fn has_minute(self, minute: u32) -> bool {
        if self.from < self.to {
            self.from <= minute && minute < self.to
        } else {
            minute >= self.from || minute < self.to
        }
    }
}

impl std::fmt::Display for Hours {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (from, to) = (self.from, self.to);
        write!(
            f,
            "{:02}:{:02}-{:02}:{:02}",
            from / 60,
            from % 60,
            to / 60,
            to % 60
        )
    }
}

/// Some days of the week.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Weekdays(BTreeSet<u32>);

impl Weekdays {
    /// Whether the day is one of them.
    #[must_use]
    pub fn contains(&self, day: Weekday) -> bool {
        self.0.contains(&day.num_days_from_monday())
    }

    /// Whether all of these are among the others.
    #[must_use]
    pub fn are_among(&self, others: &Self) -> bool {
        self.0.is_subset(&others.0)
    }
}

impl FromIterator<Weekday> for Weekdays {
    fn from_iter<I: IntoIterator<Item = Weekday>>(days: I) -> Self {
        Self(
            days.into_iter()
                .map(|day| day.num_days_from_monday())
                .collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_the_same_however_it_is_written() {
        let listed: Addresses = ["0xAbC0", "TB1QABC", "1BoatSLRHtKNngkdXEeobR76b53LETtpyT"]
            .into_iter()
            .collect();
        for same in [
            "0xabc0",
            "0XABC0",
            "tb1qabc",
            "bitcoin:tb1qabc",
            " tb1qabc ",
            "1BoatSLRHtKNngkdXEeobR76b53LETtpyT",
        ] {
            assert!(listed.contains(same), "{same}");
        }
        for other in [
            "1boatslrhtknngkdxeeobr76b53lettpyt",
            "1boatSLRHtKNngkdXEeobR76b53LETtpyT",
            "0xabc1",
        ] {
            assert!(!listed.contains(other), "{other}");
        }
    }

    #[test]
    fn hours_may_go_over_midnight() {
        let at = |text: &str| text.parse::<NaiveTime>().unwrap();
        let day = Hours {
            from: 9 * 60,
            to: 18 * 60,
        };
        let night = Hours {
            from: 22 * 60,
            to: 6 * 60,
        };
        for (time, in_day, in_night) in [
            ("08:59:59", false, false),
            ("09:00:00", true, false),
            ("17:59:59", true, false),
            ("18:00:00", false, false),
            ("22:00:00", false, true),
            ("00:00:00", false, true),
            ("06:00:00", false, false),
        ] {
            assert_eq!(day.contains(at(time)), in_day, "{time}");
            assert_eq!(night.contains(at(time)), in_night, "{time}");
        }
        assert_eq!(night.to_string(), "22:00-06:00");
    }
}
