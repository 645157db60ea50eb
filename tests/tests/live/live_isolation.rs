//! What an application and a build step can reach, and what they cannot.

use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;
use std::time::Duration;

use ferrovia_tests::app::App;
use ferrovia_tests::http;
use ferrovia_tests::platform::{Engine, Platform};
use ferrovia_tests::rules;
use ferrovia_tests::wait::wait_for;

/// A link-local address of the test's own, in a network namespace of its own.
const LINK_LOCAL: Elsewhere = Elsewhere {
    name: "fvll",
    gateway: "169.254.77.1",
    address: "169.254.77.77",
};
/// Another machine, as far as builds can tell (RFC 5737 section 3: an address for documentation).
const OUTSIDE: Elsewhere = Elsewhere {
    name: "fvout",
    gateway: "203.0.113.1",
    address: "203.0.113.77",
};
/// Takes connections there; every Debian has a Perl.
const ACCEPT: &str = "my $socket = IO::Socket::INET->new(LocalPort => 8099, Listen => 16, ReuseAddr => 1) or die; \
     while (my $client = $socket->accept) { close $client }";

async fn ask(platform: &Platform, host: &str, path: &str) -> String {
    http::get(platform.http, host, path).await.unwrap().body
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_reaches_its_environment_and_nothing_else() {
    let platform = Platform::start(Engine::Docker).await.unwrap();
    let app = App::target("web").unwrap();
    let (a, b) = (App::target("peer").unwrap(), App::target("stranger").unwrap());
    let web = platform.up(&app, &["--project", "home"]).unwrap();
    platform.up(&a, &["--project", "home"]).unwrap();
    let stranger = platform.up(&b, &["--project", "elsewhere"]).unwrap();
    let (host, stranger_host) = (Platform::host(&web).unwrap(), Platform::host(&stranger).unwrap());

    // Its own environment, by name, and itself through its own name.
    assert_eq!(
        ask(&platform, &host, "/connect?host=peer&port=8080").await,
        "connected"
    );
    assert_eq!(
        ask(&platform, &host, "/connect?host=web&port=8080").await,
        "connected"
    );

    // Not another environment: neither its names, nor its stable addresses, nor its replicas.
    assert_eq!(
        ask(&platform, &host, "/resolve?name=stranger.ferrovia.internal").await,
        "ENOTFOUND"
    );
    let stable = ask(
        &platform,
        &stranger_host,
        "/resolve?name=stranger.ferrovia.internal",
    )
    .await;
    let replica = address_of("elsewhere");
    let stable: Ipv4Addr = stable.parse().unwrap();
    let path = format!("/connect?host={stable}&port=8080");
    let own = ask(&platform, &stranger_host, &path);
    assert_eq!(own.await, "connected", "the stranger does not reach itself");
    for address in [stable.to_string(), replica.clone()] {
        let met = ask(&platform, &host, &format!("/connect?host={address}&port=8080")).await;
        assert_ne!(met, "connected", "{address}");
    }

    // The host: names, and nothing else of it.
    let gateway = ask(&platform, &host, "/gateway").await;
    assert_eq!(
        ask(&platform, &host, &format!("/connect?host={gateway}&port=53")).await,
        "connected"
    );
    assert!(
        ask(&platform, &host, &format!("/datagram?host={gateway}&port=53"))
            .await
            .starts_with("answer")
    );
    let everywhere = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let open_port = everywhere.local_addr().unwrap().port();
    for port in [
        open_port,
        platform.api.port(),
        platform.registry.port(),
        platform.http.port(),
    ] {
        let met = ask(&platform, &host, &format!("/connect?host={gateway}&port={port}")).await;
        assert_ne!(met, "connected", "port {port} of the host");
    }
    for address in host_addresses() {
        let met = ask(
            &platform,
            &host,
            &format!("/connect?host={address}&port={open_port}"),
        )
        .await;
        assert_ne!(met, "connected", "the host by {address}");
    }
    assert_eq!(
        ask(&platform, &host, "/file?path=/var/run/docker.sock").await,
        "false"
    );

    // Link-local, to a listener that really is there.
    let listener = LINK_LOCAL.listen();
    let path = format!("/connect?host={}&port=8099", LINK_LOCAL.address);
    assert_ne!(ask(&platform, &host, &path).await, "connected");
    drop(listener);

    // Rules that somebody flushed come back.
    rules::delete().unwrap();
    rules::are_back().await.unwrap();
    wait_for("the rules' return", Duration::from_secs(30), || async {
        match ask(&platform, &host, &format!("/connect?host={replica}&port=8080"))
            .await
            .as_str()
        {
            "connected" => Err("the other environment is reached".to_owned()),
            _ => Ok(()),
        }
    })
    .await
    .unwrap();
    assert_eq!(
        ask(&platform, &host, "/connect?host=peer&port=8080").await,
        "connected"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_build_step_reaches_the_outside_and_nothing_of_ours() {
    let platform = Platform::start(Engine::Docker).await.unwrap();
    let neighbour = App::target("neighbour").unwrap();
    let up = platform.up(&neighbour, &[]).unwrap();
    assert_eq!(up["outcome"], "succeeded", "{up}");
    let replica = address_of("neighbour");
    let host = Platform::host(&up).unwrap();
    let path = format!("/connect?host={replica}&port=8080");
    let own = ask(&platform, &host, &path).await;
    assert_eq!(own, "connected", "the neighbour does not reach itself");
    let everywhere = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let open_port = everywhere.local_addr().unwrap().port();

    let app = App::target("prober").unwrap();
    let mut script = String::from(
        "set -u\ngateway=$(ip route 2>/dev/null | sed -n 's/default via \\([0-9.]*\\).*/\\1/p'); [ -n \"$gateway\" ] || gateway=$(awk '$2==\"00000000\"{print $3}' /proc/net/route | sed 's/\\(..\\)\\(..\\)\\(..\\)\\(..\\)/0x\\4 0x\\3 0x\\2 0x\\1/' | xargs printf '%d.%d.%d.%d')\n",
    );
    script.push_str("probe() { if timeout 2 bash -c \"exec 3<>/dev/tcp/$1/$2\" 2>/dev/null; then echo \"PROBE $1 $2 open\"; else echo \"PROBE $1 $2 closed\"; fi; }\n");
    script.push_str("probe $gateway 53\n");
    for port in [
        open_port,
        platform.api.port(),
        platform.registry.port(),
        platform.http.port(),
    ] {
        script.push_str(&format!("probe $gateway {port}\nprobe 127.0.0.1 {port}\n"));
    }
    script.push_str(&format!("probe {replica} 8080\n"));
    for elsewhere in [&LINK_LOCAL, &OUTSIDE] {
        script.push_str(&format!("probe {} 8099\n", elsewhere.address));
    }
    for address in host_addresses() {
        script.push_str(&format!("probe {address} {open_port}\n"));
    }
    script.push_str("[ -e /var/run/docker.sock ] && echo 'PROBE docker.sock 0 open'\necho PROBES DONE\n");
    app.write("probe.sh", &script).unwrap();
    app.write(
        "Dockerfile",
        "FROM debian:trixie\nCOPY probe.sh /probe.sh\nRUN bash /probe.sh\nCMD [\"sleep\", \"1000\"]\n",
    )
    .unwrap();
    let listeners = [LINK_LOCAL.listen(), OUTSIDE.listen()];
    let result = platform.up(&app, &["--port", "none"]).unwrap();
    drop(listeners);
    assert_eq!(result["outcome"], "succeeded", "{result}");
    let log = platform
        .run(app.path(), &["logs", "--build", "-n", "10000"])
        .unwrap();
    let log = String::from_utf8_lossy(&log.stdout).into_owned();
    assert!(log.contains("PROBES DONE"), "{log}");
    let open: Vec<_> = log
        .lines()
        .filter(|line| line.contains("PROBE ") && line.trim_end().ends_with("open"))
        .collect();
    assert_eq!(
        open.len(),
        2,
        "only names and the outside are open: {open:#?}\n{log}"
    );
    assert!(open[0].contains(" 53 open"), "{open:?}");
    assert!(open[1].contains(OUTSIDE.address), "{open:?}");
}

/// The address of the only replica of a project.
fn address_of(project: &str) -> String {
    let output = Command::new("docker")
        .args([
            "ps",
            "--no-trunc",
            "--format",
            "{{.ID}}",
            "--filter",
            &format!("name=ft-{project}-"),
        ])
        .output()
        .unwrap();
    let id = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned();
    let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let output = Command::new("docker")
        .args(["inspect", "--format", format, &id])
        .output()
        .unwrap();
    let address = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    assert!(!address.is_empty(), "no container of the project `{project}`");
    address
}

/// Every IPv4 address of the host that is not loopback and not one of the platform's bridges.
fn host_addresses() -> Vec<String> {
    let output = Command::new("ip")
        .args(["-4", "-o", "addr", "show"])
        .output()
        .unwrap();
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            let interface = words.nth(1)?;
            let address = words.nth(1)?.split('/').next()?;
            (interface != "lo" && !interface.starts_with("ft")).then(|| address.to_owned())
        })
        .collect()
}

/// A place beyond the host: an address in a network namespace that the host routes to.
struct Elsewhere {
    /// Of the namespace, and the start of its links' names.
    name: &'static str,
    /// The host's address there.
    gateway: &'static str,
    address: &'static str,
}

impl Elsewhere {
    /// Takes connections there, at port 8099, until dropped.
    fn listen(&self) -> Listener {
        let Self {
            name,
            gateway,
            address,
        } = self;
        let up = format!(
            "ip netns add {name}; ip link add {name}0 type veth peer name {name}1; ip link set {name}1 netns {name}
             ip addr add {gateway}/24 dev {name}0; ip link set {name}0 up
             ip -n {name} addr add {address}/24 dev {name}1; ip -n {name} link set {name}1 up
             ip -n {name} route add default via {gateway}"
        );
        let status = Command::new("sh").args(["-ec", &up]).status().unwrap();
        let process = Command::new("ip")
            .args(["netns", "exec", name, "perl", "-MIO::Socket::INET", "-e", ACCEPT])
            .spawn()
            .unwrap();
        let listener = Listener { name, process };
        assert!(status.success(), "{up}");
        let reached = (0..100).any(|_| {
            std::thread::sleep(Duration::from_millis(20));
            std::net::TcpStream::connect((*address, 8099)).is_ok()
        });
        assert!(reached, "the listener at {address} is not reached from the host");
        listener
    }
}

/// A process that takes connections elsewhere.
struct Listener {
    name: &'static str,
    process: std::process::Child,
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        for arguments in [
            ["link", "del", &format!("{}0", self.name)],
            ["netns", "del", self.name],
        ] {
            let _ = Command::new("ip").args(arguments).status();
        }
    }
}
