//! The page that people look at: an auction, its first bids, and whose they are, in one statement of fixed text.
//!
//! Every page of every auction is the same statement, which is planned once and kept. The auction itself is only in the first row, so
//! that the database does not repeat it with every bid. Cells are read by their places: their names are looked up never. Pages that are
//! asked for while others are being read share a statement.

use std::{num::NonZero, sync::LazyLock, thread::available_parallelism, time::Duration};

use entity::{
    agent, auction, bid,
    id::{AuctionId, Id},
};
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DbBackend, DbErr, QueryResult, Statement, Value,
    sea_query::{self, ArrayType},
};
use sqlx::{Decode, Postgres, Row, Sqlite, types::Json};
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, Span};

use crate::{
    error::{Error, Result},
    store::{Queue, Sizes},
};

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
    /// The next cell. That its column is of this type is known from the text of the statement and the schema, so it is not asked of
    /// every cell again.
    fn take<T: sea_query::ValueType>(&mut self) -> std::result::Result<T, DbErr> {
        #[expect(clippy::wildcard_enum_match_arm, reason = "the other types are those of no column here")]
        let value = match T::array_type() {
            ArrayType::Bool => Value::Bool(self.raw()?),
            ArrayType::Int => Value::Int(self.raw()?),
            ArrayType::BigInt => Value::BigInt(self.raw()?),
            ArrayType::String => Value::String(self.raw()?),
            ArrayType::Uuid => Value::Uuid(self.raw()?),
            ArrayType::Json => Value::Json(self.raw::<Json<_>>()?.map(|Json(json)| Box::new(json))),
            other => return Err(DbErr::Type(format!("a page has no cells of {other:?}"))),
        };
        self.next += 1;
        <T as sea_query::ValueType>::try_from(value)
            .map_err(|_| DbErr::Type(format!("cell {} of a page is no {}", self.next, T::type_name())))
    }

    fn raw<T>(&self) -> std::result::Result<Option<T>, DbErr>
    where
        T: for<'r> Decode<'r, Postgres> + for<'r> Decode<'r, Sqlite>,
    {
        let cell = match (self.row.try_as_pg_row(), self.row.try_as_sqlite_row()) {
            (Some(row), _) => row.try_get_unchecked(self.next),
            (None, Some(row)) => row.try_get_unchecked(self.next),
            (None, None) => return Err(DbErr::Type("a row of another database".to_owned())),
        };
        cell.map_err(|error| DbErr::Type(error.to_string()))
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

/// The text of the statement on PostgreSQL; its parameters are the auctions and how many bids of each, as lists in text. What belongs to
/// a bid is looked up for each by itself: a plan that was made while tables were small must not read them whole when they are large.
static PAGES: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT q.place, b.place, {}, {}, {} \
         FROM UNNEST(STRING_TO_ARRAY($1, ',')::uuid[], STRING_TO_ARRAY($2, ',')::bigint[]) WITH ORDINALITY AS q (id, most, place) \
         JOIN LATERAL (SELECT s.id FROM auctions AS s WHERE s.id = q.id LIMIT 1) AS x ON TRUE \
         LEFT JOIN LATERAL (SELECT {}, ROW_NUMBER() OVER (ORDER BY p.seq) AS place FROM bids AS p WHERE p.auction_id = x.id \
         ORDER BY p.seq LIMIT q.most) AS b ON TRUE \
         LEFT JOIN LATERAL (SELECT * FROM agents AS h WHERE h.id = b.agent_id LIMIT 1) AS g ON TRUE \
         LEFT JOIN LATERAL (SELECT * FROM auctions AS t WHERE t.id = x.id AND COALESCE(b.place, 1) = 1 LIMIT 1) AS a ON TRUE",
        of("b", BID),
        of("g", AGENT),
        of("a", AUCTION),
        of("p", BID),
    )
});

/// The same for one auction on SQLite.
static PAGE: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT 1, b.place, {}, {}, {} FROM auctions AS x \
         LEFT JOIN (SELECT {}, ROW_NUMBER() OVER (ORDER BY p.seq) AS place FROM bids AS p WHERE p.auction_id = $1 \
         ORDER BY p.seq LIMIT $2) AS b ON b.auction_id = x.id \
         LEFT JOIN agents AS g ON g.id = b.agent_id \
         LEFT JOIN auctions AS a ON a.id = x.id AND COALESCE(b.place, 1) = 1 \
         WHERE x.id = $1",
        of("b", BID),
        of("g", AGENT),
        of("a", AUCTION),
        of("p", BID),
    )
});

fn of(table: &str, columns: &[&str]) -> String {
    columns.iter().map(|column| format!("{table}.{column}")).collect::<Vec<_>>().join(", ")
}

/// An auction, and how many of its first bids.
type Wanted = (AuctionId, u64);

