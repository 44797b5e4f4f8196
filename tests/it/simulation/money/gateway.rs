//! The model's gateway with its ledger: does what it is asked, twice if it does not know better, and
//! says so badly.

use bursar::domain::payment::Event;

use super::super::chance::Chance;

/// Words for the end of a payment.
const ENDS: [&str; 5] = [
    "confirmed",
    "confirmed",
    "confirmed",
    "cancelled",
    "declined",
];

/// Of so many requests the faults each choose one to strike.
const STRUCK: usize = 3;

/// What goes wrong in a case; requests are counted over all payments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The connection is refused.
    NotSent,
    /// 400: nothing happens.
    Refuse,
    /// 500, 429, or a cut line before it acts.
    ErrorBeforeActing,
    /// It acts; the answer is dropped.
    DropAnswer,
    /// It acts; the answer is a 502.
    BadGateway,
    /// It acts long after the client has stopped waiting.
    Delay,
    /// Look-ups find nothing for a while.
    Blind,
    /// Look-ups are not answered for a while.
    Silent,
    /// It ends, and its callback comes, before the answer.
    CallbackBeforeReply,
    /// Every callback twice.
    CallbackTwice,
    /// Callbacks only when the world is calm.
    CallbackLate,
    /// Callbacks in any order.
    CallbackReordered,
    /// Beside each callback one that somebody else signed, which says something else.
    CallbackForged,
    /// No callback.
    CallbackNever,
}

impl Fault {
    /// Every one.
    pub const ALL: [Self; 14] = [
        Self::NotSent,
        Self::Refuse,
        Self::ErrorBeforeActing,
        Self::DropAnswer,
        Self::BadGateway,
        Self::Delay,
        Self::Blind,
        Self::Silent,
        Self::CallbackBeforeReply,
        Self::CallbackTwice,
        Self::CallbackLate,
        Self::CallbackReordered,
        Self::CallbackForged,
        Self::CallbackNever,
    ];

    pub(super) fn any(chance: &mut Chance) -> Self {
        Self::ALL[chance.below(Self::ALL.len())]
    }

    /// Whether it strikes one request, and not the whole case.
    fn strikes_requests(self) -> bool {
        match self {
            Self::NotSent
            | Self::Refuse
            | Self::ErrorBeforeActing
            | Self::DropAnswer
            | Self::BadGateway
            | Self::Delay
            | Self::CallbackBeforeReply => true,
            Self::Blind
            | Self::Silent
            | Self::CallbackTwice
            | Self::CallbackLate
            | Self::CallbackReordered
            | Self::CallbackForged
            | Self::CallbackNever => false,
        }
    }
}

/// A callback on its way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Callback {
    pub(super) number: usize,
    pub(super) word: &'static str,
    pub(super) is_forged: bool,
}

/// Everything the gateway knows.
#[derive(Debug)]
pub(super) struct Gateway {
    /// By payment: how each of its executions stands.
    pub(super) executions: Vec<Vec<&'static str>>,
    pub(super) rejected: Vec<bool>,
    refuses_repeats: bool,
    faults: [Fault; 2],
    /// The requests that the faults strike.
    struck: [usize; 2],
    requests: usize,
    /// Requests that are still on their way.
    delayed: Vec<usize>,
    callbacks: Vec<Callback>,
    /// Whether nothing of the faults is left.
    is_calm: bool,
    is_silent: bool,
}

impl Gateway {
    pub(super) fn new(
        payments: usize,
        refuses_repeats: bool,
        faults: [Fault; 2],
        chance: &mut Chance,
    ) -> Self {
        Self {
            executions: vec![Vec::new(); payments],
            rejected: vec![false; payments],
            refuses_repeats,
            faults,
            struck: [chance.below(STRUCK), chance.below(STRUCK)],
            requests: 0,
            delayed: Vec::new(),
            callbacks: Vec::new(),
            is_calm: false,
            is_silent: false,
        }
    }

    fn has(&self, fault: Fault) -> bool {
        !self.is_calm && self.faults.contains(&fault)
    }

