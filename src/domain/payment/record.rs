//! One payment as it is kept: what was asked for, where it stands and how it came there.

use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::state::{Event, IllegalTransition, State, next};
use crate::domain::approval::Approval;
use crate::domain::clock::Timestamp;
use crate::domain::id::{ForeignId, HandlerId, RunId};
use crate::domain::operation::Operation;
use crate::domain::policy::Decision;

/// What is asked of the gateway: an operation and the exact body, which is signed and sent as it
/// stands here.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Content {
    /// The operation.
    pub operation: Operation,
    /// The JSON body, byte for byte. Amounts in it are canonical, its keys are sorted.
    body: String,
    /// The body's fields, once somebody has asked for them.
    #[serde(skip)]
    fields: OnceLock<Arc<Value>>,
}

impl PartialEq for Content {
    fn eq(&self, other: &Self) -> bool {
        self.operation == other.operation && self.body == other.body
    }
}

impl Eq for Content {}

/// The first field in which two contents differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The field, or `operation`.
    pub field: String,
    /// Its recorded value as JSON, or `nothing`.
    pub recorded: String,
    /// Its value as JSON now, or `nothing`.
    pub now: String,
}

impl Content {
    /// An operation with the JSON body that is sent.
    #[must_use]
    pub const fn new(operation: Operation, body: String) -> Self {
        Self {
            operation,
            body,
            fields: OnceLock::new(),
        }
    }

    /// The JSON body, byte for byte. Amounts in it are canonical, its keys are sorted.
    #[must_use]
    pub fn body(&self) -> &str {
        &self.body
    }

    /// SHA-256 of operation and body, in hex. Compared before every send with what was intended.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let mut hasher = Sha256::new();
        hasher.update(self.operation.name());
        hasher.update([0]);
        hasher.update(&self.body);
        hex::encode(hasher.finalize())
    }

    /// The body as JSON; null when it is none. Read once, for all copies made afterwards too.
    #[must_use]
    pub fn fields(&self) -> &Value {
        let read = || Arc::new(serde_json::from_str(&self.body).unwrap_or(Value::Null));
        self.fields.get_or_init(read)
    }

    /// Where this content and what is asked for `now` differ first; `None` when they are the same
    /// payment.
    #[must_use]
    pub fn difference(&self, now: &Self) -> Option<Difference> {
        if self == now {
            return None;
        }
        if self.operation != now.operation {
            return Some(Difference {
                field: "operation".into(),
                recorded: self.operation.name().into(),
                now: now.operation.name().into(),
            });
        }
        let (old, new) = (self.fields(), now.fields());
        let keys = |value: &Value| -> std::collections::BTreeSet<String> {
            value
                .as_object()
                .map(|object| object.keys().cloned().collect())
                .unwrap_or_default()
        };
        let show = |value: Option<&Value>| value.map_or_else(|| "nothing".into(), Value::to_string);
        keys(old)
            .union(&keys(new))
            .find(|key| old.get(key.as_str()) != new.get(key.as_str()))
            .map(|key| Difference {
                field: key.clone(),
                recorded: show(old.get(key.as_str())),
                now: show(new.get(key.as_str())),
            })
            .or_else(|| {
                Some(Difference {
                    field: "body".into(),
                    recorded: self.body.clone(),
                    now: now.body.clone(),
                })
            })
    }
}

/// Who asked for a payment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The run.
    pub run: RunId,
    /// Its handler.
    pub handler: HandlerId,
    /// The step in the run's journal, from 0.
    pub step: u64,
    /// The script's file below the scripts folder, with `.rhai`.
    pub file: String,
    /// The line in it, from 1.
    pub line: usize,
    /// The script set the run is pinned to.
    pub set: String,
}

/// One line of a payment's story.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoryLine {
    /// When it was recorded.
    pub at: Timestamp,
    /// What happened.
    pub event: Event,
    /// The state afterwards.
    pub state: State,
    /// In the gateway's or the network's words, if there are any.
    pub note: Option<String>,
    /// What came back, when this is what an attempt came to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<Reply>,
}

/// What came back on an attempt: as much as people need to see, and no personal data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The status, when at least that arrived and is known.
    pub status: Option<u16>,
    /// The body as it was understood, masked and cut; `None` when nothing usable came, or when the
    /// story is too long to hold it.
    pub body: Option<String>,
}

