//! `ferroviad`: the server.
fn main() {}
