//! `.env` files, as people have them: `KEY=VALUE` lines, comments, quotes, values over several lines.
//!
//! Values are never expanded: `$HOME` stays `$HOME`. Rules: `'…'` and `` `…` `` are literal, over several lines if
//! need be; `"…"` knows `\n`, `\r`, `\t`, `\"`, `\\` and `\$`; without quotes a value ends at the line's end or before
//! ` #`, and loses the blanks around it. A file that begins with `{` is read as a JSON object of texts.

use super::{Key, KeyError, ValueError, check_value};

/// A file that cannot be read, with the place. Never says what stands there: it may be a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct ImportError {
    /// Counted from 1; where the entry begins.
    pub line: usize,
    /// What is wrong there.
    pub why: ImportFault,
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImportFault {
    /// No `=`.
    #[error("expected `KEY=VALUE`")]
    NoEquals,
    /// The key cannot be one.
    #[error("{0}")]
    Key(#[from] KeyError),
    /// The value cannot be one.
    #[error("{0}")]
    Value(#[from] ValueError),
    /// A quote is never closed.
    #[error("the quote `{0}` is not closed")]
    Unclosed(char),
    /// Something other than a comment follows a closing quote.
    #[error("only a comment may follow a closing quote")]
    AfterQuote,
    /// Not a JSON object of texts.
    #[error("expected a JSON object whose values are texts")]
    Json,
}

/// The variables of a file, in order; the last of two with one key wins.
///
/// # Errors
/// [`ImportError`] for the first entry that is wrong.
pub fn parse(text: &str) -> Result<Vec<(Key, String)>, ImportError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let entries = if text.trim_start().starts_with('{') {
        parse_json(text)?
    } else {
        Reader { rest: text, line: 1 }.entries()?
    };
    let mut found: Vec<(Key, String)> = Vec::with_capacity(entries.len());
    for (key, value) in entries {
        found.retain(|(other, _)| *other != key);
        found.push((key, value));
    }
    Ok(found)
}

/// A line that [`parse`] reads back as exactly this value.
pub fn line(key: &Key, value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:@%+,=".contains(c);
    if !value.is_empty() && value.chars().all(plain) {
        return format!("{key}={value}");
    }
    let mut quoted = String::with_capacity(value.len() + 2);
    for c in value.chars() {
        match c {
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '"' | '\\' | '$' => quoted.extend(['\\', c]),
            c => quoted.push(c),
        }
    }
    format!("{key}=\"{quoted}\"")
}

fn parse_json(text: &str) -> Result<Vec<(Key, String)>, ImportError> {
    let wrong = |line, why| ImportError { line, why };
    let object: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(text).map_err(|error| wrong(error.line().max(1), ImportFault::Json))?;
    let mut entries = Vec::with_capacity(object.len());
    for (key, value) in object {
        let serde_json::Value::String(value) = value else {
            return Err(wrong(1, ImportFault::Json));
        };
        let key = key.parse::<Key>().map_err(|error| wrong(1, error.into()))?;
        check_value(&value).map_err(|error| wrong(1, error.into()))?;
        entries.push((key, value));
    }
    Ok(entries)
}

struct Reader<'a> {
    rest: &'a str,
    line: usize,
}

impl<'a> Reader<'a> {
    fn entries(mut self) -> Result<Vec<(Key, String)>, ImportError> {
        let mut entries = Vec::new();
        while !self.rest.is_empty() {
            let line = self.line;
            match self.entry() {
                Ok(Some(entry)) => entries.push(entry),
                Ok(None) => {}
                Err(why) => return Err(ImportError { line, why }),
            }
        }
        Ok(entries)
    }

    /// Takes so many bytes, counting lines.
    fn take(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.line += taken.matches('\n').count();
        self.rest = rest;
        taken
    }