/// A payment with its key and story.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Payment {
    /// Its key.
    pub foreign_id: ForeignId,
    /// What is asked of the gateway.
    pub content: Content,
    /// [`Content::fingerprint`] at the time of the decision.
    pub fingerprint: String,
    /// Who asked for it.
    pub origin: Origin,
    /// What policy said about it; `None` for payments from before there was one.
    #[serde(default)]
    pub decision: Option<Decision>,
    /// Who approved of it; what is approved is the content with this fingerprint.
    #[serde(default)]
    pub approvals: Vec<Approval>,
    /// The batch plan it was approved with.
    #[serde(default)]
    pub plan: Option<String>,
    /// Where it stands.
    pub state: State,
    /// The gateway's id, as text.
    pub gateway_id: Option<String>,
    /// The gateway's last answer or report about it.
    pub answer: Option<Value>,
    /// Why it did not go through, in the gateway's words.
    pub error: Option<String>,
    /// The gateway's validation messages by field, when it was rejected.
    pub errors: std::collections::BTreeMap<String, String>,
    /// When it was decided.
    pub created_at: Timestamp,
    /// When the record last changed.
    pub updated_at: Timestamp,
    /// How often it was sent. Above one only after requests that certainly never left, and after
    /// resends.
    pub attempts: u32,
    /// How often a look-up did not find it since it was last sent or heard of.
    pub look_ups: u32,
    /// How often it was sent again although its fate was unknown. While this is not zero, a refusal
    /// of the request proves nothing about the earlier ones.
    #[serde(default)]
    pub resends: u32,
    /// Whether the gateway said that the key is taken: it is ours only if a look-up proves it.
    #[serde(default)]
    pub key_taken: bool,
    /// What happened, oldest first.
    pub story: Vec<StoryLine>,
    /// How many events there have been: also those whose line in the story was replaced.
    #[serde(default)]
    pub events: u64,
    /// One more than there are of them in the payment journal; 0 before its first line there.
    #[serde(default)]
    pub told: u64,
}

/// Repetitive events beyond this many lines replace the last line instead of adding one.
const STORY_LIMIT: usize = 64;
/// Characters of a reply that are kept.
const REPLY_CHARS: usize = 1000;
/// Bytes of replies in a story beyond which no further ones are kept.
const REPLIES_BYTES: usize = 6000;

/// Adds a line to a story that is kept short.
pub(super) fn add_line(story: &mut Vec<StoryLine>, line: StoryLine) {
    if story.len() >= STORY_LIMIT {
        story.pop();
    }
    story.push(line);
}

impl Payment {
    /// A payment that has only been asked for.
    #[must_use]
    pub fn planned(foreign_id: ForeignId, content: Content, origin: Origin, at: Timestamp) -> Self {
        Self {
            fingerprint: content.fingerprint(),
            foreign_id,
            content,
            origin,
            decision: None,
            approvals: Vec::new(),
            plan: None,
            state: State::Planned,
            gateway_id: None,
            answer: None,
            error: None,
            errors: std::collections::BTreeMap::new(),
            created_at: at,
            updated_at: at,
            attempts: 0,
            look_ups: 0,
            resends: 0,
            key_taken: false,
            story: Vec::new(),
            events: 0,
            told: 0,
        }
    }

    /// Moves the payment on and adds a line to its story.
    ///
    /// # Errors
    /// [`IllegalTransition`]: the payment is unchanged.
    pub fn apply(
        &mut self,
        event: Event,
        note: Option<String>,
        at: Timestamp,
    ) -> Result<(), IllegalTransition> {
        self.state = next(self.state, event)?;
        match event {
            Event::SendStarted => {
                self.attempts = self.attempts.saturating_add(1);
                self.look_ups = 0;
            }
            Event::NotFound => self.look_ups = self.look_ups.saturating_add(1),
            Event::Reported(_) | Event::Accepted => self.look_ups = 0,
            Event::Resend => self.resends = self.resends.saturating_add(1),
            // Unless a callback was faster: then there is nothing left to prove.
            Event::KeyTaken => self.key_taken = self.state == State::Unknown,
            // A person vouches for what went before: it starts anew.
            Event::SaidNotSent => {
                self.resends = 0;
                self.key_taken = false;
            }
            Event::Allowed
            | Event::ApprovalNeeded
            | Event::Approved
            | Event::Refused
            | Event::NotSent
            | Event::Rejected
            | Event::NotOurs
            | Event::AnswerLost
            | Event::GaveUp
            | Event::SaidSent => {}
        }
        self.updated_at = at;
        self.events = self.events.saturating_add(1);
        add_line(
            &mut self.story,
            StoryLine {
                at,
                event,
                state: self.state,
                note,
                reply: None,
            },
        );
        Ok(())
    }

