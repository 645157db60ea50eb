//! Containers with given addresses on a private network of the test's own, made from an image of busybox.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::process::Output;
use std::time::Duration;

use ferrovia_core::table::{Member, hardware_address};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::{Value, json};

use crate::command::{must, must_bytes, must_take, run};
use crate::place::Place;

const IMAGE: &str = "fvnode-busybox:latest";
/// What waits for a state that comes at once unless the machine is busy.
pub const SOON: Duration = Duration::from_secs(20);
/// How long a connection is tried.
const GET_TIMEOUT: Duration = Duration::from_secs(2);
/// A web server on port 8080 that answers with the host's name.
pub const SERVE: &str = "mkdir -p /www; hostname > /www/index.html; exec httpd -f -p 8080 -h /www";

/// One test at a time has the network, in this process and others.
pub struct Rig {
    pub place: Place,
    _turn: File,
}

impl Rig {
    pub fn new() -> Self {
        Self::at(Place::shared())
    }

    pub fn at(place: Place) -> Self {
        let turn = File::create(std::env::temp_dir().join("ferrovia-node-live.lock")).unwrap();
        turn.lock().unwrap();
        let rig = Self { place, _turn: turn };
        rig.clean();
        rig.ensure_image();
        let bridge = rig.place.plan().bridge(0).unwrap();
        rig.network(
            &bridge.interface,
            &bridge.block.to_string(),
            &bridge.gateway.to_string(),
        );
        rig
    }

    /// The bridge of builds, as BuildKit's steps are on one.
    pub fn build_network(&self) {
        let plan = self.place.plan();
        let gateway = ferrovia_node::firewall::build_gateway(&plan);
        self.network(
            &plan.build_interface(),
            &plan.builds.to_string(),
            &gateway.to_string(),
        );
    }

    fn network(&self, name: &str, subnet: &str, gateway: &str) {
        self.place.must_docker(&[
            "network",
            "create",
            "--driver=bridge",
            &format!("--subnet={subnet}"),
            &format!("--gateway={gateway}"),
            &format!("--opt=com.docker.network.bridge.name={name}"),
            name,
        ]);
    }

    /// Runs a container that serves its name over HTTP on port 8080.
    pub fn serve(&self, name: &str, address: Ipv4Addr) {
        let script =
            format!("mkdir -p /www && echo {name} > /www/index.html && exec httpd -f -p 8080 -h /www");
        self.run(name, address, &[], &script);
    }

    /// Runs a shell script in a container with an address of the private network.
    pub fn run(&self, name: &str, address: Ipv4Addr, capabilities: &[&str], script: &str) {
        let host = json!({ "CapAdd": capabilities });
        self.create(name, address, script, host, json!({}));
        self.start(name);
    }

    /// Makes a replica as the engine does, without starting it.
    pub fn create_replica(&self, name: &str, member: &Member, script: &str, restart: &str) {
        let labels = json!({
            "ferrovia.replica_id": member.replica_id,
            "ferrovia.deployment_id": member.deployment_id,
            "ferrovia.instance_id": member.instance_id,
            "ferrovia.environment_id": member.environment_id,
            "ferrovia.ordinal": "1",
            "ferrovia.spec_hash": "h",
        });
        let host = json!({
            "RestartPolicy": { "Name": restart },
            "LogConfig": { "Type": "json-file", "Config": { "max-size": "1m", "max-file": "4" } },
        });
        self.create(name, member.address, script, host, labels);
    }

