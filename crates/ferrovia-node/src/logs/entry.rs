//! One line of Docker's `json-file`: `{"log":"text\n","stream":"stdout","time":"2026-01-01T00:00:00.123Z"}`.

use std::borrow::Cow;

use ferrovia_log::Stream;
use serde::Deserialize;

/// What a line says.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The text without the line's end.
    pub text: Cow<'a, str>,
    /// Where it was written to.
    pub stream: Stream,
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
    /// Whether the line ends here; Docker cuts lines into pieces of 16 KiB.
    pub ends: bool,
}

#[derive(Deserialize)]
struct Raw<'a> {
    #[serde(borrow)]
    log: Cow<'a, str>,
    #[serde(borrow, default)]
    stream: Cow<'a, str>,
    #[serde(borrow)]
    time: Cow<'a, str>,
}

/// Begins every line.
const BEGIN: &[u8] = br#"{"log":"#;

/// Reads a line; `None` when it is none of Docker's. After a power failure a line may follow the torn beginning of
/// another.
pub fn parse(line: &[u8]) -> Option<Entry<'_>> {
    parse_whole(line).or_else(|| {
        let begin = line.windows(BEGIN.len()).rposition(|window| window == BEGIN)?;
        parse_whole(&line[begin..])
    })
}

fn parse_whole(line: &[u8]) -> Option<Entry<'_>> {
    let raw: Raw<'_> = serde_json::from_slice(line).ok()?;
    let time: jiff::Timestamp = raw.time.parse().ok()?;
    let ends = raw.log.ends_with('\n');
    let text = match raw.log {
        Cow::Borrowed(text) => Cow::Borrowed(without_end(text)),
        Cow::Owned(mut text) => {
            text.truncate(without_end(&text).len());
            Cow::Owned(text)
        }
    };
    Some(Entry {
        text,
        stream: if raw.stream == "stderr" {
            Stream::Stderr
        } else {
            Stream::Stdout
        },
        at_ms: time.as_millisecond(),
        ends,
    })
}

fn without_end(text: &str) -> &str {
    let text = text.strip_suffix('\n').unwrap_or(text);
    text.strip_suffix('\r').unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_lines_are_read() {
        let entry = parse(
            br#"{"log":"a \"b\" \u003c\r\n","stream":"stderr","time":"2026-01-01T00:00:00.123456789Z"}"#,
        );
        let wanted = Entry {
            text: "a \"b\" <".into(),
            stream: Stream::Stderr,
            at_ms: 1_767_225_600_123,
            ends: true,
        };
        assert_eq!(entry.unwrap(), wanted);
        assert!(
            !parse(br#"{"log":"half","stream":"stdout","time":"2026-01-01T00:00:00Z"}"#)
                .unwrap()
                .ends
        );
        let torn = br#"{"log":"tor{"log":"b\n","stream":"stdout","time":"2026-01-01T00:00:00Z"}"#;
        assert_eq!(parse(torn).unwrap().text, "b");
        assert_eq!(parse(b"\0\0\0"), None);
        assert_eq!(parse(br#"{"log":"x"}"#), None);
    }
}
