//! Builds: from a queued row to an image, or to a report that says why there is none.
//!
//! A pass plans (quick), looks for an equal image of the same project, and builds only if there is none. It ends at
//! once when nobody waits for the build any more; dropping the builder's future leaves nothing running. Killed in the
//! middle, the next pass does the same again, on the builder's caches.

mod log;
mod memory;

use std::sync::Arc;
use std::time::Duration;

use ferrovia_build::{BuildError, BuildRequest, BuildSource, Builder, BuiltImage, PlannedBuild};
use ferrovia_core::error::Report;
use ferrovia_core::id::BuildId;
use ferrovia_core::workload::ImageReference;
use ferrovia_engine::Engine;
use ferrovia_log::place;
use ferrovia_store::build::{self, Build, Outcome as BuildOutcome};
use ferrovia_store::image::{self, Image};
use ferrovia_store::queue::{self, Lease, Outcome, POLL_MS, Work};
use ferrovia_store::{Error as StoreError, Tx, project};
use tokio::time::timeout;

use crate::control::Shared;
use crate::error::Error;
use crate::work;
use log::LogWriter;

/// Longest planning, in milliseconds: it may ask registries for digests.
const PLAN_MS: u64 = 120_000;
/// A build that has not begun after this time fails, in milliseconds: something is wrong with the queue or the host.
const QUEUE_DEADLINE_MS: i64 = 7_200_000;
/// Tries of a build that fails for reasons that may pass.
const TRIES: u32 = 3;
/// Wait until memory is looked at again, in milliseconds.
const MEMORY_AGAIN_MS: u64 = 3_000;

/// One pass for the build of a lease.
pub(crate) async fn reconcile<E: Engine + 'static, B: Builder + 'static>(
    shared: &Arc<Shared<E, B>>,
    lease: &Lease,
) -> Result<Outcome, Error> {
    let Ok(id) = lease.key.parse::<BuildId>() else {
        return Ok(Outcome::Done);
    };
    let found = build::find(&mut *shared.db.conn().await?, id).await?;
    let Some(found) = found.filter(|found| !found.outcome.is_final()) else {
        return Ok(Outcome::Done);
    };
    let pass = Pass {
        shared,
        lease,
        build: found,
    };
    let outcome = tokio::select! {
        outcome = pass.run() => outcome,
        cancelled = pass.cancelled() => match cancelled {
            Ok(()) => pass.end(BuildOutcome::Cancelled, Report::new("cancelled", "the build was cancelled")).await,
            Err(error) => Err(error),
        },
        // The builder's future is dropped; the next control begins the build again.
        () = ending(shared) => Ok(Outcome::Again { after_ms: 0 }),
    };
    if !matches!(outcome, Ok(Outcome::Again { .. })) {
        shared.live.set_build_wait(id, None);
    }
    outcome
}

async fn ending<E, B>(shared: &Shared<E, B>) {
    // The sender lives in `shared`: the wait cannot fail.
    let _ = shared.ending.subscribe().wait_for(|ending| *ending).await;
}

struct Pass<'a, E, B> {
    shared: &'a Arc<Shared<E, B>>,
    lease: &'a Lease,
    build: Build,
}

/// What a build that did not give an image leaves to do.
enum Failure {
    Build(BuildError),
    Control(Error),
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        Self::Build(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Control(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Control(error.into())
    }
}

impl<E: Engine + 'static, B: Builder + 'static> Pass<'_, E, B> {
    /// Returns once nobody wants the build any more.
    async fn cancelled(&self) -> Result<(), Error> {
        let mut wake = self.shared.wake.clone();
        loop {
            let mut conn = self.shared.db.conn().await?;
            if build::is_unwanted(&mut conn, self.build.id).await? {
                return Ok(());
            }
            drop(conn);
            wake.wait(Duration::from_millis(POLL_MS)).await;
        }
    }

    async fn run(&self) -> Result<Outcome, Error> {
        match self.attempt().await {
            Ok(outcome) => Ok(outcome),
            // It was made of the same as an image whose deletion is on its way: made again after that.
            Err(Failure::Control(Error::Store(error @ StoreError::Taken { .. }))) => {
                self.clean_images().await?;
                Ok(Outcome::Failed {
                    error: error.to_string(),
                })
            }
            Err(Failure::Control(error)) => Err(error),
            Err(Failure::Build(error)) => {
                if error.class.is_retryable() && self.lease.attempts + 1 < TRIES {
                    let text = error.report.message.clone();
                    return Ok(Outcome::Failed { error: text });
                }
                let mut report = error.report;
                if report.log.is_empty() {
                    report.log = log::last_lines(&self.shared.logs, self.build.id).await;
                }
                self.end(BuildOutcome::Failed, report).await
            }
        }
    }

