//! The store through its public interface, and its writer with files that fail.

use std::path::Path;

use super::*;

const NUMBERS: Table<(String, u64), u64> = Table::new("numbers/", 1);
const TEXTS: Table<String, String> = Table::new("texts/", 1);

fn options() -> Options {
    Options {
        cache_bytes: 1024 * 1024,
        segment_bytes: 2000,
    }
}

fn open(dir: &Path) -> Store {
    Store::open(dir, &options(), &Telemetry::default()).unwrap()
}

fn number(group: &str, number: u64) -> Changes {
    let mut changes = Changes::new();
    changes.put(&NUMBERS, &(group.to_owned(), number), &number);
    changes
}

fn group(name: &str) -> String {
    name.to_owned()
}

#[tokio::test]
async fn what_was_committed_is_there_after_every_kind_of_end() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..6_u64 {
        let store = open(dir.path());
        for earlier in 0..round * 20 {
            assert_eq!(
                store.get(&NUMBERS, &(group("a"), earlier)).unwrap(),
                Some(earlier)
            );
        }
        for new in round * 20..(round + 1) * 20 {
            store.commit(number("a", new)).await.unwrap();
        }
        if round % 2 == 0 {
            store.close().await.unwrap();
        }
    }
    let store = open(dir.path());
    let all = store.scan(&NUMBERS, &Range::all(), 1000, Order::Ascending);
    assert_eq!(all.unwrap().len(), 120);
}

#[tokio::test]
async fn each_of_many_commits_is_made_or_refused_for_itself_and_sees_those_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let once = |value| {
        let mut changes = Changes::new();
        changes.require_absent(&TEXTS, &"once".into());
        changes.put(&TEXTS, &"once".into(), &String::from(value));
        changes
    };
    let mut unstorable = Changes::new();
    unstorable.refuse("texts/", "as a test");
    let all = vec![once("first"), once("second"), unstorable, number("a", 1)];
    let outcomes = store.commit_each(all).await;
    assert_eq!(outcomes[..2], [Ok(()), Err(CommitError::Refused)]);
    assert!(matches!(outcomes[2], Err(CommitError::Unstorable { .. })));
    assert_eq!(outcomes[3..], [Ok(())]);
    let kept = store.get(&TEXTS, &"once".into()).unwrap();
    assert_eq!(kept.as_deref(), Some("first"));
    assert!(store.get(&NUMBERS, &(group("a"), 1)).unwrap().is_some());
    // More than the writer is given at once.
    let large = |round: usize| {
        let mut changes = Changes::new();
        for at in 0..100 {
            let text = "x".repeat(MAX_RECORD_BYTES - 100);
            changes.put(&TEXTS, &format!("{round}/{at}"), &text);
        }
        changes
    };
    let outcomes = store.commit_each((0..3).map(large).collect()).await;
    assert_eq!(outcomes, [Ok(()), Ok(()), Ok(())]);
    let kept = store.keys(&TEXTS, &Range::all(), 1000, Order::Ascending);
    assert_eq!(kept.unwrap().len(), 301);
    assert_eq!(store.commit_each(Vec::new()).await, []);
    store.shared.poison.poison("as a test");
    let outcomes = store
        .commit_each(vec![number("a", 2), number("a", 3)])
        .await;
    assert_eq!(outcomes, [const { Err(CommitError::Poisoned) }; 2]);
}

