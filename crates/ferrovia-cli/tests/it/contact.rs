//! A server that is slow, goes away or is restarted under a command.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::server::{Server, directory};

/// A way to the server that can be cut.
async fn way(server: &Server) -> (TcpListener, std::net::SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = server.address;
    (listener, to)
}

async fn pass(from: TcpStream, to: std::net::SocketAddr) {
    let (mut from, mut to) = (from, TcpStream::connect(to).await.unwrap());
    // Whoever ends it ends it.
    let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
}

#[tokio::test]
async fn a_server_that_is_restarted_under_a_request() {
    let server = Server::start().await;
    let (_root, directory) = directory("web", &[]);
    let (listener, to) = way(&server).await;
    let url = format!("http://{}", listener.local_addr().unwrap());
    let cut = async {
        // The first request is read and never answered, as when control is killed while it works.
        let (mut first, _) = listener.accept().await.unwrap();
        assert!(first.read(&mut [0; 4096]).await.unwrap() > 0);
        drop(first);
        loop {
            let (next, _) = listener.accept().await.unwrap();
            tokio::spawn(pass(next, to));
        }
    };
    let environment = [("FERROVIA_URL", url.as_str()), ("FERROVIA_TOKEN", &server.token)];
    let arguments = ["project", "create", "web", "--json"];
    let created = tokio::select! {
        ran = server.run_with(&directory, &arguments, &environment, "") => ran,
        () = cut => unreachable!(),
    };
    assert_eq!(created.code(0).json()["name"], "web");
}

#[tokio::test]
async fn a_request_that_took_effect_is_not_made_twice() {
    let server = Server::start().await;
    let (_root, directory) = directory("web", &[]);
    let (listener, to) = way(&server).await;
    let url = format!("http://{}", listener.local_addr().unwrap());
    let cut = async {
        // The server works on the first request, and its answer does not come back.
        let (mut first, _) = listener.accept().await.unwrap();
        let mut server = TcpStream::connect(to).await.unwrap();
        let mut request = vec![0; 4096];
        let read = first.read(&mut request).await.unwrap();
        server.write_all(&request[..read]).await.unwrap();
        assert!(server.read(&mut request).await.unwrap() > 0);
        drop(first);
        loop {
            let (next, _) = listener.accept().await.unwrap();
            tokio::spawn(pass(next, to));
        }
    };
    let environment = [("FERROVIA_URL", url.as_str()), ("FERROVIA_TOKEN", &server.token)];
    let arguments = ["project", "create", "web", "--json"];
    let created = tokio::select! {
        ran = server.run_with(&directory, &arguments, &environment, "") => ran,
        () = cut => unreachable!(),
    };
    // Without its key the second one would be refused: the name is taken.
    assert_eq!(created.code(0).json()["name"], "web");
}

#[tokio::test]
async fn a_slow_server_is_spoken_of() {
    let server = Server::start().await;
    let (_root, directory) = directory("web", &[]);
    let (listener, to) = way(&server).await;
    let url = format!("http://{}", listener.local_addr().unwrap());
    let slow = async {
        let (first, _) = listener.accept().await.unwrap();
        // Longer than a command may be silent.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        pass(first, to).await;
        std::future::pending::<()>().await;
    };
    let environment = [("FERROVIA_URL", url.as_str()), ("FERROVIA_TOKEN", &server.token)];
    let ran = tokio::select! {
        ran = server.run_with(&directory, &["whoami", "--json"], &environment, "") => ran,
        () = slow => unreachable!(),
    };
    let ran = ran.code(0);
    assert!(ran.stderr.contains("waiting for http://"), "{}", ran.stderr);
    assert_eq!(ran.json()["scope"], json!("owner"));
}

#[tokio::test]
async fn a_change_whose_answer_is_lost_is_unknown() {
    let server = Server::start().await;
    let (_root, directory) = directory("web", &[]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let cut = async {
        loop {
            let (mut next, _) = listener.accept().await.unwrap();
            assert!(next.read(&mut [0; 4096]).await.unwrap() > 0);
        }
    };
    let environment = [("FERROVIA_URL", url.as_str()), ("FERROVIA_TOKEN", &server.token)];
    // Deleting has no key: it is not sent twice.
    let arguments = ["project", "delete", "web", "--yes", "--json"];
    let ran = tokio::select! {
        ran = server.run_with(&directory, &arguments, &environment, "") => ran,
        () = cut => unreachable!(),
    };
    let ran = ran.code(3);
    assert_eq!(ran.json()["error"]["code"], "contact_lost");
    assert!(
        ran.stderr.contains("hint: whether it was done is unknown"),
        "{}",
        ran.stderr
    );
}

#[tokio::test]
async fn what_is_no_ferrovia_is_said() {
    let server = Server::start().await;
    let (_root, directory) = directory("web", &[]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let other = async {
        loop {
            let (mut next, _) = listener.accept().await.unwrap();
            assert!(next.read(&mut [0; 4096]).await.unwrap() > 0);
            let answer = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello";
            next.write_all(answer.as_bytes()).await.unwrap();
        }
    };
    let environment = [("FERROVIA_URL", url.as_str()), ("FERROVIA_TOKEN", &server.token)];
    let ran = tokio::select! {
        ran = server.run_with(&directory, &["whoami", "--json"], &environment, "") => ran,
        () = other => unreachable!(),
    };
    assert_eq!(ran.code(1).json()["error"]["code"], "server_unexpected");
}
