//! Decides which run is executed next, and on which thread.
//!
//! The rules are in `queues`; this wakes and starts threads by them. Threads are the daemon's own, with
//! large stacks, and started when they are needed.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::queues::Queues;
use super::ticket::{Started, Ticket};
use super::unwritten::Unwritten;
use crate::config::Limits;
use crate::domain::clock::Timestamp;
use crate::domain::id::{HandlerId, RunId};
use crate::telemetry::Telemetry;

/// Stack of a script's thread, in bytes, before anything it nests. A script that calls as deep as
/// the limits allow needs less than one.
const STACK: usize = 8 * 1024 * 1024;

/// Stack for each value that a script can put into another, in bytes: dropping and copying them
/// goes down level by level, about 1 KiB each (measured), and running out of stack would abort the
/// process. Reserved addresses, not memory: only what is used is ever touched.
const STACK_PER_LEVEL: usize = 2 * 1024;

/// With more runs open than this, new ones are read back from the store when their turn comes, so
/// that a long queue does not fill the memory.
const MOST_FRESH: usize = 2_000;

/// With more runs ready than this, whoever takes callbacks in gives way to them.
const BEHIND: usize = 64;

/// How long a callback gives way at most. Handlers that wait for something else than a processor must
/// not keep callbacks out, and a sender that waits for each answer still gets 40 in each second.
const GIVE_WAY: Duration = Duration::from_millis(25);

/// What becomes of a run after an execution.
#[derive(Debug)]
pub(super) enum After {
    /// It is parked or has ended: its lane goes on.
    Closed,
    /// It is executed again at that time, and keeps its lane until then.
    Again(Timestamp),
    /// It is executed again at once.
    AtOnce,
    /// It waits, and keeps its lane if its lane is one of those.
    Waiting,
    /// It stays as it is until the next start.
    Left,
}

/// Executes one run, called on a script's thread. Whoever does says what becomes of the run with
/// [`Dispatcher::finish`], once, on that thread or later.
pub(super) type Execute = Arc<dyn Fn(Arc<Dispatcher>, Ticket) + Send + Sync>;

/// The queue in front of the script threads.
pub(super) struct Dispatcher {
    queues: Mutex<Queues>,
    /// A thread has ended its run.
    idle: Condvar,
    /// How many runs are ready.
    ready: AtomicUsize,
    /// There are no longer too many of them.
    caught_up: Notify,
    most: usize,
    most_per_script: usize,
    stack: usize,
    pub(super) unwritten: Arc<Unwritten>,
    telemetry: Telemetry,
    execute: OnceLock<Execute>,
}

impl Dispatcher {
    pub(super) fn new(limits: &Limits, unwritten: Arc<Unwritten>, telemetry: Telemetry) -> Self {
        let levels = limits.array_size.max(limits.map_size);
        Self {
            queues: Mutex::default(),
            idle: Condvar::new(),
            ready: AtomicUsize::new(0),
            caught_up: Notify::new(),
            most: limits.concurrent_runs,
            most_per_script: limits.concurrent_runs_per_script,
            stack: STACK.saturating_add(levels.saturating_mul(STACK_PER_LEVEL)),
            unwritten,
            telemetry,
            execute: OnceLock::new(),
        }
    }

    /// Begins to execute what is queued.
    pub(super) fn start(self: &Arc<Self>, execute: Execute) {
        if self.execute.set(execute).is_ok() {
            self.staff(&mut self.queues());
        }
    }

    /// Queues runs whose records are durable, and lets waiting ones go on. A run that is queued
    /// already stays once.
    pub(super) fn enqueue(self: &Arc<Self>, started: Started) {
        if started.0.is_empty() {
            return;
        }
        let mut queues = self.queues();
        for mut ticket in started.0 {
            if queues.known.len() > MOST_FRESH {
                ticket.fresh = None;
            }
            if let Some(place) = ticket.place.take() {
                place.queued();
            }
            queues.admit(ticket);
        }
        self.staff(&mut queues);
    }

