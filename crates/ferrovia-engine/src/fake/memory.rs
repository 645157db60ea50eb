//! The fake engine in the caller's process: its state, its faults, and the caller's clock.
//!
//! Nothing here waits, except for scripted delays and slow stops, which use tokio's clock: a test with paused time is
//! fast and repeatable. [`Memory`] is a handle; its clones are the same engine.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use ferrovia_core::workload::{EngineRestart, ImageReference, Observed, Workload};
use futures_util::stream::{BoxStream, StreamExt, unfold};
use tokio::sync::{broadcast, watch};

use super::Options;
use super::faults::{Call, Fault, Faults, Script};
use super::record::{Replica, Run};
use super::world::World;
use crate::{Capabilities, Engine, EngineInfo, Error, Hint, ImageInfo, RegistryLogin, Scope, Stats};

/// Milliseconds since 1970, as the caller counts them.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// Hints that a slow listener may be behind before it loses some.
const HINTS_QUEUED: usize = 1024;
/// What lost answers say they waited, in milliseconds.
const SCRIPTED_TIMEOUT_MS: u64 = 30_000;

/// A fake engine without sockets.
#[derive(Clone)]
pub struct Memory {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    clock: Clock,
    killed: watch::Sender<bool>,
    changes: watch::Sender<u64>,
}

struct State {
    world: World,
    faults: Faults,
    hints: broadcast::Sender<Hint>,
    held_hints: Vec<Hint>,
}

