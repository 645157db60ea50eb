//! `Idempotency-Key`: a request takes effect once.

use http::Method;
use serde_json::json;

use crate::api::{Api, WEB};

#[tokio::test]
async fn a_repeated_deploy_is_one_deployment() {
    let api = Api::new().await;
    api.target().await;
    let path = format!("{WEB}/deployments");
    let body = json!({"source": {"kind": "image", "reference": "nginx"}});
    let deploy = || {
        api.call(Method::POST, &path)
            .header("idempotency-key", "k1")
            .json(&body)
            .send()
    };
    let first = deploy().await.expect(202);
    let second = deploy().await.expect(202);
    assert_eq!(first["id"], second["id"]);
    let (a, b) = tokio::join!(
        api.call(Method::POST, &path)
            .header("idempotency-key", "k2")
            .json(&body)
            .send(),
        api.call(Method::POST, &path)
            .header("idempotency-key", "k2")
            .json(&body)
            .send(),
    );
    assert_eq!(a.expect(202)["id"], b.expect(202)["id"]);
    let items = api.get(&path).await.expect(200)["items"]
        .as_array()
        .unwrap()
        .len();
    assert_eq!(items, 2);

    let other = json!({"source": {"kind": "image", "reference": "redis"}});
    let reused = api
        .call(Method::POST, &path)
        .header("idempotency-key", "k1")
        .json(&other)
        .send()
        .await;
    assert_eq!(
        reused.refused(422, "idempotency_key_reused")["field"],
        "idempotency-key"
    );
    // A key belongs to its token.
    let someone = api
        .token("someone", ferrovia_core::permission::Scope::Owner)
        .await;
    let theirs = api
        .bare(Method::POST, &path)
        .bearer(&someone)
        .header("idempotency-key", "k1")
        .json(&body);
    assert_ne!(theirs.send().await.expect(202)["id"], first["id"]);
}

#[tokio::test]
async fn a_request_that_failed_may_be_repeated() {
    let api = Api::new().await;
    let create = |name: &str| {
        api.call(Method::POST, "/v1/projects")
            .header("idempotency-key", "k")
            .json(&json!({"name": name}))
            .send()
    };
    api.post("/v1/projects", json!({"name": "shop"}))
        .await
        .expect(201);
    create("shop").await.refused(409, "name_taken");
    api.delete("/v1/projects/shop").await.expect(204);
    create("shop").await.expect(201);
    create("shop").await.expect(201);
}

#[tokio::test]
async fn a_token_is_not_shown_twice() {
    let api = Api::new().await;
    let create = || {
        api.call(Method::POST, "/v1/tokens")
            .header("idempotency-key", "k")
            .json(&json!({"name": "ci"}))
            .send()
    };
    create().await.expect(201);
    create().await.refused(409, "idempotency_not_repeatable");
    assert_eq!(
        api.get("/v1/tokens").await.expect(200)["items"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
}

#[tokio::test]
async fn keys_that_are_none() {
    let api = Api::new().await;
    for key in ["", "ü", &"k".repeat(256)] {
        let call = api.call(Method::POST, "/v1/projects").json(&json!({"name": "a"}));
        let refused = call.header("idempotency-key", key).send().await;
        assert_eq!(refused.refused(400, "header_invalid")["field"], "idempotency-key");
    }
}
