//! The verbs on a real database; see the tests of `agent` for which.

use entity::{
    account, auction, bid, channel, hold,
    id::{AccountId, BidId, ChannelId, HoldId},
    text::{JsonText, Words},
};
use sea_orm::PaginatorTrait;

use super::*;
use crate::{
    agent::tests::World,
    caller::{Caller, Identity, KeyGrant},
};

const DAY: Duration = Duration::from_hours(24);

fn credits(credits: u32) -> Amount {
    Amount::from_credits(credits).unwrap()
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T>, code: &str) {
    assert_eq!(result.unwrap_err().refusal_code(), Some(code));
}

impl World {
    /// A task as a settlement leaves it, with the rows that it refers to.
    async fn settled_task(&self, payer: &Caller, agent: &agent::Model, status: task::Status) -> task::Model {
        let requester_id = payer.user().unwrap();
        self.store
            .write(Caller::System, async |work| {
                let now = work.now();
                let (escrow, wallet): (AccountId, AccountId) = (work.fresh(), work.fresh());
                let (hold_id, bid_id, channel_id): (HoldId, BidId, ChannelId) =
                    (work.fresh(), work.fresh(), work.fresh());
                let price = credits(10);
                let task = task::Model {
                    id: work.fresh(),
                    requester_id,
                    title: "Summarize".into(),
                    capabilities: agent.capabilities.clone(),
                    input: JsonText("{}".into()),
                    input_sha256: "0".repeat(64),
                    output_schema: None,
                    budget: price,
                    status,
                    timeout_ms: 1_000,
                    max_attempts: 1,
                    start_timeout_ms: 1_000,
                    hold_id,
                    bid_id: Some(bid_id),
                    agent_id: Some(agent.id),
                    channel_id: Some(channel_id),
                    price: Some(price),
                    paid: Some(price),
                    deadline_at: (status == task::Status::Running).then_some(now),
                    failure_code: None,
                    failure_message: None,
                    created_at: now,
                    awarded_at: Some(now),
                    started_at: Some(now),
                    finished_at: (status != task::Status::Running).then_some(now),
                    acceptance: task::Acceptance::Automatic,
                    review_ms: None,
                    verified: None,
                    submitted_at: None,
                    delegation_id: None,
                    priority: task::Priority::Normal,
                    purpose: task::Purpose::Work,
                    checker_id: None,
                    charge: None,
                };
                for (id, kind) in [(escrow, account::Kind::EscrowTask), (wallet, account::Kind::EscrowChannel)] {
                    let row = account::Model {
                        id,
                        kind,
                        owner_id: task.id.0,
                        shard: 0,
                        balance: 0,
                        version: 0,
                        created_at: now,
                    };
                    let row = row.into_active_model().reset_all();
                    account::Entity::insert(row).exec_without_returning(work.tx()).await?;
                }
                let row = task.clone().into_active_model().reset_all();
                task::Entity::insert(row).exec_without_returning(work.tx()).await?;
                let hold = hold::Model {
                    id: hold_id,
                    escrow_id: escrow,
                    payer_account_id: wallet,
                    task_id: task.id,
                    amount: price,
                    status: hold::Status::Posted,
                    created_at: now,
                };
                let row = hold.into_active_model().reset_all();
                hold::Entity::insert(row).exec_without_returning(work.tx()).await?;
                let auction = auction::Model {
                    id: work.fresh(),
                    task_id: task.id,
                    requester_id,
                    status: auction::Status::Awarded,
                    kind: auction::Kind::FirstPrice,
                    visibility: auction::Visibility::Sealed,
                    award_mode: auction::AwardMode::Automatic,
                    budget: price,
                    max_price: price,
                    reserve_price: None,
                    min_reputation: 0,
                    price_weight: 4_000,
                    reputation_weight: 6_000,
                    capabilities: Words::default(),
                    closes_at: now,
                    close_after_bids: None,
                    soft_close_ms: 0,
                    extensions: 0,
                    next_seq: 2,
                    bid_count: 1,
                    winning_bid_id: Some(bid_id),
                    clearing_price: Some(price),
                    deadline_at: None,
                    created_at: now,
                    closed_at: Some(now),
                    reveal_ms: 0,
                    bond: Amount::ZERO,
                    reveal_until: None,
                    commitment_count: 0,
                    excluded: Words::default(),
                    online_only: false,
                };
                let auction_id = auction.id;
                let row = auction.into_active_model().reset_all();
                auction::Entity::insert(row).exec_without_returning(work.tx()).await?;
                let bid = bid::Model {
                    id: bid_id,
                    auction_id,
                    agent_id: agent.id,
                    bidder_id: agent.owner_id,
                    price,
                    promised_ms: None,
                    seq: 1,
                    status: bid::Status::Won,
                    reputation: None,
                    rank: Some(1),
                    created_at: now,
                    bond_id: None,
                    fuel_price: None,
                };
                let row = bid.into_active_model().reset_all();
                bid::Entity::insert(row).exec_without_returning(work.tx()).await?;
                let channel = channel::Model {
                    id: channel_id,
                    purpose: channel::Purpose::Escrow,
                    payer_id: requester_id,
                    agent_id: agent.id,
                    task_id: Some(task.id),
                    hold_id: Some(hold_id),
                    deposit: price,
                    paid: price,
                    nonce: 2,
                    status: channel::Status::Closed,
                    close_reason: Some(channel::CloseReason::Settled),
                    opened_at: now,
                    expires_at: now,
                    closed_at: Some(now),
                    hash: None,
                    signer_key: None,
                    salt: None,
                    settle_delay_s: None,
                    voucher_nonce: 0,
                    fee_bps: 0,
                    close_at: None,
                };
                let row = channel.into_active_model().reset_all();
                channel::Entity::insert(row).exec_without_returning(work.tx()).await?;
                Ok(task)
            })
            .await
            .unwrap()
    }

