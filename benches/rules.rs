//! What the market's decisions cost without a database, and a step of its audit with one.

#![expect(clippy::unwrap_used, reason = "a benchmark that meets the unexpected stops")]

use std::{hint::black_box, time::Duration};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use entity::{
    id::{AgentId, BidId, ReputationEventId, TaskId, UserId},
    money::Amount,
    reputation_event::{self, Cause},
    time::Timestamp,
    user::Role,
};
use uuid::Uuid;
use zerostate::{
    app::App,
    auction::rules::{Offer, rank},
    caller::{Caller, Identity},
    config::Config,
    ledger,
    reputation::rules::{follow, newcomer},
    store::{Clock, Entropy},
    user::{self, NewAccount},
    voucher::{Voucher, public_key},
};

const HASH: &str = "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$4UAxMXjBSHqDwrs1MLXbUg";

/// What is issued before the audit looks.
const ISSUES: u32 = 500;

fn uuid(number: u32) -> Uuid {
    Uuid::from_u128(number.into())
}

fn bids(criterion: &mut Criterion) {
    let offers: Vec<Offer> = (0..1_000_u32)
        .map(|number| {
            let scattered = number.wrapping_mul(2_654_435_761);
            Offer {
                bid: BidId(uuid(number)),
                agent: AgentId(uuid(number)),
                bidder: UserId(uuid(number)),
                price: Amount::from_micros(i64::from(scattered % 1_000_000) + 1).unwrap(),
                reputation: i32::try_from(scattered % 10_001).unwrap(),
                seq: i32::try_from(number).unwrap(),
            }
        })
        .collect();
    let budget = Amount::from_credits(1).unwrap();
    let mut group = criterion.benchmark_group("auction");
    group.throughput(Throughput::Elements(1_000));
    group.bench_function("score and rank 1,000 bids", |bencher| {
        bencher.iter(|| rank(black_box(&offers), budget, 7_000));
    });
    group.finish();
}

fn reputation(criterion: &mut Criterion) {
    let start = Timestamp::from_micros(1_700_000_000_000_000);
    let event = reputation_event::Model {
        id: ReputationEventId(uuid(1)),
        agent_id: AgentId(uuid(1)),
        version: 1,
        task_id: TaskId(uuid(1)),
        payer_id: UserId(uuid(2)),
        owner_id: UserId(uuid(3)),
        cause: Cause::Success,
        amount: Amount::from_credits(1).unwrap(),
        weight: 1_000_000,
        success: Some(1_000_000),
        rating: None,
        timeliness: Some(900_000),
        cost: Some(500_000),
        score_before: 0,
        score_after: 0,
        created_at: start.after(Duration::from_hours(30)),
    };
    let row = follow(&newcomer(event.agent_id, start), &event);
    let next = reputation_event::Model { created_at: start.after(Duration::from_hours(100)), ..event };
    criterion.bench_function("reputation, one rep-v1 update", |bencher| {
        bencher.iter(|| follow(black_box(&row), black_box(&next)));
    });
}

fn vouchers(criterion: &mut Criterion) {
    let secret = [7; 32];
    let signer = public_key(&secret);
    let voucher = Voucher {
        instance_id: [1; 32],
        channel_id: [2; 32],
        nonce: 1,
        cumulative: 1_000_000,
        valid_until: 0,
        context_hash: [0; 32],
    };
    let signature = voucher.sign(&secret);
    let mut group = criterion.benchmark_group("voucher");
    group.bench_function("sign", |bencher| bencher.iter(|| black_box(&voucher).sign(&secret)));
    group.bench_function("verify", |bencher| {
        bencher.iter(|| black_box(&voucher).verify(&signer, &signature).unwrap());
    });
    group.finish();
}

/// A market of its own on SQLite, with something in its books.
async fn market(folder: &std::path::Path) -> App {
    let app = App::open(Config::in_folder(folder), Clock::System, Entropy::system()).await.unwrap();
    let account = |name: &str, role| NewAccount {
        email: format!("{name}@example.org"),
        display_name: name.to_owned(),
        password_hash: HASH.into(),
        role,
    };
    let (admin, rich) = (account("admin", Role::Admin), account("rich", Role::User));
    let store = app.store();
    let admin = store.write(Caller::System, async |work| user::create(work, admin).await).await.unwrap().id;
    let rich = store.write(Caller::System, async |work| user::create(work, rich).await).await.unwrap().id;
    let admin = Caller::User(Identity { user: admin, role: Role::Admin, session: None, key: None, expires_at: None });
    let one = Amount::from_credits(1).unwrap();
    for number in 0..ISSUES {
        let reference = format!("issue-{number}");
        store.write(admin.clone(), async |work| ledger::issue(work, rich, one, &reference).await).await.unwrap();
    }
    app
}

fn audit(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let app = runtime.block_on(market(folder.path()));
    assert!(runtime.block_on(app.audit()).unwrap().ok());
    let mut group = criterion.benchmark_group(format!("audit, {ISSUES} transfers, SQLite"));
    group.sample_size(20);
    group.bench_function("everything", |bencher| bencher.iter(|| runtime.block_on(app.audit()).unwrap()));
    group.bench_function("a step: what is recent", |bencher| {
        bencher.iter(|| runtime.block_on(app.audit_recent()).unwrap());
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().measurement_time(Duration::from_secs(3)).warm_up_time(Duration::from_secs(1));
    targets = bids, reputation, vouchers, audit
}
criterion_main!(benches);
