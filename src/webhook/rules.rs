//! Where messages may go, when they are tried again, and how they are signed.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use url::{Host, Url};

use crate::error::{Error, Result, refusals};

/// Bytes of an address at most.
const MAX_URL: usize = 2_048;
/// How often a message is tried.
pub const MAX_TRIES: i32 = 10;
/// The first pause before another try, and the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_hours(1);

refusals! {
    /// Why an agent has no webhook.
    WebhookRefused {
        /// A hosted agent works by itself and waits for no message.
        AgentNotExternal = "This agent is hosted; only agents that run elsewhere have webhooks.",
        /// Nobody is made to talk to machines of a network that is not theirs.
        WebhookTargetForbidden = "The address belongs to a private, local or reserved network.",
    }
}

/// The address that a webhook may have. What a name leads to is only known when it is asked for, and may change until then, so it
/// is looked at with every try.
pub fn target(text: &str, allow_private: bool) -> Result<Url> {
    let wrong = |why: &str| Error::invalid("url", why);
    let url = Url::parse(text).ok().filter(|_| text.len() <= MAX_URL);
    let url = url.ok_or_else(|| wrong("must be an address of at most 2048 bytes"))?;
    match url.scheme() {
        "https" => {}
        "http" if allow_private => {}
        _ => return Err(wrong("must be an https address")),
    }
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Err(wrong("must be without a user, a password and a fragment"));
    }
    let literal = match url.host() {
        Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
        Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
        Some(Host::Domain(_)) => None,
        None => return Err(wrong("must have a host")),
    };
    if literal.is_some_and(|address| !allow_private && !is_public(address)) {
        return Err(WebhookRefused::WebhookTargetForbidden.into());
    }
    Ok(url)
}

/// Whether an address belongs to the public internet, by the registries of special addresses of the IANA.
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    match (a, b) {
        // This network, private ones, the local machine, multicast, and what is reserved, the broadcast among it.
        (0 | 10 | 127 | 224.., _)
        | (172, 16..=31)
        | (192, 168)
        // Shared between carriers and their customers, and the link alone, where clouds keep their metadata.
        | (100, 64..=127)
        | (169, 254)
        // Measurements.
        | (198, 18 | 19) => false,
        // Assignments of protocols, relays of 6to4, documentation.
        (192, 0) => !matches!(c, 0 | 2),
        (192, 88) => c != 99,
        (198, 51) => c != 100,
        (203, 0) => c != 113,
        _ => true,
    }
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    // Only this range is given out. IPv4 within IPv6, in all its forms but 6to4, unique local and link addresses lie outside.
    let given_out = a & 0xe000 == 0x2000;
    let special = match (a, b) {
        // Assignments of protocols, Teredo among them, documentation, and 6to4, which leads to an IPv4 address.
        (0x2001, ..0x0200 | 0x0db8) | (0x2002, _) | (0x3fff, ..0x1000) => true,
        _ => false,
    };
    given_out && !special
}

/// What follows a try that did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterMiss {
    /// Try again after a pause.
    Retry(Duration),
    /// There is no use.
    GiveUp,
}

/// Decides about another try. The pause doubles with every try; `noise` takes away up to half of it, so that what failed together
/// is not tried again together. An address that says it is gone is believed.
#[must_use]
pub fn after_miss(tries: i32, gone: bool, noise: u32) -> AfterMiss {
    if gone || tries >= MAX_TRIES {
        return AfterMiss::GiveUp;
    }
    let doublings = u32::try_from(tries.saturating_sub(1)).unwrap_or(0).min(16);
    let full = FIRST_PAUSE.saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX)).min(LONGEST_PAUSE);
    let half = u64::try_from(full.as_micros()).unwrap_or(u64::MAX).checked_div(2).unwrap_or(0);
    let less = u64::from(noise).checked_rem(half.saturating_add(1)).unwrap_or(0);
    AfterMiss::Retry(full.saturating_sub(Duration::from_micros(less)))
}

/// A secret as the standard spells it.
#[must_use]
pub fn spell_secret(secret: &[u8; 32]) -> String {
    format!("whsec_{}", STANDARD.encode(secret))
}

