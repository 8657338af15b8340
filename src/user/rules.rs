//! What may be registered, who is locked out for how long and what a refresh token is worth: pure decisions about rows and
//! values.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::time::Duration;

use entity::{session, time::Timestamp, user};
use strum::IntoEnumIterator;

use crate::{
    caller::Scope,
    error::{Error, Result, refusals},
};

refusals! {
    /// Why something about a user, a session or a key is refused.
    UserRefusal {
        /// Another user has the address.
        EmailTaken = "This e-mail address is already registered.",
        /// The password that was to be replaced is not the user's.
        WrongPassword = "The present password is wrong.",
        /// The user has as many live keys as one may have.
        TooManyKeys = "You have as many API keys as one user may have; revoke one first.",
        /// The agent that the key was to be bound to is gone.
        AgentRetired = "This agent is retired; a key for it would be good for nothing.",
    }
}

/// Characters of a password at least and at most.
pub const PASSWORD_LENGTH: std::ops::RangeInclusive<usize> = 10..=128;
/// Bytes of a password at most: as many characters of the longest UTF-8 encoding.
const PASSWORD_BYTES: usize = 4 * 128;
/// Characters of a display name, or of a key's name, at most.
pub const NAME_LENGTH: usize = 80;
/// Bytes of an e-mail address at most (RFC 5321 §4.5.3.1.3 without the angle brackets).
pub const EMAIL_LENGTH: usize = 254;
/// Live API keys of one user at most.
pub const MAX_KEYS: u64 = 100;
/// How long an API key that expires may live at most.
pub const MAX_KEY_TTL: Duration = Duration::from_hours(5 * 366 * 24);
/// The longest that wrong passwords lock an account.
pub const LONGEST_LOCK: Duration = Duration::from_hours(1);
/// How long after the end of the last lock, or after the last wrong password, the wrong passwords are forgotten.
pub const FORGOTTEN_AFTER: Duration = Duration::from_hours(24);
/// How often the use of a key is written down at most.
pub const LAST_USED_STEP: Duration = Duration::from_mins(1);

/// An address as it is stored: trimmed, in lower case. What is valid is what a browser's `<input type="email">` takes (WHATWG
/// HTML, "valid e-mail address"), and no longer than mail servers take. It is ASCII, so that both databases agree with us about
/// its lower case and no two addresses look alike.
pub fn email(text: &str) -> Result<String> {
    let email = text.trim().to_ascii_lowercase();
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let valid = email.len() <= EMAIL_LENGTH
        && email.split_once('@').is_some_and(|(local, domain)| {
            (1..=64).contains(&local.len())
                && local.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".!#$%&'*+/=?^_`{|}~-".contains(&byte))
                && domain.split('.').all(label)
        });
    if valid { Ok(email) } else { Err(Error::invalid("email", "must be an e-mail address such as name@example.org")) }
}

/// Whether a new password may be one. `field` is the name of the input.
pub fn password(field: &str, text: &str) -> Result<()> {
    if could_be_password(text) && PASSWORD_LENGTH.contains(&text.chars().count()) {
        Ok(())
    } else {
        let (least, most) = (PASSWORD_LENGTH.start(), PASSWORD_LENGTH.end());
        Err(Error::invalid(field, format!("must have {least} to {most} characters")))
    }
}

/// Whether it is worth the work to try a text as a password. It does not ask for today's least length, because an older password
/// may be shorter.
#[must_use]
pub fn could_be_password(text: &str) -> bool {
    text.len() <= PASSWORD_BYTES
}

/// A name of a person or a key, trimmed. `field` is the name of the input.
pub fn name(field: &str, text: &str) -> Result<String> {
    let name = text.trim();
    if (1..=NAME_LENGTH).contains(&name.chars().count()) && !name.chars().any(char::is_control) {
        Ok(name.to_owned())
    } else {
        Err(Error::invalid(field, format!("must have 1 to {NAME_LENGTH} characters and no control characters")))
    }
}

/// The scopes of a key in the order of their declaration, each once.
pub fn scopes(asked: &[Scope]) -> Result<Vec<Scope>> {
    let scopes: Vec<Scope> = Scope::iter().filter(|scope| asked.contains(scope)).collect();
    if scopes.is_empty() { Err(Error::invalid("scopes", "must name at least one scope")) } else { Ok(scopes) }
}

/// When a key ends that was made at `now`.
pub fn key_expiry(now: Timestamp, expires_in: Option<Duration>) -> Result<Option<Timestamp>> {
    match expires_in {
        None => Ok(None),
        Some(ttl) if ttl.is_zero() || ttl > MAX_KEY_TTL => {
            Err(Error::invalid("expiresIn", "must be positive and at most five years"))
        }
        Some(ttl) => Ok(Some(now.after(ttl))),
    }
}

/// Whether the use of a key at `now` is worth writing down.
#[must_use]
pub fn worth_noting(last_used: Option<Timestamp>, now: Timestamp) -> bool {
    last_used.is_none_or(|last| now >= last.after(LAST_USED_STEP))
}

