//! Names that people give: of projects, environments and services. Each is one DNS label (RFC 1123 section 2.1).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest name, in bytes: room for `SERVICE-ENVIRONMENT` and a suffix in most labels of 63 bytes.
pub const MAX_NAME_BYTES: usize = 40;

/// A lower-case DNS label of at most [`MAX_NAME_BYTES`] bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// Why a text is not a [`Name`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing was given.
    #[error("a name must not be empty")]
    Empty,
    /// More than [`MAX_NAME_BYTES`] bytes.
    #[error("a name has at most {MAX_NAME_BYTES} bytes, this one has {0}")]
    TooLong(usize),
    /// Something other than `a-z`, `0-9` and inner hyphens.
    #[error(
        "`{0}` is not a name: use lower-case letters, digits and hyphens, and begin and end with a letter or digit"
    )]
    Characters(String),
}

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name that comes closest to a free text such as a directory's name; `None` if nothing of it is usable.
    pub fn from_text(text: &str) -> Option<Self> {
        let mut label = String::new();
        for c in text.chars() {
            match c.to_ascii_lowercase() {
                c @ ('a'..='z' | '0'..='9') => label.push(c),
                _ if !label.ends_with('-') && !label.is_empty() => label.push('-'),
                _ => {}
            }
        }
        label.truncate(MAX_NAME_BYTES);
        let label = label.trim_end_matches('-');
        (!label.is_empty()).then(|| Self(label.to_owned()))
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > MAX_NAME_BYTES {
            return Err(NameError::TooLong(text.len()));
        }
        let inner = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '-');
        if !text.chars().all(inner) || text.starts_with('-') || text.ends_with('-') {
            return Err(NameError::Characters(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_text_becomes_a_label() {
        assert_eq!(Name::from_text("My  App_2!").unwrap().as_str(), "my-app-2");
        assert_eq!(Name::from_text("--x--").unwrap().as_str(), "x");
        assert_eq!(Name::from_text("äöü"), None);
    }

    #[test]
    fn what_is_no_label_is_refused() {
        for text in ["", "-a", "a-", "A", "a.b", "a_b", &"a".repeat(41)] {
            assert!(text.parse::<Name>().is_err(), "{text}");
        }
    }
}
