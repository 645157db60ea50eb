//! The platform's builder end to end: trees in, images out, on this machine.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ferrovia_build::bases::standing;
use ferrovia_build::digest::Digest;
use ferrovia_build::fetch::{Hosts, RegistryHost};
use ferrovia_build::narrator::Narrator;
use ferrovia_build::registry::{Manifest, Reference, Repository, Scope, Store};
use ferrovia_build::{BuildSource, Builder, BuiltImage};
use ferrovia_core::bases::Origin;
use ferrovia_core::secret::Secret;

use crate::images::{Image, put_blob};
use crate::live_build::{assert_nowhere, steps_running, wait_for};
use crate::served::Served;
use crate::site::{Site, extra_authority, with_hosts, with_site};

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../examples")
        .join(name)
}

fn size_of_work(site: &Site) -> usize {
    std::fs::read_dir(site.served.directory.path().join("buildkit/work")).map_or(0, Iterator::count)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_without_dependencies_becomes_an_image() {
    with_site(async |site| {
        let request = site.request(&example("hello")).await;
        let began = Instant::now();
        let (planned, built) = site
            .build(&request)
            .await
            .unwrap_or_else(|error| panic!("{error:?}"));
        eprintln!("first build: {:?}", began.elapsed());
        assert_eq!(planned.builder, "auto");
        assert!(
            built.config["ExposedPorts"]["8080/tcp"].is_object(),
            "{:#}",
            built.config
        );
        assert!(built.size_bytes > 1_000_000);
        assert!(site.builder.has_image(&built.image).await.unwrap());

        // The same tree has the same key: control does not build at all.
        let again = site.builder.plan(&request).await.unwrap();
        assert_eq!(again.image_key, planned.image_key);
        // Built all the same, it comes out of the cache.
        let began = Instant::now();
        let (_, same) = site.build(&request).await.unwrap();
        eprintln!("built again: {:?}", began.elapsed());
        assert_eq!(same.image, built.image);
        assert!(began.elapsed() < Duration::from_secs(10));

        site.builder.remove_image(&built.image).await.unwrap();
        assert!(!site.builder.has_image(&built.image).await.unwrap());
        site.builder.remove_image(&built.image).await.unwrap();
        wait_for(|| size_of_work(&site) == 0).await;
    })
    .await;
}

/// A directory of a test with these files.
fn tree(site: &Site, name: &str, files: &[(&str, &str)]) -> PathBuf {
    let directory = site.served.directory.path().join("sources").join(name);
    for (path, content) in files {
        let path = directory.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    directory
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_line_installs_nothing_again() {
    with_site(async |site| {
        let source = example("python-fastapi");
        let read = |name: &str| std::fs::read_to_string(source.join(name)).unwrap();
        let (main, requirements) = (read("main.py"), read("requirements.txt"));
        let first = tree(
            &site,
            "a",
            &[("main.py", &main), ("requirements.txt", &requirements)],
        );
        let request = site.request(&first).await;
        let began = Instant::now();
        let (planned, built) = site
            .build(&request)
            .await
            .unwrap_or_else(|error| panic!("{error:?}"));
        eprintln!("first build: {:?}", began.elapsed());
        assert!(site.lines.has("pip install"));

        // BuildKit ends between builds: its cache is there when it starts again.
        site.kit.stop().await.unwrap();
        site.lines.clear();
        let changed = format!("{main}\n# changed\n");
        let second = tree(
            &site,
            "b",
            &[("main.py", &changed), ("requirements.txt", &requirements)],
        );
        let request = site.request(&second).await;
        let began = Instant::now();
        let (again, other) = site
            .build(&request)
            .await
            .unwrap_or_else(|error| panic!("{error:?}"));
        eprintln!("after a changed line: {:?}", began.elapsed());
        assert_ne!(again.image_key, planned.image_key);
        assert_ne!(other.image, built.image);
        let installs = site.lines.all();
        let installs: Vec<_> = installs
            .iter()
            .filter(|line| line.contains("pip install"))
            .collect();
        assert!(
            installs.iter().all(|line| line.ends_with(": cached")),
            "{installs:#?}"
        );
        assert!(!installs.is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dockerfile_of_its_own_is_built_with_what_stands_for_its_images() {
    with_site(async |site| {
        let request = site.request(&example("dockerfile")).await;
        let (planned, built) = site
            .build(&request)
            .await
            .unwrap_or_else(|error| panic!("{error:?}"));
        assert_eq!(planned.builder, "dockerfile");
        assert_eq!(built.config["User"], "1000:1000");
        assert!(built.config["ExposedPorts"]["9000/tcp"].is_object());
        assert!(
            site.lines
                .has("`golang:1.24-trixie` is the platform's own `go:1.24`")
        );

        // A stage that is not there is told before anything is built.
        let mut wrong = site.request(&example("dockerfile")).await;
        wrong.settings.target = Some("nothing".into());
        assert_eq!(
            site.build(&wrong).await.unwrap_err().report.code,
            "target_missing"
        );
        let mut first = site.request(&example("dockerfile")).await;
        first.settings.target = Some("build".into());
        let (_, stage) = site.build(&first).await.unwrap();
        assert!(stage.size_bytes > built.size_bytes);
    })
    .await;
}

const SECRET: &str = "S3cret $HOME \"q\"";

#[tokio::test(flavor = "multi_thread")]
async fn variables_reach_steps_and_stay_nowhere() {
    with_site(async |site| {
        let dockerfile = "# syntax=docker/dockerfile:1\nFROM debian:bookworm-slim\nARG MODE\nARG API_KEY\n\
            RUN --mount=type=secret,id=TOKEN,env=TOKEN \\\n  printf %s \"$TOKEN\" | sha256sum | cut -c1-64 > /hash && echo \"$MODE ${API_KEY:-none} $TOKEN\" && echo $MODE > /mode\n\
            RUN test -z \"${TOKEN:-}\" && date +%s%N > /stamp\n\
            RUN if [ -n \"${SSL_CERT_FILE:-}\" ]; then grep -q BEGIN \"$SSL_CERT_FILE\" && echo trusted by $SSL_CERT_FILE; fi\n\
            RUN cat /proc/1/environ > /environment; ls -R /run > /listing\n\
            EXPOSE 8080\nCMD [\"true\"]\n";
        let source = tree(&site, "app", &[("Dockerfile", dockerfile)]);
        let mut request = site.request(&source).await;
        request.variables = vec![
            ("API_KEY".into(), Secret::new("hidden-api-key-1")),
            ("MODE".into(), Secret::new("release-mode")),
            ("TOKEN".into(), Secret::new(SECRET)),
            ("UNUSED".into(), Secret::new("u-1")),
        ];
        request.settings.arguments = vec!["MODE".into()];
        let (planned, built) = site.build(&request).await.unwrap_or_else(|error| panic!("{error:?}"));
        let codes: Vec<_> = planned.warnings.iter().map(|warning| warning.code.as_str()).collect();
        assert_eq!(codes, ["argument_unlisted", "base_substituted"]);
        assert!(site.lines.has("release-mode none ***"), "{:#?}", site.lines.all());
        if extra_authority().is_some() {
            assert!(site.lines.has("trusted by /run/secrets/ferrovia-ca"));
        }
        assert!(site.lines.has("`# syntax=docker/dockerfile:1` is not followed"));
        let config = built.config.to_string();
        for absent in ["SSL_CERT_FILE", "TOKEN", "API_KEY"] {
            assert!(!config.contains(absent), "{config}");
        }
        let everywhere = site.served.directory.path();
        for place in ["registry", "buildkit"] {
            for value in [SECRET, "hidden-api-key-1"] {
                assert_nowhere(&everywhere.join(place), value);
            }
        }
        assert_eq!(std::fs::read_dir(everywhere.join("run/secrets")).unwrap().count(), 0);

        // What no step sees changes nothing; what one sees runs it again.
        let hash = file_of(&site, &built, "hash").await;
        assert_eq!(hash.trim(), Digest::of(SECRET.as_bytes()).hex());
        request.variables[3].1 = Secret::new("u-2");
        let same = site.builder.plan(&request).await.unwrap();
        assert_eq!(same.image_key, planned.image_key);
        request.variables[2].1 = Secret::new("another value");
        let (changed, rebuilt) = site.build(&request).await.unwrap();
        assert_ne!(changed.image_key, planned.image_key);
        let hash = file_of(&site, &rebuilt, "hash").await;
        assert_eq!(hash.trim(), Digest::of(b"another value").hex());
    })
    .await;
}

/// A file of an image: of the last layer that has it.
async fn file_of(site: &Site, built: &BuiltImage, path: &str) -> String {
    let own = format!("{}/", site.served.host);
    let repository: Repository = built
        .image
        .repository
        .strip_prefix(&own)
        .unwrap()
        .parse()
        .unwrap();
    let reference: Reference = built.image.digest.parse().unwrap();
    let store = &site.served.store;
    let stored = store
        .find_manifest(&repository, &reference)
        .await
        .unwrap()
        .unwrap();
    let Manifest::Image { layers, .. } = Manifest::parse(stored.media_type, &stored.bytes).unwrap() else {
        panic!("an index");
    };
    for layer in layers.iter().rev() {
        let (file, _) = store.open_blob(&repository, layer.digest).await.unwrap();
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(file.into_std().await));
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            if entry.path().unwrap() == Path::new(path) {
                let mut text = String::new();
                entry.read_to_string(&mut text).unwrap();
                return text;
            }
        }
    }
    panic!("`{path}` is in no layer");
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_say_what_to_do_and_leave_nothing() {
    with_site(async |site| {
        let package = r#"{"name":"a","scripts":{"start":"node a.js","build":"node build.js"}}"#;
        let build = "console.log('compiling'); console.error('Error: no such module'); process.exit(3)";
        let source = tree(
            &site,
            "broken",
            &[("package.json", package), ("a.js", ""), ("build.js", build)],
        );
        let error = site.build(&site.request(&source).await).await.unwrap_err();
        assert_eq!(error.report.code, "build_failed");
        assert!(
            error.report.message.ends_with("ended with exit code 3"),
            "{:?}",
            error.report
        );
        assert!(
            error
                .report
                .log
                .iter()
                .any(|line| line.contains("no such module"))
        );
        assert!(error.report.hint.unwrap().contains("npm run build"));
        assert!(!error.class.is_retryable());

        let nothing = tree(&site, "nothing", &[("notes.txt", "x")]);
        let error = site.build(&site.request(&nothing).await).await.unwrap_err();
        assert_eq!(error.report.code, "nothing_detected");

        let mut gone = site.request(&nothing).await;
        gone.source = BuildSource::Tree {
            digest: Digest::of(b"gone").to_string(),
        };
        assert_eq!(site.build(&gone).await.unwrap_err().report.code, "tree_not_found");

        let image = tree(
            &site,
            "image",
            &[("Dockerfile", "FROM registry.invalid/a:1\nRUN true\n")],
        );
        let error = site.build(&site.request(&image).await).await.unwrap_err();
        assert_eq!(error.report.code, "base_image_unreachable");
        wait_for(|| size_of_work(&site) == 0).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_is_dropped_ends_at_once() {
    with_site(async |site| {
        let dockerfile = "FROM debian:trixie\nRUN echo running; sleep 1000\n";
        let source = tree(&site, "slow", &[("Dockerfile", dockerfile)]);
        let request = site.request(&source).await;
        let running = {
            let (site, request) = (site.clone(), request.clone());
            tokio::spawn(async move { site.build(&request).await })
        };
        wait_for(|| site.lines.has(": running")).await;
        let began = Instant::now();
        running.abort();
        wait_for(|| steps_running() == 0 && size_of_work(&site) == 0).await;
        eprintln!("nothing was left after {:?}", began.elapsed());
        assert!(began.elapsed() < Duration::from_secs(5));
        let secrets = site.served.directory.path().join("run/secrets");
        wait_for(|| std::fs::read_dir(&secrets).unwrap().count() == 0).await;

        // The same build begun again is a build like any other.
        let quick = tree(
            &site,
            "quick",
            &[("Dockerfile", "FROM debian:trixie\nRUN echo quick\n")],
        );
        let mut again = site.request(&quick).await;
        again.build_id = request.build_id;
        site.build(&again).await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_from_elsewhere_is_kept_here() {
    let upstream = Served::start().await;
    let image = Image::with_file("hello", b"hello");
    let digest = image.store(&upstream.store, "apps/tools/web", "v1").await;
    let reader = upstream.pusher();
    let settings = RegistryHost {
        login: Some(reader.login().clone()),
        plain_http: true,
        ..RegistryHost::default()
    };
    let hosts = Hosts([(upstream.host.clone(), settings)].into());
    let reference = format!("{}/apps/tools/web:v1", upstream.host);
    with_hosts(hosts, async move |site| {
        let mut request = site.request(&example("hello")).await;
        request.source = BuildSource::Image {
            reference: reference.clone(),
        };
        let (planned, built) = site
            .build(&request)
            .await
            .unwrap_or_else(|error| panic!("{error:?}"));
        assert_eq!(planned.builder, "image");
        assert_eq!(built.image.digest, digest.to_string());
        assert!(site.builder.has_image(&built.image).await.unwrap());

        // The same image as a base of a build, by its tag, with the same login.
        let dockerfile = format!("FROM {reference}\nCOPY Dockerfile /second\n");
        let source = tree(&site, "from", &[("Dockerfile", &dockerfile)]);
        let mut from = site.request(&source).await;
        from.build_id = request.build_id;
        let planned = site.builder.plan(&from).await.unwrap();
        assert!(
            planned.plan.to_string().contains(&digest.to_string()),
            "{:#}",
            planned.plan
        );

        for (wrong, code) in [
            ("NOT AN IMAGE".to_owned(), "image_invalid"),
            ("127.0.0.1:1/a/b:c".to_owned(), "image_address_closed"),
            (
                format!("{}/apps/tools/none:v1", reference.split('/').next().unwrap()),
                "image_not_found",
            ),
        ] {
            request.source = BuildSource::Image { reference: wrong };
            assert_eq!(site.build(&request).await.unwrap_err().report.code, code);
        }
        // Gone upstream, it is still here.
        upstream
            .store
            .delete_manifest(&"apps/tools/web".parse().unwrap(), digest)
            .await
            .unwrap();
        assert!(site.builder.has_image(&built.image).await.unwrap());
    })
    .await;
}

/// Copies an image from a registry into another, under a tag.
async fn copy(from: &Store, place: &str, digest: Digest, to: &Store, name: &str, tag: &str) {
    let (place, name): (Repository, Repository) = (place.parse().unwrap(), name.parse().unwrap());
    let stored = from
        .find_manifest(&place, &Reference::Digest(digest))
        .await
        .unwrap()
        .unwrap();
    let manifest = Manifest::parse(stored.media_type, &stored.bytes).unwrap();
    for blob in manifest.blobs() {
        let (file, _) = from.open_blob(&place, blob.digest).await.unwrap();
        let mut bytes = Vec::new();
        file.into_std().await.read_to_end(&mut bytes).unwrap();
        put_blob(to, &name, &bytes).await;
    }
    let tag = tag.parse().unwrap();
    to.put_manifest(&name, &tag, stored.media_type, &stored.bytes)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_registry_answers_bases_are_official_and_stay_when_it_goes() {
    let upstream = Arc::new(Served::start().await);
    let filled = Arc::clone(&upstream);
    with_site(async move |site| {
        let narrator = Narrator::new(&*site.lines);
        for (key, name, tag) in [
            ("debian:trixie", "library/debian", "trixie-slim"),
            ("node-runtime:20", "library/node", "24-trixie-slim"),
        ] {
            let base = site.bases.ensure(key, &narrator).await.unwrap();
            let place = format!("bases/{}", key.split(':').next().unwrap());
            copy(&site.served.store, &place, base.digest, &filled.store, name, tag).await;
        }
    })
    .await;
    let reader = upstream.access.grant("reader", Scope::PullAll);
    let mirrored = RegistryHost {
        mirrors: vec![upstream.url("")],
        ..RegistryHost::default()
    };
    let mirror = RegistryHost {
        login: Some(reader.login().clone()),
        plain_http: true,
        ..RegistryHost::default()
    };
    let hosts = Hosts(
        [
            ("docker.io".to_owned(), mirrored),
            (upstream.host.clone(), mirror),
        ]
        .into(),
    );
    with_hosts(hosts, async move |site| {
        let data = site.served.directory.path().join("buildkit/bases");
        assert_eq!(standing(&data).origin, None);
        let request = site.request(&example("hello")).await;
        let (planned, _) = site
            .build(&request)
            .await
            .unwrap_or_else(|error| panic!("{error:?}"));
        assert!(
            site.lines
                .has("fetched from its registry, once: `node:24-trixie-slim`")
        );
        let standing = standing(&data);
        assert_eq!(standing.origin, Some(Origin::Official));
        let keys: Vec<_> = standing.bases.iter().map(|base| base.key.as_str()).collect();
        assert_eq!(keys, ["debian:trixie", "node-runtime:24"]);

        // The registry goes; what was fetched is still what builds start from.
        drop(reader);
        drop(upstream);
        let changed = tree(
            &site,
            "changed",
            &[
                (
                    "package.json",
                    &std::fs::read_to_string(example("hello").join("package.json")).unwrap(),
                ),
                (
                    "server.js",
                    "require('http').createServer((q, s) => s.end('x')).listen(process.env.PORT)",
                ),
            ],
        );
        let (again, _) = site.build(&site.request(&changed).await).await.unwrap();
        assert_ne!(again.image_key, planned.image_key);
    })
    .await;
}
