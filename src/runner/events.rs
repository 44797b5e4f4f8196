//! Events as they are kept, and as handlers get them.

use serde_json::{Value, json};

use crate::domain::callback::{Callback, Source};
use crate::domain::clock::shown;
use crate::store::schema::{EventContent, EventRecord, Text};
use crate::store::{CommitError, ReadError, Store};

/// Texts longer than this, in bytes, are kept beside the index.
const LONG: usize = 16 * 1024;

/// Puts a text where it belongs. Long ones are on disk when this returns.
pub(super) async fn keep(store: &Store, text: String) -> Result<Text, CommitError> {
    if text.len() <= LONG {
        Ok(Text::Here(text))
    } else {
        store.put_blob(text.into_bytes()).await.map(Text::Blob)
    }
}

/// Reads a kept text back.
pub(super) fn text(store: &Store, kept: &Text) -> Result<String, ReadError> {
    match kept {
        Text::Here(text) => Ok(text.clone()),
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
                |callback| callback.event(received_at, source),
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
