//! Tables of decisions with their reasons, and what must hold for every policy and history.

use std::fmt::Write;

use chrono::TimeDelta;
use proptest::prelude::*;
use rust_decimal::Decimal;

use super::*;
use crate::domain::clock::Timestamp;
use crate::domain::id::HandlerId;
use crate::domain::operation::Operation;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn number(text: &str) -> Decimal {
    Decimal::from_str_exact(text).unwrap()
}

fn payment(currency: &str, amount: &str) -> Proposal {
    Proposal {
        foreign_id: "p-1".parse().unwrap(),
        operation: Operation::Withdraw,
        currency: currency.into(),
        amount: (!amount.is_empty()).then(|| number(amount)),
        address: Some("tb1qa".into()),
        handler: HandlerId {
            script: "payroll".into(),
            name: "monthly".into(),
        },
        batch: 1,
        at: at("2026-11-20T12:00:00Z"),
    }
}

fn limit(name: &str, amount: &str, currency: &str, per: Per) -> Limit {
    Limit {
        name: name.into(),
        of: Matchers {
            currencies: Some([currency.to_owned()].into()),
            ..Matchers::default()
        },
        cap: Cap {
            amount: number(amount),
            currency: currency.into(),
            converted: false,
        },
        per,
        by: By::All,
        over: Verdict::Refuse,
    }
}

fn approve(quorum: u32) -> Verdict {
    Verdict::Approve(Terms {
        quorum,
        expires_after: 3 * 24 * 3600 / u64::from(quorum),
        editor_may_approve: quorum < 2,
    })
}

/// Limits with something of everything.
fn limits() -> Vec<Limit> {
    vec![
        limit("bitcoin per payment", "0.5", "BTC", Per::Payment),
        limit("ether per day", "1", "ETH", Per::Day),
        Limit {
            by: By::Script,
            over: approve(1),
            ..limit("ether per script and week", "2", "ETH", Per::Week)
        },
        Limit {
            by: By::Address,
            ..limit(
                "ether per address",
                "0.8",
                "ETH",
                Per::Rolling(TimeDelta::hours(36)),
            )
        },
        Limit {
            of: Matchers::default(),
            cap: Cap {
                amount: number("5000"),
                currency: "EUR".into(),
                converted: true,
            },
            ..limit("everything", "1", "EUR", Per::Month)
        },
    ]
}

/// A policy with something of everything.
fn policy() -> Policy {
    let rule = |name: &str, of: Matchers, decide: Verdict| Rule {
        name: name.into(),
        of,
        decide,
    };
    let rules = vec![
        rule(
            "never here",
            Matchers {
                addresses: Some(["tb1qbad"].into_iter().collect()),
                ..Matchers::default()
            },
            Verdict::Refuse,
        ),
        rule(
            "large",
            Matchers {
                currencies: Some(["USDTE".to_owned()].into()),
                above: Some(number("100")),
                ..Matchers::default()
            },
            approve(2),
        ),
        rule(
            "new address at night",
            Matchers {
                first_seen: Some(TimeDelta::hours(24)),
                hours: Some(Hours {
                    from: 22 * 60,
                    to: 6 * 60,
                }),
                ..Matchers::default()
            },
            Verdict::Refuse,
        ),
        rule(
            "payroll",
            Matchers {
                scripts: Some(["payroll".to_owned()].into()),
                ..Matchers::default()
            },
            Verdict::Allow,
        ),
    ];
    Policy {
        otherwise: approve(1),
        max_batch: 1000,
        zone: chrono_tz::Europe::Berlin,
        limits: limits(),
        rules,
        ..Policy::default()
    }
}

