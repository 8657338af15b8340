//! The tokens of a session and the keys that make them.
//!
//! An *access token* is a JWT (RFC 9068, `typ: at+jwt`) signed with Ed25519; anybody can check it with the published keys. A
//! *refresh token* is `zsr_`, the session, the generation and the HMAC-SHA256 of both, each after an underscore: only the
//! generation is stored, and the token of a generation can be made again when its answer was lost.
//!
//! ```text
//! keys/signing.key     signs; PKCS#8 in PEM, as `openssl genpkey -algorithm ed25519` writes it
//! keys/signing*.key    are accepted and published beside it: yesterday's keys, and tomorrow's before they sign
//! keys/refresh.key     32 bytes in hex
//! ```
//!
//! To rotate, publish the next key beside the present one for longer than clients keep the key set, swap the two names, and
//! delete the old one when the last token that it signed has expired. Processes that share the folder use the same keys; when
//! the folder is empty, whoever writes a complete file first has made the key.

use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ed25519_dalek::SigningKey;
use entity::{
    id::{self, Id, SessionId, UserId},
    time::Timestamp,
};
use hmac::{Hmac, Mac};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::{
    config,
    error::{Error, Result},
    store::{
        Entropy,
        keys::{
            FOLDER, REFRESH, SIGNING, der, make_private_folder, obtain, read_hex, read_pem, read_signing, spell_pem,
            unusable,
        },
    },
};

const TYPE: &str = "at+jwt";
const REFRESH_PREFIX: &str = "zsr_";
/// Bytes of an access token at most; ours have about 500.
const MAX_TOKEN: usize = 4096;
/// How far the clocks of our servers may be apart.
const LEEWAY: Duration = Duration::from_secs(5);

/// What an access token says (RFC 9068 §2.2): who, by which session, as what and until when.
#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: String,
    exp: i64,
    iat: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nbf: Option<i64>,
    jti: String,
    sid: String,
    role: String,
}

/// An access token that was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verified {
    pub user: UserId,
    pub session: SessionId,
    /// What the token says.
    pub expires_at: Timestamp,
    /// Until when we accept it: a little longer, for clocks that differ.
    pub accepted_until: Timestamp,
}

/// A key that tokens may be signed with, as everybody may know it.
struct PublicKey {
    /// The key's thumbprint (RFC 7638).
    kid: String,
    /// The `x` of the key in base64url (RFC 8037).
    x: String,
    decoding: DecodingKey,
}

/// All keys of the program.
pub(super) struct Keys {
    encoding: EncodingKey,
    /// The first is the one that signs.
    public: Vec<PublicKey>,
    validation: Validation,
    refresh: Hmac<Sha256>,
}

