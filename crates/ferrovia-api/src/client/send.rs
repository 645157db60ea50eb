//! Sending a request, and sending it again where that is safe: what changes nothing, and what carries an
//! `Idempotency-Key`. A server that is restarted under a request is then no failure of the request.
//!
//! A server that was never reached is told at once, since most often the address is wrong.

use std::pin::pin;
use std::time::Duration;

use reqwest::{Method, Request, RequestBuilder, Response};
use tokio::time::{Instant, sleep};

use super::{Client, Error, MAX_ANSWER_BYTES};
use crate::problem::Problem;

/// Longest time that a request is sent again after it failed in a way that passes, in milliseconds.
pub const AGAIN_MS: u64 = 15_000;
/// A request that takes longer is spoken of, in milliseconds.
const NOTICE_MS: u64 = 1_000;
/// First pause before a request is sent again, in milliseconds; it doubles.
const FIRST_PAUSE_MS: u64 = 100;
/// Longest pause before a request is sent again, in milliseconds.
const LONGEST_PAUSE_MS: u64 = 1_000;
/// Header of what takes effect once however often it is sent.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";

impl Client {
    /// The whole answer to a request, which is sent again where that is safe and may help.
    pub(super) async fn answer(&self, request: RequestBuilder) -> Result<Vec<u8>, Error> {
        let request = request.build().map_err(|error| self.failure(&error))?;
        let mut answered = pin!(self.answer_of(request));
        tokio::select! {
            answer = &mut answered => return answer,
            () = sleep(Duration::from_millis(NOTICE_MS)) => {}
        }
        self.notice(&format!("waiting for {}", self.address()));
        answered.await
    }

    async fn answer_of(&self, request: Request) -> Result<Vec<u8>, Error> {
        let repeatable = request.method() == Method::GET || request.headers().contains_key(IDEMPOTENCY_KEY);
        let give_up = Instant::now() + Duration::from_millis(AGAIN_MS);
        let mut pause_ms = FIRST_PAUSE_MS;
        let mut reached = false;
        loop {
            let Some(attempt) = request.try_clone().filter(|_| repeatable) else {
                return self.once(request).await;
            };
            let error = match self.once(attempt).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            reached |= !matches!(error, Error::Unreachable { .. });
            if !reached || !error.is_retryable() || Instant::now() >= give_up {
                return Err(error);
            }
            sleep(Duration::from_millis(pause_ms)).await;
            pause_ms = (pause_ms * 2).min(LONGEST_PAUSE_MS);
        }
    }

    async fn once(&self, request: Request) -> Result<Vec<u8>, Error> {
        let sent = self.http.execute(request).await;
        let response = self.accepted(sent.map_err(|error| self.failure(&error))?).await?;
        self.whole(response).await
    }

    /// The answer when it is what was asked for, and else the problem that it tells.
    pub(super) async fn accepted(&self, response: Response) -> Result<Response, Error> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = self.whole(response).await?;
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => Err(Error::Problem(Box::new(problem))),
            Err(_) => Err(self.unexpected(format!("`{status}` without a problem document"))),
        }
    }

    async fn whole(&self, mut response: Response) -> Result<Vec<u8>, Error> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.failure(&error))? {
            if body.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(self.unexpected(format!("more than {MAX_ANSWER_BYTES} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}
