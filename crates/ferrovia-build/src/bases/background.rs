//! Getting a base goes on when the build that asked for it is cancelled: it is of use to the next one, and half of it to
//! nobody. What it says goes to whoever waits.

use std::sync::Arc;

use ferrovia_core::bases::{Base, Origin};
use tokio::sync::{Mutex, OwnedMutexGuard, mpsc};

use super::{BaseImage, Bases, failed};
use crate::narrator::Narrator;
use crate::{BuildError, BuildLog};

/// Lines that may wait for who reads them; more are left out.
const MAX_WAITING_LINES: usize = 1024;

/// Hands lines on to whoever waits, if anybody still does.
struct Relay(mpsc::Sender<(Option<String>, String)>);

impl BuildLog for Relay {
    fn line(&self, step: Option<&str>, _at_ms: u64, text: &str) {
        // Nobody waits any more, or reads too slowly: the base is what counts.
        let _ = self.0.try_send((step.map(str::to_owned), text.to_owned()));
    }
}

impl Bases {
    /// Gets a base in a task of its own and tells what that says.
    pub(super) async fn in_background(
        self: &Arc<Self>,
        base: &'static Base,
        origin: Origin,
        narrator: &Narrator<'_>,
    ) -> Result<BaseImage, BuildError> {
        let (say, mut said) = mpsc::channel(MAX_WAITING_LINES);
        let bases = Arc::clone(self);
        let task = tokio::spawn(async move {
            let relay = Relay(say);
            let narrator = Narrator::new(&relay);
            match origin {
                Origin::Official => bases.ensure_official(base, &narrator).await,
                Origin::Made => bases.ensure_base(base, &narrator).await,
            }
        });
        while let Some((step, text)) = said.recv().await {
            narrator.say_in(step.as_deref(), &text);
        }
        task.await
            .unwrap_or_else(|_| Err(failed(base, &"the task that did it ended")))
    }

    /// The right to get a base: one at a time does.
    pub(super) async fn take_turn(&self, base: &Base, narrator: &Narrator<'_>) -> OwnedMutexGuard<()> {
        let turn: Arc<Mutex<()>> = self.turn(base);
        match Arc::clone(&turn).try_lock_owned() {
            Ok(taken) => taken,
            Err(_) => {
                let narrator = narrator.step(format!("base {}", base.key()));
                narrator.say("another build is getting it; waiting for that");
                turn.lock_owned().await
            }
        }
    }
}
