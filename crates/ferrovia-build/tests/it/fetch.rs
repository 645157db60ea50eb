//! Fetching images from another registry: a second one of ours, and small ones that behave badly.

use std::collections::BTreeMap;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use ferrovia_build::digest::Digest;
use ferrovia_build::fetch::{Client, FetchError, Hosts, ImageName, RegistryHost};
use ferrovia_build::narrator::Narrator;
use ferrovia_build::registry::{MediaType, Repository, Scope};

use crate::images::Image;
use crate::served::Served;
use crate::site::Lines;

fn named(host: &str, settings: RegistryHost) -> Hosts {
    Hosts(BTreeMap::from([(host.to_owned(), settings)]))
}

fn plain() -> RegistryHost {
    RegistryHost {
        plain_http: true,
        ..RegistryHost::default()
    }
}

fn client(hosts: Hosts) -> Client {
    Client::new(hosts, "amd64", None).unwrap()
}

/// Copies an image into a registry of its own.
async fn copied(client: &Client, image: &str) -> Result<(Served, Digest), FetchError> {
    let here = Served::start().await;
    let lines = Lines::default();
    let image: ImageName = image.parse().unwrap();
    let repository: Repository = "apps/p/s".parse().unwrap();
    let resolved = client.resolve(&image).await?;
    let narrator = Narrator::new(&lines);
    client
        .copy(&image, &resolved, &here.store, &repository, &narrator)
        .await?;
    assert!(
        here.store
            .holds_image(&repository, resolved.digest)
            .await
            .unwrap()
    );
    // A second time nothing comes from outside.
    let again = client
        .copy(&image, &resolved, &here.store, &repository, &narrator)
        .await?;
    assert_eq!(again.fetched_bytes, 0);
    Ok((here, resolved.digest))
}

async fn upstream() -> (Served, RegistryHost, ferrovia_build::registry::Grant) {
    let there = Served::start().await;
    let grant = there.access.grant("puller", Scope::PullAll);
    let settings = RegistryHost {
        login: Some(grant.login().clone()),
        ..plain()
    };
    (there, settings, grant)
}

#[tokio::test]
async fn an_image_is_copied_by_tag_and_by_digest_for_this_architecture() {
    let (there, settings, _grant) = upstream().await;
    let amd64 = Image::for_architecture("a", b"amd64", "amd64");
    let arm64 = Image::for_architecture("a", b"arm64", "arm64");
    for image in [&amd64, &arm64] {
        image.store(&there.store, "o/n", "one").await;
    }
    let entry = |image: &Image, architecture: &str| {
        serde_json::json!({"mediaType": MediaType::OciManifest.as_str(), "digest": image.digest(),
                           "size": image.manifest.len(), "platform": {"os": "linux", "architecture": architecture}})
    };
    let index = serde_json::json!({"schemaVersion": 2, "mediaType": MediaType::OciIndex.as_str(),
                                   "manifests": [entry(&arm64, "arm64"), entry(&amd64, "amd64")]});
    let bytes = index.to_string().into_bytes();
    let (repository, tag) = ("o/n".parse().unwrap(), "multi".parse().unwrap());
    let put = there
        .store
        .put_manifest(&repository, &tag, MediaType::OciIndex, &bytes);
    let index = put.await.unwrap();
    let client = client(named(&there.host, settings));
    for reference in ["multi".to_owned(), format!("multi@{index}")] {
        let (_, digest) = copied(&client, &format!("{}/o/n:{reference}", there.host))
            .await
            .unwrap();
        assert_eq!(digest, amd64.digest());
    }
    let (_, digest) = copied(&client, &format!("{}/o/n@{}", there.host, arm64.digest()))
        .await
        .unwrap();
    assert_eq!(digest, arm64.digest());
}

#[tokio::test]
async fn what_fails_is_told_apart() {
    let (there, settings, _grant) = upstream().await;
    Image::with_file("a", b"a").store(&there.store, "o/n", "v1").await;
    let host = there.host.clone();
    let code = async |hosts: Hosts, image: &str| {
        let error = copied(&client(hosts), image)
            .await
            .err()
            .expect("it must not be fetched");
        let error = error.into_build_error(image);
        assert!(error.report.hint.is_some(), "{error:?}");
        error.report.code
    };
    let image = format!("{host}/o/n:v1");
    assert_eq!(
        code(named(&host, settings.clone()), &format!("{host}/o/n:v2")).await,
        "image_not_found"
    );
    assert_eq!(code(named(&host, plain()), &image).await, "image_denied");
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let nobody = format!("{closed}/o/n:v1");
    assert_eq!(
        code(named(&closed.to_string(), plain()), &nobody).await,
        "image_unreachable"
    );
    // Nothing names these hosts: neither HTTP nor a local address is for them.
    let port = host.rsplit_once(':').unwrap().1;
    for unnamed in [
        image.clone(),
        format!("localhost:{port}/o/n:v1"),
        format!("[::1]:{port}/o/n:v1"),
    ] {
        assert_eq!(
            code(Hosts::default(), &unnamed).await,
            "image_address_closed",
            "{unnamed}"
        );
    }
    // A mirror that does not answer is passed over.
    let mirrored = RegistryHost {
        mirrors: vec![format!("http://{closed}"), format!("http://{host}")],
        ..settings
    };
    let mut hosts = named("registry.invalid", mirrored.clone());
    hosts.0.insert(host.clone(), mirrored);
    copied(&client(hosts), "registry.invalid/o/n:v1").await.unwrap();
}

