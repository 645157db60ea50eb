//! Bodies: streamed, bounded, and never half where they look whole.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ferrovia_edge::watch::Patience;
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

    // No chunks, no length, and a reset instead of an end.
    let edge = Edge::start().await;
    let app = App::script(|_, mut stream| async move {
        app::read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nhalf").await;
        // The answer is read before the reset destroys it.
        let _ = timeout(Duration::from_millis(200), stream.read(&mut [0; 1])).await;
        let _ = stream.set_zero_linger();
    })
    .await;
    edge.control
        .publish(vec![to("a.localhost", &[(1, app.address)])])
        .await;
    let answer = raw(edge.address, GET).await;
    assert!(
        answer.contains("4\r\nhalf\r\n") && !answer.contains("\r\n0\r\n"),
        "{answer}"
    );

    let (edge, _app) = answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n").await;
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
async fn a_body_of_unknown_length_passes_whatever_the_method() {
    let edge = Edge::start().await;
    let app = App::start("a").await;
    edge.control
        .publish(vec![to("a.localhost", &[(1, app.address)])])
        .await;
    for method in ["GET", "POST", "DELETE", "QUERY"] {
        let request = format!(
            "{method} /echo HTTP/1.1\r\nHost: a.localhost\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n\
             5\r\nhello\r\n0\r\n\r\n"
        );
        let answer = raw(edge.address, request.as_bytes()).await;
        assert!(
            status_of(&answer) == 200 && answer.ends_with("hello"),
            "{method}: {answer}"
        );
    }
}

#[tokio::test]
async fn an_upload_may_take_longer_than_an_answer() {
    let edge = Edge::start_with(|options| {
        options.patience = Patience {
            answer_ms: 700,
            client_ms: 700,
            ..options.patience
        };
    })
    .await;
    let app = App::start("a").await;
    edge.control
        .publish(vec![to("a.localhost", &[(1, app.address)])])
        .await;
    let mut stream = TcpStream::connect(edge.address).await.unwrap();
    stream
        .write_all(
            b"POST /echo HTTP/1.1\r\nHost: a.localhost\r\nContent-Length: 20\r\nConnection: close\r\n\r\n",
        )
        .await
        .unwrap();
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        stream.write_all(b"x").await.unwrap();
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(status_of(&answer), 200);
}

#[tokio::test]
async fn a_client_is_not_blamed_for_an_application_that_does_not_read() {
    const BYTES: usize = 30_000_000;
    let edge = Edge::start_with(|options| options.patience.client_ms = 300).await;
    let app = App::script(|_, mut stream| async move {
        let mut got = 0;
        let mut buffer = vec![0; 64 << 10];
        while got < BYTES {
            // Once in the middle of the upload it stands still for longer than a client may.
            if got == 0 {
                tokio::time::sleep(Duration::from_millis(1_500)).await;
            }
            match stream.read(&mut buffer).await {
                Ok(n) if n > 0 => got += n,
                _ => return,
            }
        }
        let _ = stream.write_all(app::OK).await;
    })
    .await;
    edge.control
        .publish(vec![to("a.localhost", &[(1, app.address)])])
        .await;
    let mut stream = TcpStream::connect(edge.address).await.unwrap();
    let head = format!(
        "POST / HTTP/1.1\r\nHost: a.localhost\r\nContent-Length: {BYTES}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    for _ in 0..BYTES / 100_000 {
        stream.write_all(&[b'x'; 100_000]).await.unwrap();
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(status_of(&answer), 200);
}

#[tokio::test]
async fn a_client_that_goes_away_ends_what_its_request_started() {
    let edge = Edge::start().await;
    let (said, mut heard) = mpsc::unbounded_channel();
    let app = App::script(move |n, mut stream| {
        let said = said.clone();
        async move {
            app::read_head(&mut stream).await;
            said.send(format!("{n} began")).unwrap();
            if n == 1 {
                let _ = stream
                    .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
                    .await;
            }
            let _ = stream.read(&mut [0; 1]).await;
            said.send(format!("{n} ended")).unwrap();
        }
    })
    .await;
    let version = edge
        .control
        .publish(vec![to("a.localhost", &[(1, app.address)])])
        .await;
    // Before the answer's head, and in the middle of its body.
    for n in 0..2 {
        let mut stream = TcpStream::connect(edge.address).await.unwrap();
        stream.write_all(GET).await.unwrap();
        assert_eq!(heard.recv().await.unwrap(), format!("{n} began"));
        if n == 1 {
            read_head(&mut stream).await;
        }
        drop(stream);
        let ended = timeout(Duration::from_secs(10), heard.recv()).await.unwrap();
        assert_eq!(ended.unwrap(), format!("{n} ended"));
    }
    eventually("nothing is open", async || {
        edge.control.open(1, version) == Some(0)
    })
    .await;
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
