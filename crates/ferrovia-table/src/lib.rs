//! The tables of edge and node on their way from control: frames, the stream, the last good file; and `node`'s
//! observations on their way to control and edge.
//!
//! Client, server and file code live here once, so that both ends of a socket always speak the same protocol and
//! both readers keep their tables in the same way. What stands in a table is `ferrovia_core::table`'s business, where
//! control keeps it is a [`server::Source`]'s.
//!
//! Deliberately absent: TCP and TLS (readers on other hosts come later), SQL, and any decision about what a table
//! means.

pub mod change;
pub mod error;
mod file;
mod frame;
mod link;
mod message;
pub mod observe;
pub mod reader;
pub mod server;
pub mod socket;

pub use change::{Change, RawRow};
pub use error::Error;
pub use message::InFlightReport;
pub use reader::{Apply, Changed, Reader, ReaderHandle, ReaderOptions};
pub use server::{Notifier, Server, Source, SourceError};
pub use socket::{Peers, listen};
