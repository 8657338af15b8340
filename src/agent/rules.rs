//! What an agent may be called, promise and become.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::time::Duration;

use entity::{
    agent::{Model, Runtime, Status},
    money::{Amount, MAX_AMOUNT},
    text::Words,
    time::Timestamp,
};

use crate::{
    error::{Error, Result, refusals},
    voucher,
};

/// Characters of a name at most.
pub const MAX_NAME: usize = 60;
/// Characters of a description at most.
pub const MAX_DESCRIPTION: usize = 2_000;
/// Capabilities of an agent or a task at most.
pub const MAX_CAPABILITIES: usize = 20;
/// Characters of a capability at most.
pub const MAX_CAPABILITY: usize = 64;
/// The most tasks that an agent may do at once.
pub const MAX_CAPACITY: i32 = 10_000;
/// How many tasks an agent that runs elsewhere does at once when it does not say.
const USUAL_CAPACITY: i32 = 10;
/// The longest time that an agent may promise.
pub const MAX_PROMISED: Duration = Duration::from_hours(1);

refusals! {
    /// Why an agent stays as it is, in the order in which it is checked.
    AgentRefused {
        /// A retired agent stays retired.
        AgentRetired = "This agent is retired, which is final. Register a new one.",
        /// Modules, and prices by what a module takes, are for agents that we host.
        AgentNotHosted = "This agent runs elsewhere; only hosted agents have modules and metered prices.",
        /// Somebody changed the agent since the caller read it.
        StaleVersion = "The agent has changed since you read it. Read it again and repeat the change.",
        /// The owner has an agent of that name.
        AgentNameTaken = "You have an agent of this name already.",
    }
}

/// What an owner may do to an agent's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::EnumIter)]
pub enum Step {
    /// Take no new work.
    Pause,
    /// Take new work again.
    Resume,
    /// Go for good.
    Retire,
}

/// The status after a step. A step to where the agent is already changes nothing; nothing leads out of retirement.
pub fn step(status: Status, step: Step) -> std::result::Result<Status, AgentRefused> {
    match (status, step) {
        (Status::Active | Status::Paused, Step::Pause) => Ok(Status::Paused),
        (Status::Active | Status::Paused, Step::Resume) => Ok(Status::Active),
        (Status::Active | Status::Paused | Status::Retired, Step::Retire) => Ok(Status::Retired),
        (Status::Retired, Step::Pause | Step::Resume) => Err(AgentRefused::AgentRetired),
    }
}

/// Whether an agent may be changed by a caller who read it at version `expected`.
pub fn may_change(agent: &Model, expected: Option<i32>) -> std::result::Result<(), AgentRefused> {
    match agent.status {
        Status::Active | Status::Paused => {}
        Status::Retired => return Err(AgentRefused::AgentRetired),
    }
    if expected.is_some_and(|expected| expected != agent.version) {
        return Err(AgentRefused::StaleVersion);
    }
    Ok(())
}

/// Whether an agent may get a module.
pub fn may_host(agent: &Model) -> std::result::Result<(), AgentRefused> {
    match agent.status {
        Status::Active | Status::Paused => {}
        Status::Retired => return Err(AgentRefused::AgentRetired),
    }
    match agent.runtime {
        Runtime::Hosted => Ok(()),
        Runtime::External => Err(AgentRefused::AgentNotHosted),
    }
}

/// A name without the space around it: 1 to 60 visible characters on one line. Characters that show nothing or turn the
/// direction of writing are refused, because two names that look alike must be alike.
pub fn name(text: &str) -> Result<String> {
    let text = text.trim();
    let length = text.chars().count();
    if !(1..=MAX_NAME).contains(&length) || !text.chars().all(is_visible) {
        return Err(Error::invalid("name", "must be 1 to 60 visible characters"));
    }
    Ok(text.to_owned())
}

fn is_visible(character: char) -> bool {
    let hidden = matches!(
        character,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}'
    );
    character == ' ' || !(hidden || character.is_control() || character.is_whitespace())
}

/// A description without the space around it: at most 2,000 characters, without control characters but line breaks and tabs.
pub fn description(text: &str) -> Result<String> {
    let text = text.trim();
    if text.chars().count() > MAX_DESCRIPTION {
        return Err(Error::invalid("description", "must be at most 2000 characters"));
    }
    if text.chars().any(|character| character.is_control() && !matches!(character, '\n' | '\r' | '\t')) {
        return Err(Error::invalid("description", "must not contain control characters"));
    }
    Ok(text.to_owned())
}

/// The price that an agent asks.
pub fn price(price: Amount) -> Result<Amount> {
    if price.is_zero() || price > MAX_AMOUNT {
        return Err(Error::invalid("price", "must be positive and at most 1000000000 credits"));
    }
    Ok(price)
}

