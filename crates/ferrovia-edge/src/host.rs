//! Which host a request is for (RFC 9112 section 3.2).
//!
//! Exactly one answer or a refusal: two `Host` fields, a list, user information or characters that no host name has
//! are refused, since the application behind might read them differently.

use std::borrow::Cow;

use http::header::HOST;
use http::{HeaderMap, Uri, Version};

/// Longest host name in bytes (RFC 1035 section 2.3.4).
const MAX_HOST_BYTES: usize = 253;

/// Why a request's host is not usable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// No host is named.
    #[error("the request names no host")]
    Missing,
    /// More than one is named.
    #[error("the request names more than one host")]
    Several,
    /// What is named is no host.
    #[error("the request's host is not a host name")]
    Invalid,
}

/// The host a request is for: lower case, without port and trailing dot. The request target wins over the field, which
/// must be there nevertheless in HTTP/1.1.
///
/// # Errors
/// [`HostError`]: the request is to be refused.
pub fn of_request<'a>(
    version: Version,
    uri: &'a Uri,
    headers: &'a HeaderMap,
) -> Result<Cow<'a, str>, HostError> {
    let mut fields = headers.get_all(HOST).iter();
    let field = fields.next();
    if fields.next().is_some() {
        return Err(HostError::Several);
    }
    let field = match field {
        Some(value) => Some(value.to_str().map_err(|_| HostError::Invalid)?),
        None if version == Version::HTTP_11 => return Err(HostError::Missing),
        None => None,
    };
    match (uri.authority(), field) {
        (Some(authority), _) => normalised(authority.as_str()),
        (None, Some(field)) => normalised(field),
        (None, None) => Err(HostError::Missing),
    }
}

/// A host with or without port as it stands in the table.
///
/// # Errors
/// [`HostError::Missing`] for an empty one, [`HostError::Invalid`] for one that is none.
pub fn normalised(text: &str) -> Result<Cow<'_, str>, HostError> {
    let (host, port) = match text.rfind(':') {
        // The last colon of an address in brackets may belong to it.
        Some(at) if !text[at..].contains(']') => (&text[..at], &text[at + 1..]),
        _ => (text, ""),
    };
    if port.len() > 5 || !port.bytes().all(|b| b.is_ascii_digit()) {
        return Err(HostError::Invalid);
    }
    let literal = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    if let Some(literal) = literal {
        return match literal.parse::<std::net::Ipv6Addr>() {
            Ok(address) => Ok(Cow::Owned(format!("[{address}]"))),
            Err(_) => Err(HostError::Invalid),
        };
    }
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.is_empty() {
        return Err(HostError::Missing);
    }
    let valid = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    if host.len() > MAX_HOST_BYTES || !host.bytes().all(valid) || host.starts_with('.') || host.contains("..")
    {
        return Err(HostError::Invalid);
    }
    Ok(if host.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ports_dots_and_case_do_not_matter() {
        for text in [
            "shop.example",
            "SHOP.example:80",
            "shop.example.",
            "Shop.Example.:65535",
            "shop.example:",
        ] {
            assert_eq!(normalised(text).unwrap(), "shop.example", "{text}");
        }
        assert_eq!(normalised("[::1]:8080").unwrap(), "[::1]");
        assert_eq!(normalised("[0:0::1]").unwrap(), "[::1]");
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for text in [
            "a b", "user@a", "a,b", "a/b", "a:b", "a:80:80", "a:123456", "[::1", "::1", "[x]", "a..b", ".a",
            "a\0",
        ] {
            assert_eq!(normalised(text), Err(HostError::Invalid), "{text}");
        }
        for text in ["", ":80", "."] {
            assert_eq!(normalised(text), Err(HostError::Missing), "{text}");
        }
    }

    #[test]
    fn the_target_wins_and_two_fields_lose() {
        let headers = |hosts: &[&'static str]| {
            let mut map = HeaderMap::new();
            for host in hosts {
                map.append(HOST, HeaderValue::from_static(host));
            }
            map
        };
        let absolute: Uri = "http://a.example:8080/x".parse().unwrap();
        let origin: Uri = "/x".parse().unwrap();
        let of = |version, uri: &Uri, hosts: &[&'static str]| {
            of_request(version, uri, &headers(hosts)).map(Cow::into_owned)
        };
        assert_eq!(
            of(Version::HTTP_11, &absolute, &["b.example"]).unwrap(),
            "a.example"
        );
        assert_eq!(of(Version::HTTP_11, &absolute, &[]), Err(HostError::Missing));
        assert_eq!(of(Version::HTTP_10, &absolute, &[]).unwrap(), "a.example");
        assert_eq!(
            of(Version::HTTP_11, &origin, &["a", "a"]),
            Err(HostError::Several)
        );
        assert_eq!(of(Version::HTTP_10, &origin, &[]), Err(HostError::Missing));
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_is_normal(text in "[ -~]{0,40}") {
            if let Ok(host) = normalised(&text) {
                prop_assert!(!host.is_empty());
                prop_assert!(!host.bytes().any(|b| b.is_ascii_uppercase() || b == b'@' || b == b'/' || b == b' '));
                prop_assert_eq!(normalised(&host).unwrap(), host.clone());
                let with_port = format!("{host}:443");
                prop_assert_eq!(normalised(&with_port).unwrap(), host);
            }
        }
    }
}
