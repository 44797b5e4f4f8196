//! The model's daemon: as little of the money path as is needed to ask the pure parts for every
//! decision, in the order of commits, sends and records that the real one keeps.

use bursar::domain::payment::{Event, NextStep, Payment, Reported, State, next_step};

use super::{Broken, Crash, Finding, Model, PATIENCE, PLANNED};

impl Model {
    /// A place at which the process may die.
    fn place(&mut self) -> Result<(), Crash> {
        self.places += 1;
        if !self.calm && self.places == self.setting.crash_at {
            return Err(Crash);
        }
        Ok(())
    }

    fn state(&self, number: usize) -> Option<State> {
        self.disk.payments[number]
            .as_ref()
            .map(|payment| payment.state)
    }

    pub(super) fn ask_for_any(&mut self) -> Result<(), Crash> {
        let number = self.chance.below(self.setting.amounts.len());
        self.ask_for(number)
    }

    /// A script asks for a payment, perhaps not for the first time.
    pub(super) fn ask_for(&mut self, number: usize) -> Result<(), Crash> {
        match self.state(number) {
            None => self.decide(number)?,
            Some(State::Intended) => return self.go_on_with(number),
            Some(_) => {
                self.seen.asked_again += 1;
                return Ok(());
            }
        }
        self.drive(number)
    }

    /// Policy's answer, the reservation and the intent are one commit.
    fn decide(&mut self, number: usize) -> Result<(), Crash> {
        let amount = self.setting.amounts[number];
        let event = if self.disk.reserved.iter().sum::<u64>() + amount > self.setting.cap {
            Event::Refused
        } else if amount > self.setting.approve_above {
            Event::ApprovalNeeded
        } else {
            Event::Allowed
        };
        let mut planned = PLANNED[number].clone();
        planned.apply(event, None, self.now).unwrap();
        self.place()?;
        self.seen.state(planned.state);
        if event != Event::Refused {
            self.disk.reserved[number] = amount;
        }
        self.disk.payments[number] = Some(planned);
        self.audit();
        self.place()
    }

    /// Moves a payment on in one commit. An event that cannot happen any more changes nothing.
    fn record(&mut self, number: usize, event: Event) -> Result<(), Crash> {
        self.place()?;
        let now = self.now;
        let Some(payment) = &mut self.disk.payments[number] else {
            self.finding.get_or_insert(Finding::Unrecorded(number));
            return Ok(());
        };
        if payment.apply(event, None, now).is_err() {
            // A callback came between the look at the state and the mark, or between a request that
            // was sent again and the record of its answer: what it said stands, and is right.
            let overtaken = [Event::SendStarted, Event::NotSent, Event::KeyTaken];
            let is_overtaken = overtaken.contains(&event);
            if !is_overtaken {
                let alarm = Finding::FalseAlarm(payment.state, event);
                self.finding.get_or_insert(alarm);
            }
            return Ok(());
        }
        let state = payment.state;
        self.seen.state(state);
        self.release(number, state);
        self.audit();
        self.place()
    }

    /// Gives back what a payment took, in the commit that ends it without money.
    fn release(&mut self, number: usize, state: State) {
        let is_free = state.is_final() && state != State::Confirmed;
        let too_soon =
            self.setting.broken == Some(Broken::ReleasesWhatIsUnknown) && state == State::Unknown;
        let never = self.setting.broken == Some(Broken::ReleasesNothing);
        if (is_free || too_soon) && !never {
            self.disk.reserved[number] = 0;
        }
    }

    /// Performs steps until somebody else has to do something.
    fn drive(&mut self, number: usize) -> Result<(), Crash> {
        for _ in 0..4 {
            let Some(state) = self.state(number) else {
                return Ok(());
            };
            match next_step(state) {
                NextStep::Send if self.disk.is_paused => return Ok(()),
                NextStep::Send => self.send(number)?,
                NextStep::LookUp => return self.look_up(number),
                NextStep::Decide
                | NextStep::WaitForApproval
                | NextStep::WaitForCallback
                | NextStep::WaitForPerson
                | NextStep::Done => return Ok(()),
            }
        }
        Ok(())
    }

    /// The mark is on disk before the request leaves, and the answer after it.
    fn send(&mut self, number: usize) -> Result<(), Crash> {
        self.perhaps_deliver()?;
        if self.setting.broken == Some(Broken::SendsBeforeTheMark) {
            let answer = self.gateway.send(number, &mut self.chance);
            self.audit();
            self.record(number, Event::SendStarted)?;
            return self.record(number, answer);
        }
        self.record(number, Event::SendStarted)?;
        if self.state(number) != Some(State::Sending) {
            return Ok(());
        }
        self.seen.sends += 1;
        let answer = self.gateway.send(number, &mut self.chance);
        self.audit();
        self.place()?;
        self.perhaps_deliver()?;
        self.seen.keys_taken += usize::from(answer == Event::KeyTaken);
        if answer == Event::Rejected && self.was_resent(number) {
            return self.refused_again(number);
        }
        self.record(number, answer)
    }

