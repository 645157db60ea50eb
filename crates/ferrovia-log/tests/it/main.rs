//! Logs against the file system: interleavings, deaths at any step and byte, other processes.

#![allow(clippy::unwrap_used)]

mod killed;
mod random;
mod reading;
