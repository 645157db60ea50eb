//! The fake engine: the trait's contract without containers, for demos, work on the user interface and tests.
//!
//! One state machine ([`world`]), a pure function of calls and times, stands behind both forms. [`Memory`] answers in
//! the caller's process with the caller's clock, for fast and repeatable tests. [`serve`] is a process of its own,
//! whose state outlives its clients ([`FakeEngine`]): there each replica is an HTTP server on its own address of
//! 127.0.0.0/8 (see [`address_plan`]), and its log is a file as Docker writes it. What goes wrong is scripted
//! ([`Rule`]) and seeded: the same seed and the same calls meet the same faults. What a replica does follows from its
//! variables and its image ([`Behaviour`]).
//!
//! It runs no code of anybody's: no process, no file system, no isolation between environments. State is in memory
//! only: an end of the process is a loss of the host.

mod behaviour;
mod client;
mod faults;
mod listeners;
mod log;
mod memory;
mod record;
mod replica;
mod server;
mod websocket;
mod wire;
mod world;

use std::net::Ipv4Addr;

use ferrovia_core::network::AddressPlan;
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

pub use self::behaviour::{Behaviour, Listen};
pub use self::client::FakeEngine;
pub use self::faults::{Call, EventFaults, Fault, Rule, Script, When};
pub use self::memory::{Clock, Memory};
pub use self::server::{ServeError, ServeOptions, serve};

/// How a fake engine starts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Handles and the script's chances follow from it.
    pub seed: u64,
    /// First part of the replicas' names.
    pub name_prefix: String,
    /// What images do; one that is not listed runs with the defaults.
    pub images: Vec<FakeImage>,
    /// What goes wrong, and when.
    pub script: Script,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seed: 0,
            name_prefix: "fk".into(),
            images: Vec::new(),
            script: Script::default(),
        }
    }
}

/// An image that the fake registry has.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FakeImage {
    /// The repository's name, or its end after a `/`.
    pub repository: String,
    /// Variables that its replicas have unless the workload sets them: `FAKE_…` decides what they do.
    pub variables: Vec<(String, String)>,
    /// Ports that it exposes.
    pub exposed_ports: Vec<u16>,
    /// Why it cannot be fetched; none: it can.
    pub missing: Option<String>,
}

/// The address plan for fake engines whose replicas listen: every address of 127.0.0.0/8 is the host's own. `block`
/// is the second byte of the members' addresses (1 to 253), so that several fake engines fit on one host; the
/// default is [`ADDRESS_BLOCK`].
pub fn address_plan(block: u8) -> AddressPlan {
    let net = |b: u8, prefix| Ipv4Net::new_assert(Ipv4Addr::new(127, b, 0, 0), prefix);
    let block = block.clamp(1, 253);
    AddressPlan {
        members: net(block, 16),
        services: net(254, 16),
        builds: net(255, 24),
        interface_prefix: "fk".into(),
    }
}

/// Second byte of the members' addresses in the fake engine's usual address plan.
pub const ADDRESS_BLOCK: u8 = 210;
