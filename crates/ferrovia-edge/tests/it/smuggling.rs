//! Requests that two parsers could read differently: refused, or passed on so that there is one way to read them.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::app::{self, App, OK};
use crate::client::{raw, status_of};
use crate::control::to;
use crate::edge::Edge;

/// An edge before a server that keeps every byte it gets.
async fn recording() -> (Edge, App, Arc<Mutex<String>>) {
    let got = Arc::new(Mutex::new(String::new()));
    let keep = Arc::clone(&got);
    let app = App::script(move |_, mut stream| {
        let keep = Arc::clone(&keep);
        async move {
            let mut buffer = [0; 4096];
            while let Ok(n) = stream.read(&mut buffer).await
                && n > 0
            {
                keep.lock()
                    .unwrap()
                    .push_str(&String::from_utf8_lossy(&buffer[..n]));
                let _ = stream.write_all(OK).await;
            }
        }
    })
    .await;
    let edge = Edge::start().await;
    edge.control.publish(vec![to("a", &[(1, app.address)])]).await;
    (edge, app, got)
}

#[tokio::test]
async fn ambiguous_requests_are_refused_and_never_reach_an_application() {
    let (edge, _app, got) = recording().await;
    let head = "POST / HTTP/1.1\r\nHost: a\r\n";
    let vectors = [
        format!("{head}Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde"),
        format!("{head}Content-Length: 4, 4\r\n\r\nabcd"),
        format!("{head}Content-Length: +4\r\n\r\nabcd"),
        format!("{head}Content-Length: -4\r\n\r\nabcd"),
        format!("{head}Content-Length: 0x4\r\n\r\nabcd"),
        format!("{head}Content-Length: 4 4\r\n\r\nabcd"),
        format!("{head}Content-Length: \r\n\r\nabcd"),
        format!("{head}Content-Length: 99999999999999999999999\r\n\r\nabcd"),
        format!("{head}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
        format!("{head}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
        format!("{head}Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n"),
        format!("{head}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        format!("{head}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
        format!("{head}Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"),
        format!("{head}X-Folded: a\r\n b\r\n\r\n"),
        format!("{head} Folded: a\r\n\r\n"),
        format!("{head}: no name\r\n\r\n"),
        format!("{head}No colon\r\n\r\n"),
        format!("{head}Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n"),
        format!("{head}Transfer-Encoding: chunked\x0b\r\n\r\n0\r\n\r\n"),
        format!("{head}Transfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n"),
        format!("{head}Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n"),
        format!("{head}Content-Length: 4\x0b\r\n\r\nabcd"),
        "POST / HTTP/1.1\r\n Host: a\r\n\r\n".to_owned(),
        "POST http://b@a/ HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        format!("{head}X-Zero: a\0b\r\n\r\n"),
        format!("{head}X-Return: a\rb\r\n\r\n"),
        format!("{head}Host: b\r\n\r\n"),
        "POST / HTTP/1.1\r\n\r\n".to_owned(),
        "POST / HTTP/1.1\r\nHost: a b\r\n\r\n".to_owned(),
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
        "POST /\r\nHost: a\r\n\r\n".to_owned(),
        "POST  / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "POST / HTTP/1.1 \r\nHost: a\r\n\r\n".to_owned(),
        "P\x01ST / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "POST / HTTP/2.0\r\nHost: a\r\n\r\n".to_owned(),
    ];
    for vector in vectors {
        // Whatever is pipelined behind it must not be answered either.
        let answer = raw(
            edge.address,
            format!("{vector}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes(),
        )
        .await;
        assert!(
            answer.is_empty() || status_of(&answer) == 400,
            "{vector:?} was answered {answer:?}"
        );
        assert!(
            answer.matches("HTTP/1.1 ").count() <= 1,
            "{vector:?} was answered {answer:?}"
        );
    }
    assert_eq!(*got.lock().unwrap(), "");
}

#[tokio::test]
async fn a_length_beside_chunks_is_dropped_and_nothing_follows() {
    for order in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\nContent-Length: 6\r\n",
    ] {
        let (edge, _app, got) = recording().await;
        let request = format!(
            "POST / HTTP/1.1\r\nHost: a\r\n{order}\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
        );
        let answer = raw(edge.address, request.as_bytes()).await;
        let got = got.lock().unwrap().to_lowercase();
        assert!(
            !got.contains("smuggled") && !got.contains("content-length: 4"),
            "{order:?}: {got}"
        );
        assert!(answer.matches("HTTP/1.1 ").count() <= 1, "{order:?}: {answer}");
        assert!(got.matches("post / http/1.1").count() <= 1, "{got}");
    }
}

#[tokio::test]
async fn broken_chunks_never_look_like_a_whole_body() {
    for chunks in [
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "\r\n5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhelloX\r\n0\r\n\r\n",
        "-1\r\n\r\n",
        "fffffffffffffffff\r\nx",
        "5\r\nhelloXX0\r\n\r\n",
    ] {
        let (edge, _app, got) = recording().await;
        let request = format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
        raw(
            edge.address,
            format!("{request}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes(),
        )
        .await;
        let got = got.lock().unwrap().clone();
        assert!(
            !got.contains("\r\n0\r\n\r\n") && !got.contains("smuggled"),
            "{chunks:?}: {got}"
        );
    }
}

/// An edge before a server that answers the first request of each connection with these bytes, and keeps it open.
async fn answering(bytes: &'static [u8]) -> (Edge, App) {
    let app = App::script(move |_, mut stream| async move {
        app::read_head(&mut stream).await;
        let _ = stream.write_all(bytes).await;
        app::serve_ok(stream).await;
    })
    .await;
    // One worker: all requests meet the same pool.
    let edge = Edge::start_with(|options| options.workers = 1).await;
    edge.control.publish(vec![to("a", &[(1, app.address)])]).await;
    (edge, app)
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn answers_whose_end_is_in_doubt_are_not_passed_on() {
    for answer in [
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nx",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nokk",
        "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Folded: a\r\n b\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok",
        "HTTP/2 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 99 OK\r\nContent-Length: 2\r\n\r\nok",
    ] {
        let (edge, _app) = answering(answer.as_bytes()).await;
        let got = raw(edge.address, GET).await;
        assert_eq!(status_of(&got), 502, "{answer:?} became {got:?}");
    }
}

#[tokio::test]
async fn a_length_beside_the_chunks_of_an_answer_or_said_twice_does_no_harm() {
    for (answer, body) in [
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            "5\r\nhello\r\n0\r\n\r\n",
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello", "hello"),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
            "hello",
        ),
    ] {
        let (edge, _app) = answering(answer.as_bytes()).await;
        let got = raw(edge.address, GET).await;
        let (head, rest) = got.split_once("\r\n\r\n").unwrap();
        assert_eq!(rest, body, "{answer:?} became {got:?}");
        let lengths = head.matches("content-length").count();
        assert_eq!(lengths, usize::from(body == "hello"), "{answer:?} became {got:?}");
        assert!(!head.contains("5, 5"), "{got:?}");
    }
}

#[tokio::test]
async fn what_follows_an_answer_never_becomes_the_next_one() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        "HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nevil",
        "HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
    ] {
        let (edge, _app) = answering(answer.as_bytes()).await;
        // One after the other, and the second on the heels of the first.
        let pipelined = [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", GET].concat();
        for request in [pipelined.as_slice(), GET, GET] {
            let got = raw(edge.address, request).await;
            assert!(!got.contains("evil"), "{answer:?} became {got:?}");
        }
    }
}

#[tokio::test]
async fn a_length_said_twice_is_passed_on_once() {
    let (edge, _app, got) = recording().await;
    let request =
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi";
    let answer = raw(edge.address, request.as_bytes()).await;
    let got = got.lock().unwrap().to_lowercase();
    assert!(
        status_of(&answer) == 400 || got.matches("content-length").count() == 1,
        "{got}"
    );
}
