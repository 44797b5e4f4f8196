//! Events as they are kept, and as handlers get them.

use std::fmt;
use std::sync::{Arc, OnceLock};

use serde_json::{Value, json};

use crate::domain::callback::{Callback, Source};
use crate::domain::clock::{Timestamp, shown};
use crate::domain::exact::Exact;
use crate::store::schema::{EventContent, EventRecord, Json, Text};
use crate::store::{CommitError, ReadError, Store};

/// An event as handlers are given it.
pub(super) enum Given {
    /// A callback's, made when it is needed: most who take one in do not look at it.
    Callback {
        callback: Arc<Callback>,
        received_at: Timestamp,
        source: Source,
        seen: OnceLock<Value>,
    },
    /// Any other.
    Value(Value),
}

impl Given {
    pub(super) fn of_callback(
        callback: &Arc<Callback>,
        received_at: Timestamp,
        source: Source,
    ) -> Arc<Self> {
        Arc::new(Self::Callback {
            callback: Arc::clone(callback),
            received_at,
            source,
            seen: OnceLock::new(),
        })
    }

    /// The event, to look at.
    pub(super) fn seen(&self) -> &Value {
        match self {
            Self::Callback { seen, .. } => seen.get_or_init(|| self.exact().into()),
            Self::Value(value) => value,
        }
    }

    /// The event, to hand on.
    pub(super) fn exact(&self) -> Exact<'_> {
        match self {
            Self::Callback {
                callback,
                received_at,
                source,
                ..
            } => callback.event(*received_at, *source),
            Self::Value(value) => value.clone().into(),
        }
    }
}

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Given(***)")
    }
}

/// Texts longer than this, in bytes, are kept beside the index.
const LONG: usize = 16 * 1024;

/// Puts a text where it belongs. Long ones are on disk when this returns.
pub(super) async fn keep(store: &Store, text: &str) -> Result<Text, CommitError> {
    if text.len() <= LONG {
        Ok(keep_here(text))
    } else {
        store.put_blob(text.into()).await.map(Text::Blob)
    }
}

/// A text that is not long, in its record.
pub(super) fn keep_here(text: &str) -> Text {
    Json::of(text).map_or_else(|| Text::Here(text.to_owned()), Text::Json)
}

/// Reads a kept text back.
pub(super) fn text(store: &Store, kept: &Text) -> Result<String, ReadError> {
    match kept {
        Text::Here(text) => Ok(text.clone()),
        Text::Json(json) => Ok(json.as_str().to_owned()),
        Text::Blob(hash) => {
            let bytes = store.get_blob(hash)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        }
    }
}

/// What a handler is given for the event.
pub(super) fn value(store: &Store, record: &EventRecord) -> Result<Value, ReadError> {
    let received_at = record.received_at;
    Ok(match &record.content {
        EventContent::Callback(body) | EventContent::Reconciled(body) => {
            let body = text(store, body)?;
            let source = source(&record.content);
            Callback::parse(body.as_bytes()).map_or_else(
                |_| unreadable(&body, record),
                |callback| callback.event(received_at, source).into(),
            )
        }
        EventContent::Unreadable(body) => unreadable(&text(store, body)?, record),
        EventContent::Custom(json) => {
            serde_json::from_str(&text(store, json)?).unwrap_or(Value::Null)
        }
    })
}

/// How the event came.
const fn source(content: &EventContent) -> Source {
    match content {
        EventContent::Reconciled(_) => Source::Reconciled,
        EventContent::Callback(_) | EventContent::Unreadable(_) | EventContent::Custom(_) => {
            Source::Callback
        }
    }
}

fn unreadable(body: &str, record: &EventRecord) -> Value {
    json!({
        "kind": "unreadable",
        "final": false,
        "body": body,
        "received_at": shown(record.received_at),
        "source": Source::Callback.as_str(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_is_kept_as_it_came() {
        for (body, is_json) in [
            (r#"{"id": 1.0,  "id":"ü"}"#, true),
            ("{\n  \"a\": 1e2\n}", true),
            (" {}", false),
            ("{}\n", false),
            ("{} {}", false),
            ("no JSON", false),
            ("", false),
        ] {
            let kept = keep_here(body);
            assert_eq!(matches!(kept, Text::Json(_)), is_json, "{body}");
            let read: Text = serde_json::from_str(&serde_json::to_string(&kept).unwrap()).unwrap();
            let text = match &read {
                Text::Here(text) => text,
                Text::Json(json) => json.as_str(),
                Text::Blob(hash) => panic!("{hash}"),
            };
            assert_eq!((text, &read), (body, &kept));
        }
    }
}
