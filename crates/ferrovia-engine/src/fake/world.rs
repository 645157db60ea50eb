//! The fake engine's state: what exists, what runs, and what time alone changes. A pure state machine: no clock, no
//! I/O, the same calls at the same times lead to the same state.
//!
//! It keeps to what Docker does where a caller could notice: an address is taken when a replica starts and free when
//! it ends, the engine starts a replica again after 100 ms and then after twice as long each time, one that was
//! stopped by hand stays down, a running one cannot be removed, an image in use neither.

use std::collections::BTreeMap;

use ferrovia_core::id::InstanceId;
use ferrovia_core::workload::{EngineRestart, Exit, ImageReference, Observed, ReplicaSlot, Workload};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::behaviour::{Behaviour, Listen};
use super::record::{Replica, Run};
use super::{FakeImage, Options};
use crate::naming::replica_name;
use crate::{Error, ImageInfo, Scope, Stats};

/// First wait before the engine starts a replica again, in milliseconds.
const RESTART_WAIT_MS: u64 = 100;
/// Longest wait before the engine starts a replica again, in milliseconds.
const RESTART_WAIT_MAX_MS: u64 = 60_000;
/// A run of this length makes the wait short again, in milliseconds.
const RESTART_RESET_MS: i64 = 10_000;
/// Size that every image has, in bytes.
const IMAGE_BYTES: u64 = 20_000_000;
/// Memory that every running replica uses, in bytes.
const MEMORY_BYTES: u64 = 16_000_000;
/// What the engine says of an address that another replica has.
const ADDRESS_TAKEN: &str = "Address already in use";
/// Exit code of what could not be started.
const CANNOT_START: i32 = 128;
/// Exit code after SIGTERM.
const TERMINATED: i32 = 143;
/// Exit code after SIGKILL.
const KILLED: i32 = 137;

/// Everything that the engine has.
pub(super) struct World {
    options: Options,
    replicas: BTreeMap<String, Replica>,
    /// By their text.
    images: BTreeMap<String, ImageReference>,
    /// Whose replicas changed since they were last asked for.
    changed: Vec<InstanceId>,
    handles: StdRng,
}

impl World {
    pub(super) fn new(options: Options) -> Self {
        Self {
            handles: StdRng::seed_from_u64(options.seed),
            options,
            replicas: BTreeMap::new(),
            images: BTreeMap::new(),
            changed: Vec::new(),
        }
    }

    /// Lets time do what it does until `now_ms`: replicas end by themselves and are started again.
    pub(super) fn advance(&mut self, now_ms: i64) {
        while let Some((due_ms, handle)) = self.next_due().filter(|(due_ms, _)| *due_ms <= now_ms) {
            let Some(replica) = self.replicas.get(&handle) else {
                return;
            };
            if replica.run == Run::Running {
                let exit = Exit {
                    code: replica.behaviour.exit_code,
                    out_of_memory: replica.behaviour.exit_out_of_memory,
                    at_ms: due_ms,
                    error: None,
                };
                self.end(&handle, exit);
            } else {
                self.run_again(&handle, due_ms);
            }
        }
    }

    /// When time next changes something, and for whom.
    pub(super) fn next_due(&self) -> Option<(i64, String)> {
        let due = |replica: &Replica| match replica.run {
            Run::Running => Some(
                replica
                    .started_at_ms?
                    .saturating_add_unsigned(replica.behaviour.exit_after_ms?),
            ),
            Run::Waiting { until_ms } => Some(until_ms),
            Run::Created | Run::Ended(_) => None,
        };
        self.replicas
            .values()
            .filter_map(|replica| Some((due(replica)?, replica.handle.clone())))
            .min()
    }

    /// Whose replicas changed since this was last asked.
    pub(super) fn take_changed(&mut self) -> Vec<InstanceId> {
        std::mem::take(&mut self.changed)
    }

    /// The replicas that run.
    pub(super) fn running(&self) -> impl Iterator<Item = &Replica> {
        self.replicas
            .values()
            .filter(|replica| replica.run == Run::Running)
    }

