//! What goes wrong on purpose: which faults exist, when they strike, and the decision for each
//! request and callback.
//!
//! The decision depends on the seed, the rule, the operation, its `foreign_id` and how often that
//! was seen — not on the order of arrival, so a seed gives the same faults under any concurrency.

use std::collections::HashMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A list of rules, tried in order. One fault at most strikes a request; of the callback faults all
/// that fire are combined. In JSON a list:
/// `[{"fault":"drop_answer","operation":"withdrawal","times":1}]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Faults(pub Vec<Rule>);

/// A fault and its conditions; conditions left out always hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// What happens.
    pub fault: Fault,
    /// Only requests of this operation, and callbacks caused by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<Operation>,
    /// Only this `foreign_id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foreign_id: Option<String>,
    /// Only a `foreign_id` that begins so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Only so many of a thousand, chosen by the seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_mille: Option<u16>,
    /// At most so many times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
}

impl Rule {
    /// A rule without conditions.
    #[must_use]
    pub fn always(fault: Fault) -> Self {
        Self {
            fault,
            operation: None,
            foreign_id: None,
            prefix: None,
            per_mille: None,
            times: None,
        }
    }
}

/// What may go wrong. Durations are real milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// 400 with a validation error; nothing happens.
    Refuse,
    /// 500 in plain text; nothing happens.
    ErrorBeforeActing,
    /// The connection closes without an answer; nothing happens.
    DropRequest,
    /// It happens; then the connection closes without an answer.
    DropAnswer,
    /// It happens; the answer is a proxy's 502 page.
    ActThenBadGateway,
    /// It happens; the answer is 200 with a body that is not JSON.
    ActThenRubbish,
    /// The request waits so long before it takes effect, whether or not the client still waits.
    Delay(u64),
    /// It happens; the answer comes so much later.
    SlowAnswer(u64),
    /// 429 with the documented body, which is not JSON; nothing happens.
    TooManyRequests,
    /// 429 that says for how many seconds to wait; nothing happens.
    TooManyRequestsFor(u64),
    /// `transactions/info` does not find an operation younger than this.
    BlindLookup(u64),
    /// A repeated `foreign_id` is executed once more instead of being refused: the contract only
    /// documents the refusal for invoices.
    ExecuteRepeat,
    /// The callback is sent twice.
    CallbackTwice,
    /// The callback is first sent so much later.
    CallbackLate(u64),
    /// The callback is held until the next one of the same operation has arrived, at most two
    /// seconds.
    CallbackReordered,
    /// The callback is preceded by the same body with a wrong signature.
    CallbackForged,
    /// The callback is recorded and never sent.
    CallbackNever,
    /// The operation settles, and its callback is sent, before the request is answered.
    CallbackBeforeReply,
}

impl Fault {
    fn strikes(self) -> Phase {
        match self {
            Self::Refuse
            | Self::ErrorBeforeActing
            | Self::DropRequest
            | Self::DropAnswer
            | Self::ActThenBadGateway
            | Self::ActThenRubbish
            | Self::Delay(_)
            | Self::SlowAnswer(_)
            | Self::TooManyRequests
            | Self::TooManyRequestsFor(_) => Phase::Request,
            Self::BlindLookup(_) => Phase::Lookup,
            Self::ExecuteRepeat => Phase::Repeat,
            Self::CallbackBeforeReply => Phase::Settling,
            Self::CallbackTwice
            | Self::CallbackLate(_)
            | Self::CallbackReordered
            | Self::CallbackForged
            | Self::CallbackNever => Phase::Callback,
        }
    }
}

/// Where in the life of an operation a fault is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Phase {
    Request,
    Lookup,
    Repeat,
    Settling,
    Callback,
}

/// An operation of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(
    missing_docs,
    reason = "the names are those of the contract's endpoints"
)]
pub enum Operation {
    Ping,
    Accounts,
    Currencies,
    Pairs,
    Rates,
    TakeAddress,
    Withdrawal,
    InstantWithdrawal,
    InstantWithdrawalExchange,
    ExchangeCalculate,
    ExchangeFixed,
    ExchangeNow,
    Invoice,
    PaymentRequest,
    TransactionInfo,
    /// Not a request: a customer pays to an address.
    Deposit,
}

/// The rules with what they need to remember.
#[derive(Debug)]
pub(super) struct FaultBook {
    seed: u64,
    rules: Vec<(Rule, u32)>,
    seen: HashMap<(Phase, Operation, String), u64>,
}

impl FaultBook {
    pub(super) fn new(seed: u64, faults: Faults) -> Self {
        Self {
            seed,
            rules: faults.0.into_iter().map(|rule| (rule, 0)).collect(),
            seen: HashMap::new(),
        }
    }

    /// Replaces the rules; what was seen before no longer counts.
    pub(super) fn replace(&mut self, faults: Faults) {
        *self = Self::new(self.seed, faults);
    }

    /// The fault that strikes this request.
    pub(super) fn request(&mut self, operation: Operation, foreign_id: &str) -> Option<Fault> {
        self.fire(Phase::Request, operation, foreign_id, true, |_| true)
            .pop()
    }

