//! The gateway's signature: lower-case hex HMAC-SHA512 over the exact bytes of the body.
//!
//! Used in both directions: on our requests, and to verify callbacks. The simulator has its own
//! few lines for this, so that a bug here cannot cancel itself out.
//!
//! Source: the gateway's authentication page. Nothing but the body is signed, there is no
//! timestamp and no nonce; a captured callback therefore verifies for ever, which is why callback
//! deduplication never expires.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha512;

use super::secret::Secret;

/// Bytes of a signature; its text has twice as many digits.
const LENGTH: usize = 64;

/// A keyed signer. Cheap to clone; keeps the expanded key so that signing costs one pass.
#[derive(Clone)]
pub struct Signer(Hmac<Sha512>);

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer(***)")
    }
}

impl Signer {
    /// Makes a signer from the account's secret key, taken as UTF-8 bytes.
    #[must_use]
    pub fn new(secret: &Secret) -> Self {
        Self(
            Hmac::new_from_slice(secret.expose().as_bytes())
                .expect("HMAC accepts keys of every length"),
        )
    }

    /// The signature of `body`: 128 lower-case hex digits.
    #[must_use]
    pub fn sign(&self, body: &[u8]) -> String {
        let mut mac = self.0.clone();
        mac.update(body);
        hex::encode(mac.finalize().into_bytes())
    }

    /// Whether `signature` is the signature of `body`. Takes the same time whatever the signature
    /// says. Anything that is not 128 lower-case hex digits is wrong.
    #[must_use]
    pub fn verify(&self, body: &[u8], signature: &str) -> bool {
        let mut bytes = [0; LENGTH];
        if signature.bytes().any(|b| b.is_ascii_uppercase())
            || hex::decode_to_slice(signature, &mut bytes).is_err()
        {
            return false;
        }
        let mut mac = self.0.clone();
        mac.update(body);
        mac.verify_slice(&bytes).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (secret, body, signature): the first is published by the gateway, the second stands in a
    /// public client's tests, the others were computed with openssl.
    const VECTORS: [(&str, &str, &str); 4] = [
        (
            "AbCdEfG123456",
            r#"{"currency":"BTC","foreign_id":"123456"}"#,
            "03c25fcf7cd35e7d995e402cd5d51edd72d48e1471e865907967809a0c189ba55b90815f20e2bb10f82c7a9e9d865546fda58989c2ae9e8e2ff7bc29195fa1ec",
        ),
        (
            "secretkey",
            r#"{"key":"value"}"#,
            "d2b3292793cb1f527dab4c9d8128356a0df7635aa1796a4d45276646ce914dcf29bb9244aed750a3a5b7d26aabb44ba560b05ed1233168107bed4ca684522508",
        ),
        (
            "AbCdEfG123456",
            "{}",
            "89ff570683bfcd9e2c8911332e07e3ff196ca50f91faef98126fb0eb76df90d7ccddc4372a99ba67ec072fd3aac5d0b7eac44652e2b29ce36dbcf5ee50b6fa05",
        ),
        (
            "AbCdEfG123456",
            r#"{"receiver_data":{"last_name":"Müller"}}"#,
            "584511c09c760b2535d775796db41e33cb5a049b8565ed2083a41fd0541d29fe36b6e8a9c182480c2bc674c4794eff5cef11b37f88715ab54ce88f0f20eb48db",
        ),
    ];

    #[test]
    fn the_known_vectors_hold_in_both_directions() {
        for (secret, body, signature) in VECTORS {
            let signer = Signer::new(&Secret::new(secret));
            assert_eq!(signer.sign(body.as_bytes()), signature);
            assert!(signer.verify(body.as_bytes(), signature));
        }
    }

    #[test]
    fn whatever_differs_by_one_character_does_not_verify() {
        let (secret, body, signature) = VECTORS[0];
        let signer = Signer::new(&Secret::new(secret));
        assert!(!signer.verify(b"{}", signature));
        assert!(!signer.verify(body.as_bytes(), &signature.to_uppercase()));
        assert!(!signer.verify(body.as_bytes(), &signature[..126]));
        assert!(!signer.verify(body.as_bytes(), ""));
        assert!(!signer.verify(body.as_bytes(), &format!("zz{}", &signature[2..])));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_verify_or_fail_without_panic(body: Vec<u8>, signature: String) {
            let signer = Signer::new(&Secret::new("k"));
            proptest::prop_assert!(signer.verify(&body, &signer.sign(&body)));
            proptest::prop_assert!(!signer.verify(&body, &signature));
        }

        #[test]
        fn only_the_text_that_is_signed_verifies(
            body: Vec<u8>,
            at in 0_usize..=128,
            left_out in 0_usize..4,
            put_in in "[0-9a-fA-F]{0,3}|[g-zÀ-ÿ]",
        ) {
            let signer = Signer::new(&Secret::new("k"));
            let right = signer.sign(&body);
            let rest = &right[(at + left_out).min(right.len())..];
            let given = format!("{}{put_in}{rest}", &right[..at]);
            proptest::prop_assert_eq!(signer.verify(&body, &given), given == right);
        }
    }
}
