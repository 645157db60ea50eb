//! `ferroviad`: configuration, the processes of the platform and their supervision, the HTTP API.

pub mod config;
pub mod directories;
pub mod http;
pub mod process;
