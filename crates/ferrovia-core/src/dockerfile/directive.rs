//! Parser directives at the head of a Dockerfile, found as BuildKit finds them.
//!
//! `syntax` makes BuildKit fetch and run another program as its frontend. BuildKit looks for it behind `#`, behind `//`
//! and as a key of a file that is JSON, after a byte order mark and a `#!` line. The search here accepts a little more
//! than BuildKit's: a comment that is neutralised needlessly costs nothing.

/// A Dockerfile without `syntax` directives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neutralised {
    /// The bytes, with as many lines as before (one more for JSON).
    pub content: Vec<u8>,
    /// The frontends that were asked for.
    pub removed: Vec<String>,
}

/// What stands where a directive stood.
const PLACE_HOLDER: &[u8] = b"# (the syntax directive is not followed)";

/// Takes every `syntax` directive out. Other directives stay directives: they move up, since a comment that is none ends
/// BuildKit's search for them.
pub fn neutralise_syntax(dockerfile: &[u8]) -> Neutralised {
    let mut content = dockerfile.to_vec();
    let mut removed = Vec::new();
    for comment in [&b"#"[..], b"//"] {
        let head = head(&content, comment);
        let asked: Vec<_> = head
            .directives
            .iter()
            .filter(|d| d.key == "syntax")
            .map(|d| d.value.clone())
            .collect();
        if asked.is_empty() {
            continue;
        }
        removed.extend(asked);
        let others = head.directives.iter().filter(|d| d.key != "syntax");
        let mut lines: Vec<_> = others.map(|d| content[d.start..d.end].to_vec()).collect();
        lines.resize(head.directives.len(), PLACE_HOLDER.to_vec());
        let mut rebuilt = content[..head.start].to_vec();
        rebuilt.extend(lines.join(&b'\n'));
        rebuilt.extend_from_slice(&content[head.end..]);
        content = rebuilt;
    }
    // No instruction begins with a brace, so nothing is lost when every document that could be JSON stops being it; to
    // parse it would mean to parse it exactly as BuildKit does.
    if without_preamble(&content).1.trim_ascii_start().starts_with(b"{") {
        removed.push("(in a JSON document)".to_owned());
        content = [PLACE_HOLDER, b"\n", content.as_slice()].concat();
    }
    Neutralised { content, removed }
}

/// The character that continues a line: the `escape` directive's, else a backslash.
pub(super) fn escape_character(dockerfile: &[u8]) -> char {
    let head = head(dockerfile, b"#");
    let escape = head.directives.iter().find(|directive| directive.key == "escape");
    match escape {
        Some(directive) if directive.value == "`" => '`',
        _ => '\\',
    }
}

/// The lines of directives at the head of a file.
struct Head {
    /// Offset of the first byte that can be a directive.
    start: usize,
    /// Offset after the last directive's line, without its line feed.
    end: usize,
    directives: Vec<Directive>,
}

struct Directive {
    start: usize,
    end: usize,
    key: String,
    value: String,
}

fn head(content: &[u8], comment: &[u8]) -> Head {
    let (start, body) = without_preamble(content);
    let mut head = Head {
        start,
        end: start,
        directives: Vec::new(),
    };
    let mut at = start;
    for line in body.split(|b| *b == b'\n') {
        let Some((key, value)) = directive(line, comment) else {
            break;
        };
        let end = at + line.len();
        head.directives.push(Directive {
            start: at,
            end,
            key,
            value,
        });
        head.end = end;
        at = end + 1;
    }
    head
}

/// Where the content begins after a byte order mark and a `#!` line.
fn without_preamble(content: &[u8]) -> (usize, &[u8]) {
    let mut start = if content.starts_with(&[0xEF, 0xBB, 0xBF]) {
        3
    } else {
        0
    };
    if content[start..].starts_with(b"#!") {
        let line = content[start..].iter().position(|b| *b == b'\n');
        start = line.map_or(content.len(), |length| start + length + 1);
    }
    (start, &content[start..])
}

fn directive(line: &[u8], comment: &[u8]) -> Option<(String, String)> {
    let line = String::from_utf8_lossy(line.strip_prefix(comment)?).into_owned();
    let line = line.trim_start();
    let end = line.find(|c: char| !c.is_ascii_alphanumeric())?;
    let (key, rest) = line.split_at(end);
    let value = rest.trim_start().strip_prefix('=')?;
    // BuildKit's pattern wants one character that is not its idea of a space.
    let value = value.trim_matches(['\t', '\n', '\x0c', '\r', ' ']);
    let key = key.to_ascii_lowercase();
    let known = matches!(key.as_str(), "syntax" | "escape" | "check");
    (known && !value.is_empty()).then(|| (key, value.to_owned()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn neutral(text: &str) -> (String, Vec<String>) {
        let Neutralised { content, removed } = neutralise_syntax(text.as_bytes());
        (String::from_utf8(content).unwrap(), removed)
    }

    #[test]
    fn every_form_is_found() {
        for text in [
            "# syntax=evil\nFROM a",
            "#syntax = evil\r\nFROM a",
            "#\u{a0} SYNTAX\t=\tevil  \nFROM a",
            "\u{feff}# syntax=evil\nFROM a",
            "#!/usr/bin/env docker\n# syntax=evil\nFROM a",
            "\u{feff}#!x\n# check=skip=all\n# syntax=evil\nFROM a",
            "// syntax=evil\nFROM a",
            "#!x\n//syntax=evil\nFROM a",
        ] {
            let (content, removed) = neutral(text);
            assert_eq!(removed, ["evil"], "{text:?}");
            assert!(neutral(&content).1.is_empty(), "{content:?}");
        }
    }

    #[test]
    fn json_is_no_dockerfile() {
        for text in [
            "{\"syntax\": \"evil\"}",
            "\n{\n\"a\": 1, \"syntax\": \"evil\"}\n",
            "#!x\n {\"syntax\":\"evil\"}",
        ] {
            let (content, removed) = neutral(text);
            assert_eq!(removed.len(), 1, "{text:?}");
            assert!(serde_json::from_str::<serde_json::Value>(&content).is_err());
            assert!(neutral(&content).1.is_empty(), "{content:?}");
        }
    }

    #[test]
    fn others_stay_and_so_do_line_numbers() {
        let (content, _) = neutral("# syntax=evil\n# escape=`\n# check=skip=all\nFROM a\n");
        assert_eq!(
            content,
            "# escape=`\n# check=skip=all\n# (the syntax directive is not followed)\nFROM a\n"
        );
        let (content, removed) = neutral("# syntax=a\n# syntax=b\nFROM a");
        assert_eq!((content.lines().count(), removed.len()), (3, 2));
    }

    #[test]
    fn what_is_no_directive_stays() {
        for text in [
            "FROM a\n# syntax=x",
            "\n# syntax=x\nFROM a",
            "# hello\n# syntax=x",
            "# syntax=\nFROM a",
            " # syntax=x",
            "",
        ] {
            assert_eq!(neutral(text), (text.to_owned(), vec![]), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_is_left_after_once(
            text in "(\u{feff}|#!x\n)?(([#/]{1,2} ?)?(syntax|escape|check|a)? ?=? ?[a-b ]{0,2}\r?\n){0,5}"
        ) {
            let once = neutralise_syntax(text.as_bytes());
            prop_assert!(neutralise_syntax(&once.content).removed.is_empty(), "{:?}", text);
        }
    }
}