fn rates() -> Rates {
    let mut rates = Rates::default();
    rates.learn(
        &serde_json::json!([
            {"currency_from": "ETH", "currency_to": "EUR", "rate_from": "1", "rate_to": "2000"},
            {"currency_from": "USDTE", "currency_to": "EUR", "rate_from": "1", "rate_to": "0.9"},
            {"currency_from": "BTC", "currency_to": "EUR", "rate_from": "1", "rate_to": "60000"},
        ]),
        at("2026-11-20T11:55:00Z"),
    );
    rates
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn decisions_come_with_their_reasons_and_numbers() {
    let policy = policy();
    let mut sums = Sums::new(&policy, at("2026-01-01T00:00:00Z"));
    let earlier = Proposal {
        at: at("2026-11-20T08:00:00Z"),
        ..payment("ETH", "0.7")
    };
    sums.add(&policy, &earlier, None);
    let yesterday = Proposal {
        at: at("2026-11-18T08:00:00Z"),
        address: Some("tb1qb".into()),
        ..payment("ETH", "0.9")
    };
    sums.add(&policy, &yesterday, None);
    let night = at("2026-11-20T23:30:00Z");
    let asked: Vec<(&str, Proposal)> = vec![
        ("an allowed payment", payment("ETH", "0.1")),
        ("above the day", payment("ETH", "0.4")),
        (
            "above the week of its script, and the address",
            payment("ETH", "0.3"),
        ),
        ("above one payment and the month", payment("BTC", "0.6")),
        ("no rate", payment("DOGE", "1")),
        ("an unknown amount", payment("USDTE", "")),
        ("two people", payment("USDTE", "100.01")),
        ("not above", payment("USDTE", "100")),
        (
            "a denied address, written otherwise",
            Proposal {
                address: Some("TB1QBAD".into()),
                ..payment("USDTE", "1")
            },
        ),
        (
            "an exchange by another script",
            Proposal {
                operation: Operation::ExchangeNow,
                address: None,
                handler: HandlerId {
                    script: "treasury".into(),
                    name: "x".into(),
                },
                ..payment("USDTE", "1")
            },
        ),
        (
            "too many together",
            Proposal {
                batch: 1001,
                ..payment("USDTE", "1")
            },
        ),
    ];
    let mut text = String::new();
    let mut tell = |what: &str, decision: &Decision| {
        writeln!(text, "{what}: {:?} by {}", decision.verdict, decision.by).unwrap();
        writeln!(text, "  because {}", decision.because()).unwrap();
        for reason in &decision.reasons {
            let mark = if reason.matches { '*' } else { ' ' };
            writeln!(text, "  {mark} {}: {}", reason.name, reason.text).unwrap();
        }
    };
    let rates = rates();
    let facts = Facts {
        sums: &sums,
        first_paid: None,
        rates: &rates,
    };
    for (what, proposal) in &asked {
        tell(what, &decide(&policy, proposal, &facts));
    }
    let mut fresh = Rates::default();
    let answer = serde_json::json!([
        {"currency_from": "ETH", "currency_to": "EUR", "rate_from": "1", "rate_to": "2000"},
        {"currency_from": "USDTE", "currency_to": "EUR", "rate_from": "1", "rate_to": "0.9"},
    ]);
    fresh.learn(&answer, night);
    let late = Proposal {
        at: night,
        ..payment("USDTE", "1")
    };
    let facts = Facts {
        rates: &fresh,
        ..facts
    };
    tell("a new address at night", &decide(&policy, &late, &facts));
    for (what, first) in [
        ("a fresh address at night", "2026-11-20T00:00:00Z"),
        ("a known address at night", "2026-11-19T23:30:00Z"),
    ] {
        let facts = Facts {
            first_paid: Some(at(first)),
            ..facts
        };
        tell(what, &decide(&policy, &late, &facts));
    }
    let facts = Facts {
        rates: &rates,
        ..facts
    };
    tell("rates that are too old", &decide(&policy, &late, &facts));
    insta::assert_snapshot!(text);
}

#[test]
fn in_doubt_what_restricts_holds_and_what_permits_does_not() {
    let above = |decide| Policy {
        otherwise: Verdict::Refuse,
        rules: vec![Rule {
            name: "r".into(),
            of: Matchers {
                above: Some(number("1")),
                ..Matchers::default()
            },
            decide,
        }],
        ..Policy::default()
    };
    let (sums, rates) = (Sums::default(), Rates::default());
    let facts = Facts {
        sums: &sums,
        first_paid: None,
        rates: &rates,
    };
    let unknown = payment("BTC", "");
    let decided = decide(&above(Verdict::Allow), &unknown, &facts);
    assert_eq!(
        (decided.verdict, decided.by.as_str()),
        (Verdict::Refuse, OTHERWISE)
    );
    let decided = decide(&above(approve(1)), &unknown, &facts);
    assert_eq!((decided.verdict, decided.by.as_str()), (approve(1), "r"));
}

#[test]
fn approvals_that_several_ask_for_fulfil_the_terms_of_all() {
    let policy = Policy {
        limits: vec![Limit {
            over: Verdict::Approve(Terms {
                quorum: 3,
                expires_after: 100,
                editor_may_approve: true,
            }),
            ..limit("l", "1", "BTC", Per::Payment)
        }],
        rules: vec![Rule {
            name: "r".into(),
            of: Matchers::default(),
            decide: Verdict::Approve(Terms {
                quorum: 1,
                expires_after: 50,
                editor_may_approve: false,
            }),
        }],
        ..Policy::default()
    };
    let (sums, rates) = (
        Sums::new(&policy, at("2026-01-01T00:00:00Z")),
        Rates::default(),
    );
    let facts = Facts {
        sums: &sums,
        first_paid: None,
        rates: &rates,
    };
    let decided = decide(&policy, &payment("BTC", "2"), &facts);
    let terms = Terms {
        quorum: 3,
        expires_after: 50,
        editor_may_approve: false,
    };
    assert_eq!(decided.verdict, Verdict::Approve(terms));
    assert_eq!(decided.by, "l");
}

#[test]
fn what_makes_no_sense_is_found() {
    let mut odd = policy();
    let copy = |rule: &Rule, name: &str| Rule {
        name: name.into(),
        ..rule.clone()
    };
    let narrower = Rule {
        decide: Verdict::Allow,
        of: Matchers {
            above: Some(number("500")),
            ..odd.rules[1].of.clone()
        },
        name: "huge".into(),
    };
    odd.rules.push(copy(&odd.rules[1], "large again"));
    odd.rules.push(narrower);
    odd.rules.push(Rule {
        name: "upside down".into(),
        of: Matchers {
            above: Some(number("2")),
            below: Some(number("2")),
            ..Matchers::default()
        },
        decide: Verdict::Refuse,
    });
    odd.limits[0].of.addresses = Some(["tb1qbad"].into_iter().collect());
    odd.limits[1].of.addresses = Some(["tb1qx"].into_iter().collect());
    odd.limits[1].of.not_addresses = Some(["tb1qx", "tb1qy"].into_iter().collect());
    let text: Vec<String> = doubts(&odd)
        .into_iter()
        .map(|doubt| format!("{:?}: {}\n  {}", doubt.about, doubt.message, doubt.help))
        .collect();
    insta::assert_snapshot!(text.join("\n"));
    assert_eq!(doubts(&policy()), Vec::new());
    // Only what the script `payroll` asks for can be paid now.
    let mut closed = Policy {
        otherwise: Verdict::Refuse,
        ..policy()
    };
    closed.rules.remove(1);
    assert_eq!(doubts(&closed), Vec::new());
    closed.limits[1].of.scripts = Some(["treasury".to_owned()].into());
    let found = doubts(&closed);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].about, Subject::Limit(1));
    assert!(found[0].message.contains("no rule allows"), "{found:?}");
}

