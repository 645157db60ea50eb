//! What a fake replica does, read from its variables as an application would.

use ferrovia_core::settings::DEFAULT_PORT;
use serde::{Deserialize, Serialize};

/// What a fake replica does once it is started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Behaviour {
    /// `FAKE_START_DELAY_MS`: time from its start until it listens.
    pub start_delay_ms: u64,
    /// `FAKE_EXIT_AFTER_MS`: time from its start until it ends by itself.
    pub exit_after_ms: Option<u64>,
    /// `FAKE_EXIT_CODE`: what it then ends with; 0.
    pub exit_code: i32,
    /// `FAKE_EXIT_OUT_OF_MEMORY=1`: it ends as if the kernel had killed it for its memory.
    pub exit_out_of_memory: bool,
    /// `FAKE_HEALTH_STATUS`: what paths that begin with `/health` answer; 200.
    pub health_status: u16,
    /// `FAKE_STATUS`: what other paths answer; 200.
    pub status: u16,
    /// `FAKE_RESPONSE_DELAY_MS`: time before every answer.
    pub response_delay_ms: u64,
    /// `FAKE_LISTEN`: `none`, `loopback`, or another port than `PORT`.
    pub listen: Listen,
    /// `FAKE_STOP_DELAY_MS`: time from SIGTERM to its end; past the grace it is killed.
    pub stop_delay_ms: u64,
    /// `FAKE_LOG_REQUESTS=1`: it writes a line for every request.
    pub log_requests: bool,
    /// `FAKE_CANNOT_START`: the engine refuses to start it with this sentence.
    pub cannot_start: Option<String>,
}

/// Where a fake replica listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Listen {
    /// On its address and this port.
    Port(u16),
    /// On its own loopback only: nobody outside reaches it.
    Loopback(u16),
    /// Nowhere: a worker.
    Nowhere,
}

impl Behaviour {
    /// Reads the variables; the last one of a name counts, and one that does not parse is as if it were not there.
    pub fn from_variables<'a>(variables: impl Iterator<Item = (&'a str, &'a str)> + Clone) -> Self {
        let text = |name: &str| {
            variables
                .clone()
                .filter(|(key, _)| *key == name)
                .last()
                .map(|(_, value)| value)
        };
        let number = |name: &str| text(name).and_then(|value| value.parse::<u64>().ok());
        let port = |name: &str| text(name).and_then(|value| value.parse::<u16>().ok());
        let usual = port("PORT").unwrap_or(DEFAULT_PORT);
        Self {
            start_delay_ms: number("FAKE_START_DELAY_MS").unwrap_or(0),
            exit_after_ms: number("FAKE_EXIT_AFTER_MS"),
            exit_code: text("FAKE_EXIT_CODE")
                .and_then(|value| value.parse().ok())
                .unwrap_or(0),
            exit_out_of_memory: text("FAKE_EXIT_OUT_OF_MEMORY") == Some("1"),
            health_status: port("FAKE_HEALTH_STATUS").unwrap_or(200),
            status: port("FAKE_STATUS").unwrap_or(200),
            response_delay_ms: number("FAKE_RESPONSE_DELAY_MS").unwrap_or(0),
            listen: match text("FAKE_LISTEN") {
                Some("none") => Listen::Nowhere,
                Some("loopback") => Listen::Loopback(usual),
                _ => Listen::Port(port("FAKE_LISTEN").unwrap_or(usual)),
            },
            stop_delay_ms: number("FAKE_STOP_DELAY_MS").unwrap_or(0),
            log_requests: text("FAKE_LOG_REQUESTS") == Some("1"),
            cannot_start: text("FAKE_CANNOT_START").map(str::to_owned),
        }
    }

    /// What a request for a path is answered with.
    pub fn status_of(&self, path: &str) -> u16 {
        if path.starts_with("/health") {
            self.health_status
        } else {
            self.status
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Behaviour {
        Behaviour::from_variables(variables.iter().copied())
    }

    #[test]
    fn variables_decide() {
        assert_eq!(read(&[]).listen, Listen::Port(8080));
        assert_eq!(read(&[("PORT", "3000")]).listen, Listen::Port(3000));
        assert_eq!(
            read(&[("PORT", "3000"), ("FAKE_LISTEN", "4000")]).listen,
            Listen::Port(4000)
        );
        assert_eq!(
            read(&[("FAKE_LISTEN", "loopback")]).listen,
            Listen::Loopback(8080)
        );
        assert_eq!(read(&[("FAKE_LISTEN", "none")]).listen, Listen::Nowhere);
        let behaviour = read(&[
            ("FAKE_HEALTH_STATUS", "500"),
            ("FAKE_EXIT_CODE", "1"),
            ("FAKE_EXIT_CODE", "2"),
        ]);
        assert_eq!(
            (behaviour.status_of("/healthz"), behaviour.status_of("/")),
            (500, 200)
        );
        assert_eq!(behaviour.exit_code, 2);
    }
}