/// How patient we still are with guesses at one account's password.
///
/// ```text
/// wrong  1 … max-1   nothing
///        max         locked for base
///        max+1       locked for 2·base, then 4·base … at most an hour
/// right, or a day of quiet: from the start
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Throttle {
    /// Wrong passwords since the last right one.
    pub failed: i32,
    /// The end of the last lock, or the last wrong password when that did not lock.
    pub until: Option<Timestamp>,
}

impl Throttle {
    /// What the row of a user says.
    #[must_use]
    pub fn of(user: &user::Model) -> Self {
        Self { failed: user.failed_logins, until: user.locked_until }
    }

    /// How long the account is still locked, if it is.
    #[must_use]
    pub fn remaining(self, now: Timestamp) -> Option<Duration> {
        self.until.map(|until| until.since(now)).filter(|remaining| !remaining.is_zero())
    }

    /// The state after a wrong password at `now`, when the account is not locked.
    #[must_use]
    pub fn after_failure(self, now: Timestamp, max: i32, base: Duration) -> Self {
        let forgotten = self.until.is_some_and(|until| now >= until.after(FORGOTTEN_AFTER));
        let failed = if forgotten { 1 } else { self.failed.saturating_add(1) };
        Self { failed, until: Some(now.after(lock(failed, max, base))) }
    }
}

/// How long the `failed`th wrong password locks.
fn lock(failed: i32, max: i32, base: Duration) -> Duration {
    let Ok(doublings) = u32::try_from(failed.saturating_sub(max.max(1))) else { return Duration::ZERO };
    2_u32.checked_pow(doublings).map_or(LONGEST_LOCK, |factor| base.saturating_mul(factor).min(LONGEST_LOCK))
}

/// What a refresh token is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// It is the current one: it is spent now and the next one is given out.
    Rotate,
    /// It was spent a moment ago and the answer may have been lost: the same successor is given out again.
    Repeat,
    /// It was spent before: somebody has a copy, and nobody can tell who is the right one. The session ends.
    Reused,
    /// The session is over.
    Ended,
}

/// What the token of generation `shown` is worth for `session`. A generation that was never given out can only come from a
/// database that was set back, where spent tokens would be current again; that ends the session too.
#[must_use]
pub fn renewal(session: &session::Model, shown: i64, now: Timestamp, grace: Duration) -> Renewal {
    if !is_live(session.revoked_at, session.expires_at, now) {
        Renewal::Ended
    } else if shown == session.generation {
        Renewal::Rotate
    } else if shown.checked_add(1) == Some(session.generation) && now < session.rotated_at.after(grace) {
        Renewal::Repeat
    } else {
        Renewal::Reused
    }
}

/// Whether a session goes on at `now`.
#[must_use]
pub fn is_live(revoked_at: Option<Timestamp>, expires_at: Timestamp, now: Timestamp) -> bool {
    revoked_at.is_none() && now < expires_at
}