/// What an agent charges for a million units of fuel. Where its work runs elsewhere, nobody but its owner counts fuel.
pub fn fuel_price(runtime: Runtime, price: Option<Amount>) -> Result<Option<Amount>> {
    let Some(price) = price else { return Ok(None) };
    match runtime {
        Runtime::Hosted if price.is_zero() || price > MAX_AMOUNT => {
            Err(Error::invalid("pricePerMillionFuel", "must be positive and at most 1000000000 credits"))
        }
        Runtime::Hosted => Ok(Some(price)),
        Runtime::External => Err(AgentRefused::AgentNotHosted.into()),
    }
}

/// The least that an agent works for, beside its price.
pub fn min_price(min_price: Amount, price: Amount) -> Result<Amount> {
    if min_price.is_zero() || min_price > price {
        return Err(Error::invalid("minPrice", "must be positive and at most the price"));
    }
    Ok(min_price)
}

/// The least price of an agent whose price changes from `old` without a word about the least price: one that was the price
/// stays the price, another one stays as it is.
pub fn kept_min_price(old: &Model, new_price: Amount) -> Result<Amount> {
    if old.min_price == old.price {
        return Ok(new_price);
    }
    if old.min_price > new_price {
        return Err(Error::invalid("price", "must be at least the agent's minPrice, or minPrice must change with it"));
    }
    Ok(old.min_price)
}

/// A promised time in milliseconds, from 1 to an hour; a fraction of a millisecond is cut off.
pub fn promised_ms(promised: Duration) -> Result<i64> {
    i64::try_from(promised.as_millis())
        .ok()
        .filter(|millis| *millis >= 1 && promised <= MAX_PROMISED)
        .ok_or_else(|| Error::invalid("promisedDuration", "must be between 1 millisecond and 1 hour"))
}

/// How many tasks an agent does at once.
pub fn capacity(capacity: i32) -> Result<i32> {
    if (1..=MAX_CAPACITY).contains(&capacity) {
        return Ok(capacity);
    }
    Err(Error::invalid("capacity", format!("must be between 1 and {MAX_CAPACITY}")))
}

/// The capacity of an agent that names none: hosted agents do as many tasks as come, because it is our workers that queue them.
#[must_use]
pub fn usual_capacity(runtime: Runtime) -> Option<i32> {
    match runtime {
        Runtime::Hosted => None,
        Runtime::External => Some(USUAL_CAPACITY),
    }
}

/// Whether an agent has room for one more task.
#[must_use]
pub fn has_room(agent: &Model) -> bool {
    agent.capacity.is_none_or(|capacity| agent.in_work < capacity)
}

/// Whether an agent can start work now: it takes work, and it is hosted with a module or was heard of since `since`.
#[must_use]
pub fn is_online(agent: &Model, since: Timestamp) -> bool {
    let there = match agent.runtime {
        Runtime::Hosted => agent.module_id.is_some(),
        Runtime::External => agent.last_seen_at.is_some_and(|seen| seen >= since),
    };
    there && agent.status == Status::Active
}

/// An Ed25519 public key in lower-case hex that can be trusted to belong to one secret key.
pub fn public_key(text: String) -> Result<String> {
    let usable = voucher::read_hex(&text).is_ok_and(|bytes| voucher::check_public_key(&bytes).is_ok());
    if usable {
        return Ok(text);
    }
    Err(Error::invalid("publicKey", "must be an Ed25519 public key as 64 characters of lower-case hex"))
}

/// Capabilities as they are stored and compared: lower case, sorted, without repetition, at most 20. A capability is 1 to 64
/// of `a`–`z`, `0`–`9`, `.`, `_` and `-` and starts with a letter or a digit.
pub fn capabilities(words: Vec<String>, at_least_one: bool) -> Result<Words> {
    let mut normal = Vec::with_capacity(words.len().min(MAX_CAPABILITIES));
    for (place, word) in words.into_iter().enumerate() {
        let word = word.to_ascii_lowercase();
        let first = word.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        let rest = word
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'_' | b'-'));
        if !first || !rest || word.len() > MAX_CAPABILITY {
            return Err(Error::invalid(
                format!("capabilities.{place}"),
                "must be 1 to 64 letters, digits, dots, underscores and dashes and start with a letter or a digit",
            ));
        }
        normal.push(word);
    }
    normal.sort_unstable();
    normal.dedup();
    if normal.len() > MAX_CAPABILITIES {
        return Err(Error::invalid("capabilities", "must be at most 20"));
    }
    if at_least_one && normal.is_empty() {
        return Err(Error::invalid("capabilities", "must name at least one"));
    }
    Ok(Words(normal))
}

