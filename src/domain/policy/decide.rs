//! The decision about one payment.

use rust_decimal::Decimal;

use super::decision::{Decision, Proposal, Reason, Terms, Verdict};
use super::rates::Rates;
use super::rules::{By, Limit, Per, Policy};
use super::sums::{Sums, known, scope};
use crate::domain::clock::Timestamp;

/// The name under which too large batches are refused.
pub const MAX_BATCH: &str = "max_batch";

/// The name under which payments are decided that no rule speaks of.
pub const OTHERWISE: &str = "otherwise";

/// What a decision depends on besides the policy and the payment.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// What counts already.
    pub sums: &'a Sums,
    /// When the first payment to the address was confirmed.
    pub first_paid: Option<Timestamp>,
    /// What currencies are worth.
    pub rates: &'a Rates,
}

/// Decides about a payment. It must not be counted in the sums yet.
///
/// Every limit is looked at, then the rules up to the first that speaks of the payment. A refusal
/// weighs more than the wish for approval, and that more than permission; of several, the first
/// gives its name. Where several ask for approval, all their terms hold.
#[must_use]
pub fn decide(policy: &Policy, payment: &Proposal, facts: &Facts<'_>) -> Decision {
    let mut making = Making::default();
    making.batch(policy, payment);
    for (number, limit) in policy.limits.iter().enumerate() {
        let (verdict, reason) = hold(policy, number, limit, payment, facts);
        making.add(&verdict, reason);
    }
    let ruled = policy.rules.iter().any(|rule| {
        // What restricts holds in doubt, what permits does not.
        let doubt = rule.decide != Verdict::Allow;
        let held = rule.of.hold(payment, facts.first_paid, policy.zone, doubt);
        let matches = held.is_ok();
        let (Ok(text) | Err(text)) = held;
        let verdict = if matches {
            rule.decide.clone()
        } else {
            Verdict::Allow
        };
        let text = if matches {
            format!("{}: {text}", in_words(&rule.decide))
        } else {
            text
        };
        making.rule(&verdict, matches, Reason::of(&rule.name, matches, text));
        matches
    });
    if !ruled {
        let text = format!(
            "{}: no rule speaks of this payment",
            in_words(&policy.otherwise)
        );
        making.rule(&policy.otherwise, true, Reason::of(OTHERWISE, true, text));
    }
    making.decision()
}

/// A decision in the making.
#[derive(Debug, Default)]
struct Making {
    refused_by: Option<String>,
    approval: Option<(String, Terms)>,
    allowed_by: Option<String>,
    reasons: Vec<Reason>,
}

impl Making {
    fn batch(&mut self, policy: &Policy, payment: &Proposal) {
        if payment.batch > policy.max_batch {
            let text = format!(
                "{} payments are asked for together, at most {} may be",
                payment.batch, policy.max_batch
            );
            self.add(&Verdict::Refuse, Reason::of(MAX_BATCH, true, text));
        }
    }

    /// Takes over what a limit says; `Allow` says nothing.
    fn add(&mut self, verdict: &Verdict, reason: Reason) {
        match verdict {
            Verdict::Allow => {}
            Verdict::Refuse => {
                self.refused_by.get_or_insert_with(|| reason.name.clone());
            }
            Verdict::Approve(terms) => match &mut self.approval {
                None => self.approval = Some((reason.name.clone(), *terms)),
                Some((_, all)) => {
                    all.quorum = all.quorum.max(terms.quorum);
                    all.expires_after = all.expires_after.min(terms.expires_after);
                    all.editor_may_approve &= terms.editor_may_approve;
                }
            },
        }
        self.reasons.push(reason);
    }

    fn rule(&mut self, verdict: &Verdict, decides: bool, reason: Reason) {
        if decides && *verdict == Verdict::Allow {
            self.allowed_by = Some(reason.name.clone());
        }
        self.add(verdict, reason);
    }

    fn decision(self) -> Decision {
        let (verdict, by) = match (self.refused_by, self.approval, self.allowed_by) {
            (Some(by), _, _) => (Verdict::Refuse, by),
            (None, Some((by, terms)), _) => (Verdict::Approve(terms), by),
            (None, None, by) => (Verdict::Allow, by.unwrap_or_else(|| OTHERWISE.into())),
        };
        Decision {
            verdict,
            by,
            reasons: self.reasons,
        }
    }
}

