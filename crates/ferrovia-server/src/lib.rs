//! `ferroviad`: configuration, the processes of the platform and their supervision, the HTTP API.

pub mod command;
pub mod config;
pub mod control;
pub mod directories;
pub mod doctor;
pub mod edge;
pub mod engine;
pub mod fake_engine;
pub mod http;
pub mod installation;
pub mod node;
pub mod process;
pub mod serve;
pub mod stop;
pub mod token;
