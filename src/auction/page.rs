//! The page that people look at: an auction, its first bids, and whose they are, in one statement of fixed text.
//!
//! Every page of every auction is the same statement, which is planned once and kept. The auction itself is only in the first row, so
//! that the database does not repeat it with every bid. Cells are read by their places: their names are looked up never.

use std::sync::LazyLock;

use entity::{
    agent, auction, bid,
    id::{AuctionId, Id},
};
use sea_orm::{ConnectionTrait, DbErr, QueryResult, Statement, TryGetable, Value};

use crate::error::{Error, Result};

/// An auction with its first bids in the order in which they came, and their agents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    pub auction: auction::Model,
    pub bids: Vec<(bid::Model, agent::Model)>,
}

/// The cells of a row from left to right.
struct Cells<'a> {
    row: &'a QueryResult,
    next: usize,
}

impl Cells<'_> {
    fn take<T: TryGetable>(&mut self) -> std::result::Result<T, DbErr> {
        let cell = self.row.try_get_by_index(self.next)?;
        self.next += 1;
        Ok(cell)
    }
}

/// Names the columns of a noun and reads them in that order. A column that is not named here does not compile.
macro_rules! columns {
    ($names:ident, $read:ident, $noun:ident: $($column:ident)+) => {
        const $names: &[&str] = &[$(stringify!($column)),+];

        fn $read(cells: &mut Cells<'_>) -> std::result::Result<$noun::Model, DbErr> {
            Ok($noun::Model { $($column: cells.take()?),+ })
        }
    };
}

columns! { BID, bid, bid:
    id auction_id agent_id bidder_id price promised_ms seq status reputation rank created_at bond_id fuel_price
}
columns! { AGENT, agent, agent:
    id owner_id name description capabilities runtime status price min_price promised_ms module_id score last_seen_at version
    created_at updated_at public_key capacity in_work fuel_price webhook_url webhook_generation
}
columns! { AUCTION, auction, auction:
    id task_id requester_id status kind visibility award_mode budget max_price reserve_price min_reputation price_weight
    reputation_weight capabilities closes_at close_after_bids soft_close_ms extensions next_seq bid_count winning_bid_id
    clearing_price deadline_at created_at closed_at reveal_ms bond reveal_until commitment_count excluded online_only
}

/// The text of the statement; its parameters are the auction and how many bids.
static PAGE: LazyLock<String> = LazyLock::new(|| {
    let of = |table: &str, columns: &[&str]| {
        columns.iter().map(|column| format!("{table}.{column}")).collect::<Vec<_>>().join(", ")
    };
    format!(
        "SELECT b.place, {}, {}, {} FROM auctions AS x \
         LEFT JOIN (SELECT {}, ROW_NUMBER() OVER (ORDER BY p.seq) AS place FROM bids AS p WHERE p.auction_id = $1 \
         ORDER BY p.seq LIMIT $2) AS b ON b.auction_id = x.id \
         LEFT JOIN agents AS g ON g.id = b.agent_id \
         LEFT JOIN auctions AS a ON a.id = x.id AND COALESCE(b.place, 1) = 1 \
         WHERE x.id = $1 ORDER BY b.place",
        of("b", BID),
        of("g", AGENT),
        of("a", AUCTION),
        of("p", BID),
    )
});

/// An auction with its first `most` bids, whoever may see them: that is for the caller of this to decide. Nothing when there is no
/// such auction.
pub async fn page(db: &impl ConnectionTrait, id: AuctionId, most: u64) -> Result<Option<Shown>> {
    let most = Value::from(i64::try_from(most).map_err(Error::internal)?);
    let statement = Statement::from_sql_and_values(db.get_database_backend(), PAGE.as_str(), [id.uuid().into(), most]);
    let rows = db.query_all_raw(statement).await?;
    let mut found = None;
    let mut bids = Vec::with_capacity(rows.len());
    for row in &rows {
        let mut cells = Cells { row, next: 0 };
        let place: Option<i64> = cells.take()?;
        if place.is_some() {
            bids.push((bid(&mut cells)?, agent(&mut cells)?));
        }
        if found.is_none() {
            cells.next = 1 + BID.len() + AGENT.len();
            found = Some(auction(&mut cells)?);
        }
    }
    Ok(found.map(|auction| Shown { auction, bids }))
}
