//! Requests that are no good: too large, of the wrong type, on paths and with methods that are not there.

use http::Method;
use serde_json::json;

use crate::api::{Api, WEB};

#[tokio::test]
async fn paths_and_methods_that_are_not_there() {
    let api = Api::new().await;
    api.get("/v1/nothing").await.refused(404, "route_not_found");
    api.get("/v2").await.refused(404, "route_not_found");
    let wrong = api.call(Method::PUT, "/v1/projects").send().await;
    let allow = wrong.header("allow").to_owned();
    assert!(allow.contains("GET") && allow.contains("POST"), "{allow}");
    wrong.refused(405, "method_not_allowed");
    let trace = api.call(Method::TRACE, "/v1/whoami").send().await;
    trace.refused(405, "method_not_allowed");
    let healthz = api.bare(Method::POST, "/healthz").send().await;
    assert!(healthz.header("allow").contains("GET"));
    healthz.refused(405, "method_not_allowed");
}

#[tokio::test]
async fn odd_paths_are_refused_and_not_failed_on() {
    let api = Api::new().await;
    for name in [
        "%00",
        "%ff",
        "%2e%2e",
        "%F0%9F%9A%82",
        "a%2Fb",
        "a%00b",
        "%25",
        "%0a",
        "'%20OR%201=1",
        "%C0%80",
        "-",
        "..;",
    ] {
        let answer = api.get(&format!("/v1/projects/{name}")).await;
        assert!(
            matches!(answer.status.as_u16(), 400 | 404),
            "{name}: {}",
            answer.text
        );
        assert_eq!(answer.header("content-type"), "application/problem+json");
    }
    let long = "a".repeat(8000);
    api.get(&format!("/v1/projects/{long}"))
        .await
        .refused(404, "project_not_found");
}

#[tokio::test]
async fn bodies_that_are_none() {
    let api = Api::new().await;
    let with =
        |kind: &'static str, body: Vec<u8>| api.call(Method::POST, "/v1/projects").text(kind, body).send();
    let syntax = with("application/json", b"{".to_vec())
        .await
        .refused(400, "json_invalid");
    assert_eq!(syntax["field"], "body");
    with("application/json", b"".to_vec())
        .await
        .refused(400, "json_invalid");
    with("application/json", b"\xff\xfe".to_vec())
        .await
        .refused(400, "json_invalid");
    with("application/json", b"{\"name\":\"a\"} x".to_vec())
        .await
        .refused(400, "json_invalid");
    with("application/json", "[".repeat(100_000).into_bytes())
        .await
        .refused(422, "field_invalid");
    with("text/plain", b"{}".to_vec())
        .await
        .refused(415, "media_type_unsupported");
    with("", b"{}".to_vec())
        .await
        .refused(415, "media_type_unsupported");
    let patched = with(
        "application/merge-patch+json; charset=utf-8",
        b"{\"name\":\"a\"}".to_vec(),
    )
    .await;
    patched.expect(201);
    // Whoever has no token yet sends little.
    let sign_in = api.bare(Method::POST, "/v1/sign-in");
    let refused = sign_in.json(&json!({"token": "a".repeat(20_000)})).send().await;
    refused.refused(413, "body_too_large");
    let large = json!({"name": "a".repeat(5 * 1024 * 1024)});
    api.post("/v1/projects", large)
        .await
        .refused(413, "body_too_large");
}

#[tokio::test]
async fn the_open_pages_need_no_token() {
    let api = Api::new().await;
    let health = api.bare(Method::GET, "/healthz").send().await.expect(200);
    assert_eq!(health["status"], "ok");
    let ready = api.bare(Method::GET, "/readyz").send().await.expect(200);
    assert_eq!(ready["components"][0]["name"], "<database>");
    let page = api.bare(Method::GET, "/").send().await;
    assert!(
        page.text.contains("Ferrovia is ready") && page.text.contains("&lt;database&gt;"),
        "{}",
        page.text
    );
    assert!(api.get("/metrics").await.text.starts_with("# nothing"));
    assert_eq!(
        api.get("/v1/doctor").await.expect(200)["findings"][0]["level"],
        "good"
    );
}

#[tokio::test]
async fn a_dead_database_is_said() {
    let api = Api::new().await;
    api.test.db.close().await;
    let dead = api.get(WEB).await;
    assert_eq!(dead.header("retry-after"), "1");
    dead.refused(503, "database_unavailable");
    api.bare(Method::GET, "/healthz").send().await.expect(200);
}