    /// One replica.
    pub(super) fn replica(&self, handle: &str) -> Option<&Replica> {
        self.replicas.get(handle)
    }

    /// Makes one slot of a workload; one that is there with the same id and hash is success.
    pub(super) fn create(&mut self, workload: &Workload, slot: &ReplicaSlot) -> Result<String, Error> {
        let name = replica_name(&self.options.name_prefix, &workload.owner, slot);
        if let Some(there) = self.replicas.values().find(|replica| replica.name == name) {
            let same = there.slot.id == slot.id && there.spec_hash == workload.spec_hash;
            return if same {
                Ok(there.handle.clone())
            } else {
                Err(Error::NameTaken(name))
            };
        }
        if !self.images.contains_key(&workload.image.to_string()) {
            return Err(Error::Image {
                image: workload.image.to_string(),
                why: "the engine does not hold it".into(),
            });
        }
        let mut variables = self
            .image_entry(&workload.image)
            .map(|image| image.variables.clone())
            .unwrap_or_default();
        let given = workload
            .variables
            .iter()
            .map(|(key, value)| (key.clone(), value.expose().to_owned()));
        variables.extend(given);
        variables.push(("FERROVIA_REPLICA_ID".into(), name.clone()));
        let handle: String = (0..4)
            .map(|_| format!("{:016x}", self.handles.random::<u64>()))
            .collect();
        let replica = Replica {
            handle: handle.clone(),
            name,
            owner: workload.owner.clone(),
            slot: slot.clone(),
            spec_hash: workload.spec_hash.clone(),
            image: workload.image.clone(),
            behaviour: Behaviour::from_variables(
                variables
                    .iter()
                    .map(|(key, value)| (key.as_str(), value.as_str())),
            ),
            variables,
            resources: workload.resources.clone(),
            restart: EngineRestart::No,
            run: Run::Created,
            started_at_ms: None,
            engine_restarts: 0,
            last_exit: None,
            restart_wait_ms: RESTART_WAIT_MS,
            stopped_by_hand: false,
        };
        self.changed.push(replica.owner.instance_id);
        self.replicas.insert(handle.clone(), replica);
        Ok(handle)
    }

    /// Starts a replica; a running one is success.
    pub(super) fn start(&mut self, handle: &str, now_ms: i64) -> Result<(), Error> {
        let replica = self
            .replicas
            .get_mut(handle)
            .ok_or_else(|| Error::Gone(handle.to_owned()))?;
        if replica.run == Run::Running {
            return Ok(());
        }
        if let Some(why) = replica.behaviour.cannot_start.clone() {
            replica.run = Run::Ended(Exit {
                code: 127,
                out_of_memory: false,
                at_ms: now_ms,
                error: Some(why.clone()),
            });
            self.changed.push(replica.owner.instance_id);
            return Err(Error::CannotStart(why));
        }
        if self.address_is_taken(handle) {
            return Err(Error::Refused {
                call: "start",
                why: ADDRESS_TAKEN.into(),
            });
        }
        if let Some(replica) = self.replicas.get_mut(handle) {
            replica.stopped_by_hand = false;
            replica.restart_wait_ms = RESTART_WAIT_MS;
        }
        self.run(handle, now_ms);
        Ok(())
    }

    /// Ends a replica by hand; one that does not run or is gone is success.
    pub(super) fn stop(&mut self, handle: &str, grace_ms: u32, now_ms: i64) {
        let Some(replica) = self.replicas.get_mut(handle) else {
            return;
        };
        replica.stopped_by_hand = true;
        let killed = replica.behaviour.stop_delay_ms > u64::from(grace_ms);
        match replica.run {
            Run::Running | Run::Waiting { .. } => {
                let code = if killed { KILLED } else { TERMINATED };
                self.end(
                    handle,
                    Exit {
                        code,
                        out_of_memory: false,
                        at_ms: now_ms,
                        error: None,
                    },
                );
            }
            Run::Created | Run::Ended(_) => {}
        }
    }

