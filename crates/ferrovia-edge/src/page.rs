//! Answers of the edge's own: what is wrong, in words, for people or for programs.

use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use serde_json::json;

/// What is told to a visitor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The status.
    pub status: StatusCode,
    /// Stable and in snake case, for programs; `docs/error-codes/CODE.md` explains it.
    pub code: &'static str,
    /// What is wrong, in a few words.
    pub title: &'static str,
    /// In a sentence without a period.
    pub detail: String,
}

/// How the visitor wants to read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Html,
    Json,
    Plain,
}

impl Page {
    /// Nobody knows the host.
    pub fn unknown_host(host: &str) -> Self {
        Self {
            status: StatusCode::NOT_FOUND,
            code: "host_unknown",
            title: "Nothing lives here",
            detail: format!(
                "no service has the host name `{host}`; check its spelling and that a service has it as a domain"
            ),
        }
    }

    /// Nothing answers, and why.
    pub fn unavailable(reason: &str) -> Self {
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            code: "service_unavailable",
            title: "This service does not run",
            detail: reason.to_owned(),
        }
    }

    /// A replica was waited for in vain.
    pub fn held_in_vain(asleep: bool) -> Self {
        let (title, what) = match asleep {
            true => (
                "This service did not wake up",
                "it was asleep and did not start in time",
            ),
            false => (
                "This service is being replaced",
                "its new version did not start in time",
            ),
        };
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            code: "service_starting",
            title,
            detail: format!("{what}; try again in a moment"),
        }
    }

    /// Too many requests wait already.
    pub fn too_many_wait() -> Self {
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            code: "service_busy",
            title: "Too many requests wait for this service",
            detail: "it is starting; try again in a moment".to_owned(),
        }
    }

    /// No replica took a connection.
    pub fn unreachable() -> Self {
        Self {
            status: StatusCode::BAD_GATEWAY,
            code: "service_unreachable",
            title: "This service does not answer",
            detail: "none of its replicas took a connection; its owner finds why with `ferrovia logs`"
                .to_owned(),
        }
    }

    /// The connection to the replica broke.
    pub fn broken() -> Self {
        Self {
            status: StatusCode::BAD_GATEWAY,
            code: "connection_broken",
            title: "This service broke off",
            detail: "it closed the connection before it answered; whether it did what was asked is not known"
                .to_owned(),
        }
    }

    /// What the replica answered is not HTTP.
    pub fn not_http() -> Self {
        Self {
            status: StatusCode::BAD_GATEWAY,
            code: "answer_invalid",
            title: "This service does not speak HTTP",
            detail: "its answer is not a valid HTTP/1.1 response".to_owned(),
        }
    }

    /// The replica did not answer in time.
    pub fn late() -> Self {
        Self {
            status: StatusCode::GATEWAY_TIMEOUT,
            code: "service_timeout",
            title: "This service took too long",
            detail: "it did not begin to answer in time".to_owned(),
        }
    }

    /// The request is refused.
    pub fn refused(why: &impl std::fmt::Display) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            code: "request_invalid",
            title: "The request is not valid",
            detail: why.to_string(),
        }
    }

    /// The page as its reader wants it.
    pub fn render(&self, headers: &HeaderMap, request_id: &HeaderValue) -> Response<String> {
        let id = request_id.to_str().unwrap_or_default();
        let (kind, body) = match form(headers) {
            Form::Html => ("text/html; charset=utf-8", self.html(id)),
            Form::Json => (
                "application/problem+json",
                json!({
                    "status": self.status.as_u16(),
                    "code": self.code,
                    "title": self.title,
                    "detail": self.detail,
                    "request_id": id,
                })
                .to_string(),
            ),
            Form::Plain => (
                "text/plain; charset=utf-8",
                format!("{}: {}\nrequest {id}\n", self.title, self.detail),
            ),
        };
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        let fields = response.headers_mut();
        fields.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            fields.insert(RETRY_AFTER, HeaderValue::from_static("5"));
        }
        response
    }

    fn html(&self, id: &str) -> String {
        format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><title>{title}</title>\
             <style>body{{font:16px/1.5 system-ui,sans-serif;max-width:36rem;margin:20vh auto;padding:0 1.5rem;\
             color:#222;background:#fff}}h1{{font-size:1.4rem}}small{{color:#777}}\
             @media(prefers-color-scheme:dark){{body{{color:#ddd;background:#181818}}}}</style></head>\
             <body><h1>{title}</h1><p>{detail}.</p><small>{status} {code}<br>request {id}</small></body></html>\n",
            title = escaped(self.title),
            detail = escaped(&self.detail),
            status = self.status.as_u16(),
            code = self.code,
            id = escaped(id),
        )
    }
}

/// HTML for browsers, JSON for who asks for it, else plain text.
fn form(headers: &HeaderMap) -> Form {
    let accepts = |kind: &str| {
        headers
            .get_all(ACCEPT)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|value| value.contains(kind))
    };
    if accepts("text/html") {
        Form::Html
    } else if accepts("json") {
        Form::Json
    } else {
        Form::Plain
    }
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(accept: &'static str, page: &Page) -> Response<String> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static(accept));
        page.render(&headers, &HeaderValue::from_static("id-1"))
    }

    #[test]
    fn every_code_has_a_page_for_owners() {
        let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/error-codes");
        for page in [
            Page::unknown_host("a"),
            Page::unavailable("why"),
            Page::held_in_vain(true),
            Page::held_in_vain(false),
            Page::too_many_wait(),
            Page::unreachable(),
            Page::broken(),
            Page::not_http(),
            Page::late(),
            Page::refused(&"why"),
        ] {
            let text = std::fs::read_to_string(directory.join(format!("{}.md", page.code))).unwrap();
            assert!(text.starts_with(&format!("# `{}`", page.code)), "{}", page.code);
            assert!(!page.detail.ends_with('.'), "{}", page.detail);
        }
    }

    #[test]
    fn readers_get_what_they_can_read() {
        let page = Page::unavailable("v3 failed: <b>exit 1</b>");
        let html = rendered("text/html,application/xhtml+xml", &page);
        assert!(
            html.body().contains("v3 failed: &lt;b&gt;exit 1")
                && html.headers()[CONTENT_TYPE] == "text/html; charset=utf-8"
        );
        let json: serde_json::Value =
            serde_json::from_str(rendered("application/json", &page).body()).unwrap();
        assert_eq!(json["code"], "service_unavailable");
        assert_eq!(json["detail"], "v3 failed: <b>exit 1</b>");
        let plain = rendered("*/*", &page);
        assert!(plain.body().starts_with("This service does not run: v3 failed"));
        assert_eq!(plain.headers()[RETRY_AFTER], "5");
    }
}
