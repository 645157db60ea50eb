//! What goes over the fake engine's socket: one JSON value each way. The types of the trait do not serialise where
//! they hold secrets; here they do, since the socket is its owner's alone.

use ferrovia_core::secret::Secret;
use ferrovia_core::settings::Resources;
use ferrovia_core::workload::{EngineRestart, ImageReference, Mount, Owner, ReplicaSlot, Workload};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::faults::{Call, Script};
use crate::{Error, Scope};

/// Path of the trait's calls.
pub(super) const CALL_PATH: &str = "/call";
/// Path of a test's orders.
pub(super) const ORDER_PATH: &str = "/order";
/// Path of the stream of hints: JSON lines, an empty object when nothing happens.
pub(super) const EVENTS_PATH: &str = "/events";
/// Time after which the stream of hints says that it lives, in milliseconds.
pub(super) const HEARTBEAT_MS: u64 = 10_000;

/// A call.
#[derive(Serialize, Deserialize)]
#[serde(tag = "call", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Request {
    Info,
    FindImage { image: ImageReference },
    EnsureImage { image: ImageReference },
    Images { prefix: String },
    RemoveImage { image: ImageReference },
    Apply { workload: Box<WireWorkload> },
    Prepare { workload: Box<WireWorkload> },
    Observe { scope: Scope },
    Find { handle: String },
    Start { handle: String },
    SetRestart { handle: String, restart: EngineRestart },
    Stop { handle: String, grace_ms: u32 },
    Remove { handle: String },
    Stats { handle: String },
    LogFile { handle: String },
    ProcessId { handle: String },
}

/// What a test has to say, apart from the trait.
#[derive(Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Order {
    /// Puts another script in place.
    SetScript { script: Script },
    /// Steps since the script was set; of one kind, when it is named.
    Steps { of: Option<Call> },
    /// Answers once a scripted kill was met.
    Killed,
    /// A new caller takes over.
    Revive,
    /// Ends a replica's process.
    Crash {
        handle: String,
        code: i32,
        out_of_memory: bool,
    },
    /// Ends everything, and starts what the restart policies say.
    Reboot,
}

/// What comes back.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    Ok(Value),
    Error(WireError),
}

/// [`Workload`] with its variables in clear.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WireWorkload {
    owner: Owner,
    image: ImageReference,
    command: Option<Vec<String>>,
    variables: Vec<(String, String)>,
    resources: Resources,
    mounts: Vec<Mount>,
    stop_grace_ms: u32,
    spec_hash: String,
    replicas: Vec<ReplicaSlot>,
}

impl From<&Workload> for WireWorkload {
    fn from(workload: &Workload) -> Self {
        let Workload {
            owner,
            image,
            command,
            variables,
            resources,
            mounts,
            stop_grace_ms,
            spec_hash,
            replicas,
        } = workload.clone();
        let clear = |(name, value): (String, Secret)| (name, value.expose().to_owned());
        Self {
            owner,
            image,
            command,
            variables: variables.into_iter().map(clear).collect(),
            resources,
            mounts,
            stop_grace_ms,
            spec_hash,
            replicas,
        }
    }
}

impl From<WireWorkload> for Workload {
    fn from(wire: WireWorkload) -> Self {
        let WireWorkload {
            owner,
            image,
            command,
            variables,
            resources,
            mounts,
            stop_grace_ms,
            spec_hash,
            replicas,
        } = wire;
        Self {
            owner,
            image,
            command,
            variables: variables
                .into_iter()
                .map(|(name, value)| (name, Secret::new(value)))
                .collect(),
            resources,
            mounts,
            stop_grace_ms,
            spec_hash,
            replicas,
        }
    }
}

/// [`Error`] as it travels.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum WireError {
    Unavailable(String),
    Unknown { call: String, timeout_ms: u64 },
    Image { image: String, why: String },
    CannotStart(String),
    NameTaken(String),
    Gone(String),
    InUse(String),
    Network(String),
    Refused { call: String, why: String },
}

impl From<Error> for WireError {
    fn from(error: Error) -> Self {
        match error {
            Error::Unavailable(why) => Self::Unavailable(why),
            Error::Unknown { call, timeout_ms } => Self::Unknown {
                call: call.to_owned(),
                timeout_ms,
            },
            Error::Image { image, why } => Self::Image { image, why },
            Error::CannotStart(why) => Self::CannotStart(why),
            Error::NameTaken(name) => Self::NameTaken(name),
            Error::Gone(handle) => Self::Gone(handle),
            Error::InUse(what) => Self::InUse(what),
            Error::Network(why) => Self::Network(why),
            Error::Refused { call, why } => Self::Refused {
                call: call.to_owned(),
                why,
            },
        }
    }
}

impl From<WireError> for Error {
    fn from(error: WireError) -> Self {
        let word = |text: String| {
            Call::ALL
                .iter()
                .map(|call| call.as_str())
                .find(|word| *word == text)
                .unwrap_or("call")
        };
        match error {
            WireError::Unavailable(why) => Self::Unavailable(why),
            WireError::Unknown { call, timeout_ms } => Self::Unknown {
                call: word(call),
                timeout_ms,
            },
            WireError::Image { image, why } => Self::Image { image, why },
            WireError::CannotStart(why) => Self::CannotStart(why),
            WireError::NameTaken(name) => Self::NameTaken(name),
            WireError::Gone(handle) => Self::Gone(handle),
            WireError::InUse(what) => Self::InUse(what),
            WireError::Network(why) => Self::Network(why),
            WireError::Refused { call, why } => Self::Refused {
                call: word(call),
                why,
            },
        }
    }
}
