//! Signatures as the contract describes them: lower-case hex of HMAC-SHA512 over the exact body.
//!
//! The simulator's own few lines on purpose: were they shared with the client under test, one
//! mistake would sign and verify alike on both sides and nobody would notice.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha512;

fn mac(secret: &str, body: &[u8]) -> Hmac<Sha512> {
    let mut mac = <Hmac<Sha512> as KeyInit>::new_from_slice(secret.as_bytes())
        .expect("HMAC takes keys of any length");
    mac.update(body);
    mac
}

/// The signature of `body`: 128 lower-case hex digits.
pub(super) fn sign(secret: &str, body: &[u8]) -> String {
    hex::encode(mac(secret, body).finalize().into_bytes())
}

/// Whether `signature` belongs to exactly these bytes. Capital hex digits are refused: the
/// contract says lower-case.
pub(super) fn verify(secret: &str, body: &[u8], signature: &str) -> bool {
    let lower = !signature.bytes().any(|b| b.is_ascii_uppercase());
    let bytes = hex::decode(signature).unwrap_or_default();
    lower && mac(secret, body).verify_slice(&bytes).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_vectors_are_reproduced() {
        for (secret, body, signature) in [
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
        ] {
            assert_eq!(sign(secret, body.as_bytes()), signature, "{body}");
            assert!(verify(secret, body.as_bytes(), signature), "{body}");
            assert!(!verify(secret, body.as_bytes(), &signature.to_uppercase()));
            assert!(!verify("another", body.as_bytes(), signature), "{body}");
        }
    }
}
