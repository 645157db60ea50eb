//! What an application and a build step can reach, and what they cannot.

use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;
use std::time::Duration;

use ferrovia_tests::app::App;
use ferrovia_tests::http;
use ferrovia_tests::platform::{Engine, Platform};
use ferrovia_tests::wait::wait_for;

/// A link-local address of the test's own, in a network namespace of its own.
const LINK_LOCAL: &str = "169.254.77.77";
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
    let namespace = LinkLocal::up();
    assert_ne!(
        ask(&platform, &host, &format!("/connect?host={LINK_LOCAL}&port=8099")).await,
        "connected"
    );
    drop(namespace);

    // Rules that somebody flushed come back.
    for family in ["bridge", "ip"] {
        flush(family);
    }
    for family in ["bridge", "ip"] {
        wait_for("the rules' return", Duration::from_secs(30), || async {
            match tables(family).is_empty() {
                true => Err(format!("no table of ours in the family `{family}`")),
                false => Ok(()),
            }
        })
        .await
        .unwrap();
    }
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
    script.push_str(&format!("probe {replica} 8080\nprobe {LINK_LOCAL} 8099\n"));
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
    let namespace = LinkLocal::up();
    let result = platform.up(&app, &["--port", "none"]).unwrap();
    drop(namespace);
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
    assert_eq!(open.len(), 1, "only names are open: {open:#?}\n{log}");
    assert!(open[0].contains(" 53 open"), "{open:?}");
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

/// The platform's tables of a family.
fn tables(family: &str) -> Vec<String> {
    let listed = Command::new("nft")
        .args(["list", "tables", family])
        .output()
        .unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let names = listed.lines().filter_map(|line| line.split(' ').nth(2));
    names
        .filter(|name| name.starts_with("ferrovia_ft"))
        .map(str::to_owned)
        .collect()
}

fn flush(family: &str) {
    let ours = tables(family);
    assert!(!ours.is_empty(), "no table of ours in the family `{family}`");
    for name in ours {
        let flushed = Command::new("nft")
            .args(["delete", "table", family, &name])
            .status()
            .unwrap();
        assert!(flushed.success());
    }
}

/// A listener on a link-local address, in a network namespace that the host routes to.
struct LinkLocal {
    listener: std::process::Child,
}

impl LinkLocal {
    fn up() -> Self {
        let run = |line: &str| {
            let status = Command::new("sh").args(["-ec", line]).status().unwrap();
            assert!(status.success(), "{line}");
        };
        run(
            "ip netns add fvlinklocal; ip link add fvll0 type veth peer name fvll1; ip link set fvll1 netns fvlinklocal",
        );
        run(&format!(
            "ip addr add 169.254.77.1/24 dev fvll0; ip link set fvll0 up; ip netns exec fvlinklocal ip addr add {LINK_LOCAL}/24 dev fvll1; ip netns exec fvlinklocal ip link set fvll1 up; ip netns exec fvlinklocal ip route add default via 169.254.77.1"
        ));
        let listener = Command::new("ip")
            .args([
                "netns",
                "exec",
                "fvlinklocal",
                "perl",
                "-MIO::Socket::INET",
                "-e",
                ACCEPT,
            ])
            .spawn()
            .unwrap();
        let up = Self { listener };
        let reached = (0..100).any(|_| {
            std::thread::sleep(Duration::from_millis(20));
            std::net::TcpStream::connect((LINK_LOCAL, 8099)).is_ok()
        });
        assert!(reached, "the link-local listener is not reached from the host");
        up
    }
}

impl Drop for LinkLocal {
    fn drop(&mut self) {
        let _ = self.listener.kill();
        let _ = self.listener.wait();
        for arguments in [["link", "del", "fvll0"], ["netns", "del", "fvlinklocal"]] {
            let _ = Command::new("ip").args(arguments).status();
        }
    }
}
