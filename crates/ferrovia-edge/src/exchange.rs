//! One request as its client sees it: what is refused, who answers, what every answer carries.
//!
//! Written against heads and streams of bodies, not against sockets: what reads requests ([`crate::front`]), what finds
//! a replica and sends ([`crate::attempt`]) and what keeps connections to replicas ([`crate::pool`]) can each be
//! replaced without touching what is decided here.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::header::CONNECTION;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;

use crate::access::{AccessRecord, Entry};
use crate::attempt::Attempts;
use crate::body::{Download, Upload};
use crate::head::{self, Origin};
use crate::host;
use crate::page::Page;
use crate::watch::Watch;
use crate::worker::{Worker, unix_ms};

/// Answers one request. `last`: the connection has had enough of them.
pub async fn serve(
    worker: Rc<Worker>,
    watch: Arc<Watch>,
    client: IpAddr,
    last: bool,
    mut request: Request<Incoming>,
) -> Response<Download> {
    watch.serving();
    watch.set_unread(false);
    worker.metrics.requests.add();
    let received_ms = unix_ms();
    let upgrade = head::upgrade(request.version(), request.headers());
    let client_upgrade = upgrade.as_ref().map(|_| hyper::upgrade::on(&mut request));
    let request_id =
        head::request_id(request.headers()).unwrap_or_else(|| worker.new_request_id(received_ms));
    let (parts, body) = request.into_parts();
    let upload = Upload::new(body, &watch, worker.config.patience);
    let checked = head::check(&parts.method, &parts.headers)
        .map_err(|error| Page::refused(&error))
        .and_then(|()| {
            let host = host::of_request(parts.version, &parts.uri, &parts.headers);
            host.map(std::borrow::Cow::into_owned)
                .map_err(|error| Page::refused(&error))
        });
    let mut entry = Entry::begin(worker.config.access.as_ref(), &worker.metrics, |status| {
        AccessRecord {
            at_ms: received_ms,
            duration_us: 0,
            client,
            method: parts.method.clone(),
            host: checked.as_deref().unwrap_or_default().to_owned(),
            target: parts
                .uri
                .path_and_query()
                .map_or("*", http::uri::PathAndQuery::as_str)
                .to_owned(),
            request_id: request_id.clone(),
            status,
            bytes: 0,
            cut: false,
            instance_id: None,
            replica_id: None,
        }
    });
    let (answer, accept) = match checked {
        Err(page) => {
            worker.metrics.refused.add();
            (Err(page), parts.headers)
        }
        Ok(host) => {
            let origin = Origin {
                client,
                scheme: worker.config.scheme,
                received_ms,
                trusted: worker.trusts(client),
                request_id: &request_id,
            };
            // Kept for a page of our own, whose form depends on what the client accepts.
            let accept = accepted(&parts.headers);
            let attempts = Attempts::new(
                &worker,
                &watch,
                parts,
                host,
                upgrade,
                client_upgrade,
                upload.clone(),
                &origin,
            );
            (attempts.answer(&mut entry).await, accept)
        }
    };
    let refused = matches!(&answer, Err(page) if page.status == StatusCode::BAD_REQUEST);
    let mut response = match answer {
        Ok(response) => response,
        Err(page) => {
            watch.set_unread(!upload.is_over());
            entry.note(|record| record.status = page.status);
            let mut response = page
                .render(&accept, &request_id)
                .map(|text| Download::own(text, &watch, worker.config.patience));
            head::name_answer(response.headers_mut(), &request_id);
            response
        }
    };
    let closes = last || refused || worker.is_draining();
    if closes && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// What a page of our own depends on.
fn accepted(headers: &HeaderMap) -> HeaderMap {
    let mut kept = HeaderMap::new();
    if let Some(accept) = headers.get(http::header::ACCEPT) {
        kept.insert(http::header::ACCEPT, accept.clone());
    }
    kept
}