    /// Ends a replica's process as if it had crashed; the engine then does what its restart policy says.
    pub(super) fn crash(&mut self, handle: &str, code: i32, out_of_memory: bool, now_ms: i64) {
        if self
            .replicas
            .get(handle)
            .is_some_and(|replica| replica.run == Run::Running)
        {
            self.end(
                handle,
                Exit {
                    code,
                    out_of_memory,
                    at_ms: now_ms,
                    error: None,
                },
            );
        }
    }

    /// Ends everything, then starts what the restart policies say: a reboot of the host.
    pub(super) fn reboot(&mut self, now_ms: i64) {
        let mut again = Vec::new();
        for replica in self.replicas.values_mut() {
            if matches!(replica.run, Run::Running | Run::Waiting { .. }) {
                let exit = ended(KILLED, now_ms);
                replica.last_exit = Some(exit.clone());
                replica.run = Run::Ended(exit);
                self.changed.push(replica.owner.instance_id);
            }
            let ran = matches!(replica.run, Run::Ended(_));
            if ran && replica.restart == EngineRestart::UnlessStopped && !replica.stopped_by_hand {
                again.push(replica.handle.clone());
            }
        }
        for handle in again {
            self.run_again(&handle, now_ms);
        }
    }

    /// Takes a replica away that does not run; one that is gone is success.
    pub(super) fn remove(&mut self, handle: &str) -> Result<(), Error> {
        let Some(replica) = self.replicas.get(handle) else {
            return Ok(());
        };
        if matches!(replica.run, Run::Running | Run::Waiting { .. }) {
            return Err(Error::InUse(replica.name.clone()));
        }
        self.changed.push(replica.owner.instance_id);
        self.replicas.remove(handle);
        Ok(())
    }

    /// Sets whether the engine starts a replica again.
    pub(super) fn set_restart(&mut self, handle: &str, restart: EngineRestart) -> Result<(), Error> {
        let replica = self
            .replicas
            .get_mut(handle)
            .ok_or_else(|| Error::Gone(handle.to_owned()))?;
        replica.restart = restart;
        Ok(())
    }

    /// What is in a scope, by name.
    pub(super) fn observe(&self, scope: Scope) -> Vec<Observed> {
        let within = |replica: &&Replica| match scope {
            Scope::All => true,
            Scope::Environment(id) => replica.owner.environment_id == id,
            Scope::Instance(id) => replica.owner.instance_id == id,
            Scope::Deployment(id) => replica.owner.deployment_id == id,
        };
        let mut found: Vec<Observed> = self
            .replicas
            .values()
            .filter(within)
            .map(Replica::observed)
            .collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        found
    }

    /// What is known of an image that was fetched.
    pub(super) fn find_image(&self, image: &ImageReference) -> Option<ImageInfo> {
        self.images.contains_key(&image.to_string()).then(|| ImageInfo {
            exposed_ports: self
                .image_entry(image)
                .map(|entry| entry.exposed_ports.clone())
                .unwrap_or_default(),
            command: vec!["/fake".into()],
            user: String::new(),
            size_bytes: IMAGE_BYTES,
        })
    }

    /// Fetches an image.
    pub(super) fn ensure_image(&mut self, image: &ImageReference) -> Result<(), Error> {
        if let Some(why) = self.image_entry(image).and_then(|entry| entry.missing.clone()) {
            return Err(Error::Image {
                image: image.to_string(),
                why,
            });
        }
        self.images.insert(image.to_string(), image.clone());
        Ok(())
    }

    /// The images that were fetched, by prefix of their repository.
    pub(super) fn images(&self, prefix: &str) -> Vec<ImageReference> {
        self.images
            .values()
            .filter(|image| image.repository.starts_with(prefix))
            .cloned()
            .collect()
    }

    /// Takes an image away that no replica is made of.
    pub(super) fn remove_image(&mut self, image: &ImageReference) -> Result<(), Error> {
        if self.replicas.values().any(|replica| replica.image == *image) {
            return Err(Error::InUse(image.to_string()));
        }
        self.images.remove(&image.to_string());
        Ok(())
    }

