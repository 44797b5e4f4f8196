//! Policies as people write them, right and wrong.

use std::collections::BTreeMap;
use std::path::Path;

use chrono::TimeDelta;

use super::*;
use crate::config::{Config, File, Need, resolve};
use crate::domain::diagnostic::render;
use crate::domain::policy::{By, Per};

fn resolved(text: &str, folder: &Path) -> Result<Config, Vec<Diagnostic>> {
    let file = File {
        name: "daemon.toml",
        text,
        folder,
    };
    resolve(Some(file), &BTreeMap::new(), Need::Nothing)
}

fn policy(text: &str) -> Policy {
    match resolved(text, Path::new("nowhere")) {
        Ok(config) => config.policy,
        Err(mistakes) => panic!("{}", render(&mistakes)),
    }
}

fn mistakes(text: &str) -> String {
    render(&resolved(text, Path::new("nowhere")).unwrap_err())
}

#[test]
fn a_policy_is_read_with_all_its_keys() {
    let policy = policy(
        r#"
[policy]
otherwise = "approve"
max_batch = 20
timezone = "Europe/Berlin"
rates_max_age = "5m"

[[policy.limit]]
name = "ether per day"
currency = "ETH"
amount = "1"
per = "day"

[[policy.limit]]
name = "everything"
amount_in = { EUR = "5000" }
kind = ["withdraw", "withdraw_instant"]
per = "24h"
by = "script"
over = "approve"
quorum = 2
expires = "2h"
editor_may_approve = false

[[policy.rule]]
name = "everything there is"
currency = "USDTE"
above = "100"
below = "1000.5"
script = "payroll"
handler = ["a", "b"]
kind = "withdraw"
address = ["tb1qA"]
not_address = "tb1qb"
first_seen = "24h"
hours = "22:00-06:00"
weekdays = ["sat-mon", "wed"]
batch_above = 10
decide = "approve"
"#,
    );
    insta::assert_debug_snapshot!(policy.rules);
    assert_eq!(policy.doubts, Vec::new());
}

#[test]
fn without_a_policy_everything_is_allowed() {
    let policy = policy("");
    assert_eq!(policy.rules.otherwise, Verdict::Allow);
    assert_eq!(policy.rules.max_batch, 1000);
    assert!(policy.rules.limits.is_empty() && policy.rules.rules.is_empty());
}

#[test]
fn all_mistakes_are_reported_at_once_with_place_and_help() {
    insta::assert_snapshot!(mistakes(
        r#"
[policy]
otherwise = "alow"
timezone = "Europe/Berln"
limits = 3

[[policy.limit]]
name = "a"
curency = "ETH"
amount = "1"
per = "dya"

[[policy.limit]]
name = "a"
currency = "eth"
amount = "-1"
per = "1000d"
by = "scripts"
over = "allow"
quorum = 0

[[policy.limit]]
amount_in = { EUR = "1", USD = "2" }
per = "payment"
by = "script"

[[policy.limit]]
name = "max_batch"
amount = 5
amount_in = { EUR = "1" }

[[policy.rule]]
name = "c"
above = "5"
below = "5"
script = "payroll.rhai"
kind = "withdrawal"
hours = "9-18"
weekdays = []
decide = "maybe"

[[policy.rule]]
name = "d"
hours = "09:00-09:00"
weekdays = "mon-fry"
address = { fil = "x" }
not_address = { file = "missing.txt" }
batch_above = "3"
quorum = 2
decide = "refuse"
"#
    ));
}

#[test]
fn rows_must_be_lists_of_tables() {
    insta::assert_snapshot!(mistakes(
        "[policy.limit]\nname = \"a\"\n[policy]\nrule = [1]\n"
    ));
}

#[test]
fn addresses_may_stand_in_a_file_whose_mistakes_are_reported_by_line() {
    let folder = tempfile::tempdir().unwrap();
    let text = "[[policy.rule]]\nname = \"never here\"\naddress = { file = \"deny.txt\" }\ndecide = \"refuse\"\n";
    let file = folder.path().join("deny.txt");
    std::fs::write(&file, "# known thieves\ntb1qa # Mallory\n\n  0xABC\n").unwrap();
    let policy = resolved(text, folder.path()).unwrap().policy;
    let listed = policy.rules.rules[0].of.addresses.as_ref().unwrap();
    assert_eq!(listed.len(), 2);
    assert!(listed.contains("tb1qa") && listed.contains("0xabc"));
    assert_eq!(policy.files, std::slice::from_ref(&file));
    std::fs::write(&file, "tb1qa\ntwo words\ntb1qb\nümlaut\n").unwrap();
    insta::assert_snapshot!(render(&resolved(text, folder.path()).unwrap_err()));
}

#[test]
fn what_makes_no_sense_is_no_mistake_but_has_its_place() {
    let policy = policy(
        r#"
[[policy.rule]]
name = "all"
decide = "refuse"

[[policy.rule]]
name = "never"
currency = "BTC"
decide = "allow"
"#,
    );
    insta::assert_snapshot!(render(&policy.doubts));
}

#[test]
fn periods_and_scopes_are_read() {
    let limits = |per: &str, by: &str| {
        let text = format!(
            "[[policy.limit]]\nname = \"l\"\ncurrency = \"BTC\"\namount = \"1\"\nper = \"{per}\"\nby = \"{by}\"\n"
        );
        let limit = policy(&text).rules.limits.remove(0);
        (limit.per, limit.by)
    };
    assert_eq!(limits("payment", "all"), (Per::Payment, By::All));
    assert_eq!(limits("month", "script"), (Per::Month, By::Script));
    assert_eq!(
        limits("1h30m", "address"),
        (Per::Rolling(TimeDelta::minutes(90)), By::Address)
    );
}