    /// Adds what came back to the last line of the story. The body is cut when it is long, and left
    /// out when the story holds much already: the record must stay small.
    pub fn note_reply(&mut self, status: Option<u16>, body: Option<&str>) {
        let held: usize = self
            .story
            .iter()
            .filter_map(|line| line.reply.as_ref()?.body.as_ref())
            .map(String::len)
            .sum();
        let body = body
            .filter(|_| held < REPLIES_BYTES)
            .map(|body| body.chars().take(REPLY_CHARS).collect());
        if let Some(line) = self.story.last_mut() {
            line.reply = Some(Reply { status, body });
        }
    }

    /// Since when nobody knows whether the gateway has it.
    #[must_use]
    pub fn unknown_since(&self) -> Option<Timestamp> {
        (self.state == State::Unknown)
            .then(|| {
                self.story
                    .iter()
                    .rev()
                    .take_while(|line| line.state == State::Unknown)
                    .last()
                    .map(|line| line.at)
            })
            .flatten()
    }

    /// The amount as a JSON number and its currency, as asked for: of the two amounts a request
    /// with conversion can name, the one that was given.
    #[must_use]
    pub fn amount(&self) -> Option<(Value, String)> {
        let fields = self.content.fields();
        let pairs = [
            ("amount", "currency"),
            ("amount_to", "convert_to"),
            ("sender_amount", "sender_currency"),
            ("receiver_amount", "receiver_currency"),
        ];
        pairs.into_iter().find_map(|(amount, currency)| {
            let amount = crate::domain::money::decimal_from_json(fields.get(amount)?).ok()?;
            let currency = fields.get(currency)?;
            let currency = currency
                .as_str()
                .or_else(|| currency.get("iso")?.as_str())?;
            let currency = currency.to_owned();
            Some((crate::domain::money::json_from_decimal(amount), currency))
        })
    }

    /// The payment as scripts, the command line and the API see it.
    #[must_use]
    pub fn view(&self) -> Value {
        let (amount, currency) = self
            .amount()
            .map_or((Value::Null, Value::Null), |(amount, currency)| {
                (amount, Value::String(currency))
            });
        let mut view = serde_json::json!({
            "foreign_id": self.foreign_id,
            "kind": self.content.operation.name(),
            "status": self.state.as_str(),
            "is_final": self.state.is_final(),
            "id": self.gateway_id,
            "amount": amount,
            "currency": currency,
            "error": self.error,
        });
        if let (Some(url), Some(object)) = (
            self.answer
                .as_ref()
                .and_then(|answer| answer.get("url").or_else(|| answer.get("payment_link"))),
            view.as_object_mut(),
        ) {
            object.insert("url".into(), url.clone());
        }
        view
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(body: &str) -> Content {
        Content::new(Operation::Withdraw, body.to_owned())
    }

    #[test]
    fn a_difference_names_the_first_field_that_differs() {
        let recorded = content(r#"{"address":"a","amount":"1"}"#);
        assert_eq!(recorded.difference(&recorded.clone()), None);
        let difference = recorded
            .difference(&content(r#"{"address":"a","amount":"2"}"#))
            .unwrap();
        assert_eq!(difference.field, "amount");
        assert_eq!(difference.recorded, "\"1\"");
        let missing = recorded.difference(&content(r#"{"address":"a"}"#)).unwrap();
        assert_eq!(
            (missing.field.as_str(), missing.now.as_str()),
            ("amount", "nothing")
        );
        let other = Content::new(Operation::WithdrawInstant, recorded.body.clone());
        assert_eq!(recorded.difference(&other).unwrap().field, "operation");
        assert_ne!(recorded.fingerprint(), other.fingerprint());
    }
}
