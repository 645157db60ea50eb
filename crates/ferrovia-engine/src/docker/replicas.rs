//! Containers: made, started, looked at, stopped and taken away. One request each where one is enough.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::PoisonError;

use ferrovia_core::network::Bridge;
use ferrovia_core::workload::{EngineRestart, Observed, ReplicaSlot, ReplicaStatus, Workload};
use futures_util::FutureExt;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde::Deserialize;
use serde_json::json;

use super::api::{Ask, ENDPOINT_MAC, Refusal};
use super::container::Plan;
use super::observed::Inspected;
use super::{Inner, labels, network, resolver, words};
use crate::naming::replica_name;
use crate::{Error, Scope};

/// How long a look at one container may take, in milliseconds.
const INSPECT_TIMEOUT_MS: u64 = 15_000;
/// How long a list may take, in milliseconds.
const LIST_TIMEOUT_MS: u64 = 60_000;
/// How long the making of a container may take, in milliseconds.
const CREATE_TIMEOUT_MS: u64 = 60_000;
/// How long a start may take, in milliseconds.
const START_TIMEOUT_MS: u64 = 60_000;
/// How long a change of the restart policy may take, in milliseconds.
const UPDATE_TIMEOUT_MS: u64 = 30_000;
/// How long a removal may take, in milliseconds.
const REMOVE_TIMEOUT_MS: u64 = 120_000;
/// Time that a stop may take beyond its grace, in milliseconds.
pub const STOP_MARGIN_MS: u64 = 30_000;
/// Longest time that `apply` or `prepare` of [`PARALLEL`] replicas takes, in milliseconds: a name that is looked up,
/// a network that is made, and a container made, started and looked at.
pub const APPLY_TIMEOUT_MS: u64 = 150_000 + CREATE_TIMEOUT_MS + START_TIMEOUT_MS + 2 * INSPECT_TIMEOUT_MS;

/// Containers of one workload that are made at once.
const PARALLEL: usize = 4;
/// Containers that are looked at at once.
const LOOKS: usize = 8;
/// Ids that are remembered as ours.
const REMEMBERED: usize = 4096;
/// What is said of a container whose network was removed while it did not run.
const NETWORK_IS_GONE: &str = "its Docker network was removed while it was stopped; `ferrovia restart` gives the service new containers";
/// Digits of a container's id.
const ID_DIGITS: usize = 64;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Created {
    id: String,
}

/// Where a slot's container is.
enum Place {
    /// Just made.
    New(String),
    /// It was there.
    There(Box<Inspected>),
}

impl Inner {
    /// Makes every slot of a workload, and starts those that never were when asked to.
    pub(super) async fn make(&self, workload: &Workload, start: bool) -> Result<Vec<Observed>, Error> {
        let mut each = Vec::with_capacity(workload.replicas.len());
        for slot in &workload.replicas {
            each.push(self.make_one(workload, slot, start).boxed());
        }
        stream::iter(each).buffered(PARALLEL).try_collect().await
    }

    async fn make_one(
        &self,
        workload: &Workload,
        slot: &ReplicaSlot,
        start: bool,
    ) -> Result<Observed, Error> {
        let refused = |why: String| Error::Refused { call: "create", why };
        let address = slot
            .address
            .ok_or_else(|| refused("the replica has no address".into()))?;
        let bridge = self.options.addresses.bridge_of(address);
        let bridge = bridge.ok_or_else(|| refused(format!("no bridge has the address {address}")))?;
        let name = replica_name(&self.options.addresses.interface_prefix, &workload.owner, slot);
        let resolver_file = self.ensure_bridge(&bridge).await?;
        let version = self.api.version().await;
        let plan = Plan {
            workload,
            name: &name,
            labels: labels::of_replica(&self.options.installation, workload, slot),
            bridge: &bridge,
            address,
            resolver_file: &resolver_file.to_string_lossy(),
            mac_at_endpoint: version.map_err(|refusal| refusal.into_error("version"))? >= ENDPOINT_MAC,
        };
        if let Some(why) = plan.too_large() {
            return Err(Error::CannotStart(why));
        }
        let place = match self.create(&plan, slot).await {
            Err(Error::Refused { why, .. }) if network_is_missing(&why) => {
                self.make_bridge_again(&bridge).await?;
                self.create(&plan, slot).await?
            }
            other => other?,
        };
        let id = match place {
            Place::There(found) if !(start && found.never_started()) => {
                return found.observed().ok_or(Error::NameTaken(name));
            }
            Place::New(id) if !start => return Ok(as_created(workload, slot, id, name, address)),
            Place::New(id) => id,
            Place::There(found) => found.id,
        };
        match self.start(&id).await {
            Err(Error::CannotStart(why)) if why == NETWORK_IS_GONE => {
                self.make_bridge_again(&bridge).await?;
                self.start(&id).await?;
            }
            other => other?,
        }
        let found = self
            .inspect(&id)
            .await?
            .ok_or_else(|| Error::Gone(name.clone()))?;
        found.observed().ok_or(Error::NameTaken(name))
    }

