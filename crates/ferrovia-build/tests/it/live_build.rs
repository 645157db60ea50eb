//! BuildKit itself: limits, network, secrets, cancelling, caching, on this machine.

use std::io::Read;
use std::time::{Duration, Instant};

use ferrovia_build::buildkit::failure::SolveError;
use ferrovia_build::buildkit::solve::OwnImages;
use ferrovia_build::digest::Digest;
use ferrovia_build::registry::{Manifest, MediaType, Store};
use ferrovia_core::secret::Secret;

use crate::images::Image;
use crate::site::{Site, with_site};

async fn code_of(site: &Site, name: &str, dockerfile: &str) -> String {
    let lease = site.lease().await;
    let tree = site.tree(name, dockerfile);
    let error = site.run(&lease, site.job(&tree)).await.unwrap_err();
    let report = error.into_build_error().report;
    eprintln!("{report:#?}");
    report.code
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_and_failures_say_what_to_do() {
    with_site(async |site| {
        let _lease = site.lease().await;
        let canary = site.kit.canary().unwrap();
        assert_eq!(canary.trouble, None, "{canary:?}");
        let base = site.base("debian:trixie").await;
        let from = format!("FROM {base}\n");
        let cases = [
            (
                "oom",
                format!("{from}RUN head -c 700m /dev/zero | tail > /dev/null\n"),
                "build_out_of_memory",
            ),
            (
                "forks",
                format!("{from}RUN i=0; while [ $i -lt 3000 ]; do sleep 60 & i=$((i+1)); done\n"),
                "build_failed",
            ),
            (
                "exit",
                format!("{from}RUN echo compile error >&2; exit 3\n"),
                "build_failed",
            ),
            ("syntax", "FORM x\n".to_owned(), "dockerfile_invalid"),
            (
                "copy",
                format!("{from}COPY missing.txt /\n"),
                "build_file_missing",
            ),
            (
                "secret",
                format!("{from}RUN --mount=type=secret,id=NONE,required=true true\n"),
                "build_secret_missing",
            ),
            (
                "base",
                "FROM registry.invalid/nothing:1\n".to_owned(),
                "base_image_unreachable",
            ),
        ];
        for (name, dockerfile, code) in cases {
            assert_eq!(code_of(&site, name, &dockerfile).await, code, "{name}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_plain_cached_and_holds_no_secret() {
    with_site(async |site| {
        let lease = site.lease().await;
        let base = site.base("debian:trixie").await;
        let secret = "S3cret $HOME \"q\" value";
        let hash = Digest::of(secret.as_bytes()).hex();
        let tree = site.tree(
            "app",
            &format!(
                "FROM {base}\nARG MODE\nRUN --mount=type=secret,id=TOKEN,env=TOKEN \
                 echo {hash} - > /tmp/hash && printf %s \"$TOKEN\" | sha256sum -c /tmp/hash && rm /tmp/hash && echo \"the token is $TOKEN\" && echo $MODE > /mode\n\
                 COPY file /file\nEXPOSE 8080\nCMD [\"cat\", \"/file\"]\n"
            ),
        );
        std::fs::write(tree.join("file"), "one\n").unwrap();
        let mut job = site.job(&tree);
        job.secrets = vec![("TOKEN".into(), Secret::new(secret))];
        job.arguments = vec![("MODE".into(), "a,b $c".into())];
        let first = site.run(&lease, job.clone()).await.unwrap();
        assert!(site.lines.has("the token is ***"), "{:#?}", site.lines.all());

        let digest = first.digest.unwrap().parse().unwrap();
        let repository = "apps/p/web".parse().unwrap();
        let stored = site
            .served
            .store
            .find_manifest(&repository, &ferrovia_build::registry::Reference::Digest(digest))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(stored.media_type, MediaType::OciManifest);
        let manifest = Manifest::parse(stored.media_type, &stored.bytes).unwrap();
        for layer in manifest.blobs().skip(1) {
            assert_eq!(layer.media_type, "application/vnd.oci.image.layer.v1.tar+gzip");
        }
        assert!(everything(&site.served.store, &manifest).await.contains("a,b $c"));
        for place in [site.served.directory.path().join("registry"), site.served.directory.path().join("buildkit")] {
            assert_nowhere(&place, secret);
        }
        assert_eq!(std::fs::read_dir(site.served.directory.path().join("run/secrets")).unwrap().count(), 0);

        // The same again: nothing is done, the same image comes out.
        let began = Instant::now();
        let mut again = site.job(&tree);
        again.secrets = job.secrets.clone();
        again.arguments = job.arguments.clone();
        let second = site.run(&lease, again).await.unwrap();
        assert_eq!(second.digest.unwrap(), digest.to_string());
        assert!(site.lines.has("cached"));
        eprintln!("a cached build took {:?}", began.elapsed());
        assert!(began.elapsed() < Duration::from_secs(5));
    })
    .await;
}

/// Configuration and unpacked layers of an image, as one text.
async fn everything(store: &Store, manifest: &Manifest) -> String {
    let mut all = Vec::new();
    for blob in manifest.blobs() {
        let (file, _) = store
            .open_blob(&"apps/p/web".parse().unwrap(), blob.digest)
            .await
            .unwrap();
        let mut raw = Vec::new();
        file.into_std().await.read_to_end(&mut raw).unwrap();
        let mut unpacked = Vec::new();
        match flate2::read::GzDecoder::new(raw.as_slice()).read_to_end(&mut unpacked) {
            Ok(_) => all.extend(unpacked),
            Err(_) => all.extend(raw),
        }
    }
    String::from_utf8_lossy(&all).into_owned()
}

/// No file below a directory, unpacked or not, has the text in it.
pub fn assert_nowhere(directory: &std::path::Path, text: &str) {
    let line = r#"find "$1" -type f -exec sh -c 'gzip -dcf "$1" 2>/dev/null | grep -qaF -e "$0" && echo "$1"' "$2" {} \;"#;
    let mut find = std::process::Command::new("sh");
    let output = find
        .args(["-c", line, "sh"])
        .arg(directory)
        .arg(text)
        .output()
        .unwrap();
    let found = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(found, "", "the secret is in these files");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_build_stops_at_once() {
    with_site(async |site| {
        let lease = site.lease().await;
        let base = site.base("debian:trixie").await;
        let tree = site.tree(
            "slow",
            &format!("FROM {base}\nRUN echo the step runs; sleep 1000\n"),
        );
        let running = {
            let (site, lease) = (site.clone(), lease.clone());
            let job = site.job(&tree);
            tokio::spawn(async move { site.run(&lease, job).await })
        };
        wait_for(|| site.lines.has(": the step runs")).await;
        assert_eq!(steps_running(), 1);
        let began = Instant::now();
        running.abort();
        wait_for(|| steps_running() == 0).await;
        eprintln!("the step was gone after {:?}", began.elapsed());
        // The daemon is the same and builds on.
        let tree = site.tree("next", &format!("FROM {base}\nRUN echo next\n"));
        site.run(&lease, site.job(&tree)).await.unwrap();

        // A time limit is a cancellation too.
        let tree = site.tree("slower", &format!("FROM {base}\nRUN echo slower; sleep 1001\n"));
        let mut job = site.job(&tree);
        job.timeout = Duration::from_secs(3);
        let error = site.run(&lease, job).await.unwrap_err();
        assert!(matches!(error, SolveError::TimedOut { .. }), "{error:?}");
        let report = error.into_build_error().report;
        assert!(report.message.contains("RUN echo slower"), "{report:?}");
        assert_eq!(steps_running(), 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_dies_is_told_and_started_again() {
    with_site(async |site| {
        let lease = site.lease().await;
        let base = site.base("debian:trixie").await;
        let tree = site.tree(
            "slow",
            &format!("FROM {base}\nRUN echo the step runs; sleep 1000\n"),
        );
        let running = {
            let (site, lease) = (site.clone(), lease.clone());
            let job = site.job(&tree);
            tokio::spawn(async move { site.run(&lease, job).await })
        };
        wait_for(|| site.lines.has(": the step runs")).await;
        for pid in daemon_processes() {
            let pid = rustix::process::Pid::from_raw(pid).unwrap();
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        let error = running.await.unwrap().unwrap_err();
        assert!(error.is_daemons_fault(), "{error:?}");
        drop(lease);
        let lease = site.lease().await;
        let tree = site.tree("next", &format!("FROM {base}\nRUN echo next\n"));
        site.run(&lease, site.job(&tree)).await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_control_left_is_taken_away() {
    with_site(async |site| {
        let lease = site.lease().await;
        let base = site.base("debian:trixie").await;
        let tree = site.tree(
            "slow",
            &format!("FROM {base}\nRUN --mount=type=secret,id=TOKEN echo the step runs; sleep 1000\n"),
        );
        let mut job = site.job(&tree);
        job.secrets = vec![("TOKEN".into(), Secret::new("a secret"))];
        let running = {
            let (site, lease) = (site.clone(), lease.clone());
            tokio::spawn(async move { site.run(&lease, job).await })
        };
        wait_for(|| site.lines.has(": the step runs")).await;
        let run = site.served.directory.path().join("run");
        assert!(run.join("secrets").read_dir().unwrap().next().is_some());

        // In the middle of a step; and once more, as after an end that was cut off.
        for _ in 0..2 {
            let removed = site.leftovers().remove().await;
            removed.unwrap_or_else(|errors| panic!("{errors:?}"));
            assert_eq!(steps_running(), 0);
            assert!(!run.exists());
        }
        for (program, arguments) in [("nft", ["list", "tables"]), ("iptables", ["-S", "FORWARD"])] {
            let output = std::process::Command::new(program).args(arguments).output();
            let rules = String::from_utf8(output.unwrap().stdout).unwrap();
            assert!(!rules.contains("fbbuild"), "{rules}");
        }
        assert!(running.await.unwrap().is_err());

        // The next start needs nothing of it.
        drop(lease);
        let lease = site.lease().await;
        let tree = site.tree("next", &format!("FROM {base}\nRUN echo next\n"));
        site.run(&lease, site.job(&tree)).await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_reaches_packages_and_not_the_platform() {
    with_site(async |site| {
        let lease = site.lease().await;
        let base = site.base("debian:trixie").await;
        // Something of the platform on loopback, and on every address of the host.
        let platform = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
        let port = platform.local_addr().unwrap().port();
        let tree = site.tree("packages", &format!("FROM {base}\nRUN apt-get update\n"));
        site.run(&lease, site.job(&tree)).await.unwrap();

        // A step has a loopback of its own, and no registry on it.
        let registry = site.served.host.rsplit_once(':').unwrap().1;
        let try_it = |host: &str, port: &str| {
            format!("RUN bash -c 'if timeout 3 bash -c \"exec 3<>/dev/tcp/{host}/{port}\"; then exit 9; fi'\n")
        };
        let daemon = "10.242.0.2";
        let closed = [
            try_it("127.0.0.1", &port.to_string()),
            try_it("127.0.0.1", registry),
            try_it(daemon, registry),
            try_it(daemon, &port.to_string()),
        ];
        let tree = site.tree("closed", &format!("FROM {base}\n{}", closed.concat()));
        site.run(&lease, site.job(&tree)).await.unwrap();

        // The daemon itself, told by a Dockerfile to fetch something, is not on the host's loopback either.
        let accepted = tokio::spawn(async move { platform.accept().await });
        for dockerfile in [
            format!("FROM scratch\nADD http://127.0.0.1:{port}/x /x\n"),
            format!("FROM 127.0.0.1:{port}/somebody/image\n"),
        ] {
            let tree = site.tree(&format!("add{}", dockerfile.len()), &dockerfile);
            let error = site.run(&lease, site.job(&tree)).await.unwrap_err();
            let code = error.into_build_error().report.code;
            assert!(["build_failed", "base_image_unreachable"].contains(&code.as_str()), "{code}");
        }
        assert!(!accepted.is_finished(), "a build reached the platform");

        // Two steps at once do not reach each other.
        let listen = "perl -MIO::Socket::INET -e 'my $s = IO::Socket::INET->new(Listen => 1, LocalPort => 7000, ReuseAddr => 1) or die; alarm 6; $s->accept and print qq(reached\\n)' || true";
        let scan = "sleep 1; for i in $(seq 16 40); do timeout 0.1 bash -c \"exec 3<>/dev/tcp/10.242.0.$i/7000\" 2>/dev/null && echo open $i || true; done";
        let tree = site.tree(
            "neighbours",
            &format!("FROM {base} AS a\nRUN {listen}\nFROM {base} AS b\nRUN {scan}; touch /b\nFROM a\nCOPY --from=b /b /b\n"),
        );
        site.run(&lease, site.job(&tree)).await.unwrap();
        assert!(!site.lines.has("RUN perl -MIO::Socket::INET -e 'my $s: reached"));
        assert!(!site.lines.all().iter().any(|line| line.contains(": open ") || line.ends_with(": reached")));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn images_of_other_projects_are_closed() {
    with_site(async |site| {
        let lease = site.lease().await;
        let other = Image::with_file("theirs", b"theirs");
        let digest = other.store(&site.served.store, "apps/other/web", "v1").await;
        let mine = Image::with_file("mine", b"mine");
        let mine_digest = mine.store(&site.served.store, "apps/p/web", "v1").await;
        let host = site.served.host.clone();
        let own = OwnImages {
            registry: host.clone(),
            allowed: vec!["bases/".into(), "apps/p/".into()],
        };
        let build = async |name: &str, image: String| {
            let tree = site.tree(name, &format!("FROM scratch\nCOPY --from={image} / /\n"));
            let mut job = site.job(&tree);
            job.own_images = Some(own.clone());
            site.run(&lease, job).await
        };
        build("mine", format!("{host}/apps/p/web@{mine_digest}"))
            .await
            .unwrap();
        for (name, image) in [
            ("by-digest", format!("{host}/apps/other/web@{digest}")),
            ("by-tag", format!("{host}/apps/other/web:v1")),
        ] {
            let error = build(name, image).await.unwrap_err();
            assert_eq!(
                error.into_build_error().report.code,
                "base_image_denied",
                "{name}"
            );
        }
    })
    .await;
}

/// Groups of steps that have processes.
pub fn steps_running() -> usize {
    let list = |directory: &std::path::Path| -> Vec<std::path::PathBuf> {
        std::fs::read_dir(directory).map_or_else(
            |_| Vec::new(),
            |entries| entries.flatten().map(|entry| entry.path()).collect(),
        )
    };
    let scopes = list("/sys/fs/cgroup/memory/ferrovia-fb".as_ref());
    let steps = scopes.iter().flat_map(|scope| list(&scope.join("buildkit")));
    let busy = |step: &std::path::PathBuf| {
        std::fs::read_to_string(step.join("cgroup.procs")).is_ok_and(|text| !text.is_empty())
    };
    steps.filter(busy).count()
}

/// The daemon and its clients.
fn daemon_processes() -> Vec<i32> {
    let text = std::fs::read_to_string("/sys/fs/cgroup/memory/ferrovia-fb/daemon/cgroup.procs").unwrap();
    let is_daemon = |pid: &i32| {
        std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "buildkitd")
    };
    text.lines()
        .filter_map(|line| line.parse().ok())
        .filter(is_daemon)
        .collect()
}

pub async fn wait_for(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "the condition did not come true");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
