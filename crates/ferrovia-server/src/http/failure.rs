//! From a failure to a problem document: the only place that knows which HTTP status a failure has.
//!
//! A handler gives a [`Failure`]; it travels in the extensions of a bare response, and the outermost layer
//! ([`super::frame`]) writes the document, since only that knows the request's id. Refusals of the framework itself
//! (no route, wrong method) have no [`Failure`] and get one there.

use axum::response::{IntoResponse, Response};
use ferrovia_api::problem::{Problem, ProblemClass, TYPE_PREFIX};
use ferrovia_control::usecase;
use ferrovia_core::error::{Class, Report};
use http::StatusCode;

use super::code::{self, HttpCode};

/// Why a request is not answered as asked.
#[derive(Debug, Clone)]
pub struct Failure(Box<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    status: StatusCode,
    class: Class,
    report: Report,
    field: Option<String>,
    retry_after_s: Option<u32>,
}

impl Failure {
    /// A refusal of the HTTP layer itself.
    pub fn new(code: &HttpCode, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            status: code.status,
            class: code.class,
            report: Report::new(code.name, message),
            field: None,
            retry_after_s: None,
        }))
    }

    /// The same with its remedy.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.report.hint = Some(hint.into());
        self
    }

    /// The same with the field, parameter or header that is wrong.
    #[must_use]
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.0.field = Some(field.into());
        self
    }

    /// The same, telling when to come again, in seconds.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.0.retry_after_s = Some(seconds);
        self
    }

    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// For the server's log.
    pub fn code(&self) -> &str {
        &self.0.report.code
    }

    /// When to come again, in seconds.
    pub fn retry_after_s(&self) -> Option<u32> {
        self.0.retry_after_s
    }

    /// The document.
    pub fn problem(self, request_id: &str) -> Problem {
        let Inner {
            status,
            class,
            report,
            field,
            retry_after_s: _,
        } = *self.0;
        Problem {
            kind: format!("{TYPE_PREFIX}{}", report.code),
            title: title(class).to_owned(),
            status: status.as_u16(),
            code: report.code,
            class: wire_class(class),
            detail: report.message,
            hint: report.hint,
            field,
            request_id: request_id.to_owned(),
        }
    }
}

impl From<usecase::Error> for Failure {
    fn from(error: usecase::Error) -> Self {
        let class = error.class();
        let code = error.report().code.clone();
        if class == Class::Bug {
            let mut next: Option<&dyn std::error::Error> = Some(&error);
            let mut chain = Vec::new();
            while let Some(error) = next {
                chain.push(error.to_string());
                next = error.source();
            }
            tracing::error!(code, error = chain.join(": "), "a request failed inside Ferrovia");
        }
        Self(Box::new(Inner {
            status: status_of(&code, class),
            class,
            field: error.wrong_field().map(str::to_owned),
            retry_after_s: class.is_retryable().then_some(1),
            report: error.report().clone(),
        }))
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = self.0.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// The status of a use case's refusal: by its class, but for the few that HTTP has a word of its own for.
fn status_of(code: &str, class: Class) -> StatusCode {
    match code {
        "unauthenticated" => StatusCode::UNAUTHORIZED,
        "changed_meanwhile" => StatusCode::PRECONDITION_FAILED,
        "exhausted" => StatusCode::CONFLICT,
        _ => match class {
            Class::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
            Class::Denied => StatusCode::FORBIDDEN,
            Class::NotFound => StatusCode::NOT_FOUND,
            Class::Conflict => StatusCode::CONFLICT,
            Class::Limit => StatusCode::PAYLOAD_TOO_LARGE,
            Class::Transient | Class::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Class::Bug => StatusCode::INTERNAL_SERVER_ERROR,
        },
    }
}

fn wire_class(class: Class) -> ProblemClass {
    match class {
        Class::Invalid => ProblemClass::Invalid,
        Class::Denied => ProblemClass::Denied,
        Class::NotFound => ProblemClass::NotFound,
        Class::Conflict => ProblemClass::Conflict,
        Class::Limit => ProblemClass::Limit,
        Class::Transient => ProblemClass::Transient,
        Class::Unavailable => ProblemClass::Unavailable,
        Class::Bug => ProblemClass::Bug,
    }
}

fn title(class: Class) -> &'static str {
    match class {
        Class::Invalid => "the request is wrong",
        Class::Denied => "this is not allowed",
        Class::NotFound => "this does not exist",
        Class::Conflict => "the state does not allow this",
        Class::Limit => "a limit was reached",
        Class::Transient => "it did not work this time",
        Class::Unavailable => "a part that is needed does not answer",
        Class::Bug => "a mistake in Ferrovia",
    }
}

/// The failure behind a status that came without one: from the framework or a layer.
pub fn of_status(status: StatusCode) -> Failure {
    match status {
        StatusCode::NOT_FOUND => Failure::new(&code::ROUTE_NOT_FOUND, "there is no such path in this API")
            .hint("`GET /v1/openapi.json` lists them"),
        StatusCode::METHOD_NOT_ALLOWED => {
            Failure::new(&code::METHOD_NOT_ALLOWED, "this path does not take this method")
                .hint("the `Allow` header lists those that it takes")
        }
        StatusCode::PAYLOAD_TOO_LARGE => Failure::new(&code::BODY_TOO_LARGE, "the body is too large"),
        StatusCode::REQUEST_TIMEOUT => Failure::new(&code::TIMED_OUT, "the request took too long"),
        status if status.is_client_error() => {
            let mut failure = Failure::new(&code::REQUEST_INVALID, "the request cannot be understood");
            failure.0.status = status;
            failure
        }
        status => {
            let mut failure = Failure::new(&code::INTERNAL, "something went wrong inside Ferrovia")
                .hint("the server's log tells more under the request's id");
            failure.0.status = status;
            failure
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_of_a_use_case_has_a_status_that_fits_its_class() {
        for code in usecase::code::ALL {
            let status = status_of(code.name, code.class);
            assert_eq!(
                status.is_server_error(),
                matches!(code.class, Class::Transient | Class::Unavailable | Class::Bug)
            );
        }
    }
}