    /// Takes to the end of the line, without it.
    fn take_line(&mut self) -> &'a str {
        let end = self.rest.find('\n').map_or(self.rest.len(), |at| at + 1);
        let line = self.take(end);
        let line = line.strip_suffix('\n').unwrap_or(line);
        line.strip_suffix('\r').unwrap_or(line)
    }

    fn skip_blanks(&mut self) {
        let blanks = self.rest.len() - self.rest.trim_start_matches([' ', '\t']).len();
        self.take(blanks);
    }

    fn entry(&mut self) -> Result<Option<(Key, String)>, ImportFault> {
        self.skip_blanks();
        if self.rest.starts_with(['\n', '\r', '#']) || self.rest.is_empty() {
            self.take_line();
            return Ok(None);
        }
        let line_end = self.rest.find('\n').unwrap_or(self.rest.len());
        let equals = self.rest[..line_end].find('=').ok_or(ImportFault::NoEquals)?;
        let key = self.take(equals).trim();
        let key = key
            .strip_prefix("export ")
            .map_or(key, str::trim_start)
            .parse::<Key>()?;
        self.take(1);
        self.skip_blanks();
        let value = match self.rest.chars().next() {
            Some(quote @ ('\'' | '`')) => self.literal(quote)?,
            Some('"') => self.escaped()?,
            _ => return self.unquoted().map(|value| Some((key, value))),
        };
        check_value(&value)?;
        let after = self.take_line().trim();
        if !after.is_empty() && !after.starts_with('#') {
            return Err(ImportFault::AfterQuote);
        }
        Ok(Some((key, value)))
    }

    fn unquoted(&mut self) -> Result<String, ImportFault> {
        let line = self.take_line();
        let line = if line.starts_with('#') { "" } else { line };
        let end = line
            .match_indices('#')
            .find(|(at, _)| line[..*at].ends_with([' ', '\t']))
            .map_or(line.len(), |(at, _)| at);
        let value = line[..end].trim().to_owned();
        check_value(&value)?;
        Ok(value)
    }

    fn literal(&mut self, quote: char) -> Result<String, ImportFault> {
        self.take(1);
        let end = self.rest.find(quote).ok_or(ImportFault::Unclosed(quote))?;
        let value = self.take(end).to_owned();
        self.take(1);
        Ok(value)
    }

    fn escaped(&mut self) -> Result<String, ImportFault> {
        self.take(1);
        let mut value = String::new();
        let mut chars = self.rest.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.take(at + 1);
                    return Ok(value);
                }
                '\\' => match chars.next().map(|(_, c)| c) {
                    Some('n') => value.push('\n'),
                    Some('r') => value.push('\r'),
                    Some('t') => value.push('\t'),
                    Some(c @ ('"' | '\\' | '$')) => value.push(c),
                    Some(other) => value.extend(['\\', other]),
                    None => break,
                },
                c => value.push(c),
            }
        }
        Err(ImportFault::Unclosed('"'))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        parse(text)
            .unwrap()
            .into_iter()
            .map(|(key, value)| (key.to_string(), value))
            .collect()
    }

    fn pair(key: &str, value: &str) -> (String, String) {
        (key.to_owned(), value.to_owned())
    }

    #[test]
    fn what_people_write() {
        let text = "\u{feff}# a comment\r\n\
            A=1\r\n\
            export B = two words # and a comment\n\
            \n\
            C=a#b\n\
            D='sin$gle \\n #'   # comment\n\
            E=\"dou\\\"ble\\n\\$HOME \\x\"\n\
            F=\"first\nsecond\"\n\
            G=\n\
            H= # nothing\n\
            I=`it's \"both\"`\n\
            J=$HOME/${X}\n\
            A=last";
        assert_eq!(
            pairs(text),
            [
                pair("B", "two words"),
                pair("C", "a#b"),
                pair("D", "sin$gle \\n #"),
                pair("E", "dou\"ble\n$HOME \\x"),
                pair("F", "first\nsecond"),
                pair("G", ""),
                pair("H", ""),
                pair("I", "it's \"both\""),
                pair("J", "$HOME/${X}"),
                pair("A", "last"),
            ]
        );
        assert_eq!(pairs("{\"A\": \"x\\ny\"}"), [pair("A", "x\ny")]);
    }

    #[test]
    fn errors_name_the_line_and_not_the_value() {
        let error = |text| parse(text).unwrap_err().to_string();
        assert_eq!(error("A=1\n\nsecret"), "line 3: expected `KEY=VALUE`");
        assert_eq!(error("A='x\ny"), "line 1: the quote `'` is not closed");
        assert_eq!(
            error("A=\"x\ny\"\nB=\"z\" w"),
            "line 3: only a comment may follow a closing quote"
        );
        assert!(error("1A=x").starts_with("line 1: `1A` is not a variable's name"));
        assert!(error("{\"A\": 1}").contains("JSON object"));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(values in proptest::collection::vec("[^\0]{0,60}", 1..6)) {
            let text: Vec<String> = values
                .iter()
                .enumerate()
                .map(|(n, value)| line(&format!("K{n}").parse().unwrap(), value))
                .collect();
            let read: Vec<String> = parse(&text.join("\n")).unwrap().into_iter().map(|(_, v)| v).collect();
            prop_assert_eq!(read, values);
        }

        #[test]
        fn no_text_makes_it_fail_badly(text in ".{0,200}") {
            let _ = parse(&text);
        }
    }
}