    async fn outcome(&self, task: &task::Model, agent: &agent::Model, cause: Cause) -> Result<reputation_event::Model> {
        let evidence = Evidence {
            task,
            agent,
            cause,
            amount: task.price.unwrap(),
            worked: Some(Duration::from_millis(1_500)),
            promised: Some(Duration::from_secs(1)),
            paid: task.price.unwrap(),
        };
        self.store.write(Caller::System, async |work| record_outcome(work, evidence).await).await
    }

    /// A task of the payer's that the agent ends in this way.
    async fn works(
        &self,
        payer: &Caller,
        agent: &agent::Model,
        cause: Cause,
    ) -> (task::Model, reputation_event::Model) {
        let status = match cause {
            Cause::Success => task::Status::Completed,
            Cause::Failure | Cause::Ruling | Cause::Timeout | Cause::Rating => task::Status::Refunded,
        };
        let task = self.settled_task(payer, agent, status).await;
        let event = self.outcome(&task, agent, cause).await.unwrap();
        (task, event)
    }

    async fn rates(&self, caller: &Caller, task: TaskId, stars: i32) -> Result<rating::Model> {
        let comment = Some(" Fine work. ".to_owned());
        self.store.write(caller.clone(), async |work| rate(work, NewRating { task, stars, comment }).await).await
    }

    async fn row(&self, agent: AgentId) -> Option<reputation::Model> {
        reputation::Entity::find_by_id(agent).one(self.store.read()).await.unwrap()
    }

    async fn explained(&self, agent: AgentId) -> Breakdown {
        breakdown(self.store.read(), agent, self.now()).await.unwrap()
    }

    async fn proves(&self, agent: AgentId) -> bool {
        replay(self.store.read(), agent).await.unwrap()
    }
}

