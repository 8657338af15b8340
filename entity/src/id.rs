//! Typed ids. In the database an id is a UUID version 7, so it sorts by the time it was made; on the wire it is a
//! [TypeID](https://github.com/jetify-com/typeid/tree/main/spec): the noun's prefix, an underscore and the UUID in 26
//! characters of Crockford's base32. The prefix makes it impossible to pass an agent where a task is meant.

use std::{fmt, str::FromStr};

use sea_orm::DeriveValueType;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const ENCODED: usize = 26;

/// Why a text is not an id of the expected kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// The text does not start with the prefix of this noun.
    #[error("is not an id of this kind: it must start with \"{0}_\"")]
    Prefix(&'static str),
    /// The part behind the prefix is not 26 characters of lower-case base32 that fit 128 bits.
    #[error("is not a well-formed id")]
    Malformed,
}

/// What every id can do, so that code may be written for all of them.
pub trait Id: Copy + Eq + fmt::Display + FromStr<Err = InvalidId> + Send + Sync + 'static {
    /// The TypeID prefix, for example `agent`.
    const PREFIX: &'static str;
    /// Wraps a UUID that is known to be an id of this noun.
    fn from_uuid(uuid: Uuid) -> Self;
    /// The UUID as stored.
    fn uuid(self) -> Uuid;
}

/// The 26 base32 characters of a UUID, most significant bits first.
#[must_use]
pub fn encode(uuid: Uuid) -> String {
    wire("", uuid)
}

/// A prefix and the characters of a UUID behind it.
fn wire(prefix: &str, uuid: Uuid) -> String {
    let bits = uuid.as_u128();
    let mut text = String::with_capacity(prefix.len() + ENCODED);
    text.push_str(prefix);
    for place in (0..ENCODED).rev() {
        let index = usize::try_from((bits >> (5 * place)) & 31).unwrap_or(0);
        text.extend(ALPHABET.get(index).copied().map(char::from));
    }
    text
}

/// Reads what [`encode`] wrote. Upper case, the letters i, l, o, u and values above 128 bits are refused, so that an id has
/// exactly one spelling.
pub fn decode(text: &str) -> Result<Uuid, InvalidId> {
    if text.len() != ENCODED || text.as_bytes().first().is_none_or(|first| *first > b'7') {
        return Err(InvalidId::Malformed);
    }
    text.bytes()
        .try_fold(0_u128, |bits, byte| {
            let digit = ALPHABET.iter().position(|letter| *letter == byte)?;
            Some(bits << 5 | u128::try_from(digit).ok()?)
        })
        .map(Uuid::from_u128)
        .ok_or(InvalidId::Malformed)
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, DeriveValueType)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl Id for $name {
            const PREFIX: &'static str = $prefix;
            fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }
            fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl From<Uuid> for $name {
            fn from(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }

        impl sea_orm::TryFromU64 for $name {
            fn try_from_u64(_: u64) -> Result<Self, sea_orm::DbErr> {
                Err(sea_orm::DbErr::ConvertFromU64(stringify!($name)))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&wire(concat!($prefix, "_"), self.0))
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let encoded = text.strip_prefix(concat!($prefix, "_")).ok_or(InvalidId::Prefix($prefix))?;
                decode(encoded).map(Self)
            }
        }
    )*};
}

ids! {
    /// A person or organisation with a wallet.
    UserId = "user";
    /// One sign-in, renewed by refresh tokens.
    SessionId = "sess";
    /// A long-lived credential for a program.
    ApiKeyId = "key";
    /// A seller of work.
    AgentId = "agent";
    /// One version of a hosted agent's WebAssembly module.
    ModuleId = "mod";
    /// A piece of work that somebody pays for.
    TaskId = "task";
    /// The auction that finds a task's agent.
    AuctionId = "auc";
    /// An agent's offer in an auction.
    BidId = "bid";
    /// A payment channel between a payer and an agent.
    ChannelId = "chan";
    /// A ledger account.
    AccountId = "acct";
    /// One movement of credits between two accounts.
    TransferId = "tr";
    /// Transfers that were posted together, all or none.
    BatchId = "batch";
    /// Credits set aside for one purpose, resolved exactly once.
    HoldId = "hold";
    /// The running of one awarded task by one agent.
    ExecutionId = "exec";
    /// A payer's stars for one settled task.
    RatingId = "rating";
    /// One piece of evidence about an agent.
    ReputationEventId = "rep";
    /// The quarrel over one task's result.
    DisputeId = "disp";
    /// What a party shows in a dispute.
    EvidenceId = "evid";
    /// What stands behind one agent's word in one auction.
    BondId = "bond";
    /// A bid that is not told yet.
    CommitmentId = "com";
    /// A signed document.
    DocumentId = "doc";
    /// Two vouchers of one nonce that contradict each other.
    EquivocationId = "equiv";
    /// One goal, split over several agents.
    DelegationId = "dlg";
    /// One step of a delegation's plan.
    StepId = "step";
    /// One message to an outside agent's own address.
    DeliveryId = "dlv";
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_valid_vectors_of_the_typeid_specification_round_trip() {
        for (text, uuid) in [
            ("00000000000000000000000000", "00000000-0000-0000-0000-000000000000"),
            ("00000000000000000000000001", "00000000-0000-0000-0000-000000000001"),
            ("0000000000000000000000000a", "00000000-0000-0000-0000-00000000000a"),
            ("00000000000000000000000010", "00000000-0000-0000-0000-000000000020"),
            ("7zzzzzzzzzzzzzzzzzzzzzzzzz", "ffffffff-ffff-ffff-ffff-ffffffffffff"),
            ("0123456789abcdefghjkmnpqrs", "0110c853-1d09-52d8-d73e-1194e95b5f19"),
            ("01h455vb4pex5vsknk084sn02q", "01890a5d-ac96-774b-bcce-b302099a8057"),
        ] {
            let uuid: Uuid = uuid.parse().unwrap();
            assert_eq!(decode(text), Ok(uuid));
            assert_eq!(encode(uuid), text);
        }
    }

    #[test]
    fn another_nouns_id_and_other_spellings_are_refused() {
        let agent = AgentId(Uuid::from_u128(7)).to_string();
        assert_eq!(agent.parse::<TaskId>(), Err(InvalidId::Prefix("task")));
        for bad in [
            "",
            "agent_",
            "agent_8zzzzzzzzzzzzzzzzzzzzzzzzz",
            "agent_0000000000000000000000000I",
            "agent_000000000000000000000000é",
        ] {
            assert!(bad.parse::<AgentId>().is_err(), "{bad}");
        }
        assert!(agent.to_uppercase().parse::<AgentId>().is_err());
    }

    proptest! {
        #[test]
        fn every_uuid_round_trips(bits: u128) {
            let id = BidId(Uuid::from_u128(bits));
            prop_assert_eq!(id.to_string().parse::<BidId>(), Ok(id));
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = text.parse::<UserId>();
            let _ = decode(&text);
        }
    }
}
