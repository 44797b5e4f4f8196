//! The runs that are not closed, and which of them is executed next.
//!
//! Runs of one lane (a script's work on one transaction, one schedule's slots) are executed one after
//! the other in the order accepted; handlers take turns, so that a flood for one does not starve
//! the others; a script and the whole daemon have a limit of runs at once. A run that waits is not
//! here, unless it keeps its lane meanwhile.
//!
//! What is queued here is in the store too; a restart queues it again.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::thread::Thread;

use super::ticket::Ticket;
use crate::domain::clock::Timestamp;
use crate::domain::id::{HandlerId, RunId};
use crate::domain::run::Lane;

/// With more runs whose handlers have returned and that are not on disk yet, none begins: the disk is
/// what they wait for. Many more than one sync makes durable would only fill the memory.
pub(super) const MOST_ENDING: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Queues {
    /// Runs that may be executed, by handler.
    pub(super) ready: BTreeMap<HandlerId, VecDeque<Ticket>>,
    /// Whose turn it is; every handler with something ready is in it once.
    pub(super) turns: VecDeque<HandlerId>,
    /// Runs behind the one of their lane that is queued, executed, retrying or waiting.
    pub(super) lanes: HashMap<Lane, VecDeque<Ticket>>,
    /// Runs that become ready later.
    pub(super) later: BTreeMap<(Timestamp, RunId), Ticket>,
    /// Runs that wait in front of their lane.
    pub(super) waiting: HashSet<RunId>,
    /// Runs that may go on before the thread that executed them last is done with them.
    pub(super) early: HashMap<RunId, Ticket>,
    /// Executions that have not ended.
    pub(super) executing: HashSet<RunId>,
    /// How many of them have returned, and end once that is on disk.
    pub(super) ending: usize,
    /// How many of them have not, by script.
    executing_by_script: HashMap<String, usize>,
    /// Runs of each handler that are not closed, ready or not.
    pub(super) open: HashMap<HandlerId, usize>,
    pub(super) known: HashSet<RunId>,
    /// Runs that are being executed and are to end at their next step.
    pub(super) cancelling: HashSet<RunId>,
    /// Runs that are kept from execution; see `holds`.
    pub(super) held: HashSet<RunId>,
    pub(super) threads: usize,
    /// Threads that wait for work, in the order in which they began to.
    pub(super) waiting_threads: Vec<Thread>,
    /// Whether a waiting thread was woken and has not come yet.
    pub(super) rousing: bool,
    pub(super) stopping: bool,
}

impl Queues {
    pub(super) fn admit(&mut self, ticket: Ticket) {
        if self.held.contains(&ticket.run) {
            return;
        }
        if self.executing.contains(&ticket.run) {
            self.early.insert(ticket.run, ticket);
            return;
        }
        if !self.known.insert(ticket.run) {
            self.go_on(ticket);
            return;
        }
        *self.open.entry(ticket.handler.clone()).or_default() += 1;
        if let Some(lane) = &ticket.lane {
            match self.lanes.get_mut(lane) {
                Some(behind) => {
                    let lane = lane.clone();
                    behind.push_back(ticket);
                    self.let_pass(Some(&lane));
                    return;
                }
                None => {
                    self.lanes.insert(lane.clone(), VecDeque::new());
                }
            }
        }
        self.schedule(ticket);
    }

    /// While the run in front of a lane is to be tried again later, one behind it that comes back
    /// from a wait goes first: it may hold just what the one in front needs, such as a `once`.
    pub(super) fn let_pass(&mut self, lane: Option<&Lane>) {
        let behind = lane.and_then(|lane| self.lanes.get_mut(lane));
        let Some(behind) = behind else { return };
        let Some(place) = behind.iter().position(|ticket| ticket.comes_back) else {
            return;
        };
        let mut retrying = self.later.iter();
        let front = retrying.find(|(_, ticket)| ticket.lane.as_ref() == lane);
        let Some(key) = front.map(|(key, _)| *key) else {
            return;
        };
        if let (Some(mut front), Some(passing)) = (self.later.remove(&key), behind.remove(place)) {
            front.due_at = Some(key.0);
            behind.push_front(front);
            self.schedule(passing);
        }
    }

