//! What the platform does: use cases change the desired state, reconcilers make it so.
//!
//! Generic over [`ferrovia_engine::Engine`] and [`ferrovia_build::Builder`]; knows no HTTP. Use cases and reconcilers
//! never call each other: they meet in the database. This page is the contract between the two.
//!
//! # Who writes what
//!
//! A use case changes rows and enqueues work **in one transaction**, and calls neither engine nor builder. A
//! reconciler takes a key, reads everything anew, decides with a pure function, does a little, and writes what it
//! learnt, fenced by its lease. Enqueueing a key twice is the same as once.
//!
//! | kind of work | key | class | does |
//! |---|---|---|---|
//! | `build` | build id | `build` | plan, find an equal image, else build; ends the build |
//! | `instance` | instance id | `control` | cut-over: outcomes of deployments, replicas, routes |
//! | `resync` | `engine` | `control` | compares the engine with the rows, in bulk, and enqueues differences |
//! | `cleanup` | `images`, `logs`, `deleted`, `idempotency`, `sweeps`, `tables` | `cleanup` | takes away what nothing refers to |
//!
//! | use case | rows, in one transaction | enqueues |
//! |---|---|---|
//! | `up`, `deploy --image` | `build` (`queued`), `deployment` (`queued`), its `domain` row of kind `deployment` | `build` and `instance` |
//! | `redeploy`, `rollback` | `deployment` (`queued`) with the older one's `build_id`, its `domain` row | `build` and `instance` |
//! | `cancel` | `deployment.cancel_requested` | `instance` |
//! | `restart` | `intent.restart_nonce + 1`, `generation + 1` | `instance` |
//! | `scale` | `intent.replicas`, `generation + 1` | `instance` |
//! | `hold`, `release` | `intent.held`, `generation + 1` | `instance` |
//! | `down` | `intent.target_deployment = NULL`, `generation + 1`, `cancel_requested` on every deployment that has not ended | `instance` |
//! | delete (project, environment, service) | `deleted_ms` of **that** row only | `instance` of every instance beneath |
//! | create instance | `instance`, `intent`, `domain` (`generated`) | nothing |
//! | new domain, domain gone | `domain` | `instance` |
//!
//! Everything else is written by reconcilers alone: outcomes, reports, durations, images, replicas, table rows.
//!
//! # The life of a deployment
//!
//! - `queued` by the use case. `building` when its build has begun. `deploying` when its build has succeeded: the
//!   step takes the image row `FOR SHARE` and refuses a condemned one, then the build starts over. A build that
//!   fails or is cancelled ends the deployments that wait for it, with the build's report.
//! - **`intent.target_deployment` is written by the cut-over alone, in the transaction that makes a deployment
//!   `succeeded`** (and set to `NULL` by `down`). So the target is always a deployment that was healthy once, and a
//!   deployment that fails changes nothing: the old version stays because it never stopped being the target. What is
//!   `deploying` runs beside it.
//! - **Superseded:** as soon as a newer deployment of the instance exists, an older one that is `queued` or
//!   `building` is superseded. One that is `deploying` goes on until the newer one is `deploying` too, so that a
//!   newer one whose build fails costs nothing.
//! - A build that no unfinished deployment waits for any more (`cancel_requested` ones do not) is cancelled: the
//!   reconciler of builds asks for that while it builds. No use case cancels a build itself.
//! - `start_deadline_ms` counts from `deploy_started_ms`. A held instance's deployments wait; nothing is done for it
//!   but what ends a cancelled or superseded one's row.
//! - A deleted instance (its own row, its environment's, its service's or its project's `deleted_ms`): containers
//!   stop at once, unfinished deployments are cancelled, rows stay until the grace period is over. An instance that
//!   is no longer deleted (undelete) runs its target again.
//!
//! # Shapes of JSON in the rows
//!
//! - `deployment.settings`, `build.settings`: `Settings` and `BuildSettings` of `ferrovia_core::settings`.
//! - `deployment.sealed_variables`, `build.sealed_variables`: `DataKey::seal_pairs` with the project's data key, for
//!   `ferrovia_store::deployment::place` and `build::place`; references resolved, sorted by key. Variables that the
//!   platform injects are not in it: the reconciler adds them (`ferrovia_core::injected`); one that the user set wins.
//! - `deployment.source`: `ferrovia_core::injected::GitSource`.
//! - `report`: a `Report`; `warnings`: an array of `Report`.
//! - `durations`: `ferrovia_core::outcome::Durations`; the use case writes `upload` when it knows it, the reconcilers
//!   the others.
//!
//! # Deliberately absent
//!
//! Scripts of steps and compensation: a reconciler plans again from what it sees. A reconciler does not retry inside
//! a pass; the next pass is the retry. No transaction is open while the engine or the builder is called.

mod beside;
mod build;
mod cleanup;
mod control;
pub mod disk;
mod dispatch;
mod error;
mod followers;
mod instance;
pub mod live;
mod publisher;
mod resync;
pub mod usecase;
pub mod work;

pub use cleanup::GRACE_MS;
pub use control::{Control, Options, Parts, Site, Status, Sweep};
pub use error::Error;
pub use live::Live;
