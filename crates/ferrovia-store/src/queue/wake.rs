//! Waking: NOTIFY shortens the wait for work, and nothing depends on it.

use std::time::Duration;

use sqlx::postgres::PgListener;
use tokio::sync::watch;

use super::CHANNEL;
use crate::{Db, Error};

/// Pause before listening again after the connection broke, in milliseconds.
const LISTEN_AGAIN_MS: u64 = 1_000;

/// Tells that something was enqueued. One connection serves any number of waiting tasks.
#[derive(Debug, Clone)]
pub struct Wake(watch::Receiver<u64>);

impl Wake {
    /// Listens until every clone is dropped. Must be called in a tokio runtime.
    pub fn listen(db: &Db) -> Self {
        let (sender, receiver) = watch::channel(0);
        let db = db.clone();
        tokio::spawn(async move {
            while !sender.is_closed() {
                if let Err(error) = forward(&db, &sender).await {
                    tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        "not listening for work: polling only"
                    );
                }
                tokio::time::sleep(Duration::from_millis(LISTEN_AGAIN_MS)).await;
            }
        });
        Self(receiver)
    }

    /// Returns when something was enqueued since the last call, or after `at_most`.
    pub async fn wait(&mut self, at_most: Duration) {
        if let Ok(Err(_)) = tokio::time::timeout(at_most, self.0.changed()).await {
            // The listener is gone: the poll is what is left.
            tokio::time::sleep(at_most).await;
        }
    }
}

async fn forward(db: &Db, sender: &watch::Sender<u64>) -> Result<(), Error> {
    let mut listener = PgListener::connect_with(&db.pool).await?;
    listener.listen(CHANNEL).await?;
    // What was enqueued before this connection listened.
    sender.send_modify(|n| *n += 1);
    loop {
        tokio::select! {
            () = sender.closed() => return Ok(()),
            // Nothing received: the connection broke and was opened again; something may have been missed.
            notification = listener.try_recv() => {
                notification?;
                sender.send_modify(|n| *n += 1);
            }
        }
    }
}
