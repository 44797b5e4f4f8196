//! Whether matchers hold for a payment, and in words why, or which one does not.

use chrono::Datelike;
use chrono_tz::Tz;

use super::decision::Proposal;
use super::rules::Matchers;
use crate::domain::clock::{Timestamp, shown};
use crate::domain::duration;

/// What holds, in words where somebody wants to know: sums ask a million times and do not.
struct Telling(Option<Vec<String>>);

/// Something that does not hold, in words if they are wanted.
type Held = Result<(), String>;

impl Telling {
    /// Notes whether something holds; the words are found when they are needed.
    fn note(&mut self, holds: bool, words: impl FnOnce() -> String) -> Held {
        let Some(told) = &mut self.0 else {
            return if holds { Ok(()) } else { Err(String::new()) };
        };
        if holds {
            told.push(words());
            Ok(())
        } else {
            Err(words())
        }
    }
}

impl Matchers {
    /// Whether everything holds for the payment, whose address was first paid then: what holds, or
    /// the first thing that does not. `doubt` is what `above` and `below` say of an amount that is
    /// not known.
    ///
    /// # Errors
    /// What does not hold, in words.
    pub fn hold(
        &self,
        payment: &Proposal,
        first_paid: Option<Timestamp>,
        zone: Tz,
        doubt: bool,
    ) -> Result<String, String> {
        let mut telling = Telling(Some(Vec::new()));
        self.check(payment, first_paid, zone, doubt, &mut telling)?;
        let told = telling.0.unwrap_or_default();
        if told.is_empty() {
            return Ok("every payment".into());
        }
        Ok(told.join(", "))
    }

    /// The same without words, for what is only counted.
    pub(super) fn count(
        &self,
        payment: &Proposal,
        first_paid: Option<Timestamp>,
        zone: Tz,
    ) -> bool {
        let mut silent = Telling(None);
        self.check(payment, first_paid, zone, true, &mut silent)
            .is_ok()
    }

    fn check(
        &self,
        payment: &Proposal,
        first_paid: Option<Timestamp>,
        zone: Tz,
        doubt: bool,
        telling: &mut Telling,
    ) -> Held {
        self.what(payment, telling)?;
        self.how_much(payment, doubt, telling)?;
        self.who(payment, telling)?;
        self.whereto(payment, first_paid, telling)?;
        self.when(payment, zone, telling)
    }

    fn what(&self, payment: &Proposal, telling: &mut Telling) -> Held {
        if let Some(currencies) = &self.currencies {
            let listed = currencies.contains(&payment.currency);
            telling.note(listed, || format!("the currency is {}", payment.currency))?;
        }
        if let Some(kinds) = &self.kinds {
            let listed = kinds.contains(&payment.operation);
            telling.note(listed, || format!("the kind is {}", payment.operation))?;
        }
        Ok(())
    }

    fn how_much(&self, payment: &Proposal, doubt: bool, telling: &mut Telling) -> Held {
        for (word, bound) in [("above", self.above), ("below", self.below)] {
            let Some(bound) = bound else { continue };
            let Some(amount) = payment.amount else {
                telling.note(doubt, || {
                    format!("the amount that leaves is not known, so perhaps {word} {bound}")
                })?;
                continue;
            };
            let holds = if word == "above" {
                amount > bound
            } else {
                amount < bound
            };
            let is = if holds { "is" } else { "is not" };
            telling.note(holds, || format!("{amount} {is} {word} {bound}"))?;
        }
        if let Some(most) = self.batch_above {
            let holds = payment.batch > most;
            let not = if holds { "" } else { "not " };
            telling.note(holds, || {
                let batch = payment.batch;
                format!("{batch} are asked for together, {not}above {most}")
            })?;
        }
        Ok(())
    }

    fn who(&self, payment: &Proposal, telling: &mut Telling) -> Held {
        let handler = &payment.handler;
        let asked = [
            ("script", &self.scripts, &handler.script),
            ("handler", &self.handlers, &handler.name),
        ];
        for (what, wanted, name) in asked {
            if let Some(wanted) = wanted {
                telling.note(wanted.contains(name), || format!("the {what} is `{name}`"))?;
            }
        }
        Ok(())
    }

    fn whereto(
        &self,
        payment: &Proposal,
        first_paid: Option<Timestamp>,
        telling: &mut Telling,
    ) -> Held {
        let asks =
            self.addresses.is_some() || self.not_addresses.is_some() || self.first_seen.is_some();
        if !asks {
            return Ok(());
        }
        let Some(address) = &payment.address else {
            return telling.note(false, || "it goes to no address".into());
        };
        let in_words = |listed: bool, key: &str| {
            let not = if listed { "" } else { "not " };
            format!("the address is {not}listed in `{key}`")
        };
        if let Some(list) = &self.addresses {
            let listed = list.contains(address);
            telling.note(listed, || in_words(listed, "address"))?;
        }
        if let Some(list) = &self.not_addresses {
            let listed = list.contains(address);
            telling.note(!listed, || in_words(listed, "not_address"))?;
        }
        let Some(cool_off) = self.first_seen else {
            return Ok(());
        };
        let Some(first) = first_paid else {
            return telling.note(true, || "the address was never paid before".into());
        };
        let holds = payment.at - first < cool_off;
        telling.note(holds, || {
            let words = duration::format(cool_off.to_std().unwrap_or_default());
            let not = if holds { "" } else { "not " };
            let first = shown(first);
            format!("the address was first paid at {first}, {not}within the last {words}")
        })
    }

    fn when(&self, payment: &Proposal, zone: Tz, telling: &mut Telling) -> Held {
        if self.hours.is_none() && self.weekdays.is_none() {
            return Ok(());
        }
        let local = payment.at.with_timezone(&zone);
        if let Some(hours) = self.hours {
            let holds = hours.contains(local.time());
            let not = if holds { "" } else { "not " };
            telling.note(holds, || {
                format!(
                    "it is {} in {zone}, {not}within {hours}",
                    local.format("%H:%M")
                )
            })?;
        }
        if let Some(days) = &self.weekdays {
            let holds = days.contains(local.weekday());
            telling.note(holds, || format!("it is {} in {zone}", local.format("%A")))?;
        }
        Ok(())
    }
}