impl Memory {
    /// An empty engine that takes its time from `clock`.
    pub fn new(mut options: Options, clock: Clock) -> Self {
        let script = std::mem::take(&mut options.script);
        let state = State {
            faults: Faults::new(script, options.seed),
            world: World::new(options),
            hints: broadcast::channel(HINTS_QUEUED).0,
            held_hints: Vec::new(),
        };
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                clock,
                killed: watch::channel(false).0,
                changes: watch::channel(0).0,
            }),
        }
    }

    /// Puts another script in place; counting of steps starts again.
    pub fn set_script(&self, script: Script) {
        self.lock().faults.replace(script);
    }

    /// Steps since the script was set: calls, and the creates and starts inside `apply` and `prepare`.
    pub fn steps(&self) -> u64 {
        self.lock().faults.steps()
    }

    /// Steps of one kind since the script was set.
    pub fn count(&self, call: Call) -> u64 {
        self.lock().faults.count(call)
    }

    /// Ends once a scripted kill was met.
    pub async fn killed(&self) {
        let mut killed = self.shared.killed.subscribe();
        // The sender lives as long as `self`, so that waiting cannot fail.
        let _ = killed.wait_for(|killed| *killed).await;
    }

    /// A new caller takes over after a scripted kill: calls are answered again, those of the dead one never are.
    pub fn revive(&self) {
        self.shared.killed.send_replace(false);
    }

    /// Everything that exists, without counting as a call.
    pub fn replicas(&self) -> Vec<Observed> {
        self.now(|state, _| state.world.observe(Scope::All))
    }

    /// What a request for `path` would be answered with now; `None` when nothing listens.
    pub fn answer(&self, handle: &str, path: &str) -> Option<u16> {
        self.now(|state, now_ms| state.world.answer(handle, path, now_ms))
    }

    /// The variables that a replica's process sees, in order; a later one of a name hides the earlier.
    pub fn variables(&self, handle: &str) -> Option<Vec<(String, String)>> {
        self.lock()
            .world
            .replica(handle)
            .map(|replica| replica.variables.clone())
    }

    /// Ends a replica's process as if it had crashed.
    pub fn crash(&self, handle: &str, code: i32, out_of_memory: bool) {
        self.now(|state, now_ms| state.world.crash(handle, code, out_of_memory, now_ms));
    }

    /// Ends everything and starts what the restart policies say, as a reboot of the host does; streams of hints end.
    pub fn reboot(&self) {
        self.now(|state, now_ms| {
            state.world.reboot(now_ms);
            state.hints = broadcast::channel(HINTS_QUEUED).0;
        });
    }

    /// What runs now.
    pub(super) fn runs(&self) -> Vec<Replica> {
        self.now(|state, _| state.world.running().cloned().collect())
    }

    /// Counts every change of what exists or runs.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    /// Fetches an image. Whoever asks may: there is no registry.
    pub(super) async fn fetch(&self, image: &ImageReference) -> Result<ImageInfo, Error> {
        let missing = || Error::Image {
            image: image.to_string(),
            why: "it went away".into(),
        };
        self.step(Call::EnsureImage, |world, _| {
            world.ensure_image(image)?;
            world.find_image(image).ok_or_else(missing)
        })
        .await
    }

    /// Ends once a run of a replica has.
    pub(super) async fn run_ended(&self, handle: &str, started_at_ms: Option<i64>) {
        let runs = || {
            let state = self.lock();
            let replica = state.world.replica(handle);
            replica
                .is_some_and(|replica| replica.run == Run::Running && replica.started_at_ms == started_at_ms)
        };
        let mut changes = self.changes();
        // The sender lives as long as `self`, so that waiting cannot fail.
        let _ = changes.wait_for(|_| !runs()).await;
    }

    /// Ends once a killed caller has been replaced.
    pub(super) async fn revived(&self) {
        let mut killed = self.shared.killed.subscribe();
        // The sender lives as long as `self`, so that waiting cannot fail.
        let _ = killed.wait_for(|killed| *killed).await;
        let _ = killed.wait_for(|killed| !*killed).await;
    }

    /// Lets time do what it does until now, and sends the hints of it. Every call does this first.
    pub fn tick(&self) {
        self.now(|_, _| ());
    }

    /// When time alone next changes something, in milliseconds since 1970.
    pub fn next_due_ms(&self) -> Option<i64> {
        self.lock().world.next_due().map(|(due_ms, _)| due_ms)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Acts on the state as it is now, and sends the hints of what changed.
    fn now<T>(&self, act: impl FnOnce(&mut State, i64) -> T) -> T {
        let now_ms = (self.shared.clock)();
        let mut state = self.lock();
        state.world.advance(now_ms);
        let result = act(&mut state, now_ms);
        let State {
            world,
            faults,
            hints,
            held_hints,
        } = &mut *state;
        let due: Vec<Hint> = world
            .take_changed()
            .into_iter()
            .map(|instance_id| Hint { instance_id })
            .collect();
        if due.is_empty() {
            return result;
        }
        self.shared.changes.send_modify(|count| *count += 1);
        for hint in faults.pass(due, held_hints) {
            // Nobody listens: nobody misses it.
            let _ = hints.send(hint);
        }
        result
    }

    /// One step: counted, then done, unless the script has something else in mind.
    async fn step<T>(
        &self,
        call: Call,
        effect: impl FnOnce(&mut World, i64) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let after = self.before(call).await?;
        let result = self.now(|state, now_ms| effect(&mut state.world, now_ms));
        self.after(call, after).await?;
        result
    }

    /// What the script does before a step; the answer is what it does after.
    async fn before(&self, call: Call) -> Result<Option<Fault>, Error> {
        if *self.shared.killed.borrow() {
            std::future::pending::<()>().await;
        }
        let fault = self.lock().faults.decide(call);
        match fault {
            Some(Fault::Unavailable) => Err(Error::Unavailable("scripted".into())),
            Some(Fault::Refuse(why)) => Err(Error::Refused {
                call: call.as_str(),
                why,
            }),
            Some(Fault::LoseCall) => Err(lost(call)),
            Some(Fault::Delay(wait_ms)) => {
                tokio::time::sleep(Duration::from_millis(wait_ms)).await;
                Ok(None)
            }
            Some(Fault::KillBefore) => self.die().await,
            Some(after @ (Fault::LoseAnswer | Fault::KillAfter)) => Ok(Some(after)),
            None => Ok(None),
        }
    }

    async fn after(&self, call: Call, fault: Option<Fault>) -> Result<(), Error> {
        match fault {
            Some(Fault::KillAfter) => self.die().await,
            Some(Fault::LoseAnswer) => Err(lost(call)),
            _ => Ok(()),
        }
    }

    async fn die<T>(&self) -> T {
        self.shared.killed.send_replace(true);
        std::future::pending().await
    }

    /// Makes every slot, and starts those that never were when asked to.
    async fn make(&self, call: Call, workload: &Workload, start: bool) -> Result<Vec<Observed>, Error> {
        let after = self.before(call).await?;
        let mut observed = Vec::new();
        for slot in &workload.replicas {
            let handle = self
                .step(Call::Create, |world, _| world.create(workload, slot))
                .await?;
            let never_ran = self.now(|state, _| {
                state
                    .world
                    .replica(&handle)
                    .is_some_and(|found| found.run == Run::Created)
            });
            if start && never_ran {
                self.step(Call::Start, |world, now_ms| world.start(&handle, now_ms))
                    .await?;
            }
            observed.extend(self.now(|state, _| state.world.replica(&handle).map(|found| found.observed())));
        }
        self.after(call, after).await?;
        Ok(observed)
    }
}

