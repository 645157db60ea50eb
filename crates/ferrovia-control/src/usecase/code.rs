//! Every code that a use case refuses with, with its class; `docs/error-codes/CODE.md` explains each.

use ferrovia_core::error::Class;

/// A stable word for a failure, and what kind of failure it is.
#[derive(Debug, PartialEq, Eq)]
pub struct Code {
    /// Snake case.
    pub name: &'static str,
    /// What kind of failure.
    pub class: Class,
}

const fn code(name: &'static str, class: Class) -> Code {
    Code { name, class }
}

/// The token is unknown, revoked or missing.
pub const UNAUTHENTICATED: Code = code("unauthenticated", Class::Denied);
/// The scope does not allow this.
pub const SCOPE_DENIED: Code = code("scope_denied", Class::Denied);
/// No such project.
pub const PROJECT_NOT_FOUND: Code = code("project_not_found", Class::NotFound);
/// No such environment.
pub const ENVIRONMENT_NOT_FOUND: Code = code("environment_not_found", Class::NotFound);
/// No such service.
pub const SERVICE_NOT_FOUND: Code = code("service_not_found", Class::NotFound);
/// The service is not in the environment.
pub const INSTANCE_NOT_FOUND: Code = code("instance_not_found", Class::NotFound);
/// No such deployment.
pub const DEPLOYMENT_NOT_FOUND: Code = code("deployment_not_found", Class::NotFound);
/// No such build.
pub const BUILD_NOT_FOUND: Code = code("build_not_found", Class::NotFound);
/// No such token.
pub const TOKEN_NOT_FOUND: Code = code("token_not_found", Class::NotFound);
/// Something that was there is gone.
pub const NOT_FOUND: Code = code("not_found", Class::NotFound);
/// A name that cannot be one.
pub const NAME_INVALID: Code = code("name_invalid", Class::Invalid);
/// A name that another thing has.
pub const NAME_TAKEN: Code = code("name_taken", Class::Conflict);
/// An id that cannot be one.
pub const ID_INVALID: Code = code("id_invalid", Class::Invalid);
/// A cursor that this list did not give.
pub const CURSOR_INVALID: Code = code("cursor_invalid", Class::Invalid);
/// A setting that cannot be.
pub const SETTING_INVALID: Code = code("setting_invalid", Class::Invalid);
/// A variable's name or value that cannot be.
pub const VARIABLE_INVALID: Code = code("variable_invalid", Class::Invalid);
/// A variable whose name belongs to the platform.
pub const VARIABLE_RESERVED: Code = code("variable_reserved", Class::Invalid);
/// A reference between variables that leads nowhere or in a circle.
pub const VARIABLE_UNRESOLVED: Code = code("variable_unresolved", Class::Invalid);
/// More variables than there may be.
pub const TOO_MANY_VARIABLES: Code = code("too_many_variables", Class::Limit);
/// Changed by somebody else since it was read.
pub const CHANGED_MEANWHILE: Code = code("changed_meanwhile", Class::Conflict);
/// A range that the platform gives out of is used up.
pub const EXHAUSTED: Code = code("exhausted", Class::Limit);
/// A file list that is no tree.
pub const TREE_INVALID: Code = code("tree_invalid", Class::Invalid);
/// A tree that was not uploaded, or not whole.
pub const TREE_NOT_FOUND: Code = code("tree_not_found", Class::NotFound);
/// An upload that is not laid out as it must be.
pub const UPLOAD_INVALID: Code = code("upload_invalid", Class::Invalid);
/// A text that is no digest.
pub const DIGEST_INVALID: Code = code("digest_invalid", Class::Invalid);
/// A reference that names no image.
pub const IMAGE_INVALID: Code = code("image_invalid", Class::Invalid);
/// Nothing was ever deployed there.
pub const NOTHING_DEPLOYED: Code = code("nothing_deployed", Class::Conflict);
/// No deployment is under way.
pub const NOTHING_TO_CANCEL: Code = code("nothing_to_cancel", Class::Conflict);
/// A token's name that cannot be one.
pub const TOKEN_NAME_INVALID: Code = code("token_name_invalid", Class::Invalid);
/// A scope that cannot be one.
pub const TOKEN_SCOPE_INVALID: Code = code("token_scope_invalid", Class::Invalid);
/// A text to look for that cannot be one.
pub const FILTER_INVALID: Code = code("filter_invalid", Class::Invalid);
/// A log that cannot be read.
pub const LOG_UNREADABLE: Code = code("log_unreadable", Class::Unavailable);
/// The key came before with another request.
pub const IDEMPOTENCY_KEY_REUSED: Code = code("idempotency_key_reused", Class::Invalid);
/// The answer held a secret and cannot be given again.
pub const IDEMPOTENCY_NOT_REPEATABLE: Code = code("idempotency_not_repeatable", Class::Conflict);
/// The database does not answer.
pub const DATABASE_UNAVAILABLE: Code = code("database_unavailable", Class::Unavailable);
/// It may work when tried again.
pub const TRY_AGAIN: Code = code("try_again", Class::Transient);
/// A mistake in Ferrovia.
pub const INTERNAL: Code = code("internal", Class::Bug);

/// All of them.
pub const ALL: [&Code; 37] = [
    &UNAUTHENTICATED,
    &SCOPE_DENIED,
    &PROJECT_NOT_FOUND,
    &ENVIRONMENT_NOT_FOUND,
    &SERVICE_NOT_FOUND,
    &INSTANCE_NOT_FOUND,
    &DEPLOYMENT_NOT_FOUND,
    &BUILD_NOT_FOUND,
    &TOKEN_NOT_FOUND,
    &NOT_FOUND,
    &NAME_INVALID,
    &NAME_TAKEN,
    &ID_INVALID,
    &CURSOR_INVALID,
    &SETTING_INVALID,
    &VARIABLE_INVALID,
    &VARIABLE_RESERVED,
    &VARIABLE_UNRESOLVED,
    &TOO_MANY_VARIABLES,
    &CHANGED_MEANWHILE,
    &EXHAUSTED,
    &TREE_INVALID,
    &TREE_NOT_FOUND,
    &UPLOAD_INVALID,
    &DIGEST_INVALID,
    &IMAGE_INVALID,
    &NOTHING_DEPLOYED,
    &NOTHING_TO_CANCEL,
    &TOKEN_NAME_INVALID,
    &TOKEN_SCOPE_INVALID,
    &FILTER_INVALID,
    &LOG_UNREADABLE,
    &IDEMPOTENCY_KEY_REUSED,
    &IDEMPOTENCY_NOT_REPEATABLE,
    &DATABASE_UNAVAILABLE,
    &TRY_AGAIN,
    &INTERNAL,
];
