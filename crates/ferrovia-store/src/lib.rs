//! PostgreSQL, the only source of truth: connections, transactions, migrations, the queries of every object, the work
//! queue and the envelopes of secrets.
//!
//! It is the only crate that speaks SQL. There is one module per object; a function that only reads takes a
//! [`Conn`], one that writes takes a [`Tx`], so that nothing is ever written outside [`Db::tx`].
//!
//! Deliberately absent: decisions. What should happen is decided in `ferrovia-core` and `ferrovia-control`; here is
//! only how it is kept.

pub mod admin;
pub mod audit;
pub mod build;
mod clock;
pub mod cutover;
mod db;
pub mod deployment;
pub mod domain;
pub mod embedded;
pub mod environment;
mod error;
#[cfg(feature = "faults")]
pub mod fault;
pub mod idempotency;
pub mod image;
pub mod installation;
pub mod instance;
pub mod intent;
mod migrate;
pub mod project;
pub mod queue;
pub mod replica;
pub mod retention;
mod row;
pub mod seal;
pub mod service;
pub mod source_tree;
pub mod table;
pub mod team;
pub mod token;
mod trim;
mod tx;
pub mod variable;

pub use clock::Clock;
pub use db::{Conn, Db, Options, PooledConn};
pub use error::Error;
pub use futures_util::future::BoxFuture;
pub use tx::Tx;
