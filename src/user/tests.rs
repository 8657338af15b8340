//! What people, thieves and programs do, on a fresh SQLite with a clock to turn.

use std::sync::atomic::{AtomicU64, Ordering};

use entity::{
    agent::Runtime,
    id::{self, Id},
    money::Amount,
};
use futures_util::future::join_all;
use tempfile::TempDir;
use uuid::Uuid;

use super::*;
use crate::{
    config::{Storage, Terms},
    store::Clock,
};

const ADA: &str = "ada@example.org";
const PASSWORD: &str = "correct horse";
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

struct World {
    data: TempDir,
    store: Store,
    auth: Auth,
}

fn settings() -> config::Auth {
    config::Auth { argon2: (8, 1, 1), ..config::Auth::default() }
}

impl World {
    async fn new() -> Self {
        /// No two worlds have the same keys and ids.
        static SEED: AtomicU64 = AtomicU64::new(1);
        let data = TempDir::new().unwrap();
        let clock = Clock::manual(Timestamp::from_micros(1_700_000_000_000_000));
        let entropy = Entropy::seeded(SEED.fetch_add(1, Ordering::Relaxed));
        let storage = Storage::at(format!("sqlite:{}", data.path().join("test.db").display()));
        let store = Store::connect(&storage, Terms::default(), clock, entropy.clone()).await.unwrap();
        store.migrate().await.unwrap();
        let auth =
            Auth::open(settings(), (&config::Keys::default(), config::Profile::Development), data.path(), &entropy)
                .unwrap();
        Self { data, store, auth }
    }

    /// A world in which Ada has registered.
    async fn with_ada() -> (Self, Tokens) {
        let world = Self::new().await;
        let tokens = world.register(ADA).await.unwrap();
        (world, tokens)
    }

    fn wait(&self, duration: Duration) {
        self.store.clock().advance(duration);
    }

    fn now(&self) -> Timestamp {
        self.store.clock().now()
    }

    async fn register(&self, email: &str) -> Result<Tokens> {
        let new = NewUser { email: email.into(), display_name: "Ada".into(), password: PASSWORD.into() };
        register(&self.store, &self.auth, new).await
    }

    async fn login(&self, email: &str, password: &str) -> Result<Tokens> {
        login(&self.store, &self.auth, email, password).await
    }

    async fn refresh(&self, tokens: &Tokens) -> Result<Tokens> {
        refresh(&self.store, &self.auth, &tokens.refresh_token).await
    }

    async fn authenticate(&self, bearer: &str) -> Result<Caller> {
        authenticate(&self.store, &self.auth, bearer).await
    }

    async fn caller(&self, tokens: &Tokens) -> Caller {
        self.authenticate(&tokens.access_token).await.unwrap()
    }

    async fn logout(&self, tokens: &Tokens) {
        let caller = self.caller(tokens).await;
        self.store.write(caller, async |work| logout(work).await).await.unwrap();
    }

    async fn change_password(&self, caller: Caller, old: &str, new: &str) -> Result<user::Model> {
        change_password(&self.store, &self.auth, caller, old, new).await
    }

    async fn key(&self, caller: &Caller, new: NewApiKey) -> Result<(api_key::Model, String)> {
        self.store.write(caller.clone(), async |work| create_api_key(work, new).await).await
    }

    async fn revoke(&self, caller: &Caller, id: ApiKeyId) -> Result<api_key::Model> {
        self.store.write(caller.clone(), async |work| revoke_api_key(work, id).await).await
    }

    async fn user(&self, email: &str) -> user::Model {
        let found = user::Entity::find().filter(user::Column::Email.eq(email)).one(self.store.read()).await;
        found.unwrap().unwrap()
    }

    async fn session(&self, id: SessionId) -> session::Model {
        session::Entity::find_by_id(id).one(self.store.read()).await.unwrap().unwrap()
    }

    async fn read_key(&self, id: ApiKeyId) -> api_key::Model {
        api_key::Entity::find_by_id(id).one(self.store.read()).await.unwrap().unwrap()
    }

    async fn change_user(&self, change: user::ActiveModel) {
        self.store.write(Caller::System, async |work| Ok(change.update(work.tx()).await.map(|_| ())?)).await.unwrap();
    }

