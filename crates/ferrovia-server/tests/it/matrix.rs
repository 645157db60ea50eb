//! Every operation of the document, with every kind of caller and every kind of nonsense. An operation that is not in
//! the table below fails: whoever adds one says who may call it.

use http::Method;
use serde_json::{Value, json};

use crate::api::{Answer, Api};

/// What a token for another project gets.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Stranger {
    /// `scope_denied`.
    Denied,
    /// An answer about itself or its own project.
    Own,
    /// It needs no token at all.
    Open,
}

fn stranger(operation: &str) -> Stranger {
    match operation {
        "healthz" | "readyz" | "page" | "sign_in" => Stranger::Open,
        "whoami" | "openapi" | "list_projects" => Stranger::Own,
        "doctor"
        | "metrics"
        | "list_tokens"
        | "create_token"
        | "revoke_token"
        | "create_project"
        | "get_project"
        | "delete_project"
        | "list_environments"
        | "create_environment"
        | "get_environment"
        | "delete_environment"
        | "list_services"
        | "create_service"
        | "get_service"
        | "delete_service"
        | "ensure_target"
        | "list_instances"
        | "get_instance"
        | "get_settings"
        | "change_settings"
        | "restart"
        | "scale"
        | "hold"
        | "release"
        | "down"
        | "list_variables"
        | "change_variables"
        | "list_shared_variables"
        | "change_shared_variables"
        | "offer_tree"
        | "send_contents"
        | "list_deployments"
        | "deploy"
        | "redeploy"
        | "cancel"
        | "get_deployment"
        | "cancel_deployment"
        | "follow_deployment"
        | "get_build"
        | "read_log"
        | "read_build_log"
        | "follow_log"
        | "follow_build_log" => Stranger::Denied,
        other => panic!("`{other}` is not covered: say what a token for another project gets"),
    }
}

/// A body that is good, for operations that take one.
fn good_body(operation: &str) -> Option<Value> {
    Some(match operation {
        "sign_in" => json!({"token": "fvt_x"}),
        "create_project" | "create_environment" | "create_service" => json!({"name": "new"}),
        "ensure_target" => json!({"project": "shop", "environment": "production", "service": "web"}),
        "change_settings" | "change_variables" | "change_shared_variables" => json!({}),
        "scale" => json!({"replicas": 1}),
        "create_token" => json!({"name": "new"}),
        "offer_tree" => json!({"entries": []}),
        "deploy" => json!({"source": {"kind": "image", "reference": "nginx"}}),
        _ => return None,
    })
}

struct Operation {
    name: String,
    method: Method,
    path: String,
    parameters: Vec<(String, String)>,
    body: Option<String>,
    statuses: Vec<String>,
}

fn operations() -> Vec<Operation> {
    let document: Value = serde_json::from_str(ferrovia_server::http::openapi::text()).unwrap();
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            let content = operation["requestBody"]["content"].as_object();
            found.push(Operation {
                name: text(&operation["operationId"]),
                method: method.to_uppercase().parse().unwrap(),
                path: path.clone(),
                parameters: parameters
                    .iter()
                    .map(|p| (text(&p["in"]), text(&p["name"])))
                    .collect(),
                body: content.and_then(|content| content.keys().next().cloned()),
                statuses: operation["responses"]
                    .as_object()
                    .unwrap()
                    .keys()
                    .cloned()
                    .collect(),
            });
        }
    }
    found
}

/// Real objects, for the parts of paths.
struct World {
    api: Api,
    deployment: String,
    build: String,
    stranger: String,
}

impl World {
    async fn new() -> Self {
        let api = Api::new().await;
        api.target().await;
        let deployment = api.deploy().await;
        let other = api
            .post("/v1/projects", json!({"name": "other"}))
            .await
            .expect(201);
        let stranger = api.deploy_token(&other).await;
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        Self {
            deployment: text(&deployment["id"]),
            build: text(&deployment["build_id"]),
            stranger,
            api,
        }
    }

    fn path(&self, operation: &Operation, replaced: Option<(&str, &str)>) -> String {
        let mut path = operation.path.clone();
        let token = "0190b7a4-7c1e-7f3a-9d52-3f6a1c2b4d5e";
        let parts = [
            ("project", "shop"),
            ("environment", "production"),
            ("service", "web"),
            ("deployment", self.deployment.as_str()),
            ("build", self.build.as_str()),
            ("token", token),
        ];
        for (name, value) in parts {
            let value = match replaced {
                Some((wrong, with)) if wrong == name => with,
                _ => value,
            };
            path = path.replace(&format!("{{{name}}}"), value);
        }
        assert!(!path.contains('{'), "{path}: give a value for the new parameter");
        path
    }

    async fn send(
        &self,
        operation: &Operation,
        token: Option<&str>,
        path: &str,
        body: Option<(&str, Vec<u8>)>,
    ) -> Answer {
        let mut call = self.api.bare(operation.method.clone(), path);
        if let Some(token) = token {
            call = call.bearer(token);
        }
        if let Some((kind, body)) = body {
            call = call.text(kind, body);
        }
        let answer = call.send().await;
        let status = answer.status.as_u16().to_string();
        assert!(
            operation.statuses.contains(&status),
            "{} {path}: {status} is not in the document\n{}",
            operation.method,
            answer.text
        );
        assert!(
            !answer.status.is_server_error() || operation.name == "readyz",
            "{path}: {}",
            answer.text
        );
        answer
    }

