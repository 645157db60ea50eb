//! The OpenAPI document, made from the handlers, and what every operation has in common: who may call it, how it
//! refuses, which headers it takes.

use std::sync::OnceLock;

use ferrovia_api::problem::{MEDIA_TYPE, Problem};
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{Operation, ParameterBuilder, ParameterIn};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    ComponentsBuilder, ContentBuilder, InfoBuilder, ObjectBuilder, OpenApi, OpenApiBuilder, PathItem, Ref,
    RefOr, Required, ResponseBuilder, Type,
};
use utoipa::{PartialSchema, ToSchema};

use super::router::routes;

/// Name of the way to say who acts.
const TOKEN: &str = "token";

/// The document as JSON.
pub fn text() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| {
        let mut text = document().to_pretty_json().unwrap_or_default();
        text.push('\n');
        text
    })
}

/// The document.
pub fn document() -> OpenApi {
    let mut document = routes().into_openapi();
    document.info = InfoBuilder::new()
        .title("Ferrovia")
        .description(Some(
            "Push code, get a URL, on your own machine. Every refusal is a problem document (RFC 9457) with a stable \
             `code`. Lists are paged with `limit` and `after`; every POST takes an `Idempotency-Key`; changes take \
             `If-Match` with the `ETag` that was read.",
        ))
        .version("1")
        .build();
    let security = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some(
            "An API token: `ferroviad token create --name NAME` makes one.",
        ))
        .build();
    let components = document.components.take().unwrap_or_default();
    document.components = Some(
        ComponentsBuilder::from(components)
            .schema(Problem::name(), Problem::schema())
            .schemas_from_iter(nested_schemas())
            .security_scheme(TOKEN, SecurityScheme::Http(security))
            .build(),
    );
    for (path, item) in &mut document.paths.paths {
        for (method, operation) in operations(item) {
            complete(path, method, operation);
        }
    }
    OpenApiBuilder::from(document).build()
}

/// Schemas that the problem document refers to.
fn nested_schemas() -> Vec<(String, RefOr<utoipa::openapi::Schema>)> {
    let mut schemas = Vec::new();
    Problem::schemas(&mut schemas);
    schemas
}

/// The operations of a path, with their methods.
pub fn operations(item: &mut PathItem) -> Vec<(&'static str, &mut Operation)> {
    let all = [
        ("get", &mut item.get),
        ("put", &mut item.put),
        ("post", &mut item.post),
        ("delete", &mut item.delete),
        ("patch", &mut item.patch),
    ];
    all.into_iter()
        .filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
        .collect()
}

fn complete(path: &str, method: &str, operation: &mut Operation) {
    let open = operation.security.is_some();
    if !open {
        let none: [String; 0] = [];
        operation.security = Some(vec![SecurityRequirement::new(TOKEN, none)]);
        refuses(operation, "401", "The token is missing, unknown or revoked.");
        refuses(operation, "403", "The scope of the token does not allow this.");
    }
    if operation.operation_id.as_deref() == Some("sign_in") {
        refuses(operation, "401", "The token is unknown or revoked.");
    }
    if path.starts_with("/v1") {
        refuses(
            operation,
            "429",
            "Too much at once, or too many wrong tokens; `Retry-After` says when to come again.",
        );
        refuses(
            operation,
            "500",
            "A mistake in Ferrovia; the server's log has the request's id.",
        );
        refuses(
            operation,
            "503",
            "A part that is needed does not answer; try again.",
        );
    }
    let parameters = operation.parameters.as_deref().unwrap_or_default();
    let is = |wanted: fn(&ParameterIn) -> bool| {
        parameters
            .iter()
            .any(|parameter| matches!(parameter, RefOr::T(parameter) if wanted(&parameter.parameter_in)))
    };
    let in_path = is(|place| matches!(place, ParameterIn::Path));
    let in_query = is(|place| matches!(place, ParameterIn::Query));
    let has_body = operation.request_body.is_some();
    if in_path {
        refuses(
            operation,
            "404",
            "Something that the path or the body names does not exist.",
        );
    }
    if in_path || in_query || has_body || method != "get" {
        refuses(
            operation,
            "400",
            "A parameter, a header or the body cannot be read.",
        );
        refuses(
            operation,
            "422",
            "A field or parameter is not what it may be; `field` names it.",
        );
    }
    if has_body {
        refuses(
            operation,
            "404",
            "Something that the path or the body names does not exist.",
        );
        refuses(operation, "408", "The body stopped coming.");
        refuses(
            operation,
            "413",
            "The body, or what it describes, is larger than it may be.",
        );
        refuses(operation, "415", "The body is not of the type that is wanted.");
    }
    if method != "get" && !open {
        refuses(operation, "409", "The state of things does not allow this.");
    }
    if method == "post" && !open {
        refuses(operation, "408", "The body stopped coming.");
        refuses(
            operation,
            "413",
            "The body, or what it describes, is larger than it may be.",
        );
        header(
            operation,
            "Idempotency-Key",
            "Makes repeating this request safe: it takes effect once.",
            255,
        );
    }
    if matches!(method, "patch" | "delete") && !path.contains("/tokens/") {
        refuses(operation, "412", "It was changed since it was read.");
        header(
            operation,
            "If-Match",
            "The `ETag` that was read: the change is made on that version only.",
            1024,
        );
    }
}

fn refuses(operation: &mut Operation, status: &str, description: &str) {
    let responses = &mut operation.responses.responses;
    if responses.contains_key(status) {
        return;
    }
    let content = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name(Problem::name())))
        .build();
    let mut response = ResponseBuilder::new()
        .description(description)
        .content(MEDIA_TYPE, content);
    if matches!(status, "429" | "503") {
        let seconds = ObjectBuilder::new()
            .schema_type(Type::Integer)
            .description(Some("Seconds."))
            .build();
        response = response.header("Retry-After", HeaderBuilder::new().schema(Some(seconds)).build());
    }
    responses.insert(status.to_owned(), RefOr::T(response.build()));
}

fn header(operation: &mut Operation, name: &str, description: &str, longest: usize) {
    let text = ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(1))
        .max_length(Some(longest))
        .build();
    let parameter = ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(description))
        .schema(Some(text))
        .build();
    operation
        .parameters
        .get_or_insert_default()
        .push(RefOr::T(parameter));
}
