//! What the payment journal says of a payment: one line for every step, and the payment that the
//! lines together are. Pure: the store numbers, chains and keeps the lines.
//!
//! # Design
//! The first line of a payment holds everything, every later one all that can still change. So a
//! later line needs no knowledge of the one before it, and a field that a payment gets in some
//! later release is in the journal without anybody remembering to put it there.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};

use super::record::{Payment, Reply, StoryLine, add_line};
use super::state::{Event, State};
use crate::domain::clock::Timestamp;
use crate::domain::id::ForeignId;

/// What never changes after a payment's first line.
const LASTING: [&str; 5] = [
    "foreign_id",
    "content",
    "fingerprint",
    "origin",
    "created_at",
];
/// What changes only with an event that decides.
const DECISION: &str = "decision";
const STORY: &str = "story";

/// One line of the payment journal, without its place in the chain. `Fields` is what holds the
/// payment: JSON text when it is written, which need not be understood for that.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line<Fields = Map<String, Value>> {
    /// When it happened.
    pub at: Timestamp,
    /// The payment's key.
    pub foreign_id: ForeignId,
    /// What happened; `None` when something was noted about the payment.
    pub event: Option<Event>,
    /// The state afterwards.
    pub state: State,
    /// In the gateway's or the network's words, if there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// What came back, when this is what an attempt came to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<Reply>,
    /// The payment: all of it in its first line, what can change in later ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payment: Option<Fields>,
}

