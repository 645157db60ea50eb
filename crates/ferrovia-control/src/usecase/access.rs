//! Tokens, and who somebody is.

use ferrovia_core::id::{ProjectId, TokenId};
use ferrovia_core::permission::{Action, Scope};
use ferrovia_core::secret::Secret;
use ferrovia_store::token::{self, NewToken, Token};
use ferrovia_store::{installation, project, team};
use uuid::Uuid;

use super::context::{Actor, OpContext};
use super::error::Error;
use super::page::{Page, PageRequest};
use super::{UseCases, code, find};

/// Longest name of a token, in characters.
const MAX_TOKEN_NAME_CHARS: usize = 100;
/// What people call the only team.
pub(super) const DEFAULT_TEAM: &str = "default";

/// Who acts, and for what that is good.
#[derive(Debug, Clone)]
pub struct Identity {
    /// For people.
    pub actor: String,
    /// What the actor may do.
    pub scope: Scope,
    /// Name of the project that the scope is for.
    pub project: Option<String>,
    /// The team's name.
    pub team: String,
    /// The installation's id.
    pub installation_id: Uuid,
    /// The server's version.
    pub version: String,
}

/// A new token with its text, which cannot be had again.
#[derive(Debug, Clone)]
pub struct CreatedToken {
    /// The token.
    pub token: Token,
    /// Name of the project that its scope is for.
    pub project: Option<String>,
    /// Its text.
    pub secret: Secret,
}

fn unauthenticated() -> Error {
    Error::new(&code::UNAUTHENTICATED, "this token is unknown or revoked").hint(
        "`ferrovia login` takes another; `ferroviad token create --name NAME` on the server's host makes one",
    )
}

