//! Projects, environments, services, targets: made, listed, deleted.

use http::Method;
use serde_json::{Value, json};

use crate::api::{Api, WEB};

#[tokio::test]
async fn a_project_comes_and_goes() {
    let api = Api::new().await;
    let made = api
        .post("/v1/projects", json!({"name": "shop"}))
        .await
        .expect(201);
    assert_eq!(made["name"], "shop");
    assert!(made["created_at"].as_str().unwrap().ends_with('Z'));
    let by_id = api
        .get(&format!("/v1/projects/{}", made["id"].as_str().unwrap()))
        .await;
    assert_eq!(by_id.header("etag"), "\"1\"");
    assert_eq!(by_id.expect(200), made);
    let environments = api.get("/v1/projects/shop/environments").await.expect(200);
    assert_eq!(environments["items"][0]["name"], "production");

    let taken = api.post("/v1/projects", json!({"name": "shop"})).await;
    taken.refused(409, "name_taken");
    let stale = api
        .call(Method::DELETE, "/v1/projects/shop")
        .header("if-match", "\"7\"")
        .send()
        .await;
    stale.refused(412, "changed_meanwhile");
    let weak = api
        .call(Method::DELETE, "/v1/projects/shop")
        .header("if-match", "W/\"1\"")
        .send()
        .await;
    weak.refused(412, "changed_meanwhile");
    let wrong = api
        .call(Method::DELETE, "/v1/projects/shop")
        .header("if-match", "1")
        .send()
        .await;
    assert_eq!(wrong.refused(400, "header_invalid")["field"], "if-match");
    let gone = api
        .call(Method::DELETE, "/v1/projects/shop")
        .header("if-match", "\"1\"")
        .send()
        .await;
    gone.expect(204);
    api.get("/v1/projects/shop")
        .await
        .refused(404, "project_not_found");
    api.delete("/v1/projects/shop")
        .await
        .refused(404, "project_not_found");
    // The name is free again, and it is another project.
    let again = api
        .post("/v1/projects", json!({"name": "shop"}))
        .await
        .expect(201);
    assert_ne!(again["id"], made["id"]);
}

#[tokio::test]
async fn names_that_are_none() {
    let api = Api::new().await;
    for name in [
        "",
        "A",
        "a b",
        "-a",
        "ä",
        "a\u{0}",
        &"a".repeat(41),
        "0190b7a4-7c1e-7f3a-9d52-3f6a1c2b4d5e",
    ] {
        let refused = api.post("/v1/projects", json!({"name": name})).await;
        assert_eq!(refused.refused(422, "name_invalid")["field"], "name", "{name}");
    }
    for name in [json!(1), json!(null), json!(["a"])] {
        let refused = api.post("/v1/projects", json!({"name": name})).await;
        assert_eq!(refused.refused(422, "field_invalid")["field"], "name");
    }
    let missing = api.post("/v1/projects", json!({})).await;
    assert_eq!(missing.refused(422, "field_invalid")["field"], "name");
    let unknown = api.post("/v1/projects", json!({"name": "a", "nmae": "b"})).await;
    assert_eq!(unknown.refused(422, "field_invalid")["field"], "nmae");
    assert_eq!(api.get("/v1/projects").await.expect(200)["items"], json!([]));
}

#[tokio::test]
async fn lists_are_paged_by_cursor() {
    let api = Api::new().await;
    for n in 0..5 {
        api.post("/v1/projects", json!({"name": format!("p{n}")}))
            .await
            .expect(201);
    }
    let mut seen = Vec::new();
    let mut after = String::new();
    loop {
        let page = api.get(&format!("/v1/projects?limit=2{after}")).await.expect(200);
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= 2);
        seen.extend(items.iter().map(|item| item["name"].as_str().unwrap().to_owned()));
        match &page["next"] {
            Value::String(next) => after = format!("&after={next}"),
            _ => break,
        }
    }
    assert_eq!(seen, ["p0", "p1", "p2", "p3", "p4"]);
    let wrong = api.get("/v1/projects?after=%00").await;
    assert_eq!(wrong.refused(422, "cursor_invalid")["field"], "after");
    let huge = api.get("/v1/projects?limit=99999999999999999999").await;
    assert_eq!(huge.refused(400, "parameter_invalid")["field"], "limit");
    let unknown = api.get("/v1/projects?limt=1").await;
    assert_eq!(unknown.refused(400, "parameter_invalid")["field"], "limt");
}