#[tokio::test]
async fn a_newcomer_has_a_standing_without_a_row_and_reading_makes_none() {
    let world = World::open().await;
    let owner = world.person("ada").await;
    let agent = world.agent(&owner, "worker").await;
    let standing = standings(world.store.read(), &[agent.id], world.now()).await.unwrap();
    assert_eq!(standing[&agent.id], Standing { score_milli: 42_500, basis_points: 4_250 });
    let explained = world.explained(agent.id).await;
    assert_eq!((explained.score_milli, explained.wilson_lower, explained.mean_work_ms), (42_500, None, None));
    assert_eq!(explained.factors.iter().map(|factor| factor.points).sum::<i32>(), 42_500);
    assert!(world.row(agent.id).await.is_none() && world.proves(agent.id).await);
    let nobody = AgentId(agent.owner_id.0);
    assert!(matches!(breakdown(world.store.read(), nobody, world.now()).await, Err(Error::NotFound("agent"))));
    assert!(matches!(replay(world.store.read(), nobody).await, Err(Error::NotFound("agent"))));
    assert_eq!(agent.score, rules::NEWCOMER);
    assert!(standings(world.store.read(), &[], world.now()).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_success_raises_an_agent_and_tells_everybody_without_naming_the_task() {
    let world = World::open().await;
    let (payer, owner) = (world.person("pat").await, world.person("ada").await);
    let agent = world.agent(&owner, "worker").await;
    let (task, event) = world.works(&payer, &agent, Cause::Success).await;
    // The first task of the market weighs one half: its own price stands for the usual one.
    assert_eq!((event.weight, event.version), (rules::UNIT / 2, 1));
    assert_eq!((event.success, event.timeliness), (Some(rules::UNIT), Some(rules::UNIT / 2)));
    assert_eq!((event.rating, event.cost), (None, None));
    assert_eq!(event.score_before, rules::NEWCOMER);
    assert!(event.score_after > event.score_before);
    let row = world.row(agent.id).await.unwrap();
    assert_eq!((row.tasks, row.successes, row.failures), (1, 1, 0));
    assert_eq!((row.earned, row.busy_ms, row.version), (10_000_000, 1_500, 1));
    let explained = world.explained(agent.id).await;
    assert_eq!(explained.score_milli, event.score_after);
    assert_eq!((explained.wilson_lower, explained.mean_work_ms), (Some(2_065), Some(1_500)));
    assert_eq!(explained.earned, credits(10));
    let copied = agent::Entity::find_by_id(agent.id).one(world.store.read()).await.unwrap().unwrap();
    assert_eq!((copied.score, copied.version), (event.score_after, agent.version));
    assert!(world.proves(agent.id).await);

    let told = entity::event::Entity::find().one(world.store.read()).await.unwrap().unwrap();
    assert_eq!(
        (told.kind, told.agent_id, told.owner_id),
        (Kind::ReputationChanged, Some(agent.id), Some(agent.owner_id))
    );
    assert_eq!((told.task_id, told.payer_id, told.auction_id), (None, None, None));
    assert_eq!((told.payload.score_before, told.payload.score_after), (Some(42_500), Some(event.score_after)));
    assert_eq!(told.payload.reason.as_deref(), Some("SUCCESS"));
    assert!(world.outcome(&task, &agent, Cause::Failure).await.is_err(), "a task is an outcome once");
    assert_eq!(world.row(agent.id).await.unwrap(), row);
}

#[tokio::test]
async fn a_failure_and_a_win_that_was_not_started_lower_an_agent() {
    let world = World::open().await;
    let (payer, owner) = (world.person("pat").await, world.person("ada").await);
    let agent = world.agent(&owner, "worker").await;
    for (cause, failures) in [(Cause::Failure, 1), (Cause::Timeout, 2)] {
        let (_, event) = world.works(&payer, &agent, cause).await;
        assert_eq!((event.success, event.timeliness), (Some(0), None));
        assert!(event.score_after < event.score_before);
        let row = world.row(agent.id).await.unwrap();
        assert_eq!((row.tasks, row.failures, row.successes), (failures, failures, 0));
        assert_eq!((row.earned, row.busy_ms), (0, 0));
    }
    assert!(world.proves(agent.id).await);
}

#[tokio::test]
async fn a_client_that_comes_again_to_the_same_owner_counts_less() {
    let world = World::open().await;
    let (payer, owner) = (world.person("pat").await, world.person("ada").await);
    let (first, second) = (world.agent(&owner, "one").await, world.agent(&owner, "two").await);
    let mut weights = Vec::new();
    for agent in [&first, &second, &first] {
        weights.push(world.works(&payer, agent, Cause::Success).await.1.weight);
    }
    assert_eq!(weights, [500_000_000, 250_000_000, 166_666_666]);
    // A win that was not started is no settled task of the pair, and another client is another pair.
    world.works(&payer, &first, Cause::Timeout).await;
    assert_eq!(world.works(&payer, &first, Cause::Failure).await.1.weight, 125_000_000);
    let other = world.person("kim").await;
    assert_eq!(world.works(&other, &first, Cause::Success).await.1.weight, 500_000_000);
    world.store.clock().advance(rules::PAIR_WINDOW);
    assert_eq!(world.works(&payer, &first, Cause::Success).await.1.weight, 500_000_000);
    assert!(world.proves(first.id).await && world.proves(second.id).await);
}

#[tokio::test]
async fn the_usual_price_of_the_market_weighs_a_task() {
    let world = World::open().await;
    let (payer, owner) = (world.person("pat").await, world.person("ada").await);
    let agent = world.agent(&owner, "worker").await;
    world.works(&payer, &agent, Cause::Success).await;
    let other = world.person("kim").await;
    let task = world.settled_task(&other, &agent, task::Status::Completed).await;
    let evidence = Evidence {
        task: &task,
        agent: &agent,
        cause: Cause::Success,
        amount: credits(30),
        worked: None,
        promised: None,
        paid: credits(30),
    };
    let event = world.store.write(Caller::System, async |work| record_outcome(work, evidence).await).await.unwrap();
    assert_eq!((event.weight, event.timeliness), (750_000_000, None));
}

#[tokio::test]
async fn work_for_oneself_is_recorded_and_weighs_nothing() {
    let world = World::open().await;
    let owner = world.person("ada").await;
    let agent = world.agent(&owner, "worker").await;
    let (task, event) = world.works(&owner, &agent, Cause::Success).await;
    assert_eq!((event.weight, event.score_after), (0, rules::NEWCOMER));
    world.rates(&owner, task.id, 5).await.unwrap();
    assert_eq!(world.explained(agent.id).await.score_milli, rules::NEWCOMER);
    assert!(world.proves(agent.id).await);
}

#[tokio::test]
async fn a_payer_rates_a_completed_task_once() {
    let world = World::open().await;
    let (payer, owner) = (world.person("pat").await, world.person("ada").await);
    let agent = world.agent(&owner, "worker").await;
    let (task, outcome) = world.works(&payer, &agent, Cause::Success).await;
    world.store.clock().advance(DAY);
    let rating = world.rates(&payer, task.id, 5).await.unwrap();
    assert_eq!((rating.stars, rating.comment.as_deref(), rating.agent_id), (5, Some("Fine work."), agent.id));
    let row = world.row(agent.id).await.unwrap();
    assert_eq!((row.rating_sum, row.rating_weight), (outcome.weight, outcome.weight));
    assert_eq!((row.tasks, row.version, row.as_of), (1, 2, world.now()));
    let told = entity::event::Entity::find().order_by_desc(entity::event::Column::Id).one(world.store.read()).await;
    let told = told.unwrap().unwrap();
    assert_eq!((told.payload.reason.as_deref(), told.task_id, told.payer_id), (Some("RATING"), None, None));
    assert!(told.payload.score_after > told.payload.score_before);
    refused(world.rates(&payer, task.id, 1).await, "ALREADY_RATED");
    assert_eq!(world.row(agent.id).await.unwrap(), row);
    assert!(world.proves(agent.id).await);
}

#[tokio::test]
async fn only_the_payer_rates_and_to_strangers_the_task_does_not_exist() {
    let world = World::open().await;
    let (payer, owner, eve) = (world.person("pat").await, world.person("ada").await, world.person("eve").await);
    let agent = world.agent(&owner, "worker").await;
    let (task, _) = world.works(&payer, &agent, Cause::Success).await;
    refused(world.rates(&owner, task.id, 5).await, "RATING_NOT_PAYER");
    assert!(matches!(world.rates(&eve, task.id, 1).await, Err(Error::NotFound("task"))));
    assert!(matches!(world.rates(&payer, TaskId(agent.id.0), 1).await, Err(Error::NotFound("task"))));
    assert!(matches!(world.rates(&Caller::Anonymous, task.id, 1).await, Err(Error::Unauthenticated(_))));
    let identity = payer.identity().unwrap().clone();
    let key = KeyGrant { id: entity::id::ApiKeyId(task.id.0), agent: None, scopes: vec![Scope::Read] };
    let reader = Caller::User(Identity { key: Some(key), ..identity });
    assert!(matches!(world.rates(&reader, task.id, 5).await, Err(Error::Forbidden(_))));
    assert_eq!(rating::Entity::find().count(world.store.read()).await.unwrap(), 0);
}

#[tokio::test]
async fn a_rating_of_unsettled_or_failed_work_or_after_the_window_is_refused() {
    let world = World::open().await;
    let (payer, owner) = (world.person("pat").await, world.person("ada").await);
    let agent = world.agent(&owner, "worker").await;
    let running = world.settled_task(&payer, &agent, task::Status::Running).await;
    refused(world.rates(&payer, running.id, 5).await, "TASK_NOT_SETTLED");
    let (failed, _) = world.works(&payer, &agent, Cause::Failure).await;
    refused(world.rates(&payer, failed.id, 1).await, "TASK_NOT_SETTLED");
    let (early, _) = world.works(&payer, &agent, Cause::Success).await;
    let (late, _) = world.works(&payer, &agent, Cause::Success).await;
    world.store.clock().advance(world.store.terms().rating_window);
    world.rates(&payer, early.id, 4).await.unwrap();
    world.store.clock().advance(Duration::from_micros(1));
    refused(world.rates(&payer, late.id, 4).await, "RATING_WINDOW_CLOSED");
}

#[tokio::test]
async fn stars_and_comments_have_bounds() {
    let world = World::open().await;
    let (payer, owner) = (world.person("pat").await, world.person("ada").await);
    let agent = world.agent(&owner, "worker").await;
    let (task, _) = world.works(&payer, &agent, Cause::Success).await;
    let rated = async |stars, comment: Option<String>| {
        let new = NewRating { task: task.id, stars, comment };
        world.store.write(payer.clone(), async |work| rate(work, new).await).await
    };
    for (stars, comment, field) in [
        (0, None, "stars"),
        (6, None, "stars"),
        (3, Some("é".repeat(2_001)), "comment"),
        (3, Some("a\0b".to_owned()), "comment"),
    ] {
        assert!(matches!(rated(stars, comment).await, Err(Error::Invalid { field: found, .. }) if found == field));
    }
    assert_eq!(rated(3, Some("  ".to_owned())).await.unwrap().comment, None);
}

#[tokio::test]
async fn of_many_ratings_at_once_one_counts() {
    let world = World::open().await;
    let (payer, owner) = (world.person("pat").await, world.person("ada").await);
    let agent = world.agent(&owner, "worker").await;
    let (task, _) = world.works(&payer, &agent, Cause::Success).await;
    let race = |stars| world.rates(&payer, task.id, stars);
    let (a, b, c, d) = tokio::join!(race(1), race(2), race(3), race(4));
    let (won, lost): (Vec<_>, Vec<_>) = [a, b, c, d].into_iter().partition(Result::is_ok);
    assert_eq!((won.len(), lost.len()), (1, 3));
    for lost in lost {
        refused(lost, "ALREADY_RATED");
    }
    assert!(world.proves(agent.id).await);
}

#[tokio::test]
async fn first_pieces_of_evidence_at_once_are_numbered_without_a_gap() {
    let world = World::open().await;
    let owner = world.person("ada").await;
    let agent = world.agent(&owner, "worker").await;
    let mut tasks = Vec::new();
    for name in ["p", "q", "r", "s"] {
        let payer = world.person(name).await;
        tasks.push(world.settled_task(&payer, &agent, task::Status::Completed).await);
    }
    let race = |place: usize| world.outcome(&tasks[place], &agent, Cause::Success);
    let (a, b, c, d) = tokio::join!(race(0), race(1), race(2), race(3));
    let mut versions = [a, b, c, d].map(|event| event.unwrap().version);
    versions.sort_unstable();
    assert_eq!(versions, [1, 2, 3, 4]);
    assert_eq!(world.row(agent.id).await.unwrap().tasks, 4);
    assert!(world.proves(agent.id).await);
}

#[tokio::test]
async fn a_replay_proves_a_long_history_and_finds_a_forged_row() {
    let world = World::open().await;
    let owner = world.person("ada").await;
    let agent = world.agent(&owner, "worker").await;
    let payers = [world.person("p").await, world.person("q").await, world.person("r").await];
    for number in 0..24_u64 {
        world.store.clock().advance(Duration::from_micros(number * number * 7_919_000_003));
        let payer = &payers[usize::try_from(number % 3).unwrap()];
        let cause = [Cause::Success, Cause::Success, Cause::Failure, Cause::Success, Cause::Timeout]
            [usize::try_from(number % 5).unwrap()];
        let (task, _) = world.works(payer, &agent, cause).await;
        if cause == Cause::Success && number % 2 == 0 {
            world.rates(payer, task.id, i32::try_from(1 + number % 5).unwrap()).await.unwrap();
        }
    }
    assert!(world.proves(agent.id).await);
    let now = world.now();
    let standing = standings(world.store.read(), &[agent.id], now).await.unwrap()[&agent.id];
    assert_eq!(standing.score_milli, world.explained(agent.id).await.score_milli);
    let row = world.row(agent.id).await.unwrap();
    for forged in [
        reputation::Model { success_sum: row.success_sum - 1, ..row.clone() },
        reputation::Model { tasks: row.tasks + 1, successes: row.successes + 1, ..row.clone() },
        reputation::Model { as_of: Timestamp::from_micros(row.as_of.micros() + 1), ..row.clone() },
        reputation::Model { version: row.version - 1, ..row.clone() },
    ] {
        let store = |row: reputation::Model| {
            world.store.write(Caller::System, async |work| {
                reputation::Entity::update(row.into_active_model().reset_all()).exec(work.tx()).await?;
                Ok(())
            })
        };
        store(forged.clone()).await.unwrap();
        assert!(!world.proves(agent.id).await, "{forged:?}");
        store(row.clone()).await.unwrap();
    }
    assert!(world.proves(agent.id).await);
}

#[tokio::test]
async fn an_idle_agent_falls_back_on_the_leaderboard_without_a_write() {
    let world = World::open().await;
    let (payer, owner) = (world.person("pat").await, world.person("ada").await);
    let (old, new) = (world.agent(&owner, "old").await, world.agent(&owner, "new").await);
    let poor = world.agent(&owner, "poor").await;
    let fresh = world.agent(&owner, "fresh").await;
    world.works(&payer, &poor, Cause::Failure).await;
    for name in ["a", "b", "c"] {
        let client = world.person(name).await;
        world.works(&client, &old, Cause::Success).await;
    }
    let names = async |capability, limit| -> Vec<(u64, String)> {
        let leaders = leaderboard(world.store.read(), capability, limit, world.now()).await.unwrap();
        leaders.into_iter().map(|leader| (leader.rank, leader.agent.name)).collect()
    };
    let ranked =
        |names: &[&str]| -> Vec<(u64, String)> { (1..).zip(names.iter().map(|name| (*name).into())).collect() };
    assert_eq!(names(None, 10).await, ranked(&["old", "new", "fresh", "poor"]));
    world.store.clock().advance(400 * DAY);
    let client = world.person("d").await;
    world.works(&client, &new, Cause::Success).await;
    let before = world.row(old.id).await;
    assert_eq!(names(Some("Summarize"), 10).await, ranked(&["new", "old", "fresh", "poor"]));
    assert_eq!(names(None, 1).await, ranked(&["new"]));
    assert_eq!(names(Some("unknown"), 10).await, []);
    assert_eq!(names(None, 0).await, []);
    assert!(leaderboard(world.store.read(), Some("no way"), 10, world.now()).await.is_err());
    assert_eq!(world.row(old.id).await, before);
    let standing = leaderboard(world.store.read(), None, 1, world.now()).await.unwrap()[0].standing;
    assert_eq!(standing.score_milli, world.explained(new.id).await.score_milli);
    world.store.write(owner, async |work| crate::agent::pause(work, fresh.id).await).await.unwrap();
    assert_eq!(names(None, 10).await, ranked(&["new", "old", "poor"]));
}

#[tokio::test]
async fn the_standings_of_many_agents_cost_one_statement() {
    let world = World::open().await;
    let (payer, owner) = (world.person("pat").await, world.person("ada").await);
    let (first, second) = (world.agent(&owner, "one").await, world.agent(&owner, "two").await);
    let (_, event) = world.works(&payer, &first, Cause::Success).await;
    let before = world.store.statements();
    let standings = standings(world.store.read(), &[first.id, second.id], world.now()).await.unwrap();
    assert_eq!(world.store.statements() - before, 1);
    assert_eq!(standings[&first.id].score_milli, event.score_after);
    assert_eq!(standings[&second.id], Standing::newcomer());
}