    /// Figures of a running replica.
    pub(super) fn stats(&self, handle: &str, now_ms: i64) -> Option<Stats> {
        let replica = self
            .replicas
            .get(handle)
            .filter(|replica| replica.run == Run::Running)?;
        let ran_ms = u64::try_from(now_ms - replica.started_at_ms?).unwrap_or(0);
        Some(Stats {
            cpu_nanos: ran_ms * 10_000,
            memory_bytes: MEMORY_BYTES.min(replica.resources.memory_bytes),
            memory_limit_bytes: replica.resources.memory_bytes,
            received_bytes: 0,
            sent_bytes: 0,
            pids: 1,
        })
    }

    /// What a request for a path is answered with now; `None` when nothing listens where others reach it.
    pub(super) fn answer(&self, handle: &str, path: &str, now_ms: i64) -> Option<u16> {
        let replica = self
            .replicas
            .get(handle)
            .filter(|replica| replica.run == Run::Running)?;
        let ready_ms = replica
            .started_at_ms?
            .saturating_add_unsigned(replica.behaviour.start_delay_ms);
        let listens = matches!(replica.behaviour.listen, Listen::Port(_)) && now_ms >= ready_ms;
        listens.then(|| replica.behaviour.status_of(path))
    }

    fn image_entry(&self, image: &ImageReference) -> Option<&FakeImage> {
        self.options.images.iter().find(|entry| {
            let end = image.repository.strip_suffix(entry.repository.as_str());
            end.is_some_and(|head| head.is_empty() || head.ends_with('/'))
        })
    }

    fn address_is_taken(&self, handle: &str) -> bool {
        let own = self.replicas.get(handle).and_then(|replica| replica.slot.address);
        let mut others = self.replicas.values().filter(|other| other.handle != handle);
        own.is_some() && others.any(|other| other.run == Run::Running && other.slot.address == own)
    }

    /// What the engine does by itself: starts a replica, which stays down when it cannot be.
    fn run_again(&mut self, handle: &str, now_ms: i64) {
        if !self.address_is_taken(handle) {
            return self.run(handle, now_ms);
        }
        if let Some(replica) = self.replicas.get_mut(handle) {
            let mut exit = ended(CANNOT_START, now_ms);
            exit.error = Some(ADDRESS_TAKEN.into());
            replica.run = Run::Ended(exit);
            self.changed.push(replica.owner.instance_id);
        }
    }

    fn run(&mut self, handle: &str, now_ms: i64) {
        let Some(replica) = self.replicas.get_mut(handle) else {
            return;
        };
        if matches!(replica.run, Run::Waiting { .. }) {
            replica.engine_restarts += 1;
        }
        replica.run = Run::Running;
        // Two runs have two starts, even within one millisecond.
        let after_last = replica
            .started_at_ms
            .map_or(now_ms, |last| last.saturating_add(1));
        replica.started_at_ms = Some(now_ms.max(after_last));
        self.changed.push(replica.owner.instance_id);
    }

    fn end(&mut self, handle: &str, exit: Exit) {
        let Some(replica) = self.replicas.get_mut(handle) else {
            return;
        };
        self.changed.push(replica.owner.instance_id);
        replica.last_exit = Some(exit.clone());
        if replica.stopped_by_hand || replica.restart == EngineRestart::No {
            replica.run = Run::Ended(exit);
            return;
        }
        if replica
            .started_at_ms
            .is_some_and(|started| exit.at_ms - started >= RESTART_RESET_MS)
        {
            replica.restart_wait_ms = RESTART_WAIT_MS;
        }
        replica.run = Run::Waiting {
            until_ms: exit.at_ms.saturating_add_unsigned(replica.restart_wait_ms),
        };
        replica.restart_wait_ms = (replica.restart_wait_ms * 2).min(RESTART_WAIT_MAX_MS);
    }
}

/// The end of a process.
fn ended(code: i32, at_ms: i64) -> Exit {
    Exit {
        code,
        out_of_memory: false,
        at_ms,
        error: None,
    }
}