/// Why lines are no payment.
#[derive(Debug, thiserror::Error)]
pub enum Unfoldable {
    /// The payment's first line is not there.
    #[error("the line in which the payment begins is missing")]
    NoBeginning,
    /// What they say together is no payment.
    #[error("the lines together are no payment: {0}")]
    Malformed(#[from] serde_json::Error),
}

/// What is written of a payment that is told.
#[derive(Debug)]
pub struct Told {
    /// Its lines, one at least.
    pub lines: Vec<Line<Box<RawValue>>>,
    /// The payment as JSON, as it is to be kept from now on.
    pub payment: Box<RawValue>,
}

/// The lines for everything that has happened to a payment since it was last told; it counts as told
/// from now on. One line that says what changed if nothing has happened.
///
/// # Errors
/// When the payment cannot be written as JSON.
pub fn tell(payment: &mut Payment) -> Result<Told, serde_json::Error> {
    let is_new = payment.told == 0;
    let untold = (payment.events + 1).saturating_sub(payment.told.max(1));
    let untold = usize::try_from(untold).unwrap_or(usize::MAX);
    payment.told = payment.events.saturating_add(1);
    let payment = &*payment;
    let (told, news) = payment
        .story
        .split_at(payment.story.len().saturating_sub(untold));
    let line = |event, story: &StoryLine| Line {
        at: story.at,
        foreign_id: payment.foreign_id.clone(),
        event,
        state: story.state,
        note: story.note.clone(),
        reply: story.reply.clone(),
        payment: None,
    };
    let mut lines: Vec<_> = news
        .iter()
        .map(|news| line(Some(news.event), news))
        .collect();
    if lines.is_empty() {
        lines.push(Line {
            at: payment.updated_at,
            foreign_id: payment.foreign_id.clone(),
            event: None,
            state: payment.state,
            note: None,
            reply: None,
            payment: None,
        });
    }
    let whole = to_raw_value(payment)?;
    let told = to_raw_value(told)?;
    // Only the names are looked at, the values stay text.
    let mut fields: BTreeMap<&str, &RawValue> = serde_json::from_str(whole.get())?;
    if is_new {
        fields.insert(STORY, &told);
        if told.get() == "[]" {
            fields.remove(STORY);
        }
        if let Some(first) = lines.first_mut() {
            first.payment = Some(to_raw_value(&fields)?);
        }
    } else {
        let decides = lines.iter().any(|line| line.event.is_none_or(is_decision));
        fields.retain(|name, value| {
            let repeats = LASTING.contains(name) || *name == STORY;
            !repeats && value.get() != "null" && (decides || *name != DECISION)
        });
        if let Some(last) = lines.last_mut() {
            last.payment = Some(to_raw_value(&fields)?);
        }
    }
    Ok(Told {
        lines,
        payment: whole,
    })
}

/// The payment that its lines, in their order, are.
///
/// # Errors
/// [`Unfoldable`]
pub fn fold(lines: impl IntoIterator<Item = Line>) -> Result<Payment, Unfoldable> {
    let mut fields: Option<Map<String, Value>> = None;
    let mut story = Vec::new();
    let mut state = None;
    for line in lines {
        match (line.payment, &mut fields) {
            (Some(mut first), _) if first.contains_key("content") => {
                let earlier = first.remove(STORY);
                story = earlier.map_or_else(|| Ok(Vec::new()), serde_json::from_value)?;
                fields = Some(first);
            }
            (Some(later), Some(fields)) => {
                fields.retain(|name, _| LASTING.contains(&name.as_str()) || name == DECISION);
                fields.extend(later);
            }
            (None, Some(_)) => {}
            (_, None) => return Err(Unfoldable::NoBeginning),
        }
        state = Some(line.state);
        if let Some(event) = line.event {
            let line = StoryLine {
                at: line.at,
                event,
                state: line.state,
                note: line.note,
                reply: line.reply,
            };
            add_line(&mut story, line);
        }
    }
    let mut fields = fields.ok_or(Unfoldable::NoBeginning)?;
    fields.insert(STORY.into(), serde_json::to_value(story)?);
    let mut payment: Payment = serde_json::from_value(fields.into())?;
    payment.state = state.unwrap_or(payment.state);
    Ok(payment)
}

/// Whether policy or people speak in this event.
const fn is_decision(event: Event) -> bool {
    match event {
        Event::Allowed
        | Event::ApprovalNeeded
        | Event::Approved
        | Event::Refused
        | Event::SaidSent
        | Event::SaidNotSent => true,
        Event::SendStarted
        | Event::NotSent
        | Event::Accepted
        | Event::Rejected
        | Event::KeyTaken
        | Event::AnswerLost
        | Event::Reported(_)
        | Event::NotFound
        | Event::NotOurs
        | Event::Resend
        | Event::GaveUp => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::domain::id::{HandlerId, RunId};
    use crate::domain::operation::Operation;
    use crate::domain::payment::{Content, Origin, Reported};
    use crate::domain::policy::{Decision, Verdict};

    fn planned() -> Payment {
        let content = Content::new(Operation::Withdraw, r#"{"amount":"0.10"}"#.into());
        let handler = HandlerId {
            script: "pay".into(),
            name: "daily".into(),
        };
        let origin = Origin {
            run: RunId::new(7),
            handler,
            step: 2,
            file: "pay.rhai".into(),
            line: 4,
            set: "abc".into(),
        };
        let mut payment = Payment::planned("order".parse().unwrap(), content, origin, at(0));
        payment.decision = Some(Decision {
            verdict: Verdict::Allow,
            by: "otherwise".into(),
            reasons: Vec::new(),
        });
        payment
    }

    fn at(second: i64) -> Timestamp {
        chrono::DateTime::from_timestamp(1_800_000_000 + second, 5_000_000).unwrap()
    }

    /// What else a step changes.
    fn change(payment: &mut Payment, kind: u8, number: i64) {
        match kind {
            0 => payment.gateway_id = Some(number.to_string()),
            1 => payment.answer = serde_json::from_str(r#"{"id":5,"fee":0.10}"#).unwrap(),
            2 => payment.error = Some("no".into()),
            3 => payment.error = None,
            4 => payment.errors = [("amount".to_owned(), "too small".to_owned())].into(),
            5 => payment.note_reply(Some(201), Some("{}")),
            _ => {}
        }
    }

    /// The lines as they are read.
    fn read(told: &[Line<Box<RawValue>>]) -> Vec<Line> {
        let text = told.iter().map(|line| serde_json::to_string(line).unwrap());
        text.map(|line| serde_json::from_str(&line).unwrap())
            .collect()
    }

    const EVENTS: [Event; 8] = [
        Event::Allowed,
        Event::SendStarted,
        Event::NotSent,
        Event::AnswerLost,
        Event::NotFound,
        Event::Accepted,
        Event::Reported(Reported::Open),
        Event::Reported(Reported::Confirmed),
    ];

    proptest! {
        /// Whatever happens, in whatever portions it is told: the lines are the payment.
        #[test]
        fn the_lines_together_are_the_payment(
            steps in vec((0..EVENTS.len(), 0_u8..8, any::<bool>()), 1..150),
        ) {
            let mut payment = planned();
            let mut told = Vec::new();
            for (second, (event, kind, now)) in (0..).zip(steps) {
                let applied =
                    payment.apply(EVENTS[event], Some(format!("{second}")), at(second));
                // A reply is noted with the event that it is the answer to.
                if applied.is_ok() || kind != 5 {
                    change(&mut payment, kind, second);
                }
                // A commit holds one event, sometimes two.
                if now || payment.events + 1 >= payment.told + 2 {
                    told.extend(tell(&mut payment).unwrap().lines);
                }
            }
            told.extend(tell(&mut payment).unwrap().lines);
            prop_assert_eq!(fold(read(&told)).unwrap(), payment);
        }
    }

    #[test]
    fn a_payment_from_before_the_journal_begins_there_with_what_it_has() {
        let mut payment = planned();
        payment.apply(Event::Allowed, None, at(1)).unwrap();
        payment.events = 0;
        payment.apply(Event::SendStarted, None, at(2)).unwrap();
        let lines = tell(&mut payment).unwrap().lines;
        assert_eq!(lines.len(), 1);
        assert_eq!(fold(read(&lines)).unwrap(), payment);
        assert_eq!(payment.story.len(), 2);
    }

    /// A payment that is decided about and marked in one commit has two first lines, and of an append
    /// that nobody was told of the second may be missing.
    #[test]
    fn the_first_of_two_lines_is_a_payment_that_has_not_been_marked() {
        let mut payment = planned();
        payment.apply(Event::Allowed, None, at(1)).unwrap();
        payment.apply(Event::SendStarted, None, at(1)).unwrap();
        let lines = read(&tell(&mut payment).unwrap().lines);
        assert_eq!(lines.len(), 2);
        let first = fold(lines[..1].iter().cloned()).unwrap();
        assert_eq!((first.state, first.story.len()), (State::Intended, 1));
        assert_eq!(fold(lines).unwrap(), payment);
    }

    #[test]
    fn a_later_line_does_not_repeat_what_cannot_change() {
        let mut payment = planned();
        payment.apply(Event::Allowed, None, at(1)).unwrap();
        let first = read(&tell(&mut payment).unwrap().lines);
        payment.apply(Event::SendStarted, None, at(2)).unwrap();
        let second = read(&tell(&mut payment).unwrap().lines);
        assert!(first[0].payment.as_ref().unwrap().contains_key("content"));
        let later = json!(second[0].payment);
        for name in LASTING.into_iter().chain([DECISION, STORY]) {
            assert_eq!(later.get(name), None, "{name}");
        }
        assert!(matches!(fold(second), Err(Unfoldable::NoBeginning)));
    }
}
