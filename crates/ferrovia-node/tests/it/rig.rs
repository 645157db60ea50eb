//! A private network of the test's own: a Docker network, an image of busybox, containers with given addresses, and
//! an "outside" in a network namespace.

use std::fs::File;
use std::io::Write;
use std::net::Ipv4Addr;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use ferrovia_core::network::AddressPlan;
use ferrovia_core::table::hardware_address;
use serde_json::json;

pub const IMAGE: &str = "fvnode-busybox:latest";
const INSTALLATION: &str = "fvnode";
/// What the outside has: a public address (TEST-NET-3), a private one, a link-local one.
pub const PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 77);
pub const PRIVATE: Ipv4Addr = Ipv4Addr::new(192, 168, 231, 77);
pub const LINK_LOCAL: Ipv4Addr = Ipv4Addr::new(169, 254, 77, 77);
const OUTSIDE: &str = "fvnode-out";
pub const SOON: Duration = Duration::from_secs(15);

pub fn plan() -> AddressPlan {
    AddressPlan {
        members: "10.230.0.0/16".parse().unwrap(),
        services: "10.231.0.0/16".parse().unwrap(),
        builds: "10.232.0.0/24".parse().unwrap(),
        interface_prefix: "fn".to_owned(),
    }
}

/// One test at a time has the network, in this process and others.
pub struct Rig {
    _turn: File,
}

impl Rig {
    pub fn new() -> Self {
        let turn = File::create(std::env::temp_dir().join("ferrovia-node-live.lock")).unwrap();
        turn.lock().unwrap();
        let rig = Self { _turn: turn };
        rig.clean();
        ensure_image();
        let bridge = plan().bridge(0).unwrap();
        must(
            "docker",
            &[
                "network",
                "create",
                "--driver=bridge",
                &format!("--subnet={}", bridge.block),
                &format!("--gateway={}", bridge.gateway),
                &format!("--opt=com.docker.network.bridge.name={}", bridge.interface),
                &bridge.interface,
            ],
        );
        rig
    }

    /// Runs a container that serves its name over HTTP on port 8080.
    pub fn serve(&self, name: &str, address: Ipv4Addr) {
        let script =
            format!("mkdir -p /www && echo {name} > /www/index.html && exec httpd -f -p 8080 -h /www");
        self.run(name, address, &[], &script);
    }

    /// Runs a shell script in a container with an address of the private network.
    pub fn run(&self, name: &str, address: Ipv4Addr, capabilities: &[&str], script: &str) {
        let network = plan().bridge(0).unwrap().interface;
        let body = json!({
            "Image": IMAGE,
            "Cmd": ["sh", "-c", script],
            "Labels": { "ferrovia.installation": INSTALLATION },
            // As API 1.41 to 1.43 take it; the engine's client knows later ones too.
            "MacAddress": hardware_address(address),
            "HostConfig": { "NetworkMode": network, "Init": true, "CapDrop": ["ALL"], "CapAdd": capabilities },
            "NetworkingConfig": { "EndpointsConfig": { network.as_str(): { "IPAMConfig": { "IPv4Address": address } } } },
        });
        must(
            "curl",
            &[
                "-sSf",
                "--unix-socket",
                "/var/run/docker.sock",
                "-H",
                "Content-Type: application/json",
                "-d",
                &body.to_string(),
                &format!("http://docker/v1.41/containers/create?name=fvnode-{name}"),
            ],
        );
        must("docker", &["start", &format!("fvnode-{name}")]);
    }

    /// Runs a command in a container.
    pub fn exec(&self, name: &str, script: &str) -> Output {
        run("docker", &["exec", &format!("fvnode-{name}"), "sh", "-c", script])
    }

    /// What a container gets from a web server; `None` when nothing. (The static `wget` of Debian crashes.)
    pub fn get(&self, name: &str, target: &str) -> Option<String> {
        last_line(&self.exec(name, &fetch("nc", target)))
    }