/// A registry whose every answer is given.
async fn behaving(answer: fn(Request) -> Response) -> (String, tokio::task::JoinHandle<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let app = Router::new().fallback(async move |request: Request| answer(request));
    let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    (host, task)
}

fn small_image() -> Image {
    Image::with_file("a", b"small")
}

fn manifest_answer() -> Response {
    (
        [(header::CONTENT_TYPE, MediaType::OciManifest.as_str())],
        small_image().manifest,
    )
        .into_response()
}

#[tokio::test]
async fn a_token_service_is_asked_with_the_login_and_only_there() {
    let answer = |request: Request| {
        let sent = request
            .headers()
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        let host = request.headers()[header::HOST].to_str().unwrap().to_owned();
        match request.uri().path() {
            "/token" if sent.as_deref().is_some_and(|sent| sent.starts_with("Basic ")) => {
                let query = request.uri().query().unwrap();
                assert!(
                    query.contains("scope=repository%3Ao%2Fn%3Apull") && query.contains("service=s"),
                    "{query}"
                );
                axum::Json(serde_json::json!({"access_token": "t0ken"})).into_response()
            }
            "/token" => StatusCode::UNAUTHORIZED.into_response(),
            _ if sent.as_deref() != Some("Bearer t0ken") => {
                let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"s\"");
                (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)]).into_response()
            }
            path if path.contains("/manifests/") => manifest_answer(),
            path if path.ends_with(&Digest::of(&small_image().config).to_string()) => {
                small_image().config.into_response()
            }
            _ => small_image().layer.into_response(),
        }
    };
    let (host, task) = behaving(answer).await;
    let served = Served::start().await;
    let grant = served.access.grant("x", Scope::PullAll);
    let settings = RegistryHost {
        login: Some(grant.login().clone()),
        ..plain()
    };
    copied(&client(named(&host, settings)), &format!("{host}/o/n:v1"))
        .await
        .unwrap();
    let anonymous = copied(&client(named(&host, plain())), &format!("{host}/o/n:v1")).await;
    assert!(matches!(anonymous.err(), Some(FetchError::Denied)));
    task.abort();
}

type Lie = (&'static str, fn(Request) -> Response, fn(&FetchError) -> bool);

#[tokio::test]
async fn lies_and_detours_are_refused() {
    let lies: [Lie; 5] = [
        (
            "another layer",
            |request| match request.uri().path().rsplit_once("sha256:") {
                None => manifest_answer(),
                Some((_, hex)) if hex == Digest::of(&small_image().config).hex() => {
                    small_image().config.into_response()
                }
                Some(_) => vec![0_u8; small_image().layer.len()].into_response(),
            },
            |error| matches!(error, FetchError::Wrong(_)),
        ),
        (
            "a longer layer",
            |request| match request.uri().path().contains("/manifests/") {
                true => manifest_answer(),
                false => vec![0_u8; 1_000_000].into_response(),
            },
            |error| matches!(error, FetchError::Wrong(_)),
        ),
        (
            "a redirect to the host itself",
            |_| (StatusCode::FOUND, [(header::LOCATION, "http://127.0.0.2:1/x")]).into_response(),
            |error| matches!(error, FetchError::Closed(_)),
        ),
        (
            "a redirect without end",
            |_| (StatusCode::FOUND, [(header::LOCATION, "/again")]).into_response(),
            |error| matches!(error, FetchError::Unreachable(_)),
        ),
        (
            "a manifest without end",
            |_| {
                let endless =
                    futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b' '; 65_536]));
                let kind = [(header::CONTENT_TYPE, MediaType::OciManifest.as_str())];
                (kind, Body::from_stream(endless)).into_response()
            },
            |error| matches!(error, FetchError::Wrong(_)),
        ),
    ];
    for (what, answer, expected) in lies {
        let (host, task) = behaving(answer).await;
        let error = copied(&client(named(&host, plain())), &format!("{host}/o/n:v1"))
            .await
            .err()
            .unwrap();
        assert!(expected(&error), "{what}: {error:?}");
        task.abort();
    }
}
