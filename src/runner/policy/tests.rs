//! What is reserved, kept and given back, over a real store.

use rust_decimal::Decimal;
use tempfile::TempDir;

use super::*;
use crate::domain::id::{HandlerId, RunId};
use crate::domain::operation::Operation;
use crate::domain::payment::{Content, Event, Origin};
use crate::domain::policy::{By, Cap, Limit, Matchers, Per, Rule};
use crate::store::Options;
use crate::store::schema::PAYMENTS;
use crate::telemetry::Telemetry;

const NOW: &str = "2026-11-20T12:00:00.123456Z";

struct World {
    store: Store,
    _folder: TempDir,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let store = Store::open(&path, &Options::default(), &Telemetry::default()).unwrap();
        Self {
            store,
            _folder: folder,
        }
    }

    fn guard(&self, cap: &str) -> Guard {
        Guard::new(day(cap), self.store.clone(), at(NOW)).unwrap()
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// At most so much bitcoin a day.
fn day(cap: &str) -> Policy {
    Policy {
        limits: vec![Limit {
            name: "day".into(),
            of: Matchers::default(),
            cap: Cap {
                amount: Decimal::from_str_exact(cap).unwrap(),
                currency: "BTC".into(),
                converted: false,
            },
            per: Per::Day,
            by: By::All,
            over: Verdict::Refuse,
        }],
        ..Policy::default()
    }
}

fn payment(id: &str, amount: &str) -> Payment {
    let content = Content::new(
        Operation::Withdraw,
        format!(r#"{{"address":"tb1qA","amount":"{amount}","currency":"BTC"}}"#),
    );
    let origin = Origin {
        run: RunId::new(1),
        handler: HandlerId {
            script: "s".into(),
            name: "h".into(),
        },
        step: 0,
        file: "s.rhai".into(),
        line: 1,
        set: String::new(),
    };
    Payment::planned(id.parse().unwrap(), content, origin, at(NOW))
}

/// Asks about a payment and leaves the commit open. Answers whether it is allowed.
fn ask(guard: &Guard, id: &str, amount: &str) -> (bool, Changes) {
    let payment = payment(id, amount);
    let mut changes = Changes::new();
    let proposal = Proposal::of(&payment, 1);
    let decision = guard.decide(&proposal, &mut changes).unwrap();
    (decision.verdict == Verdict::Allow, changes)
}

/// The same, with the commit.
async fn pay(world: &World, guard: &Guard, id: &str, amount: &str) -> bool {
    let (allowed, changes) = ask(guard, id, amount);
    world.store.commit(changes).await.unwrap();
    guard.committed(&id.parse().unwrap());
    allowed
}

#[tokio::test]
async fn what_is_reserved_counts_before_it_is_on_disk_and_is_given_back_when_it_never_is() {
    let world = World::new();
    let guard = world.guard("1");
    let (first, open) = ask(&guard, "a", "0.7");
    assert!(first);
    assert!(!ask(&guard, "b", "0.4").0);
    drop(open);
    guard.not_committed(&"a".parse().unwrap());
    assert!(ask(&guard, "b", "0.4").0);
    // Asked twice, given back once.
    guard.not_committed(&"b".parse().unwrap());
    guard.not_committed(&"b".parse().unwrap());
    assert!(!ask(&guard, "c", "1.1").0);
    assert!(ask(&guard, "c", "1").0);
}

#[tokio::test]
async fn a_new_policy_counts_what_is_on_disk_and_what_is_reserved_each_once() {
    let world = World::new();
    let guard = world.guard("1");
    assert!(pay(&world, &guard, "on disk", "0.2").await);
    let (allowed, changes) = ask(&guard, "committed, and nobody was told", "0.3");
    assert!(allowed);
    world.store.commit(changes).await.unwrap();
    let (allowed, _open) = ask(&guard, "reserved", "0.4");
    assert!(allowed);
    guard.replace(day("1.0000"), at(NOW)).unwrap();
    guard.replace(day("0.95"), at(NOW)).unwrap();
    assert!(!ask(&guard, "x", "0.06").0);
    assert!(ask(&guard, "x", "0.05").0);
    guard.committed(&"committed, and nobody was told".parse().unwrap());
    guard.not_committed(&"x".parse().unwrap());
    guard.not_committed(&"reserved".parse().unwrap());
    assert!(!ask(&guard, "y", "0.46").0);
    assert!(ask(&guard, "y", "0.45").0);
    // A start knows what is on disk.
    let guard = world.guard("1");
    assert!(!ask(&guard, "z", "0.51").0);
    assert!(ask(&guard, "z", "0.5").0);
}

#[tokio::test]
async fn what_is_given_back_counts_until_that_is_on_disk_and_is_given_back_once() {
    let world = World::new();
    let guard = world.guard("1");
    assert!(pay(&world, &guard, "a", "0.6").await);
    assert!(pay(&world, &guard, "b", "0.3").await);
    let mut ended = payment("a", "0.6");
    ended.state = State::Cancelled;
    let mut changes = Changes::new();
    guard.ended(&ended, &mut changes);
    assert!(!ask(&guard, "c", "0.2").0, "the commit is still open");
    // Two report the end at the same time; only one of them commits.
    let mut lost = Changes::new();
    guard.ended(&ended, &mut lost);
    world.store.commit(changes).await.unwrap();
    assert!(!ask(&guard, "c", "0.8").0);
    assert!(ask(&guard, "c", "0.7").0);
    guard.not_committed(&"c".parse().unwrap());
    // Sums that are made anew meanwhile do not count it at all.
    let mut ended = payment("b", "0.3");
    ended.state = State::Rejected;
    let mut changes = Changes::new();
    guard.ended(&ended, &mut changes);
    world.store.commit(changes).await.unwrap();
    guard.replace(day("2"), at(NOW)).unwrap();
    assert!(!ask(&guard, "d", "2.1").0);
    assert!(ask(&guard, "d", "2").0);
}

#[tokio::test]
async fn a_clock_that_was_set_far_back_makes_no_room() {
    let world = World::new();
    let guard = world.guard("1");
    assert!(pay(&world, &guard, "a", "0.7").await);
    let mut later = payment("b", "0.7");
    later.created_at = at("2027-11-20T12:00:00Z");
    let mut changes = Changes::new();
    let proposal = Proposal::of(&later, 1);
    let decision = guard.decide(&proposal, &mut changes).unwrap();
    assert_eq!(decision.verdict, Verdict::Allow);
    world.store.commit(changes).await.unwrap();
    guard.committed(&later.foreign_id);
    assert!(!ask(&guard, "c", "0.1").0, "both count from today on");
}

#[tokio::test]
async fn an_address_counts_as_paid_from_its_first_confirmation() {
    let world = World::new();
    let policy = Policy {
        rules: vec![Rule {
            name: "new".into(),
            of: Matchers {
                first_seen: Some(TimeDelta::hours(1)),
                ..Matchers::default()
            },
            decide: Verdict::Refuse,
        }],
        ..Policy::default()
    };
    let guard = Guard::new(policy, world.store.clone(), at(NOW)).unwrap();
    assert!(!ask(&guard, "a", "1").0);
    let mut changes = Changes::new();
    for (id, hours_ago) in [("first", 2), ("second", 0)] {
        let mut paid = payment(id, "1");
        paid.state = State::Confirmed;
        paid.updated_at = at(NOW) - TimeDelta::hours(hours_ago);
        changes.put(&PAYMENTS, &paid.foreign_id, &paid);
        guard.ended(&paid, &mut changes);
        world
            .store
            .commit(std::mem::take(&mut changes))
            .await
            .unwrap();
    }
    assert!(ask(&guard, "b", "1").0);
    let mut declined = payment("c", "1");
    declined.apply(Event::Allowed, None, at(NOW)).unwrap();
    guard.ended(&declined, &mut changes);
    assert!(changes.is_empty(), "it has not ended");
}