impl Keys {
    /// Takes the keys that were given and reads the others from the data folder, where development makes those that are missing.
    pub(super) fn open(
        config: &config::Auth,
        given: (&config::Keys, config::Profile),
        data: &Path,
        entropy: &Entropy,
    ) -> Result<Self> {
        let (given, profile) = given;
        let folder = data.join(FOLDER);
        make_private_folder(&folder).map_err(Error::internal)?;
        let signing_path = folder.join(SIGNING);
        let text = obtain(&signing_path, given.signing.as_ref(), profile, || spell_pem(&entropy.bytes()))?;
        let signing = read_signing(&signing_path, &text)?;
        let mut public = vec![publish(&signing)];
        let replaced = given.signing.is_some() && signing_path.exists();
        let others = other_signing_keys(&folder).map_err(Error::internal)?;
        for path in others.into_iter().chain(replaced.then(|| signing_path.clone())) {
            let other = publish(&read_pem(&path, &fs::read_to_string(&path).map_err(Error::internal)?)?);
            if public.iter().all(|known| known.kid != other.kid) {
                public.push(other);
            }
        }
        let der = der(&signing.to_bytes())?;

        let refresh_path = folder.join(REFRESH);
        let make = || Ok(format!("{}\n", hex::encode(entropy.bytes::<32>())));
        let text = obtain(&refresh_path, given.refresh.as_ref(), profile, make)?;
        let refresh = read_hex(&text).ok_or_else(|| unusable(&refresh_path, "32 bytes in hex"))?;
        let refresh = Hmac::new_from_slice(&refresh).map_err(Error::internal)?;

        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_audience(&[&config.audience]);
        validation.set_issuer(&[&config.issuer]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        // The library asks the computer's clock; `verify` asks ours.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        Ok(Self { encoding: EncodingKey::from_ed_der(&der), public, validation, refresh })
    }

    /// The key set that the world checks our access tokens with (RFC 7517).
    pub(super) fn jwks(&self) -> serde_json::Value {
        let keys: Vec<_> = self
            .public
            .iter()
            .map(
                |key| json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": key.kid, "x": key.x}),
            )
            .collect();
        json!({ "keys": keys })
    }

    /// An access token and the instant at which it ends, a whole second and never after the session's end.
    pub(super) fn access_token(
        &self,
        config: &config::Auth,
        (user, role): (UserId, entity::user::Role),
        (session, session_ends): (SessionId, Timestamp),
        now: Timestamp,
        unique: [u8; 16],
    ) -> Result<(String, Timestamp)> {
        let exp = seconds(now.after(config.access_ttl).min(session_ends));
        let claims = Claims {
            iss: config.issuer.clone(),
            aud: config.audience.clone(),
            sub: user.to_string(),
            exp,
            iat: seconds(now),
            nbf: None,
            jti: hex::encode(unique),
            sid: session.to_string(),
            role: role.name().to_owned(),
        };
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some(TYPE.to_owned());
        header.kid = self.public.first().map(|key| key.kid.clone());
        let token = jsonwebtoken::encode(&header, &claims, &self.encoding).map_err(Error::internal)?;
        Ok((token, instant(exp)))
    }

    /// Checks an access token: our type, one algorithm, a key of ours, all claims, our clock. `None` is all that the bearer of a
    /// bad one learns.
    pub(super) fn verify(&self, token: &str, now: Timestamp) -> Option<Verified> {
        if token.len() > MAX_TOKEN {
            return None;
        }
        let header = jsonwebtoken::decode_header(token).ok()?;
        if header.typ.as_deref() != Some(TYPE) || header.crit.is_some() {
            return None;
        }
        let kid = header.kid?;
        let key = self.public.iter().find(|key| key.kid == kid)?;
        let claims = jsonwebtoken::decode::<Claims>(token, &key.decoding, &self.validation).ok()?.claims;
        let expires_at = instant(claims.exp);
        let accepted_until = expires_at.after(LEEWAY);
        let begun = claims.nbf.is_none_or(|nbf| instant(nbf) <= now.after(LEEWAY));
        if now >= accepted_until || !begun {
            return None;
        }
        let (user, session) = (claims.sub.parse().ok()?, claims.sid.parse().ok()?);
        Some(Verified { user, session, expires_at, accepted_until })
    }

    /// The refresh token of a generation of a session; always the same one.
    pub(super) fn refresh_token(&self, session: SessionId, generation: i64) -> String {
        let secret = hex::encode(self.tag(session, generation).finalize().into_bytes());
        format!("{REFRESH_PREFIX}{}_{generation}_{secret}", id::encode(session.uuid()))
    }

    /// The session and generation of a refresh token that we made.
    pub(super) fn read_refresh_token(&self, token: &str) -> Option<(SessionId, i64)> {
        let mut parts = token.strip_prefix(REFRESH_PREFIX)?.split('_');
        let (Some(session), Some(digits), Some(secret), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return None;
        };
        let session = SessionId::from_uuid(id::decode(session).ok()?);
        let generation: i64 = digits.parse().ok()?;
        let mut tag = [0_u8; 32];
        hex::decode_to_slice(secret, &mut tag).ok()?;
        self.tag(session, generation).verify_slice(&tag).ok()?;
        // One token has one spelling.
        (token == self.refresh_token(session, generation)).then_some((session, generation))
    }

    fn tag(&self, session: SessionId, generation: i64) -> Hmac<Sha256> {
        self.refresh.clone().chain_update(session.uuid().as_bytes()).chain_update(generation.to_be_bytes())
    }
}

fn seconds(instant: Timestamp) -> i64 {
    instant.micros().div_euclid(1_000_000)
}

fn instant(seconds: i64) -> Timestamp {
    Timestamp::from_micros(seconds.saturating_mul(1_000_000))
}

fn publish(signing: &SigningKey) -> PublicKey {
    let x = URL_SAFE_NO_PAD.encode(signing.verifying_key().as_bytes());
    // The members that RFC 8037 §2 requires, in the order of RFC 7638 §3.
    let kid = URL_SAFE_NO_PAD.encode(Sha256::digest(format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#)));
    let decoding = DecodingKey::from_ed_der(signing.verifying_key().as_bytes());
    PublicKey { kid, x, decoding }
}

fn other_signing_keys(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let (stem, extension) = (path.file_stem(), path.extension());
        let named = |name: &OsStr| name.to_string_lossy().starts_with("signing") && path != folder.join(SIGNING);
        if stem.is_some_and(named) && extension.is_some_and(|extension| extension == "key") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use entity::user::Role;
    use proptest::prelude::*;
    use tempfile::TempDir;
    use uuid::Uuid;

    use super::*;

    const NOW: Timestamp = Timestamp::from_micros(1_700_000_000_500_000);
    const USER: UserId = UserId(Uuid::from_u128(7));
    const SESSION: SessionId = SessionId(Uuid::from_u128(8));

    fn keys(data: &TempDir, seed: u64) -> Keys {
        Keys::open(
            &config::Auth::default(),
            (&config::Keys::default(), config::Profile::Development),
            data.path(),
            &Entropy::seeded(seed),
        )
        .unwrap()
    }

    fn token(keys: &Keys) -> (String, Timestamp) {
        let far = NOW.after(Duration::from_secs(100_000));
        keys.access_token(&config::Auth::default(), (USER, Role::Arbiter), (SESSION, far), NOW, [1; 16]).unwrap()
    }

    /// A token signed by the key of `data` with the header and claims changed.
    fn forged(
        data: &TempDir,
        header: impl FnOnce(&mut Header),
        claims: impl FnOnce(&mut serde_json::Map<String, serde_json::Value>),
    ) -> String {
        let keys = keys(data, 1);
        let mut changed_header = jsonwebtoken::decode_header(token(&keys).0).unwrap();
        let data = jsonwebtoken::dangerous::insecure_decode::<serde_json::Value>(token(&keys).0).unwrap();
        let serde_json::Value::Object(mut changed_claims) = data.claims else { panic!("claims are an object") };
        header(&mut changed_header);
        claims(&mut changed_claims);
        jsonwebtoken::encode(&changed_header, &changed_claims, &keys.encoding).unwrap()
    }

    #[test]
    fn an_access_token_says_who_until_a_whole_second() {
        let data = TempDir::new().unwrap();
        let keys = keys(&data, 1);
        let (token, expires_at) = token(&keys);
        assert_eq!(expires_at, Timestamp::from_micros(1_700_000_900_000_000));
        let accepted_until = expires_at.after(LEEWAY);
        let verified = Verified { user: USER, session: SESSION, expires_at, accepted_until };
        assert_eq!(keys.verify(&token, NOW), Some(verified));
        assert_eq!(keys.verify(&token, accepted_until.before(Duration::from_micros(1))), Some(verified));
        assert_eq!(keys.verify(&token, accepted_until), None);
    }

    #[test]
    fn an_access_token_does_not_outlive_its_session() {
        let data = TempDir::new().unwrap();
        let ends = NOW.after(Duration::from_mins(1));
        let (_, expires_at) = keys(&data, 1)
            .access_token(&config::Auth::default(), (USER, Role::User), (SESSION, ends), NOW, [1; 16])
            .unwrap();
        assert!(expires_at <= ends);
    }

    #[test]
    fn the_header_names_the_type_and_the_key() {
        let data = TempDir::new().unwrap();
        let keys = keys(&data, 1);
        let header = jsonwebtoken::decode_header(token(&keys).0).unwrap();
        assert_eq!((header.typ.as_deref(), header.alg), (Some("at+jwt"), Algorithm::EdDSA));
        assert_eq!(json!(header.kid), keys.jwks()["keys"][0]["kid"]);
        assert_eq!(keys.jwks()["keys"][0]["crv"], "Ed25519");
    }

    #[test]
    fn the_kid_is_the_thumbprint_of_rfc_8037() {
        // RFC 8037, appendix A.1 to A.3.
        let seed = URL_SAFE_NO_PAD.decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").unwrap();
        let public = publish(&SigningKey::from_bytes(&seed.try_into().unwrap()));
        assert_eq!(public.x, "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
        assert_eq!(public.kid, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }

    #[test]
    fn a_token_that_was_changed_is_refused() {
        let data = TempDir::new().unwrap();
        let keys = keys(&data, 1);
        let unchanged = forged(&data, |_| {}, |_| {});
        assert!(keys.verify(&unchanged, NOW).is_some());
        for (what, bad) in [
            ("another type", forged(&data, |header| header.typ = Some("JWT".into()), |_| {})),
            ("no type", forged(&data, |header| header.typ = None, |_| {})),
            ("no key", forged(&data, |header| header.kid = None, |_| {})),
            ("another key", forged(&data, |header| header.kid = Some("x".into()), |_| {})),
            ("critical extensions", forged(&data, |header| header.crit = Some(vec!["b64".into()]), |_| {})),
            ("another issuer", forged(&data, |_| {}, |claims| claims["iss"] = json!("x"))),
            ("another audience", forged(&data, |_| {}, |claims| claims["aud"] = json!("x"))),
            ("another noun", forged(&data, |_| {}, |claims| claims["sub"] = json!("agent_00000000000000000000000007"))),
            ("not yet good", forged(&data, |_| {}, |claims| drop(claims.insert("nbf".into(), json!(1_700_000_007))))),
            ("already over", forged(&data, |_| {}, |claims| claims["exp"] = json!(1_699_999_995))),
            ("a fraction of a second", forged(&data, |_| {}, |claims| claims["exp"] = json!(1.8e9))),
        ] {
            assert_eq!(keys.verify(&bad, NOW), None, "{what}");
        }
        for claim in ["iss", "aud", "sub", "exp", "sid", "iat", "jti"] {
            let bad = forged(&data, |_| {}, |claims| drop(claims.remove(claim)));
            assert_eq!(keys.verify(&bad, NOW), None, "without {claim}");
        }
    }

    #[test]
    fn other_algorithms_are_refused() {
        let data = TempDir::new().unwrap();
        let keys = keys(&data, 1);
        let (good, _) = token(&keys);
        let payload = good.split('.').nth(1).unwrap();
        let kid = &keys.public[0].kid;
        // The public key as an HMAC secret, and no signature at all.
        let mut header = Header::new(Algorithm::HS256);
        header.typ = Some(TYPE.into());
        header.kid = Some(kid.clone());
        let claims: serde_json::Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
        let secret = URL_SAFE_NO_PAD.decode(&keys.public[0].x).unwrap();
        let confused = jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(&secret)).unwrap();
        assert_eq!(keys.verify(&confused, NOW), None);
        let none = URL_SAFE_NO_PAD.encode(json!({"alg": "none", "typ": TYPE, "kid": kid}).to_string());
        assert_eq!(keys.verify(&format!("{none}.{payload}."), NOW), None);
        assert_eq!(keys.verify(&"x".repeat(MAX_TOKEN + 1), NOW), None);
    }

    #[test]
    fn the_keys_are_made_once_and_are_private() {
        let data = TempDir::new().unwrap();
        let (token, _) = token(&keys(&data, 1));
        let again = keys(&data, 2);
        assert!(again.verify(&token, NOW).is_some());
        assert_eq!(again.refresh_token(SESSION, 1), keys(&data, 3).refresh_token(SESSION, 1));
        let other = TempDir::new().unwrap();
        assert!(keys(&other, 4).verify(&token, NOW).is_none());
        #[cfg(unix)]
        for name in [SIGNING, REFRESH] {
            let mode = fs::metadata(data.path().join(FOLDER).join(name)).unwrap().permissions();
            assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777, 0o600, "{name}");
        }
        assert_eq!(fs::read_dir(data.path().join(FOLDER)).unwrap().count(), 2, "nothing else is left behind");
    }

    #[test]
    fn processes_that_start_together_agree_on_the_keys() {
        let data = TempDir::new().unwrap();
        let opened: Vec<Keys> = std::thread::scope(|scope| {
            let starts: Vec<_> = (0..8)
                .map(|seed| {
                    scope.spawn({
                        let data = &data;
                        move || keys(data, seed)
                    })
                })
                .collect();
            starts.into_iter().map(|start| start.join().unwrap()).collect()
        });
        let (token, _) = token(&opened[0]);
        let refresh = opened[0].refresh_token(SESSION, 1);
        for keys in &opened {
            assert!(keys.verify(&token, NOW).is_some());
            assert_eq!(keys.refresh_token(SESSION, 1), refresh);
        }
    }

    #[test]
    fn the_last_keys_tokens_are_good_after_a_rotation() {
        let data = TempDir::new().unwrap();
        let folder = data.path().join(FOLDER);
        let (old, _) = token(&keys(&data, 1));
        fs::rename(folder.join(SIGNING), folder.join("signing-2026.key")).unwrap();
        let rotated = keys(&data, 2);
        let (new, _) = token(&rotated);
        assert!(rotated.verify(&old, NOW).is_some() && rotated.verify(&new, NOW).is_some());
        assert_eq!(rotated.jwks()["keys"].as_array().unwrap().len(), 2);
        assert_eq!(rotated.jwks()["keys"][0]["kid"], json!(jsonwebtoken::decode_header(new).unwrap().kid));
        fs::remove_file(folder.join("signing-2026.key")).unwrap();
        assert!(keys(&data, 3).verify(&old, NOW).is_none());
    }

    #[test]
    fn a_key_file_that_is_no_key_stops_the_start_without_being_quoted() {
        for name in [SIGNING, REFRESH, "signing-old.key"] {
            let data = TempDir::new().unwrap();
            fs::create_dir(data.path().join(FOLDER)).unwrap();
            fs::write(data.path().join(FOLDER).join(name), "my-password").unwrap();
            let error = Keys::open(
                &config::Auth::default(),
                (&config::Keys::default(), config::Profile::Development),
                data.path(),
                &Entropy::seeded(1),
            )
            .err()
            .unwrap();
            assert!(error.to_string().contains(name) && !error.to_string().contains("my-password"), "{error}");
        }
    }

    #[test]
    fn a_refresh_token_names_its_session_and_generation() {
        let data = TempDir::new().unwrap();
        let keys = keys(&data, 1);
        let token = keys.refresh_token(SESSION, 12);
        assert!(token.starts_with("zsr_00000000000000000000000008_12_"), "{token}");
        assert_eq!(keys.read_refresh_token(&token), Some((SESSION, 12)));
        for bad in [
            token.replace("_12_", "_13_"),
            token.replace("_12_", "_+12_"),
            token.replace("_12_", "_012_"),
            token.replace("8_12", "9_12"),
            format!("{token}_"),
            format!("{token}0"),
            token.to_uppercase(),
            token.replace("zsr_", "zsk_"),
            String::new(),
        ] {
            assert_eq!(keys.read_refresh_token(&bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(zsr_)?[a-zA-Z0-9._-]{0,120}") {
            static KEYS: LazyLock<Keys> = LazyLock::new(|| keys(&TempDir::new().unwrap(), 1));
            prop_assert_eq!(KEYS.verify(&text, NOW), None);
            prop_assert_eq!(KEYS.read_refresh_token(&text), None);
        }
    }
}
