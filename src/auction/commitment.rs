//! The hash that binds a bidder to a bid without telling it. It needs no server: a bidder makes it alone, keeps the salt, and tells
//! both after the close; then anybody can check it.
//!
//! ```text
//! commitment = SHA-256( "ZSAU-BID-v1\0" ‖ instance 32 ‖ auction 16 ‖ agent 16 ‖ price 8 ‖ duration 4 ‖ salt 32 )
//! ```
//!
//! All of it is 120 bytes. Ids are the 16 bytes of their UUIDs, the price is in micro-credits, the promised duration in
//! milliseconds with 0 for none; both are unsigned and big-endian. The hash names the market, the auction and the agent, so it is
//! good nowhere else and for nobody else. Prices are few, so it is the salt that hides the bid: it must be 32 random bytes, new for
//! each commitment.

use entity::{
    id::{AgentId, AuctionId, Id},
    money::Amount,
};
use sha2::{Digest, Sha256};

/// What the hash begins with, so that no other message of ours can be taken for a bid.
const TAG: &[u8] = b"ZSAU-BID-v1\0";

/// A bid as its bidder knows it before it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// What names the market; see [`crate::voucher::instance_id`].
    pub instance: [u8; 32],
    pub auction: AuctionId,
    pub agent: AgentId,
    pub price: Amount,
    /// How long the agent promises to need at most; 0 for no promise.
    pub promised_ms: u32,
    pub salt: [u8; 32],
}

impl Sealed {
    /// What is hashed.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        [
            TAG,
            &self.instance,
            self.auction.uuid().as_bytes(),
            self.agent.uuid().as_bytes(),
            // An amount is never negative.
            &self.price.micros().unsigned_abs().to_be_bytes(),
            &self.promised_ms.to_be_bytes(),
            &self.salt,
        ]
        .concat()
    }

    /// The commitment.
    #[must_use]
    pub fn commitment(&self) -> [u8; 32] {
        Sha256::digest(self.bytes()).into()
    }

    /// The commitment as it is written: 64 lower-case hexadecimal digits.
    #[must_use]
    pub fn commitment_hex(&self) -> String {
        hex::encode(self.commitment())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::voucher::read_hex;
    use proptest::prelude::*;

    fn example() -> Sealed {
        Sealed {
            instance: std::array::from_fn(|place| u8::try_from(place).unwrap()),
            auction: "auc_01h455vb4pex5vsknk084sn02q".parse().unwrap(),
            agent: "agent_01h455vb4pex5vsknk084sn02r".parse().unwrap(),
            price: "2.5".parse().unwrap(),
            promised_ms: 1_500,
            salt: [0xa5; 32],
        }
    }

    #[test]
    fn the_worked_example_of_the_documentation() {
        let bytes = example().bytes();
        assert_eq!(bytes.len(), 120);
        let document = include_str!("../../docs/auctions.md");
        assert!(document.contains(&example().commitment_hex()), "{}", example().commitment_hex());
        assert_eq!(
            hex::encode(&bytes[..60]),
            "5a5341552d4249442d763100000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f01890a5dac96774bbcceb302099a8057"
        );
        assert_eq!(hex::encode(&bytes[60..88]), "01890a5dac96774bbcceb302099a805800000000002625a0000005dc");
    }

    #[test]
    fn hex_has_one_spelling() {
        let text = "0a".repeat(32);
        assert_eq!(read_hex(&text), Ok([10; 32]));
        for bad in [text.to_uppercase(), format!("{text}0a"), "0a".repeat(31), "0g".repeat(32), String::new()] {
            assert!(read_hex::<32>(&bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_part_of_a_bid_changes_its_commitment(part in 0_usize..6, bit in 0_u32..8) {
            let mut other = example();
            let flip = 1_u8 << bit;
            match part {
                0 => other.instance[7] ^= flip,
                1 => other.auction = AuctionId(uuid::Uuid::from_u128(other.auction.0.as_u128() ^ u128::from(flip))),
                2 => other.agent = AgentId(uuid::Uuid::from_u128(other.agent.0.as_u128() ^ u128::from(flip))),
                3 => other.price = Amount::from_micros(other.price.micros() ^ i64::from(flip)).unwrap(),
                4 => other.promised_ms ^= u32::from(flip),
                _ => other.salt[31] ^= flip,
            }
            prop_assert_ne!(other.commitment(), example().commitment());
        }
    }
}
