//! Deployments made and ended, and the intent changed.

use serde_json::{Value, json};

use crate::api::{Api, WEB, uuid_of};
use crate::objects::due;

#[tokio::test]
async fn a_deployment_is_queued_with_its_build() {
    let api = Api::new().await;
    api.target().await;
    let made = api.deploy().await;
    assert_eq!(made["number"], 1);
    assert_eq!(made["outcome"], "queued");
    assert_eq!(made["state"], "stopped");
    assert_eq!(made["project"]["name"], "shop");
    assert_eq!(made["url"], "http://web-production.localhost:8080");
    assert_eq!(made["error"], Value::Null);
    let build = api
        .get(&format!("/v1/builds/{}", made["build_id"].as_str().unwrap()))
        .await
        .expect(200);
    assert_eq!(
        build["source"],
        json!({"kind": "image", "reference": "nginx:1.27"})
    );
    assert_eq!(build["queue_position"], 0);
    let keys = [("build", &made["build_id"]), ("instance", &made["instance_id"])];
    let wanted: Vec<_> = keys
        .iter()
        .map(|(kind, key)| ((*kind).to_owned(), key.as_str().unwrap().to_owned()))
        .collect();
    assert_eq!(due(&api).await, wanted);

    let second = api.deploy().await;
    assert_eq!(second["number"], 2);
    assert_eq!(second["waits_for"], "one build before it");
    let list = api.get(&format!("{WEB}/deployments?limit=1")).await.expect(200);
    assert_eq!(list["items"][0]["number"], 2);
    assert_eq!(list["next"], "2");
    let rest = api.get(&format!("{WEB}/deployments?after=2")).await.expect(200);
    assert_eq!(rest["items"][0]["number"], 1);
    assert_eq!(rest["next"], Value::Null);
    let web = api.get(WEB).await.expect(200);
    assert_eq!(web["latest"]["number"], 2);
    assert_eq!(web["running"], Value::Null);
}

#[tokio::test]
async fn what_is_wrong_is_found_before_anything_is_made() {
    let api = Api::new().await;
    let path = format!("{WEB}/deployments");
    let image = json!({"source": {"kind": "image", "reference": "nginx"}});
    api.post(&path, image.clone())
        .await
        .refused(404, "project_not_found");
    api.target().await;
    for (body, code, field) in [
        (json!({}), "field_invalid", "source"),
        (json!({"source": {}}), "field_invalid", "source"),
        (json!({"source": {"kind": "git"}}), "field_invalid", "source"),
        (
            json!({"source": {"kind": "image"}}),
            "field_invalid",
            "source.reference",
        ),
        (
            json!({"source": {"kind": "image", "reference": "UPPER"}}),
            "image_invalid",
            "source.reference",
        ),
        (
            json!({"source": {"kind": "image", "reference": "a\u{0}"}}),
            "image_invalid",
            "source.reference",
        ),
        (
            json!({"source": {"kind": "tree", "digest": "x"}}),
            "digest_invalid",
            "source.digest",
        ),
    ] {
        let refused = api.post(&path, body.clone()).await;
        let problem = refused.refused(422, code);
        assert!(
            problem["field"].as_str().unwrap().starts_with("source"),
            "{body}: {problem}"
        );
        let _ = field;
    }
    let digest = format!("sha256:{}", "0".repeat(64));
    let unknown = api
        .post(&path, json!({"source": {"kind": "tree", "digest": digest}}))
        .await;
    assert_eq!(unknown.refused(404, "tree_not_found")["field"], "source.digest");
    let mut bad_setting = image.clone();
    bad_setting["settings"] = json!({"health_path": "x"});
    let refused = api.post(&path, bad_setting).await.refused(422, "setting_invalid");
    assert_eq!(refused["field"], "settings.health_path");
    assert_eq!(api.get(&path).await.expect(200)["items"], json!([]));
    assert_eq!(
        api.get(&format!("{WEB}/settings")).await.expect(200)["health_path"],
        Value::Null
    );
    assert_eq!(due(&api).await, []);
}

#[tokio::test]
async fn settings_come_with_a_deployment() {
    let api = Api::new().await;
    api.target().await;
    let body = json!({"source": {"kind": "image", "reference": "worker"}, "settings": {"port": "none"},
        "git": {"commit_sha": "abc", "message": "nul \u{0} out"}, "upload_ms": 12});
    let made = api.post(&format!("{WEB}/deployments"), body).await.expect(202);
    assert_eq!(made["url"], Value::Null);
    assert_eq!(made["git"], json!({"commit_sha": "abc", "message": "nul  out"}));
    assert_eq!(made["durations_ms"]["upload"], 12);
    assert_eq!(api.get(WEB).await.expect(200)["settings"]["port"], "none");
    assert_eq!(api.get(WEB).await.expect(200)["url"], Value::Null);
}

#[tokio::test]
async fn a_port_variable_is_the_port() {
    let api = Api::new().await;
    api.target().await;
    let set = json!({"set": [{"key": "PORT", "value": "4000"}]});
    api.patch(&format!("{WEB}/variables"), set).await.expect(200);
    let made = api.deploy().await;
    let id = ferrovia_core::id::DeploymentId::from_uuid(uuid_of(&made));
    let row = ferrovia_store::deployment::get(&mut api.test.db.conn().await.unwrap(), id)
        .await
        .unwrap();
    assert_eq!(
        row.settings.port,
        ferrovia_core::settings::PortSetting::Number(4000)
    );
}