#[tokio::test]
async fn a_scan_is_ordered_narrowed_limited_and_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut changes = Changes::new();
    for name in ["a", "b", "ba", "c"] {
        for at in [1, 5, 300] {
            changes.put(&NUMBERS, &(group(name), at), &at);
        }
    }
    changes.put(&TEXTS, &"b".into(), &"other table".into());
    store.commit(changes).await.unwrap();
    let scan = |range: &Range<_>, limit, order| -> Vec<(String, u64)> {
        let found = store.scan(&NUMBERS, range, limit, order).unwrap();
        found.into_iter().map(|(key, _)| key).collect()
    };
    let b = |at| (group("b"), at);
    let within = || Range::within(&group("b"));
    assert_eq!(scan(&Range::all(), 100, Order::Ascending).len(), 12);
    assert_eq!(scan(&within(), 100, Order::Ascending), [b(1), b(5), b(300)]);
    assert_eq!(scan(&within(), 2, Order::Descending), [b(300), b(5)]);
    let resumed = within().after(&b(5));
    assert_eq!(scan(&resumed, 100, Order::Ascending), [b(300)]);
    assert_eq!(scan(&resumed, 100, Order::Descending), [b(1)]);
    let b_and_ba = Range::all().starting_with("b");
    assert_eq!(scan(&b_and_ba, 100, Order::Ascending).len(), 6);
    let since_ba = Range::all().since(&group("ba"));
    assert_eq!(
        scan(&since_ba, 2, Order::Ascending),
        [(group("ba"), 1), (group("ba"), 5)]
    );
    assert_eq!(scan(&since_ba, 100, Order::Ascending).len(), 6);
    let before = within().after(&(group("a"), 5));
    assert_eq!(scan(&before, 100, Order::Ascending).len(), 3);
    assert_eq!(scan(&before, 100, Order::Descending).len(), 0);
    let behind = within().after(&(group("c"), 5));
    assert_eq!(scan(&behind, 100, Order::Ascending).len(), 0);
    assert_eq!(scan(&behind, 100, Order::Descending).len(), 3);
}

#[tokio::test]
async fn removed_records_are_gone_and_the_last_write_of_a_key_counts() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut changes = Changes::new();
    for text in ["first", "second"] {
        changes.put(&TEXTS, &"a".into(), &text.into());
        changes.put(&TEXTS, &"b".into(), &text.into());
    }
    changes.remove(&TEXTS, &"b".into());
    store.commit(changes).await.unwrap();
    assert_eq!(
        store.get(&TEXTS, &"a".into()).unwrap().as_deref(),
        Some("second")
    );
    assert_eq!(store.get(&TEXTS, &"b".into()).unwrap(), None);
}

#[tokio::test]
async fn of_commits_that_race_for_a_key_exactly_one_wins() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for round in 0..20 {
        let key = format!("{round}");
        let racers: Vec<_> = (0..8)
            .map(|racer| {
                let (store, key) = (store.clone(), key.clone());
                tokio::spawn(async move {
                    let mut changes = Changes::new();
                    changes.require_absent(&TEXTS, &key);
                    changes.put(&TEXTS, &key, &format!("{racer}"));
                    changes.put(&NUMBERS, &(key.clone(), racer), &racer);
                    store.commit(changes).await
                })
            })
            .collect();
        let mut winners = Vec::new();
        for (racer, task) in racers.into_iter().enumerate() {
            match task.await.unwrap() {
                Ok(()) => winners.push(racer.to_string()),
                Err(error) => assert_eq!(error, CommitError::Refused),
            }
        }
        assert_eq!(winners.len(), 1);
        assert_eq!(store.get(&TEXTS, &key).unwrap().unwrap(), winners[0]);
        let made = store.scan(&NUMBERS, &Range::within(&key), 100, Order::Ascending);
        assert_eq!(made.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn increments_that_require_what_they_read_are_never_lost() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let key = (group("counter"), 0);
    store.commit(number("counter", 0)).await.unwrap();
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let (store, key) = (store.clone(), key.clone());
            tokio::spawn(async move {
                for _ in 0..25 {
                    loop {
                        let read = store.get_versioned(&NUMBERS, &key).unwrap().unwrap();
                        let mut changes = Changes::new();
                        changes.require_unchanged(&NUMBERS, &key, &read);
                        changes.put(&NUMBERS, &key, &(read.value + 1));
                        match store.commit(changes).await {
                            Ok(()) => break,
                            Err(error) => assert_eq!(error, CommitError::Refused),
                        }
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(store.get(&NUMBERS, &key).unwrap(), Some(200));
}

#[tokio::test]
async fn a_record_that_is_too_large_is_named_and_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut changes = number("a", 1);
    changes.put(&TEXTS, &"large".into(), &"x".repeat(MAX_RECORD_BYTES));
    assert!(matches!(
        store.commit(changes).await,
        Err(CommitError::Unstorable {
            table: "texts/",
            ..
        })
    ));
    assert_eq!(store.get(&NUMBERS, &(group("a"), 1)).unwrap(), None);
    store.commit(number("a", 1)).await.unwrap();
}

#[tokio::test]
async fn blobs_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let hash = store.put_blob(vec![7; 200_000]).await.unwrap();
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.get_blob(&hash).unwrap(), vec![7; 200_000]);
    assert!(matches!(
        store.get_blob(&BlobHash::of(b"other")),
        Err(ReadError::Blob { .. })
    ));
}

#[tokio::test]
async fn a_second_owner_is_told_which_folder_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let other = store.clone();
    store.close().await.unwrap();
    let refused = Store::open(dir.path(), &options(), &Telemetry::default()).unwrap_err();
    assert_eq!(
        refused.to_string(),
        format!(
            "another bursar uses `{}`; stop it, or give this one another `store.path`",
            dir.path().display()
        )
    );
    assert_eq!(
        other.commit(number("a", 1)).await,
        Err(CommitError::Poisoned)
    );
    drop(other);
    open(dir.path());
}

/// A store whose guard journal goes to `device` instead of its segment.
fn diverted(dir: &Path, telemetry: &Telemetry, device: &str) -> Store {
    let mut opened = open::open(dir, &options(), telemetry).unwrap();
    opened.writer.journal.divert(device);
    Store::start(opened).unwrap()
}

/// `/dev/full` fails every write as a full disk does; `/dev/null` takes writes and cannot sync.
#[tokio::test]
async fn a_failed_append_or_sync_poisons_the_store_and_loses_nothing_acknowledged() {
    for device in ["/dev/full", "/dev/null"] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        store.commit(number("kept", 1)).await.unwrap();
        drop(store);

        let telemetry = Telemetry::default();
        let store = diverted(dir.path(), &telemetry, device);
        let waiting: Vec<_> = (0..4)
            .map(|at| {
                let store = store.clone();
                tokio::spawn(async move { store.commit(number("lost", at)).await })
            })
            .collect();
        store.poisoned().await;
        for task in waiting {
            assert_eq!(task.await.unwrap(), Err(CommitError::Poisoned));
        }
        assert!(store.is_poisoned());
        assert_eq!(telemetry.metrics().store_poisoned.get(), 1);
        assert_eq!(
            store.commit(number("late", 1)).await,
            Err(CommitError::Poisoned)
        );
        assert_eq!(
            store.put_blob(vec![1]).await.unwrap_err(),
            CommitError::Poisoned
        );
        assert_eq!(store.get(&NUMBERS, &(group("kept"), 1)).unwrap(), Some(1));
        assert_eq!(store.close().await, Err(CommitError::Poisoned));

        let store = open(dir.path());
        let all = store.scan(&NUMBERS, &Range::all(), 100, Order::Ascending);
        assert_eq!(all.unwrap(), [((group("kept"), 1), 1)]);
        store.commit(number("again", 1)).await.unwrap();
    }
}

