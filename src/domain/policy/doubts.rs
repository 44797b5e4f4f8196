//! What makes no sense in a policy: rules that never decide, limits that never count.

use std::collections::BTreeSet;

use super::decision::Verdict;
use super::rules::{Addresses, Matchers, Policy, Weekdays};
use crate::domain::operation::Operation;

/// A limit or a rule of a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// The limit of that number, from 0.
    Limit(usize),
    /// The rule of that number, from 0.
    Rule(usize),
}

/// Something that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doubt {
    /// What.
    pub about: Subject,
    /// What is wrong with it.
    pub message: String,
    /// What to do about it.
    pub help: String,
}

/// Everything that makes no sense in a policy, limits first.
#[must_use]
pub fn doubts(policy: &Policy) -> Vec<Doubt> {
    let mut found = Vec::new();
    for (number, limit) in policy.limits.iter().enumerate() {
        let about = Subject::Limit(number);
        let name = &limit.name;
        if let Some(reason) = limit.of.contradiction() {
            found.push(never(
                about,
                &format!("the limit `{name}` speaks of no payment"),
                &reason,
            ));
        } else if let Some(rule) = refused_by(policy, &limit.of) {
            found.push(Doubt {
                about,
                message: format!(
                    "the limit `{name}` never counts anything: the rule `{rule}` refuses everything it speaks of"
                ),
                help: "remove one of the two, or let the rule speak of less".into(),
            });
        } else if !can_be_reached(policy, &limit.of) {
            found.push(Doubt {
                about,
                message: format!(
                    "the limit `{name}` never counts anything: no rule allows what it speaks of, and what no rule speaks of is refused"
                ),
                help: "add a rule that allows it, or remove the limit".into(),
            });
        }
    }
    for (number, rule) in policy.rules.iter().enumerate() {
        let about = Subject::Rule(number);
        let name = &rule.name;
        if let Some(reason) = rule.of.contradiction() {
            found.push(never(
                about,
                &format!("the rule `{name}` speaks of no payment"),
                &reason,
            ));
            continue;
        }
        let before = policy.rules.iter().take(number);
        let mut before = before.filter(|earlier| earlier.of.contradiction().is_none());
        let Some(earlier) = before.find(|earlier| rule.of.is_within(&earlier.of)) else {
            continue;
        };
        let against = if earlier.decide == rule.decide {
            "decides the same about"
        } else {
            "decides otherwise about"
        };
        found.push(Doubt {
            about,
            message: format!(
                "the rule `{name}` never decides: `{}`, which comes before it, {against} everything it speaks of",
                earlier.name
            ),
            help: format!("put it before `{}`, or remove it", earlier.name),
        });
    }
    found
}

fn never(about: Subject, message: &str, reason: &str) -> Doubt {
    Doubt {
        about,
        message: format!("{message}: {reason}"),
        help: "remove it, or correct what it matches".into(),
    }
}

/// The rule that refuses everything a limit speaks of, when no earlier rule can allow any of it.
fn refused_by<'a>(policy: &'a Policy, limit: &Matchers) -> Option<&'a str> {
    let refusing = policy
        .rules
        .iter()
        .take_while(|rule| rule.decide == Verdict::Refuse);
    let mut wider = refusing.filter(|rule| limit.is_within(&rule.of));
    wider.next().map(|rule| rule.name.as_str())
}

/// Whether anything that a limit speaks of can be paid at all.
fn can_be_reached(policy: &Policy, limit: &Matchers) -> bool {
    let mut allowing = policy
        .rules
        .iter()
        .filter(|rule| rule.decide != Verdict::Refuse);
    policy.otherwise != Verdict::Refuse || allowing.any(|rule| !limit.is_apart_from(&rule.of))
}

impl Matchers {
    /// Whether nothing can fulfil both these and the others, as far as that can be seen.
    fn is_apart_from(&self, others: &Self) -> bool {
        fn apart<T>(one: Option<&T>, other: Option<&T>, are: impl Fn(&T, &T) -> bool) -> bool {
            one.zip(other).is_some_and(|(one, other)| are(one, other))
        }
        let (mine, theirs) = (self.currencies.as_ref(), others.currencies.as_ref());
        let currencies = apart(mine, theirs, BTreeSet::is_disjoint);
        let (mine, theirs) = (self.scripts.as_ref(), others.scripts.as_ref());
        let scripts = apart(mine, theirs, BTreeSet::is_disjoint);
        let (mine, theirs) = (self.handlers.as_ref(), others.handlers.as_ref());
        let handlers = apart(mine, theirs, BTreeSet::is_disjoint);
        let (mine, theirs) = (self.kinds.as_ref(), others.kinds.as_ref());
        let kinds = apart(mine, theirs, BTreeSet::is_disjoint);
        let (mine, theirs) = (self.addresses.as_ref(), others.addresses.as_ref());
        let addresses = apart(mine, theirs, Addresses::are_apart_from);
        // Amounts are in one currency on each side, and in the same one unless that tells them
        // apart already.
        let amounts = apart(self.above.as_ref(), others.below.as_ref(), |a, b| a >= b)
            || apart(self.below.as_ref(), others.above.as_ref(), |a, b| a <= b);
        currencies || scripts || handlers || kinds || addresses || amounts
    }