const fn lost(call: Call) -> Error {
    Error::Unknown {
        call: call.as_str(),
        timeout_ms: SCRIPTED_TIMEOUT_MS,
    }
}

#[async_trait]
impl Engine for Memory {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            static_addresses: true,
            pause: false,
            socket_inspection: false,
        }
    }

    async fn info(&self) -> Result<EngineInfo, Error> {
        let info = EngineInfo {
            name: "Fake".into(),
            api_version: "1".into(),
            live_restore: true,
            architecture: "amd64".into(),
            problems: Vec::new(),
        };
        self.step(Call::Info, |_, _| Ok(info)).await
    }

    async fn find_image(&self, image: &ImageReference) -> Result<Option<ImageInfo>, Error> {
        self.step(Call::FindImage, |world, _| Ok(world.find_image(image)))
            .await
    }

    async fn ensure_image(&self, image: &ImageReference, _: &RegistryLogin) -> Result<ImageInfo, Error> {
        self.fetch(image).await
    }

    async fn images(&self, repository_prefix: &str) -> Result<Vec<ImageReference>, Error> {
        self.step(Call::Images, |world, _| Ok(world.images(repository_prefix)))
            .await
    }

    async fn remove_image(&self, image: &ImageReference) -> Result<(), Error> {
        self.step(Call::RemoveImage, |world, _| world.remove_image(image))
            .await
    }

    async fn apply(&self, workload: &Workload) -> Result<Vec<Observed>, Error> {
        self.make(Call::Apply, workload, true).await
    }

    async fn prepare(&self, workload: &Workload) -> Result<Vec<Observed>, Error> {
        self.make(Call::Prepare, workload, false).await
    }

    async fn observe(&self, scope: Scope) -> Result<Vec<Observed>, Error> {
        self.step(Call::Observe, |world, _| Ok(world.observe(scope)))
            .await
    }

    async fn find(&self, handle: &str) -> Result<Option<Observed>, Error> {
        self.step(Call::Find, |world, _| {
            Ok(world.replica(handle).map(|replica| replica.observed()))
        })
        .await
    }

    async fn start(&self, handle: &str) -> Result<(), Error> {
        self.step(Call::Start, |world, now_ms| world.start(handle, now_ms))
            .await
    }

    async fn set_restart(&self, handle: &str, restart: EngineRestart) -> Result<(), Error> {
        self.step(Call::SetRestart, |world, _| world.set_restart(handle, restart))
            .await
    }

    async fn stop(&self, handle: &str, grace_ms: u32) -> Result<(), Error> {
        let after = self.before(Call::Stop).await?;
        let takes_ms = self.now(|state, _| {
            let running = state
                .world
                .replica(handle)
                .filter(|replica| replica.run == Run::Running);
            running.map_or(0, |replica| {
                replica.behaviour.stop_delay_ms.min(u64::from(grace_ms))
            })
        });
        if takes_ms > 0 {
            tokio::time::sleep(Duration::from_millis(takes_ms)).await;
        }
        self.now(|state, now_ms| state.world.stop(handle, grace_ms, now_ms));
        self.after(Call::Stop, after).await
    }

    async fn remove(&self, handle: &str) -> Result<(), Error> {
        self.step(Call::Remove, |world, _| world.remove(handle)).await
    }

    async fn events(&self) -> Result<BoxStream<'static, Result<Hint, Error>>, Error> {
        let after = self.before(Call::Events).await?;
        let receiver = self.now(|state, _| state.hints.subscribe());
        self.after(Call::Events, after).await?;
        let next = |mut receiver: broadcast::Receiver<Hint>| async move {
            loop {
                match receiver.recv().await {
                    Ok(hint) => return Some((Ok(hint), receiver)),
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
            }
        };
        Ok(unfold(receiver, next).boxed())
    }

    async fn stats(&self, handle: &str) -> Result<Option<Stats>, Error> {
        self.step(Call::Stats, |world, now_ms| Ok(world.stats(handle, now_ms)))
            .await
    }

    async fn log_file(&self, _: &str) -> Result<Option<PathBuf>, Error> {
        self.step(Call::LogFile, |_, _| Ok(None)).await
    }

    async fn process_id(&self, _: &str) -> Result<Option<u32>, Error> {
        self.step(Call::ProcessId, |_, _| Ok(None)).await
    }
}
