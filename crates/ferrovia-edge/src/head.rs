//! What is taken out of heads on their way through, and what is put in.
//!
//! First everything that belongs to one connection goes, with whatever `Connection` nominates (RFC 9110 section
//! 7.6.1); only then come the fields of our own, so that nobody can have them taken out by nominating them. What a
//! client says about itself in `X-Forwarded-…` and the like is believed from trusted addresses only.

use std::fmt::Write;
use std::net::IpAddr;

use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, Entry, FORWARDED, HOST, HeaderName, PROXY_AUTHORIZATION, TE,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Version};

/// Longest request id that is taken over from a client, in bytes.
const MAX_REQUEST_ID_BYTES: usize = 128;
/// Most addresses of a trusted `X-Forwarded-For` that are handed on, in bytes.
const MAX_FORWARDED_BYTES: usize = 1_024;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY: HeaderName = HeaderName::from_static("proxy");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const X_REQUEST_START: HeaderName = HeaderName::from_static("x-request-start");
const X_RAILWAY_REQUEST_ID: HeaderName = HeaderName::from_static("x-railway-request-id");

/// Fields that only somebody trusted may send, beside those that are always set anew.
static FORWARDING: [HeaderName; 10] = [
    FORWARDED,
    X_FORWARDED_FOR,
    X_FORWARDED_HOST,
    X_FORWARDED_PROTO,
    X_REAL_IP,
    HeaderName::from_static("x-forwarded-port"),
    HeaderName::from_static("x-forwarded-prefix"),
    HeaderName::from_static("x-forwarded-server"),
    HeaderName::from_static("x-forwarded-ssl"),
    HeaderName::from_static("x-railway-edge"),
];

/// Why a request's head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// A transfer coding that is not just `chunked`: nobody behind would undo it.
    #[error("the request's transfer coding is not supported")]
    TransferCoding,
    /// `CONNECT`: this is no forward proxy.
    #[error("`CONNECT` is not supported")]
    Connect,
}

/// What is known of a request beside its head.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// The address of the other end of the connection.
    pub client: IpAddr,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// When its head was complete, in milliseconds since 1970.
    pub received_ms: u64,
    /// Whether what the client says about others is believed.
    pub trusted: bool,
    /// The request's id.
    pub request_id: &'a HeaderValue,
}

/// Refuses heads that two parsers could read differently.
///
/// # Errors
/// [`HeadError`]: answer, close the connection.
pub fn check(method: &http::Method, headers: &HeaderMap) -> Result<(), HeadError> {
    if method == http::Method::CONNECT {
        return Err(HeadError::Connect);
    }
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(HeadError::TransferCoding),
    }
}

/// The protocol that a request wants to change to; `None` when it wants none, or only one that would let it pass
/// unseen (`h2c`).
pub fn upgrade(version: Version, headers: &HeaderMap) -> Option<HeaderValue> {
    if version != Version::HTTP_11
        || !names(headers, &CONNECTION).any(|name| name.eq_ignore_ascii_case("upgrade"))
    {
        return None;
    }
    let wanted = headers.get(UPGRADE)?;
    let mut protocols = names(headers, &UPGRADE).peekable();
    protocols.peek()?;
    (!protocols.any(|name| name.eq_ignore_ascii_case("h2c"))).then(|| wanted.clone())
}

/// Whether this is the WebSocket protocol.
pub fn is_websocket(protocol: &HeaderValue) -> bool {
    protocol.as_bytes().eq_ignore_ascii_case(b"websocket")
}

/// The id that a request comes with, if it is sane.
pub fn request_id(headers: &HeaderMap) -> Option<HeaderValue> {
    let id = headers.get(X_REQUEST_ID)?;
    let sane = |b: &u8| b.is_ascii_alphanumeric() || b"-_.~+/=:@".contains(b);
    let bytes = id.as_bytes();
    (!bytes.is_empty() && bytes.len() <= MAX_REQUEST_ID_BYTES && bytes.iter().all(sane)).then(|| id.clone())
}

