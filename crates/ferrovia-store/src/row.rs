//! From columns to the words of the domain; what does not fit is a row that this release cannot read.

use std::net::Ipv4Addr;

use ferrovia_core::name::Name;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::Error;

/// A name.
pub(crate) fn name(table: &'static str, text: &str) -> Result<Name, Error> {
    text.parse().map_err(|error| Error::corrupt(table, error))
}

/// A number that the domain counts from zero.
pub(crate) fn count(table: &'static str, number: i32) -> Result<u32, Error> {
    u32::try_from(number).map_err(|_| Error::corrupt(table, format!("{number} is negative")))
}

/// An address, read by `host(…)`.
pub(crate) fn address(table: &'static str, text: &str) -> Result<Ipv4Addr, Error> {
    text.parse()
        .map_err(|_| Error::corrupt(table, format!("`{text}` is no IPv4 address")))
}

/// A value of the domain kept as JSON.
pub(crate) fn from_json<T: DeserializeOwned>(table: &'static str, value: Value) -> Result<T, Error> {
    serde_json::from_value(value).map_err(|error| Error::corrupt(table, error))
}

/// A value of the domain to be kept as JSON.
pub(crate) fn to_json<T: Serialize>(table: &'static str, value: &T) -> Result<Value, Error> {
    serde_json::to_value(value).map_err(|error| Error::corrupt(table, error))
}

/// Why an update with a version check met no row.
pub(crate) fn stale_or_missing(what: &'static str, key: impl ToString, living: bool) -> Error {
    let key = key.to_string();
    if living {
        Error::Stale { what, key }
    } else {
        Error::NotFound { what, key }
    }
}
