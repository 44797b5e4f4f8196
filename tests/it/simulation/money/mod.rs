//! Money alone: from a seed to a handful of payments under a cap, two faults of the gateway and one
//! crash. Small enough for a hundred thousand seeds.
//!
//! Real is every decision about a payment: [`next`](bursar::domain::payment::next) through the
//! payment's own record, and [`next_step`]. Modelled is what performs them: a store that keeps what
//! was committed and nothing else, a policy with one cap that reserves with the intent and gives
//! back in the commit that ends a payment without money, people who approve, refuse and resolve,
//! and the gateway. After every step an auditor compares the gateway's ledger with what was
//! intended and with the cap.
//!
//! [`Broken`] breaks the model's daemon in the ways that would cost money. The tests of the auditor
//! are that it finds each of them.

mod audit;
mod daemon;
mod gateway;
mod pairs;

use std::sync::LazyLock;

use bursar::domain::clock::Timestamp;
use bursar::domain::id::{HandlerId, RunId, SetHash};
use bursar::domain::operation::Operation;
use bursar::domain::payment::{Content, Origin, Payment};
use chrono::TimeDelta;
use serde_json::json;

pub use audit::{Finding, Seen};

use super::chance::Chance;
use gateway::{Fault, Gateway};

/// The most payments of a case.
const MOST: usize = 6;

/// Turns before the world calms down and everything must come to its end.
const TURNS: usize = 40;

/// Rounds of calm after which nothing may be open.
const ROUNDS: usize = 40;

/// The places at which the process may die; it dies at the last turn when it has not come so far.
const CRASHES_BEFORE: usize = 40;

/// How long the fate of a payment is looked for.
const PATIENCE: TimeDelta = TimeDelta::minutes(15);

/// A daemon that breaks a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// It resends what is unknown at a gateway that executes repeated keys.
    ResendsWhereRepeatsAreExecuted,
    /// It takes the refusal of a resend for the end, though the request before it may arrive yet.
    BelievesARefusedResend,
    /// It sends before the mark that it is being sent is on disk.
    SendsBeforeTheMark,
    /// It takes one "not found" for proof that the gateway has never got the payment.
    TrustsNotFound,
    /// It gives back what a payment reserved as soon as its reply is lost.
    ReleasesWhatIsUnknown,
    /// It never gives back what a payment reserved.
    ReleasesNothing,
    /// It does not look at what was open when it starts again.
    ForgetsAtStart,
}

/// What survives a crash.
#[derive(Debug, Default)]
struct Disk {
    /// By the number of the payment.
    payments: Vec<Option<Payment>>,
    /// What policy counts against the cap, in the same commits.
    reserved: Vec<u64>,
    is_paused: bool,
}

/// How a case is set up; nothing of it changes.
#[derive(Debug)]
struct Setting {
    /// What each payment takes.
    amounts: Vec<u64>,
    cap: u64,
    approve_above: u64,
    /// Whether what stays unknown is sent again; only where the gateway refuses repeats.
    resends: bool,
    faults: [Fault; 2],
    crash_at: usize,
    broken: Option<Broken>,
}

/// The process has died. What was not on disk is gone.
#[derive(Debug)]
struct Crash;

/// One case.
struct Model {
    chance: Chance,
    setting: Setting,
    disk: Disk,
    gateway: Gateway,
    now: Timestamp,
    /// Nothing goes wrong any more.
    calm: bool,
    /// How many places a crash could have been at.
    places: usize,
    finding: Option<Finding>,
    seen: Seen,
}

/// Simulates one case.
///
/// # Errors
/// With the first thing that the auditor finds.
pub fn simulate(seed: u64, broken: Option<Broken>, all: &mut Seen) -> Result<(), Finding> {
    let mut model = Model::new(seed, broken);
    for _ in 0..TURNS {
        if model.turn().is_err() {
            model.restart();
        }
        if let Some(finding) = model.finding.take() {
            return Err(finding);
        }
    }
    if model.seen.crashes == 0 {
        model.restart();
    }
    model.finish();
    all.add(&model.seen);
    model.finding.take().map_or(Ok(()), Err)
}