/// Something that happens to a merchant.
#[derive(Debug, Clone)]
enum Step {
    Ask { amount: u32, script: u8, to: u8 },
    GiveBack(prop::sample::Index),
    Clock(i64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (1..400_u32, 0..2_u8, 0..3_u8)
            .prop_map(|(amount, script, to)| Step::Ask { amount, script, to }),
        2 => any::<prop::sample::Index>().prop_map(Step::GiveBack),
        4 => prop_oneof![
            6 => 0..7_200_000_i64,
            1 => -90_000_000..0_i64,
            1 => 0..200_000_000_i64,
        ].prop_map(Step::Clock),
    ]
}

/// The largest sum that any stretch of time which a limit counts ever holds, of one scope.
fn largest(limit: &Limit, zone: chrono_tz::Tz, of: &[&Proposal]) -> Decimal {
    let sums = of.iter().map(|one| {
        let (first, last) = match limit.per {
            Per::Rolling(length) => (one.at, one.at + length - TimeDelta::milliseconds(1)),
            Per::Day | Per::Week | Per::Month | Per::Payment => {
                let first = limit.per.begins(one.at, zone).unwrap_or(one.at);
                (first, one.at)
            }
        };
        of.iter()
            .filter(|other| first <= other.at && other.at <= last)
            .filter_map(|other| other.amount)
            .sum::<Decimal>()
    });
    sums.max().unwrap_or_default()
}

