//! Where a test has its containers: a Docker Engine, addresses and names that nobody else has.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Output;

use ferrovia_core::network::AddressPlan;
use serde_json::Value;

use crate::command::{must, run};

/// A Docker Engine and a network on it.
#[derive(Debug, Clone)]
pub struct Place {
    /// Docker's socket.
    pub socket: PathBuf,
    /// Begins the names of interfaces: `fn`.
    pub prefix: String,
    /// The addresses are from `10.OCTET.0.0` on; three in a row are taken.
    pub octet: u8,
}

impl Place {
    /// On the machine's own Docker Engine.
    pub fn shared() -> Self {
        Self {
            socket: "/var/run/docker.sock".into(),
            prefix: "fn".to_owned(),
            octet: 224,
        }
    }

    pub fn plan(&self) -> AddressPlan {
        let range = |more: u8, prefix: u8| format!("10.{}.0.0/{prefix}", self.octet + more).parse().unwrap();
        AddressPlan {
            members: range(0, 16),
            services: range(1, 16),
            builds: range(2, 24),
            interface_prefix: self.prefix.clone(),
        }
    }

    /// The address of a replica.
    pub fn member(&self, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, self.octet, 0, last)
    }

    /// The stable address of a service.
    pub fn service(&self, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, self.octet + 1, 0, last)
    }

    /// The host's address on the bridge.
    pub fn gateway(&self) -> Ipv4Addr {
        self.plan().bridge(0).unwrap().gateway
    }

    /// Whose containers these are.
    pub fn installation(&self) -> String {
        format!("{}node", self.prefix)
    }

    /// Name of a container.
    pub fn container(&self, name: &str) -> String {
        format!("{}node-{name}", self.prefix)
    }

    /// Name of the firewall's tables.
    pub fn table(&self) -> String {
        format!("ferrovia_{}", self.prefix)
    }

    fn host(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// Runs Docker's client.
    pub fn docker(&self, arguments: &[&str]) -> Output {
        run("docker", &[&["-H", &self.host()], arguments].concat())
    }

    /// Runs Docker's client, which must succeed.
    pub fn must_docker(&self, arguments: &[&str]) -> String {
        must("docker", &[&["-H", &self.host()], arguments].concat())
    }

    /// Makes a container from the engine's own words.
    pub fn create(&self, name: &str, body: &Value) {
        must(
            "curl",
            &[
                "-sSf",
                "--unix-socket",
                self.socket.to_str().unwrap(),
                "-H",
                "Content-Type: application/json",
                "-d",
                &body.to_string(),
                &format!(
                    "http://docker/v1.41/containers/create?name={}",
                    self.container(name)
                ),
            ],
        );
    }
}