#[tokio::test]
async fn a_blob_that_cannot_be_written_poisons_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    std::fs::write(dir.path().join("blobs"), "in the way").unwrap();
    assert_eq!(
        store.put_blob(vec![1]).await.unwrap_err(),
        CommitError::Poisoned
    );
    assert_eq!(
        store.commit(number("late", 1)).await,
        Err(CommitError::Poisoned)
    );
}

#[test]
fn a_panic_of_the_writer_poisons_the_store() {
    let poison = Poison::new(&Telemetry::default());
    let panicked = std::thread::spawn({
        let poison = poison.clone();
        move || {
            let _guard = poison.guard();
            panic!("as a test");
        }
    });
    assert!(panicked.join().is_err());
    assert!(poison.is_set());
}

#[tokio::test]
async fn the_journal_is_cut_at_checkpoints_and_the_report_says_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for at in 0..200 {
        store.commit(number("a", at)).await.unwrap();
    }
    store.put_blob(b"content".to_vec()).await.unwrap();
    store.close().await.unwrap();
    let report = verify(dir.path()).unwrap();
    assert!(report.journal.0 > 1, "{report:?}");
    assert_eq!(report.journal.1, 200);
    assert_eq!(report.checkpoint, Some(200));
    assert_eq!(report.index, Some(200));
    assert_eq!((report.records, report.blobs), (200, 1));
    assert!(report.damage.is_empty() && report.damaged_slots.is_empty());
    assert!(verify(&dir.path().join("elsewhere")).is_err());
}