    fn good<'a>(&self, operation: &'a Operation) -> Option<(&'a str, Vec<u8>)> {
        let kind = operation.body.as_deref()?;
        let body = good_body(&operation.name).map_or(Vec::new(), |body| body.to_string().into_bytes());
        assert!(
            kind != "application/json" || !body.is_empty(),
            "`{}`: give a good body",
            operation.name
        );
        Some((kind, body))
    }
}

#[tokio::test]
async fn without_a_token_and_with_a_wrong_one() {
    let world = World::new().await;
    for operation in operations() {
        if stranger(&operation.name) == Stranger::Open {
            continue;
        }
        let path = world.path(&operation, None);
        for token in [None, Some("fvt_0000"), Some("x y")] {
            // Also with a body that is wrong: who acts is asked first.
            let answer = world
                .send(
                    &operation,
                    token,
                    &path,
                    Some(("application/json", b"{".to_vec())),
                )
                .await;
            answer.refused(401, "unauthenticated");
        }
    }
}

#[tokio::test]
async fn with_a_token_for_another_project() {
    let world = World::new().await;
    for operation in operations() {
        let path = world.path(&operation, None);
        let expected = stranger(&operation.name);
        if expected == Stranger::Open {
            continue;
        }
        let answer = world
            .send(&operation, Some(&world.stranger), &path, world.good(&operation))
            .await;
        match expected {
            Stranger::Denied => drop(answer.refused(403, "scope_denied")),
            _ => {
                assert!(answer.status.is_success(), "{path}: {}", answer.text);
                // The document has examples.
                let told = operation.name != "openapi" && answer.text.contains("shop");
                assert!(!told, "{path}: {}", answer.text);
            }
        }
    }
}

#[tokio::test]
async fn with_malformed_bodies() {
    let world = World::new().await;
    for operation in operations() {
        if operation.body.as_deref() != Some("application/json") {
            continue;
        }
        let path = world.path(&operation, None);
        let owner = Some(world.api.owner.as_str());
        let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
        for body in ["", "{", "nul", "{}{}", &deep, "\"\\ud800\""] {
            let answer = world
                .send(&operation, owner, &path, Some(("application/json", body.into())))
                .await;
            let problem = answer.refused_any(400..=422);
            assert!(problem["field"].is_string(), "{path} {body}: {problem}");
        }
        for body in ["[]", "1", "null", "\"x\"", r#"{"surprise":1}"#] {
            let answer = world
                .send(&operation, owner, &path, Some(("application/json", body.into())))
                .await;
            let problem = answer.refused(422, "field_invalid");
            assert!(problem["field"].is_string(), "{path} {body}: {problem}");
        }
        let answer = world
            .send(&operation, owner, &path, Some(("text/plain", b"{}".to_vec())))
            .await;
        answer.refused(415, "media_type_unsupported");
    }
}

#[tokio::test]
async fn with_malformed_parts_of_the_path() {
    let world = World::new().await;
    for operation in operations() {
        let names = operation.parameters.iter().filter(|(place, _)| place == "path");
        for (_, name) in names {
            for wrong in [
                "%00",
                "%ff",
                "nope",
                "%F0%9F%9A%82",
                "99999999999999999999999999",
                "%2e%2e",
            ] {
                let path = world.path(&operation, Some((name, wrong)));
                let owner = Some(world.api.owner.as_str());
                let answer = world.send(&operation, owner, &path, world.good(&operation)).await;
                answer.refused_any(400..=422);
            }
        }
    }
}

#[tokio::test]
async fn with_malformed_parameters() {
    let world = World::new().await;
    for operation in operations() {
        let queries: Vec<&String> = operation
            .parameters
            .iter()
            .filter(|(place, _)| place == "query")
            .map(|(_, name)| name)
            .collect();
        if queries.is_empty() {
            continue;
        }
        let owner = Some(world.api.owner.as_str());
        let path = world.path(&operation, None);
        for query in [
            "limit=x",
            "limit=-1",
            "limit=99999999999999999999",
            "limit=1&limit=2",
            "surprise=1",
        ] {
            let answer = world
                .send(&operation, owner, &format!("{path}?{query}"), None)
                .await;
            let problem = answer.refused(400, "parameter_invalid");
            assert!(problem["field"].is_string(), "{path}?{query}: {problem}");
        }
        for query in ["after=%00", "after=%ff", "after=-1", "after=%F0%9F%9A%82%20"] {
            let answer = world
                .send(&operation, owner, &format!("{path}?{query}"), None)
                .await;
            answer.refused_any(400..=422);
        }
    }
}

impl Answer {
    /// The answer, which must be a problem document with a status in the range.
    fn refused_any(self, statuses: std::ops::RangeInclusive<u16>) -> Value {
        assert!(
            statuses.contains(&self.status.as_u16()),
            "{} {}",
            self.status,
            self.text
        );
        let code = self.json["code"].as_str().unwrap_or_default().to_owned();
        let status = self.status.as_u16();
        self.refused(status, &code)
    }
}
