//! Automation of this repository: `cargo xtask ci | tidy | openapi | sqlx`.
fn main() {}
