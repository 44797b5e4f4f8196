//! Whether matchers hold for a payment, and in words why, or which one does not.

use chrono::Datelike;
use chrono_tz::Tz;

use super::decision::Proposal;
use super::rules::Matchers;
use crate::domain::clock::Timestamp;

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
        let mut holds = Vec::new();
        self.what(payment, &mut holds)?;
        self.how_much(payment, doubt, &mut holds)?;
        self.who(payment, &mut holds)?;
        self.whereto(payment, first_paid, &mut holds)?;
        self.when(payment, zone, &mut holds)?;
        if holds.is_empty() {
            return Ok("every payment".into());
        }
        Ok(holds.join(", "))
    }

    fn what(&self, payment: &Proposal, holds: &mut Vec<String>) -> Result<(), String> {
        if let Some(currencies) = &self.currencies {
            let text = format!("the currency is {}", payment.currency);
            if !currencies.contains(&payment.currency) {
                return Err(text);
            }
            holds.push(text);
        }
        if let Some(kinds) = &self.kinds {
            let text = format!("the kind is {}", payment.operation);
            if !kinds.contains(&payment.operation) {
                return Err(text);
            }
            holds.push(text);
        }
        Ok(())
    }

    fn how_much(
        &self,
        payment: &Proposal,
        doubt: bool,
        holds: &mut Vec<String>,
    ) -> Result<(), String> {
        let bounds = [("above", self.above), ("below", self.below)];
        for (word, bound) in bounds {
            let Some(bound) = bound else { continue };
            let Some(amount) = payment.amount else {
                let text =
                    format!("the amount that leaves is not known, so perhaps {word} {bound}");
                if doubt {
                    holds.push(text);
                    continue;
                }
                return Err(text);
            };
            let holds_here = if word == "above" {
                amount > bound
            } else {
                amount < bound
            };
            if !holds_here {
                return Err(format!("{amount} is not {word} {bound}"));
            }
            holds.push(format!("{amount} is {word} {bound}"));
        }
        if let Some(most) = self.batch_above {
            let text = format!("{} are asked for together", payment.batch);
            if payment.batch <= most {
                return Err(format!("{text}, not above {most}"));
            }
            holds.push(format!("{text}, above {most}"));
        }
        Ok(())
    }

    fn who(&self, payment: &Proposal, holds: &mut Vec<String>) -> Result<(), String> {
        let handler = &payment.handler;
        let asked = [
            ("script", &self.scripts, &handler.script),
            ("handler", &self.handlers, &handler.name),
        ];
        for (what, wanted, name) in asked {
            if let Some(wanted) = wanted {
                let text = format!("the {what} is `{name}`");
                if !wanted.contains(name) {
                    return Err(text);
                }
                holds.push(text);
            }
        }
        Ok(())
    }

    fn whereto(
        &self,
        payment: &Proposal,
        first_paid: Option<Timestamp>,
        holds: &mut Vec<String>,
    ) -> Result<(), String> {
        let asks =
            self.addresses.is_some() || self.not_addresses.is_some() || self.first_seen.is_some();
        if !asks {
            return Ok(());
        }
        let Some(address) = &payment.address else {
            return Err("it goes to no address".into());
        };
        if let Some(listed) = &self.addresses {
            if !listed.contains(address) {
                return Err("the address is not listed in `address`".into());
            }
            holds.push("the address is listed in `address`".into());
        }
        if let Some(listed) = &self.not_addresses {
            if listed.contains(address) {
                return Err("the address is listed in `not_address`".into());
            }
            holds.push("the address is not listed in `not_address`".into());
        }
        if let Some(cool_off) = self.first_seen {
            let words = crate::domain::duration::format(cool_off.to_std().unwrap_or_default());
            match first_paid {
                None => holds.push("the address was never paid before".into()),
                Some(first) => {
                    let first_shown = crate::domain::clock::shown(first);
                    let text = format!("the address was first paid at {first_shown}");
                    if payment.at - first >= cool_off {
                        return Err(format!("{text}, not within the last {words}"));
                    }
                    holds.push(format!("{text}, within the last {words}"));
                }
            }
        }
        Ok(())
    }

    fn when(&self, payment: &Proposal, zone: Tz, holds: &mut Vec<String>) -> Result<(), String> {
        let local = payment.at.with_timezone(&zone);
        if let Some(hours) = self.hours {
            let time = local.format("%H:%M");
            if !hours.contains(local.time()) {
                return Err(format!("it is {time} in {zone}, not within {hours}"));
            }
            holds.push(format!("it is {time} in {zone}, within {hours}"));
        }
        if let Some(days) = &self.weekdays {
            let text = format!("it is {} in {zone}", local.format("%A"));
            if !days.contains(local.weekday()) {
                return Err(text);
            }
            holds.push(text);
        }
        Ok(())
    }
}
