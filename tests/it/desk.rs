//! Bids that arrive together: written together, and each as if it had been alone.

use std::collections::BTreeSet;

use entity::{
    auction, bid,
    event::Kind,
    id::{AgentId, AuctionId, UserId},
    money::Amount,
    user::Role,
};
use futures_util::future::join_all;
use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder};
use serde_json::json;
use zerostate::{
    auction::NewBid,
    caller::{Caller, Identity},
    error::{Error, Result},
    store::{Answer, Cursor, Once, Topic, Work},
};

use crate::world::{Client, World, on_postgres};

type Answered = Result<Answer<bid::Model>>;

struct Floor {
    world: World,
    ada: Client,
    bob: Client,
    agents: Vec<AgentId>,
}

fn caller(client: &Client) -> Caller {
    let user: UserId = client.id().parse().unwrap();
    Caller::User(Identity { user, role: Role::User, session: None, key: None, expires_at: None })
}

fn amount(micros: i64) -> Amount {
    Amount::from_micros(micros).unwrap()
}

impl Floor {
    async fn start(agents: usize) -> Self {
        let world = World::start().await;
        let (ada, bob) = (world.user("ada").await, world.user("bob").await);
        world.credit(&ada, "1000").await;
        let mut ids = Vec::new();
        for number in 0..agents {
            ids.push(world.agent(&bob, &format!("agent-{number}"), "EXTERNAL", "text.stats", "1").await);
        }
        Self { world, ada, bob, agents: ids }
    }

    async fn open(&self, terms: serde_json::Value) -> AuctionId {
        self.ada.open(terms).await.parse().unwrap()
    }

    async fn bid(&self, who: &Client, key: &str, auction: AuctionId, agent: AgentId, micros: i64) -> Answered {
        let once = Once::new("submitBid", key, &json!([auction.to_string(), agent.to_string(), micros])).unwrap();
        let offer = NewBid { auction, agent, price: amount(micros), promised: None };
        self.world.app.desk().submit(caller(who), once, offer).await
    }

    async fn bids(&self, auction: AuctionId) -> Vec<bid::Model> {
        let bids = bid::Entity::find().filter(bid::Column::AuctionId.eq(auction)).order_by_asc(bid::Column::Seq);
        bids.all(self.world.app.store().read()).await.unwrap()
    }

    async fn auction(&self, id: AuctionId) -> auction::Model {
        auction::Entity::find_by_id(id).one(self.world.app.store().read()).await.unwrap().unwrap()
    }
}

fn refusal(answered: &Answered) -> &str {
    match answered {
        Ok(Answer { outcome: Err(refusal), .. }) => &refusal.code,
        other => panic!("it was not refused: {other:?}"),
    }
}

fn price(answered: &Answered) -> i64 {
    match answered {
        Ok(Answer { outcome: Ok(bid), .. }) => bid.price.micros(),
        other => panic!("it does not stand: {other:?}"),
    }
}

#[tokio::test]
async fn bids_that_arrive_together_are_written_together_in_one_order() {
    let floor = Floor::start(40).await;
    let (hot, other) = (floor.open(json!({})).await, floor.open(json!({})).await);
    let before = floor.world.app.store().commits();
    let keys: Vec<String> = (0..80).map(|number| format!("bid-{number}")).collect();
    let asked = keys.iter().enumerate().map(|(number, key)| {
        let (auction, agent) = (if number % 2 == 0 { hot } else { other }, floor.agents[number / 2]);
        floor.bid(&floor.bob, key, auction, agent, 1_000_000 + i64::try_from(number).unwrap())
    });
    let answers = join_all(asked).await;
    let commits = floor.world.app.store().commits() - before;
    assert!(commits < 40, "{commits} commits of 80 bids");
    for (number, answer) in answers.iter().enumerate() {
        assert_eq!(price(answer), 1_000_000 + i64::try_from(number).unwrap());
        assert!(!answer.as_ref().unwrap().replayed);
    }
    for auction in [hot, other] {
        let row = floor.auction(auction).await;
        assert_eq!((row.bid_count, row.next_seq), (40, 41));
        let bids = floor.bids(auction).await;
        assert_eq!(bids.iter().map(|bid| bid.seq).collect::<Vec<_>>(), (1..=40).collect::<Vec<_>>());
        assert_eq!(bids.iter().map(|bid| bid.agent_id).collect::<BTreeSet<_>>().len(), 40);
        // Each is told as its bidder's doing, with the count as it was then.
        let lines =
            floor.world.app.store().lines(Some(Topic::Auction(auction)), Some(Cursor::default()), 500).await.unwrap();
        let told: Vec<_> = lines.iter().filter(|line| line.event.kind == Kind::BidSubmitted).collect();
        let counts: Vec<_> = told.iter().map(|line| line.event.payload.bid_count.unwrap()).collect();
        assert_eq!(counts, (1..=40).collect::<Vec<_>>());
        let bob: UserId = floor.bob.id().parse().unwrap();
        assert!(told.iter().all(|line| line.event.actor_id == Some(bob)));
    }
    // The same again, with the same keys.
    let again = join_all(keys.iter().enumerate().map(|(number, key)| {
        let (auction, agent) = (if number % 2 == 0 { hot } else { other }, floor.agents[number / 2]);
        floor.bid(&floor.bob, key, auction, agent, 1_000_000 + i64::try_from(number).unwrap())
    }))
    .await;
    for (first, again) in answers.iter().zip(&again) {
        assert!(again.as_ref().unwrap().replayed);
        assert_eq!(first.as_ref().unwrap().outcome, again.as_ref().unwrap().outcome);
    }
    assert_eq!(floor.bids(hot).await.len(), 40);
    floor.world.check().await;
}