impl Reason {
    fn of(name: &str, matches: bool, text: String) -> Self {
        Self {
            name: name.to_owned(),
            matches,
            text,
        }
    }
}

/// A verdict, as sentences begin.
fn in_words(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Allow => "allowed",
        Verdict::Refuse => "refused",
        Verdict::Approve(_) => "needs approval",
    }
}

/// What a limit says: `Allow` when it holds, or does not speak of the payment.
fn hold(
    policy: &Policy,
    number: usize,
    limit: &Limit,
    payment: &Proposal,
    facts: &Facts<'_>,
) -> (Verdict, Reason) {
    let reason = |matches, text| Reason::of(&limit.name, matches, text);
    if let Err(text) = limit.of.hold(payment, facts.first_paid, policy.zone, true) {
        return (Verdict::Allow, reason(false, text));
    }
    let Some(scope) = scope(limit.by, payment) else {
        return (
            Verdict::Allow,
            reason(false, "it goes to no address".into()),
        );
    };
    match measure(policy, number, limit, payment, facts, &scope) {
        // Without numbers nobody knows whether the limit holds, so it does not.
        Err(text) => (Verdict::Refuse, reason(true, text)),
        Ok(measured) => {
            let text = measured.text(limit);
            let verdict = if measured.is_within(limit) {
                Verdict::Allow
            } else {
                limit.over.clone()
            };
            (verdict, reason(true, text))
        }
    }
}

/// What a limit compares, in its own currency.
struct Measured {
    /// What counts already.
    spent: Decimal,
    /// The payment.
    amount: Decimal,
    /// Both; `None` when that is beyond all reason.
    sum: Option<Decimal>,
}

fn measure(
    policy: &Policy,
    number: usize,
    limit: &Limit,
    payment: &Proposal,
    facts: &Facts<'_>,
    scope: &str,
) -> Result<Measured, String> {
    let amount = known(payment.amount).ok_or_else(|| {
        "how much leaves the account is not known before it is converted, and this limit needs to \
         know: give `amount`, not `amount_to`"
            .to_owned()
    })?;
    let convert = |amount: Decimal, from: &str| {
        if !limit.cap.converted {
            return Ok(amount);
        }
        let (to, age) = (&limit.cap.currency, policy.rates_max_age);
        facts
            .rates
            .convert(amount, from, to, payment.at, age)
            .map_err(|error| format!("{error}, and without a fresh rate nothing is paid"))
    };
    let amount = convert(amount.value(), &payment.currency)?;
    let mut spent = Decimal::ZERO;
    if let Some(start) = limit.per.begins(payment.at, policy.zone) {
        let beyond = || "the sum is too large to be counted".to_owned();
        let parts = facts.sums.spent(number, scope, start).ok_or_else(beyond)?;
        for (currency, part) in parts {
            let part = convert(part, currency)?;
            spent = spent.checked_add(part).ok_or_else(beyond)?;
        }
    }
    Ok(Measured {
        spent,
        amount,
        sum: spent.checked_add(amount),
    })
}

impl Measured {
    fn is_within(&self, limit: &Limit) -> bool {
        self.sum.is_some_and(|sum| sum <= limit.cap.amount)
    }

    /// `0.7 of 1 ETH spent today, 0.4 more would be 1.1`
    fn text(&self, limit: &Limit) -> String {
        let (cap, currency) = (limit.cap.amount.normalize(), &limit.cap.currency);
        let amount = self.amount.normalize();
        let within = self.is_within(limit);
        if limit.per == Per::Payment {
            let compared = if within { "within" } else { "above" };
            return format!("{amount} {currency} is {compared} {cap} {currency}");
        }
        let of = match limit.by {
            By::All => "",
            By::Script => " by this script",
            By::Address => " to this address",
        };
        let sum = self.sum.map_or_else(
            || "too much to be counted".to_owned(),
            |sum| sum.normalize().to_string(),
        );
        let comes_to = if within { "makes" } else { "would be" };
        format!(
            "{} of {cap} {currency} spent {}{of}, {amount} more {comes_to} {sum}",
            self.spent.normalize(),
            limit.per.in_words(),
        )
    }
}
