//! Who gets in: tokens, scopes, the owner of the host.

use std::net::IpAddr;

use ferrovia_api::client::{Client, Endpoint};
use ferrovia_server::http::auth::{MAX_FAILURES, Peer};
use ferrovia_server::http::serve::{bind_unix, serve_unix};
use http::Method;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::api::{Api, WEB};

#[tokio::test]
async fn a_token_is_made_used_and_revoked() {
    let api = Api::new().await;
    let made = api
        .post("/v1/tokens", json!({"name": "laptop"}))
        .await
        .expect(201);
    let secret = made["secret"].as_str().unwrap();
    assert!(secret.starts_with("fvt_"));
    let who = api
        .bare(Method::GET, "/v1/whoami")
        .bearer(secret)
        .send()
        .await
        .expect(200);
    assert_eq!(
        (&who["actor"], &who["scope"]),
        (&json!("token `laptop`"), &json!("owner"))
    );
    let listed = api.get("/v1/tokens").await;
    assert!(!listed.text.contains(secret));
    assert_eq!(
        listed.expect(200)["items"][1]["last_used_at"],
        "2026-01-01T00:00:00Z"
    );
    let id = made["token"]["id"].as_str().unwrap();
    api.delete(&format!("/v1/tokens/{id}")).await.expect(204);
    let after = api.bare(Method::GET, "/v1/whoami").bearer(secret).send().await;
    assert_eq!(after.header("www-authenticate"), "Bearer realm=\"ferrovia\"");
    after.refused(401, "unauthenticated");
    api.delete(&format!("/v1/tokens/{id}"))
        .await
        .refused(404, "token_not_found");
    for (body, code, field) in [
        (json!({"name": ""}), "token_name_invalid", "name"),
        (json!({"name": "a\u{0}"}), "token_name_invalid", "name"),
        (json!({"name": "x".repeat(101)}), "token_name_invalid", "name"),
        (
            json!({"name": "a", "scope": "root"}),
            "token_scope_invalid",
            "scope",
        ),
    ] {
        assert_eq!(
            api.post("/v1/tokens", body).await.refused(422, code)["field"],
            field
        );
    }
    let nowhere = api
        .post("/v1/tokens", json!({"name": "a", "scope": "deploy:nope"}))
        .await;
    assert_eq!(nowhere.refused(404, "project_not_found")["field"], "scope");
}

#[tokio::test]
async fn signing_in_says_who() {
    let api = Api::new().await;
    let sign_in = |token: Value| {
        api.bare(Method::POST, "/v1/sign-in")
            .json(&json!({ "token": token }))
            .send()
    };
    assert_eq!(
        sign_in(json!(api.owner)).await.expect(200)["actor"],
        "token `owner`"
    );
    sign_in(json!("fvt_nope")).await.refused(401, "unauthenticated");
    sign_in(json!("\u{0}")).await.refused(401, "unauthenticated");
    sign_in(json!(7)).await.refused(422, "field_invalid");
}

#[tokio::test]
async fn a_deploy_scope_is_for_one_project() {
    let api = Api::new().await;
    api.target().await;
    let shop = api.get("/v1/projects/shop").await.expect(200);
    api.post("/v1/projects", json!({"name": "other"}))
        .await
        .expect(201);
    let created = api
        .post("/v1/tokens", json!({"name": "ci", "scope": "deploy:shop"}))
        .await
        .expect(201);
    assert_eq!(created["token"]["scope"], "deploy:shop");
    let token = api.deploy_token(&shop).await;
    let with = |method: Method, path: &str| api.bare(method, path).bearer(&token);
    let source = json!({"source": {"kind": "image", "reference": "nginx"}});
    with(Method::POST, &format!("{WEB}/deployments"))
        .json(&source)
        .send()
        .await
        .expect(202);
    with(Method::GET, WEB).send().await.expect(200);
    let own = with(Method::GET, "/v1/projects").send().await.expect(200);
    assert_eq!(own["items"].as_array().unwrap().len(), 1);
    // What exists and what does not look the same.
    with(Method::GET, "/v1/projects/other")
        .send()
        .await
        .refused(403, "scope_denied");
    with(Method::GET, "/v1/projects/nothing")
        .send()
        .await
        .refused(403, "scope_denied");
    for (method, path) in [
        (Method::DELETE, "/v1/projects/shop"),
        (Method::DELETE, "/v1/projects/shop/services/web"),
        (Method::GET, "/v1/tokens"),
        (Method::GET, "/v1/doctor"),
        (Method::GET, "/metrics"),
    ] {
        with(method, path).send().await.refused(403, "scope_denied");
    }
    with(Method::POST, &format!("{WEB}/hold"))
        .send()
        .await
        .refused(403, "scope_denied");
    let new = json!({"project": "new", "environment": "production", "service": "web", "create": true});
    with(Method::POST, "/v1/targets")
        .json(&new)
        .send()
        .await
        .refused(403, "scope_denied");
    let environment = json!({"project": "shop", "environment": "new", "service": "web", "create": true});
    with(Method::POST, "/v1/targets")
        .json(&environment)
        .send()
        .await
        .refused(403, "scope_denied");
    let service = json!({"project": "shop", "environment": "production", "service": "new", "create": true});
    with(Method::POST, "/v1/targets")
        .json(&service)
        .send()
        .await
        .expect(200);
    let who = with(Method::GET, "/v1/whoami").send().await.expect(200);
    assert_eq!(who["scope"], "deploy:shop");
}

#[tokio::test]
async fn wrong_tokens_are_slowed_and_good_ones_pass() {
    let api = Api::new().await;
    let here = Peer::Address(IpAddr::from([192, 0, 2, 1]));
    let wrong = || {
        api.bare(Method::GET, "/v1/whoami")
            .bearer("fvt_wrong")
            .from(here)
            .send()
    };
    for _ in 0..MAX_FAILURES {
        wrong().await.refused(401, "unauthenticated");
    }
    let slowed = wrong().await;
    assert_eq!(slowed.header("retry-after"), "60");
    slowed.refused(429, "too_many_failures");
    api.call(Method::GET, "/v1/whoami")
        .from(here)
        .send()
        .await
        .expect(200);
}

#[tokio::test]
async fn whoever_has_the_host_is_owner() {
    let api = Api::new().await;
    let path = api.directory.path().join("api.sock");
    let ended = CancellationToken::new();
    let served = tokio::spawn(serve_unix(bind_unix(&path).unwrap(), api.router(), ended.clone()));
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }
    let client = Client::new(Endpoint::Socket(path)).unwrap();
    let who = client.whoami().await.unwrap();
    assert_eq!(who.scope, "owner");
    assert!(who.actor.ends_with("on this host"), "{}", who.actor);
    ended.cancel();
    served.await.unwrap();
    assert!(client.whoami().await.is_err());
}