    async fn suspend(&self, user: UserId) {
        let change = user::ActiveModel { id: Set(user), status: Set(Status::Suspended), ..Default::default() };
        self.change_user(change).await;
    }

    async fn agent(&self, owner: UserId, status: agent::Status) -> AgentId {
        let insert = async |work: &mut Work| {
            let agent = agent::ActiveModel {
                id: Set(work.fresh()),
                owner_id: Set(owner),
                name: Set(format!("agent {}", work.fresh::<AgentId>())),
                description: Set(String::new()),
                capabilities: Set(Words::default()),
                runtime: Set(Runtime::External),
                status: Set(status),
                price: Set(Amount::from_micros(1).unwrap()),
                min_price: Set(Amount::from_micros(1).unwrap()),
                promised_ms: Set(None),
                module_id: Set(None),
                score: Set(0),
                last_seen_at: Set(None),
                version: Set(1),
                created_at: Set(work.now()),
                updated_at: Set(work.now()),
                public_key: Set(None),
                ..Default::default()
            };
            Ok(agent.insert(work.tx()).await?.id)
        };
        self.store.write(Caller::System, insert).await.unwrap()
    }

    /// The same data in another process, with other settings.
    fn other_process(&self, config: config::Auth) -> Auth {
        Auth::open(
            config,
            (&config::Keys::default(), config::Profile::Development),
            self.data.path(),
            self.store.entropy(),
        )
        .unwrap()
    }
}

fn robot() -> NewApiKey {
    NewApiKey { name: "robot".into(), agent: None, scopes: vec![Scope::BidsWrite, Scope::Read], expires_in: None }
}

#[track_caller]
fn assert_unauthenticated<T: std::fmt::Debug>(result: &Result<T>, why: &str) {
    assert!(matches!(result, Err(Error::Unauthenticated(said)) if *said == why), "{result:?}");
}

#[track_caller]
fn assert_throttled<T: std::fmt::Debug>(result: &Result<T>, seconds: u64) {
    assert!(
        matches!(result, Err(Error::Throttled(left)) if *left == SECOND * u32::try_from(seconds).unwrap()),
        "{result:?}"
    );
}

#[track_caller]
fn assert_refused<T: std::fmt::Debug>(result: &Result<T>, code: &str) {
    assert_eq!(result.as_ref().err().and_then(Error::refusal_code), Some(code), "{result:?}");
}

#[tokio::test]
async fn who_registers_is_signed_in() {
    let world = World::new().await;
    let tokens = world.register("  Ada@Example.ORG ").await.unwrap();
    assert_eq!(tokens.user.email, ADA);
    assert_eq!((tokens.user.role, tokens.user.status), (Role::User, Status::Active));
    assert_eq!(tokens.user.last_login_at, Some(world.now()));
    assert_eq!(tokens.expires_at, world.now().after(15 * MINUTE));
    let expected = Identity {
        user: tokens.user.id,
        role: Role::User,
        session: Some(tokens.session.id),
        key: None,
        expires_at: Some(tokens.expires_at),
    };
    assert_eq!(world.caller(&tokens).await, Caller::User(expected));
    assert!(world.user(ADA).await.password_hash.starts_with("$argon2id$v=19$m=8,t=1,p=1$"));
}

#[tokio::test]
async fn who_registers_badly_is_told_the_field() {
    let world = World::new().await;
    for (email, display_name, password, expected) in
        [("ada", "Ada", PASSWORD, "email"), (ADA, " ", PASSWORD, "displayName"), (ADA, "Ada", "too short", "password")]
    {
        let new = NewUser { email: email.into(), display_name: display_name.into(), password: password.into() };
        let refused = register(&world.store, &world.auth, new).await;
        assert!(matches!(&refused, Err(Error::Invalid { field, .. }) if field == expected), "{refused:?}");
    }
}