/// Makes a client's head one for an application.
pub fn make_request(headers: &mut HeaderMap, upgrade: Option<HeaderValue>, origin: &Origin<'_>) {
    let trailers = names(headers, &TE).any(|coding| coding.eq_ignore_ascii_case("trailers"));
    strip(headers);
    for name in [EXPECT, PROXY, PROXY_AUTHORIZATION] {
        headers.remove(name);
    }
    remove_look_alikes(headers);
    let client = text(|text| write!(text, "{}", origin.client));
    if origin.trusted {
        forward_for(headers, &client);
        let host = headers.get(HOST).cloned();
        if let (Some(host), Entry::Vacant(entry)) = (host, headers.entry(X_FORWARDED_HOST)) {
            entry.insert(host);
        }
        if let Entry::Vacant(entry) = headers.entry(X_FORWARDED_PROTO) {
            entry.insert(HeaderValue::from_static(origin.scheme));
        }
        if let Entry::Vacant(entry) = headers.entry(X_REAL_IP) {
            entry.insert(client);
        }
    } else {
        for name in &FORWARDING {
            headers.remove(name);
        }
        if let Some(host) = headers.get(HOST).cloned() {
            headers.insert(X_FORWARDED_HOST, host);
        }
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(origin.scheme));
        headers.insert(X_FORWARDED_FOR, client.clone());
        headers.insert(X_REAL_IP, client);
    }
    headers.insert(X_REQUEST_START, HeaderValue::from(origin.received_ms));
    headers.insert(X_REQUEST_ID, origin.request_id.clone());
    headers.insert(X_RAILWAY_REQUEST_ID, origin.request_id.clone());
    if let Some(protocol) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol);
    } else if trailers {
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Whether it is beyond doubt where an application's answer ends, and what coding it is in: a transfer coding other
/// than `chunked` would reach the client as content (RFC 9112 section 6.1).
pub fn has_known_end(version: Version, headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(coding), None) => {
            version == Version::HTTP_11 && coding.as_bytes().eq_ignore_ascii_case(b"chunked")
        }
        _ => false,
    }
}

/// Makes an application's head one for a client.
pub fn make_response(headers: &mut HeaderMap, request_id: &HeaderValue) {
    strip(headers);
    if let Entry::Vacant(entry) = headers.entry(X_REQUEST_ID) {
        entry.insert(request_id.clone());
    }
    headers.insert(X_RAILWAY_REQUEST_ID, request_id.clone());
}

/// Makes the head of a change of protocol one for a client.
pub fn make_switch(headers: &mut HeaderMap, request_id: &HeaderValue) {
    let protocol = headers.get(UPGRADE).cloned();
    make_response(headers, request_id);
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    if let Some(protocol) = protocol {
        headers.insert(UPGRADE, protocol);
    }
}

/// Puts the id of a request that we answered ourselves into the answer.
pub fn name_answer(headers: &mut HeaderMap, request_id: &HeaderValue) {
    headers.insert(X_REQUEST_ID, request_id.clone());
    headers.insert(X_RAILWAY_REQUEST_ID, request_id.clone());
}

/// Removes what belongs to one connection only.
fn strip(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let nominated: Vec<HeaderName> = names(headers, &CONNECTION)
            .filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok())
            // Where a message goes and where it ends never belongs to one connection, whatever is nominated.
            .filter(|name| *name != HOST && *name != CONTENT_LENGTH && *name != TRANSFER_ENCODING)
            .collect();
        for name in nominated {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    if headers.contains_key(TRANSFER_ENCODING) {
        // Chunks say where the body ends; a length beside them is not passed on (RFC 9112 section 6.3).
        headers.remove(CONTENT_LENGTH);
    }
    for name in [KEEP_ALIVE, PROXY_CONNECTION, TE, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
    say_length_once(headers);
}

/// One length instead of the same one several times, which not everybody takes for the same (RFC 9110 section 8.6).
fn say_length_once(headers: &mut HeaderMap) {
    let Some(first) = headers.get(CONTENT_LENGTH) else {
        return;
    };
    let several = first.as_bytes().contains(&b',') || headers.get_all(CONTENT_LENGTH).iter().nth(1).is_some();
    if !several {
        return;
    }
    let length = names(headers, &CONTENT_LENGTH).next().map(str::to_owned);
    match length.and_then(|length| HeaderValue::try_from(length).ok()) {
        Some(length) => headers.insert(CONTENT_LENGTH, length),
        None => headers.remove(CONTENT_LENGTH),
    };
}

/// Removes fields that applications of the CGI family cannot tell from ours: `X_Forwarded_For`.
fn remove_look_alikes(headers: &mut HeaderMap) {
    if !headers.keys().any(|name| name.as_str().contains('_')) {
        return;
    }
    let ours = [
        HOST,
        CONTENT_LENGTH,
        TRANSFER_ENCODING,
        PROXY,
        X_REQUEST_ID,
        X_REQUEST_START,
        X_RAILWAY_REQUEST_ID,
    ];
    let alike: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().contains('_'))
        .filter(|name| {
            let dashed = name.as_str().replace('_', "-");
            ours.iter().chain(&FORWARDING).any(|own| own.as_str() == dashed)
        })
        .cloned()
        .collect();
    for name in alike {
        headers.remove(name);
    }
}