#[tokio::test]
async fn the_intent_is_changed_and_the_instance_due() {
    let api = Api::new().await;
    api.target().await;
    api.act(&format!("{WEB}/restart"))
        .await
        .refused(409, "nothing_deployed");
    api.act(&format!("{WEB}/redeploy"))
        .await
        .refused(409, "nothing_deployed");
    api.act(&format!("{WEB}/cancel"))
        .await
        .refused(409, "nothing_to_cancel");
    let made = api.deploy().await;
    api.succeed(&made).await;
    due(&api).await;
    let generation = |instance: &Value| instance["intent"]["generation"].as_i64().unwrap();
    let first = generation(&api.get(WEB).await.expect(200));

    let restarted = api.act(&format!("{WEB}/restart")).await.expect(202);
    assert_eq!(generation(&restarted), first + 1);
    let scaled = api
        .post(&format!("{WEB}/scale"), json!({"replicas": 3}))
        .await
        .expect(202);
    assert_eq!(scaled["intent"]["replicas"], 3);
    let many = api.post(&format!("{WEB}/scale"), json!({"replicas": 101})).await;
    assert_eq!(many.refused(422, "setting_invalid")["field"], "replicas");
    let held = api.act(&format!("{WEB}/hold")).await.expect(202);
    assert_eq!(held["intent"]["held"], true);
    assert_eq!(held["notes"][0]["code"], "instance_held");
    let again = api.act(&format!("{WEB}/hold")).await.expect(202);
    assert_eq!(generation(&again), generation(&held));
    let released = api.act(&format!("{WEB}/release")).await.expect(202);
    assert_eq!(released["intent"]["held"], false);
    let redeployed = api.act(&format!("{WEB}/redeploy")).await.expect(202);
    assert_eq!(redeployed["build_id"], made["build_id"]);
    assert_eq!(redeployed["number"], 2);
    let web = api.get(WEB).await.expect(200);
    assert_eq!(
        (&web["latest"]["number"], &web["running"]["number"]),
        (&json!(2), &json!(1))
    );
    let down = api.act(&format!("{WEB}/down")).await.expect(202);
    assert_eq!(down["intent"]["target_deployment_id"], Value::Null);
    assert_eq!(down["latest"]["cancel_requested"], true);
    // Brought back with the same build.
    let back = api.act(&format!("{WEB}/redeploy")).await.expect(202);
    assert_eq!(back["build_id"], made["build_id"]);
}

#[tokio::test]
async fn a_deployment_is_cancelled_once() {
    let api = Api::new().await;
    api.target().await;
    let made = api.deploy().await;
    let cancelled = api.act(&format!("{WEB}/cancel")).await.expect(202);
    assert_eq!(cancelled["id"], made["id"]);
    assert_eq!(cancelled["cancel_requested"], true);
    let id = uuid_of(&made);
    api.act(&format!("/v1/deployments/{id}/cancel")).await.expect(202);
    let second = api.deploy().await;
    api.succeed(&second).await;
    let ended = api
        .act(&format!("/v1/deployments/{}/cancel", uuid_of(&second)))
        .await;
    ended.refused(409, "nothing_to_cancel");
    let wrong = api.get("/v1/deployments/1").await;
    assert_eq!(wrong.refused(422, "id_invalid")["field"], "deployment");
    let unknown = api
        .get("/v1/deployments/0190b7a4-7c1e-7f3a-9d52-3f6a1c2b4d5e")
        .await;
    unknown.refused(404, "deployment_not_found");
    api.get("/v1/builds/0190b7a4-7c1e-7f3a-9d52-3f6a1c2b4d5e")
        .await
        .refused(404, "build_not_found");
}

#[tokio::test]
async fn a_build_that_is_being_cancelled_is_not_deployed_again() {
    let api = Api::new().await;
    api.target().await;
    let first = api.deploy().await;
    // One that is only waited for will do.
    let same = api.act(&format!("{WEB}/redeploy")).await.expect(202);
    assert_eq!(same["build_id"], first["build_id"]);
    for deployment in [&first, &same] {
        let path = format!("/v1/deployments/{}/cancel", uuid_of(deployment));
        api.act(&path).await.expect(202);
    }
    let nothing = api.act(&format!("{WEB}/redeploy")).await;
    nothing.refused(409, "nothing_deployed");
    let good = api.deploy().await;
    api.succeed(&good).await;
    let dying = api.deploy().await;
    assert_ne!(dying["build_id"], good["build_id"]);
    api.act(&format!("{WEB}/cancel")).await.expect(202);
    let again = api.act(&format!("{WEB}/redeploy")).await.expect(202);
    assert_eq!(again["build_id"], good["build_id"]);
}

#[tokio::test]
async fn status_lists_the_environment() {
    let api = Api::new().await;
    api.target().await;
    for service in ["api", "zoo"] {
        let target =
            json!({"project": "shop", "environment": "production", "service": service, "create": true});
        api.post("/v1/targets", target).await.expect(200);
    }
    let path = "/v1/projects/shop/environments/production/services";
    let first = api.get(&format!("{path}?limit=2")).await.expect(200);
    let names = |page: &Value| -> Vec<String> {
        let items = page["items"].as_array().unwrap();
        items
            .iter()
            .map(|item| item["service"]["name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names(&first), ["api", "web"]);
    let next = first["next"].as_str().unwrap();
    assert_eq!(
        names(&api.get(&format!("{path}?after={next}")).await.expect(200)),
        ["zoo"]
    );
}
