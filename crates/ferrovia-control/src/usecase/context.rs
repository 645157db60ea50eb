//! Who acts: the first argument of every use case, so that nothing can forget to ask or to write down.

use std::fmt;

use ferrovia_core::id::{ProjectId, TeamId, TokenId};
use ferrovia_core::permission::{Action, Scope};
use uuid::Uuid;

use super::code;
use super::error::Error;

/// Who acts, for what, and in which request.
#[derive(Debug, Clone)]
pub struct OpContext {
    /// Who.
    pub actor: Actor,
    /// On whose things.
    pub team_id: TeamId,
    /// What for.
    pub scope: Scope,
    /// The request, as it stands in the answer and the logs.
    pub request_id: String,
    /// The request's `Idempotency-Key`, if it has one.
    pub repeat: Option<Repeat>,
}

/// Who acts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    /// Somebody with a token.
    Token {
        /// The token.
        id: TokenId,
        /// What people call it.
        name: String,
    },
    /// Who has the host, known by the credentials of the socket.
    Host {
        /// The user id on the host.
        uid: u32,
    },
}

impl Actor {
    /// Tells the actors' idempotency keys apart; the host's owner has none of the tokens.
    pub(super) fn token_id(&self) -> TokenId {
        match self {
            Self::Token { id, .. } => *id,
            Self::Host { .. } => TokenId::from_uuid(Uuid::nil()),
        }
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token { name, .. } => write!(f, "token `{name}`"),
            Self::Host { uid: 0 } => f.write_str("root on this host"),
            Self::Host { uid } => write!(f, "user {uid} on this host"),
        }
    }
}

/// A request that may come again and must take effect once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repeat {
    /// The client's key.
    pub key: String,
    /// Digest of the whole request: tells another request with the same key.
    pub digest: [u8; 32],
}

impl OpContext {
    /// Refuses what the scope does not allow.
    ///
    /// # Errors
    /// `scope_denied`, the same whether the project exists or not.
    pub fn authorise(&self, action: Action, project: Option<ProjectId>) -> Result<(), Error> {
        if self.scope.allows(action, project) {
            return Ok(());
        }
        Err(denied())
    }
}

/// A refusal that tells nothing about what exists.
pub(super) fn denied() -> Error {
    Error::new(&code::SCOPE_DENIED, "the scope of this token does not allow this")
        .hint("use a token of scope `owner`, or one for this project; `ferrovia whoami` shows the scope")
}
