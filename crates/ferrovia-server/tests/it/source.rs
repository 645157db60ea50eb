//! Source uploaded: the manifest, then what the project lacks.

use ferrovia_core::tree::Sha256;
use http::Method;
use serde_json::{Value, json};

use crate::api::{Api, WEB};

fn file(path: &str, content: &str) -> Value {
    json!({"type": "file", "path": path, "digest": Sha256::of(content.as_bytes()), "size": content.len()})
}

fn frames(contents: &[&str]) -> Vec<u8> {
    let mut body = Vec::new();
    for content in contents {
        body.extend_from_slice(format!("{} {}\n", Sha256::of(content.as_bytes()), content.len()).as_bytes());
        body.extend_from_slice(content.as_bytes());
    }
    body
}

async fn send(api: &Api, body: Vec<u8>) -> crate::api::Answer {
    let call = api.call(Method::POST, "/v1/projects/shop/contents");
    call.text("application/vnd.ferrovia.contents", body).send().await
}

#[tokio::test]
async fn only_what_is_missing_is_sent_and_then_it_deploys() {
    let api = Api::new().await;
    api.target().await;
    let manifest = json!({"entries": [file("b.txt", "two"), file("a.txt", "one"), file("copy", "one"),
        {"type": "symlink", "path": "link", "target": "a.txt"}, {"type": "directory", "path": "empty"}]});
    let offer = |manifest: &Value| {
        let manifest = manifest.clone();
        async { api.post("/v1/projects/shop/trees", manifest).await.expect(200) }
    };
    let first = offer(&manifest).await;
    assert_eq!(first["complete"], false);
    assert_eq!(first["missing"].as_array().unwrap().len(), 2);
    // Not whole, not deployed.
    let source = json!({"source": {"kind": "tree", "digest": first["digest"]}});
    api.post(&format!("{WEB}/deployments"), source.clone())
        .await
        .refused(404, "tree_not_found");
    assert_eq!(send(&api, frames(&["one", "two"])).await.expect(200)["count"], 2);
    assert_eq!(send(&api, frames(&["one"])).await.expect(200)["count"], 1);
    let second = offer(&manifest).await;
    assert_eq!(
        (&second["complete"], &second["digest"]),
        (&json!(true), &first["digest"])
    );
    let made = api.post(&format!("{WEB}/deployments"), source).await.expect(202);
    assert_eq!(made["outcome"], "queued");
    // Nothing is shared between projects.
    api.post("/v1/projects", json!({"name": "other"}))
        .await
        .expect(201);
    let elsewhere = api.post("/v1/projects/other/trees", manifest).await.expect(200);
    assert_eq!(elsewhere["missing"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn trees_that_are_none() {
    let api = Api::new().await;
    api.target().await;
    for entries in [
        json!([file("../x", "")]),
        json!([file("/etc/passwd", "")]),
        json!([file("a", ""), file("a", "")]),
        json!([file("a\u{0}b", "")]),
        json!([{"type": "symlink", "path": "l", "target": "/etc/passwd"}]),
        json!([{"type": "symlink", "path": "l", "target": "../../x"}]),
    ] {
        let refused = api
            .post("/v1/projects/shop/trees", json!({ "entries": entries }))
            .await;
        assert_eq!(refused.refused(422, "tree_invalid")["field"], "entries");
    }
    let device = api
        .post(
            "/v1/projects/shop/trees",
            json!({"entries": [{"type": "device", "path": "a"}]}),
        )
        .await;
    device.refused(422, "field_invalid");
    let digest = json!({"entries": [{"type": "file", "path": "a", "digest": "x", "size": 0}]});
    let refused = api
        .post("/v1/projects/shop/trees", digest)
        .await
        .refused(422, "field_invalid");
    assert_eq!(refused["field"], "entries[0].digest");
    let large =
        json!({"entries": [{"type": "file", "path": "a", "digest": Sha256::of(b""), "size": 1_u64 << 50}]});
    api.post("/v1/projects/shop/trees", large)
        .await
        .refused(413, "tree_invalid");
}

#[tokio::test]
async fn uploads_that_are_none() {
    let api = Api::new().await;
    api.target().await;
    send(&api, b"garbage".to_vec())
        .await
        .refused(422, "upload_invalid");
    let mut wrong = frames(&["one"]);
    *wrong.last_mut().unwrap() = b'X';
    send(&api, wrong).await.refused(422, "source_changed");
    let mut short = frames(&["one"]);
    short.pop();
    assert!(send(&api, short).await.status.is_client_error());
    let typed = api
        .call(Method::POST, "/v1/projects/shop/contents")
        .text("text/plain", "x")
        .send()
        .await;
    typed.refused(415, "media_type_unsupported");
    assert_eq!(send(&api, Vec::new()).await.expect(200)["count"], 0);
}
