//! One request from its head to the end of its answer: find a replica, send, send again if need be.
//!
//! Written against heads and streams of bodies, not against sockets: what reads requests ([`crate::front`]) and what
//! keeps connections to replicas ([`crate::pool`]) can be replaced without touching what is decided here.
//!
//! The route is resolved anew for every attempt, against the newest table: a request that was held, or whose replica
//! went away under it, goes where a new request would go. It is counted in at the replica in the same step.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ferrovia_core::id::InstanceId;
use http::header::{CONNECTION, HOST};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use tokio::time::{Instant, timeout};

use crate::access::{AccessRecord, Entry};
use crate::body::{Download, Upload};
use crate::config::{
    CONNECT_PATIENCE_MS, MAX_HELD, MAX_REPLAYS, RETRY_PAUSE_MS, WAKE_AGAIN_MS, WAKE_PATIENCE_MS,
};
use crate::head::{self, Origin};
use crate::host;
use crate::page::Page;
use crate::pool::{Connection, OpenGuard, Pool};
use crate::routes::{Replica, Share, Target};
use crate::tunnel;
use crate::watch::Watch;
use crate::worker::{Worker, unix_ms};
use crate::{balance, balance::Standing};

/// How often a request that was not sent at all is tried over pooled connections before it gets a new one.
const MAX_STALE: u32 = 2;
/// How often a request that was not sent at all is tried.
const MAX_UNSENT: u32 = 8;

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
            let exchange = Exchange::new(
                &worker,
                &watch,
                parts,
                host,
                upgrade,
                client_upgrade,
                upload.clone(),
                &origin,
            );
            (exchange.answer(&mut entry).await, accept)
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

/// Why an attempt failed.
enum Failure {
    /// No connection was made; the number of the pool.
    Connect(u64),
    /// The connection was dead before anything was sent.
    Unsent,
    /// The connection broke before the answer's head; the number of the pool when it was a new one.
    Broken(Option<u64>),
    /// What came is not HTTP.
    NotHttp,
    /// Nothing came in time.
    Late,
}

/// A request and what was tried for it.
struct Exchange<'a> {
    worker: &'a Rc<Worker>,
    watch: &'a Arc<Watch>,
    host: String,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    upload: Upload,
    websocket: bool,
    client_upgrade: Option<OnUpgrade>,
    request_id: &'a HeaderValue,
    instance_id: Option<InstanceId>,
    /// Pools at which it failed.
    tried: Vec<u64>,
    /// Whether it gets a new connection whatever is pooled.
    fresh: bool,
    unsent: u32,
    replays: u32,
    pause_ms: u64,
    connect_until: Option<Instant>,
    hold: Option<Hold>,
}

/// A request that waits for a replica.
struct Hold {
    worker: Rc<Worker>,
    since: Instant,
}

impl Hold {
    fn begin(worker: &Rc<Worker>) -> Result<Self, Page> {
        if worker.held.get() >= MAX_HELD {
            return Err(Page::too_many_wait());
        }
        worker.held.set(worker.held.get() + 1);
        worker.metrics.held.add();
        Ok(Self {
            worker: Rc::clone(worker),
            since: Instant::now(),
        })
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.worker.held.set(self.worker.held.get().saturating_sub(1));
    }
}

