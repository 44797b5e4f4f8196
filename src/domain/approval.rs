//! Approvals by people: what binds them, and when there are enough.
//!
//! An approval is of one exact content, by the hash that its giver was shown. It counts for nothing
//! else, and one person counts once.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::clock::Timestamp;
use super::payment::Payment;
use super::policy::{Terms, Verdict};

/// Somebody approves of something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// Who.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// Hash of the content that they approve of.
    pub fingerprint: String,
}

/// The different people whose approvals count for that content. `barred` is somebody whose approval
/// does not.
#[must_use]
pub fn standing<'a>(
    approvals: &'a [Approval],
    fingerprint: &str,
    barred: Option<&str>,
) -> BTreeSet<&'a str> {
    approvals
        .iter()
        .filter(|approval| approval.fingerprint == fingerprint)
        .map(|approval| approval.by.as_str())
        .filter(|by| Some(*by) != barred)
        .collect()
}

/// Whether so many people are enough.
#[must_use]
pub fn is_enough(terms: &Terms, people: usize) -> bool {
    u32::try_from(people).unwrap_or(u32::MAX) >= terms.quorum.max(1)
}

/// The last instant at which something that was asked for then can be approved.
#[must_use]
pub fn deadline(asked_at: Timestamp, terms: &Terms) -> Timestamp {
    let length = i64::try_from(terms.expires_after).ok();
    length
        .and_then(chrono::TimeDelta::try_seconds)
        .and_then(|length| asked_at.checked_add_signed(length))
        .unwrap_or(Timestamp::MAX_UTC)
}

/// What the payment's approval takes; `None` when policy does not leave it to people.
#[must_use]
pub fn terms(payment: &Payment) -> Option<Terms> {
    match payment.decision.as_ref()?.verdict {
        Verdict::Approve(terms) => Some(terms),
        Verdict::Allow | Verdict::Refuse => None,
    }
}

/// Whether everybody who must approve of this very content has done so. Asked again before the
/// payment is sent, of the record as it is in the store.
#[must_use]
pub fn is_approved(payment: &Payment) -> bool {
    let content = payment.content.fingerprint();
    terms(payment).is_none_or(|terms| {
        let people = standing(&payment.approvals, &content, None);
        is_enough(&terms, people.len())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn approval(by: &str, fingerprint: &str) -> Approval {
        Approval {
            by: by.into(),
            at: Timestamp::UNIX_EPOCH,
            fingerprint: fingerprint.into(),
        }
    }

    fn quorum(quorum: u32) -> Terms {
        Terms {
            quorum,
            expires_after: 60,
            editor_may_approve: true,
        }
    }

    #[test]
    fn one_person_counts_once_and_only_for_what_they_saw() {
        let given = [
            approval("ana", "x"),
            approval("ana", "x"),
            approval("ben", "y"),
            approval("eve", "x"),
        ];
        assert_eq!(standing(&given, "x", None), ["ana", "eve"].into());
        assert_eq!(standing(&given, "x", Some("ana")), ["eve"].into());
        assert!(standing(&given, "z", None).is_empty());
    }

    #[test]
    fn a_quorum_is_never_nobody() {
        assert!(!is_enough(&quorum(0), 0));
        assert!(is_enough(&quorum(0), 1));
        assert!(!is_enough(&quorum(2), 1));
        assert!(is_enough(&quorum(2), 2));
    }

    #[test]
    fn a_deadline_beyond_all_time_is_the_end_of_time() {
        let mut terms = quorum(1);
        let at = deadline(Timestamp::UNIX_EPOCH, &terms);
        assert_eq!(at.timestamp(), 60);
        terms.expires_after = u64::MAX;
        assert_eq!(deadline(at, &terms), Timestamp::MAX_UTC);
    }
}
