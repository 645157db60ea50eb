//! Bounds and times of the edge. Each has its reason beside it.

use ipnet::IpNet;

use crate::access::AccessSink;
use crate::watch::Patience;

/// Most bytes of a request's head; what Railway allows.
pub const MAX_HEAD_BYTES: usize = 32 << 10;
/// Bytes that are read ahead of a client or an application at most.
pub const MAX_BUFFER_BYTES: usize = 64 << 10;
/// Most requests over one connection of a client.
pub const MAX_REQUESTS_PER_CONNECTION: u32 = 10_000;
/// Most requests of one worker that wait for a replica.
pub const MAX_HELD: usize = 10_000;
/// Most connections to one replica that one worker keeps for later.
pub const MAX_POOLED: usize = 128;

/// From the first byte of a head to its last, in milliseconds.
pub const HEAD_TIMEOUT_MS: u64 = 30_000;
/// Between two requests of a client's connection, in milliseconds.
pub const IDLE_TIMEOUT_MS: u64 = 60_000;
/// Without a byte of an upload, or without the client taking a byte, in milliseconds.
pub const CLIENT_STALL_MS: u64 = 60_000;
/// Until the answer's head, and without a byte of its body, in milliseconds.
pub const ANSWER_TIMEOUT_MS: u64 = 900_000;
/// Without a byte either way through a tunnel, in milliseconds.
pub const TUNNEL_IDLE_MS: u64 = 3_600_000;

/// One attempt to connect to a replica, in milliseconds: longer than the kernel's first repetition of a SYN.
pub const CONNECT_TIMEOUT_MS: u64 = 3_000;
/// How long a request goes on trying to connect before it is answered with an error, in milliseconds.
pub const CONNECT_PATIENCE_MS: u64 = 2_000;
/// First and longest pause when every replica was tried, in milliseconds.
pub const RETRY_PAUSE_MS: (u64, u64) = (10, 200);
/// How long a replica that refused a connection is passed over, in milliseconds.
pub const AVOID_MS: u64 = 1_000;
/// How often a request that may be sent again is sent again.
pub const MAX_REPLAYS: u32 = 2;

/// How long a connection to a replica is kept unused, in milliseconds: closed before the 5 s at which Node, the most
/// impatient of the common servers, closes it.
pub const POOL_IDLE_MS: u64 = 4_000;
/// How long unused a connection may be for a request that cannot be sent again, in milliseconds.
pub const FRESH_ENOUGH_MS: u64 = 1_000;
/// How often a request that waits for a sleeping service asks for it to be woken, in milliseconds.
pub const WAKE_AGAIN_MS: u64 = 1_000;
/// How long a request waits for a sleeping service, in milliseconds.
pub const WAKE_PATIENCE_MS: u64 = 60_000;
/// How often deadlines are looked at, in milliseconds.
pub const LOOK_MS: u64 = 500;

/// What is the same for all workers.
#[derive(Debug)]
pub struct Config {
    /// `http`, until there is TLS.
    pub scheme: &'static str,
    /// Addresses whose forwarded fields are believed.
    pub trusted: Vec<IpNet>,
    /// Most client connections of one worker.
    pub max_connections: usize,
    /// How long clients and applications may take.
    pub patience: Patience,
    /// Where records of requests go.
    pub access: Option<AccessSink>,
}

/// The times that hold unless a test sets others.
pub const PATIENCE: Patience = Patience {
    head_ms: HEAD_TIMEOUT_MS,
    idle_ms: IDLE_TIMEOUT_MS,
    client_ms: CLIENT_STALL_MS,
    answer_ms: ANSWER_TIMEOUT_MS,
    wake_ms: WAKE_PATIENCE_MS,
};