    fn create(&self, name: &str, address: Ipv4Addr, script: &str, host: Value, labels: Value) {
        let plan = self.place.plan();
        let network = match plan.bridge_of(address) {
            Some(bridge) => bridge.interface,
            None => plan.build_interface(),
        };
        let mut body = json!({
            "Image": IMAGE,
            "Cmd": ["sh", "-c", script],
            "Hostname": name,
            "Labels": labels,
            // As API 1.41 to 1.43 take it; the engine's client knows later ones too.
            "MacAddress": hardware_address(address),
            "HostConfig": host,
            "NetworkingConfig": { "EndpointsConfig": { network.as_str(): { "IPAMConfig": { "IPv4Address": address } } } },
        });
        body["Labels"]["ferrovia.installation"] = json!(self.place.installation());
        body["HostConfig"]["NetworkMode"] = json!(network);
        body["HostConfig"]["Init"] = json!(true);
        body["HostConfig"]["CapDrop"] = json!(["ALL"]);
        self.place.create(name, &body);
    }

    pub fn start(&self, name: &str) {
        self.docker("start", name, &[]);
    }

    /// Runs a command of Docker's about a container, which must succeed.
    pub fn docker(&self, verb: &str, name: &str, options: &[&str]) -> String {
        let container = self.place.container(name);
        self.place
            .must_docker(&[&[verb], options, &[container.as_str()]].concat())
            .trim()
            .to_owned()
    }

    pub fn inspect(&self, name: &str, what: &str) -> String {
        self.docker("inspect", name, &["-f", what])
    }

    /// Runs a command in a container.
    pub fn exec(&self, name: &str, script: &str) -> Output {
        self.place
            .docker(&["exec", &self.place.container(name), "sh", "-c", script])
    }

    /// Does something in the network of a container, from a thread of this process.
    pub fn inside<T: Send + 'static>(
        &self,
        name: &str,
        action: impl FnOnce() -> T + Send + 'static,
    ) -> std::thread::JoinHandle<T> {
        let process = self.inspect(name, "{{.State.Pid}}");
        let namespace = File::open(format!("/proc/{process}/ns/net")).unwrap();
        std::thread::spawn(move || {
            use std::os::fd::AsFd;
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            action()
        })
    }

    /// What a container gets from a web server; `None` when nothing.
    pub fn get(&self, name: &str, target: &str) -> Option<String> {
        let target: SocketAddrV4 = target.parse().unwrap();
        self.inside(name, move || get(target)).join().unwrap().ok()
    }

    fn clean(&self) {
        let filter = format!("label=ferrovia.installation={}", self.place.installation());
        let listed = self.place.docker(&["ps", "-aq", "--filter", &filter]);
        let ids = String::from_utf8(listed.stdout).unwrap();
        let ids: Vec<&str> = ids.split_whitespace().collect();
        if !ids.is_empty() {
            self.place.docker(&[&["rm", "-f"], ids.as_slice()].concat());
        }
        let plan = self.place.plan();
        for network in [plan.bridge(0).unwrap().interface, plan.build_interface()] {
            self.place.docker(&["network", "rm", &network]);
        }
        for family in ["bridge", "ip", "ip6"] {
            run("nft", &["delete", "table", family, &self.place.table()]);
        }
    }

    /// An image with busybox and its applets.
    fn ensure_image(&self) {
        if self.place.docker(&["image", "inspect", IMAGE]).status.success() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        for part in ["bin", "tmp", "etc", "www"] {
            std::fs::create_dir(root.join(part)).unwrap();
        }
        std::fs::copy("/bin/busybox", root.join("bin/busybox"))
            .expect("the package `busybox-static` is installed");
        for applet in must("busybox", &["--list"])
            .split_whitespace()
            .filter(|applet| *applet != "busybox")
        {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        let tar = must_bytes("tar", &["-C", root.to_str().unwrap(), "-c", "."]);
        let host = format!("unix://{}", self.place.socket.display());
        must_take("docker", &["-H", &host, "import", "-", IMAGE], &tar);
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if std::env::var_os("FVNODE_KEEP").is_none() {
            self.clean();
        }
    }
}

/// The last line of what a web server answers.
pub fn get(target: SocketAddrV4) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&target.into(), GET_TIMEOUT)?;
    stream.set_read_timeout(Some(GET_TIMEOUT))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let line = answer.trim().lines().last().unwrap_or_default();
    if line.is_empty() {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.to_owned())
}
