//! Watches the scripts folder and says "look again". It follows no paths and reads no files:
//! events only hint, half-written files raise them too, and what really changed is found by
//! whoever looks.
//!
//! The file system's events are the fast way. A regular look is the sure one: it also sets the
//! watch up again when the folder was replaced, since a watch stays with the folder that was moved
//! away and reports nothing any more.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use notify::event::{AccessKind, AccessMode, Event, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use crate::telemetry::Telemetry;

/// How often the folder is looked at without any event.
pub const LOOK_EVERY: Duration = Duration::from_secs(10);

/// How long the folder must be quiet before it is looked at.
const QUIET: Duration = Duration::from_millis(300);

/// The longest a folder that never becomes quiet is left alone.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// Keeps the watch going; dropping it ends it, and the receiver then gets `None`.
#[derive(Debug)]
pub struct Watch {
    task: JoinHandle<()>,
}

impl Watch {
    /// Starts to watch `dir` and everything below it. Whoever calls this looks at the folder for
    /// the first time afterwards: from here on, no change is left unreported.
    ///
    /// The receiver gets a message after each change, once the folder is quiet, and every
    /// `look_every` ([`LOOK_EVERY`]) at the latest. Messages that come while one is waiting are
    /// dropped. The folder need not exist yet. Must be called within a runtime.
    #[must_use]
    pub fn start(
        dir: PathBuf,
        look_every: Duration,
        telemetry: Telemetry,
    ) -> (mpsc::Receiver<()>, Self) {
        let (look, receiver) = mpsc::channel(1);
        let (hint, hints) = mpsc::channel(1);
        let mut folder = Folder {
            dir,
            hint,
            telemetry,
            watched: None,
            complained: false,
        };
        folder.ensure_watched();
        let task = tokio::spawn(run(folder, hints, look, look_every));
        (receiver, Self { task })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(
    mut folder: Folder,
    mut hints: mpsc::Receiver<()>,
    look: mpsc::Sender<()>,
    look_every: Duration,
) {
    loop {
        let regular = Instant::now() + look_every;
        if let Ok(Some(())) = timeout_at(regular, hints.recv()).await {
            until_quiet(&mut hints).await;
        }
        folder.ensure_watched();
        if let Err(mpsc::error::TrySendError::Closed(())) = look.try_send(()) {
            return;
        }
    }
}

/// Takes hints until none has come for a while.
async fn until_quiet(hints: &mut mpsc::Receiver<()>) {
    let longest = Instant::now() + LONGEST_WAIT;
    while Instant::now() < longest {
        let quiet = (Instant::now() + QUIET).min(longest);
        if !matches!(timeout_at(quiet, hints.recv()).await, Ok(Some(()))) {
            return;
        }
    }
}

struct Folder {
    dir: PathBuf,
    hint: mpsc::Sender<()>,
    telemetry: Telemetry,
    watched: Option<(Identity, RecommendedWatcher)>,
    complained: bool,
}

/// What tells a folder from one that took its place. Inode numbers are used again, so the time of
/// birth belongs to it where the file system knows it.
#[derive(PartialEq)]
struct Identity {
    device: u64,
    inode: u64,
    born: Option<SystemTime>,
}

impl Identity {
    fn of(dir: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(dir).ok()?;
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            born: metadata.created().ok(),
        })
    }
}

impl Folder {
    /// Sets the watch up, unless it is on the very folder that is there now.
    fn ensure_watched(&mut self) {
        let found = Identity::of(&self.dir);
        if found.is_some() && self.watched.as_ref().map(|(identity, _)| identity) == found.as_ref()
        {
            return;
        }
        self.watched = None;
        let Some(identity) = found else { return };
        match self.watcher() {
            Ok(watcher) => {
                self.watched = Some((identity, watcher));
                self.complained = false;
            }
            Err(error) if !self.complained => {
                self.telemetry.scripts_unwatched(&self.dir, &error);
                self.complained = true;
            }
            Err(_) => {}
        }
    }

    fn watcher(&self) -> notify::Result<RecommendedWatcher> {
        let hint = self.hint.clone();
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if event.as_ref().map_or(true, tells_of_a_change) {
                // A hint that waits already says all there is to say.
                hint.try_send(()).ok();
            }
        })?;
        watcher.watch(&self.dir, RecursiveMode::Recursive)?;
        Ok(watcher)
    }
}

