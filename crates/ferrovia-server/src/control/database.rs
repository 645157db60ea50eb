//! The database, waited for: `serve` starts it beside control, and somebody else's may be away for a while.

use std::time::Duration;

use ferrovia_store::seal::Keyring;
use ferrovia_store::{Db, Error, Options, embedded};

use crate::command::Failure;
use crate::config::Config;

/// First pause between two tries, in milliseconds; doubled up to the cap.
const FIRST_PAUSE_MS: u64 = 100;
/// Longest pause between two tries, in milliseconds.
const MAX_PAUSE_MS: u64 = 5_000;

/// Opens the database and its keys once it answers, and brings its schema up to date.
///
/// # Errors
/// What does not go away by waiting: a wrong address, a schema that cannot be migrated, keys that were lost.
pub async fn open(config: &Config) -> Result<(Db, Keyring), Failure> {
    let url = match config.database.url()? {
        Some(url) => url.expose().to_owned(),
        None => embedded::url(&config.paths.run),
    };
    let options = Options::new(url).application_name("ferrovia control");
    let mut pause = Duration::from_millis(FIRST_PAUSE_MS);
    loop {
        match try_open(config, &options).await {
            Ok(opened) => return Ok(opened),
            Err(error) if error.class().is_retryable() => {
                let why = &error as &dyn std::error::Error;
                tracing::warn!(error = why, "the database does not answer yet");
            }
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(MAX_PAUSE_MS));
    }
}

async fn try_open(config: &Config, options: &Options) -> Result<(Db, Keyring), Error> {
    let db = Db::connect(options).await?;
    db.migrate(options).await?;
    let keyring = Keyring::open(&db, &config.paths.data).await?;
    Ok((db, keyring))
}