    /// Takes it that a run that is known waits no longer.
    fn go_on(&mut self, ticket: Ticket) {
        if ticket.waits {
            return;
        }
        if self.waiting.remove(&ticket.run) {
            self.schedule(ticket);
            return;
        }
        let behind = ticket
            .lane
            .as_ref()
            .and_then(|lane| self.lanes.get_mut(lane));
        for other in behind.into_iter().flatten() {
            if other.run == ticket.run {
                other.waits = false;
            }
        }
    }

    fn schedule(&mut self, ticket: Ticket) {
        if ticket.waits {
            self.waiting.insert(ticket.run);
            return;
        }
        match ticket.due_at {
            Some(at) => {
                self.later.insert((at, ticket.run), ticket);
            }
            None => self.make_ready(ticket),
        }
    }

    pub(super) fn make_ready(&mut self, ticket: Ticket) {
        if let Some(ready) = self.ready.get_mut(&ticket.handler) {
            ready.push_back(ticket);
            return;
        }
        self.turns.push_back(ticket.handler.clone());
        let handler = ticket.handler.clone();
        self.ready.insert(handler, VecDeque::from([ticket]));
    }

    pub(super) fn next(&mut self, most: usize, most_per_script: usize) -> Option<Ticket> {
        let on_threads = self.executing.len().saturating_sub(self.ending);
        if on_threads >= most || self.ending >= MOST_ENDING {
            return None;
        }
        for _ in 0..self.turns.len() {
            let handler = self.turns.pop_front()?;
            let Some(ready) = self.ready.get_mut(&handler) else {
                continue;
            };
            let by_script = &mut self.executing_by_script;
            if by_script.get(&handler.script).copied().unwrap_or(0) >= most_per_script {
                self.turns.push_back(handler);
                continue;
            }
            let Some(ticket) = ready.pop_front() else {
                continue;
            };
            *by_script.entry(handler.script.clone()).or_default() += 1;
            if ready.is_empty() {
                self.ready.remove(&handler);
            } else {
                self.turns.push_back(handler);
            }
            self.executing.insert(ticket.run);
            return Some(ticket);
        }
        None
    }

    /// Takes it that the execution's handler has returned: others may be executed in its place.
    pub(super) fn leave_thread(&mut self, ticket: &Ticket) {
        self.ending += 1;
        self.free_place(&ticket.handler);
    }

    /// Takes it that an execution has ended.
    pub(super) fn end(&mut self, ticket: &Ticket, has_thread: bool) {
        self.executing.remove(&ticket.run);
        if has_thread {
            self.free_place(&ticket.handler);
        } else {
            self.ending = self.ending.saturating_sub(1);
        }
    }

    fn free_place(&mut self, handler: &HandlerId) {
        let script = &handler.script;
        if let Some(count) = self.executing_by_script.get_mut(script) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.executing_by_script.remove(script);
            }
        }
    }

    /// Forgets a run whose lane does not wait for it.
    pub(super) fn forget(&mut self, ticket: &Ticket) {
        self.waiting.remove(&ticket.run);
        self.known.remove(&ticket.run);
        if let Some(count) = self.open.get_mut(&ticket.handler) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.open.remove(&ticket.handler);
            }
        }
    }

    pub(super) fn close(&mut self, ticket: &Ticket) {
        self.forget(ticket);
        let Some(lane) = &ticket.lane else { return };
        let next = self.lanes.get_mut(lane).and_then(VecDeque::pop_front);
        match next {
            Some(next) => self.schedule(next),
            None => {
                self.lanes.remove(lane);
            }
        }
    }
}
