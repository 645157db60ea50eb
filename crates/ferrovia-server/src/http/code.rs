//! Codes that the HTTP layer itself refuses with; those of use cases are in `ferrovia_control::usecase::code`.

use ferrovia_core::error::Class;
use http::StatusCode;

/// A stable word for a refusal, with its class and status.
#[derive(Debug)]
pub struct HttpCode {
    /// Snake case; `docs/error-codes/CODE.md` explains it.
    pub name: &'static str,
    /// What kind of failure.
    pub class: Class,
    /// The status of the answer.
    pub status: StatusCode,
}

const fn code(name: &'static str, class: Class, status: StatusCode) -> HttpCode {
    HttpCode { name, class, status }
}

/// The request has no token, or one that is not good.
pub const UNAUTHENTICATED: HttpCode = code("unauthenticated", Class::Denied, StatusCode::UNAUTHORIZED);
/// Too many wrong tokens from one place.
pub const TOO_MANY_FAILURES: HttpCode =
    code("too_many_failures", Class::Limit, StatusCode::TOO_MANY_REQUESTS);
/// Too many requests or streams at once.
pub const TOO_MANY_REQUESTS: HttpCode =
    code("too_many_requests", Class::Limit, StatusCode::TOO_MANY_REQUESTS);
/// The body is no JSON.
pub const JSON_INVALID: HttpCode = code("json_invalid", Class::Invalid, StatusCode::BAD_REQUEST);
/// A field of the body is missing, unknown or of the wrong type.
pub const FIELD_INVALID: HttpCode = code("field_invalid", Class::Invalid, StatusCode::UNPROCESSABLE_ENTITY);
/// A parameter of the path or the query is wrong.
pub const PARAMETER_INVALID: HttpCode = code("parameter_invalid", Class::Invalid, StatusCode::BAD_REQUEST);
/// A header is wrong.
pub const HEADER_INVALID: HttpCode = code("header_invalid", Class::Invalid, StatusCode::BAD_REQUEST);
/// The request cannot be understood.
pub const REQUEST_INVALID: HttpCode = code("request_invalid", Class::Invalid, StatusCode::BAD_REQUEST);
/// The body is not of the type that is wanted.
pub const MEDIA_TYPE_UNSUPPORTED: HttpCode = code(
    "media_type_unsupported",
    Class::Invalid,
    StatusCode::UNSUPPORTED_MEDIA_TYPE,
);
/// The body is too large.
pub const BODY_TOO_LARGE: HttpCode = code("body_too_large", Class::Limit, StatusCode::PAYLOAD_TOO_LARGE);
/// No such path.
pub const ROUTE_NOT_FOUND: HttpCode = code("route_not_found", Class::NotFound, StatusCode::NOT_FOUND);
/// The path does not take this method.
pub const METHOD_NOT_ALLOWED: HttpCode = code(
    "method_not_allowed",
    Class::Invalid,
    StatusCode::METHOD_NOT_ALLOWED,
);
/// The request took too long, or its body stopped coming.
pub const TIMED_OUT: HttpCode = code("timed_out", Class::Transient, StatusCode::REQUEST_TIMEOUT);
/// The request was not done in time.
pub const DEADLINE_PASSED: HttpCode = code(
    "deadline_passed",
    Class::Transient,
    StatusCode::SERVICE_UNAVAILABLE,
);
/// A mistake in Ferrovia.
pub const INTERNAL: HttpCode = code("internal", Class::Bug, StatusCode::INTERNAL_SERVER_ERROR);

/// All of them.
pub const ALL: [&HttpCode; 15] = [
    &UNAUTHENTICATED,
    &TOO_MANY_FAILURES,
    &TOO_MANY_REQUESTS,
    &JSON_INVALID,
    &FIELD_INVALID,
    &PARAMETER_INVALID,
    &HEADER_INVALID,
    &REQUEST_INVALID,
    &MEDIA_TYPE_UNSUPPORTED,
    &BODY_TOO_LARGE,
    &ROUTE_NOT_FOUND,
    &METHOD_NOT_ALLOWED,
    &TIMED_OUT,
    &DEADLINE_PASSED,
    &INTERNAL,
];