/// What a failing disk can leave behind: the journal has a group, sled only a part of it.
#[tokio::test]
async fn a_group_that_was_applied_in_part_is_made_whole() {
    use super::journal_format::{Writes, encode_record};

    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.commit(number("a", 1)).await.unwrap();
    drop(store);

    let mut opened = open::open(dir.path(), &options(), &Telemetry::default()).unwrap();
    let before = opened.writer.mark;
    let mut changes = number("a", 1000);
    changes.put(&NUMBERS, &(group("a"), 1), &7);
    let writes: Writes = changes
        .writes
        .into_iter()
        .map(|write| (write.key, write.value))
        .collect();
    let mut mark = before;
    mark.sequence += 1;
    for (key, value) in &writes {
        let old = opened.writer.view.index.get(key).unwrap();
        mark.count(
            old.as_deref().map(codec::carried_checksum),
            journal_format::checksum(value.as_ref()),
        );
    }
    let record = encode_record(&before, &mut mark, &writes, &[]);
    opened.writer.journal.append(&record).unwrap();
    opened.writer.journal.sync(mark.sequence).unwrap();
    let part = writes.into_iter().take(1).collect();
    opened.writer.view.index.apply(&part, &before).unwrap();
    drop(opened);

    let store = open(dir.path());
    assert_eq!(store.get(&NUMBERS, &(group("a"), 1)).unwrap(), Some(7));
    assert_eq!(
        store.get(&NUMBERS, &(group("a"), 1000)).unwrap(),
        Some(1000)
    );
}

fn everything(store: &Store) -> Vec<(u64, u64)> {
    let all = store.scan(&NUMBERS, &Range::all(), usize::MAX, Order::Ascending);
    let all = all.unwrap().into_iter();
    all.map(|((_, key), value)| (key, value)).collect()
}

/// What a process that is killed leaves behind between the sync of a group and the index: nothing
/// of it there, a part of it, or all but the note of where the index stands.
#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_kill_at_any_point_before_it_is_in_the_index() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open::open(dir.path(), &options(), &Telemetry::default()).unwrap();
    let (writer, mut applier) = (opened.writer, opened.applier);
    let view = writer.view.clone();
    let (commands, receiver) = mpsc::channel(QUEUE);
    let poison = Poison::new(&Telemetry::default());
    let writing = std::thread::spawn(move || writer.run(receiver, &poison));
    let mut model = std::collections::BTreeMap::new();
    for round in 0..40_u64 {
        let mut changes = number("a", round);
        model.insert(round, round);
        changes.put(&NUMBERS, &(group("a"), round / 2), &(round + 1000));
        model.insert(round / 2, round + 1000);
        if round % 3 == 0 {
            changes.remove(&NUMBERS, &(group("a"), round / 3));
            model.remove(&(round / 3));
        }
        let (answer, answered) = oneshot::channel();
        let commit = Command::Commit(vec![changes], answer);
        commands.send(commit).await.unwrap();
        assert_eq!(answered.await.unwrap(), [Ok(())]);
        match round % 8 {
            3 => applier.take_turn(round % 16 == 3).unwrap(),
            5 | 6 => {
                let (layer, mark) = view.overlay.freeze().unwrap();
                let share = usize::try_from(round % 4).unwrap();
                let part = layer.writes().count() * share / 2;
                let part = layer.writes().take(part);
                view.index.apply_many(part, &applier.applied).unwrap();
                let killed = killed(dir.path(), &view);
                assert_eq!(
                    everything(&open(killed.path())),
                    Vec::from_iter(model.clone())
                );
                view.index.apply_many(layer.writes(), &mark).unwrap();
                applier.applied = mark;
                view.overlay.take_away();
            }
            0 | 1 | 2 | 4 | 7.. => {}
        }
        if round % 5 == 4 {
            let killed = killed(dir.path(), &view);
            assert!(verify(killed.path()).unwrap().damage.is_empty());
            let store = open(killed.path());
            assert_eq!(everything(&store), Vec::from_iter(model.clone()));
            store.commit(number("b", round)).await.unwrap();
        }
    }
    // Nobody has to apply anything any more for the writer to end.
    applier.pace.leave();
    drop(commands);
    writing.join().unwrap();
}

/// The folder as it would be if the process were killed now.
fn killed(dir: &Path, view: &View) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    // Nothing in the background changes the index's files while they are copied.
    view.index.flush().unwrap();
    copy::copy_tree(dir, copy.path(), |_| true).unwrap();
    copy
}

