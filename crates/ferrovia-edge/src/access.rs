//! One record per request, for whoever wants them: handed over without waiting, dropped and counted when nobody keeps
//! up.

use std::net::IpAddr;
use std::sync::Arc;

use ferrovia_core::id::{InstanceId, ReplicaId};
use http::{HeaderValue, Method, StatusCode};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::metrics::Metrics;

/// A request that is over.
#[derive(Debug, Clone)]
pub struct AccessRecord {
    /// When its head was complete, in milliseconds since 1970.
    pub at_ms: u64,
    /// From then to the end of the answer, in microseconds.
    pub duration_us: u64,
    /// The other end of the connection.
    pub client: IpAddr,
    /// Its method.
    pub method: Method,
    /// Its host, normalised.
    pub host: String,
    /// Path and query.
    pub target: String,
    /// Its id.
    pub request_id: HeaderValue,
    /// The answer's status.
    pub status: StatusCode,
    /// Bytes of the answer's body that were handed on.
    pub bytes: u64,
    /// Whether the answer was cut off.
    pub cut: bool,
    /// The instance it was for.
    pub instance_id: Option<InstanceId>,
    /// The replica that answered.
    pub replica_id: Option<ReplicaId>,
}

/// Where records go: a bounded queue.
pub type AccessSink = mpsc::Sender<AccessRecord>;

/// A request that is not over yet: the record goes out when this is dropped. Nothing is kept when nobody wants records.
#[derive(Debug)]
pub struct Entry(Option<Box<Pending>>);

#[derive(Debug)]
struct Pending {
    record: AccessRecord,
    started: Instant,
    sink: AccessSink,
    metrics: Arc<Metrics>,
}

/// What is logged when the client went away before there was an answer; what nginx made customary.
const CLIENT_GONE: u16 = 499;

impl Entry {
    /// Begins a record, if anybody wants it.
    pub fn begin(
        sink: Option<&AccessSink>,
        metrics: &Arc<Metrics>,
        describe: impl FnOnce(StatusCode) -> AccessRecord,
    ) -> Self {
        Self(sink.map(|sink| {
            Box::new(Pending {
                record: describe(StatusCode::from_u16(CLIENT_GONE).unwrap_or(StatusCode::BAD_REQUEST)),
                started: Instant::now(),
                sink: sink.clone(),
                metrics: Arc::clone(metrics),
            })
        }))
    }

    /// No record.
    pub const fn none() -> Self {
        Self(None)
    }

    /// Adds to the record.
    pub fn note(&mut self, note: impl FnOnce(&mut AccessRecord)) {
        if let Some(pending) = &mut self.0 {
            note(&mut pending.record);
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Some(pending) = self.0.take() {
            let Pending {
                mut record,
                started,
                sink,
                metrics,
            } = *pending;
            record.duration_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
            if sink.try_send(record).is_err() {
                metrics.log_dropped.add();
            }
        }
    }
}