/// Whether a text is a SHA-256 in lower-case hex.
#[must_use]
pub fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sea_orm::Iterable;

    use super::*;

    fn field(result: Result<impl std::fmt::Debug>) -> String {
        match result {
            Err(Error::Invalid { field, .. }) => field,
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn nothing_leads_out_of_retirement_and_every_step_can_be_repeated() {
        for status in Status::iter() {
            for taken in Step::iter() {
                match step(status, taken) {
                    Ok(next) => assert_eq!(step(next, taken), Ok(next), "{status:?} {taken:?}"),
                    Err(refused) => assert_eq!((status, refused), (Status::Retired, AgentRefused::AgentRetired)),
                }
            }
        }
        assert_eq!(step(Status::Paused, Step::Resume), Ok(Status::Active));
        assert_eq!(step(Status::Retired, Step::Retire), Ok(Status::Retired));
    }

    #[test]
    fn names_are_short_and_visible() {
        assert_eq!(name("  Übersetzer Nº 1 ").unwrap(), "Übersetzer Nº 1");
        assert_eq!(name(&"é".repeat(60)).unwrap().chars().count(), 60);
        for bad in ["", "   ", "a\nb", "a\tb", "a\0b", "a\u{200b}b", "a\u{202e}b", "a\u{a0}b", &"x".repeat(61)] {
            assert_eq!(field(name(bad)), "name", "{bad:?}");
        }
    }

    #[test]
    fn descriptions_are_bounded_text() {
        assert_eq!(description(" two\nlines ").unwrap(), "two\nlines");
        assert_eq!(description(&"é".repeat(2_000)).unwrap().chars().count(), 2_000);
        assert_eq!(field(description(&"é".repeat(2_001))), "description");
        assert_eq!(field(description("a\0b")), "description");
    }

    #[test]
    fn prices_and_promises_have_bounds() {
        let credits = |credits| Amount::from_credits(credits).unwrap();
        assert_eq!(field(price(Amount::ZERO)), "price");
        assert_eq!(field(price(Amount::from_micros(i64::MAX).unwrap())), "price");
        assert_eq!(price(MAX_AMOUNT).unwrap(), MAX_AMOUNT);
        assert_eq!(field(min_price(Amount::ZERO, credits(1))), "minPrice");
        assert_eq!(field(min_price(credits(2), credits(1))), "minPrice");
        assert_eq!(min_price(credits(1), credits(1)).unwrap(), credits(1));
        assert_eq!(field(promised_ms(Duration::from_micros(999))), "promisedDuration");
        assert_eq!(promised_ms(Duration::from_millis(1)).unwrap(), 1);
        assert_eq!(promised_ms(MAX_PROMISED).unwrap(), 3_600_000);
        assert_eq!(field(promised_ms(MAX_PROMISED + Duration::from_nanos(1))), "promisedDuration");
    }

    #[test]
    fn capacities_have_bounds() {
        assert_eq!(capacity(1).unwrap(), 1);
        assert_eq!(capacity(MAX_CAPACITY).unwrap(), MAX_CAPACITY);
        for bad in [i32::MIN, -1, 0, MAX_CAPACITY + 1] {
            assert_eq!(field(capacity(bad)), "capacity", "{bad}");
        }
    }

    #[test]
    fn public_keys_are_points_of_full_order_in_one_spelling() {
        let good = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        assert_eq!(public_key(good.to_owned()).unwrap(), good);
        let (upper, short, weak) = (good.to_uppercase(), good[2..].to_owned(), "0".repeat(64));
        for bad in [String::new(), upper, short, weak, format!("01{}", "0".repeat(62)), "02".repeat(32)] {
            assert_eq!(field(public_key(bad.clone())), "publicKey", "{bad}");
        }
    }

    #[test]
    fn capabilities_are_normal_or_refused() {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            capabilities(words(&["Translate", "ocr.v2", "translate", "1-a_b"]), true).unwrap().0,
            ["1-a_b", "ocr.v2", "translate"]
        );
        assert_eq!(capabilities(vec![], false).unwrap().0, Vec::<String>::new());
        assert_eq!(field(capabilities(vec![], true)), "capabilities");
        for bad in ["", ".a", "-a", "a b", "ä", "a/b", &"a".repeat(65)] {
            assert_eq!(field(capabilities(words(&["ok", bad]), true)), "capabilities.1", "{bad:?}");
        }
        let many = |count: usize| (0..count).map(|number| format!("c{number}")).collect::<Vec<_>>();
        assert_eq!(capabilities(many(20), true).unwrap().0.len(), 20);
        assert_eq!(field(capabilities(many(21), true)), "capabilities");
    }

    proptest! {
        #[test]
        fn normal_capabilities_stay_as_they_are(words in proptest::collection::vec("[a-zA-Z0-9][a-zA-Z0-9._-]{0,9}", 1..20)) {
            let normal = capabilities(words, true).unwrap();
            prop_assert!(normal.0.is_sorted());
            prop_assert_eq!(capabilities(normal.0.clone(), true).unwrap(), normal);
        }

        #[test]
        fn no_text_panics(text in ".{0,80}") {
            let _ = (name(&text), description(&text), capabilities(vec![text], true));
        }
    }
}
