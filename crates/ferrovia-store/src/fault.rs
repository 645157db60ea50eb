//! Death at a commit, for tests: what a reconciler leaves behind when its process is killed at its n-th commit.
//!
//! A [`Db`](crate::Db) with [`Faults`] behaves, from the chosen commit on, like the database connection of a killed
//! process: its transactions are rolled back and nothing that was asked of it ever returns. The test awaits
//! [`Faults::died`], drops whatever used that `Db`, and starts anew with another.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

/// Where in the life of one `Db` it dies. Clones are the same.
#[derive(Debug, Clone)]
pub struct Faults(Arc<State>);

#[derive(Debug)]
struct State {
    commits: AtomicU64,
    die: Option<(u64, Place)>,
    dead: watch::Sender<bool>,
}

/// Where a commit is met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// It takes no effect.
    Before,
    /// It took effect; nobody hears of it.
    After,
    /// It is left alone.
    Nowhere,
}

impl Default for Faults {
    fn default() -> Self {
        Self::new(None)
    }
}

impl Faults {
    fn new(die: Option<(u64, Place)>) -> Self {
        let dead = watch::Sender::new(false);
        let commits = AtomicU64::new(0);
        Self(Arc::new(State { commits, die, dead }))
    }

    /// Dies just before the `n`-th commit, from 1.
    pub fn before_commit(n: u64) -> Self {
        Self::new(Some((n, Place::Before)))
    }

    /// Dies just after the `n`-th commit, from 1.
    pub fn after_commit(n: u64) -> Self {
        Self::new(Some((n, Place::After)))
    }

    /// Commits that were reached.
    pub fn commits(&self) -> u64 {
        self.0.commits.load(Ordering::SeqCst)
    }

    /// Whether it died.
    pub fn is_dead(&self) -> bool {
        *self.0.dead.borrow()
    }

    /// Returns once it died.
    pub async fn died(&self) {
        // The sender lives in `self`: the wait cannot fail.
        let _ = self.0.dead.subscribe().wait_for(|dead| *dead).await;
    }

    pub(crate) fn reach_commit(&self) -> Place {
        let n = self.0.commits.fetch_add(1, Ordering::SeqCst) + 1;
        match self.0.die {
            Some((at, place)) if n == at => {
                self.0.dead.send_replace(true);
                place
            }
            _ if self.is_dead() => Place::Before,
            _ => Place::Nowhere,
        }
    }

    pub(crate) async fn hang<T>(&self) -> T {
        match std::future::pending::<Infallible>().await {}
    }

    pub(crate) async fn hang_if_dead(&self) {
        if self.is_dead() {
            self.hang().await
        }
    }
}

impl crate::Db {
    /// The same database, seen by a process that dies at the given place.
    #[must_use]
    pub fn with_faults(&self, faults: Faults) -> Self {
        Self {
            faults,
            ..self.clone()
        }
    }
}