    async fn clean_images(&self) -> Result<(), Error> {
        let due = Work::new(work::CLEANUP, "images", work::CLEANUP_CLASS);
        self.shared
            .db
            .tx::<_, StoreError>(move |tx| Box::pin(async move { queue::enqueue(tx, &due).await }))
            .await?;
        Ok(())
    }

    /// Ends what would otherwise be tried for ever.
    fn check_age(&self) -> Result<(), BuildError> {
        let age_ms = |since_ms: i64| self.shared.clock.now_ms().saturating_sub(since_ms);
        let tries_ms = self.shared.build_timeout_ms.saturating_mul(u64::from(TRIES) + 1);
        match self.build.started_ms {
            None if age_ms(self.build.created_ms) > QUEUE_DEADLINE_MS => Err(queue_deadline()),
            Some(started_ms) if age_ms(started_ms) > i64::try_from(tries_ms).unwrap_or(i64::MAX) => {
                Err(slow("the build with all its tries", tries_ms))
            }
            _ => Ok(()),
        }
    }

    async fn attempt(&self) -> Result<Outcome, Failure> {
        self.check_age()?;
        let request = self.request().await?;
        let planned = timeout(Duration::from_millis(PLAN_MS), self.shared.builder.plan(&request))
            .await
            .map_err(|_| slow_planning(PLAN_MS))??;
        if let Some(image) = self.equal_image(&planned).await?
            && self.reuse(&planned, &image).await?
        {
            return Ok(Outcome::Done);
        }
        if let Some(why) = memory::too_short(self.shared.build_memory_bytes) {
            self.shared.live.set_build_wait(self.build.id, Some(why));
            return Ok(Outcome::Again {
                after_ms: MEMORY_AGAIN_MS,
            });
        }
        self.shared.live.set_build_wait(self.build.id, None);
        self.begin(&planned).await?;
        let directory = place::of_build(&self.shared.logs, self.build.id);
        let log = LogWriter::open(directory, self.shared.clock.clone())
            .await
            .map_err(Error::from)?;
        let limit_ms = self.shared.build_timeout_ms;
        let built = timeout(
            Duration::from_millis(limit_ms),
            self.shared.builder.build(&request, &planned, &log),
        )
        .await;
        drop(log);
        let built = built.map_err(|_| slow("the build", limit_ms))??;
        self.succeed(&planned, built).await?;
        Ok(Outcome::Done)
    }

    async fn request(&self) -> Result<BuildRequest, Error> {
        let build = &self.build;
        let key = {
            let mut conn = self.shared.db.conn().await?;
            self.shared.keyring.get(&mut conn, build.data_key_id).await?
        };
        let variables = key
            .open_pairs(&build.sealed_variables, &build::place(build.id))
            .map_err(StoreError::from)?;
        let source = match (&build.tree_digest, &build.image_reference) {
            (Some(digest), _) => BuildSource::Tree {
                digest: digest.clone(),
            },
            (None, Some(reference)) => BuildSource::Image {
                reference: reference.clone(),
            },
            (None, None) => return Err(StoreError::corrupt("build", "it has no source").into()),
        };
        Ok(BuildRequest {
            build_id: build.id,
            project_id: build.project_id,
            service_id: build.service_id,
            source,
            settings: build.settings.clone(),
            variables,
        })
    }

    /// An image that was built from the same, and that the registry still holds whole.
    async fn equal_image(&self, planned: &PlannedBuild) -> Result<Option<ImageReference>, Failure> {
        if self.build.rebuild {
            return Ok(None);
        }
        let found = {
            let mut conn = self.shared.db.conn().await?;
            build::find_image_by_key(&mut conn, self.build.project_id, &planned.image_key).await?
        };
        let Some(image) = found else {
            return Ok(None);
        };
        Ok(self.shared.builder.has_image(&image).await?.then_some(image))
    }

    /// Ends the build with an image that was there; not if it was condemned meanwhile.
    async fn reuse(&self, planned: &PlannedBuild, image: &ImageReference) -> Result<bool, Error> {
        let (planned, image) = (planned.clone(), image.clone());
        self.write(move |tx, id, now_ms| {
            Box::pin(async move {
                if !image::hold(tx, &image).await? {
                    return Ok(false);
                }
                keep_plan(tx, id, &planned).await?;
                build::succeed(tx, id, &image, true, now_ms).await?;
                Ok(true)
            })
        })
        .await
    }

