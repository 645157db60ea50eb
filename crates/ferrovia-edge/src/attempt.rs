//! A request on its way to an answer: find a replica, send, send again if need be.
//!
//! The route is resolved anew for every attempt, against the newest table: a request that was held, or whose replica
//! went away under it, goes where a new request would go. It is counted in at the replica in the same step.
//!
//! What was not sent is always tried again, for a while; what was sent is sent again only when sending it twice does no
//! more than sending it once, and its body was not touched. Nothing is ever sent a second time while an answer may
//! still come.

use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ferrovia_core::id::InstanceId;
use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use tokio::time::{Instant, timeout};

use crate::access::Entry;
use crate::body::{Download, Upload};
use crate::config::{CONNECT_PATIENCE_MS, MAX_HELD, MAX_REPLAYS, RETRY_PAUSE_MS, WAKE_AGAIN_MS};
use crate::finish::Finish;
use crate::head::{self, Origin};
use crate::page::Page;
use crate::pool::{Connection, OpenGuard, Pool};
use crate::routes::{Replica, Share, Target};
use crate::tunnel;
use crate::watch::Watch;
use crate::worker::Worker;
use crate::{balance, balance::Standing};

/// How often a request that was not sent at all is tried over pooled connections before it gets a new one.
const MAX_STALE: u32 = 2;
/// How often a request that was not sent at all is tried.
const MAX_UNSENT: u32 = 8;

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
    /// The replica left the routes while a connection to it was being made.
    Left,
    /// The client's own body broke off, or is none.
    Client,
}

/// A request and what was tried for it.
#[derive(Debug)]
pub struct Attempts<'a> {
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
#[derive(Debug)]
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

impl<'a> Attempts<'a> {
    #[expect(
        clippy::too_many_arguments,
        reason = "the parts of one request, put together in one place"
    )]
    /// A request with its head made one for an application.
    pub fn new(
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
        if !upload.is_over() && !headers.contains_key(CONTENT_LENGTH) {
            // Said by us, since hyper sends no body of unknown length for methods that seldom have one.
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
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
    pub async fn answer(mut self, entry: &mut Entry) -> Result<Response<Download>, Page> {
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
                        (WAKE_AGAIN_MS, self.worker.config.patience.wake_ms, true)
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
            None => self.connect(&pool).await?,
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
                if reused && !self.is_replayable() {
                    // It was used a moment ago: this server closes without a word, and may do so again.
                    pool.distrust();
                }
                Err(if error.is_user() {
                    Failure::Client
                } else if error.is_parse() {
                    Failure::NotHttp
                } else {
                    Failure::Broken((!reused).then_some(number))
                })
            }
        }
    }

    /// Makes a connection, unless the replica leaves the routes before there is one.
    async fn connect(&self, pool: &Rc<Pool>) -> Result<Connection, Failure> {
        let number = pool.replica().pool;
        let mut changes = self.worker.changes();
        let mut connecting = pin!(pool.connect(&self.worker.metrics));
        loop {
            tokio::select! {
                biased;
                made = &mut connecting => return made.map_err(|error| {
                    tracing::debug!(replica = %pool.replica().replica_id, "{error}");
                    Failure::Connect(number)
                }),
                _ = changes.changed() => if !self.worker.has_pool(number) {
                    return Err(Failure::Left);
                },
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
        if !head::has_known_end(response.version(), response.headers()) {
            return Err(Failure::NotHttp);
        }
        let entry = std::mem::replace(entry, Entry::none());
        let upload = self.upload.clone();
        let mut finish = Finish::new(
            &response,
            connection,
            open,
            upload,
            self.watch,
            self.worker,
            entry,
        );
        let (mut parts, body) = response.into_parts();
        finish.answered(parts.status);
        parts.version = Version::HTTP_11;
        head::make_response(&mut parts.headers, self.request_id);
        let body = Download::of_replica(body, finish, self.watch, self.worker.config.patience);
        Ok(Response::from_parts(parts, body))
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
            Failure::Client => {
                metrics.abandoned.add();
                Err(Page::refused(&"the request's body broke off or is not valid"))
            }
            // As often as tables change, and no more.
            Failure::Left => {
                self.connect_until = None;
                Ok(())
            }
            Failure::Connect(number) if !self.worker.has_pool(number) => {
                self.connect_until = None;
                Ok(())
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
                // A new connection that breaks lost no race against being closed: once more, and not at every replica,
                // or one request that kills a replica kills all.
                self.replays += if number.is_some() { MAX_REPLAYS } else { 1 };
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