impl UseCases {
    /// Makes the installation and its team, if they are not there. Called when control starts.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn ensure_installation(&self, id: Uuid) -> Result<(), Error> {
        let now_ms = self.clock.now_ms();
        self.db
            .tx(move |tx| {
                Box::pin(async move {
                    installation::ensure(tx, id, now_ms).await?;
                    if team::find_first(tx).await?.is_none() {
                        let new = team::Team {
                            id: ferrovia_core::id::TeamId::from_uuid(Uuid::now_v7()),
                            name: DEFAULT_TEAM.to_owned(),
                            created_ms: now_ms,
                        };
                        team::insert(tx, &new).await?;
                    }
                    Ok(())
                })
            })
            .await
    }

    /// The context of whoever has this token.
    ///
    /// # Errors
    /// `unauthenticated`.
    pub async fn authenticate(&self, text: &Secret, request_id: String) -> Result<OpContext, Error> {
        let now_ms = self.clock.now_ms();
        // What no token can look like need not be looked for.
        if text.expose().len() > 200 || !text.expose().bytes().all(|b| b.is_ascii_graphic()) {
            return Err(unauthenticated());
        }
        let found = token::find_valid(&mut *self.db.conn().await?, text).await?;
        let token = found.ok_or_else(unauthenticated)?;
        if token::is_touch_due(&token, now_ms) {
            let id = token.id;
            self.db
                .tx::<_, Error>(move |tx| Box::pin(async move { Ok(token::touch(tx, id, now_ms).await?) }))
                .await?;
        }
        Ok(OpContext {
            actor: Actor::Token {
                id: token.id,
                name: token.name,
            },
            team_id: token.team_id,
            scope: token.scope,
            request_id,
            repeat: None,
        })
    }

    /// The context of whoever has the host.
    ///
    /// # Errors
    /// When the database does not answer or the installation is not made yet.
    pub async fn authenticate_host(&self, uid: u32, request_id: String) -> Result<OpContext, Error> {
        let team = team::find_first(&mut *self.db.conn().await?).await?;
        let team = team.ok_or_else(|| ferrovia_store::Error::not_found("team", DEFAULT_TEAM))?;
        Ok(OpContext {
            actor: Actor::Host { uid },
            team_id: team.id,
            scope: Scope::Owner,
            request_id,
            repeat: None,
        })
    }

    /// Who the actor is.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn identity(&self, ctx: &OpContext) -> Result<Identity, Error> {
        let mut conn = self.db.conn().await?;
        let installation = installation::find(&mut conn).await?;
        let installation =
            installation.ok_or_else(|| ferrovia_store::Error::not_found("installation", "only"))?;
        let team = team::find_first(&mut conn).await?;
        Ok(Identity {
            actor: ctx.actor.to_string(),
            scope: ctx.scope,
            project: project_name(&mut conn, ctx.scope).await?,
            team: team.map_or_else(String::new, |team| team.name),
            installation_id: installation.id,
            version: self.version.clone(),
        })
    }

    /// Refuses whoever may not see the installation's own state.
    ///
    /// # Errors
    /// `scope_denied`.
    pub fn may_read_installation(&self, ctx: &OpContext) -> Result<(), Error> {
        ctx.authorise(Action::ReadInstallation, None)
    }

    /// Makes a token. `scope` is `owner` or `deploy:PROJECT`.
    ///
    /// # Errors
    /// `token_name_invalid`, `token_scope_invalid`, `project_not_found`; `idempotency_not_repeatable` for a repeated
    /// request, since the text of the first token is nowhere.
    pub async fn create_token(
        &self,
        ctx: &OpContext,
        name: &str,
        scope: &str,
    ) -> Result<CreatedToken, Error> {
        ctx.authorise(Action::ManageTokens, None)?;
        let good = !name.trim().is_empty() && name.chars().count() <= MAX_TOKEN_NAME_CHARS;
        if !good || name.chars().any(char::is_control) {
            let text = format!(
                "a token's name has 1 to {MAX_TOKEN_NAME_CHARS} characters and no control characters"
            );
            return Err(Error::new(&code::TOKEN_NAME_INVALID, text).field("name"));
        }
        let (scope, project) = self.scope(ctx, scope).await?;
        let secret = token::generate()?;
        let new = NewToken {
            id: TokenId::from_uuid(Uuid::now_v7()),
            team_id: ctx.team_id,
            name: name.to_owned(),
            scope,
            created_ms: self.clock.now_ms(),
        };
        let (id, text) = (new.id, secret.clone());
        let made: TokenId = self
            .change(ctx, "token.create", name.to_owned(), move |tx| {
                Box::pin(async move { Ok(token::insert(tx, &new, &text).await?.id) })
            })
            .await?;
        if made != id {
            return Err(Error::new(
                &code::IDEMPOTENCY_NOT_REPEATABLE,
                "the token was created by the first request with this key, and is shown only once",
            )
            .hint("revoke it and create another one with a new key"));
        }
        let token = Token {
            id,
            team_id: ctx.team_id,
            name: name.to_owned(),
            scope,
            created_ms: self.clock.now_ms(),
            last_used_ms: None,
            revoked_ms: None,
        };
        Ok(CreatedToken {
            token,
            project,
            secret,
        })
    }

    async fn scope(&self, ctx: &OpContext, text: &str) -> Result<(Scope, Option<String>), Error> {
        if text == "owner" {
            return Ok((Scope::Owner, None));
        }
        let Some(reference) = text.strip_prefix("deploy:") else {
            return Err(Error::new(
                &code::TOKEN_SCOPE_INVALID,
                "a scope is `owner` or `deploy:PROJECT`",
            )
            .field("scope"));
        };
        let mut conn = self.db.conn().await?;
        let project = find::project(&mut conn, ctx, reference, Action::ManageTokens)
            .await
            .map_err(|error| error.field("scope"))?;
        let scope = Scope::Deploy {
            project_id: project.id,
        };
        Ok((scope, Some(project.name.to_string())))
    }

    /// Tokens that are not revoked, the oldest first, each with the name of the project that it is for.
    ///
    /// # Errors
    /// `scope_denied`, `cursor_invalid`.
    pub async fn list_tokens(
        &self,
        ctx: &OpContext,
        page: &PageRequest,
    ) -> Result<Page<(Token, Option<String>)>, Error> {
        ctx.authorise(Action::ManageTokens, None)?;
        let after = page.after::<TokenId>()?;
        let mut conn = self.db.conn().await?;
        let tokens = token::list(&mut conn, ctx.team_id, after, page.fetch()).await?;
        let mut named = Vec::with_capacity(tokens.len());
        for token in tokens {
            let project = project_name(&mut conn, token.scope).await?;
            named.push((token, project));
        }
        Ok(page.page(named, |(token, _)| token.id.to_string()))
    }

    /// Revokes a token at once.
    ///
    /// # Errors
    /// `token_not_found`.
    pub async fn revoke_token(&self, ctx: &OpContext, id: TokenId) -> Result<(), Error> {
        ctx.authorise(Action::ManageTokens, None)?;
        let (team_id, now_ms) = (ctx.team_id, self.clock.now_ms());
        self.change(ctx, "token.revoke", id.to_string(), move |tx| {
            Box::pin(async move {
                token::revoke(tx, team_id, id, now_ms)
                    .await
                    .map_err(|error| match error {
                        ferrovia_store::Error::NotFound { .. } => {
                            Error::new(&code::TOKEN_NOT_FOUND, format!("there is no token `{id}`"))
                                .field("token")
                        }
                        other => other.into(),
                    })
            })
        })
        .await
    }
}

/// The name of the project that a scope is for; its id once the project is deleted.
async fn project_name(conn: &mut ferrovia_store::Conn, scope: Scope) -> Result<Option<String>, Error> {
    let Scope::Deploy { project_id } = scope else {
        return Ok(None);
    };
    let id: ProjectId = project_id;
    let found = project::find(conn, id)
        .await?
        .filter(|project| project.deleted_ms.is_none());
    Ok(Some(found.map_or_else(
        || id.to_string(),
        |project| project.name.to_string(),
    )))
}