    /// Makes runs ready whose time has come.
    pub(super) fn release_due(self: &Arc<Self>, now: Timestamp) {
        let mut queues = self.queues();
        while let Some(entry) = queues.later.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let ticket = entry.remove();
            queues.make_ready(ticket);
        }
        self.staff(&mut queues);
    }

    /// Waits a little while many runs are ready: what is taken in faster than it is handled is handled
    /// slower still, because its runs have left the memory when their turn comes.
    pub(super) async fn give_way(&self) {
        let caught_up = self.caught_up.notified();
        if self.ready.load(Ordering::SeqCst) > BEHIND {
            // Whichever comes first.
            let _either = tokio::time::timeout(GIVE_WAY, caught_up).await;
        }
    }

    /// How many runs are not closed.
    pub(super) fn open_runs(&self) -> usize {
        self.queues().known.len()
    }

    /// Whether a run of that handler is not closed.
    pub(super) fn has_open_run(&self, handler: &HandlerId) -> bool {
        self.queues().open.contains_key(handler)
    }

    /// Whether the run is being executed right now.
    pub(super) fn is_executing(&self, run: RunId) -> bool {
        self.queues().executing.contains(&run)
    }

    /// Starts no further run, and waits until the ones being executed have ended, at most for
    /// `patience`. Answers whether all have.
    pub(super) fn drain(&self, patience: Duration) -> bool {
        let mut queues = self.queues();
        queues.stopping = true;
        for thread in queues.waiting_threads.drain(..) {
            thread.unpark();
        }
        let (queues, _) = self
            .idle
            .wait_timeout_while(queues, patience, |queues| !queues.executing.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        queues.executing.is_empty()
    }

    /// Wakes a thread for what is ready, and starts threads for what no thread waits for.
    pub(super) fn staff(self: &Arc<Self>, queues: &mut Queues) {
        self.staff_beyond(queues, 0);
    }

    /// The same, when `coming` threads will ask for work any moment.
    fn staff_beyond(self: &Arc<Self>, queues: &mut Queues, coming: usize) {
        self.gauge(queues);
        let Some(execute) = self.execute.get() else {
            return;
        };
        let wanted = queues.ready.values().map(VecDeque::len).sum::<usize>();
        if wanted > coming {
            Self::rouse(queues);
        }
        // One that was woken has left those that wait, and comes.
        let there = queues.waiting_threads.len() + usize::from(queues.rousing);
        let missing = wanted
            .saturating_sub(there.saturating_add(coming))
            .min(self.most.saturating_sub(queues.threads));
        for _ in 0..missing {
            let number = queues.threads;
            let (dispatcher, execute) = (Arc::clone(self), Arc::clone(execute));
            let started = std::thread::Builder::new()
                .name(format!("script-{number}"))
                .stack_size(self.stack)
                .spawn(move || dispatcher.work(&execute));
            match started {
                Ok(_) => queues.threads += 1,
                Err(error) => {
                    self.telemetry.thread_not_started(&error);
                    return;
                }
            }
        }
    }

    /// Wakes one waiting thread, which wakes the next when it leaves something behind: so a burst of
    /// work wakes as many threads as it keeps busy, not as many as there are. The one that went to
    /// wait last comes first, because what it works with is still at hand.
    fn rouse(queues: &mut Queues) {
        if !queues.rousing
            && !queues.ready.is_empty()
            && let Some(thread) = queues.waiting_threads.pop()
        {
            queues.rousing = true;
            thread.unpark();
        }
    }

    fn work(self: Arc<Self>, execute: &Execute) {
        while let Some(ticket) = self.take() {
            execute(Arc::clone(&self), ticket);
        }
    }

    /// Waits for a run that may be executed; `None` when the daemon stops.
    fn take(&self) -> Option<Ticket> {
        let mut queues = self.queues();
        loop {
            if queues.stopping {
                queues.threads = queues.threads.saturating_sub(1);
                return None;
            }
            if let Some(ticket) = queues.next(self.most, self.most_per_script) {
                self.gauge(&queues);
                Self::rouse(&mut queues);
                return Some(ticket);
            }
            queues = self.wait(queues);
            queues.rousing = false;
        }
    }

    /// Waits on this thread until it is woken.
    fn wait<'a>(&'a self, mut queues: MutexGuard<'a, Queues>) -> MutexGuard<'a, Queues> {
        let this = std::thread::current();
        let id = this.id();
        queues.waiting_threads.push(this);
        while queues.waiting_threads.iter().any(|waits| waits.id() == id) {
            drop(queues);
            // May return for no reason.
            std::thread::park();
            queues = self.queues();
        }
        queues
    }

    /// Takes it that an execution's handler has returned, and that what is left to do needs no thread.
    /// It gives its place to others, and keeps its lane until it has ended.
    pub(super) fn leave_thread(&self, ticket: &Ticket) {
        self.queues().leave_thread(ticket);
    }

    /// Takes it that an execution has ended, on a script's thread or after it has left it.
    pub(super) fn finish(self: &Arc<Self>, ticket: &Ticket, after: &After, has_thread: bool) {
        match after {
            After::Closed | After::Again(_) | After::Waiting => self.unwritten.settle(ticket.run),
            After::AtOnce | After::Left => {}
        }
        let mut queues = self.queues();
        queues.end(ticket, has_thread);
        match after {
            After::Closed => {
                queues.cancelling.remove(&ticket.run);
                queues.close(ticket);
            }
            // It was asked to end too late for this execution: the next one ends it.
            After::Again(_) if queues.cancelling.contains(&ticket.run) => {
                queues.make_ready(ticket.again());
            }
            After::Again(at) => {
                let key = (*at, ticket.run);
                queues.later.insert(key, ticket.again());
                queues.let_pass(ticket.lane.as_ref());
            }
            After::AtOnce => queues.make_ready(ticket.again()),
            After::Waiting => {
                // Whoever asked for its end finds it waiting, and ends it so.
                queues.cancelling.remove(&ticket.run);
                match &ticket.lane {
                    Some(lane) if lane.is_kept_while_waiting() => {
                        queues.waiting.insert(ticket.run);
                    }
                    Some(_) | None => queues.close(ticket),
                }
            }
            After::Left => {}
        }
        if let Some(ticket) = queues.early.remove(&ticket.run) {
            queues.admit(ticket);
        }
        if queues.stopping {
            self.idle.notify_all();
        }
        // A thread asks for work next, but two runs may have become ready: the one behind in its lane,
        // and one that waited for its script's place.
        let coming = usize::from(has_thread && !std::thread::panicking());
        self.staff_beyond(&mut queues, coming);
    }

    fn gauge(&self, queues: &Queues) {
        let ready = queues.ready.values().map(VecDeque::len).sum::<usize>();
        self.ready.store(ready, Ordering::SeqCst);
        if ready <= BEHIND {
            self.caught_up.notify_waiters();
        }
        let ready = i64::try_from(ready).unwrap_or(i64::MAX);
        self.telemetry.metrics().runs_queued.set(ready);
    }

    /// Takes it that a script's thread ends without asking for work again.
    pub(super) fn lose_thread(&self) {
        let mut queues = self.queues();
        queues.threads = queues.threads.saturating_sub(1);
    }

    pub(super) fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::mpsc;

    use super::super::queues::MOST_ENDING;
    use super::*;
    use crate::domain::id::{Firing, SetHash, TransactionKey};
    use crate::domain::run::{Input, Lane, Run};

    fn limits(per_script: usize) -> Limits {
        Limits {
            operations: 1,
            call_depth: 8,
            string_size: 1,
            array_size: 1,
            map_size: 1,
            timeout: Duration::from_secs(1),
            concurrent_runs: 8,
            concurrent_runs_per_script: per_script,
            catch_up_per_second: 20,
        }
    }

    fn dispatcher(per_script: usize) -> Arc<Dispatcher> {
        let dispatcher = Dispatcher::new(&limits(per_script), Arc::default(), Telemetry::default());
        Arc::new(dispatcher)
    }

    fn ticket(script: &str, event: &str, transaction: &str) -> Ticket {
        let handler = HandlerId {
            script: script.to_owned(),
            name: "h".to_owned(),
        };
        let mut run = Run::queued(
            handler,
            Firing::Event(event.to_owned()),
            Input::Event(event.to_owned()),
            SetHash::of([]),
            // Each of them once.
            format!("{script}{event}")
                .bytes()
                .fold(0, |order, byte| order << 8 | u64::from(byte)),
            Timestamp::UNIX_EPOCH,
        );
        run.lane = Some(Lane::Transaction {
            script: String::new(),
            of: TransactionKey {
                kind: "deposit".to_owned(),
                id: transaction.to_owned(),
            },
        });
        Ticket::of(&run)
    }

    /// A dispatcher whose runs say that they have begun and end when they are told.
    struct Stage {
        dispatcher: Arc<Dispatcher>,
        begun: mpsc::Receiver<String>,
        end: HashMap<&'static str, mpsc::Sender<()>>,
    }

    fn stage(per_script: usize, scripts: [&'static str; 2]) -> Stage {
        let dispatcher = dispatcher(per_script);
        let (begin, started) = mpsc::channel();
        let mut end = HashMap::new();
        let mut ends = HashMap::new();
        for script in scripts {
            let (sender, receiver) = mpsc::channel();
            end.insert(script, sender);
            ends.insert(script.to_owned(), Mutex::new(receiver));
        }
        let begin = Mutex::new(begin);
        dispatcher.start(Arc::new(
            move |dispatcher: Arc<Dispatcher>, ticket: Ticket| {
                let script = &ticket.handler.script;
                begin.lock().unwrap().send(script.clone()).unwrap();
                ends[script].lock().unwrap().recv().unwrap();
                dispatcher.finish(&ticket, &After::Closed, true);
            },
        ));
        Stage {
            dispatcher,
            begun: started,
            end,
        }
    }

    impl Stage {
        fn begun(&self) -> String {
            self.begun
                .recv_timeout(Duration::from_secs(10))
                .expect("a run that could be executed is not")
        }

        /// Until every thread but one waits for work.
        fn until_all_others_wait(&self) {
            loop {
                let queues = self.dispatcher.queues();
                if queues.waiting_threads.len() + 1 == queues.threads {
                    return;
                }
                drop(queues);
                std::thread::yield_now();
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn callbacks_give_way_while_many_runs_are_ready_but_not_for_long() {
        let dispatcher = dispatcher(8);
        let tickets = (0..=BEHIND).map(|at| ticket("s", &at.to_string(), &at.to_string()));
        let mut tickets: Vec<_> = tickets.collect();
        let one_too_many = tickets.pop().unwrap();
        dispatcher.enqueue(Started(tickets));
        let took = async || {
            let begin = tokio::time::Instant::now();
            dispatcher.give_way().await;
            begin.elapsed()
        };
        assert_eq!(took().await, Duration::ZERO);
        dispatcher.enqueue(Started(vec![one_too_many]));
        assert!(took().await >= GIVE_WAY);
        let (took, taken) = tokio::join!(took(), async { dispatcher.take() });
        assert!(taken.is_some());
        assert_eq!(took, Duration::ZERO);
    }

    #[test]
    fn a_run_that_has_returned_gives_up_its_place_but_not_its_lane() {
        let dispatcher = dispatcher(1);
        let tickets = [("1", "one"), ("2", "one"), ("3", "two")];
        let tickets = tickets.map(|(event, of)| ticket("a", event, of));
        dispatcher.enqueue(Started(tickets.to_vec()));
        let next = || dispatcher.queues().next(8, 1).map(|ticket| ticket.run);
        assert_eq!(next(), Some(tickets[0].run));
        assert_eq!(next(), None);
        dispatcher.leave_thread(&tickets[0]);
        assert_eq!(next(), Some(tickets[2].run));
        dispatcher.leave_thread(&tickets[2]);
        assert_eq!(next(), None);
        // It is being executed until its end is on disk: a shutdown waits for it.
        assert!(dispatcher.is_executing(tickets[0].run));
        assert!(!dispatcher.drain(Duration::ZERO));
        dispatcher.finish(&tickets[0], &After::Closed, false);
        assert_eq!(next(), Some(tickets[1].run));
    }

    #[test]
    fn no_run_begins_while_too_many_wait_for_the_disk() {
        let dispatcher = dispatcher(8);
        let tickets = (0..=MOST_ENDING).map(|at| ticket("a", &at.to_string(), &at.to_string()));
        let tickets: Vec<_> = tickets.collect();
        dispatcher.enqueue(Started(tickets.clone()));
        let next = || dispatcher.queues().next(8, 8).map(|ticket| ticket.run);
        for ticket in &tickets[..MOST_ENDING] {
            assert_eq!(next(), Some(ticket.run));
            dispatcher.leave_thread(ticket);
        }
        assert_eq!(next(), None);
        dispatcher.finish(&tickets[0], &After::Closed, false);
        assert_eq!(next(), Some(tickets[MOST_ENDING].run));
    }

    #[test]
    fn a_thread_that_waits_is_woken_and_no_other_one_started() {
        let stage = stage(8, ["a", "b"]);
        for event in ["1", "2", "3"] {
            let next = ticket("a", event, event);
            stage.dispatcher.enqueue(Started(vec![next]));
            assert_eq!(stage.begun(), "a");
            assert_eq!(stage.dispatcher.queues().threads, 1);
            stage.end["a"].send(()).unwrap();
            while stage.dispatcher.queues().waiting_threads.is_empty() {
                std::thread::yield_now();
            }
        }
    }

    #[test]
    fn one_end_that_makes_two_runs_ready_starts_both() {
        let stage = stage(1, ["a", "b"]);
        // The second run of `a` waits for its script's place, that of `b` for its transaction.
        let tickets = [
            ticket("a", "1", "one"),
            ticket("b", "1", "one"),
            ticket("a", "2", "two"),
        ];
        for ticket in tickets {
            stage.dispatcher.enqueue(Started(vec![ticket]));
        }
        assert_eq!(stage.begun(), "a");
        stage.until_all_others_wait();
        stage.end["a"].send(()).unwrap();
        // Neither ends before both have begun.
        let mut begun = [stage.begun(), stage.begun()];
        begun.sort();
        assert_eq!(begun, ["a", "b"]);
        stage.end["a"].send(()).unwrap();
        stage.end["b"].send(()).unwrap();
        assert!(stage.dispatcher.drain(Duration::from_secs(10)));
    }

    #[test]
    fn a_transaction_is_handled_in_order_and_others_meanwhile() {
        let stage = stage(8, ["a", "b"]);
        let tickets = ["1", "2"].map(|event| ticket("a", event, "one"));
        stage.dispatcher.enqueue(Started(tickets.to_vec()));
        assert_eq!(stage.begun(), "a");
        stage
            .dispatcher
            .enqueue(Started(vec![ticket("b", "3", "two")]));
        assert_eq!(stage.begun(), "b");
        assert!(stage.begun.try_recv().is_err());
        stage.end["a"].send(()).unwrap();
        assert_eq!(stage.begun(), "a");
        for script in ["a", "b"] {
            stage.end[script].send(()).unwrap();
        }
        assert!(stage.dispatcher.drain(Duration::from_secs(10)));
        assert_eq!(stage.dispatcher.open_runs(), 0);
    }
}
