//! Variables: what may stand in a key and a value, what refers to what, and what a service gets in the end.
//!
//! A value is taken literally, byte for byte, but for references: `${{shared.KEY}}` (a shared variable of the
//! environment), `${{Service.KEY}}` (another service's) and `${{KEY}}` (the service's own). What stands between
//! `${{` and `}}` and has none of these forms is literal too. A reference that leads nowhere is an error before
//! anything is built, since an application that starts with half of its configuration does more harm than none.
//!
//! Deliberately absent: shell expansion, defaults, functions, nested references.

pub mod dotenv;
mod reference;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use reference::{Place, Reference, ResolveError, Universe, references, resolve};

/// Longest key, in bytes.
pub const MAX_KEY_BYTES: usize = 256;
/// Longest `KEY=VALUE` in bytes: Linux takes 128 KiB for one string of an environment, its final NUL included.
pub const MAX_ENTRY_BYTES: usize = 128 * 1024 - 1;
/// Longest value, in bytes, whatever its key.
pub const MAX_VALUE_BYTES: usize = MAX_ENTRY_BYTES - MAX_KEY_BYTES - 1;
/// Most variables of one service, or shared ones of one environment.
pub const MAX_VARIABLES: usize = 1_000;
/// Most bytes of all keys and values of one service together: Linux takes 2 MiB with the arguments.
pub const MAX_TOTAL_BYTES: usize = 1024 * 1024;

/// A variable's name: a letter or underscore, then letters, digits and underscores, at most [`MAX_KEY_BYTES`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Key(String);

/// Why a text is not a [`Key`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Nothing was given.
    #[error("a variable's name must not be empty")]
    Empty,
    /// More than [`MAX_KEY_BYTES`] bytes.
    #[error("a variable's name has at most {MAX_KEY_BYTES} bytes, this one has {0}")]
    TooLong(usize),
    /// Something other than `A-Z`, `a-z`, `_` and, past the first place, `0-9`.
    #[error(
        "`{0}` is not a variable's name: use letters, digits and underscores, and do not begin with a digit"
    )]
    Characters(String),
}

impl Key {
    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Key {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        if text.is_empty() {
            return Err(KeyError::Empty);
        }
        if text.len() > MAX_KEY_BYTES {
            return Err(KeyError::TooLong(text.len()));
        }
        let good = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !good || text.as_bytes()[0].is_ascii_digit() {
            return Err(KeyError::Characters(text.chars().take(64).collect()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for Key {
    type Error = KeyError;

    fn try_from(text: String) -> Result<Self, KeyError> {
        text.parse()
    }
}

impl From<Key> for String {
    fn from(key: Key) -> Self {
        key.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is not a value. Says nothing of the text itself: it may be a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// It holds a NUL, which no environment of a process can carry.
    #[error("a value must not contain a NUL character")]
    Nul,
    /// More than [`MAX_VALUE_BYTES`] bytes.
    #[error("a value has at most {MAX_VALUE_BYTES} bytes, this one has {0}")]
    TooLong(usize),
}

/// Whether a text can be a value.
///
/// # Errors
/// [`ValueError`] says why not.
pub fn check_value(value: &str) -> Result<(), ValueError> {
    if value.len() > MAX_VALUE_BYTES {
        Err(ValueError::TooLong(value.len()))
    } else if value.contains('\0') {
        Err(ValueError::Nul)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        for good in ["A", "_", "a9_", "PATH"] {
            assert!(good.parse::<Key>().is_ok(), "{good}");
        }
        for bad in ["", "9A", "A-B", "A.B", "A B", "Ä", "A=B", &"A".repeat(257)] {
            assert!(bad.parse::<Key>().is_err(), "{bad}");
        }
    }

    #[test]
    fn values() {
        assert_eq!(check_value(&"ü$'\"\n".repeat(17_000)), Ok(()));
        assert_eq!(check_value("a\0b"), Err(ValueError::Nul));
        assert!(check_value(&"x".repeat(MAX_VALUE_BYTES)).is_ok());
        assert!(check_value(&"x".repeat(MAX_VALUE_BYTES + 1)).is_err());
    }
}