    /// Whether a request may have left before this one.
    fn was_resent(&self, number: usize) -> bool {
        let payment = self.disk.payments[number].as_ref();
        let story = payment.into_iter().flat_map(|payment| &payment.story);
        story
            .rev()
            .take_while(|line| line.event != Event::SaidNotSent)
            .any(|line| line.event == Event::Resend)
    }

    /// A refusal says nothing about the request before the one that is refused: a person must look.
    fn refused_again(&mut self, number: usize) -> Result<(), Crash> {
        if self.setting.broken == Some(Broken::BelievesARefusedResend) {
            return self.record(number, Event::Rejected);
        }
        self.seen.refused_again += 1;
        self.record(number, Event::AnswerLost)?;
        if self.state(number) == Some(State::Unknown) {
            self.record(number, Event::GaveUp)?;
        }
        Ok(())
    }

    fn perhaps_deliver(&mut self) -> Result<(), Crash> {
        if self.chance.per_mille(300) {
            self.deliver()?;
        }
        Ok(())
    }

    /// Asks the gateway. One "not found" proves nothing.
    fn look_up(&mut self, number: usize) -> Result<(), Crash> {
        let trusts = self.setting.broken == Some(Broken::TrustsNotFound);
        let is_unknown = matches!(self.state(number), Some(State::Unknown));
        match self.gateway.look_up(number) {
            None => Ok(()),
            Some(Some(word)) => self.record(number, Event::Reported(Reported::from_word(word))),
            Some(None) if trusts && is_unknown => self.record(number, Event::SaidNotSent),
            Some(None) => self.record(number, Event::NotFound),
        }
    }

    pub(super) fn sweep_any(&mut self) -> Result<(), Crash> {
        let number = self.chance.below(self.setting.amounts.len());
        self.go_on_with(number)
    }

    /// What the sweep does about one payment, and the start about each.
    pub(super) fn go_on_with(&mut self, number: usize) -> Result<(), Crash> {
        let Some(state) = self.state(number) else {
            return Ok(());
        };
        if state.is_final() || state == State::AwaitingApproval {
            return Ok(());
        }
        self.look_up(number)?;
        if self.is_given_up(number) {
            if self.setting.resends {
                self.seen.resends += 1;
                self.record(number, Event::Resend)?;
            } else {
                self.record(number, Event::GaveUp)?;
            }
        }
        if self.state(number) == Some(State::Intended) {
            self.drive(number)?;
        }
        Ok(())
    }

    fn is_given_up(&self, number: usize) -> bool {
        let since = self.disk.payments[number]
            .as_ref()
            .and_then(Payment::unknown_since);
        since.is_some_and(|since| self.now - since >= PATIENCE)
    }

    /// A callback arrives, if one is under way. What others have signed is not taken.
    pub(super) fn deliver(&mut self) -> Result<(), Crash> {
        let Some(callback) = self.gateway.callback(&mut self.chance) else {
            return Ok(());
        };
        if callback.is_forged {
            self.seen.forged += 1;
            return Ok(());
        }
        self.seen.callbacks += 1;
        let reported = Reported::from_word(callback.word);
        self.record(callback.number, Event::Reported(reported))
    }

    pub(super) fn approve_any(&mut self) -> Result<(), Crash> {
        let number = self.chance.below(self.setting.amounts.len());
        self.approve(number)
    }

    /// People approve or refuse what waits for them.
    pub(super) fn approve(&mut self, number: usize) -> Result<(), Crash> {
        if self.state(number) != Some(State::AwaitingApproval) {
            return Ok(());
        }
        let approved = self.chance.per_mille(700);
        let event = if approved {
            Event::Approved
        } else {
            Event::Refused
        };
        self.record(number, event)?;
        self.drive(number)
    }

    /// A person looks into the gateway's own pages, now that nothing is under way any more.
    pub(super) fn resolve(&mut self, number: usize) -> Result<(), Crash> {
        if self.state(number) != Some(State::Held) || !self.chance.per_mille(500) {
            return Ok(());
        }
        self.seen.resolved += 1;
        if self.gateway.executions[number].is_empty() {
            self.record(number, Event::SaidNotSent)?;
            self.drive(number)
        } else {
            self.record(number, Event::SaidSent)
        }
    }
}