#[tokio::test]
async fn each_of_many_is_refused_or_stands_by_itself() {
    let floor = Floor::start(12).await;
    let plain = floor.open(json!({ "maxPrice": "5" })).await;
    let bonded = floor.open(json!({ "bidBond": "1" })).await;
    let nobodys: AuctionId = "auc_01h455vb4pex5vsknk084sn02q".parse().unwrap();
    let adas = floor.world.agent(&floor.ada, "adas", "EXTERNAL", "text.stats", "1").await;
    let a = &floor.agents;
    let (bob, ada) = (&floor.bob, &floor.ada);
    floor.world.credit(bob, "10").await;
    let answers = join_all([
        floor.bid(bob, "first", plain, a[0], 2_000_000),
        floor.bid(bob, "fine", plain, a[1], 2_000_001),
        floor.bid(bob, "dear", plain, a[2], 5_000_001),
        floor.bid(bob, "nothing", plain, a[3], 0),
        floor.bid(bob, "nobodys", nobodys, a[4], 2_000_000),
        floor.bid(ada, "theirs", plain, a[5], 2_000_000),
        floor.bid(ada, "own", plain, adas, 2_000_000),
        floor.bid(bob, "bonded", bonded, a[6], 2_000_002),
        floor.bid(bob, "twice", plain, a[7], 2_000_003),
        floor.bid(bob, "twice", plain, a[7], 2_000_003),
        floor.bid(bob, "other", plain, a[8], 2_000_004),
        floor.bid(bob, "other", plain, a[9], 2_000_004),
        floor.bid(bob, "low", plain, a[10], 3_000_000),
        floor.bid(bob, "lower", plain, a[10], 2_500_000),
    ])
    .await;
    assert_eq!(price(&answers[0]), 2_000_000);
    assert_eq!(price(&answers[1]), 2_000_001);
    assert_eq!(refusal(&answers[2]), "PRICE_ABOVE_CEILING");
    assert!(matches!(&answers[3], Err(Error::Invalid { field, .. }) if field == "price"), "{:?}", answers[3]);
    assert!(matches!(answers[4], Err(Error::NotFound("auction"))), "{:?}", answers[4]);
    assert!(matches!(answers[5], Err(Error::NotFound("agent"))), "{:?}", answers[5]);
    assert_eq!(refusal(&answers[6]), "OWN_AUCTION");
    assert_eq!(price(&answers[7]), 2_000_002);
    assert_eq!((price(&answers[8]), price(&answers[9])), (2_000_003, 2_000_003));
    assert!(answers[8].as_ref().unwrap().replayed != answers[9].as_ref().unwrap().replayed);
    let reused = [&answers[10], &answers[11]].map(std::result::Result::is_err);
    assert_eq!(reused.iter().filter(|it| **it).count(), 1, "one of the two intents under one key stands: {reused:?}");
    assert_eq!((price(&answers[12]), price(&answers[13])), (3_000_000, 2_500_000));
    let live = floor.bids(plain).await.into_iter().filter(|bid| bid.status == bid::Status::Active);
    assert_eq!(live.filter(|bid| bid.agent_id == a[10]).count(), 1);
    assert_eq!(floor.auction(plain).await.bid_count, 5);
    // A refusal is an answer: it stays when the reason is gone.
    let again = floor.bid(bob, "dear", plain, a[2], 5_000_001).await;
    assert!(again.as_ref().unwrap().replayed);
    assert_eq!(refusal(&again), "PRICE_ABOVE_CEILING");
    floor.world.check().await;
}

#[tokio::test]
async fn when_bids_cannot_be_written_together_each_is_tried_alone() {
    let floor = Floor::start(20).await;
    let auction = floor.open(json!({})).await;
    // The database refuses one of them, whatever we think of it.
    let statements: &[&str] = if on_postgres() {
        &[
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$",
            "CREATE TRIGGER refuse BEFORE INSERT ON bids FOR EACH ROW WHEN (NEW.price = 6660000) EXECUTE FUNCTION refuse()",
        ]
    } else {
        &["CREATE TRIGGER refuse BEFORE INSERT ON bids WHEN NEW.price = 6660000 BEGIN SELECT RAISE(ABORT, 'no'); END"]
    };
    let prepare = async |work: &mut Work| {
        for statement in statements {
            work.tx().execute_unprepared(statement).await?;
        }
        Ok(())
    };
    floor.world.app.store().write(Caller::System, prepare).await.unwrap();
    let answers = join_all(floor.agents.iter().enumerate().map(|(number, agent)| {
        let (floor, micros) = (&floor, if number == 13 { 6_660_000 } else { 2_000_000 });
        async move { floor.bid(&floor.bob, &format!("key-{number}"), auction, *agent, micros).await }
    }))
    .await;
    for (number, answer) in answers.iter().enumerate() {
        assert_eq!(answer.is_err(), number == 13, "{number}: {answer:?}");
    }
    assert_eq!(floor.auction(auction).await.bid_count, 19);
    let seqs: Vec<i32> = floor.bids(auction).await.iter().map(|bid| bid.seq).collect();
    assert_eq!(seqs, (1..=19).collect::<Vec<_>>());
    floor.world.check().await;
}