#[tokio::test]
async fn an_index_that_fails_poisons_the_store_and_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let telemetry = Telemetry::default();
    let store = Store::open(dir.path(), &options(), &telemetry).unwrap();
    store.commit(number("a", 0)).await.unwrap();
    let fails = &store.shared.view.index.fails;
    fails.store(true, std::sync::atomic::Ordering::SeqCst);
    let mut acknowledged = 1;
    while store.commit(number("a", acknowledged)).await.is_ok() {
        acknowledged += 1;
    }
    store.poisoned().await;
    assert_eq!(telemetry.metrics().store_poisoned.get(), 1);
    let made = usize::try_from(acknowledged).unwrap();
    assert!(
        everything(&store).len() >= made,
        "what is durable stays visible"
    );
    assert_eq!(
        store.commit(number("late", 1)).await,
        Err(CommitError::Poisoned)
    );
    assert_eq!(store.close().await, Err(CommitError::Poisoned));
    assert!(everything(&open(dir.path())).len() >= made);
}

/// The room that is made ahead in the guard journal, when nobody was there to give it back.
#[tokio::test]
async fn room_left_by_a_kill_is_neither_damage_nor_a_torn_tail() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for at in 0..10 {
        store.commit(number("a", at)).await.unwrap();
    }
    drop(store);
    let segments = layout::Layout::new(dir.path()).segments().unwrap();
    for (_, segment) in &segments {
        let file = std::fs::OpenOptions::new().write(true).open(segment);
        let file = file.unwrap();
        file.set_len(file.metadata().unwrap().len() + 5000).unwrap();
    }
    let report = verify(dir.path()).unwrap();
    assert_eq!((report.torn_bytes, report.journal.1), (0, 10));
    assert!(report.damage.is_empty(), "{report:?}");
    let store = open(dir.path());
    store.commit(number("a", 10)).await.unwrap();
    store.close().await.unwrap();
    assert_eq!(everything(&open(dir.path())).len(), 11);
}

/// A group whose append was interrupted, of which nobody was told.
#[tokio::test]
async fn a_torn_tail_is_cut_off_and_the_next_group_takes_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.commit(number("a", 1)).await.unwrap();
    drop(store);
    let mut opened = open::open(dir.path(), &options(), &Telemetry::default()).unwrap();
    let mut mark = opened.writer.mark;
    mark.sequence += 1;
    let record = journal_format::encode_record(&opened.writer.mark, &mut mark, &[].into(), &[]);
    for length in [1, 8, record.len() - 1] {
        opened.writer.journal.append(&record[..length]).unwrap();
        drop(opened);
        let report = verify(dir.path()).unwrap();
        assert_eq!(report.torn_bytes, length as u64);
        assert!(report.damage.is_empty());
        opened = open::open(dir.path(), &options(), &Telemetry::default()).unwrap();
    }
    let store = Store::start(opened).unwrap();
    store.commit(number("a", 2)).await.unwrap();
    drop(store);
    let store = open(dir.path());
    let all = store.scan(&NUMBERS, &Range::all(), 10, Order::Ascending);
    assert_eq!(all.unwrap().len(), 2);
}

#[test]
fn an_interrupted_first_start_is_begun_again() {
    use super::guard_journal::GuardJournal;
    use super::layout::Layout;

    let dir = tempfile::tempdir().unwrap();
    GuardJournal::create(&Layout::new(dir.path()), &journal_format::Mark::default()).unwrap();
    assert!(verify(dir.path()).is_err());
    open(dir.path());
    assert!(verify(dir.path()).unwrap().damage.is_empty());
}

#[tokio::test]
async fn a_store_of_an_older_format_is_read_and_then_has_the_newest() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.commit(number("a", 1)).await.unwrap();
    drop(store);
    let format = dir.path().join("format");
    std::fs::write(&format, "bursar store 1\n").unwrap();
    assert!(verify(dir.path()).unwrap().damage.is_empty());
    let store = open(dir.path());
    assert_eq!(store.get(&NUMBERS, &(group("a"), 1)).unwrap(), Some(1));
    let noted = std::fs::read_to_string(&format).unwrap();
    assert_eq!(noted, "bursar store 2\n");
}

#[test]
fn a_store_of_a_newer_format_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path());
    let format = dir.path().join("format");
    std::fs::write(&format, "bursar store 7\n").unwrap();
    let refused = Store::open(dir.path(), &options(), &Telemetry::default()).unwrap_err();
    assert_eq!(
        refused.to_string(),
        format!(
            "`{}` has format 7, this release of bursar reads up to 2; start the newer release",
            format.display()
        )
    );
}
