//! Databases as a whole: made and dropped by the embedded PostgreSQL and by tests.

use std::str::FromStr;

use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use crate::db::Options;
use crate::error::Error;

/// Makes a database unless it is there, as a copy of `template` if one is named.
///
/// # Errors
/// [`Error::Refused`] when the user may not, [`Error::Unavailable`].
pub async fn ensure_database(server: &Options, name: &str, template: Option<&str>) -> Result<(), Error> {
    let mut conn = server.open().await?;
    let there: Option<i32> = sqlx::query_scalar("SELECT 1 FROM pg_database WHERE datname = $1")
        .bind(name)
        .fetch_optional(&mut conn)
        .await?;
    if there.is_none() {
        let template = template
            .map(|t| format!(" TEMPLATE {}", quoted(t)))
            .unwrap_or_default();
        let create = format!("CREATE DATABASE {}{template}", quoted(name));
        run(&mut conn, create).await?;
    }
    let _ = conn.close().await;
    Ok(())
}

/// Drops a database with everything in it, and ends its connections.
///
/// # Errors
/// [`Error::Refused`] when the user may not, [`Error::Unavailable`].
pub async fn drop_database(server: &Options, name: &str) -> Result<(), Error> {
    let mut conn = server.open().await?;
    run(
        &mut conn,
        format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quoted(name)),
    )
    .await?;
    let _ = conn.close().await;
    Ok(())
}

/// Whether `url` can be understood as the address of a PostgreSQL.
///
/// # Errors
/// [`Error::Refused`] with what is wrong with it.
pub fn check_url(url: &str) -> Result<(), Error> {
    PgConnectOptions::from_str(url)
        .map(|_| ())
        .map_err(Error::Refused)
}

async fn run(conn: &mut PgConnection, statement: String) -> Result<(), Error> {
    conn.execute(AssertSqlSafe(statement)).await?;
    Ok(())
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
