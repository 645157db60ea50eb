//! Who follows a deployment, by its instance: woken when something of that instance was written, not when something of
//! another was, since every look costs a dozen queries.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ferrovia_core::id::InstanceId;
use tokio::sync::watch;

/// The followers of all instances. An instance that nobody follows takes no room once somebody follows another.
#[derive(Debug, Default)]
pub(crate) struct Followers(Mutex<HashMap<InstanceId, watch::Sender<()>>>);

impl Followers {
    fn lock(&self) -> MutexGuard<'_, HashMap<InstanceId, watch::Sender<()>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows an instance from now on.
    pub(crate) fn follow(&self, instance: InstanceId) -> watch::Receiver<()> {
        let mut followed = self.lock();
        followed.retain(|_, sender| sender.receiver_count() > 0);
        let sender = followed.entry(instance).or_insert_with(|| watch::channel(()).0);
        sender.subscribe()
    }

    /// Wakes those who follow an instance.
    pub(crate) fn wake(&self, instance: InstanceId) {
        if let Some(sender) = self.lock().get(&instance) {
            sender.send_replace(());
        }
    }

    /// Wakes everybody.
    pub(crate) fn wake_all(&self) {
        for sender in self.lock().values() {
            sender.send_replace(());
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn only_what_is_followed_wakes() {
        let [one, two] = [1, 2].map(|n| InstanceId::from_uuid(Uuid::from_u128(n)));
        let followers = Followers::default();
        let (mut first, mut second) = (followers.follow(one), followers.follow(two));
        followers.wake(one);
        assert!(first.has_changed().unwrap());
        assert!(!second.has_changed().unwrap(), "it is another instance's news");
        first.mark_unchanged();
        followers.wake_all();
        assert!(first.has_changed().unwrap() && second.has_changed().unwrap());
        second.mark_unchanged();
        drop(second);
        let _again = followers.follow(one);
        assert_eq!(followers.lock().len(), 1, "nobody follows the other any more");
    }
}