impl<'a> Exchange<'a> {
    #[expect(
        clippy::too_many_arguments,
        reason = "the parts of one request, put together in one place"
    )]
    fn new(
        worker: &'a Rc<Worker>,
        watch: &'a Arc<Watch>,
        parts: Parts,
        host: String,
        upgrade: Option<HeaderValue>,
        client_upgrade: Option<OnUpgrade>,
        upload: Upload,
        origin: &Origin<'a>,
    ) -> Self {
        let Parts {
            method,
            uri,
            mut headers,
            ..
        } = parts;
        if let Some(authority) = uri.authority()
            && let Ok(host) = HeaderValue::from_str(authority.as_str())
        {
            headers.insert(HOST, host);
        }
        let websocket = upgrade.as_ref().is_some_and(head::is_websocket);
        head::make_request(&mut headers, upgrade, origin);
        Self {
            worker,
            watch,
            host,
            method,
            uri: origin_form(uri),
            headers,
            upload,
            websocket,
            client_upgrade,
            request_id: origin.request_id,
            instance_id: None,
            tried: Vec::new(),
            fresh: false,
            unsent: 0,
            replays: 0,
            pause_ms: RETRY_PAUSE_MS.0,
            connect_until: None,
            hold: None,
        }
    }

    /// Attempt after attempt until there is an answer, or none to be had.
    async fn answer(mut self, entry: &mut Entry) -> Result<Response<Download>, Page> {
        loop {
            let open = self.resolve().await?;
            entry.note(|record| {
                record.instance_id = self.instance_id;
                record.replica_id = Some(open.pool().replica().replica_id);
            });
            match self.attempt(open, entry).await {
                Ok(response) => {
                    self.worker.metrics.answered.add();
                    return Ok(response);
                }
                Err(failure) => self.after(failure).await?,
            }
        }
    }

    /// Finds a replica and counts the request in, waiting for one as long as the route says.
    async fn resolve(&mut self) -> Result<OpenGuard, Page> {
        loop {
            let (wait_ms, limit_ms, asleep) = {
                let routes = self.worker.routes();
                let Some(route) = routes.find(&self.host) else {
                    self.worker.metrics.unknown_host.add();
                    return Err(Page::unknown_host(&self.host));
                };
                self.instance_id = Some(route.instance_id);
                match &route.target {
                    Target::Shares(shares) => {
                        self.hold = None;
                        let none = "none of its replicas takes requests";
                        return self.choose(shares).ok_or_else(|| self.unavailable(none));
                    }
                    Target::Unavailable(reason) => return Err(self.unavailable(reason)),
                    Target::Hold(max_wait_ms) => (u64::from(*max_wait_ms), u64::from(*max_wait_ms), false),
                    Target::Asleep => {
                        self.worker.waker.wake(route.instance_id);
                        (WAKE_AGAIN_MS, WAKE_PATIENCE_MS, true)
                    }
                }
            };
            let hold = match self.hold.take() {
                Some(hold) => hold,
                None => Hold::begin(self.worker)?,
            };
            let left = Duration::from_millis(limit_ms).saturating_sub(hold.since.elapsed());
            if left.is_zero() {
                self.worker.metrics.held_in_vain.add();
                return Err(Page::held_in_vain(asleep));
            }
            self.hold = Some(hold);
            let mut changes = self.worker.changes();
            // Whether the table changed or the time is over, the next round finds out.
            let _ = timeout(left.min(Duration::from_millis(wait_ms)), changes.changed()).await;
        }
    }

    fn unavailable(&self, reason: &str) -> Page {
        self.worker.metrics.unavailable.add();
        Page::unavailable(reason)
    }

    fn choose(&self, shares: &[Share]) -> Option<OpenGuard> {
        let standing = |replica: &Replica| {
            if self.tried.contains(&replica.pool) {
                Standing::Tried
            } else if !replica.healthy
                || self
                    .worker
                    .with_pool(replica.pool, |pool| pool.is_some_and(Pool::is_avoided))
            {
                Standing::Doubtful
            } else {
                Standing::Good
            }
        };
        let load = |replica: &Replica| {
            self.worker
                .with_pool(replica.pool, |pool| pool.map_or(0, Pool::open))
        };
        let replica = balance::choose(shares, standing, load, |below| self.worker.random(below))?;
        Some(self.worker.pool(replica.pool)?.enter())
    }

    /// Sends the request to one replica and waits for the answer's head.
    async fn attempt(&mut self, open: OpenGuard, entry: &mut Entry) -> Result<Response<Download>, Failure> {
        let pool = Rc::clone(open.pool());
        let number = pool.replica().pool;
        let pooled = if self.fresh {
            None
        } else {
            pool.take(self.is_replayable()).await
        };
        let reused = pooled.is_some();
        let mut connection = match pooled {
            Some(connection) => {
                self.worker.metrics.reused.add();
                connection
            }
            None => pool.connect(&self.worker.metrics).await.map_err(|error| {
                tracing::debug!(replica = %pool.replica().replica_id, "{error}");
                Failure::Connect(number)
            })?,
        };
        let request = self.take_request();
        self.watch.wants_answer(&self.worker.config.patience);
        let answer = tokio::select! {
            biased;
            answer = connection.sender.try_send_request(request) => answer,
            () = self.watch.late() => return Err(Failure::Late),
        };
        self.watch.has_answer();
        match answer {
            Ok(response) => self.accept(response, connection, open, entry),
            Err(mut error) => {
                if let Some(request) = error.take_message() {
                    self.headers = request.into_parts().0.headers;
                    return Err(Failure::Unsent);
                }
                let error = error.into_error();
                tracing::debug!(replica = %pool.replica().replica_id, reused, "{error}");
                Err(if error.is_parse() {
                    Failure::NotHttp
                } else {
                    Failure::Broken((!reused).then_some(number))
                })
            }
        }
    }

    /// Makes an application's answer the client's.
    fn accept(
        &mut self,
        response: Response<Incoming>,
        connection: Connection,
        open: OpenGuard,
        entry: &mut Entry,
    ) -> Result<Response<Download>, Failure> {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return self.switch(response, open, entry);
        }
        let keeps = is_kept(&response);
        let (mut parts, body) = response.into_parts();
        parts.version = Version::HTTP_11;
        head::make_response(&mut parts.headers, self.request_id);
        entry.note(|record| record.status = parts.status);
        let finish = Box::new(Finish {
            connection: keeps.then_some(connection),
            upload: self.upload.clone(),
            open: Some(open),
            watch: Arc::clone(self.watch),
            worker: Rc::clone(self.worker),
            entry: std::mem::replace(entry, Entry::none()),
            cut: false,
        });
        Ok(Response::from_parts(
            parts,
            Download::of_replica(body, finish, self.watch, self.worker.config.patience),
        ))
    }

    fn switch(
        &mut self,
        response: Response<Incoming>,
        open: OpenGuard,
        entry: &mut Entry,
    ) -> Result<Response<Download>, Failure> {
        let Some(client) = self.client_upgrade.take() else {
            return Err(Failure::NotHttp);
        };
        let (mut parts, _) = {
            let mut response = response;
            let replica = hyper::upgrade::on(&mut response);
            entry.note(|record| record.status = StatusCode::SWITCHING_PROTOCOLS);
            let entry = std::mem::replace(entry, Entry::none());
            self.watch.tunnel();
            tunnel::spawn(self.worker, client, replica, open, self.websocket, entry);
            response.into_parts()
        };
        head::make_switch(&mut parts.headers, self.request_id);
        parts.version = Version::HTTP_11;
        Ok(Response::from_parts(parts, Download::switch()))
    }

    /// Goes on after a failed attempt, or says why not.
    async fn after(&mut self, failure: Failure) -> Result<(), Page> {
        let metrics = &self.worker.metrics;
        match failure {
            Failure::Late => {
                self.watch.has_answer();
                metrics.late.add();
                Err(Page::late())
            }
            Failure::NotHttp => {
                metrics.broken.add();
                Err(Page::not_http())
            }
            Failure::Unsent => {
                self.unsent += 1;
                self.fresh = self.unsent >= MAX_STALE;
                if self.unsent < MAX_UNSENT {
                    return Ok(());
                }
                metrics.broken.add();
                Err(Page::broken())
            }
            Failure::Broken(number) => {
                if !self.is_replayable() || self.replays >= MAX_REPLAYS {
                    metrics.broken.add();
                    return Err(Page::broken());
                }
                self.replays += 1;
                self.fresh = true;
                self.tried.extend(number);
                metrics.replayed.add();
                Ok(())
            }
            Failure::Connect(number) => {
                let until = *self
                    .connect_until
                    .get_or_insert_with(|| Instant::now() + Duration::from_millis(CONNECT_PATIENCE_MS));
                if Instant::now() >= until {
                    metrics.unreachable.add();
                    return Err(Page::unreachable());
                }
                self.tried.push(number);
                if self.has_tried_all() {
                    let mut changes = self.worker.changes();
                    // A new table ends the pause: it may name a replica that answers.
                    let _ = timeout(Duration::from_millis(self.pause_ms), changes.changed()).await;
                    self.pause_ms = (self.pause_ms * 2).min(RETRY_PAUSE_MS.1);
                    self.tried.clear();
                }
                Ok(())
            }
        }
    }

    fn has_tried_all(&self) -> bool {
        let routes = self.worker.routes();
        match routes.find(&self.host).map(|route| &route.target) {
            Some(Target::Shares(shares)) => {
                let reachable = shares
                    .iter()
                    .filter(|share| share.weight > 0)
                    .flat_map(|share| &share.replicas);
                reachable
                    .into_iter()
                    .all(|replica| self.tried.contains(&replica.pool))
            }
            _ => false,
        }
    }

    /// Whether sending the request a second time does no more than sending it once (RFC 9110 section 9.2.2).
    fn is_replayable(&self) -> bool {
        self.method.is_idempotent() && self.upload.is_whole()
    }

    /// The request for a replica. What can be replayed leaves a copy of its head.
    fn take_request(&mut self) -> Request<Upload> {
        let headers = if self.is_replayable() {
            self.headers.clone()
        } else {
            std::mem::take(&mut self.headers)
        };
        let mut request = Request::new(self.upload.clone());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = headers;
        request
    }
}

