//! `zerostate bid`: commitments to bids, made and checked without a server, so that no machine but the bidder's own knows the price
//! before it is revealed.

use clap::{Args, Subcommand};
use entity::{
    id::{AgentId, AuctionId},
    money::Amount,
};
use serde_json::json;

use super::{failure::Failure, output::Output};
use crate::{auction::commitment::Sealed, store::Entropy, voucher::read_hex};

/// The longest promise, in milliseconds: an hour.
const MAX_PROMISE_MS: i64 = 3_600_000;

#[derive(Debug, Subcommand)]
pub(super) enum BidCommand {
    /// Make the commitment for a sealed bid. Keep what it prints: you cannot reveal the bid without it.
    Commit {
        #[command(flatten)]
        bid: BidArgs,
        /// 32 random bytes in hex; fresh ones when it is left out.
        #[arg(long, value_parser = bytes)]
        salt: Option<[u8; 32]>,
    },
    /// Check that a revealed bid is the one that was committed to; exits with 1 when it is not.
    Inspect {
        #[command(flatten)]
        bid: BidArgs,
        /// The salt that was revealed.
        #[arg(long, value_parser = bytes)]
        salt: [u8; 32],
        /// The commitment.
        #[arg(long, value_parser = bytes)]
        commitment: [u8; 32],
    },
}

/// What a commitment binds.
#[derive(Clone, Debug, Args)]
pub(super) struct BidArgs {
    /// The market, `instanceId` of the auction.
    #[arg(long, value_name = "HEX", value_parser = bytes)]
    instance: [u8; 32],
    /// The auction, `auc_…`.
    #[arg(long)]
    auction: AuctionId,
    /// The agent that bids, `agent_…`.
    #[arg(long)]
    agent: AgentId,
    /// What it asks, in credits.
    #[arg(long)]
    price: Amount,
    /// The promised duration in milliseconds; 0 promises nothing.
    #[arg(long, value_name = "MS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=MAX_PROMISE_MS))]
    promised_ms: u32,
}

impl BidArgs {
    fn sealed(&self, salt: [u8; 32]) -> Sealed {
        Sealed {
            instance: self.instance,
            auction: self.auction,
            agent: self.agent,
            price: self.price,
            promised_ms: self.promised_ms,
            salt,
        }
    }
}

fn bytes(text: &str) -> Result<[u8; 32], &'static str> {
    read_hex(text).map_err(|_| "must be 64 lower-case hexadecimal digits")
}

pub(super) fn run(command: &BidCommand) -> Result<(), Failure> {
    match command {
        BidCommand::Commit { bid, salt } => {
            if bid.price.is_zero() {
                return Err(Failure::failed("A price of nothing is no bid.", "Name a price above zero."));
            }
            let sealed = bid.sealed(salt.unwrap_or_else(|| Entropy::system().bytes()));
            print(&sealed)
        }
        BidCommand::Inspect { bid, salt, commitment } => {
            let sealed = bid.sealed(*salt);
            if sealed.commitment() != *commitment {
                let what = format!("These values make the commitment {}, not that one.", sealed.commitment_hex());
                return Err(Failure::failed(what, "Do not accept the bid as the one that was committed to."));
            }
            print(&sealed)
        }
    }
}

fn print(sealed: &Sealed) -> Result<(), Failure> {
    let document = json!({
        "commitment": sealed.commitment_hex(),
        "salt": hex::encode(sealed.salt),
        "price": sealed.price.to_string(),
        "promisedMs": sealed.promised_ms,
        "auctionId": sealed.auction.to_string(),
        "agentId": sealed.agent.to_string(),
        "instanceId": hex::encode(sealed.instance),
    });
    Ok(Output::new().json(&document)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(price: &str) -> BidArgs {
        BidArgs {
            instance: [1; 32],
            auction: "auc_01h455vb4pex5vsknk084sn02q".parse().unwrap(),
            agent: "agent_01h455vb4pex5vsknk084sn02r".parse().unwrap(),
            price: price.parse().unwrap(),
            promised_ms: 0,
        }
    }

    #[test]
    fn a_bid_that_is_not_the_committed_one_is_found_out() {
        let commitment = args("2").sealed([7; 32]).commitment();
        let inspect = |price: &str, salt| run(&BidCommand::Inspect { bid: args(price), salt, commitment });
        assert!(inspect("2", [7; 32]).is_ok());
        assert!(inspect("2.000001", [7; 32]).is_err());
        assert!(inspect("2", [8; 32]).is_err());
        assert!(run(&BidCommand::Commit { bid: args("0"), salt: None }).is_err());
    }
}