#[cfg(test)]
mod tests {
    use entity::id::{SessionId, UserId};
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    const fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    const fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn an_address_is_trimmed_and_lower_case() {
        for (text, stored) in [
            ("Ada@Example.ORG", "ada@example.org"),
            ("  a.b+c@x-y.example\n", "a.b+c@x-y.example"),
            ("root@localhost", "root@localhost"),
        ] {
            assert_eq!(email(text).unwrap(), stored);
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let long = format!("{}@example.org", "a".repeat(65));
        let longer = format!("a@{}", ["b".repeat(63).as_str(); 5].join("."));
        for text in [
            "", "@", "a@", "@b", "a b@c", "a@b c", "a@-b", "a@b-", "a@b..c", "a@b.", "a@b@c", "ä@b.de", "a@bü.de",
            "a\0@b",
        ]
        .into_iter()
        .chain([long.as_str(), longer.as_str()])
        {
            assert!(matches!(email(text), Err(Error::Invalid { field, .. }) if field == "email"), "{text}");
        }
    }

    #[test]
    fn a_password_is_counted_in_characters() {
        for (text, good) in [
            ("a".repeat(9), false),
            ("a".repeat(10), true),
            ("é".repeat(9), false),
            ("🦀".repeat(128), true),
            ("a".repeat(129), false),
            ("🦀".repeat(129), false),
        ] {
            assert_eq!(password("password", &text).is_ok(), good, "{text}");
        }
    }

    #[test]
    fn a_name_is_short_and_printable() {
        assert_eq!(name("displayName", " Ada ").unwrap(), "Ada");
        for bad in ["", "   ", "a\u{7}b", "a\nb", "é".repeat(81).as_str()] {
            assert!(name("displayName", bad).is_err(), "{bad:?}");
        }
        assert!(name("displayName", &"é".repeat(80)).is_ok());
    }

    #[test]
    fn scopes_are_sorted_and_at_least_one() {
        assert_eq!(
            scopes(&[Scope::WorkWrite, Scope::Read, Scope::WorkWrite]).unwrap(),
            [Scope::Read, Scope::WorkWrite]
        );
        assert!(scopes(&[]).is_err());
    }

    #[test]
    fn a_key_expires_within_five_years_or_never() {
        assert_eq!(key_expiry(at(5), None).unwrap(), None);
        assert_eq!(key_expiry(at(5), Some(seconds(7))).unwrap(), Some(at(12)));
        assert!(key_expiry(at(5), Some(Duration::ZERO)).is_err());
        assert!(key_expiry(at(5), Some(MAX_KEY_TTL + seconds(1))).is_err());
    }

    #[test]
    fn locks_begin_at_the_fifth_wrong_password_and_double_up_to_an_hour() {
        for (failed, locked) in
            [(1, 0), (4, 0), (5, 30), (6, 60), (7, 120), (11, 1920), (12, 3600), (40, 3600), (i32::MAX, 3600)]
        {
            assert_eq!(lock(failed, 5, seconds(30)), seconds(locked), "{failed}");
        }
        assert_eq!(lock(1, 0, seconds(30)), seconds(30), "a limit below one is one");
    }

    #[test]
    fn wrong_passwords_are_forgotten_after_a_day_of_quiet() {
        let day = 24 * 3600;
        let four = Throttle { failed: 4, until: Some(at(0)) };
        assert_eq!(four.after_failure(at(day - 1), 5, seconds(30)), Throttle { failed: 5, until: Some(at(day + 29)) });
        assert_eq!(four.after_failure(at(day), 5, seconds(30)), Throttle { failed: 1, until: Some(at(day)) });
    }

    #[test]
    fn a_lock_ends_at_its_instant() {
        let locked = Throttle { failed: 5, until: Some(at(30)) };
        assert_eq!(locked.remaining(at(0)), Some(seconds(30)));
        assert_eq!(locked.remaining(at(29)), Some(seconds(1)));
        assert_eq!(locked.remaining(at(30)), None);
        assert_eq!(Throttle::default().remaining(at(0)), None);
    }

    fn session(generation: i64) -> session::Model {
        session::Model {
            id: SessionId(Uuid::nil()),
            user_id: UserId(Uuid::nil()),
            generation,
            rotated_at: at(100),
            expires_at: at(1000),
            revoked_at: None,
            revoke_reason: None,
            created_at: at(0),
        }
    }

    #[test]
    fn a_refresh_token_is_worth_what_its_generation_says() {
        for (shown, now, worth) in [
            (7, 105, Renewal::Rotate),
            (7, 999, Renewal::Rotate),
            (7, 1000, Renewal::Ended),
            (6, 109, Renewal::Repeat),
            (6, 110, Renewal::Reused),
            (5, 101, Renewal::Reused),
            (1, 101, Renewal::Reused),
            (8, 101, Renewal::Reused),
            (i64::MAX, 101, Renewal::Reused),
            (6, 1000, Renewal::Ended),
        ] {
            assert_eq!(renewal(&session(7), shown, at(now), seconds(10)), worth, "{shown} at {now}");
        }
        let revoked = session::Model { revoked_at: Some(at(101)), ..session(7) };
        assert_eq!(renewal(&revoked, 7, at(102), seconds(10)), Renewal::Ended);
    }

    #[test]
    fn use_is_noted_once_a_minute() {
        assert!(worth_noting(None, at(0)));
        assert!(!worth_noting(Some(at(0)), at(59)));
        assert!(worth_noting(Some(at(0)), at(60)));
    }

    proptest! {
        #[test]
        fn a_stored_address_is_its_own_form(text in "[a-zA-Z0-9.+]{1,20}@[a-zA-Z0-9]{1,10}(\\.[a-zA-Z]{2,5})?") {
            let stored = email(&text).unwrap();
            prop_assert_eq!(email(&stored).unwrap(), stored);
        }

        #[test]
        fn no_text_makes_an_address_that_the_database_refuses(text in ".{0,80}") {
            if let Ok(stored) = email(&text) {
                prop_assert!(stored.is_ascii() && !stored.bytes().any(|byte| byte.is_ascii_uppercase()));
            }
        }

        #[test]
        fn guessing_never_shortens_a_lock(guesses in 1_i32..200, max in 1_i32..20, base in 1_u64..7200) {
            let mut now = at(0);
            let mut throttle = Throttle::default();
            let mut last = Duration::ZERO;
            for _ in 0..guesses {
                throttle = throttle.after_failure(now, max, seconds(base));
                let locked = throttle.remaining(now).unwrap_or_default();
                prop_assert!(locked >= last && locked <= LONGEST_LOCK);
                last = locked;
                now = now.after(locked);
            }
            prop_assert_eq!(throttle.failed, guesses);
        }

        #[test]
        fn only_the_current_token_rotates_and_only_its_parent_repeats(
            generation in 1_i64..1000, shown in 0_i64..1001, now in 0_i64..2000, grace in 0_u64..100,
        ) {
            let worth = renewal(&session(generation), shown, at(now), seconds(grace));
            match worth {
                Renewal::Rotate => prop_assert!(shown == generation && now < 1000),
                Renewal::Repeat => prop_assert!(shown == generation - 1 && now - 100 < i64::try_from(grace).unwrap()),
                Renewal::Reused => prop_assert!(shown != generation && now < 1000),
                Renewal::Ended => prop_assert!(now >= 1000),
            }
        }
    }
}
