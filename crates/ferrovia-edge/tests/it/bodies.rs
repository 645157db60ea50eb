//! Bodies: streamed, bounded, and never half where they look whole.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::app::{self, App};
use crate::client::{raw, read_head, status_of};
use crate::control::to;
use crate::edge::Edge;
use crate::eventually;

/// An edge before a server that answers each connection's first request with these bytes and closes.
async fn answering(bytes: &'static [u8]) -> (Edge, App) {
    let edge = Edge::start().await;
    let app = App::script(move |_, mut stream| async move {
        app::read_head(&mut stream).await;
        let _ = stream.write_all(bytes).await;
    })
    .await;
    edge.control
        .publish(vec![to("a.localhost", &[(1, app.address)])])
        .await;
    (edge, app)
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a.localhost\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn a_cut_answer_never_looks_complete() {
    let (edge, _app) = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf").await;
    let answer = raw(edge.address, GET).await;
    assert!(
        answer.contains("content-length: 100") && answer.ends_with("half"),
        "{answer}"
    );

    let (edge, _app) = answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n").await;
    let answer = raw(edge.address, GET).await;
    assert!(
        answer.contains("4\r\nhalf\r\n") && !answer.contains("\r\n0\r\n"),
        "{answer}"
    );
    assert_eq!(edge.status().await.counts.cut, 1);

    // Without a length the end of the connection is the end of the answer: it must be a reset.
    let mut stream = TcpStream::connect(edge.address).await.unwrap();
    stream
        .write_all(b"GET / HTTP/1.0\r\nHost: a.localhost\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    let error = stream.read_to_end(&mut answer).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn answers_without_a_length_end_with_their_connection() {
    let (edge, _app) = answering(b"HTTP/1.0 200 OK\r\n\r\nall of it").await;
    let answer = raw(edge.address, GET).await;
    assert!(answer.ends_with("9\r\nall of it\r\n0\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn trailers_pass_for_who_takes_them() {
    let (edge, _app) = answering(
        b"HTTP/1.1 200 OK\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n",
    )
    .await;
    let answer = raw(
        edge.address,
        b"GET / HTTP/1.1\r\nHost: a.localhost\r\nTE: trailers\r\nConnection: close, te\r\n\r\n",
    )
    .await;
    assert!(answer.ends_with("0\r\nx-sum: 7\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn heads_without_bodies_keep_their_lengths() {
    let (edge, _app) = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n").await;
    let answer = raw(
        edge.address,
        b"HEAD / HTTP/1.1\r\nHost: a.localhost\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert!(
        answer.contains("content-length: 100\r\n") && answer.ends_with("\r\n\r\n"),
        "{answer}"
    );
    let (edge, _app) = answering(
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 304 Not Modified\r\nETag: \"1\"\r\n\r\n",
    )
    .await;
    let answer = raw(edge.address, GET).await;
    assert_eq!(status_of(&answer), 304);
    assert!(answer.contains("etag: \"1\""), "{answer}");
}

#[tokio::test]
async fn an_upload_is_passed_on_as_it_comes() {
    let edge = Edge::start().await;
    let (said, mut heard) = mpsc::unbounded_channel();
    let app = App::script(move |_, mut stream| {
        let said = said.clone();
        async move {
            let mut buffer = [0; 4096];
            while let Ok(n) = stream.read(&mut buffer).await
                && n > 0
            {
                said.send(String::from_utf8_lossy(&buffer[..n]).into_owned())
                    .unwrap();
                if buffer[..n].ends_with(b"0\r\n\r\n") {
                    stream.write_all(app::OK).await.unwrap();
                }
            }
        }
    })
    .await;
    edge.control
        .publish(vec![to("a.localhost", &[(1, app.address)])])
        .await;
    let mut stream = TcpStream::connect(edge.address).await.unwrap();
    stream
        .write_all(b"POST / HTTP/1.1\r\nHost: a.localhost\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(status_of(&read_head(&mut stream).await), 100);
    let mut so_far = String::new();
    for piece in ["first", "second"] {
        stream
            .write_all(format!("{:x}\r\n{piece}\r\n", piece.len()).as_bytes())
            .await
            .unwrap();
        while !so_far.contains(piece) {
            so_far += &timeout(Duration::from_secs(10), heard.recv())
                .await
                .unwrap()
                .unwrap();
        }
    }
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    assert_eq!(status_of(&read_head(&mut stream).await), 200);
    assert!(so_far.to_lowercase().contains("transfer-encoding: chunked") && !so_far.contains("100-continue"));
}

#[tokio::test]
async fn an_upload_that_breaks_off_never_looks_complete() {
    let edge = Edge::start().await;
    let (said, mut heard) = mpsc::unbounded_channel();
    let app = App::script(move |_, mut stream| {
        let said = said.clone();
        async move {
            let mut all = Vec::new();
            let _ = stream.read_to_end(&mut all).await;
            said.send(String::from_utf8_lossy(&all).into_owned()).unwrap();
        }
    })
    .await;
    edge.control
        .publish(vec![to("a.localhost", &[(1, app.address)])])
        .await;
    let mut stream = TcpStream::connect(edge.address).await.unwrap();
    stream
        .write_all(b"POST / HTTP/1.1\r\nHost: a.localhost\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
        .await
        .unwrap();
    eventually("the request is on its way", async || {
        app.connections.load(Ordering::SeqCst) == 1
    })
    .await;
    drop(stream);
    let got = heard.recv().await.unwrap();
    assert!(!got.contains("\r\n0\r\n"), "{got}");
}

#[tokio::test]
async fn an_early_answer_reaches_a_client_that_still_uploads() {
    let edge = Edge::start().await;
    let app = App::script(|_, mut stream| async move {
        app::read_head(&mut stream).await;
        let _ = stream
            .write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")
            .await;
    })
    .await;
    edge.control
        .publish(vec![to("a.localhost", &[(1, app.address)])])
        .await;
    for _ in 0..20 {
        let stream = TcpStream::connect(edge.address).await.unwrap();
        let (mut reading, mut writing) = stream.into_split();
        let upload = tokio::spawn(async move {
            let head = b"POST / HTTP/1.1\r\nHost: a.localhost\r\nContent-Length: 3000000\r\nConnection: close\r\n\r\n";
            if writing.write_all(head).await.is_ok() {
                // It fails once the edge has had enough; the answer counts.
                let _ = writing.write_all(&vec![b'x'; 3_000_000]).await;
            }
            // Dropped it would close this half, which an edge takes for a client that went away.
            writing
        });
        let mut answer = Vec::new();
        let _ = timeout(Duration::from_secs(10), reading.read_to_end(&mut answer))
            .await
            .unwrap();
        let answer = String::from_utf8_lossy(&answer);
        assert!(
            answer.starts_with("HTTP/1.1 413") && answer.ends_with("big"),
            "{answer:?}"
        );
        upload.abort();
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_the_application() {
    let edge = Edge::start().await;
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let app = App::script(move |_, mut stream| {
        let count = Arc::clone(&count);
        async move {
            app::read_head(&mut stream).await;
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
                .await;
            let piece = vec![0; 64 << 10];
            while stream.write_all(&piece).await.is_ok() {
                count.fetch_add(piece.len(), Ordering::SeqCst);
            }
            count.store(usize::MAX, Ordering::SeqCst);
        }
    })
    .await;
    edge.control
        .publish(vec![to("a.localhost", &[(1, app.address)])])
        .await;
    let mut stream = TcpStream::connect(edge.address).await.unwrap();
    stream.write_all(GET).await.unwrap();
    let mut last = 0;
    let mut still = 0;
    eventually("it stands still", async || {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let now = sent.load(Ordering::SeqCst);
        still = if now == last && now > 0 { still + 1 } else { 0 };
        last = now;
        still > 10
    })
    .await;
    // The kernel's buffers of two connections, and little of our own.
    assert!(last < 32 << 20, "{last} bytes are on their way");
    drop(stream);
    eventually("the application is told", async || {
        sent.load(Ordering::SeqCst) == usize::MAX
    })
    .await;
}
