//! Signing in, who somebody is, and tokens.

use axum::Json as Answer;
use axum::extract::{FromRequest, Request, State as FromState};
use ferrovia_api::token::{CreatedToken, Identity, NewToken, SignIn, TokenList};
use ferrovia_core::secret::Secret;
use http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::id;
use crate::http::auth::Peer;
use crate::http::convert::{self, PageParams};
use crate::http::extract::{BodyLimit, Created, Ctx, Gone, In, Json, Params};
use crate::http::failure::Failure;
use crate::http::frame::RequestId;
use crate::http::state::State;

/// Largest body of a sign-in, in bytes.
const MAX_SIGN_IN_BYTES: usize = 16 * 1024;

/// Which token.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct TokenPath {
    /// Id of the token.
    #[param(format = Uuid)]
    pub token: String,
}

/// The routes.
pub fn routes() -> OpenApiRouter<State> {
    OpenApiRouter::new()
        .routes(routes!(whoami))
        .routes(routes!(list, create))
        .routes(routes!(revoke))
}

/// The route that needs no token.
pub fn open_routes() -> OpenApiRouter<State> {
    OpenApiRouter::new().routes(routes!(sign_in))
}

/// The bound of [`open_routes`]: whoever has no token yet sends little.
pub fn body_limit() -> axum::Extension<BodyLimit> {
    axum::Extension(BodyLimit(MAX_SIGN_IN_BYTES))
}

/// Try a token: who would act with it
#[utoipa::path(post, path = "/sign-in", tag = "access", operation_id = "sign_in", request_body = SignIn,
    security(()), responses((status = 200, description = "Whose token it is.", body = Identity)))]
async fn sign_in(FromState(state): FromState<State>, request: Request) -> Result<Answer<Identity>, Failure> {
    let peer = request.extensions().get::<Peer>().copied();
    let request_id = RequestId::of(request.extensions());
    let Json(SignIn { token }) = Json::from_request(request, &state).await?;
    let tried = async {
        let ctx = state.cases.authenticate(&Secret::new(token), request_id).await?;
        state.cases.identity(&ctx).await
    };
    match tried.await.map_err(Failure::from) {
        Ok(identity) => Ok(Answer(convert::identity(identity))),
        Err(failure) if failure.status() == StatusCode::UNAUTHORIZED => {
            Err(state.failures.refusal(peer, failure))
        }
        Err(failure) => Err(failure),
    }
}

/// Who acts with this token
#[utoipa::path(get, path = "/whoami", tag = "access", operation_id = "whoami",
    responses((status = 200, description = "Who acts.", body = Identity)))]
async fn whoami(FromState(state): FromState<State>, Ctx(ctx): Ctx) -> Result<Answer<Identity>, Failure> {
    let identity = state.cases.identity(&ctx).await?;
    Ok(Answer(convert::identity(identity)))
}

/// Tokens that are not revoked, the oldest first
#[utoipa::path(get, path = "/tokens", tag = "access", operation_id = "list_tokens", params(PageParams),
    responses((status = 200, description = "A page of tokens.", body = TokenList)))]
async fn list(
    FromState(state): FromState<State>,
    Ctx(ctx): Ctx,
    Params(params): Params<PageParams>,
) -> Result<Answer<TokenList>, Failure> {
    let page = state.cases.list_tokens(&ctx, &params.page()?).await?;
    let (items, next) = convert::page(page, convert::token);
    Ok(Answer(TokenList { items, next }))
}

/// Create a token; its secret is shown once
#[utoipa::path(post, path = "/tokens", tag = "access", operation_id = "create_token", request_body = NewToken,
    responses((status = 201, description = "The new token with its secret.", body = CreatedToken)))]
async fn create(
    FromState(state): FromState<State>,
    Ctx(ctx): Ctx,
    Json(NewToken { name, scope }): Json<NewToken>,
) -> Result<Created<CreatedToken>, Failure> {
    let created = state.cases.create_token(&ctx, &name, &scope).await?;
    Ok(Created(convert::created_token(created)))
}

/// Revoke a token at once
#[utoipa::path(delete, path = "/tokens/{token}", tag = "access", operation_id = "revoke_token", params(TokenPath),
    responses((status = 204, description = "It is revoked.")))]
async fn revoke(
    FromState(state): FromState<State>,
    Ctx(ctx): Ctx,
    In(path): In<TokenPath>,
) -> Result<Gone, Failure> {
    state.cases.revoke_token(&ctx, id(&path.token, "token")?).await?;
    Ok(Gone)
}
