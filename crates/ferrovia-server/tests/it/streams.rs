//! Streams through a real listener, read by the typed client, over lost connections too.

use ferrovia_api::client::{Client, Endpoint, InstancePath, LogQuery};
use ferrovia_api::deployment::{Deployment, Outcome};
use ferrovia_api::log::LogLine;
use ferrovia_core::id::{BuildId, InstanceId};
use ferrovia_core::secret::Secret;
use ferrovia_log::{CursorChange, Limits, NewLine, Stream, Writer, place};
use serde_json::Value;

use crate::api::{Api, uuid_of};

fn client(api: &Api, address: std::net::SocketAddr) -> Client {
    let url = format!("http://{address}/").parse().unwrap();
    let token = Some(Secret::new(api.owner.as_str()));
    Client::new(Endpoint::Url { url, token }).unwrap()
}

fn web() -> InstancePath {
    InstancePath {
        project: "shop".into(),
        environment: "production".into(),
        service: "web".into(),
    }
}

#[tokio::test]
async fn a_deployment_is_followed_to_its_end() {
    let api = Api::new().await;
    api.target().await;
    let made = api.deploy().await;
    let (address, _guard) = api.listen().await;
    let mut follow = client(&api, address).follow_deployment(uuid_of(&made));
    let (name, first) = follow.next::<Deployment>().await.unwrap().unwrap();
    assert_eq!((name.as_str(), first.outcome), ("progress", Outcome::Queued));
    api.succeed(&made).await;
    let mut last = first;
    while let Some((_, next)) = follow.next::<Deployment>().await.unwrap() {
        last = next;
    }
    assert_eq!(last.outcome, Outcome::Succeeded);
    assert_eq!(last.durations_ms.deploy, Some(620));
}

fn write(writer: &mut Writer, texts: &[&str]) {
    let lines: Vec<NewLine<'_>> = texts
        .iter()
        .map(|text| NewLine {
            at_ms: 1_767_225_600_000,
            stream: Stream::Stdout,
            source: "step",
            deployment: None,
            text,
            continues: false,
        })
        .collect();
    writer.append(&lines, &[] as &[CursorChange<'_>]).unwrap();
}

async fn texts(follow: &mut ferrovia_api::client::Follow, count: usize) -> Vec<String> {
    let mut texts = Vec::new();
    while texts.len() < count {
        let (_, line) = follow.next::<LogLine>().await.unwrap().unwrap();
        texts.push(line.text);
    }
    texts
}

#[tokio::test]
async fn a_log_is_followed_over_a_lost_connection() {
    let api = Api::new().await;
    let target = api.target().await;
    let instance: InstanceId = target["instance_id"].as_str().unwrap().parse().unwrap();
    let logs = api.directory.path().join("logs");
    let mut writer = Writer::open(&place::of_instance(&logs, instance), Limits::default()).unwrap();
    write(&mut writer, &["one", "two"]);
    let (address, guard) = api.listen().await;
    let client = client(&api, address);
    let page = client.log(&web(), &LogQuery::default()).await.unwrap();
    assert_eq!(
        page.items
            .iter()
            .map(|line| line.text.as_str())
            .collect::<Vec<_>>(),
        ["one", "two"]
    );
    let filtered = LogQuery {
        contains: Some("TWO".into()),
        ..LogQuery::default()
    };
    assert_eq!(client.log(&web(), &filtered).await.unwrap().items.len(), 1);

    let mut follow = client.follow_log(&web(), &LogQuery::default());
    assert_eq!(texts(&mut follow, 2).await, ["one", "two"]);
    write(&mut writer, &["three"]);
    assert_eq!(texts(&mut follow, 1).await, ["three"]);
    // The listener goes and another comes at the same place.
    drop(guard);
    write(&mut writer, &["four"]);
    let listener = loop {
        match tokio::net::TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    let ended = tokio_util::sync::CancellationToken::new();
    tokio::spawn(ferrovia_server::http::serve::serve_tcp(
        listener,
        api.router(),
        ended.clone(),
    ));
    write(&mut writer, &["five"]);
    assert_eq!(texts(&mut follow, 2).await, ["four", "five"]);
    ended.cancel();
}

#[tokio::test]
async fn a_builds_log_ends_with_the_build() {
    let api = Api::new().await;
    api.target().await;
    let made = api.deploy().await;
    let build: BuildId = made["build_id"].as_str().unwrap().parse().unwrap();
    let logs = api.directory.path().join("logs");
    let mut writer = Writer::open(&place::of_build(&logs, build), Limits::default()).unwrap();
    let (address, _guard) = api.listen().await;
    let mut follow = client(&api, address).follow_build_log(build.uuid(), &LogQuery::default());
    write(&mut writer, &["one"]);
    assert_eq!(texts(&mut follow, 1).await, ["one"]);
    write(&mut writer, &["two"]);
    let now_ms = api.clock.now_ms();
    api.tx(move |tx| {
        Box::pin(async move {
            ferrovia_store::build::end(tx, build, ferrovia_store::build::Outcome::Failed, None, now_ms).await
        })
    })
    .await;
    assert_eq!(texts(&mut follow, 1).await, ["two"]);
    assert!(follow.next::<Value>().await.unwrap().is_none());
}

#[tokio::test]
async fn a_refused_stream_says_why_at_once() {
    let api = Api::new().await;
    let (address, _guard) = api.listen().await;
    let mut follow = client(&api, address).follow_deployment(uuid::Uuid::now_v7());
    let error = follow.next::<Deployment>().await.unwrap_err();
    assert_eq!(error.code(), Some("deployment_not_found"));
}

#[tokio::test]
async fn a_server_that_stays_away_is_given_up() {
    let api = Api::new().await;
    api.target().await;
    let made = api.deploy().await;
    let (address, guard) = api.listen().await;
    let client = client(&api, address).with_patience(std::time::Duration::from_millis(300));
    let mut follow = client.follow_deployment(uuid_of(&made));
    assert!(follow.next::<Deployment>().await.unwrap().is_some());
    drop(guard);
    let error = follow.next::<Deployment>().await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
}