    /// Whether a look-up overlooks an operation of this age.
    pub(super) fn lookup_is_blind(
        &mut self,
        operation: Operation,
        foreign_id: &str,
        age: Duration,
    ) -> bool {
        let young =
            |fault| matches!(fault, Fault::BlindLookup(ms) if age < Duration::from_millis(ms));
        !self
            .fire(Phase::Lookup, operation, foreign_id, true, young)
            .is_empty()
    }

    /// Whether a repeated `foreign_id` is executed again.
    pub(super) fn repeat_is_executed(&mut self, operation: Operation, foreign_id: &str) -> bool {
        !self
            .fire(Phase::Repeat, operation, foreign_id, true, |_| true)
            .is_empty()
    }

    /// Whether an operation settles before its request is answered.
    pub(super) fn settles_before_reply(&mut self, operation: Operation, foreign_id: &str) -> bool {
        !self
            .fire(Phase::Settling, operation, foreign_id, true, |_| true)
            .is_empty()
    }

    /// Everything that happens to a callback.
    pub(super) fn callback(&mut self, operation: Operation, foreign_id: &str) -> Vec<Fault> {
        self.fire(Phase::Callback, operation, foreign_id, false, |_| true)
    }

    fn fire(
        &mut self,
        phase: Phase,
        operation: Operation,
        foreign_id: &str,
        one: bool,
        also: impl Fn(Fault) -> bool,
    ) -> Vec<Fault> {
        let key = (phase, operation, foreign_id.to_owned());
        let seen = self.seen.entry(key).or_default();
        *seen += 1;
        let mut fired = Vec::new();
        for (number, (rule, count)) in (0_u64..).zip(&mut self.rules) {
            let holds = rule.fault.strikes() == phase
                && rule.operation.is_none_or(|wanted| wanted == operation)
                && rule.foreign_id.as_ref().is_none_or(|id| id == foreign_id)
                && rule
                    .prefix
                    .as_ref()
                    .is_none_or(|p| foreign_id.starts_with(p))
                && rule.times.is_none_or(|times| *count < times)
                && also(rule.fault)
                && rule.per_mille.is_none_or(|share| {
                    let text = format!("{number}|{operation:?}|{foreign_id}|{seen}");
                    draw(self.seed, &text) % 1000 < u64::from(share)
                });
            if holds {
                *count += 1;
                fired.push(rule.fault);
                if one {
                    break;
                }
            }
        }
        fired
    }
}

/// A number that looks random and is always the same for a seed and a text.
pub(super) fn draw(seed: u64, text: &str) -> u64 {
    let digest = digest(seed, text);
    let (head, _) = digest
        .split_first_chunk::<8>()
        .expect("a SHA-256 digest has 32 bytes");
    u64::from_be_bytes(*head)
}

/// 32 bytes that look random and are always the same for a seed and a text.
pub(super) fn digest(seed: u64, text: &str) -> [u8; 32] {
    Sha256::new()
        .chain_update(seed.to_be_bytes())
        .chain_update(text)
        .finalize()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn book(seed: u64, rules: Vec<Rule>) -> FaultBook {
        FaultBook::new(seed, Faults(rules))
    }

    #[test]
    fn faults_are_written_as_json_and_misspelt_conditions_are_refused() {
        let text = r#"[{"fault":"drop_answer","operation":"withdrawal","times":1},{"fault":{"delay":250},"prefix":"p-","per_mille":100}]"#;
        let faults: Faults = serde_json::from_str(text).unwrap();
        assert_eq!(faults.0[1].fault, Fault::Delay(250));
        assert_eq!(serde_json::to_string(&faults).unwrap(), text);
        let misspelt = r#"[{"fault":"refuse","foreignid":"x"}]"#;
        assert!(serde_json::from_str::<Faults>(misspelt).is_err());
    }

    #[test]
    fn a_seed_decides_alike_in_whatever_order_requests_come() {
        let rule = Rule {
            per_mille: Some(300),
            ..Rule::always(Fault::Refuse)
        };
        let ids: Vec<String> = (0..200).map(|n| format!("id-{n}")).collect();
        let strike = |seed, ids: Vec<&String>| {
            let mut book = book(seed, vec![rule.clone()]);
            let mut struck: Vec<String> = ids
                .into_iter()
                .filter(|id| book.request(Operation::Withdrawal, id).is_some())
                .cloned()
                .collect();
            struck.sort();
            struck
        };
        let forward = strike(7, ids.iter().collect());
        assert_eq!(forward, strike(7, ids.iter().rev().collect()));
        assert_ne!(forward, strike(8, ids.iter().collect()));
        assert!((30..90).contains(&forward.len()), "{}", forward.len());
    }

    #[test]
    fn a_rule_strikes_only_what_it_names_and_only_so_often() {
        let mut book = book(
            1,
            vec![Rule {
                operation: Some(Operation::Withdrawal),
                prefix: Some("a".to_owned()),
                times: Some(2),
                ..Rule::always(Fault::DropAnswer)
            }],
        );
        assert_eq!(book.request(Operation::Invoice, "a1"), None);
        assert_eq!(book.request(Operation::Withdrawal, "b1"), None);
        for _ in 0..2 {
            let fault = book.request(Operation::Withdrawal, "a1");
            assert_eq!(fault, Some(Fault::DropAnswer));
        }
        assert_eq!(book.request(Operation::Withdrawal, "a1"), None);
    }
}
