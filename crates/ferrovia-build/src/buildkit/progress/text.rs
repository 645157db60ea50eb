//! Names, sizes, times and lines as people read them.

/// Longest line of a log that is kept whole, in bytes.
const MAX_LINE_BYTES: usize = 8 * 1024;
/// Longest name of a step, in characters.
const MAX_NAME_CHARS: usize = 120;

/// The step that puts the image into the registry.
pub(super) const PUSH: &str = "push";

/// The name of a step for people; `None` for what BuildKit does for itself.
pub fn step_name(vertex: &str) -> Option<String> {
    let vertex = vertex.trim();
    let own = [
        "[internal]",
        "[auth]",
        "resolve image config",
        "resolve ",
        "load ",
        "importing ",
        "local://",
    ];
    if own.iter().any(|prefix| vertex.starts_with(prefix)) {
        return None;
    }
    if vertex.starts_with("exporting to") {
        return Some(PUSH.to_owned());
    }
    let (label, rest) = match vertex.strip_prefix('[').and_then(|tail| tail.split_once("] ")) {
        Some((label, rest)) => (Some(label), rest),
        None => (None, vertex),
    };
    let (instruction, mut rest) = rest.split_once(' ').unwrap_or((rest, ""));
    rest = rest.trim_start();
    while let Some(flag) = rest.strip_prefix("--") {
        let Some((_, tail)) = flag.split_once(' ') else {
            break;
        };
        rest = tail.trim_start();
    }
    let rest = match instruction {
        "FROM" => short_image(rest),
        _ => rest.split_whitespace().collect::<Vec<_>>().join(" "),
    };
    let instruction = match script(&rest) {
        Some(first) => match first.strip_prefix("# ") {
            Some(comment) => comment.to_owned(),
            None => format!("{instruction} {first}"),
        },
        None => format!("{instruction} {rest}"),
    };
    let mut name = match label {
        Some(label) => format!("[{label}] {instruction}"),
        None => instruction,
    };
    name.truncate(name.trim_end().len());
    if name.chars().count() > MAX_NAME_CHARS {
        name = name.chars().take(MAX_NAME_CHARS - 1).collect();
        name.push('…');
    }
    Some(name)
}

/// The first line of a script that stands in the Dockerfile itself, which BuildKit writes as `<<EOF (first line...)`.
fn script(rest: &str) -> Option<&str> {
    let (_, inside) = rest.strip_prefix("<<")?.split_once(" (")?;
    let first = inside.strip_suffix(')')?;
    Some(first.trim_end_matches("..."))
}

/// An image without its digest and without hosts that say nothing.
fn short_image(reference: &str) -> String {
    let name = reference.split('@').next().unwrap_or_default();
    let name = name.strip_prefix("docker.io/").unwrap_or(name);
    let name = name.strip_prefix("library/").unwrap_or(name);
    match name.split_once('/') {
        Some((host, rest)) if host.starts_with("127.0.0.1:") => rest.to_owned(),
        _ => name.to_owned(),
    }
}

/// `45.2 MB`.
pub(super) fn bytes_for_people(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1_000_000_000, "GB"), (1_000_000, "MB"), (1000, "kB")];
    for (size, unit) in UNITS {
        if bytes >= size {
            let tenths = bytes / (size / 10);
            return format!("{}.{} {unit}", tenths / 10, tenths % 10);
        }
    }
    format!("{bytes} B")
}

/// `250 ms`, `2.5 s`, `3 min 20 s`.
pub(super) fn duration_for_people(ms: i128) -> String {
    match ms {
        ..1000 => format!("{} ms", ms.max(0)),
        1000..60_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        _ => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1000),
    }
}

/// Puts the pieces of a stream together to lines, without colours and overwritten progress bars.
#[derive(Default)]
pub(super) struct Lines(Vec<u8>);

impl Lines {
    /// The lines that became whole.
    pub(super) fn push(&mut self, data: &[u8]) -> Vec<String> {
        let mut whole = Vec::new();
        for piece in data.split_inclusive(|byte| *byte == b'\n') {
            self.0.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.0.len() > MAX_LINE_BYTES {
                whole.extend(self.rest());
            }
        }
        whole
    }

    /// What is left when the stream ends.
    pub(super) fn rest(&mut self) -> Option<String> {
        if self.0.is_empty() {
            return None;
        }
        let mut bytes = std::mem::take(&mut self.0);
        while matches!(bytes.last(), Some(b'\n' | b'\r')) {
            bytes.pop();
        }
        let shown = bytes.rsplit(|byte| *byte == b'\r').next().unwrap_or_default();
        Some(without_escapes(&String::from_utf8_lossy(shown)))
    }
}

/// Takes terminal control sequences (ECMA-48 section 5.4) and other control characters out.
fn without_escapes(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' if chars.peek() == Some(&'[') => {
                chars.next();
                for c in chars.by_ref() {
                    if ('@'..='~').contains(&c) {
                        break;
                    }
                }
            }
            '\t' => out.push('\t'),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_steps() {
        let cases = [
            ("[internal] load .dockerignore", None),
            ("resolve image config for docker-image://docker.io/x", None),
            (
                "[1/2] FROM 127.0.0.1:7071/bases/node:20@sha256:00",
                Some("[1/2] FROM bases/node:20"),
            ),
            (
                "[build 2/2] RUN --mount=a --network=none a   b\n c",
                Some("[build 2/2] RUN a b c"),
            ),
            ("[2/2] COPY --from=build /a /b", Some("[2/2] COPY /a /b")),
            (
                "[install 4/4] RUN --mount=a <<'FERROVIA' (# npm ci, or npm install...)",
                Some("[install 4/4] npm ci, or npm install"),
            ),
            ("[2/3] RUN <<EOF (make all)", Some("[2/3] RUN make all")),
            ("exporting to image", Some("push")),
        ];
        for (vertex, name) in cases {
            assert_eq!(step_name(vertex).as_deref(), name, "{vertex}");
        }
        let long = step_name(&format!("[1/1] RUN {}", "x".repeat(500))).unwrap();
        assert_eq!(long.chars().count(), MAX_NAME_CHARS);
    }

    #[test]
    fn sizes_and_times() {
        assert_eq!(bytes_for_people(999), "999 B");
        assert_eq!(bytes_for_people(45_250_000), "45.2 MB");
        assert_eq!(duration_for_people(200_000), "3 min 20 s");
    }

    #[test]
    fn a_line_without_an_end_is_cut() {
        let mut lines = Lines::default();
        assert!(!lines.push(&[b'x'; MAX_LINE_BYTES + 1]).is_empty());
    }
}
