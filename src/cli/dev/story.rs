//! Payments and callbacks in plain words.

use serde_json::Value;

use super::observer::Fate;
use crate::cli::output::{field, list};
use crate::simulator::SentCallback;

/// One payment in a line: what the daemon recorded, and what the gateway says it executed.
pub(super) fn of(fate: &Fate) -> String {
    let payment = &fate.payment;
    let words: Vec<String> = list(payment, "story").iter().filter_map(in_words).collect();
    let recorded = if payment.is_null() {
        "nobody asked for it".to_owned()
    } else {
        words.join(", ")
    };
    format!(
        "{}  {} {}: {recorded}; {} to the gateway, executed {}",
        fate.foreign_id,
        field(payment, "amount"),
        field(payment, "currency"),
        requests(fate.requested),
        times(fate.executed)
    )
}

fn in_words(line: &Value) -> Option<String> {
    let event = line.get("event")?;
    let note = field(line, "note");
    let text = match event.as_str() {
        // The decision to send it, and the sending, go without saying.
        Some("allowed" | "send_started") => return None,
        Some("answer_lost") => "THE REPLY WAS LOST".to_owned(),
        Some("not_found") => "looked up, not there yet".to_owned(),
        Some(event) => event.replace('_', " "),
        // A report: `callback: confirmed`, `look-up: processing`
        None => match note.strip_prefix("look-up: ") {
            Some(status) => format!("looked up and found as {status}"),
            None => note,
        },
    };
    Some(text)
}

/// One callback in a line: what it says, and what each delivery was answered with.
pub(super) fn of_callback(sent: &SentCallback) -> String {
    let answers = sent.attempts.iter().map(|attempt| match attempt.answer {
        Some(status) => status.to_string(),
        None => "no answer".to_owned(),
    });
    format!(
        "{} {} {}: delivered {}, answered {}",
        sent.kind,
        sent.operation_id,
        sent.status,
        times(sent.attempts.len()),
        answers.collect::<Vec<_>>().join(" and ")
    )
}

fn requests(count: u64) -> String {
    match count {
        1 => "1 request".to_owned(),
        count => format!("{count} requests"),
    }
}

/// `never`, `once`, `twice`, `3 times`
pub(super) fn times(count: usize) -> String {
    match count {
        0 => "never".to_owned(),
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        count => format!("{count} times"),
    }
}