    async fn create(&self, plan: &Plan<'_>, slot: &ReplicaSlot) -> Result<Place, Error> {
        let ask = Ask::post("/containers/create", CREATE_TIMEOUT_MS)
            .query(&[("name", plan.name)])
            .body(plan.body());
        match self.api.ask_for::<Created>(ask).await {
            Ok(created) => {
                self.remember(&created.id);
                Ok(Place::New(created.id))
            }
            Err(refusal) if refusal.code() == Some(409) => self.there(plan, slot).await,
            Err(Refusal::Status { code: 404, message }) if message.contains("No such image") => {
                Err(Error::Image {
                    image: plan.workload.image.to_string(),
                    why: "the engine does not hold it".into(),
                })
            }
            Err(refusal) => Err(or_cannot_start(refusal, "create")),
        }
    }

    /// What has the name that a slot should have: the slot itself, or something that it is not.
    async fn there(&self, plan: &Plan<'_>, slot: &ReplicaSlot) -> Result<Place, Error> {
        let name = plan.name;
        let gone = || Error::Refused {
            call: "create",
            why: format!("`{name}` was there and is gone"),
        };
        let found = self.inspect(name).await?.ok_or_else(gone)?;
        let same = found.label(labels::INSTALLATION) == Some(self.options.installation.as_str())
            && found.label(labels::REPLICA_ID) == Some(slot.id.to_string().as_str())
            && found.label(labels::SPEC_HASH) == Some(plan.workload.spec_hash.as_str());
        if same {
            Ok(Place::There(Box::new(found)))
        } else {
            Err(Error::NameTaken(name.to_owned()))
        }
    }

    /// Makes sure that a bridge's network and the file for its replicas are there; the answer is the file.
    pub(super) async fn ensure_bridge(&self, bridge: &Bridge) -> Result<PathBuf, Error> {
        let mut bridges = self.bridges.lock().await;
        if let Some(file) = bridges.get(&bridge.index) {
            return Ok(file.clone());
        }
        network::ensure(&self.api, &self.options.installation, bridge).await?;
        let file = resolver::ensure(&self.options.files, bridge)
            .await
            .map_err(|error| {
                Error::Network(format!(
                    "`{}` cannot be written: {error}",
                    self.options.files.display()
                ))
            })?;
        bridges.insert(bridge.index, file.clone());
        Ok(file)
    }

    /// Somebody removed a network that was seen (`docker network prune` does, while nothing runs on it).
    async fn make_bridge_again(&self, bridge: &Bridge) -> Result<(), Error> {
        self.bridges.lock().await.remove(&bridge.index);
        self.ensure_bridge(bridge).await.map(|_| ())
    }

    pub(super) async fn start(&self, id: &str) -> Result<(), Error> {
        let ask = || Ask::post(format!("/containers/{id}/start"), START_TIMEOUT_MS);
        match self.api.ask(ask()).await {
            Ok(_) => Ok(()),
            Err(refusal) if refusal.message().contains("No such container") => {
                Err(Error::Gone(id.to_owned()))
            }
            Err(refusal) if refusal.message().contains("paused container") => self.unpause(id).await,
            // A container that ran once holds its network by an id that never comes back, and Docker has no way to
            // give it another with its hardware address.
            Err(refusal) if network_is_missing(refusal.message()) => {
                Err(Error::CannotStart(NETWORK_IS_GONE.into()))
            }
            Err(refusal) => Err(or_cannot_start(refusal, "start")),
        }
    }

    async fn unpause(&self, id: &str) -> Result<(), Error> {
        let ask = Ask::post(format!("/containers/{id}/unpause"), START_TIMEOUT_MS);
        self.api
            .ask(ask)
            .await
            .map(|_| ())
            .map_err(|refusal| refusal.into_error("unpause"))
    }

    pub(super) async fn set_restart(&self, id: &str, restart: EngineRestart) -> Result<(), Error> {
        let name = match restart {
            EngineRestart::No => "no",
            EngineRestart::UnlessStopped => "unless-stopped",
        };
        let ask = Ask::post(format!("/containers/{id}/update"), UPDATE_TIMEOUT_MS)
            .body(json!({ "RestartPolicy": { "Name": name } }));
        match self.api.ask(ask).await {
            Ok(_) => Ok(()),
            Err(refusal) if refusal.code() == Some(404) => Err(Error::Gone(id.to_owned())),
            Err(refusal) => Err(refusal.into_error("update")),
        }
    }