impl Model {
    fn new(seed: u64, broken: Option<Broken>) -> Self {
        let mut chance = Chance::of(seed);
        let payments = 3 + chance.below(MOST - 2);
        let amount = |chance: &mut Chance| u64::try_from(1 + chance.below(100)).unwrap();
        let amounts: Vec<u64> = (0..payments).map(|_| amount(&mut chance)).collect();
        let wanted: u64 = amounts.iter().sum();
        // Mostly less than is wanted in all.
        let cap = wanted * u64::try_from(40 + chance.below(80)).unwrap() / 100;
        let approve_above = amount(&mut chance);
        let executes_repeats = broken == Some(Broken::ResendsWhereRepeatsAreExecuted);
        let refused_resends = broken == Some(Broken::BelievesARefusedResend);
        let must_resend = executes_repeats || refused_resends;
        let resends = must_resend || broken.is_none() && chance.per_mille(500);
        // Only invoices are documented to refuse a repeated key.
        let refuses = chance.per_mille(500);
        let refuses_repeats = refused_resends || broken.is_none() && (resends || refuses);
        let faults = if refused_resends {
            [Fault::Delay, Fault::Refuse]
        } else {
            [Fault::any(&mut chance), Fault::any(&mut chance)]
        };
        let crash_at = 1 + chance.below(CRASHES_BEFORE);
        Self {
            setting: Setting {
                amounts,
                cap,
                approve_above,
                resends,
                faults,
                crash_at,
                broken,
            },
            disk: Disk {
                payments: vec![None; payments],
                reserved: vec![0; payments],
                is_paused: false,
            },
            gateway: Gateway::new(payments, refuses_repeats, faults, &mut chance),
            chance,
            now: "2026-11-22T08:30:00Z".parse().unwrap(),
            calm: false,
            places: 0,
            finding: None,
            seen: Seen::default(),
        }
    }

    fn turn(&mut self) -> Result<(), Crash> {
        match self.chance.below(14) {
            0..=3 => self.ask_for_any()?,
            4 | 5 => self.sweep_any()?,
            6 | 7 => self.deliver()?,
            8 => {
                self.gateway.go_on(&mut self.chance);
                self.audit();
            }
            9..=11 => self.now += TimeDelta::minutes(i64::try_from(self.chance.below(20)).unwrap()),
            12 => self.approve_any()?,
            _ => {
                self.disk.is_paused = !self.disk.is_paused && self.chance.per_mille(300);
                self.seen.pauses += usize::from(self.disk.is_paused);
            }
        }
        Ok(())
    }

    /// Every open payment goes on from its record. There is one crash only.
    fn restart(&mut self) {
        self.seen.crashes += 1;
        self.setting.crash_at = 0;
        if self.setting.broken == Some(Broken::ForgetsAtStart) {
            self.setting.resends = false;
            self.gateway.say_nothing();
            return;
        }
        for number in 0..self.setting.amounts.len() {
            self.go_on_with(number).expect("there is one crash only");
        }
    }

    /// Calms the world down, and gives everything the time it needs.
    fn finish(&mut self) {
        self.calm = true;
        self.disk.is_paused = false;
        let forgets = self.setting.broken == Some(Broken::ForgetsAtStart) && self.seen.crashes > 0;
        for round in 0..ROUNDS {
            self.calm_round(round == ROUNDS / 2, forgets)
                .expect("nothing goes wrong any more");
            if self.finding.is_some() {
                return;
            }
        }
        self.audit_the_end();
    }

    fn calm_round(&mut self, people_resolve: bool, forgets: bool) -> Result<(), Crash> {
        self.now += TimeDelta::minutes(7);
        self.gateway.calm_down(&mut self.chance);
        self.audit();
        for number in 0..self.setting.amounts.len() {
            self.ask_for(number)?;
            self.approve(number)?;
            if !forgets {
                self.go_on_with(number)?;
            }
            if people_resolve {
                self.resolve(number)?;
            }
        }
        while self.gateway.has_callbacks() {
            self.deliver()?;
        }
        Ok(())
    }
}

/// The payments that are asked for, as they are before anything is decided.
static PLANNED: LazyLock<Vec<Payment>> = LazyLock::new(|| (0..MOST).map(planned).collect());

fn planned(number: usize) -> Payment {
    let key = format!("payment-{number}");
    let content = Content::new(
        Operation::Withdraw,
        json!({ "foreign_id": key }).to_string(),
    );
    let origin = Origin {
        run: RunId::new(1),
        handler: HandlerId {
            script: "script".to_owned(),
            name: "handler".to_owned(),
        },
        step: 0,
        file: "script.rhai".to_owned(),
        line: 1,
        set: SetHash::of([("script.rhai", "")]).as_str().to_owned(),
    };
    let at = "2026-11-22T08:30:00Z".parse().unwrap();
    Payment::planned(key.parse().unwrap(), content, origin, at)
}
