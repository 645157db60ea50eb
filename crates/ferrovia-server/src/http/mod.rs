//! The HTTP API: the only place that knows status codes.
//!
//! A handler takes its request apart, calls one use case and converts the answer; it changes nothing itself. What
//! surrounds every request is in [`frame`], who acts in [`auth`], how refusals look in [`failure`], the listeners in
//! [`serve`], the document of the whole in [`openapi`].

pub mod auth;
pub mod code;
mod convert;
mod extract;
pub mod failure;
mod frame;
pub mod openapi;
mod pace;
mod route;
mod router;
pub mod serve;
mod state;
mod stream;

pub use router::router;
pub use state::{Installation, MAX_REQUESTS, MAX_SIGN_INS, MAX_STREAMS, State};