/// Reading raises events too, our own reading included: only the end of writing counts among
/// accesses.
fn tells_of_a_change(event: &Event) -> bool {
    event.need_rescan()
        || !matches!(event.kind, EventKind::Access(_))
        || matches!(
            event.kind,
            EventKind::Access(AccessKind::Close(AccessMode::Write))
        )
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    const NEVER: Duration = Duration::from_hours(1);
    const LONG: Duration = Duration::from_secs(30);

    struct Watched {
        root: tempfile::TempDir,
        looks: mpsc::Receiver<()>,
        _watch: Watch,
    }

    impl Watched {
        /// Watches `root/scripts`, in which there is `a.rhai`.
        fn start(look_every: Duration) -> Self {
            let root = tempfile::tempdir().unwrap();
            fs::create_dir(root.path().join("scripts")).unwrap();
            fs::write(root.path().join("scripts/a.rhai"), "1").unwrap();
            let (looks, watch) = Watch::start(
                root.path().join("scripts"),
                look_every,
                Telemetry::default(),
            );
            Self {
                root,
                looks,
                _watch: watch,
            }
        }

        fn path(&self, below: &str) -> PathBuf {
            self.root.path().join(below)
        }

        async fn look(&mut self) {
            tokio::time::timeout(LONG, self.looks.recv())
                .await
                .expect("nobody said to look again")
                .expect("the watch ended");
        }

        /// Whether nothing is said for longer than a change takes to be reported.
        async fn stays_silent(&mut self) -> bool {
            tokio::time::timeout(QUIET * 3, self.looks.recv())
                .await
                .is_err()
        }
    }

    #[tokio::test]
    async fn a_file_saved_in_place_is_reported() {
        let mut watched = Watched::start(NEVER);
        fs::write(watched.path("scripts/a.rhai"), "2").unwrap();
        watched.look().await;
        assert!(watched.stays_silent().await, "one save, one look");
    }

    #[tokio::test]
    async fn a_file_renamed_into_place_is_reported() {
        let mut watched = Watched::start(NEVER);
        fs::write(watched.path("outside"), "2").unwrap();
        assert!(watched.stays_silent().await);
        fs::rename(watched.path("outside"), watched.path("scripts/a.rhai")).unwrap();
        watched.look().await;
    }

    #[tokio::test]
    async fn a_swapped_symbolic_link_is_reported() {
        let mut watched = Watched::start(NEVER);
        for version in ["scripts/..1", "scripts/..2"] {
            fs::create_dir(watched.path(version)).unwrap();
            fs::write(watched.path(version).join("b.rhai"), version).unwrap();
        }
        symlink("..1", watched.path("scripts/..data")).unwrap();
        symlink("..data/b.rhai", watched.path("scripts/b.rhai")).unwrap();
        watched.look().await;
        assert!(watched.stays_silent().await);
        symlink("..2", watched.path("scripts/..data_tmp")).unwrap();
        fs::rename(
            watched.path("scripts/..data_tmp"),
            watched.path("scripts/..data"),
        )
        .unwrap();
        watched.look().await;
    }

    #[tokio::test]
    async fn a_file_in_a_new_folder_is_reported_and_so_is_its_next_change() {
        let mut watched = Watched::start(NEVER);
        fs::create_dir(watched.path("scripts/lib")).unwrap();
        fs::write(watched.path("scripts/lib/c.rhai"), "1").unwrap();
        watched.look().await;
        fs::write(watched.path("scripts/lib/c.rhai"), "2").unwrap();
        watched.look().await;
    }

    #[tokio::test]
    async fn a_removed_file_is_reported() {
        let mut watched = Watched::start(NEVER);
        fs::remove_file(watched.path("scripts/a.rhai")).unwrap();
        watched.look().await;
    }

    #[tokio::test]
    async fn reading_is_not_reported() {
        let mut watched = Watched::start(NEVER);
        for _ in 0..3 {
            fs::read(watched.path("scripts/a.rhai")).unwrap();
            fs::read_dir(watched.path("scripts")).unwrap().count();
        }
        assert!(watched.stays_silent().await);
        fs::write(watched.path("scripts/a.rhai"), "2").unwrap();
        watched.look().await;
    }

    #[tokio::test]
    async fn a_replaced_folder_is_watched_again_at_the_next_look() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("scripts");
        fs::create_dir(&dir).unwrap();
        let replacements: [fn(&Path); 2] = [
            |dir| fs::rename(dir, dir.with_extension("old")).unwrap(),
            |dir| fs::remove_dir_all(dir).unwrap(),
        ];
        for put_away in replacements {
            let mut folder = folder_of(&dir);
            folder.folder.ensure_watched();
            put_away(&dir);
            fs::create_dir(&dir).unwrap();
            while folder.hinted(QUIET).await {}
            fs::write(dir.join("a.rhai"), "1").unwrap();
            assert!(
                !folder.hinted(QUIET).await,
                "the old watch sees the new folder"
            );
            folder.folder.ensure_watched();
            fs::write(dir.join("a.rhai"), "2").unwrap();
            assert!(folder.hinted(LONG).await);
        }
    }

    #[tokio::test]
    async fn every_look_sets_the_watch_up_first() {
        let root = tempfile::tempdir().unwrap();
        let Hinted { folder, hints } = folder_of(root.path());
        let hint = folder.hint.clone();
        let (look, mut looks) = mpsc::channel(1);
        let task = tokio::spawn(run(folder, hints, look, NEVER));
        hint.send(()).await.unwrap();
        looks.recv().await.unwrap();
        fs::write(root.path().join("a.rhai"), "1").unwrap();
        let seen = tokio::time::timeout(LONG, looks.recv()).await;
        seen.expect("the folder is not watched").unwrap();
        task.abort();
    }

    #[tokio::test]
    async fn a_folder_that_appears_later_is_watched_from_then_on() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("scripts");
        let mut folder = folder_of(&dir);
        folder.folder.ensure_watched();
        assert!(folder.folder.watched.is_none());
        fs::create_dir(&dir).unwrap();
        folder.folder.ensure_watched();
        fs::write(dir.join("a.rhai"), "1").unwrap();
        assert!(folder.hinted(LONG).await);
    }

    #[tokio::test]
    async fn the_regular_look_comes_without_any_change() {
        let mut watched = Watched::start(Duration::from_millis(20));
        watched.look().await;
        watched.look().await;
    }

    #[tokio::test]
    async fn a_folder_that_is_never_quiet_is_looked_at_all_the_same() {
        let (hint, mut hints) = mpsc::channel(1);
        let busy = tokio::spawn(async move { while hint.send(()).await.is_ok() {} });
        tokio::time::timeout(LONG, until_quiet(&mut hints))
            .await
            .expect("waits for ever");
        busy.abort();
    }

    #[tokio::test]
    async fn dropping_the_watch_ends_it() {
        let root = tempfile::tempdir().unwrap();
        let (mut looks, watch) = Watch::start(root.path().to_owned(), NEVER, Telemetry::default());
        drop(watch);
        let ended = tokio::time::timeout(LONG, looks.recv()).await;
        assert_eq!(ended.expect("the watch goes on"), None);
    }

    #[test]
    fn an_overflow_of_the_queue_counts_as_a_change() {
        let opened = Event::new(EventKind::Access(AccessKind::Open(AccessMode::Read)));
        assert!(!tells_of_a_change(&opened));
        assert!(tells_of_a_change(
            &opened.set_flag(notify::event::Flag::Rescan)
        ));
    }

    struct Hinted {
        folder: Folder,
        hints: mpsc::Receiver<()>,
    }

    impl Hinted {
        async fn hinted(&mut self, within: Duration) -> bool {
            tokio::time::timeout(within, self.hints.recv())
                .await
                .is_ok()
        }
    }

    fn folder_of(dir: &Path) -> Hinted {
        let (hint, hints) = mpsc::channel(1);
        Hinted {
            folder: Folder {
                dir: dir.to_owned(),
                hint,
                telemetry: Telemetry::default(),
                watched: None,
                complained: false,
            },
            hints,
        }
    }
}
