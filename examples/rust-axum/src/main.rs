//! A web server with axum.

use std::net::Ipv6Addr;

use axum::extract::Path;
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

#[derive(Serialize)]
struct About {
    application: &'static str,
}

#[derive(Serialize)]
struct Fibonacci {
    place: u8,
    number: u128,
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let port = std::env::var("PORT").ok().and_then(|port| port.parse().ok()).unwrap_or(8080);
    let application = Router::new()
        .route("/", get(|| async { Json(About { application: "rust-axum" }) }))
        .route("/health", get(|| async { "ok\n" }))
        .route("/fibonacci/{place}", get(|Path(place): Path<u8>| async move { Json(fibonacci(place)) }));
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await?;
    println!("listening on port {port}");
    let mut terminate = signal(SignalKind::terminate())?;
    axum::serve(listener, application)
        .with_graceful_shutdown(async move {
            terminate.recv().await;
        })
        .await
}

fn fibonacci(place: u8) -> Fibonacci {
    let (mut number, mut next) = (0_u128, 1_u128);
    for _ in 0..place.min(180) {
        (number, next) = (next, number + next);
    }
    Fibonacci { place, number }
}