#[tokio::test]
async fn a_target_is_made_only_when_asked_for() {
    let api = Api::new().await;
    let target = |service: &str, create: bool| json!({"project": "shop", "environment": "production", "service": service, "create": create});
    let missing = api.post("/v1/targets", target("web", false)).await;
    assert_eq!(missing.refused(404, "project_not_found")["field"], "project");
    let made = api.post("/v1/targets", target("web", true)).await.expect(200);
    assert_eq!(made["created"], json!(["project", "environment", "service"]));
    let again = api.post("/v1/targets", target("web", true)).await.expect(200);
    assert_eq!(again["created"], json!([]));
    assert_eq!(again["instance_id"], made["instance_id"]);
    api.post("/v1/targets", target("api", false))
        .await
        .refused(404, "service_not_found");
    let staging = json!({"project": "shop", "environment": "staging", "service": "web"});
    api.post("/v1/targets", staging.clone())
        .await
        .refused(404, "environment_not_found");
    // A service that exists comes into an environment that exists with its first deployment, and not before.
    api.post("/v1/projects/shop/environments", json!({"name": "staging"}))
        .await
        .expect(201);
    let found = api.post("/v1/targets", staging).await.expect(200);
    assert_eq!(found["instance_id"], Value::Null);
    let there = "/v1/projects/shop/environments/staging/services/web";
    for (body, code) in [
        (
            json!({"source": {"kind": "image", "reference": "no such"}}),
            "image_invalid",
        ),
        (
            json!({"source": {"kind": "image", "reference": "nginx"}, "settings": {"health_path": "x"}}),
            "setting_invalid",
        ),
        (
            json!({"source": {"kind": "tree", "digest": format!("sha256:{}", "0".repeat(64))}}),
            "tree_not_found",
        ),
    ] {
        let refused = api.post(&format!("{there}/deployments"), body).await;
        assert_eq!(refused.json["code"], code);
        api.get(there).await.refused(404, "instance_not_found");
    }
    let image = json!({"source": {"kind": "image", "reference": "nginx"}});
    let second = api.post(&format!("{there}/deployments"), image).await.expect(202);
    assert_ne!(second["instance_id"], made["instance_id"]);
    let web = api.get(WEB).await.expect(200);
    assert_eq!(web["url"], "http://web-production.localhost:8080");
    assert_eq!(web["private_domain"], "web.ferrovia.internal");
    assert_eq!(web["observed"]["state"], "stopped");
    let wrong = api.post("/v1/targets", target("Wrong Name", true)).await;
    assert_eq!(wrong.refused(422, "name_invalid")["field"], "service");
}

#[tokio::test]
async fn a_host_name_never_moves() {
    let api = Api::new().await;
    api.target().await;
    api.delete("/v1/projects/shop/services/web").await.expect(204);
    api.target().await;
    let url = api.get(WEB).await.expect(200)["url"].as_str().unwrap().to_owned();
    assert!(url.starts_with("http://web-production-"), "{url}");
}

#[tokio::test]
async fn deleting_makes_everything_beneath_due() {
    let api = Api::new().await;
    let target = api.target().await;
    let key = target["instance_id"].as_str().unwrap().to_owned();
    for path in [
        "/v1/projects/shop/services/web",
        "/v1/projects/shop/environments/production",
        "/v1/projects/shop",
    ] {
        api.delete(path).await.expect(204);
    }
    let due = due(&api).await;
    assert_eq!(due, [("instance".to_owned(), key)]);
    let mut conn = api.test.db.conn().await.unwrap();
    let team = ferrovia_store::team::find_first(&mut conn)
        .await
        .unwrap()
        .unwrap();
    let audit = ferrovia_store::audit::list(&mut conn, team.id, None, 10)
        .await
        .unwrap();
    let actions: Vec<&str> = audit.iter().map(|entry| entry.action.as_str()).collect();
    assert_eq!(
        actions,
        [
            "project.delete",
            "environment.delete",
            "service.delete",
            "target.create"
        ]
    );
    assert!(
        audit
            .iter()
            .all(|entry| entry.actor == "token `owner`" && entry.request_id.len() == 32)
    );
}

/// What is in the work queue, by claiming it.
pub async fn due(api: &Api) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for class in ["control", "build"] {
        let lease = std::time::Duration::from_secs(60);
        let leases = ferrovia_store::queue::claim(&api.test.db, "test", class, 100, 100, lease)
            .await
            .unwrap();
        found.extend(leases.into_iter().map(|lease| (lease.kind, lease.key)));
    }
    found.sort();
    found
}

#[tokio::test]
async fn settings_are_changed_on_a_version() {
    let api = Api::new().await;
    api.target().await;
    let path = format!("{WEB}/settings");
    let read = api.get(&path).await;
    let tag = read.header("etag").to_owned();
    assert_eq!(read.expect(200)["port"], "auto");
    let change =
        json!({"port": 3000, "health_path": "/healthz", "resources": {"memory_bytes": 1_073_741_824_u64}});
    let changed = api
        .call(Method::PATCH, &path)
        .header("if-match", &tag)
        .json(&change)
        .send()
        .await;
    let newer = changed.header("etag").to_owned();
    let changed = changed.expect(200);
    assert_eq!(changed["port"], 3000);
    assert_eq!(changed["resources"]["memory_bytes"], 1_073_741_824_u64);
    assert_eq!(changed["resources"]["pids"], 1024);
    let stale = api
        .call(Method::PATCH, &path)
        .header("if-match", &tag)
        .json(&change)
        .send()
        .await;
    stale.refused(412, "changed_meanwhile");
    let reset = api
        .call(Method::PATCH, &path)
        .header("if-match", &newer)
        .json(&json!({"port": null}))
        .send()
        .await;
    assert_eq!(reset.expect(200)["port"], "auto");
    for (change, field) in [
        (json!({"port": 0}), "port"),
        (json!({"port": 70000}), "port"),
        (json!({"port": "some"}), "port"),
        (json!({"health_path": "x"}), "health_path"),
        (json!({"start_command": "a\u{0}b"}), "start_command"),
        (json!({"resources": {"pids": 0}}), "resources.pids"),
        (
            json!({"resources": {"memory_bytes": -1}}),
            "resources.memory_bytes",
        ),
        (
            json!({"build": {"root_directory": "../x"}}),
            "build.root_directory",
        ),
        (json!({"build": {"builder": "nix"}}), "build.builder"),
        (json!({"restart": {"policy": "sometimes"}}), "restart"),
        (json!({"start_deadline_ms": 1e300}), "start_deadline_ms"),
    ] {
        let refused = api.patch(&path, change.clone()).await;
        assert_eq!(refused.status, 422, "{change} {}", refused.text);
        let field_told = refused.json["field"].as_str().unwrap();
        assert!(field_told.starts_with(field), "{change}: {field_told}");
    }
    assert_eq!(api.get(&path).await.expect(200)["health_path"], "/healthz");
}
