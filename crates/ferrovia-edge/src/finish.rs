//! The end of an exchange: the connection back to its pool, the request out of the count, the record out.
//!
//! Dropped before the answer is complete it counts the answer as cut off, by the application or by the client.

use std::rc::Rc;
use std::sync::Arc;

use http::header::CONNECTION;
use http::{Response, StatusCode, Version};
use hyper::body::Incoming;

use crate::access::Entry;
use crate::body::Upload;
use crate::pool::{Connection, OpenGuard};
use crate::watch::Watch;
use crate::worker::Worker;

/// What is left to do when an answer is over.
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
    /// The end of an exchange over `connection`, which goes on after `response` if that says so.
    pub fn new(
        response: &Response<Incoming>,
        connection: Connection,
        open: OpenGuard,
        upload: Upload,
        watch: &Arc<Watch>,
        worker: &Rc<Worker>,
        entry: Entry,
    ) -> Box<Self> {
        Box::new(Self {
            connection: is_kept(response).then_some(connection),
            upload,
            open: Some(open),
            watch: Arc::clone(watch),
            worker: Rc::clone(worker),
            entry,
            cut: false,
        })
    }

    /// The answer's head is known.
    pub fn answered(&mut self, status: StatusCode) {
        self.entry.note(|record| record.status = status);
    }

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
