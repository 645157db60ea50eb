//! Server-sent events (HTML Living Standard section 9.2), read with resumption.

use std::collections::VecDeque;
use std::time::Duration;

use reqwest::{Method, Response};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::{Client, Error};

/// Longest event, in bytes.
const MAX_EVENT_BYTES: usize = 1024 * 1024;
/// Name of the event after which nothing comes.
pub(crate) const END: &str = "end";
/// First pause before the connection is made again, in milliseconds; it doubles.
const FIRST_PAUSE_MS: u64 = 100;
/// Longest pause before the connection is made again, in milliseconds.
const LONGEST_PAUSE_MS: u64 = 3_000;

/// One event of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What resumes the stream after this event.
    pub id: Option<String>,
    /// What it is: `line`, `progress`, `end`.
    pub name: String,
    /// Its JSON.
    pub data: String,
}

/// Splits bytes into events.
#[derive(Debug, Default)]
struct Parser {
    rest: Vec<u8>,
    id: Option<String>,
    name: String,
    data: Option<String>,
    ready: VecDeque<Event>,
}

impl Parser {
    fn push(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.rest.extend_from_slice(bytes);
        let mut from = 0;
        while let Some(length) = self.rest[from..].iter().position(|b| *b == b'\n') {
            let line = String::from_utf8_lossy(&self.rest[from..from + length]).into_owned();
            from += length + 1;
            self.line(line.strip_suffix('\r').unwrap_or(&line));
        }
        self.rest.drain(..from);
        if self.rest.len() + self.data.as_ref().map_or(0, String::len) > MAX_EVENT_BYTES {
            return Err(format!("an event of more than {MAX_EVENT_BYTES} bytes"));
        }
        Ok(())
    }

    fn line(&mut self, line: &str) {
        if line.is_empty() {
            let name = std::mem::take(&mut self.name);
            let id = self.id.take();
            if let Some(data) = self.data.take() {
                self.ready.push_back(Event { id, name, data });
            }
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.id = Some(value.to_owned()),
            "event" => value.clone_into(&mut self.name),
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            },
            // A comment (the heartbeat) or a field of a later version.
            _ => {}
        }
    }
}

/// One connection's events.
pub struct Events {
    response: Response,
    parser: Parser,
}

impl Events {
    /// The next event; `None` when the connection ended. A caller that is dropped here loses nothing.
    async fn next(&mut self, client: &Client) -> Result<Option<Event>, Error> {
        loop {
            if let Some(event) = self.parser.ready.pop_front() {
                return Ok(Some(event));
            }
            match self
                .response
                .chunk()
                .await
                .map_err(|error| client.failure(&error))?
            {
                Some(bytes) => self.parser.push(&bytes).map_err(|why| client.unexpected(why))?,
                None => return Ok(None),
            }
        }
    }
}

/// Follows a stream over lost connections: each event once, in order, until its end.
pub struct Follow {
    client: Client,
    segments: Vec<String>,
    query: Vec<(String, String)>,
    last_id: Option<String>,
    events: Option<Events>,
    ended: bool,
    patient: bool,
    /// When a server that was lost is given up; kept here, since whoever asks may ask again at any moment.
    give_up: Option<Instant>,
}

impl Follow {
    pub(super) fn new(client: &Client, segments: &[&str], query: Vec<(String, String)>) -> Self {
        Self {
            client: client.clone(),
            segments: segments.iter().map(|&segment| segment.to_owned()).collect(),
            query,
            last_id: None,
            events: None,
            ended: false,
            patient: false,
            give_up: None,
        }
    }

    /// The next event's name and content; `None` after the end. Connects again after a loss, for as long as
    /// the client has patience; a first connection that is refused is told at once.
    ///
    /// # Errors
    /// [`Error::Lost`] or [`Error::Unreachable`] when contact stays lost; [`Error::Problem`] when the server refuses.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<(String, T)>, Error> {
        let Some(event) = self.next_event().await? else {
            return Ok(None);
        };
        match serde_json::from_str(&event.data) {
            Ok(content) => Ok(Some((event.name, content))),
            Err(error) => Err(self.client.unexpected(error.to_string())),
        }
    }

    async fn next_event(&mut self) -> Result<Option<Event>, Error> {
        let mut pause_ms = FIRST_PAUSE_MS;
        while !self.ended {
            match self.try_next().await {
                Ok(Some(event)) => {
                    self.patient = true;
                    self.give_up = None;
                    if event.id.is_some() {
                        self.last_id.clone_from(&event.id);
                    }
                    if event.name == END {
                        self.ended = true;
                        break;
                    }
                    return Ok(Some(event));
                }
                Ok(None) => {}
                Err(error) if !self.patient || !error.is_retryable() => return Err(error),
                Err(error) => {
                    if self.give_up.is_some_and(|at| Instant::now() >= at) {
                        return Err(error);
                    }
                }
            }
            self.events = None;
            let patience = self.client.patience;
            self.give_up.get_or_insert_with(|| Instant::now() + patience);
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            pause_ms = (pause_ms * 2).min(LONGEST_PAUSE_MS);
        }
        Ok(None)
    }

    async fn try_next(&mut self) -> Result<Option<Event>, Error> {
        if self.events.is_none() {
            let segments: Vec<&str> = self.segments.iter().map(String::as_str).collect();
            let mut request = self
                .client
                .request(Method::GET, &segments)
                .query(&self.query)
                .header("accept", "text/event-stream");
            if let Some(id) = &self.last_id {
                request = request.header("last-event-id", id);
            }
            let response = request
                .send()
                .await
                .map_err(|error| self.client.failure(&error))?;
            let response = self.client.accepted(response).await?;
            self.patient = true;
            self.events = Some(Events {
                response,
                parser: Parser::default(),
            });
        }
        match &mut self.events {
            Some(events) => events.next(&self.client).await,
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_whole_whatever_the_pieces() {
        let text =
            ": heartbeat\n\nid: 7\nevent: line\ndata: {\"a\":\ndata: 1}\r\n\r\nevent: end\ndata: {}\n\n";
        for size in 1..text.len() {
            let mut parser = Parser::default();
            for piece in text.as_bytes().chunks(size) {
                parser.push(piece).unwrap();
            }
            let events: Vec<Event> = parser.ready.into();
            assert_eq!(events.len(), 2);
            assert_eq!(events[0].id.as_deref(), Some("7"));
            assert_eq!(events[0].data, "{\"a\":\n1}");
            assert_eq!(events[1].name, END);
        }
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut parser = Parser::default();
        assert!(parser.push(&vec![b'x'; MAX_EVENT_BYTES + 1]).is_err());
    }
}