/// The signature of a message as the standard spells it: over the id, the instant in seconds and the exact body.
pub fn signature(secret: &[u8; 32], id: &str, seconds: i64, body: &str) -> Result<String> {
    let mut tag = Hmac::<Sha256>::new_from_slice(secret).map_err(Error::internal)?;
    tag.update(format!("{id}.{seconds}.{body}").as_bytes());
    Ok(format!("v1,{}", STANDARD.encode(tag.finalize().into_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn refusal(text: &str) -> String {
        match target(text, false).unwrap_err() {
            Error::Refused(refusal) => refusal.code,
            Error::Invalid { field, .. } => field,
            error @ (Error::Unauthenticated(_)
            | Error::Forbidden(_)
            | Error::NotFound(_)
            | Error::Throttled(_)
            | Error::Unavailable(_)
            | Error::BooksBroken
            | Error::Internal(_)) => panic!("{error}"),
        }
    }

    #[test]
    fn public_addresses_are_told_from_all_others() {
        for address in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.17.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2001:4860:4860::8888",
            "2a00:1450:4001::1",
            "3ffe::1",
        ] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "127.0.0.1",
            "127.255.255.254",
            "100.64.0.1",
            "100.127.255.255",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:8.8.8.8",
            "::ffff:127.0.0.1",
            "::7f00:1",
            "64:ff9b::808:808",
            "64:ff9b:1::1",
            "100::1",
            "fe80::1",
            "fec0::1",
            "fc00::1",
            "fd12:3456::1",
            "ff02::1",
            "2001::1",
            "2001:db8::1",
            "2001:2::1",
            "2002:7f00:1::",
            "2002:808:808::",
            "3fff::1",
            "5f00::1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn a_target_is_https_without_a_password_and_no_private_address_however_it_is_spelled() {
        for url in [
            "https://example.org/hook?key=1",
            "https://example.org:8443",
            "https://1.1.1.1/",
            "https://[2606:4700::1111]/",
        ] {
            assert!(target(url, false).is_ok(), "{url}");
        }
        for url in [
            "https://127.0.0.1/",
            "https://127.1/",
            "https://2130706433/",
            "https://0x7f.0.0.1/",
            "https://0177.0.0.1/",
            "https://127.0.0.1./",
            "https://10.1.2.3:444/",
            "https://[::1]/",
            "https://[::ffff:127.0.0.1]/",
            "https://169.254.169.254/latest/meta-data",
            "https://[fd00:ec2::254]/",
            "https://１２７.0.0.1/",
            "https://0/",
        ] {
            assert_eq!(refusal(url), "WEBHOOK_TARGET_FORBIDDEN", "{url}");
            assert!(target(url, true).is_ok(), "{url}");
        }
        let long = format!("https://example.org/{}", "x".repeat(MAX_URL));
        for url in [
            "http://example.org/",
            "ftp://example.org/",
            "example.org",
            "https://",
            "https://ada@example.org/",
            "https://ada:secret@example.org/",
            "https://example.org/#here",
            "file:///etc/passwd",
            &long,
        ] {
            assert_eq!(refusal(url), "url", "{url}");
        }
        assert!(target("http://localhost:8080/", true).is_ok());
        assert!(target("ftp://localhost/", true).is_err());
    }

    #[test]
    fn a_message_is_signed_as_the_standard_says() {
        // The example of the specification's own libraries.
        let secret = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let mut tag = Hmac::<Sha256>::new_from_slice(&secret).unwrap();
        tag.update(br#"msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330.{"test": 2432232314}"#);
        let known = STANDARD.encode(tag.finalize().into_bytes());
        assert_eq!(known, "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        let ours = signature(&[7; 32], "msg", 5, "{}").unwrap();
        let mut tag = Hmac::<Sha256>::new_from_slice(&[7; 32]).unwrap();
        tag.update(b"msg.5.{}");
        assert_eq!(ours, format!("v1,{}", STANDARD.encode(tag.finalize().into_bytes())));
        assert_eq!(spell_secret(&[0; 32]), format!("whsec_{}=", "A".repeat(43)));
    }

    proptest! {
        #[test]
        fn tries_end_and_pauses_grow_up_to_an_hour(tries in 1..20_i32, noise: u32) {
            match after_miss(tries, false, noise) {
                AfterMiss::GiveUp => prop_assert!(tries >= MAX_TRIES),
                AfterMiss::Retry(pause) => {
                    let full = Duration::from_secs(5 << (tries - 1)).min(LONGEST_PAUSE);
                    prop_assert!(tries < MAX_TRIES && pause <= full && pause >= full / 2, "{pause:?} {full:?}");
                }
            }
            prop_assert_eq!(after_miss(tries, true, noise), AfterMiss::GiveUp);
        }
    }
}