/// The target as an application expects it (RFC 9112 section 3.2.1).
fn origin_form(uri: Uri) -> Uri {
    if uri.authority().is_none() {
        return uri;
    }
    let target = uri
        .path_and_query()
        .cloned()
        .unwrap_or(http::uri::PathAndQuery::from_static("/"));
    Uri::from(target)
}

/// Whether the connection goes on after this answer.
fn is_kept(response: &Response<Incoming>) -> bool {
    let says = |what: &str| {
        let fields = response.headers().get_all(CONNECTION).iter();
        fields
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|option| option.trim().eq_ignore_ascii_case(what))
    };
    match response.version() {
        Version::HTTP_11 => !says("close"),
        _ => says("keep-alive") && !says("close"),
    }
}

/// The end of an exchange: the connection back to its pool, the request out of the count, the record out.
#[derive(Debug)]
pub struct Finish {
    connection: Option<Connection>,
    upload: Upload,
    open: Option<OpenGuard>,
    watch: Arc<Watch>,
    worker: Rc<Worker>,
    entry: Entry,
    cut: bool,
}

impl Finish {
    /// Bytes of the answer were handed on.
    pub fn passed(&mut self, bytes: usize) {
        self.entry
            .note(|record| record.bytes += u64::try_from(bytes).unwrap_or_default());
    }

    /// The application cut its answer off.
    pub fn cut(&mut self) {
        self.cut = true;
    }

    /// The answer is complete.
    pub fn complete(&mut self) {
        let Some(open) = self.open.take() else { return };
        if !self.upload.is_over() {
            // Answered before the request was read to its end: neither side can go on after this.
            self.watch.set_unread(true);
            return;
        }
        if let Some(connection) = self.connection.take() {
            open.pool().put(connection);
        }
    }
}

impl Drop for Finish {
    fn drop(&mut self) {
        if self.open.is_some() {
            let metrics = &self.worker.metrics;
            if self.cut {
                metrics.cut.add()
            } else {
                metrics.abandoned.add()
            }
            self.entry.note(|record| record.cut = true);
        }
    }
}
