//! The power goes while SQLite works. What a disk may then hold is made from the files of a running service:
//!
//! | image | what it stands for |
//! |---|---|
//! | the database file, then its log | the moment itself; the log's last write may be half done |
//! | the log shortened anywhere | the newest writes never reached the disk |
//! | noise in the log from somewhere on | they reached it in part and in no order |
//! | half a page of the database file spoiled | a checkpoint was writing that page |
//!
//! The database file is copied before the log, and the copy is thrown away when the log began anew meanwhile: a disk that keeps its
//! promises has written the log before a checkpoint touches the database file, and the database file before the log begins anew.
//! For the same reason nothing of the log is taken away that a checkpoint may have begun to carry over.
//!
//! Each image opens, passes SQLite's own check and the whole audit, and holds a prefix of the history: the first so many lines of
//! the event log and of the journal, all of both. The first image of each moment holds whatever was acknowledged before it.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use entity::{event, transfer};
use futures_util::future::{join, join_all};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use sea_orm::{ConnectionTrait, DatabaseConnection, EntityTrait, QueryOrder};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use zerostate::{
    app::App,
    config::Config,
    store::{Clock, Entropy},
};

use super::{Folder, seed, some_millis};
use crate::world::{DAWN, World, answering, on_postgres};

/// Moments at which the power goes; each gives four images.
const MOMENTS: usize = 26;
const WRITERS: usize = 6;
/// The head of SQLite's log, and that of each page in it; <https://www.sqlite.org/fileformat2.html#walformat>.
const LOG_HEAD: usize = 32;
const FRAME_HEAD: usize = 24;
const PAGE: usize = 4_096;

const ISSUE: &str =
    "mutation($input: IssueCreditsInput!) { issueCredits(input: $input) { transfer { id } userErrors { code } } }";
const EXECUTE: &str =
    "mutation($input: ExecuteTaskInput!) { executeTask(input: $input) { task { id } userErrors { code } } }";

/// The files at one moment.
struct Image {
    database: Vec<u8>,
    log: Vec<u8>,
    /// Pages in the log that a checkpoint may have begun to carry over.
    carried: usize,
    /// Pages in the log that are committed.
    committed: usize,
}

/// A 32-bit number of the index of the log, which SQLite shares between processes in the machine's own order; see
/// <https://www.sqlite.org/walformat.html#the_wal_index_file_format>.
fn index_number(index: &[u8], at: usize) -> usize {
    u32::from_ne_bytes(index[at..at + 4].try_into().unwrap()).try_into().unwrap()
}

fn salt(log: &[u8]) -> Option<&[u8]> {
    log.get(16..24)
}

impl Image {
    /// Copies the files of a database that is being written to, or nothing when its log began anew meanwhile.
    fn take(database: &Path) -> Option<Self> {
        let beside = |suffix: &str| PathBuf::from(format!("{}{suffix}", database.display()));
        let before = fs::read(beside("-wal")).ok()?;
        let bytes = fs::read(database).unwrap();
        let index = fs::read(beside("-shm")).unwrap();
        let log = fs::read(beside("-wal")).unwrap();
        (salt(&before).is_some() && salt(&before) == salt(&log)).then(|| Self {
            database: bytes,
            log,
            carried: index_number(&index, 128).max(index_number(&index, 96)),
            committed: index_number(&index, 16),
        })
    }

    /// Where a page of the log begins.
    fn frame(number: usize) -> usize {
        LOG_HEAD + number * (FRAME_HEAD + PAGE)
    }

    /// Somewhere in the log behind what must be there.
    fn somewhere(&self, dice: &mut StdRng) -> usize {
        let end = Self::frame(self.committed + 1).min(self.log.len());
        dice.random_range(Self::frame(self.carried).min(end)..=end)
    }

    fn shortened(&self, dice: &mut StdRng) -> (Vec<u8>, Vec<u8>) {
        (self.database.clone(), self.log[..self.somewhere(dice)].to_vec())
    }

    fn noisy(&self, dice: &mut StdRng) -> (Vec<u8>, Vec<u8>) {
        let mut log = self.log.clone();
        let from = self.somewhere(dice);
        dice.fill_bytes(&mut log[from..]);
        (self.database.clone(), log)
    }

    fn torn(&self, dice: &mut StdRng) -> (Vec<u8>, Vec<u8>) {
        let mut database = self.database.clone();
        if self.committed > 0 {
            let frame = Self::frame(dice.random_range(0..self.committed));
            let page = u32::from_be_bytes(self.log[frame..frame + 4].try_into().unwrap());
            let end = usize::try_from(page).unwrap() * PAGE;
            if end <= database.len() {
                dice.fill_bytes(&mut database[end - PAGE / 2..end]);
            }
        }
        (database, self.log.clone())
    }
}

/// The whole history of a database, in the order in which it happened.
async fn history(db: &DatabaseConnection) -> (Vec<event::Model>, Vec<transfer::Model>) {
    let events = event::Entity::find().order_by_asc(event::Column::Id).all(db).await.unwrap();
    (events, transfer::Entity::find().order_by_asc(transfer::Column::Id).all(db).await.unwrap())
}