    /// Takes a request and says what becomes of its answer.
    pub(super) fn send(&mut self, number: usize, chance: &mut Chance) -> Event {
        let request = self.requests;
        self.requests += 1;
        let mut faults = self.faults.iter().zip(self.struck);
        let fault = faults
            .find(|(fault, struck)| *struck == request && fault.strikes_requests())
            .map(|(fault, _)| *fault)
            .filter(|_| !self.is_calm);
        match fault {
            Some(Fault::NotSent) => return Event::NotSent,
            Some(Fault::Refuse) => {
                self.rejected[number] = true;
                return Event::Rejected;
            }
            Some(Fault::ErrorBeforeActing) => return Event::AnswerLost,
            Some(Fault::Delay) => {
                self.delayed.push(number);
                return Event::AnswerLost;
            }
            _ => {}
        }
        let answer = self.execute(number);
        match fault {
            Some(Fault::DropAnswer | Fault::BadGateway) => Event::AnswerLost,
            Some(Fault::CallbackBeforeReply) => {
                self.end(number, chance);
                answer
            }
            _ => answer,
        }
    }

    fn execute(&mut self, number: usize) -> Event {
        if self.refuses_repeats && !self.executions[number].is_empty() {
            return Event::KeyTaken;
        }
        self.executions[number].push("processing");
        Event::Accepted
    }

    /// The word for a payment, `None` when it is not found; nothing at all when there is no answer.
    #[expect(
        clippy::option_option,
        reason = "no answer is another thing than an answer that says no"
    )]
    pub(super) fn look_up(&self, number: usize) -> Option<Option<&'static str>> {
        if self.has(Fault::Silent) || self.is_silent {
            return None;
        }
        let word = self.executions[number].first().copied();
        Some(word.filter(|_| !self.has(Fault::Blind)))
    }

    /// Something happens there by itself.
    pub(super) fn go_on(&mut self, chance: &mut Chance) {
        if chance.per_mille(300) && !self.delayed.is_empty() {
            let number = self.delayed.remove(0);
            self.execute(number);
        }
        let number = chance.below(self.executions.len());
        if chance.per_mille(200) && self.executions[number].first() == Some(&"processing") {
            self.executions[number][0] = "pending";
            self.call_back(number, "pending");
        } else {
            self.end(number, chance);
        }
    }

    /// Requests arrive, everything ends, and nothing goes wrong from here on.
    pub(super) fn calm_down(&mut self, chance: &mut Chance) {
        self.is_calm = true;
        for number in std::mem::take(&mut self.delayed) {
            self.execute(number);
        }
        for number in 0..self.executions.len() {
            self.end(number, chance);
        }
    }

    fn end(&mut self, number: usize, chance: &mut Chance) {
        for execution in 0..self.executions[number].len() {
            if !ENDS.contains(&self.executions[number][execution]) {
                let word = ENDS[chance.below(ENDS.len())];
                self.executions[number][execution] = word;
                self.call_back(number, word);
            }
        }
    }

    fn call_back(&mut self, number: usize, word: &'static str) {
        if self.has(Fault::CallbackNever) || self.is_silent {
            return;
        }
        let callback = Callback {
            number,
            word,
            is_forged: false,
        };
        self.callbacks.push(callback);
        if self.has(Fault::CallbackTwice) {
            self.callbacks.push(callback);
        }
        if self.has(Fault::CallbackForged) {
            let word = if word == "confirmed" {
                "cancelled"
            } else {
                "confirmed"
            };
            self.callbacks.push(Callback {
                number,
                word,
                is_forged: true,
            });
        }
    }

    /// A callback that arrives now.
    pub(super) fn callback(&mut self, chance: &mut Chance) -> Option<Callback> {
        if self.callbacks.is_empty() || self.has(Fault::CallbackLate) {
            return None;
        }
        let reordered = self.has(Fault::CallbackReordered);
        let index = if reordered {
            chance.below(self.callbacks.len())
        } else {
            0
        };
        Some(self.callbacks.remove(index))
    }

    pub(super) fn has_callbacks(&self) -> bool {
        !self.callbacks.is_empty()
    }

    /// Nothing is heard from it any more, neither callbacks nor answers to look-ups.
    pub(super) fn say_nothing(&mut self) {
        self.is_silent = true;
        self.callbacks.clear();
    }
}