    /// Why no payment can fulfil them.
    fn contradiction(&self) -> Option<String> {
        let asks =
            self.addresses.is_some() || self.not_addresses.is_some() || self.first_seen.is_some();
        if let (Some(above), Some(below)) = (self.above, self.below)
            && above >= below
        {
            return Some(format!("nothing is above {above} and below {below}"));
        }
        if let (Some(listed), Some(not)) = (&self.addresses, &self.not_addresses)
            && listed.are_among(not)
        {
            return Some("every address in `address` is in `not_address` too".into());
        }
        let to_addresses = [Operation::Withdraw, Operation::WithdrawInstant];
        if let Some(kinds) = &self.kinds
            && asks
            && !kinds.iter().any(|kind| to_addresses.contains(kind))
        {
            return Some("exchanges go to no address".into());
        }
        let batched = [Operation::Withdraw];
        if let Some(kinds) = &self.kinds
            && self.batch_above.is_some()
            && !kinds.iter().any(|kind| batched.contains(kind))
        {
            return Some("only `withdraw` is asked for in batches".into());
        }
        None
    }

    /// Whether everything that fulfils these fulfils the others too, as far as that can be seen.
    fn is_within(&self, others: &Self) -> bool {
        fn fits<T>(narrow: Option<&T>, wide: Option<&T>, within: impl Fn(&T, &T) -> bool) -> bool {
            match (narrow, wide) {
                (_, None) => true,
                (None, Some(_)) => false,
                (Some(narrow), Some(wide)) => within(narrow, wide),
            }
        }
        let addresses = fits(
            self.addresses.as_ref(),
            others.addresses.as_ref(),
            Addresses::are_among,
        );
        let not_addresses = match (&others.not_addresses, &self.not_addresses, &self.addresses) {
            (None, _, _) => true,
            (Some(wide), Some(narrow), _) if wide.are_among(narrow) => true,
            (Some(wide), _, Some(listed)) => listed.are_apart_from(wide),
            (Some(_), _, None) => false,
        };
        let hours = fits(self.hours.as_ref(), others.hours.as_ref(), |a, b| {
            (0..24 * 60).all(|minute| !a.has_minute(minute) || b.has_minute(minute))
        });
        let weekdays = fits(
            self.weekdays.as_ref(),
            others.weekdays.as_ref(),
            Weekdays::are_among,
        );
        let (mine, theirs) = (&self.currencies, &others.currencies);
        let currencies = fits(mine.as_ref(), theirs.as_ref(), BTreeSet::is_subset);
        let (mine, theirs) = (&self.scripts, &others.scripts);
        let scripts = fits(mine.as_ref(), theirs.as_ref(), BTreeSet::is_subset);
        let (mine, theirs) = (&self.handlers, &others.handlers);
        let handlers = fits(mine.as_ref(), theirs.as_ref(), BTreeSet::is_subset);
        let (mine, theirs) = (&self.kinds, &others.kinds);
        let kinds = fits(mine.as_ref(), theirs.as_ref(), BTreeSet::is_subset);
        let (mine, theirs) = (&self.first_seen, &others.first_seen);
        let first_seen = fits(mine.as_ref(), theirs.as_ref(), |a, b| a <= b);
        let (mine, theirs) = (&self.batch_above, &others.batch_above);
        let batch = fits(mine.as_ref(), theirs.as_ref(), |a, b| a >= b);
        let amounts = fits(self.above.as_ref(), others.above.as_ref(), |a, b| a >= b)
            && fits(self.below.as_ref(), others.below.as_ref(), |a, b| a <= b);
        let who = scripts && handlers;
        let whereto = addresses && not_addresses && first_seen;
        currencies && kinds && amounts && batch && who && whereto && hours && weekdays
    }
}
