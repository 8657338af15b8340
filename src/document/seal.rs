//! How a market signs a document, byte by byte.
//!
//! ```text
//! body     the canonical JSON of the document in UTF-8
//! sha256   SHA-256(body)                                      32 bytes
//! message  "ZSDOC-v1" ‖ 0x00 ‖ sha256                          9 + 32 = 41 bytes
//! signature  Ed25519(the key of the market, message)           64 bytes
//! ```
//!
//! The tag keeps a signed document from being taken for a voucher or a journal head, which the same key may sign. Signatures are
//! checked strictly: weak keys and spellings of a signature other than the one that signing gives are refused.

use ed25519_dalek::VerifyingKey;

use super::{
    canonical::{NotCanonical, canonical},
    value::{Digest, Hex, PublicKey, Signature, sha256},
};

/// The name of this layout.
pub const SCHEME: &str = "ZSDOC-v1";
/// What stands before the hash in the message that is signed.
pub const TAG: &[u8; 9] = b"ZSDOC-v1\0";

/// The message that is signed for a body with this hash.
#[must_use]
pub fn message(digest: &Digest) -> [u8; 41] {
    let mut message = [0; 41];
    for (to, from) in message.iter_mut().zip(TAG.iter().chain(&digest.0)) {
        *to = *from;
    }
    message
}

/// Whether a signature is that of the key over the hash.
#[must_use]
pub fn verify(public_key: &PublicKey, digest: &Digest, signature: &Signature) -> bool {
    let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
    VerifyingKey::from_bytes(&public_key.0).is_ok_and(|key| key.verify_strict(&message(digest), &signature).is_ok())
}

/// A document as it is signed: its text and its hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Canonical JSON.
    pub body: String,
    pub digest: Digest,
    pub signature: Signature,
}

/// The canonical text of a document with its hash, signed by `sign`, which signs bytes.
pub fn seal(document: &serde_json::Value, sign: impl FnOnce(&[u8]) -> [u8; 64]) -> Result<Sealed, NotCanonical> {
    let body = canonical(document)?;
    let digest = sha256(body.as_bytes());
    let signature = Hex(sign(&message(&digest)));
    Ok(Sealed { body, digest, signature })
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer, SigningKey};
    use serde_json::json;

    use super::*;

    /// The first key of RFC 8032, section 7.1.
    fn key() -> SigningKey {
        let seed = hex::decode("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60").unwrap();
        SigningKey::from_bytes(&seed.try_into().unwrap())
    }

    #[test]
    fn the_signed_bytes_are_the_documented_ones() {
        let sealed = seal(&json!({ "b": 1, "a": "é" }), |message| key().sign(message).to_bytes()).unwrap();
        assert_eq!(sealed.body, r#"{"a":"é","b":1}"#);
        // Made by another implementation, in Python.
        assert_eq!(
            hex::encode(message(&sealed.digest)),
            "5a53444f432d763100aa58fba8483623bed37c1b02edfccbdd9a53123837c20bfa4cb4049993a2872e"
        );
        assert_eq!(
            sealed.signature.to_string(),
            "3745cf761ef38ed40837ad87aae3093ff8c6f5604e6711f87e9860457e8298e3\
             a10cd7930b9dc4a49f8685d33c58c6dc2176beaf65af1d544fbe05f2cd082807"
        );
        let public = Hex(key().verifying_key().to_bytes());
        assert!(verify(&public, &sealed.digest, &sealed.signature));
        // Over the body, over the hash alone and under another tag it is another signature.
        for other in [sealed.body.as_bytes(), &sealed.digest.0[..], &[b"ZSDOC-v2\0", &sealed.digest.0[..]].concat()] {
            assert!(!verify(&public, &sealed.digest, &Hex(key().sign(other).to_bytes())));
        }
        assert!(!verify(&Hex([0; 32]), &sealed.digest, &sealed.signature));
    }

    #[test]
    fn a_signature_has_one_spelling() {
        let sealed = seal(&json!({}), |message| key().sign(message).to_bytes()).unwrap();
        let public = Hex(key().verifying_key().to_bytes());
        // S + L, which laxer checks take as well.
        let order = hex::decode("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010").unwrap();
        let mut malleable = sealed.signature;
        let mut carry = 0_u16;
        for (byte, add) in malleable.0[32..].iter_mut().zip(order) {
            let sum = u16::from(*byte) + u16::from(add) + carry;
            *byte = u8::try_from(sum & 0xff).unwrap();
            carry = sum >> 8;
        }
        assert!(verify(&public, &sealed.digest, &sealed.signature));
        assert!(!verify(&public, &sealed.digest, &malleable));
    }
}
