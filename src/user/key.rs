//! The text of an API key: `zsk_`, 32 random bytes in hex, `_` and a checksum. The prefix lets scanners find keys that leaked
//! into a repository, the checksum lets them, and us, tell a key from something that only looks like one without asking the
//! database. It protects nothing: the random bytes do.

use sha2::{Digest, Sha256};

/// What every key starts with.
pub(super) const PREFIX: &str = "zsk_";

const SECRET_CHARS: usize = 64;
const CHECKSUM_CHARS: usize = 8;

/// The key of 32 random bytes.
pub(super) fn spell(random: [u8; 32]) -> String {
    let body = format!("{PREFIX}{}", hex::encode(random));
    let checksum = checksum(&body);
    format!("{body}_{checksum}")
}

/// What the database keeps of a key, if the text is well formed.
pub(super) fn fingerprint(text: &str) -> Option<String> {
    let (body, check) = text.rsplit_once('_')?;
    let secret = body.strip_prefix(PREFIX)?;
    let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let sound = secret.len() == SECRET_CHARS && secret.bytes().all(hex) && check == checksum(body);
    sound.then(|| hex::encode(Sha256::digest(text)))
}

/// The first 32 bits of the SHA-256 of everything before the last underscore, in hex.
fn checksum(body: &str) -> String {
    hex::encode(Sha256::digest(body)).chars().take(CHECKSUM_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_has_the_documented_shape() {
        let key = spell([7; 32]);
        assert_eq!(key.len(), 77);
        assert!(key.starts_with("zsk_0707"), "{key}");
        assert_eq!(fingerprint(&key).unwrap(), hex::encode(Sha256::digest(&key)));
    }

    proptest! {
        #[test]
        fn a_mistyped_key_is_noticed(random: [u8; 32], place in 0_usize..77, other in "[0-9a-z_]") {
            let key = spell(random);
            let mut mistyped = key.clone();
            mistyped.replace_range(place..=place, &other);
            prop_assert_eq!(fingerprint(&mistyped).is_some(), mistyped == key);
        }

        #[test]
        fn no_text_panics(text in "(zsk_)?.{0,90}") {
            prop_assert!(fingerprint(&text).is_none());
        }
    }
}