#[test]
fn a_clock_set_back_by_days_makes_no_limit_forget_what_was_paid() {
    let limits = vec![limit("l", "7", "BTC", Per::Rolling(TimeDelta::hours(30)))];
    let policy = Policy {
        limits,
        ..Policy::default()
    };
    let paid = |amount, at| Proposal {
        at,
        ..payment("BTC", amount)
    };
    let first = paid("5", at("2026-11-20T12:00:00Z"));
    let days_later = paid("1", at("2026-11-24T12:00:00Z"));
    let in_between = paid("3", at("2026-11-21T12:00:00Z"));
    let rates = Rates::default();
    let verdict = |sums: &Sums| {
        let facts = Facts {
            sums,
            first_paid: None,
            rates: &rates,
        };
        decide(&policy, &in_between, &facts).verdict
    };
    let mut sums = Sums::new(&policy, Sums::needed_from(&policy, first.at));
    sums.add(&policy, &first, None);
    sums.add(&policy, &days_later, None);
    // What is forgotten is known to be.
    assert!(!sums.reach(&policy, in_between.at));
    sums = Sums::new(&policy, Sums::needed_from(&policy, in_between.at));
    for payment in [&first, &days_later] {
        sums.count(&policy, payment, None);
    }
    sums.take_back(&policy, &days_later, None);
    assert!(sums.reach(&policy, in_between.at));
    assert_eq!(verdict(&sums), Verdict::Refuse);
    sums.take_back(&policy, &first, None);
    assert_eq!(verdict(&sums), Verdict::Allow);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn no_sum_is_ever_above_its_cap(steps in prop::collection::vec(step(), 1..120), begin in 0..31_536_000_i64) {
        let zone = chrono_tz::Europe::Berlin;
        let per = [
            (Per::Day, By::All, "10"),
            (Per::Week, By::Script, "14"),
            (Per::Month, By::All, "30"),
            (Per::Rolling(TimeDelta::hours(5)), By::All, "6"),
            (Per::Rolling(TimeDelta::hours(30)), By::Address, "7"),
        ];
        let limits: Vec<Limit> = per
            .into_iter()
            .enumerate()
            .map(|(number, (per, by, amount))| Limit { by, ..limit(&format!("l{number}"), amount, "BTC", per) })
            .collect();
        let policy = Policy { zone, limits, ..Policy::default() };
        let mut now = at("2026-01-01T00:00:00Z") + TimeDelta::seconds(begin);
        let mut kept: Vec<Proposal> = Vec::new();
        let mut sums = Sums::new(&policy, Sums::needed_from(&policy, now));
        let rates = Rates::default();
        for step in steps {
            match step {
                Step::Clock(by) => now += TimeDelta::milliseconds(by),
                Step::GiveBack(_) if kept.is_empty() => {}
                Step::GiveBack(which) => {
                    let gone = kept.swap_remove(which.index(kept.len()));
                    sums.take_back(&policy, &gone, None);
                }
                Step::Ask { amount, script, to } => {
                    let asked = Proposal {
                        amount: Some(Decimal::new(amount.into(), 2)),
                        address: Some(format!("tb1q{to}")),
                        handler: HandlerId { script: script.to_string(), name: "h".into() },
                        at: now,
                        ..payment("BTC", "1")
                    };
                    if !sums.reach(&policy, now) {
                        sums = Sums::new(&policy, Sums::needed_from(&policy, now));
                        let mut known = kept.clone();
                        known.sort_by_key(|one| one.at);
                        for one in &known {
                            sums.count(&policy, one, None);
                        }
                    }
                    let facts = Facts { sums: &sums, first_paid: None, rates: &rates };
                    if decide(&policy, &asked, &facts).verdict == Verdict::Allow {
                        sums.add(&policy, &asked, None);
                        kept.push(asked);
                    }
                }
            }
            for limit in &policy.limits {
                let scopes: std::collections::BTreeSet<String> = kept
                    .iter()
                    .filter_map(|one| super::sums::scope(limit.by, one))
                    .collect();
                for scope in scopes {
                    let of: Vec<&Proposal> = kept
                        .iter()
                        .filter(|one| super::sums::scope(limit.by, one).as_ref() == Some(&scope))
                        .collect();
                    let sum = largest(limit, zone, &of);
                    prop_assert!(sum <= limit.cap.amount, "{}: {sum}", limit.name);
                }
            }
        }
    }
}
