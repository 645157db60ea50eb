//! Variables: byte for byte, sealed, resolved before anything is built.

use ferrovia_core::id::DeploymentId;
use ferrovia_store::deployment;
use http::Method;
use serde_json::{Value, json};

use crate::api::{Api, WEB, uuid_of};

fn path() -> String {
    format!("{WEB}/variables")
}

/// The variables that a deployment was made with.
async fn snapshot(api: &Api, made: &Value) -> Vec<(String, String)> {
    let mut conn = api.test.db.conn().await.unwrap();
    let id = DeploymentId::from_uuid(uuid_of(made));
    let row = deployment::get(&mut conn, id).await.unwrap();
    let key = api.cases.keyring.get(&mut conn, row.data_key_id).await.unwrap();
    let pairs = key
        .open_pairs(&row.sealed_variables, &deployment::place(id))
        .unwrap();
    pairs
        .into_iter()
        .map(|(key, value)| (key, value.expose().to_owned()))
        .collect()
}

#[tokio::test]
async fn values_arrive_byte_for_byte() {
    let api = Api::new().await;
    api.target().await;
    let values = [
        "",
        " ",
        "$HOME ${X} $$",
        "\"'`\\",
        "a\nb\r\n\tc",
        "ü🚂\u{202e}",
        &"x".repeat(100_000),
        "${{",
        "{{A}}",
    ];
    let set: Vec<Value> = values
        .iter()
        .enumerate()
        .map(|(n, value)| json!({"key": format!("K{n}"), "value": value}))
        .collect();
    let answered = api.patch(&path(), json!({"set": set})).await.expect(200);
    for (n, value) in values.iter().enumerate() {
        assert_eq!(answered["items"][n]["value"], *value);
    }
    let made = api.deploy().await;
    let wanted: Vec<(String, String)> = values
        .iter()
        .enumerate()
        .map(|(n, value)| (format!("K{n}"), (*value).to_owned()))
        .collect();
    assert_eq!(snapshot(&api, &made).await, wanted);
}

#[tokio::test]
async fn a_sealed_value_is_never_seen_again() {
    let api = Api::new().await;
    api.target().await;
    let set = json!({"set": [{"key": "A", "value": "hunter2", "sealed": true}]});
    let answered = api.patch(&path(), set).await;
    assert!(!answered.text.contains("hunter2"));
    assert_eq!(answered.expect(200)["items"][0]["value"], Value::Null);
    // Set again without the word it stays sealed.
    let set = json!({"set": [{"key": "A", "value": "hunter3"}]});
    assert!(!api.patch(&path(), set).await.text.contains("hunter3"));
    let read = api.get(&path()).await;
    assert!(!read.text.contains("hunter3"));
    assert_eq!(read.expect(200)["items"][0]["sealed"], true);
    let made = api.deploy().await;
    assert_eq!(
        snapshot(&api, &made).await,
        [("A".to_owned(), "hunter3".to_owned())]
    );
}

