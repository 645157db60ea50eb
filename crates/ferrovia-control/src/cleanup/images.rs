//! Images: condemned by a transaction that proves that nothing refers to them, then deleted from the engine and the
//! registry, then forgotten. Images of ours on the engine that no row names go too; those of others never.

use std::sync::Arc;
use std::time::Duration;

use ferrovia_build::Builder;
use ferrovia_core::cutover::ImageStanding;
use ferrovia_core::workload::ImageReference;
use ferrovia_engine::{Engine, Error as EngineError};
use ferrovia_store::image::{self, Kept};
use ferrovia_store::queue::Lease;
use tokio::time::timeout;

use super::GRACE_MS;
use crate::control::{ENGINE_CALL_MS, Shared};
use crate::error::Error;

/// An image that is younger is kept in any case, in milliseconds: who made it may just be about to use it.
const YOUNG_MS: i64 = 3_600_000;
/// Successes of an instance whose images are kept for rollbacks.
const KEEP: u32 = 5;
/// Images that one round takes away.
const MAX_IMAGES: u32 = 100;

/// One round.
pub(super) async fn clean<E: Engine + 'static, B: Builder + 'static>(
    shared: &Arc<Shared<E, B>>,
    lease: &Lease,
) -> Result<(), Error> {
    let now_ms = shared.clock.now_ms();
    let kept = Kept {
        made_since_ms: now_ms.saturating_sub(YOUNG_MS),
        deleted_since_ms: now_ms.saturating_sub(GRACE_MS),
        successes: KEEP,
    };
    let fence = lease.clone();
    shared
        .db
        .tx::<_, ferrovia_store::Error>(move |tx| {
            Box::pin(async move {
                fence.fence(tx).await?;
                image::condemn(tx, now_ms, kept, MAX_IMAGES).await
            })
        })
        .await?;
    // Also those that an earlier round did not come to the end with.
    let condemned = image::condemned(&mut *shared.db.conn().await?, MAX_IMAGES).await?;
    for image in condemned {
        delete(shared, lease, &image).await?;
    }
    clean_engine(shared).await
}

/// Blobs first, the row last: a row without blobs is deleted again, blobs without a row would stay for ever.
async fn delete<E: Engine, B: Builder>(
    shared: &Shared<E, B>,
    lease: &Lease,
    image: &ImageReference,
) -> Result<(), Error> {
    if !remove_from_engine(shared, image).await? {
        return Ok(());
    }
    if let Err(error) = shared.builder.remove_image(image).await {
        tracing::warn!(%image, "an image was not removed from the registry: {error}");
        return Ok(());
    }
    let (lease, gone) = (lease.clone(), image.clone());
    shared
        .db
        .tx::<_, ferrovia_store::Error>(move |tx| {
            Box::pin(async move {
                lease.fence(tx).await?;
                image::remove(tx, &gone).await
            })
        })
        .await?;
    tracing::info!(%image, "an image that nothing refers to was deleted");
    Ok(())
}

/// Whether it is gone from the engine. One in use is not: its container goes first.
async fn remove_from_engine<E: Engine, B>(
    shared: &Shared<E, B>,
    image: &ImageReference,
) -> Result<bool, Error> {
    let limit = Duration::from_millis(ENGINE_CALL_MS);
    match timeout(limit, shared.engine.remove_image(image)).await {
        Ok(Ok(())) => {
            shared.live.set_image(image, ImageStanding::Unknown);
            Ok(true)
        }
        Ok(Err(EngineError::InUse(_))) | Err(_) => Ok(false),
        Ok(Err(error)) => Err(error.into()),
    }
}

async fn clean_engine<E: Engine, B>(shared: &Shared<E, B>) -> Result<(), Error> {
    let prefix = format!("{}/", shared.registry_host);
    let limit = Duration::from_millis(ENGINE_CALL_MS);
    let Ok(held) = timeout(limit, shared.engine.images(&prefix)).await else {
        return Ok(());
    };
    for image in held? {
        let known = image::find(&mut *shared.db.conn().await?, &image).await?;
        if known.is_none() && remove_from_engine(shared, &image).await? {
            tracing::info!(%image, "an image on the engine that no row names was removed");
        }
    }
    Ok(())
}