    pub(super) async fn stop(&self, id: &str, grace_ms: u32) -> Result<(), Error> {
        let seconds = grace_ms.div_ceil(1000).to_string();
        let timeout_ms = u64::from(grace_ms) + STOP_MARGIN_MS;
        let ask = || Ask::post(format!("/containers/{id}/stop"), timeout_ms).query(&[("t", &seconds)]);
        let first = self.api.ask(ask()).await;
        let answer = match first {
            Err(refusal) if refusal.message().contains("is paused") => {
                self.unpause(id).await?;
                self.api.ask(ask()).await
            }
            other => other,
        };
        match answer {
            Ok(_) => Ok(()),
            Err(refusal) if refusal.code() == Some(404) => Ok(()),
            Err(refusal) => Err(refusal.into_error("stop")),
        }
    }

    /// Volumes without a name go with their container: nothing else can ever use them.
    pub(super) async fn remove(&self, id: &str) -> Result<(), Error> {
        let ask = Ask::delete(format!("/containers/{id}"), REMOVE_TIMEOUT_MS).query(&[("v", "1")]);
        match self.api.ask(ask).await {
            Ok(_) => Ok(()),
            Err(refusal) => match refusal.code() {
                Some(404) => Ok(()),
                Some(409) if refusal.message().contains("already in progress") => Ok(()),
                Some(409) => Err(Error::InUse(id.to_owned())),
                _ => Err(refusal.into_error("remove")),
            },
        }
    }

    /// The list says too little (no exit codes, no starts): each container of it is looked at, several at once.
    pub(super) async fn observe(&self, scope: Scope) -> Result<Vec<Observed>, Error> {
        let filters = json!({ "label": labels::filter(&self.options.installation, scope) }).to_string();
        let ask = Ask::get("/containers/json", LIST_TIMEOUT_MS).query(&[("all", "1"), ("filters", &filters)]);
        let listed: Vec<Created> = self
            .api
            .ask_for(ask)
            .await
            .map_err(|refusal| refusal.into_error("list"))?;
        let looks: Vec<_> = listed
            .iter()
            .map(|container| self.inspect(&container.id).boxed())
            .collect();
        let found: Vec<Option<Inspected>> = stream::iter(looks).buffered(LOOKS).try_collect().await?;
        let mut observed: Vec<Observed> = found.iter().flatten().filter_map(Inspected::observed).collect();
        for container in &listed {
            self.remember(&container.id);
        }
        observed.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(observed)
    }

    /// A look at one container that is ours; `None` when it is gone or another's.
    pub(super) async fn inspect_ours(&self, handle: &str) -> Result<Option<Inspected>, Error> {
        if !is_id(handle) {
            return Ok(None);
        }
        let found = self.inspect(handle).await?;
        let ours =
            |found: &Inspected| found.label(labels::INSTALLATION) == Some(self.options.installation.as_str());
        Ok(found.filter(|found| found.id == handle && ours(found)))
    }

    /// Fails unless a handle is that of a container of this installation.
    pub(super) async fn check_ours(&self, handle: &str) -> Result<(), Error> {
        if self
            .ours
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(handle)
        {
            return Ok(());
        }
        self.inspect_ours(handle)
            .await?
            .ok_or_else(|| Error::Gone(handle.to_owned()))?;
        self.remember(handle);
        Ok(())
    }

    fn remember(&self, id: &str) {
        let mut ours = self.ours.lock().unwrap_or_else(PoisonError::into_inner);
        if ours.len() >= REMEMBERED {
            ours.clear();
        }
        ours.insert(id.to_owned());
    }

    async fn inspect(&self, id_or_name: &str) -> Result<Option<Inspected>, Error> {
        match self
            .api
            .ask_for(Ask::get(
                format!("/containers/{id_or_name}/json"),
                INSPECT_TIMEOUT_MS,
            ))
            .await
        {
            Ok(found) => Ok(Some(found)),
            Err(refusal) if refusal.code() == Some(404) => Ok(None),
            Err(refusal) => Err(refusal.into_error("inspect")),
        }
    }
}

/// A container that was made and not started: everything about it is known without asking.
fn as_created(
    workload: &Workload,
    slot: &ReplicaSlot,
    id: String,
    name: String,
    address: Ipv4Addr,
) -> Observed {
    Observed {
        handle: id,
        name,
        replica_id: slot.id,
        deployment_id: workload.owner.deployment_id,
        instance_id: workload.owner.instance_id,
        environment_id: workload.owner.environment_id,
        ordinal: slot.ordinal,
        spec_hash: workload.spec_hash.clone(),
        status: ReplicaStatus::Created,
        address: Some(address),
        started_at_ms: None,
        last_exit: None,
        engine_restarts: 0,
        restart: EngineRestart::No,
    }
}

fn or_cannot_start(refusal: Refusal, call: &'static str) -> Error {
    match words::cannot_start(refusal.message()) {
        Some(why) => Error::CannotStart(why),
        None => refusal.into_error(call),
    }
}

fn network_is_missing(why: &str) -> bool {
    why.contains("network") && why.contains("not found")
}

/// Whether a text is a whole container id: never a name, and never the beginning of an id.
fn is_id(handle: &str) -> bool {
    handle.len() == ID_DIGITS
        && handle
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
