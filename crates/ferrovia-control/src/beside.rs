//! Long calls beside the passes: at most one for each key, all ended when control ends.

use std::collections::HashSet;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::JoinSet;

/// Runs calls beside the passes.
#[derive(Debug, Default)]
pub(crate) struct Beside(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    keys: HashSet<String>,
    tasks: JoinSet<()>,
    closed: bool,
}

/// Gives the key free when the call ends, also when it panics.
struct Key(Arc<Mutex<State>>, String);

impl Drop for Key {
    fn drop(&mut self) {
        lock(&self.0).keys.remove(&self.1);
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Beside {
    /// Runs a call unless one runs under the same key.
    pub(crate) fn spawn(&self, key: String, call: impl Future<Output = ()> + Send + 'static) {
        let mut state = lock(&self.0);
        while state.tasks.try_join_next().is_some() {}
        if state.closed || !state.keys.insert(key.clone()) {
            return;
        }
        let key = Key(self.0.clone(), key);
        state.tasks.spawn(async move {
            let _key = key;
            call.await;
        });
    }

    /// Ends every call where it stands, and takes no more.
    pub(crate) fn close(&self) {
        let tasks = {
            let mut state = lock(&self.0);
            state.closed = true;
            std::mem::take(&mut state.tasks)
        };
        // Dropped without the lock: a key's drop takes it.
        drop(tasks);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_call_for_each_key() {
        let beside = Beside::default();
        let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
        let gate = Arc::new(tokio::sync::Notify::new());
        for number in 0..3 {
            let (sender, gate) = (sender.clone(), gate.clone());
            beside.spawn("key".to_owned(), async move {
                let _ = sender.send(number);
                gate.notified().await;
            });
        }
        assert_eq!(receiver.recv().await, Some(0));
        gate.notify_one();
        while lock(&beside.0).keys.contains("key") {
            tokio::task::yield_now().await;
        }
        let again = sender.clone();
        beside.spawn("key".to_owned(), async move {
            let _ = again.send(9);
        });
        assert_eq!(receiver.recv().await, Some(9));
        beside.close();
        beside.spawn("key".to_owned(), async move {
            let _ = sender.send(10);
        });
        assert_eq!(receiver.recv().await, None);
    }
}
