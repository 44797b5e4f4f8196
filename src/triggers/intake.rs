//! Tells genuine callbacks from forged ones. Stores nothing, logs nothing, answers nobody: the
//! callback listener does that with the verdict.

use sha2::{Digest, Sha256};

use crate::domain::callback::{Callback, Unreadable};
use crate::domain::secret::Secret;
use crate::domain::signature::Signer;

/// Verifies callbacks of one merchant account.
#[derive(Debug, Clone)]
pub struct Verifier {
    signer: Signer,
    /// SHA-256 of the account's key, see [`Verifier::verify`].
    key_digest: [u8; 32],
}

/// What a callback turned out to be.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// Not from the gateway: refuse it with 403, store nothing.
    Forged(Forgery),
    /// From the gateway, but no callback that can be understood: store the body, raise an alert,
    /// answer 200.
    Unreadable(Unreadable),
    /// From the gateway: store it, then answer 200.
    Genuine(Callback),
}

/// What is wrong with a forged callback. A closed set, fit for logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Forgery {
    /// No `X-Processing-Key`, or one that is no text.
    #[error("no key header")]
    NoKey,
    /// No `X-Processing-Signature`, or one that is no text.
    #[error("no signature header")]
    NoSignature,
    /// Another account's key.
    #[error("wrong key")]
    WrongKey,
    /// Not the signature of this body.
    #[error("wrong signature")]
    WrongSignature,
}

impl Verifier {
    /// Makes a verifier from the account's public key and its secret.
    #[must_use]
    pub fn new(key: &Secret, secret: &Secret) -> Self {
        Self {
            signer: Signer::new(secret),
            key_digest: Sha256::digest(key.expose()).into(),
        }
    }

    /// Judges one callback by its headers and the exact bytes of its body.
    ///
    /// The time it takes tells nothing about the right key or signature: both are always compared,
    /// and keys are compared by their digests, which cannot be aimed at.
    #[must_use]
    pub fn verify(
        &self,
        key_header: Option<&str>,
        signature_header: Option<&str>,
        body: &[u8],
    ) -> Verdict {
        let key = key_header.unwrap_or_default();
        let key_is_right = <[u8; 32]>::from(Sha256::digest(key)) == self.key_digest;
        let signature_is_right = self
            .signer
            .verify(body, signature_header.unwrap_or_default());
        let forgery = match (key_header, signature_header) {
            (None, _) => Some(Forgery::NoKey),
            (_, None) => Some(Forgery::NoSignature),
            _ if !key_is_right => Some(Forgery::WrongKey),
            _ if !signature_is_right => Some(Forgery::WrongSignature),
            (Some(_), Some(_)) => None,
        };
        if let Some(forgery) = forgery {
            return Verdict::Forged(forgery);
        }
        match Callback::parse(body) {
            Ok(callback) => Verdict::Genuine(callback),
            Err(unreadable) => Verdict::Unreadable(unreadable),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = include_str!("../../tests/it/callbacks/withdrawal-confirmed.json");

    fn verifier() -> Verifier {
        Verifier::new(&Secret::new("public-key"), &Secret::new("s3cret"))
    }

    fn signature(body: &[u8]) -> String {
        Signer::new(&Secret::new("s3cret")).sign(body)
    }

    #[test]
    fn a_callback_with_the_right_key_and_signature_is_genuine() {
        let signature = signature(BODY.as_bytes());
        let verdict = verifier().verify(Some("public-key"), Some(&signature), BODY.as_bytes());
        let Verdict::Genuine(callback) = verdict else {
            panic!("{verdict:?}");
        };
        assert_eq!(callback.kind(), "withdrawal.confirmed");
    }

    #[test]
    fn whatever_differs_is_forged_and_says_what() {
        let right = signature(BODY.as_bytes());
        let other = signature(b"{}");
        let upper = right.to_uppercase();
        for (key, signature, expected) in [
            (None, Some(right.as_str()), Forgery::NoKey),
            (None, None, Forgery::NoKey),
            (Some("public-key"), None, Forgery::NoSignature),
            (Some("public-kez"), Some(right.as_str()), Forgery::WrongKey),
            (Some(""), Some(right.as_str()), Forgery::WrongKey),
            (Some("s3cret"), Some(right.as_str()), Forgery::WrongKey),
            (Some("public-key"), Some(""), Forgery::WrongSignature),
            (Some("public-key"), Some(&other), Forgery::WrongSignature),
            (Some("public-key"), Some(&upper), Forgery::WrongSignature),
        ] {
            assert_eq!(
                verifier().verify(key, signature, BODY.as_bytes()),
                Verdict::Forged(expected),
                "{key:?} {signature:?}"
            );
        }
    }

    #[test]
    fn the_exact_bytes_are_signed_not_their_meaning() {
        let signature = signature(BODY.as_bytes());
        let compact: serde_json::Value = serde_json::from_str(BODY).unwrap();
        assert_eq!(
            verifier().verify(
                Some("public-key"),
                Some(&signature),
                compact.to_string().as_bytes()
            ),
            Verdict::Forged(Forgery::WrongSignature)
        );
    }

    #[test]
    fn a_signed_body_that_is_no_callback_is_unreadable() {
        for body in [&b"\xff\xfe"[..], b"", b"[]", br#"{"type":"deposit"}"#] {
            let verdict = verifier().verify(Some("public-key"), Some(&signature(body)), body);
            assert!(matches!(verdict, Verdict::Unreadable(_)), "{verdict:?}");
        }
    }

    #[test]
    fn a_verifier_prints_no_secret() {
        let printed = format!("{:?}", verifier());
        assert!(!printed.contains("s3cret") && !printed.contains("public-key"));
    }
}