    /// A network namespace that the host reaches under a public, a private and a link-local address, with a web
    /// server on port 8080.
    pub fn outside(&self) -> Outside {
        must("ip", &["netns", "add", OUTSIDE]);
        must(
            "ip",
            &[
                "link", "add", "fnout", "type", "veth", "peer", "name", "eth0", "netns", OUTSIDE,
            ],
        );
        must("ip", &["addr", "add", "203.0.113.76/32", "dev", "fnout"]);
        must("ip", &["link", "set", "fnout", "up"]);
        for address in [PUBLIC, PRIVATE, LINK_LOCAL] {
            must(
                "ip",
                &[
                    "-n",
                    OUTSIDE,
                    "addr",
                    "add",
                    &format!("{address}/32"),
                    "dev",
                    "eth0",
                ],
            );
        }
        must("ip", &["-n", OUTSIDE, "link", "set", "eth0", "up"]);
        must(
            "ip",
            &["-n", OUTSIDE, "route", "add", "203.0.113.76/32", "dev", "eth0"],
        );
        must(
            "ip",
            &[
                "-n",
                OUTSIDE,
                "route",
                "add",
                "default",
                "via",
                "203.0.113.76",
                "src",
                &PUBLIC.to_string(),
            ],
        );
        for address in [PUBLIC, PRIVATE, LINK_LOCAL] {
            must("ip", &["route", "add", &format!("{address}/32"), "dev", "fnout"]);
        }
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("index.html"), "outside\n").unwrap();
        let server = Command::new("ip")
            .args([
                "netns", "exec", OUTSIDE, "busybox", "httpd", "-f", "-p", "8080", "-h",
            ])
            .arg(directory.path())
            .spawn()
            .unwrap();
        Outside {
            server,
            _directory: directory,
        }
    }

    fn clean(&self) {
        let listed = run(
            "docker",
            &[
                "ps",
                "-aq",
                "--filter",
                &format!("label=ferrovia.installation={INSTALLATION}"),
            ],
        );
        let ids = String::from_utf8(listed.stdout).unwrap();
        for id in ids.split_whitespace() {
            run("docker", &["rm", "-f", id]);
        }
        run("docker", &["network", "rm", &plan().bridge(0).unwrap().interface]);
        for family in ["bridge", "ip", "ip6"] {
            run("nft", &["delete", "table", family, "ferrovia_fn"]);
        }
        run("ip", &["netns", "del", OUTSIDE]);
        run("ip", &["link", "del", "fnout"]);
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if std::env::var_os("FVNODE_KEEP").is_none() {
            self.clean();
        }
    }
}

/// The world beyond the host.
pub struct Outside {
    server: std::process::Child,
    _directory: tempfile::TempDir,
}

impl Outside {
    /// What the outside gets from an address of ours.
    pub fn get(&self, target: &str) -> Option<String> {
        let script = format!("timeout 3 busybox wget -q -T 2 -O - http://{target}/");
        let output = run("ip", &["netns", "exec", OUTSIDE, "sh", "-c", &script]);
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
    }
}

fn fetch(nc: &str, target: &str) -> String {
    let target = target.replace(':', " ");
    format!(r"printf 'GET / HTTP/1.0\r\n\r\n' | timeout 3 {nc} -w 2 {target}")
}

fn last_line(output: &Output) -> Option<String> {
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.trim().lines().last()?;
    Some(line.to_owned())
}

pub fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

pub fn must(program: &str, arguments: &[&str]) -> String {
    let output = run(program, arguments);
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// An image with busybox and its applets.
fn ensure_image() {
    if run("docker", &["image", "inspect", IMAGE]).status.success() {
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
    let mut import = Command::new("docker")
        .args(["import", "-", IMAGE])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    import.stdin.take().unwrap().write_all(&tar).unwrap();
    assert!(import.wait().unwrap().success());
}

fn must_bytes(program: &str, arguments: &[&str]) -> Vec<u8> {
    let output = run(program, arguments);
    assert!(
        output.status.success(),
        "{program}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}