    async fn begin(&self, planned: &PlannedBuild) -> Result<(), Error> {
        let planned = planned.clone();
        self.write(move |tx, id, now_ms| {
            Box::pin(async move {
                keep_plan(tx, id, &planned).await?;
                build::begin(tx, id, now_ms).await
            })
        })
        .await
    }

    async fn succeed(&self, planned: &PlannedBuild, built: BuiltImage) -> Result<(), Error> {
        let planned = planned.clone();
        self.write(move |tx, id, now_ms| {
            Box::pin(async move {
                let image = Image {
                    reference: built.image,
                    size_bytes: i64::try_from(built.size_bytes).unwrap_or(i64::MAX),
                    config: built.config,
                    created_ms: now_ms,
                    condemned_ms: None,
                };
                image::ensure(tx, &image).await?;
                keep_plan(tx, id, &planned).await?;
                build::succeed(tx, id, &image.reference, false, now_ms).await?;
                Ok(())
            })
        })
        .await
    }

    async fn end(&self, outcome: BuildOutcome, report: Report) -> Result<Outcome, Error> {
        self.write(move |tx, id, now_ms| {
            Box::pin(async move {
                build::end(tx, id, outcome, Some(&report), now_ms).await?;
                Ok(())
            })
        })
        .await?;
        Ok(Outcome::Done)
    }

    /// Writes, fenced, and makes the instances due whose deployments wait for the build.
    async fn write<T: Send + 'static>(
        &self,
        body: impl for<'t> FnOnce(
            &'t mut Tx,
            BuildId,
            i64,
        ) -> ferrovia_store::BoxFuture<'t, Result<T, StoreError>>
        + Clone
        + Send
        + 'static,
    ) -> Result<T, Error> {
        let (lease, id, project_id) = (self.lease.clone(), self.build.id, self.build.project_id);
        let now_ms = self.shared.clock.now_ms();
        let written = self
            .shared
            .db
            .tx::<_, StoreError>(move |tx| {
                Box::pin(async move {
                    lease.fence(tx).await?;
                    let written = body(tx, id, now_ms).await?;
                    let team = project::get(tx, project_id).await?.team_id;
                    for (_, instance) in build::waiting(tx, id).await? {
                        queue::enqueue(tx, &work::instance(instance, team)).await?;
                    }
                    Ok(written)
                })
            })
            .await?;
        self.shared.live.builds_changed();
        Ok(written)
    }
}

async fn keep_plan(tx: &mut Tx, id: BuildId, planned: &PlannedBuild) -> Result<(), StoreError> {
    let PlannedBuild {
        builder,
        plan,
        image_key,
        warnings,
    } = planned;
    build::set_plan(tx, id, builder, plan, image_key, warnings).await
}

fn queue_deadline() -> BuildError {
    BuildError {
        report: Report::new(
            "build_not_begun",
            format!(
                "the build did not get its turn in {} minutes",
                QUEUE_DEADLINE_MS / 60_000
            ),
        )
        .with_hint("`ferrovia doctor` tells what other builds do and whether memory is short"),
        class: ferrovia_core::error::Class::Limit,
    }
}

fn slow(what: &str, limit_ms: u64) -> BuildError {
    BuildError {
        report: Report::new(
            "build_timeout",
            format!("{what} took longer than {} s", limit_ms / 1_000),
        )
        .with_hint(
            "look in the build's log for the step that takes long; the limit is `timeout_s` under `[build]` in the \
             platform's configuration file, `/etc/ferrovia/ferroviad.toml`",
        ),
        class: ferrovia_core::error::Class::Limit,
    }
}

/// Planning waits for nothing but the source's disk and registries.
fn slow_planning(limit_ms: u64) -> BuildError {
    BuildError {
        report: Report::new(
            "planning_timeout",
            format!(
                "what to build was not found out in {} s: a registry did not answer in time",
                limit_ms / 1_000
            ),
        )
        .with_hint(
            "deploy again when the registry of the image, or of those that the build starts from, can be reached; \
             `ferroviad doctor` on the server's host says where base images come from",
        ),
        class: ferrovia_core::error::Class::Limit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_named_only_where_raising_it_helps() {
        let (planning, build) = (slow_planning(PLAN_MS).report, slow("the build", 1_000).report);
        let hint = |report: &Report| report.hint.clone().unwrap_or_default();
        assert_eq!(planning.code, "planning_timeout");
        assert!(!hint(&planning).contains("timeout_s"));
        assert_eq!(build.code, "build_timeout");
        assert!(hint(&build).contains("`timeout_s`") && hint(&build).contains("ferroviad.toml"));
    }
}
