//! The edge: the proxy that all public traffic passes. A process of its own, unprivileged, that serves with control,
//! node and database dead.
//!
//! One thread with its own runtime, listener and pools per core; they share the routes, which are swapped whole and
//! never changed. What must hold:
//!
//! - a table is acknowledged when every worker has swapped, and a request is counted at its replica in the step in
//!   which it resolves its route ([`open`]), so that "acknowledged and nothing open" means that a replica can go;
//! - a connection belongs to one run of one container ([`routes`]): addresses are used again, connections never;
//! - what may be sent again is sent again ([`attempt`]), what may not is sent over connections that are fresh
//!   ([`pool`]);
//! - half a body never looks like a whole one ([`body`]).
//!
//! # The end of a drain
//!
//! A replica leaves the routes with a [`Draining`](ferrovia_core::table::Draining) row. Requests in flight go on.
//! Upgraded connections, which may never end, are closed when the row's time has come or the row goes without the
//! replica coming back: a WebSocket between two frames with status 1001, to both ends. What is open is reported under
//! the table's version all the while.
//!
//! # The end of an edge
//!
//! Told to drain, it accepts no more (connections wait in the backlog for whoever holds the listeners next), lets go of
//! its table's files, follows the tables under another name so that control still sees what it has open, answers what
//! it has in hand with `Connection: close`, then closes connections between two requests, then everything.
//!
//! Deliberately absent: TLS, HTTP/2, paths in routes, buffering, caching, compression; knowledge of engines.

pub mod access;
mod attempt;
mod balance;
mod body;
pub mod command;
pub mod config;
mod exchange;
mod finish;
mod front;
pub mod head;
pub mod host;
mod io;
pub mod listeners;
pub mod metrics;
mod open;
mod page;
mod pool;
mod publish;
mod replica_io;
mod routes;
mod run;
mod tunnel;
pub mod watch;
mod websocket;
mod worker;

pub use run::{Error, Options, run};
