//! Simulations: from a seed to runs of random handlers among random faults, crashes, reloads and
//! clocks that jump, and an auditor who knows what must have come of it.
//!
//! The first test takes thousands of seeds over the pure parts. Real is every decision: the state
//! machines of runs and payments, the comparison with the journal, derived keys, the delay of a
//! retry, which event answers which wait, which payments are open, which slots fire. Modelled is
//! what performs them, in `model`: a store that commits whole or not at all, a gateway that loses
//! answers, overlooks payments and sends callbacks twice, late, in any order and before its answer,
//! and an execution, which begins again from the top after a crash. The model takes one turn at a
//! time, so it cannot find races.
//!
//! The second, in `money`, is about payments alone, and takes many more seeds. Beside it every pair of
//! the simulator's faults meets the daemon itself.
//!
//! The third takes few seeds over the daemon itself, in this process, over its real store, its real
//! threads and the simulated gateway; its scripts are written by the seed. Races are found there.
//!
//! `BURSAR_SIMULATION_CASES` sets how many seeds each test takes, `BURSAR_SIMULATION_SEED` the first
//! of them; with both, a failure is repeated. The long run about money is
//! `BURSAR_SIMULATION_CASES=100000 cargo test --test it -- no_money_moves_twice`.

mod chance;
mod daemon;
mod model;
mod money;
mod program;

use std::panic::{AssertUnwindSafe, catch_unwind};

/// The seeds that a test takes.
fn seeds(usual: u64) -> std::ops::Range<u64> {
    let first = number("BURSAR_SIMULATION_SEED");
    let cases = number("BURSAR_SIMULATION_CASES");
    let cases = cases.unwrap_or(if first.is_some() { 1 } else { usual });
    let first = first.unwrap_or(1);
    first..first + cases
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{variable} is not a number: {text}")))
}

/// Says which seed it was when it has failed.
fn say_seed<T, E>(seed: u64, simulated: &Result<T, E>) {
    assert!(
        simulated.is_ok(),
        "see above; to repeat it: BURSAR_SIMULATION_SEED={seed}"
    );
}

#[test]
fn whatever_happens_every_step_counts_once_every_payment_is_made_once_and_every_run_ends() {
    let mut seen = model::Seen::default();
    for seed in seeds(2_000) {
        let simulated = catch_unwind(AssertUnwindSafe(|| model::simulate(seed, &mut seen)));
        say_seed(seed, &simulated);
    }
    if number("BURSAR_SIMULATION_SEED").is_none() {
        seen.everything();
    }
}

#[test]
fn whatever_happens_no_money_moves_twice_none_is_lost_and_the_cap_holds_at_every_instant() {
    let mut seen = money::Seen::default();
    for seed in seeds(10_000) {
        let simulated = catch_unwind(AssertUnwindSafe(|| {
            let found = money::simulate(seed, None, &mut seen);
            assert_eq!(found, Ok(()), "the auditor objects");
        }));
        say_seed(seed, &simulated);
    }
    if number("BURSAR_SIMULATION_SEED").is_none() {
        seen.everything();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_does_what_its_scripts_say_once_whatever_happens() {
    for seed in seeds(3) {
        say_seed(seed, &tokio::spawn(daemon::simulate(seed)).await);
    }
}