/// What survived in an image, which is right in itself.
async fn survivors(keys: &Path, (database, log): (Vec<u8>, Vec<u8>)) -> (Vec<event::Model>, Vec<transfer::Model>) {
    let folder = Folder::new();
    let file = folder.path().join("zerostate.db");
    fs::write(&file, database).unwrap();
    fs::write(folder.path().join("zerostate.db-wal"), log).unwrap();
    fs::create_dir(folder.path().join("keys")).unwrap();
    for key in fs::read_dir(keys).unwrap() {
        let key = key.unwrap();
        fs::copy(key.path(), folder.path().join("keys").join(key.file_name())).unwrap();
    }
    let mut config = Config::in_folder(folder.path());
    config.storage.max_connections = 2;
    let app = App::open(config, Clock::manual(DAWN), Entropy::seeded(0)).await.expect("the database opens");
    let db = app.store().read();
    let check = sea_orm::Statement::from_string(db.get_database_backend(), "PRAGMA integrity_check");
    let said: String = db.query_one_raw(check).await.unwrap().unwrap().try_get("", "integrity_check").unwrap();
    assert_eq!(said, "ok");
    let audit = app.audit().await.unwrap();
    assert!(audit.ok(), "{audit:#?}");
    history(db).await
}

/// Whether every line of `part` is the line of `all` in the same place.
#[track_caller]
fn is_prefix<T: PartialEq + std::fmt::Debug>(part: &[T], all: &[T]) {
    assert!(part.len() <= all.len(), "{} lines of {}", part.len(), all.len());
    for (place, (one, other)) in part.iter().zip(all).enumerate() {
        assert_eq!(one, other, "line {place} of {}", all.len());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_loss_leaves_the_acknowledged_past_and_nothing_torn() {
    if on_postgres() {
        // The files of the embedded database are what this is about.
        return;
    }
    let (seed, began) = (seed("POWER_SEED"), Instant::now());
    eprintln!("power: POWER_SEED={seed}");
    let mut dice = StdRng::seed_from_u64(seed);
    let world = World::start().await;
    let admin = world.admin().await;
    let owner = world.user("owner").await;
    world.hosted_agent(&owner, "one", "work", "0.5", answering("1")).await;
    let mut payers = Vec::new();
    for number in 0..WRITERS {
        payers.push(world.user(&format!("payer-{number}")).await);
    }
    let acknowledged: Arc<Mutex<Vec<String>>> = Arc::default();
    let over = CancellationToken::new();
    let writing = join_all(payers.iter().enumerate().map(async |(writer, payer)| {
        let mut number = 0;
        while !over.is_cancelled() {
            number += 1;
            let key = format!("{writer}-{number}");
            let input = json!({ "userId": payer.id(), "amount": "1", "reference": key, "idempotencyKey": key });
            admin.done("issueCredits", ISSUE, json!({ "input": input })).await;
            acknowledged.lock().unwrap().push(key.clone());
            let input = json!({
                "title": key, "capabilities": ["work"], "input": "x".repeat(number % 50 * 300), "budget": "1",
                "idempotencyKey": key,
            });
            payer.done("executeTask", EXECUTE, json!({ "input": input })).await;
        }
    }));
    let working = async {
        while !over.is_cancelled() {
            world.pass(Duration::from_millis(10)).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let file = world.folder().join("world.db");
    let copying = async {
        let mut moments = Vec::new();
        while moments.len() < MOMENTS {
            tokio::time::sleep(some_millis(&mut dice, 5..120)).await;
            let before = acknowledged.lock().unwrap().clone();
            let file = file.clone();
            let image = tokio::task::spawn_blocking(move || Image::take(&file)).await.unwrap();
            moments.extend(image.map(|image| (before, image)));
        }
        over.cancel();
        moments
    };
    let ((moments, ()), _) = join(join(copying, working), writing).await;
    world.settle().await;

    let (events, transfers) = history(world.app.store().read()).await;
    let keys = world.folder().join("keys");
    let (mut images, mut lost) = (0, 0);
    for (before, image) in &moments {
        let whole = (image.database.clone(), image.log.clone());
        let variants = [whole, image.shortened(&mut dice), image.noisy(&mut dice), image.torn(&mut dice)];
        for (variant, files) in variants.into_iter().enumerate() {
            let (seen_events, seen_transfers) = survivors(&keys, files).await;
            is_prefix(&seen_events, &events);
            is_prefix(&seen_transfers, &transfers);
            images += 1;
            if [0, 3].contains(&variant) {
                // Nothing that reached the disk is gone.
                let kept: Vec<&str> = seen_transfers.iter().filter_map(|it| it.reference.as_deref()).collect();
                for key in before {
                    assert!(kept.contains(&key.as_str()), "{key} was acknowledged and is gone");
                }
            } else {
                lost += usize::from(seen_transfers.len() < before.len());
            }
        }
    }
    let restarts = moments.windows(2).filter(|pair| salt(&pair[0].1.log) != salt(&pair[1].1.log)).count();
    eprintln!(
        "power: {images} images of {} moments in {:?}, {} events and {} transfers at last, the log began anew {restarts} times, \
         {lost} images lost acknowledged commits with the end of their log",
        moments.len(),
        began.elapsed(),
        events.len(),
        transfers.len(),
    );
    world.check().await;
}
