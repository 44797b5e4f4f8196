//! A decision about a payment under a policy of twenty limits and rules, after a million payments
//! in the last thirty days, beside the same decision after none.

use std::time::{Duration, Instant};

use bursar::domain::clock::{Clock, SystemClock, Timestamp};
use bursar::domain::id::HandlerId;
use bursar::domain::operation::Operation;
use bursar::domain::policy::{
    By, Cap, Facts, Limit, Matchers, Per, Policy, Proposal, Rates, Rule, Sums, Verdict, decide,
};
use chrono::TimeDelta;
use rust_decimal::Decimal;

const HISTORY: u32 = 1_000_000;
const DECISIONS: usize = 20_000;
const CURRENCIES: [&str; 4] = ["BTC", "ETH", "USDTE", "TRX"];

pub fn measure() {
    let policy = policy();
    let now = SystemClock.now();
    let empty = Sums::new(&policy, Sums::needed_from(&policy, now));
    let mut sums = empty.clone();
    let begin = Instant::now();
    let apart = TimeDelta::days(30) / i32::try_from(HISTORY).unwrap();
    for number in 0..HISTORY {
        let left = i32::try_from(HISTORY - number).unwrap();
        let payment = payment(number, now - apart * left);
        sums.add(&policy, &payment, None);
    }
    let counted = begin.elapsed();
    println!(
        "{HISTORY} payments counted for {} limits in {:.1} s, once at a start",
        policy.limits.len(),
        counted.as_secs_f64()
    );
    for (what, sums) in [("no payments", empty), ("a million payments", sums)] {
        let mut took = decisions(&policy, sums, now);
        took.sort_unstable();
        let at = |per_mille: usize| took[took.len() * per_mille / 1000].as_secs_f64() * 1e6;
        println!(
            "a decision after {what}: {:.0} µs in the middle, {:.0} µs for 99 %, {:.0} µs for 99.9 %, {:.0} µs at most",
            at(500),
            at(990),
            at(999),
            took[took.len() - 1].as_secs_f64() * 1e6
        );
    }
}

/// How long decisions take, each with its reservation.
fn decisions(policy: &Policy, mut sums: Sums, now: Timestamp) -> Vec<Duration> {
    let rates = Rates::default();
    let mut took = Vec::with_capacity(DECISIONS);
    for number in 0..DECISIONS {
        let at = now + TimeDelta::milliseconds(i64::try_from(number).unwrap());
        let payment = payment(u32::try_from(number).unwrap(), at);
        let begin = Instant::now();
        let facts = Facts {
            sums: &sums,
            first_paid: None,
            rates: &rates,
        };
        let decision = decide(policy, &payment, &facts);
        sums.add(policy, &payment, None);
        took.push(begin.elapsed());
        assert_eq!(decision.verdict, Verdict::Allow);
    }
    took
}

fn payment(number: u32, at: Timestamp) -> Proposal {
    Proposal {
        foreign_id: format!("p-{number}").parse().unwrap(),
        operation: Operation::Withdraw,
        currency: CURRENCIES[number as usize % CURRENCIES.len()].to_owned(),
        amount: Some(Decimal::new(i64::from(number % 1000 + 1), 5)),
        address: Some(format!("tb1q{}", number % 50_000)),
        handler: HandlerId {
            script: format!("script-{}", number % 7),
            name: "pay".to_owned(),
        },
        batch: 1,
        at,
    }
}

/// Ten limits of every kind, which nothing comes near to, and ten rules, the last of which decides.
fn policy() -> Policy {
    let periods = [
        Per::Payment,
        Per::Day,
        Per::Week,
        Per::Month,
        Per::Rolling(TimeDelta::days(30)),
    ];
    let all = [(By::All, true), (By::Address, false)];
    let limits = all.into_iter().flat_map(|(by, of_one)| {
        periods.into_iter().map(move |per| Limit {
            name: format!("{by:?} {per:?}"),
            of: Matchers {
                currencies: of_one.then(|| ["BTC".to_owned()].into()),
                ..Matchers::default()
            },
            cap: Cap {
                amount: Decimal::from(1_000_000_000),
                currency: "BTC".to_owned(),
                converted: false,
            },
            per,
            by,
            over: Verdict::Refuse,
        })
    });
    let rules = (0..10).map(|number| Rule {
        name: format!("rule {number}"),
        of: Matchers {
            above: (number < 9).then(|| Decimal::from(1_000_000)),
            ..Matchers::default()
        },
        decide: if number < 9 {
            Verdict::Refuse
        } else {
            Verdict::Allow
        },
    });
    Policy {
        limits: limits.collect(),
        rules: rules.collect(),
        ..Policy::default()
    }
}
