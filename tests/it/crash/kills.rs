//! SIGKILL at any moment, while the gateway loses answers and shuffles callbacks.

use std::time::Duration;

use bursar::simulator::Fault;
use tokio::time::Instant;

use super::chance::Chance;
use super::scene::{Scene, aborted, now_and_then, pays_again};

/// Payments in the batch, and how many of them are under way at a time.
const ROWS: usize = 60;
const AT_ONCE: usize = 8;

/// Kills while it works.
const KILLS: usize = 8;

/// A kill comes so many milliseconds after the daemon was started, at most: from the midst of its
/// start to the midst of its work.
const LATEST_KILL: u64 = 1_200;

async fn survive_kills(seed: u64) {
    let mut chance = Chance::new(seed);
    // The gateway acts on every request that reaches it, whatever becomes of its answer.
    let faults = vec![
        pays_again(),
        now_and_then(Fault::DropAnswer, 80),
        now_and_then(Fault::ActThenBadGateway, 80),
        now_and_then(Fault::ActThenRubbish, 80),
        now_and_then(Fault::CallbackTwice, 200),
        now_and_then(Fault::CallbackReordered, 100),
        now_and_then(Fault::CallbackLate(300), 200),
    ];
    let mut scene = Scene::new(ROWS, AT_ONCE, faults, Duration::from_millis(100)).await;
    for _ in 0..KILLS {
        let mut process = scene.machine.start(None);
        let end = Instant::now() + Duration::from_millis(chance.below(LATEST_KILL));
        let ended = scene.play_until(&mut process, end, false).await;
        assert_eq!(ended, None, "it ended by itself");
        process.kill();
    }
    let mut process = scene.machine.start(None);
    assert_eq!(scene.play(&mut process).await, None, "it ended by itself");
    let unknown = scene.judge().await;
    println!("seed {seed}: {unknown} of unknown fate");
    assert!(unknown <= KILLS * AT_ONCE, "{unknown} unknown");
    assert!(process.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_at_any_moment_neither_double_nor_lose_anything() {
    let seed = Chance::seed();
    println!("BURSAR_TEST_SEED={seed}");
    let cases = (0..3).map(|number| tokio::spawn(survive_kills(seed.wrapping_add(number))));
    for case in cases.collect::<Vec<_>>() {
        case.await.unwrap();
    }
}

/// Dies between journal and index, so that the next start has to bring the index up to date, and
/// is killed at that too: at its checkpoint, and at any other moment.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_is_killed_leaves_everything_to_the_next_one() {
    let seed = Chance::seed();
    println!("BURSAR_TEST_SEED={seed}");
    let mut chance = Chance::new(seed);
    let mut scene = Scene::new(10, 1, vec![pays_again()], Duration::ZERO).await;
    for commits in [12, 3, 3] {
        let synced = format!("journal_synced:{commits}");
        for crash_at in [synced.as_str(), "checkpoint_written:1"] {
            let mut process = scene.machine.start(Some(crash_at));
            let status = scene.play(&mut process).await;
            assert!(status.is_some_and(aborted), "{crash_at}: {status:?}");
        }
        for _ in 0..3 {
            let process = scene.machine.start(None);
            tokio::time::sleep(Duration::from_millis(chance.below(400))).await;
            process.kill();
        }
    }
    let mut process = scene.machine.start(None);
    assert_eq!(scene.play(&mut process).await, None, "it ended by itself");
    scene.judge().await;
    assert!(process.terminate().await.success());
}
