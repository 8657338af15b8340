//! The schema on both databases: up, down, up again; every entity reads from it and writes into it.

use entity::*;
use migration::{Migrator, MigratorTrait};
use sea_orm::{ConnectionTrait, DatabaseConnection, EntityTrait, Iterable, QuerySelect, sea_query::ColumnRef};

use crate::world::{Database, World};

async fn select_all<E: EntityTrait>(db: &DatabaseConnection) {
    let found = E::find().limit(1).all(db).await;
    assert!(found.is_ok(), "{} cannot be read: {:?}", E::default().table_name(), found.err());
    // Every column that the entity names is one that can be written.
    let mut insert = sea_orm::sea_query::Query::insert();
    insert.into_table(E::default().table_ref()).columns(E::Column::iter().map(|column| {
        use sea_orm::Iden;
        sea_orm::sea_query::Alias::new(column.unquoted())
    }));
    let nothing = sea_orm::sea_query::Query::select()
        .columns(E::Column::iter().map(|column| {
            use sea_orm::Iden;
            ColumnRef::from(sea_orm::sea_query::Alias::new(column.unquoted()))
        }))
        .from(E::default().table_ref())
        .and_where(sea_orm::sea_query::Expr::cust("1 = 0"))
        .to_owned();
    if E::default().table_name() == "events" {
        // The database alone numbers the lines of the log.
        return;
    }
    insert.select_from(nothing).unwrap();
    let written = db.execute(&insert).await;
    assert!(written.is_ok(), "{} cannot be written: {:?}", E::default().table_name(), written.err());
}

async fn every_entity_fits(db: &DatabaseConnection) {
    select_all::<user::Entity>(db).await;
    select_all::<session::Entity>(db).await;
    select_all::<api_key::Entity>(db).await;
    select_all::<agent::Entity>(db).await;
    select_all::<agent_capability::Entity>(db).await;
    select_all::<agent_module::Entity>(db).await;
    select_all::<task::Entity>(db).await;
    select_all::<task_result::Entity>(db).await;
    select_all::<auction::Entity>(db).await;
    select_all::<bid::Entity>(db).await;
    select_all::<channel::Entity>(db).await;
    select_all::<execution::Entity>(db).await;
    select_all::<account::Entity>(db).await;
    select_all::<transfer::Entity>(db).await;
    select_all::<entry::Entity>(db).await;
    select_all::<hold::Entity>(db).await;
    select_all::<hold_resolution::Entity>(db).await;
    select_all::<reputation::Entity>(db).await;
    select_all::<reputation_event::Entity>(db).await;
    select_all::<rating::Entity>(db).await;
    select_all::<instance::Entity>(db).await;
    select_all::<journal_line::Entity>(db).await;
    select_all::<journal_head::Entity>(db).await;
    select_all::<channel_change::Entity>(db).await;
    select_all::<equivocation::Entity>(db).await;
    select_all::<dispute::Entity>(db).await;
    select_all::<evidence::Entity>(db).await;
    select_all::<bond::Entity>(db).await;
    select_all::<commitment::Entity>(db).await;
    select_all::<document::Entity>(db).await;
    select_all::<delegation::Entity>(db).await;
    select_all::<delegation_step::Entity>(db).await;
    select_all::<delegation_task::Entity>(db).await;
    select_all::<delivery::Entity>(db).await;
    select_all::<event::Entity>(db).await;
    select_all::<idempotency::Entity>(db).await;
}

/// The URL by which a new SQLite file may be made.
fn writable(url: String) -> String {
    if url.starts_with("sqlite:") { format!("{url}?mode=rwc") } else { url }
}

#[tokio::test]
async fn the_schema_goes_up_down_and_up_again_and_fits_every_entity() {
    let folder = tempfile::tempdir().unwrap();
    let place = Database::empty(folder.path()).await;
    let db = sea_orm::Database::connect(writable(place.url())).await.unwrap();
    Migrator::up(&db, None).await.unwrap();
    every_entity_fits(&db).await;
    Migrator::down(&db, None).await.unwrap();
    assert!(user::Entity::find().all(&db).await.is_err(), "down takes the tables away");
    Migrator::up(&db, None).await.unwrap();
    every_entity_fits(&db).await;
    assert!(Migrator::get_pending_migrations(&db).await.unwrap().is_empty());
}

#[tokio::test]
async fn the_database_refuses_to_change_the_journal() {
    let world = World::start().await;
    let ada = world.user("ada").await;
    world.credit(&ada, "5").await;
    let db = world.app.store().read();
    let writer = sea_orm::Database::connect(writable(world.database_url())).await.unwrap();
    for statement in [
        "UPDATE transfers SET amount = amount + 1",
        "DELETE FROM transfers",
        "UPDATE entries SET current = current + 1",
        "DELETE FROM entries",
        "UPDATE events SET kind = 'TASK_POSTED'",
        "UPDATE accounts SET balance = -1 WHERE kind = 'USER'",
        "UPDATE accounts SET kind = 'NOTHING'",
        "UPDATE users SET role = 'KING'",
    ] {
        assert!(writer.execute_unprepared(statement).await.is_err(), "{statement} went through");
    }
    assert_eq!(transfer::Entity::find().all(db).await.unwrap().len(), 1);
    world.check().await;
}
