//! The registry's protocol, spoken by hand and by `oci-client`.

use std::time::Duration;

use ferrovia_build::digest::Digest;
use ferrovia_build::registry::{Error, Grant, Limits, MediaType, Scope};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};

use crate::images::{Image, put_blob};
use crate::served::Served;

struct Caller<'a> {
    served: &'a Served,
    grant: Grant,
    client: Client,
}

impl<'a> Caller<'a> {
    fn new(served: &'a Served, grant: Grant) -> Self {
        let client = Client::new();
        Self {
            served,
            grant,
            client,
        }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let login = self.grant.login();
        self.client
            .request(method, self.served.url(path))
            .basic_auth(&login.user, Some(login.password.expose()))
    }

    async fn send(&self, method: Method, path: &str, body: &[u8]) -> Response {
        self.request(method, path)
            .body(body.to_vec())
            .send()
            .await
            .unwrap()
    }

    async fn put_manifest(&self, path: &str, kind: &str, body: &[u8]) -> Response {
        let request = self.request(Method::PUT, path).header("content-type", kind);
        request.body(body.to_vec()).send().await.unwrap()
    }
}

fn location(response: &Response) -> String {
    response.headers()["location"].to_str().unwrap().to_owned()
}

async fn code(response: Response) -> String {
    let body: serde_json::Value = response.json().await.unwrap();
    body["errors"][0]["code"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn nothing_without_a_login_and_nothing_outside_its_scope() {
    let served = Served::start().await;
    let image = Image::with_file("hello", b"x");
    image.store(&served.store, "apps/p1/web", "v1").await;
    for path in [
        "/v2/",
        "/v2/apps/p1/web/manifests/v1",
        "/v2/apps/p1/web/tags/list",
    ] {
        let response = Client::new().get(served.url(path)).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{path}");
        let scheme = response.headers()["www-authenticate"].to_str().unwrap();
        assert!(scheme.starts_with("Basic realm="), "{scheme}");
        assert_eq!(code(response).await, "UNAUTHORIZED");
    }
    let other = Scope::Repositories {
        push: vec!["apps/p2/".into()],
        pull: vec!["bases/".into()],
    };
    let caller = Caller::new(&served, served.access.grant("other", other));
    let read = caller
        .send(Method::GET, "/v2/apps/p1/web/manifests/v1", b"")
        .await;
    assert_eq!(read.status(), StatusCode::FORBIDDEN);
    let push = caller.send(Method::POST, "/v2/bases/x/blobs/uploads/", b"").await;
    assert_eq!(push.status(), StatusCode::FORBIDDEN);
    // A mount from a project that the login does not open becomes an ordinary upload.
    let layer = Digest::of(&image.layer);
    let mount = format!("/v2/apps/p2/web/blobs/uploads/?mount={layer}&from=apps/p1/web");
    assert_eq!(
        caller.send(Method::POST, &mount, b"").await.status(),
        StatusCode::ACCEPTED
    );
    let engine = Caller::new(&served, served.access.grant("engine", Scope::PullAll));
    let read = engine
        .send(Method::GET, "/v2/apps/p1/web/manifests/v1", b"")
        .await;
    assert_eq!(read.status(), StatusCode::OK);
    let delete = format!("/v2/apps/p1/web/manifests/{}", image.digest());
    let delete = engine.send(Method::DELETE, &delete, b"").await;
    assert_eq!(delete.status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn blobs_come_at_once_in_chunks_and_by_mount() {
    let served = Served::start().await;
    let caller = Caller::new(&served, served.pusher());
    let (one, two) = (b"first blob".as_slice(), b"second blob".as_slice());

    let at_once = format!("/v2/apps/p/a/blobs/uploads/?digest={}", Digest::of(one));
    let response = caller.send(Method::POST, &at_once, one).await;
    assert_eq!(response.status(), StatusCode::CREATED);

    let begun = caller
        .send(Method::POST, "/v2/apps/p/a/blobs/uploads/", b"")
        .await;
    assert_eq!(begun.status(), StatusCode::ACCEPTED);
    let place = location(&begun);
    let chunk = caller.send(Method::PATCH, &place, &two[..4]).await;
    assert_eq!(chunk.status(), StatusCode::ACCEPTED);
    assert_eq!(chunk.headers()["range"], "0-3");
    let gap = caller
        .request(Method::PATCH, &place)
        .header("content-range", "9-10");
    let gap = gap.body(two[9..].to_vec()).send().await.unwrap();
    assert_eq!(gap.status(), StatusCode::RANGE_NOT_SATISFIABLE);
    let status = caller.send(Method::GET, &place, b"").await;
    assert_eq!(
        (status.status(), &status.headers()["range"]),
        (StatusCode::NO_CONTENT, &"0-3".parse().unwrap())
    );
    let next = caller
        .request(Method::PATCH, &place)
        .header("content-range", "4-7");
    let next = next.body(two[4..8].to_vec()).send().await.unwrap();
    assert_eq!(next.status(), StatusCode::ACCEPTED);
    let done = format!("{}?digest={}", location(&next), Digest::of(two));
    let done = caller.send(Method::PUT, &done, &two[8..]).await;
    assert_eq!(done.status(), StatusCode::CREATED);

    let mount = format!(
        "/v2/apps/p/b/blobs/uploads/?mount={}&from=apps/p/a",
        Digest::of(two)
    );
    assert_eq!(
        caller.send(Method::POST, &mount, b"").await.status(),
        StatusCode::CREATED
    );
    let blob = format!("/v2/apps/p/b/blobs/{}", Digest::of(two));
    let head = caller.send(Method::HEAD, &blob, b"").await;
    assert_eq!(head.headers()["content-length"], "11");
    assert_eq!(
        caller.send(Method::GET, &blob, b"").await.bytes().await.unwrap(),
        two
    );
    let part = caller.request(Method::GET, &blob).header("range", "bytes=7-");
    let part = part.send().await.unwrap();
    assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(part.headers()["content-range"], "bytes 7-10/11");
    assert_eq!(part.bytes().await.unwrap(), b"blob".as_slice());
    // Seen in one repository is not seen in another.
    let unseen = format!("/v2/apps/p/b/blobs/{}", Digest::of(one));
    let unseen = caller.send(Method::GET, &unseen, b"").await;
    assert_eq!(
        (unseen.status(), code(unseen).await),
        (StatusCode::NOT_FOUND, "BLOB_UNKNOWN".into())
    );
}

#[tokio::test]
async fn content_that_is_not_what_it_says_is_refused_and_leaves_nothing() {
    let served = Served::start().await;
    let caller = Caller::new(&served, served.pusher());
    let wrong = Digest::of(b"something else");
    let response = caller
        .send(
            Method::POST,
            &format!("/v2/apps/p/a/blobs/uploads/?digest={wrong}"),
            b"x",
        )
        .await;
    assert_eq!(
        (response.status(), code(response).await),
        (StatusCode::BAD_REQUEST, "DIGEST_INVALID".into())
    );
    let uploads = served.directory.path().join("registry/uploads");
    assert_eq!(std::fs::read_dir(uploads).unwrap().count(), 0);

    let image = Image::with_file("hello", b"x");
    let kind = MediaType::OciManifest.as_str();
    let missing = caller
        .put_manifest("/v2/apps/p/a/manifests/v1", kind, &image.manifest)
        .await;
    assert_eq!(
        (missing.status(), code(missing).await),
        (StatusCode::NOT_FOUND, "MANIFEST_BLOB_UNKNOWN".into())
    );
    image.store(&served.store, "apps/p/a", "v1").await;
    let other = format!("/v2/apps/p/a/manifests/{wrong}");
    let mismatch = caller.put_manifest(&other, kind, &image.manifest).await;
    assert_eq!(mismatch.status(), StatusCode::BAD_REQUEST);
    let kindless = caller
        .put_manifest("/v2/apps/p/a/manifests/v1", "text/plain", &image.manifest)
        .await;
    assert_eq!(code(kindless).await, "MANIFEST_INVALID");
    let large = vec![b' '; 4 * 1024 * 1024 + 1];
    let large = caller
        .put_manifest("/v2/apps/p/a/manifests/v1", kind, &large)
        .await;
    assert_eq!(large.status(), StatusCode::PAYLOAD_TOO_LARGE);
    for bad in [
        "/v2/APPS/manifests/v1",
        "/v2/apps/p/../q/manifests/v1",
        "/v2/apps/p/a/manifests/.v",
    ] {
        let response = caller.send(Method::GET, bad, b"").await;
        assert!(response.status().is_client_error(), "{bad}");
    }
}

#[tokio::test]
async fn sizes_and_the_disk_are_bounded() {
    let limits = Limits {
        max_blob_bytes: 10,
        max_uploads: 2,
        ..Limits::default()
    };
    let served = Served::start_with(limits).await;
    let caller = Caller::new(&served, served.pusher());
    let large = [b'x'; 11];
    let path = format!("/v2/apps/p/a/blobs/uploads/?digest={}", Digest::of(&large));
    let response = caller.send(Method::POST, &path, &large).await;
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    for expected in [
        StatusCode::ACCEPTED,
        StatusCode::ACCEPTED,
        StatusCode::TOO_MANY_REQUESTS,
    ] {
        let response = caller
            .send(Method::POST, "/v2/apps/p/a/blobs/uploads/", b"")
            .await;
        assert_eq!(response.status(), expected);
    }
    let limits = Limits {
        min_free_bytes: u64::MAX,
        ..Limits::default()
    };
    let full = Served::start_with(limits).await;
    let caller = Caller::new(&full, full.pusher());
    let response = caller
        .send(Method::POST, "/v2/apps/p/a/blobs/uploads/", b"")
        .await;
    assert_eq!(response.status(), StatusCode::INSUFFICIENT_STORAGE);
}

#[tokio::test]
async fn manifests_are_found_by_tag_and_digest_and_go_when_deleted() {
    let served = Served::start().await;
    let caller = Caller::new(&served, served.pusher());
    let image = Image::with_file("hello", b"x");
    for tag in ["v1", "v2", "latest"] {
        image.store(&served.store, "apps/p/a", tag).await;
    }
    let by_tag = caller.send(Method::GET, "/v2/apps/p/a/manifests/v1", b"").await;
    assert_eq!(by_tag.headers()["content-type"], MediaType::OciManifest.as_str());
    assert_eq!(
        by_tag.headers()["docker-content-digest"],
        image.digest().to_string().as_str()
    );
    assert_eq!(by_tag.bytes().await.unwrap(), image.manifest);
    let first: serde_json::Value = caller
        .send(Method::GET, "/v2/apps/p/a/tags/list?n=2", b"")
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(first["tags"], serde_json::json!(["latest", "v1"]));
    let rest = caller
        .send(Method::GET, "/v2/apps/p/a/tags/list?n=2&last=v1", b"")
        .await;
    assert!(rest.headers().get("link").is_none());

    let index = serde_json::to_vec(&serde_json::json!({
        "schemaVersion": 2,
        "manifests": [{"mediaType": MediaType::OciManifest.as_str(), "digest": image.digest(), "size": 1,
                       "platform": {"architecture": "amd64", "os": "linux"}}],
    }))
    .unwrap();
    let kind = MediaType::OciIndex.as_str();
    let pushed = caller
        .put_manifest("/v2/apps/p/a/manifests/multi", kind, &index)
        .await;
    assert_eq!(pushed.status(), StatusCode::CREATED);

    let by_digest = format!("/v2/apps/p/a/manifests/{}", image.digest());
    assert_eq!(
        caller.send(Method::DELETE, &by_digest, b"").await.status(),
        StatusCode::ACCEPTED
    );
    for path in [by_digest.as_str(), "/v2/apps/p/a/manifests/v1"] {
        let gone = caller.send(Method::GET, path, b"").await;
        assert_eq!(
            (gone.status(), code(gone).await),
            (StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN".into())
        );
    }
    assert_eq!(
        served
            .store
            .tags(&"apps/p/a".parse().unwrap())
            .await
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn garbage_goes_after_its_grace_and_nothing_else_does() {
    let served = Served::start().await;
    let store = &served.store;
    let kept = Image::with_file("kept", b"kept");
    let dropped = Image::with_file("dropped", b"dropped");
    kept.store(store, "apps/p/a", "v1").await;
    let digest = dropped.store(store, "apps/p/b", "v1").await;
    let loose = put_blob(store, &"apps/p/c".parse().unwrap(), b"never used").await;
    assert!(
        store
            .delete_manifest(&"apps/p/b".parse().unwrap(), digest)
            .await
            .unwrap()
    );
    assert!(
        !store
            .delete_manifest(&"apps/p/b".parse().unwrap(), digest)
            .await
            .unwrap()
    );

    let early = store.collect_garbage(Duration::from_secs(3600)).await.unwrap();
    assert_eq!(early.removed_blobs, 0);
    assert!(
        store
            .find_blob(&"apps/p/c".parse().unwrap(), loose)
            .await
            .unwrap()
            .is_some()
    );

    let late = store.collect_garbage(Duration::ZERO).await.unwrap();
    // The dropped image's manifest, configuration and layer, and the loose blob.
    assert_eq!(late.removed_blobs, 4);
    assert_eq!(store.manifests().await.unwrap().len(), 1);
    assert!(
        !served
            .directory
            .path()
            .join("registry/repositories/apps/p/b")
            .exists()
    );
    let caller = Caller::new(&served, served.pusher());
    let layer = format!("/v2/apps/p/a/blobs/{}", Digest::of(&kept.layer));
    let read = caller.send(Method::GET, &layer, b"").await;
    assert_eq!(read.bytes().await.unwrap(), kept.layer);
}

#[tokio::test]
async fn the_same_blob_pushed_by_many_at_once_is_kept_once() {
    let served = Served::start().await;
    let bytes = vec![7_u8; 300_000];
    let digest = Digest::of(&bytes);
    let pushes = (0..8).map(|n| {
        let (store, bytes) = (served.store.clone(), bytes.clone());
        async move { put_blob(&store, &format!("apps/p/r{}", n % 3).parse().unwrap(), &bytes).await }
    });
    for pushed in futures_util::future::join_all(pushes).await {
        assert_eq!(pushed, digest);
    }
    let swept = served
        .store
        .collect_garbage(Duration::from_secs(3600))
        .await
        .unwrap();
    assert_eq!(swept.kept_bytes, bytes.len() as u64);
}

#[tokio::test]
async fn what_was_pushed_is_there_after_a_restart_and_what_was_not_is_gone() {
    let served = Served::start().await;
    let image = Image::with_file("hello", b"x");
    let digest = image.store(&served.store, "apps/p/a", "v1").await;
    let root = served.directory.path().join("registry");
    std::fs::write(root.join("uploads/leftover"), b"half").unwrap();
    let again = ferrovia_build::registry::Store::open(&root, Limits::default())
        .await
        .unwrap();
    assert!(!root.join("uploads/leftover").exists());
    let found = again
        .find_manifest(&"apps/p/a".parse().unwrap(), &"v1".parse().unwrap())
        .await
        .unwrap();
    assert_eq!(found.unwrap().digest, digest);
    let unknown = again
        .open_blob(&"apps/p/a".parse().unwrap(), Digest::of(b"no"))
        .await;
    assert!(matches!(unknown, Err(Error::BlobUnknown(_))));
}

#[tokio::test]
async fn oci_client_pushes_and_pulls() {
    use oci_client::client::{ClientConfig, ClientProtocol, Config, ImageLayer};
    use oci_client::secrets::RegistryAuth;

    let served = Served::start().await;
    let grant = served.pusher();
    let login = grant.login();
    let auth = RegistryAuth::Basic(login.user.clone(), login.password.expose().to_owned());
    for use_monolithic_push in [false, true] {
        let client = oci_client::Client::new(ClientConfig {
            protocol: ClientProtocol::Http,
            use_monolithic_push,
            ..ClientConfig::default()
        });
        let image = Image::with_file("hello", format!("{use_monolithic_push}").as_bytes());
        let name: oci_client::Reference = format!("{}/apps/p/client:v1", served.host).parse().unwrap();
        let layer = ImageLayer::oci_v1_gzip(image.layer.clone(), None);
        let config = Config::oci_v1(image.config.clone(), None);
        client.push(&name, &[layer], config, &auth, None).await.unwrap();
        let kinds = vec!["application/vnd.oci.image.layer.v1.tar+gzip"];
        let pulled = client.pull(&name, &auth, kinds).await.unwrap();
        assert_eq!(pulled.layers[0].data.as_ref(), image.layer);
    }
}