#[tokio::test]
async fn a_taken_address_is_refused() {
    let (world, _) = World::with_ada().await;
    assert_refused(&world.register("ADA@example.org").await, "EMAIL_TAKEN");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_people_who_register_an_address_at_once_one_gets_it() {
    let world = World::new().await;
    let results = join_all((0..8).map(|_| world.register(ADA))).await;
    let (won, lost): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!((won.len(), lost.len()), (1, 7));
    for lost in &lost {
        assert_refused(lost, "EMAIL_TAKEN");
    }
}

#[tokio::test]
async fn the_database_refuses_an_address_that_slipped_past_the_check() {
    let (world, tokens) = World::with_ada().await;
    let copy = user::ActiveModel { id: Set(UserId(Uuid::from_u128(1))), ..tokens.user.into() };
    let written = world.store.write(Caller::System, async |work| {
        let error = copy.insert(work.tx()).await.unwrap_err();
        assert!(is_duplicate(&error), "{error}");
        Err::<(), _>(error.into())
    });
    assert!(written.await.is_err());
}

#[tokio::test]
async fn a_user_signs_in_by_any_spelling_of_the_address() {
    let (world, first) = World::with_ada().await;
    world.wait(MINUTE);
    let second = world.login(" ADA@example.org", PASSWORD).await.unwrap();
    assert_eq!(second.user.id, first.user.id);
    assert_ne!(second.session.id, first.session.id);
    assert_eq!(world.user(ADA).await.last_login_at, Some(world.now()));
}

#[tokio::test]
async fn a_wrong_password_an_unknown_address_and_a_suspended_user_look_alike() {
    let (world, _) = World::with_ada().await;
    let eve = world.register("eve@example.org").await.unwrap();
    world.suspend(eve.user.id).await;
    assert_unauthenticated(&world.login(ADA, "wrong password").await, WRONG);
    assert_unauthenticated(&world.login("nobody@example.org", PASSWORD).await, WRONG);
    assert_unauthenticated(&world.login("eve@example.org", PASSWORD).await, WRONG);
    assert_unauthenticated(&world.login("no address", PASSWORD).await, WRONG);
    assert_unauthenticated(&world.login(ADA, &"x".repeat(100_000)).await, WRONG);
}

#[tokio::test]
async fn guesses_lock_a_known_and_an_unknown_address_on_the_same_schedule() {
    let (world, _) = World::with_ada().await;
    let eve = world.register("eve@example.org").await.unwrap();
    world.suspend(eve.user.id).await;
    let addresses = [ADA, "nobody@example.org", "eve@example.org"];
    for _ in 0..5 {
        for email in addresses {
            assert_unauthenticated(&world.login(email, "wrong password").await, WRONG);
        }
    }
    for lock in [30, 60, 120] {
        for email in addresses {
            assert_throttled(&world.login(email, "wrong password").await, lock);
        }
        world.wait(SECOND);
        for email in addresses {
            assert_throttled(&world.login(email, PASSWORD).await, lock - 1);
        }
        world.wait(SECOND * u32::try_from(lock - 1).unwrap());
        for email in addresses {
            assert_unauthenticated(&world.login(email, "wrong password").await, WRONG);
        }
    }
    world.wait(DAY + 240 * SECOND);
    for email in addresses {
        for _ in 0..5 {
            assert_unauthenticated(&world.login(email, "wrong password").await, WRONG);
        }
        assert_throttled(&world.login(email, "wrong password").await, 30);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn guesses_at_once_are_as_few_as_guesses_in_a_row() {
    let (world, _) = World::with_ada().await;
    for email in [ADA, "nobody@example.org"] {
        let answers = join_all((0..16).map(|_| world.login(email, "wrong password"))).await;
        let wrong = answers.iter().filter(|answer| matches!(answer, Err(Error::Unauthenticated(_)))).count();
        let locked = answers.iter().filter(|answer| matches!(answer, Err(Error::Throttled(_)))).count();
        assert_eq!((wrong, locked), (5, 11), "{email}");
    }
}

#[tokio::test]
async fn the_right_password_takes_the_wrong_ones_back() {
    let (world, _) = World::with_ada().await;
    for _ in 0..3 {
        for _ in 0..4 {
            assert_unauthenticated(&world.login(ADA, "wrong password").await, WRONG);
        }
        world.login(ADA, PASSWORD).await.unwrap();
        let user = world.user(ADA).await;
        assert_eq!((user.failed_logins, user.locked_until), (0, None));
    }
}

#[tokio::test]
async fn a_sign_in_renews_a_hash_of_old_parameters() {
    let (world, _) = World::with_ada().await;
    let old = world.user(ADA).await.password_hash;
    let today = world.other_process(config::Auth { argon2: (16, 2, 1), ..settings() });
    assert_unauthenticated(&login(&world.store, &today, ADA, "wrong password").await, WRONG);
    assert_eq!(world.user(ADA).await.password_hash, old);
    login(&world.store, &today, ADA, PASSWORD).await.unwrap();
    let new = world.user(ADA).await.password_hash;
    assert!(new.starts_with("$argon2id$v=19$m=16,t=2,p=1$"), "{new}");
    login(&world.store, &today, ADA, PASSWORD).await.unwrap();
    assert_eq!(world.user(ADA).await.password_hash, new);
}

#[tokio::test]
async fn a_password_that_was_replaced_while_it_was_checked_does_not_sign_in() {
    let (world, _) = World::with_ada().await;
    let found = world.user(ADA).await;
    let hash = world.auth.hash("battery staple").await.unwrap();
    let change = user::ActiveModel { id: Set(found.id), password_hash: Set(hash), ..Default::default() };
    world.change_user(change).await;
    let verdict = Verdict { right: true, outdated: false };
    let tried = world
        .store
        .write(Caller::Anonymous, async |work| sign_in(work, &world.auth, ADA, Some(&found), verdict, None).await);
    assert!(matches!(tried.await.unwrap(), Tried::Changed));
}

#[tokio::test]
async fn a_refresh_token_gives_the_next_tokens() {
    let (world, first) = World::with_ada().await;
    world.wait(DAY);
    let second = world.refresh(&first).await.unwrap();
    assert_eq!(second.session.id, first.session.id);
    assert_eq!(second.session.generation, 2);
    assert_ne!(second.refresh_token, first.refresh_token);
    assert_eq!(world.session(first.session.id).await, second.session);
    world.caller(&second).await;
    world.wait(DAY);
    assert_eq!(world.refresh(&second).await.unwrap().session.generation, 3);
}

#[tokio::test]
async fn a_lost_answer_is_given_again_for_a_moment() {
    let (world, first) = World::with_ada().await;
    let second = world.refresh(&first).await.unwrap();
    world.wait(9 * SECOND);
    let again = world.refresh(&first).await.unwrap();
    assert_eq!(again.refresh_token, second.refresh_token);
    assert_eq!(again.session, second.session);
    world.wait(SECOND);
    assert_unauthenticated(&world.refresh(&first).await, SESSION_OVER);
}

#[tokio::test]
async fn a_spent_refresh_token_ends_the_whole_session() {
    let (world, first) = World::with_ada().await;
    let elsewhere = world.login(ADA, PASSWORD).await.unwrap();
    let second = world.refresh(&first).await.unwrap();
    let third = world.refresh(&second).await.unwrap();
    // The thief's copy is two generations old, so not even the grace helps.
    assert_unauthenticated(&world.refresh(&first).await, SESSION_OVER);
    let session = world.session(first.session.id).await;
    assert_eq!((session.revoked_at, session.revoke_reason), (Some(world.now()), Some(RevokeReason::TokenReuse)));
    assert_unauthenticated(&world.refresh(&third).await, SESSION_OVER);
    assert_unauthenticated(&world.authenticate(&third.access_token).await, BAD_ACCESS_TOKEN);
    world.refresh(&elsewhere).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn tabs_that_refresh_at_once_get_the_same_successor() {
    let (world, first) = World::with_ada().await;
    let answers = join_all((0..8).map(|_| world.refresh(&first))).await;
    for answer in answers {
        assert_eq!(answer.unwrap().session.generation, 2);
    }
    assert_eq!(world.session(first.session.id).await.revoked_at, None);
}

#[tokio::test]
async fn a_session_ends_at_its_time_however_often_it_was_renewed() {
    let (world, mut tokens) = World::with_ada().await;
    for _ in 0..29 {
        world.wait(DAY);
        tokens = world.refresh(&tokens).await.unwrap();
    }
    world.wait(23 * HOUR + 59 * MINUTE);
    tokens = world.refresh(&tokens).await.unwrap();
    assert_eq!(tokens.expires_at, world.now().after(MINUTE), "an access token does not outlive its session");
    world.wait(MINUTE);
    assert_unauthenticated(&world.refresh(&tokens).await, SESSION_OVER);
    assert_unauthenticated(&world.authenticate(&tokens.access_token).await, BAD_ACCESS_TOKEN);
}

#[tokio::test]
async fn a_refresh_token_that_we_did_not_make_is_refused() {
    let (world, tokens) = World::with_ada().await;
    let session = id::encode(tokens.session.id.uuid());
    for forged in ["", "x", &tokens.access_token, &format!("zsr_{session}_1_{}", "0".repeat(64))] {
        assert_unauthenticated(&refresh(&world.store, &world.auth, forged).await, BAD_REFRESH_TOKEN);
    }
    assert_unauthenticated(&world.authenticate(&tokens.refresh_token).await, BAD_ACCESS_TOKEN);
    world.refresh(&tokens).await.unwrap();
}

#[tokio::test]
async fn a_suspended_user_is_refused_by_every_token() {
    let (world, tokens) = World::with_ada().await;
    let (_, secret) = world.key(&world.caller(&tokens).await, robot()).await.unwrap();
    world.authenticate(&secret).await.unwrap();
    world.suspend(tokens.user.id).await;
    world.wait(FRESH);
    assert_unauthenticated(&world.authenticate(&tokens.access_token).await, BAD_ACCESS_TOKEN);
    assert_unauthenticated(&world.authenticate(&secret).await, BAD_API_KEY);
    assert_unauthenticated(&world.refresh(&tokens).await, SESSION_OVER);
}

#[tokio::test]
async fn who_signs_out_ends_this_session_alone() {
    let (world, here) = World::with_ada().await;
    let there = world.login(ADA, PASSWORD).await.unwrap();
    world.logout(&here).await;
    let ended = world.session(here.session.id).await;
    assert_eq!((ended.revoked_at, ended.revoke_reason), (Some(world.now()), Some(RevokeReason::Logout)));
    world.wait(FRESH);
    assert_unauthenticated(&world.authenticate(&here.access_token).await, BAD_ACCESS_TOKEN);
    assert_unauthenticated(&world.refresh(&here).await, SESSION_OVER);
    world.caller(&there).await;
}

#[tokio::test]
async fn an_access_token_ends_after_its_time_and_a_leeway() {
    let (world, tokens) = World::with_ada().await;
    world.wait(15 * MINUTE + 4 * SECOND);
    world.caller(&tokens).await;
    world.wait(SECOND);
    assert_unauthenticated(&world.authenticate(&tokens.access_token).await, BAD_ACCESS_TOKEN);
}

#[tokio::test]
async fn what_was_good_is_good_for_five_seconds_without_asking() {
    let (world, tokens) = World::with_ada().await;
    let asked = world.store.statements();
    world.caller(&tokens).await;
    assert_eq!(world.store.statements(), asked + 1, "one statement checks a token");
    world.wait(4 * SECOND);
    world.caller(&tokens).await;
    assert_eq!(world.store.statements(), asked + 1);
    world.wait(SECOND);
    world.caller(&tokens).await;
    assert_eq!(world.store.statements(), asked + 2);
}

#[tokio::test]
async fn a_token_of_another_installation_is_refused() {
    let (world, tokens) = World::with_ada().await;
    let (other, _) = World::with_ada().await;
    assert_unauthenticated(&other.authenticate(&tokens.access_token).await, BAD_ACCESS_TOKEN);
    for wrong in
        [config::Auth { issuer: "x".into(), ..settings() }, config::Auth { audience: "x".into(), ..settings() }]
    {
        let auth = world.other_process(wrong);
        assert_unauthenticated(&authenticate(&world.store, &auth, &tokens.access_token).await, BAD_ACCESS_TOKEN);
    }
    let sibling = world.other_process(settings());
    authenticate(&world.store, &sibling, &tokens.access_token).await.unwrap();
    refresh(&world.store, &sibling, &tokens.refresh_token).await.unwrap();
    assert_eq!(sibling.jwks(), world.auth.jwks());
}

#[tokio::test]
async fn a_new_password_ends_the_other_sessions() {
    let (world, here) = World::with_ada().await;
    let there = world.login(ADA, PASSWORD).await.unwrap();
    world.caller(&there).await;
    let caller = world.caller(&here).await;
    world.wait(MINUTE);
    let user = world.change_password(caller, PASSWORD, "battery staple").await.unwrap();
    assert_eq!(user.updated_at, world.now());
    assert_eq!(world.session(there.session.id).await.revoke_reason, Some(RevokeReason::PasswordChange));
    assert_unauthenticated(&world.authenticate(&there.access_token).await, BAD_ACCESS_TOKEN);
    assert_unauthenticated(&world.refresh(&there).await, SESSION_OVER);
    world.refresh(&here).await.unwrap();
    assert_unauthenticated(&world.login(ADA, PASSWORD).await, WRONG);
    world.login(ADA, "battery staple").await.unwrap();
}

#[tokio::test]
async fn who_does_not_know_the_password_cannot_change_it_by_guessing() {
    let (world, tokens) = World::with_ada().await;
    let caller = world.caller(&tokens).await;
    for _ in 0..5 {
        let refused = world.change_password(caller.clone(), "wrong password", "battery staple").await;
        assert_refused(&refused, "WRONG_PASSWORD");
    }
    assert_throttled(&world.change_password(caller.clone(), PASSWORD, "battery staple").await, 30);
    assert_throttled(&world.login(ADA, PASSWORD).await, 30);
    world.wait(30 * SECOND);
    world.change_password(caller.clone(), PASSWORD, "battery staple").await.unwrap();
    let short = world.change_password(caller, "battery staple", "short").await;
    assert!(matches!(&short, Err(Error::Invalid { field, .. }) if field == "newPassword"), "{short:?}");
}

#[tokio::test]
async fn a_session_that_just_ended_does_not_choose_the_password() {
    let (world, tokens) = World::with_ada().await;
    let caller = world.caller(&tokens).await;
    world.logout(&tokens).await;
    assert_unauthenticated(&world.change_password(caller, PASSWORD, "battery staple").await, SESSION_OVER);
    world.login(ADA, PASSWORD).await.unwrap();
}

#[tokio::test]
async fn a_person_changes_the_display_name() {
    let (world, tokens) = World::with_ada().await;
    let caller = world.caller(&tokens).await;
    world.wait(MINUTE);
    let user = world.store.write(caller.clone(), async |work| update_profile(work, " Ada L. ").await).await.unwrap();
    assert_eq!((user.display_name.as_str(), user.updated_at), ("Ada L.", world.now()));
    assert_eq!(world.user(ADA).await, user);
    let refused = world.store.write(caller, async |work| update_profile(work, "").await).await;
    assert!(matches!(refused, Err(Error::Invalid { .. })));
}

#[tokio::test]
async fn a_key_acts_for_its_user_within_its_scopes() {
    let (world, tokens) = World::with_ada().await;
    let (key, secret) = world.key(&world.caller(&tokens).await, robot()).await.unwrap();
    assert!(secret.starts_with("zsk_"));
    assert_ne!(key.secret_hash, secret);
    let caller = world.authenticate(&secret).await.unwrap();
    let grant = KeyGrant { id: key.id, agent: None, scopes: vec![Scope::Read, Scope::BidsWrite] };
    assert_eq!(caller.identity().unwrap().key, Some(grant));
    assert_eq!(caller.with_scope(Scope::BidsWrite).unwrap(), tokens.user.id);
    assert!(matches!(caller.with_scope(Scope::TasksWrite), Err(Error::Forbidden(_))));
}

#[tokio::test]
async fn a_key_does_nothing_that_asks_for_a_person() {
    let (world, tokens) = World::with_ada().await;
    let (key, secret) = world.key(&world.caller(&tokens).await, robot()).await.unwrap();
    let program = world.authenticate(&secret).await.unwrap();
    assert!(matches!(world.key(&program, robot()).await, Err(Error::Forbidden(_))));
    assert!(matches!(world.revoke(&program, key.id).await, Err(Error::Forbidden(_))));
    let left = world.store.write(program.clone(), async |work| logout(work).await).await;
    assert!(matches!(left, Err(Error::Forbidden(_))));
    let renamed = world.store.write(program.clone(), async |work| update_profile(work, "Robot").await).await;
    assert!(matches!(renamed, Err(Error::Forbidden(_))));
    let changed = world.change_password(program, PASSWORD, "battery staple").await;
    assert!(matches!(changed, Err(Error::Forbidden(_))));
    assert!(matches!(world.key(&Caller::Anonymous, robot()).await, Err(Error::Unauthenticated(_))));
}

#[tokio::test]
async fn a_key_is_bound_to_an_own_agent_that_is_not_retired() {
    let (world, tokens) = World::with_ada().await;
    let caller = world.caller(&tokens).await;
    let eve = world.register("eve@example.org").await.unwrap();
    let own = world.agent(tokens.user.id, agent::Status::Active).await;
    let retired = world.agent(tokens.user.id, agent::Status::Retired).await;
    let foreign = world.agent(eve.user.id, agent::Status::Active).await;
    let bound = |agent| NewApiKey { agent: Some(agent), ..robot() };
    let (key, secret) = world.key(&caller, bound(own)).await.unwrap();
    assert_eq!(key.agent_id, Some(own));
    let grant = world.authenticate(&secret).await.unwrap().identity().unwrap().key.clone().unwrap();
    assert_eq!(grant.agent, Some(own));
    assert_refused(&world.key(&caller, bound(retired)).await, "AGENT_RETIRED");
    assert!(matches!(world.key(&caller, bound(foreign)).await, Err(Error::NotFound("agent"))));
    let unknown = AgentId(Uuid::from_u128(1));
    assert!(matches!(world.key(&caller, bound(unknown)).await, Err(Error::NotFound("agent"))));
}

#[tokio::test]
async fn a_key_ends_at_its_time() {
    let (world, tokens) = World::with_ada().await;
    let new = NewApiKey { expires_in: Some(MINUTE), ..robot() };
    let (key, secret) = world.key(&world.caller(&tokens).await, new).await.unwrap();
    assert_eq!(key.expires_at, Some(world.now().after(MINUTE)));
    world.wait(59 * SECOND);
    world.authenticate(&secret).await.unwrap();
    world.wait(SECOND);
    assert_unauthenticated(&world.authenticate(&secret).await, BAD_API_KEY);
}

#[tokio::test]
async fn a_revoked_key_is_refused_and_only_its_owner_revokes_it() {
    let (world, tokens) = World::with_ada().await;
    let ada = world.caller(&tokens).await;
    let eve = world.caller(&world.register("eve@example.org").await.unwrap()).await;
    let (key, secret) = world.key(&ada, robot()).await.unwrap();
    assert!(matches!(world.revoke(&eve, key.id).await, Err(Error::NotFound("API key"))));
    world.authenticate(&secret).await.unwrap();
    let revoked = world.revoke(&ada, key.id).await.unwrap();
    assert_eq!(revoked.revoked_at, Some(world.now()));
    world.wait(FRESH);
    assert_unauthenticated(&world.authenticate(&secret).await, BAD_API_KEY);
    assert_eq!(world.revoke(&ada, key.id).await.unwrap().revoked_at, revoked.revoked_at);
}

#[tokio::test]
async fn a_key_is_used_once_a_minute_as_far_as_the_row_says() {
    let (world, tokens) = World::with_ada().await;
    let (key, secret) = world.key(&world.caller(&tokens).await, robot()).await.unwrap();
    let begun = world.now();
    for (waited, used) in [(0, 0), (30, 0), (29, 0), (5, 64), (59, 64), (5, 128)] {
        world.wait(SECOND * waited);
        world.authenticate(&secret).await.unwrap();
        let expected = Some(begun.after(SECOND * used));
        assert_eq!(world.read_key(key.id).await.last_used_at, expected, "{waited} {used}");
    }
}

#[tokio::test]
async fn what_is_no_key_of_ours_is_refused() {
    let (world, tokens) = World::with_ada().await;
    let (_, secret) = world.key(&world.caller(&tokens).await, robot()).await.unwrap();
    let asked = world.store.statements();
    for bad in ["zsk_", "zsk_x_y", &secret[..76], &format!("{secret}0")] {
        assert_unauthenticated(&world.authenticate(bad).await, BAD_API_KEY);
    }
    assert_eq!(world.store.statements(), asked, "a checksum that is wrong costs no statement");
    assert_unauthenticated(&world.authenticate(&key::spell([9; 32])).await, BAD_API_KEY);
    assert_unauthenticated(&world.authenticate("").await, BAD_ACCESS_TOKEN);
}

#[tokio::test]
async fn a_user_has_a_hundred_live_keys_at_most() {
    let (world, tokens) = World::with_ada().await;
    let ada = world.caller(&tokens).await;
    let (first, _) = world.key(&ada, robot()).await.unwrap();
    for _ in 1..rules::MAX_KEYS {
        world.key(&ada, robot()).await.unwrap();
    }
    assert_refused(&world.key(&ada, robot()).await, "TOO_MANY_KEYS");
    world.revoke(&ada, first.id).await.unwrap();
    world.key(&ada, robot()).await.unwrap();
}

#[tokio::test]
async fn a_key_wants_a_name_and_a_scope() {
    let (world, tokens) = World::with_ada().await;
    let ada = world.caller(&tokens).await;
    for (new, expected) in [
        (NewApiKey { name: String::new(), ..robot() }, "name"),
        (NewApiKey { scopes: Vec::new(), ..robot() }, "scopes"),
        (NewApiKey { expires_in: Some(Duration::ZERO), ..robot() }, "expiresIn"),
    ] {
        let refused = world.key(&ada, new).await;
        assert!(matches!(&refused, Err(Error::Invalid { field, .. }) if field == expected), "{refused:?}");
    }
}

#[tokio::test]
async fn the_operator_makes_accounts_and_gives_roles() {
    let (world, tokens) = World::with_ada().await;
    let password_hash = world.auth.hash(PASSWORD).await.unwrap();
    let root = || NewAccount {
        email: "Root@Example.org".into(),
        display_name: "Root".into(),
        password_hash: password_hash.clone(),
        role: Role::Admin,
    };
    let made = world.store.write(Caller::System, async |work| create(work, root()).await).await.unwrap();
    assert_eq!((made.email.as_str(), made.role, made.last_login_at), ("root@example.org", Role::Admin, None));
    let again = world.store.write(Caller::System, async |work| create(work, root()).await).await;
    assert_refused(&again, "EMAIL_TAKEN");
    let plain = NewAccount { email: "b@example.org".into(), password_hash: PASSWORD.into(), ..root() };
    let plain = world.store.write(Caller::System, async |work| create(work, plain).await).await;
    assert!(matches!(plain, Err(Error::Invalid { .. })));
    let admin = world.caller(&world.login("root@example.org", PASSWORD).await.unwrap()).await;
    assert!(admin.is_admin());

    let promote = async |work: &mut Work| set_role(work, "ADA@example.org", Role::Arbiter).await;
    assert_eq!(world.store.write(Caller::System, promote).await.unwrap().role, Role::Arbiter);
    // The token says USER still; the row decides.
    assert_eq!(world.caller(&tokens).await.identity().unwrap().role, Role::Arbiter);
    for caller in [Caller::Anonymous, admin] {
        assert!(matches!(world.store.write(caller.clone(), promote).await, Err(Error::Forbidden(_))));
        let made = world.store.write(caller, async |work| create(work, root()).await).await;
        assert!(matches!(made, Err(Error::Forbidden(_))));
    }
    let nobody = async |work: &mut Work| set_role(work, "nobody@example.org", Role::Admin).await;
    assert!(matches!(world.store.write(Caller::System, nobody).await, Err(Error::NotFound("user"))));
}

#[tokio::test]
async fn nothing_that_is_printed_for_debugging_holds_a_secret() {
    let (world, tokens) = World::with_ada().await;
    let new = NewUser { email: ADA.into(), display_name: "Ada".into(), password: PASSWORD.into() };
    let account = NewAccount {
        email: ADA.into(),
        display_name: "Ada".into(),
        password_hash: tokens.user.password_hash.clone(),
        role: Role::User,
    };
    let printed = format!("{:?} {new:?} {account:?} {tokens:?}", world.auth);
    for secret in [PASSWORD, &tokens.access_token, &tokens.refresh_token, &tokens.user.password_hash] {
        assert!(!printed.contains(secret), "{printed}");
    }
}