/// Auctions with their first bids, whoever may see them: that is for the caller of this to decide. Nothing for an auction that there is
/// not. One statement on PostgreSQL; SQLite, where a statement goes to no server, has one for each.
async fn read(db: &impl ConnectionTrait, wanted: &[Wanted]) -> Result<Vec<Option<Shown>>> {
    let backend = db.get_database_backend();
    if backend == DbBackend::Sqlite {
        let mut shown = Vec::with_capacity(wanted.len());
        for (id, most) in wanted {
            let most = Value::from(i64::try_from(*most).map_err(Error::internal)?);
            let statement = Statement::from_sql_and_values(backend, PAGE.as_str(), [id.uuid().into(), most]);
            shown.extend(shown_in(&db.query_all_raw(statement).await?, 1)?);
        }
        return Ok(shown);
    }
    let ids = wanted.iter().map(|(id, _)| id.uuid().to_string()).collect::<Vec<_>>().join(",");
    let mosts = wanted.iter().map(|(_, most)| most.to_string()).collect::<Vec<_>>().join(",");
    let statement = Statement::from_sql_and_values(backend, PAGES.as_str(), [ids.into(), mosts.into()]);
    shown_in(&db.query_all_raw(statement).await?, wanted.len())
}

/// What the rows of so many pages say, in whatever order they come.
fn shown_in(rows: &[QueryResult], pages: usize) -> Result<Vec<Option<Shown>>> {
    let mut auctions = vec![None; pages];
    let mut bids: Vec<Vec<(i64, bid::Model, agent::Model)>> = vec![Vec::new(); pages];
    for row in rows {
        let mut cells = Cells { row, next: 0 };
        let page: i64 = cells.take()?;
        let page = usize::try_from(page - 1).map_err(Error::internal)?;
        let place: Option<i64> = cells.take()?;
        let (Some(auction_of), Some(bids)) = (auctions.get_mut(page), bids.get_mut(page)) else {
            return Err(Error::internal("a row of a page that nobody asked for"));
        };
        if let Some(place) = place {
            bids.push((place, bid(&mut cells)?, agent(&mut cells)?));
        }
        if place.is_none_or(|place| place == 1) {
            cells.next = 2 + BID.len() + AGENT.len();
            *auction_of = Some(auction(&mut cells)?);
        }
    }
    let shown = auctions.into_iter().zip(bids).map(|(auction, mut bids)| {
        bids.sort_unstable_by_key(|(place, ..)| *place);
        Some(Shown { auction: auction?, bids: bids.into_iter().map(|(_, bid, agent)| (bid, agent)).collect() })
    });
    Ok(shown.collect())
}

/// Who reads pages: those that are asked for while others are being read are read by one statement, whoever asks. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Pages(Queue<Request>);

/// A page that is asked for.
#[derive(Debug)]
struct Request {
    span: Span,
    db: DatabaseConnection,
    /// Whether that is the replica.
    replica: bool,
    wanted: Wanted,
    reply: oneshot::Sender<Result<Option<Shown>>>,
}

impl Request {
    async fn alone(self) {
        let shown = read(&self.db, &[self.wanted]).instrument(self.span).await;
        drop(self.reply.send(shown.map(|mut shown| shown.pop().flatten())));
    }
}

impl Pages {
    /// Those who read are on the tracker: one for each processor.
    #[must_use]
    pub fn new(tracker: TaskTracker) -> Self {
        let readers = available_parallelism().map_or(2, NonZero::get);
        let sizes = Sizes { clerks: readers, crowd: 8, most: 32, slow: Duration::from_millis(25) };
        Self(Queue::new(tracker, sizes))
    }

    /// An auction with its first `most` bids as they are at some instant during the call, whoever may see them: that is for the caller to
    /// decide. Nothing when there is no such auction.
    pub async fn page(
        &self,
        db: &DatabaseConnection,
        replica: bool,
        id: AuctionId,
        most: u64,
    ) -> Result<Option<Shown>> {
        if db.get_database_backend() == DbBackend::Sqlite {
            return Ok(read(db, &[(id, most)]).await?.pop().flatten());
        }
        let (reply, shown) = oneshot::channel();
        let request = Request { span: Span::current(), db: db.clone(), replica, wanted: (id, most), reply };
        self.0.hand_in(request, together)?;
        shown.await.map_err(|_| Error::internal("a page was not read"))?
    }
}

async fn together(batch: Vec<Request>) {
    let (there, here): (Vec<Request>, Vec<Request>) = batch.into_iter().partition(|request| request.replica);
    for mut requests in [there, here] {
        // Who was told to wait no more needs no page.
        requests.retain(|request| !request.reply.is_closed());
        let Some(first) = requests.first() else { continue };
        if requests.len() > 1 {
            let wanted: Vec<Wanted> = requests.iter().map(|request| request.wanted).collect();
            match read(&first.db, &wanted).await {
                Ok(shown) => {
                    for (request, shown) in requests.into_iter().zip(shown) {
                        drop(request.reply.send(Ok(shown)));
                    }
                    continue;
                }
                Err(error) => {
                    tracing::warn!(%error, pages = wanted.len(), "pages could not be read together; each is read alone");
                }
            }
        }
        for request in requests {
            request.alone().await;
        }
    }
}
