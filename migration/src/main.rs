//! `cargo run -p migration -- status|up|down|fresh`: the migrations by hand, on `DATABASE_URL`.

use migration::{Migrator, MigratorTrait};
use sea_orm_migration::sea_orm::Database;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::var("DATABASE_URL").map_err(|_| "DATABASE_URL is not set")?;
    let connection = Database::connect(url).await?;
    match std::env::args().nth(1).as_deref() {
        Some("up") | None => Migrator::up(&connection, None).await?,
        Some("down") => Migrator::down(&connection, Some(1)).await?,
        Some("fresh") => Migrator::fresh(&connection).await?,
        Some("status") => Migrator::status(&connection).await?,
        Some(other) => return Err(format!("unknown command {other}: use status, up, down or fresh").into()),
    }
    Ok(())
}
