//! From a claimed key to its reconciler.

use std::sync::Arc;

use ferrovia_build::Builder;
use ferrovia_engine::Engine;
use ferrovia_store::BoxFuture;
use ferrovia_store::queue::{Handler, Lease, Outcome};

use crate::control::Shared;
use crate::error::Error;
use crate::{build, cleanup, instance, resync, work};

/// Gives each kind of work to its reconciler.
pub(crate) struct Dispatch<E, B>(pub(crate) Arc<Shared<E, B>>);

impl<E: Engine + 'static, B: Builder + 'static> Handler for Dispatch<E, B> {
    fn handle(&self, lease: Lease) -> BoxFuture<'_, Option<Outcome>> {
        Box::pin(async move {
            let shared = &self.0;
            let result = match lease.kind.as_str() {
                work::INSTANCE => Box::pin(instance::reconcile(shared, &lease)).await,
                work::BUILD => Box::pin(build::reconcile(shared, &lease)).await,
                work::RESYNC => Box::pin(resync::reconcile(shared, &lease)).await,
                work::CLEANUP => Box::pin(cleanup::reconcile(shared, &lease)).await,
                kind => {
                    tracing::warn!(kind, "nobody knows this kind of work");
                    Ok(Outcome::Done)
                }
            };
            Some(result.unwrap_or_else(|error| failed(&lease, &error)))
        })
    }
}

fn failed(lease: &Lease, error: &Error) -> Outcome {
    if error.is_stale() {
        return Outcome::Again { after_ms: 0 };
    }
    let (kind, key) = (lease.kind.as_str(), lease.key.as_str());
    if error.class().is_retryable() {
        tracing::info!(kind, key, "a pass failed: {}", error.chain());
    } else {
        tracing::warn!(kind, key, "a pass failed: {}", error.chain());
    }
    Outcome::Failed { error: error.chain() }
}
