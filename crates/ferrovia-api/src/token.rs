//! API tokens.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// A credential of the API; its secret is shown once, when it is created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Token {
    /// Its id.
    pub id: Uuid,
    /// What people call it.
    pub name: String,
    /// `owner`, or `deploy:PROJECT`.
    pub scope: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last used, give or take a minute.
    pub last_used_at: Option<Timestamp>,
}

/// A page of tokens that are not revoked, the oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenList {
    /// The tokens.
    pub items: Vec<Token>,
    /// What to give as `after` for the next page; absent on the last.
    pub next: Option<String>,
}

/// A token to be created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// What people call it.
    #[schema(min_length = 1, max_length = 100, example = "ci")]
    pub name: String,
    /// `owner`, or `deploy:PROJECT` with a project's name or id.
    #[serde(default = "owner")]
    #[schema(pattern = "^(owner|deploy:.+)$", example = "deploy:shop")]
    pub scope: String,
}

fn owner() -> String {
    "owner".to_owned()
}

/// A new token with its secret, which nobody can read again.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CreatedToken {
    /// The token.
    pub token: Token,
    /// What to send as `Authorization: Bearer …`.
    pub secret: String,
}

impl std::fmt::Debug for CreatedToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CreatedToken")
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}

/// A token that is tried.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignIn {
    /// The token.
    #[schema(min_length = 1, max_length = 200)]
    pub token: String,
}

impl std::fmt::Debug for SignIn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SignIn").finish_non_exhaustive()
    }
}

/// Who acts, and for what that is good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Identity {
    /// For people: ``token `ci` ``, `root on this host`.
    pub actor: String,
    /// `owner`, or `deploy:PROJECT`.
    pub scope: String,
    /// The team's name.
    pub team: String,
    /// The installation's id.
    pub installation_id: Uuid,
    /// The server's version.
    pub version: String,
}
