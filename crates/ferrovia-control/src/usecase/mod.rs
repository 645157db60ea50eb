//! What can be asked of the platform: one method per use case, whoever asks.
//!
//! Each takes who acts first ([`OpContext`]), asks whether they may, changes the desired state, enqueues the work that
//! follows and writes down who did it, in one transaction ([`UseCases::change`]). The table in the crate's own docs says
//! which rows and which work. A request with an `Idempotency-Key` keeps its result in the same transaction: it takes
//! effect once, whatever crashes in between.
//!
//! Deliberately absent: HTTP, waiting for anything but the database and a file, and calls of engine or builder.

mod access;
pub mod code;
mod context;
mod deploy;
mod error;
mod find;
mod history;
mod intent;
mod log;
mod page;
mod place;
mod project;
mod resolve;
mod settings;
mod source;
mod status;
mod target;
mod variable;
mod view;

use std::path::PathBuf;
use std::sync::Arc;

use ferrovia_build::tree::TreeStore;
use ferrovia_core::injected::PublicAddress;
use ferrovia_core::network::AddressPlan;
use ferrovia_store::seal::Keyring;
use ferrovia_store::{BoxFuture, Clock, Db, Tx, audit, idempotency};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::live::Live;

pub use access::{CreatedToken, Identity};
pub use code::Code;
pub use context::{Actor, OpContext, Repeat};
pub use deploy::{DeploymentRequest, DeploymentSource, SettingsChange};
pub use error::Error;
pub use find::Reference;
pub use log::{LogFollow, LogPage, LogRequest, MAX_LINES};
pub use page::{MAX_PAGE, Page, PageRequest};
pub use place::Place;
pub use source::TreeStatus;
pub use status::{OBSERVATION_OLD_MS, ObservedReplica, ObservedState};
pub use target::{Target, TargetRequest};
pub use variable::{VariableChange, VariableOwner, VariableSetting, VariableView, Variables};
pub use view::{BuildView, DeploymentView, InstanceView};

/// How generated host names become URLs.
#[derive(Debug, Clone)]
pub struct PublicSite {
    /// Generated host names end in it: `localhost`.
    pub apps_domain: String,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// The edge's port.
    pub port: u16,
}

impl PublicSite {
    fn address(&self, host: &str) -> PublicAddress {
        PublicAddress {
            host: host.to_owned(),
            scheme: self.scheme,
            port: self.port,
        }
    }
}

/// What use cases stand on.
pub struct Parts {
    /// The database.
    pub db: Db,
    /// The time.
    pub clock: Clock,
    /// The keys of secrets.
    pub keyring: Arc<Keyring>,
    /// Which addresses the platform gives out.
    pub addresses: AddressPlan,
    /// How generated host names become URLs.
    pub site: PublicSite,
    /// Uploaded source.
    pub trees: TreeStore,
    /// Where the logs are ([`ferrovia_log::place`]).
    pub logs: PathBuf,
    /// What is known only while control runs: what nodes saw, what reconcilers wait for.
    pub live: Arc<Live>,
    /// Version of the server, for people.
    pub version: String,
}

/// Everything that can be asked of the platform. Cheap to clone.
#[derive(Clone)]
pub struct UseCases(Arc<Parts>);

impl std::ops::Deref for UseCases {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl UseCases {
    /// Use cases on these parts.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// Runs one change: the body's rows and work, the record of who did it, and for a repeatable request its result,
    /// in one transaction.
    ///
    /// `target` names what it is on, in the audit. The result of a request that was answered before is given again and
    /// the body not run.
    async fn change<T>(
        &self,
        ctx: &OpContext,
        action: &'static str,
        target: String,
        body: impl for<'t> FnOnce(&'t mut Tx) -> BoxFuture<'t, Result<T, Error>> + Clone + Send + 'static,
    ) -> Result<T, Error>
    where
        T: Serialize + DeserializeOwned + Send + Sync + 'static,
    {
        let ctx = ctx.clone();
        let now_ms = self.clock.now_ms();
        self.db
            .tx(move |tx| {
                Box::pin(async move {
                    if let Some(answered) = begin(tx, &ctx, now_ms).await? {
                        return Ok(answered);
                    }
                    let result = body(tx).await?;
                    let entry = audit::Entry {
                        id: Uuid::now_v7(),
                        team_id: ctx.team_id,
                        actor: ctx.actor.to_string(),
                        action: action.to_owned(),
                        target,
                        request_id: ctx.request_id.clone(),
                        at_ms: now_ms,
                    };
                    audit::insert(tx, &entry).await?;
                    finish(tx, &ctx, &result).await?;
                    Ok(result)
                })
            })
            .await
    }
}

/// Takes the request's key; what was answered to it before, if anything was.
async fn begin<T: DeserializeOwned>(tx: &mut Tx, ctx: &OpContext, now_ms: i64) -> Result<Option<T>, Error> {
    let Some(Repeat { key, digest }) = &ctx.repeat else {
        return Ok(None);
    };
    match idempotency::begin(tx, ctx.actor.token_id(), key, digest, now_ms).await? {
        idempotency::Begun::New => Ok(None),
        idempotency::Begun::Other => Err(Error::new(
            &code::IDEMPOTENCY_KEY_REUSED,
            "this `Idempotency-Key` came before with another request",
        )
        .hint("send a new key with every new request")
        .field("idempotency-key")),
        idempotency::Begun::Answered { body, .. } => serde_json::from_value(body)
            .map(Some)
            .map_err(|error| ferrovia_store::Error::corrupt("idempotency", error).into()),
    }
}

async fn finish<T: Serialize>(tx: &mut Tx, ctx: &OpContext, result: &T) -> Result<(), Error> {
    let Some(Repeat { key, .. }) = &ctx.repeat else {
        return Ok(());
    };
    let body =
        serde_json::to_value(result).map_err(|error| ferrovia_store::Error::corrupt("idempotency", error))?;
    // The status of HTTP is not known here; the answer is made anew from the result.
    Ok(idempotency::finish(tx, ctx.actor.token_id(), key, 0, &body).await?)
}