/// Appends the client to a trusted list of forwarders.
fn forward_for(headers: &mut HeaderMap, client: &HeaderValue) {
    let mut list = Vec::new();
    for before in headers.get_all(X_FORWARDED_FOR) {
        if list.len() + before.len() > MAX_FORWARDED_BYTES {
            break;
        }
        list.extend_from_slice(before.as_bytes());
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(client.as_bytes());
    let list = HeaderValue::from_bytes(&list).unwrap_or_else(|_| client.clone());
    headers.insert(X_FORWARDED_FOR, list);
}

/// The comma-separated names in all fields called `field`.
fn names<'a>(headers: &'a HeaderMap, field: &HeaderName) -> impl Iterator<Item = &'a str> + use<'a> {
    headers
        .get_all(field)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|name| !name.is_empty())
}

/// A value of ASCII text that we made ourselves.
fn text(write: impl FnOnce(&mut String) -> std::fmt::Result) -> HeaderValue {
    let mut text = String::with_capacity(48);
    match write(&mut text) {
        Ok(()) => HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("unknown")),
        Err(_) => HeaderValue::from_static("unknown"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: HeaderValue = HeaderValue::from_static("id-1");

    fn origin(trusted: bool) -> Origin<'static> {
        static ID: std::sync::LazyLock<HeaderValue> =
            std::sync::LazyLock::new(|| HeaderValue::from_static("id-1"));
        Origin {
            client: [192, 0, 2, 7].into(),
            scheme: "http",
            received_ms: 1_700_000_000_000,
            trusted,
            request_id: &ID,
        }
    }

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        headers
    }

    fn request(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = map(fields);
        make_request(&mut headers, None, &origin(false));
        headers
    }

    #[test]
    fn nominating_our_fields_does_not_take_them_out() {
        let headers = request(&[
            ("host", "a"),
            (
                "connection",
                "x-forwarded-for, X-Real-IP, x-request-id, host, content-length, x-custom",
            ),
            ("content-length", "3"),
            ("x-custom", "gone"),
            ("x-kept", "kept"),
        ]);
        assert_eq!(headers["x-forwarded-for"], "192.0.2.7");
        assert_eq!(headers["x-real-ip"], "192.0.2.7");
        assert_eq!(headers["x-request-id"], "id-1");
        assert_eq!(headers["host"], "a");
        assert_eq!(headers["content-length"], "3");
        assert_eq!(headers["x-kept"], "kept");
        assert!(!headers.contains_key("x-custom") && !headers.contains_key("connection"));
    }

    #[test]
    fn what_an_untrusted_client_says_about_others_is_replaced() {
        let headers = request(&[
            ("host", "a"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x_forwarded_for", "10.0.0.2"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil"),
            ("x-forwarded-port", "443"),
            ("forwarded", "for=10.0.0.1"),
            ("x-real-ip", "10.0.0.1"),
            ("proxy", "http://evil"),
            ("proxy-authorization", "x"),
            ("x-railway-request-id", "mine"),
        ]);
        assert_eq!(headers["x-forwarded-for"], "192.0.2.7");
        assert_eq!(headers["x-forwarded-proto"], "http");
        assert_eq!(headers["x-forwarded-host"], "a");
        assert_eq!(headers["x-railway-request-id"], "id-1");
        for gone in [
            "x_forwarded_for",
            "x-forwarded-port",
            "forwarded",
            "proxy",
            "proxy-authorization",
        ] {
            assert!(!headers.contains_key(gone), "{gone}");
        }
    }

    #[test]
    fn what_a_trusted_client_says_is_extended() {
        let mut headers = map(&[
            ("host", "a"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-proto", "https"),
        ]);
        make_request(&mut headers, None, &origin(true));
        assert_eq!(headers["x-forwarded-for"], "10.0.0.1, 192.0.2.7");
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["x-forwarded-host"], "a");
    }

    #[test]
    fn only_whole_and_visible_changes_of_protocol_are_wanted() {
        let wanted = |fields: &[(&str, &str)]| upgrade(Version::HTTP_11, &map(fields)).is_some();
        assert!(wanted(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket")
        ]));
        assert!(!wanted(&[("connection", "upgrade")]));
        assert!(!wanted(&[("upgrade", "websocket")]));
        assert!(!wanted(&[("connection", "upgrade"), ("upgrade", "h2c")]));
        assert!(!wanted(&[
            ("connection", "upgrade"),
            ("upgrade", "websocket"),
            ("upgrade", "x, H2C")
        ]));
        assert!(
            upgrade(
                Version::HTTP_10,
                &map(&[("connection", "upgrade"), ("upgrade", "websocket")])
            )
            .is_none()
        );
    }

    #[test]
    fn insane_request_ids_are_not_kept() {
        let kept = |id: &str| request_id(&map(&[("x-request-id", id)])).is_some();
        assert!(kept("0190b7a4-7c1e-7f3a-9d52-3f6a1c2b4d5e"));
        assert!(!kept(""));
        assert!(!kept("a b"));
        assert!(!kept("<script>"));
        assert!(!kept(&"a".repeat(129)));
    }

    #[test]
    fn transfer_codings_other_than_chunked_are_refused() {
        let with = |coding: &str| check(&http::Method::POST, &map(&[("transfer-encoding", coding)]));
        assert_eq!(with("Chunked"), Ok(()));
        for coding in ["gzip, chunked", "chunked, chunked", "identity", "chunked;x=1"] {
            assert_eq!(with(coding), Err(HeadError::TransferCoding), "{coding}");
        }
        assert_eq!(
            check(&http::Method::CONNECT, &HeaderMap::new()),
            Err(HeadError::Connect)
        );
    }

    proptest! {
        #[test]
        fn no_field_of_one_connection_ever_passes(
            connection in "[a-zA-Z ,-]{0,60}",
            fields in proptest::collection::vec(("(x-[a-z]{1,8}|te|upgrade|keep-alive|transfer-encoding|proxy-connection)", "[ -~]{0,20}"), 0..12),
        ) {
            let mut all: Vec<(&str, &str)> = fields.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            all.push(("host", "a"));
            all.push(("connection", &connection));
            let headers = request(&all);
            for name in ["upgrade", "keep-alive", "transfer-encoding", "proxy-connection"] {
                prop_assert!(!headers.contains_key(name), "{}", name);
            }
            if let Some(te) = headers.get("te") {
                prop_assert_eq!(te, "trailers");
                prop_assert_eq!(&headers["connection"], "te");
            } else {
                prop_assert!(!headers.contains_key("connection"));
            }
            for name in connection.split(',').map(str::trim).filter(|name| name.starts_with("x-")) {
                prop_assert!(!headers.contains_key(name) || FORWARDING.iter().any(|own| own.as_str().eq_ignore_ascii_case(name)));
            }
            prop_assert_eq!(headers.get_all("x-forwarded-for").iter().count(), 1);
            prop_assert_eq!(&headers["host"], "a");

            let mut answer = map(&all);
            make_response(&mut answer, &ID);
            prop_assert!(!answer.contains_key("connection") && !answer.contains_key("transfer-encoding"));
        }
    }
}
