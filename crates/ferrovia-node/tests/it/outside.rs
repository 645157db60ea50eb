//! The world beyond the host: a network namespace with a web server under a public, a private and a link-local
//! address. Never the real link-local address where clouds keep credentials.

use std::net::Ipv4Addr;
use std::process::{Child, Command};

use crate::command::{must, run};

/// From TEST-NET-3.
pub const PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 77);
pub const PRIVATE: Ipv4Addr = Ipv4Addr::new(192, 168, 231, 77);
pub const LINK_LOCAL: Ipv4Addr = Ipv4Addr::new(169, 254, 77, 77);
/// The host's own address towards it.
pub const NEAR: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 76);
const NAMESPACE: &str = "fvnode-out";
const LINK: &str = "fnout";

pub struct Outside {
    server: Child,
    _directory: tempfile::TempDir,
}

impl Outside {
    pub fn new() -> Self {
        clean();
        must("ip", &["netns", "add", NAMESPACE]);
        let link = [
            "link", "add", LINK, "type", "veth", "peer", "name", "eth0", "netns", NAMESPACE,
        ];
        must("ip", &link);
        must("ip", &["addr", "add", &format!("{NEAR}/32"), "dev", LINK]);
        must("ip", &["link", "set", LINK, "up"]);
        let inside = |arguments: &[&str]| must("ip", &[&["-n", NAMESPACE], arguments].concat());
        let addresses = [PUBLIC, PRIVATE, LINK_LOCAL].map(|address| format!("{address}/32"));
        for address in &addresses {
            inside(&["addr", "add", address, "dev", "eth0"]);
        }
        inside(&["link", "set", "eth0", "up"]);
        let near = NEAR.to_string();
        inside(&["route", "add", &format!("{near}/32"), "dev", "eth0"]);
        inside(&[
            "route",
            "add",
            "default",
            "via",
            &near,
            "src",
            &PUBLIC.to_string(),
        ]);
        for address in &addresses {
            must("ip", &["route", "add", address, "dev", LINK]);
        }
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("index.html"), "outside\n").unwrap();
        let server = Command::new("ip")
            .args([
                "netns", "exec", NAMESPACE, "busybox", "httpd", "-f", "-p", "8080", "-h",
            ])
            .arg(directory.path())
            .spawn()
            .unwrap();
        Self {
            server,
            _directory: directory,
        }
    }

    /// What the outside gets from an address of ours.
    pub fn get(&self, target: &str) -> Option<String> {
        let script = format!("timeout 3 busybox wget -q -T 2 -O - http://{target}/");
        let output = run("ip", &["netns", "exec", NAMESPACE, "sh", "-c", &script]);
        output
            .status
            .success()
            .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        clean();
    }
}

fn clean() {
    run("ip", &["netns", "del", NAMESPACE]);
    run("ip", &["link", "del", LINK]);
}