#[tokio::test]
async fn references_are_filled_in() {
    let api = Api::new().await;
    api.target().await;
    let db = json!({"project": "shop", "environment": "production", "service": "db", "create": true});
    api.post("/v1/targets", db).await.expect(200);
    let of_db = path().replace("/web/", "/db/");
    api.patch(
        &of_db,
        json!({"set": [{"key": "USER", "value": "u-${{shared.REGION}}"}]}),
    )
    .await
    .expect(200);
    let shared = "/v1/projects/shop/environments/production/variables";
    api.patch(shared, json!({"set": [{"key": "REGION", "value": "eu"}]}))
        .await
        .expect(200);
    let url = "pg://${{Db.USER}}@${{Db.RAILWAY_PRIVATE_DOMAIN}}/${{FERROVIA_SERVICE_NAME}}?at=${{RAILWAY_PUBLIC_DOMAIN}}";
    api.patch(&path(), json!({"set": [{"key": "URL", "value": url}]}))
        .await
        .expect(200);
    // Kept as it was given.
    assert_eq!(api.get(&path()).await.expect(200)["items"][0]["value"], url);
    let made = api.deploy().await;
    let filled = "pg://u-eu@db.ferrovia.internal/web?at=web-production.localhost";
    assert_eq!(
        snapshot(&api, &made).await,
        [("URL".to_owned(), filled.to_owned())]
    );

    let broken = json!({"set": [{"key": "URL", "value": "${{Db.PASSWORD}}"}]});
    api.patch(&path(), broken).await.expect(200);
    let source = json!({"source": {"kind": "image", "reference": "nginx"}});
    let refused = api
        .post(&format!("{WEB}/deployments"), source)
        .await
        .refused(422, "variable_unresolved");
    assert!(
        refused["detail"]
            .as_str()
            .unwrap()
            .contains("`web.URL` refers to `${{Db.PASSWORD}}`")
    );
    let again = api.act(&format!("{WEB}/redeploy")).await;
    again.refused(422, "variable_unresolved");
    assert_eq!(
        api.get(&format!("{WEB}/deployments")).await.expect(200)["items"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn a_change_is_all_or_nothing() {
    let api = Api::new().await;
    api.target().await;
    let change = json!({"set": [{"key": "A", "value": "1"}, {"key": "B-", "value": "2"}]});
    let refused = api.patch(&path(), change).await.refused(422, "variable_invalid");
    assert_eq!(refused["field"], "set[1].key");
    let nul = api
        .patch(&path(), json!({"set": [{"key": "A", "value": "a\u{0}b"}]}))
        .await;
    assert_eq!(nul.refused(422, "variable_invalid")["field"], "set[0].value");
    let own = api
        .patch(&path(), json!({"set": [{"key": "FERROVIA_X", "value": ""}]}))
        .await;
    own.refused(422, "variable_reserved");
    let large: Vec<Value> = (0..12)
        .map(|n| json!({"key": format!("K{n}"), "value": "x".repeat(100_000)}))
        .collect();
    api.patch(&path(), json!({"set": large}))
        .await
        .refused(413, "too_many_variables");
    assert_eq!(api.get(&path()).await.expect(200)["items"], json!([]));
    let both = json!({"set": [{"key": "A", "value": "1"}], "unset": ["NOT_THERE"]});
    assert_eq!(
        api.patch(&path(), both).await.expect(200)["items"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(
        api.patch(&path(), json!({"unset": ["A"]})).await.expect(200)["items"],
        json!([])
    );
}

#[tokio::test]
async fn a_change_on_an_old_version_is_refused() {
    let api = Api::new().await;
    api.target().await;
    let tag = api.get(&path()).await.header("etag").to_owned();
    let set = |value: &str| json!({"set": [{"key": "A", "value": value}]});
    let first = api
        .call(Method::PATCH, &path())
        .header("if-match", &tag)
        .json(&set("1"))
        .send()
        .await;
    let newer = first.header("etag").to_owned();
    first.expect(200);
    let stale = api
        .call(Method::PATCH, &path())
        .header("if-match", &tag)
        .json(&set("2"))
        .send()
        .await;
    stale.refused(412, "changed_meanwhile");
    api.clock.advance(1);
    let second = api
        .call(Method::PATCH, &path())
        .header("if-match", &newer)
        .json(&set("3"))
        .send()
        .await;
    assert_eq!(second.expect(200)["items"][0]["value"], "3");
}

#[tokio::test]
async fn nothing_stands_in_clear_in_the_database() {
    let api = Api::new().await;
    api.target().await;
    let secret = "a-needle-in-a-haystack-0815";
    api.patch(&path(), json!({"set": [{"key": "A", "value": secret}]}))
        .await
        .expect(200);
    api.deploy().await;
    let created = api.post("/v1/tokens", json!({"name": "x"})).await.expect(201);
    let token = created["secret"].as_str().unwrap().to_owned();
    let data = api.test.server_data().await;
    let mut looked_at = 0;
    let mut directories = vec![data];
    while let Some(directory) = directories.pop() {
        // Other tests' databases come and go.
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                directories.push(entry.path());
            } else if let Ok(bytes) = std::fs::read(entry.path()) {
                looked_at += 1;
                for needle in [secret, token.as_str()] {
                    let found = bytes
                        .windows(needle.len())
                        .any(|window| window == needle.as_bytes());
                    assert!(!found, "in clear in {}", entry.path().display());
                }
            }
        }
    }
    assert!(looked_at > 100);
}
