//! Builds of source trees: unpack, get the bases, let BuildKit do it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use ferrovia_core::detect::Method;
use ferrovia_core::error::{Class, Report};
use ferrovia_core::plan::Plan;
use ferrovia_core::secret::Secret;
use ferrovia_core::tree::Manifest;

use super::key::{parse_digest, short_hash};
use super::plan::{Start, TreePlan, arguments, project_text, tree_failed};
use super::{PlatformBuilder, dockerfile, unusable, work_directory};
use crate::buildkit::failure::SolveError;
use crate::buildkit::progress::Line;
use crate::buildkit::secrets::Mask;
use crate::buildkit::solve::{Job, OwnImages};
use crate::certificates::{self, PATH_SECRET_ID, SECRET_ID, SECRET_PATH, VARIABLES};
use crate::digest::Digest;
use crate::fetch::ImageName;
use crate::narrator::Narrator;
use crate::registry::Scope;
use crate::{BuildError, BuildRequest, bases, render};

/// A directory that goes, in the background, when this does.
struct Work(PathBuf);

impl Drop for Work {
    fn drop(&mut self) {
        let path = std::mem::take(&mut self.0);
        // What stays is swept at the next start.
        let remove = move || drop(std::fs::remove_dir_all(path));
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }
}

/// What BuildKit is told of a Dockerfile, beside its text.
struct Shape {
    target: Option<String>,
    /// What names of images stand for.
    contexts: Vec<(String, String)>,
    /// Names the control group of its steps, and with it their cache.
    scope: String,
}

impl PlatformBuilder {
    pub(super) async fn build_tree(
        &self,
        request: &BuildRequest,
        digest: &str,
        plan: &TreePlan,
        narrator: &Narrator<'_>,
    ) -> Result<Digest, BuildError> {
        tell(plan, narrator);
        let manifest = self.manifest(request, digest).await?;
        let work = self.unpack(request, &manifest, narrator).await?;
        let root = request.settings.root_directory.as_deref().unwrap_or_default();
        let source = work.0.join("source").join(root.trim_matches('/'));
        let files = work.0.join("files");
        let shape = match &plan.detection.method {
            Method::Auto { plan } => self.render(request, plan, &files, narrator).await?,
            Method::Dockerfile { path, target } => {
                let flags = match self.options.extra_ca_file {
                    Some(_) => certificates::run_flags(),
                    None => String::new(),
                };
                let prepared = dockerfile::take(&source, path, &flags, &files);
                let prepared = prepared.map_err(|error| unreadable_dockerfile(path, &error))?;
                for frontend in &prepared.neutralised {
                    narrator.say(&format!(
                        "note: `# syntax={frontend}` is not followed; the built-in frontend is used"
                    ));
                }
                Shape {
                    target: target.clone(),
                    contexts: self.contexts(plan, narrator).await?,
                    scope: scope_of(request, plan),
                }
            }
        };
        self.solve(request, &source, &files, shape, narrator).await
    }

    async fn unpack(
        &self,
        request: &BuildRequest,
        manifest: &Manifest,
        narrator: &Narrator<'_>,
    ) -> Result<Work, BuildError> {
        let began = Instant::now();
        let unusable = |error: std::io::Error| unusable(&self.options.data_directory, &error);
        // A name of its own: what an interrupted pass of the same build left may still be on its way out.
        let work = Work(
            work_directory(&self.options.data_directory).join(uuid::Uuid::now_v7().simple().to_string()),
        );
        tokio::fs::create_dir_all(&work.0).await.map_err(unusable)?;
        let directory = work.0.join("source");
        let unpacked = self
            .parts
            .trees
            .unpack(request.project_id, manifest, &directory)
            .await;
        unpacked.map_err(tree_failed)?;
        let (count, bytes) = (manifest.entries().len(), manifest.size_bytes());
        narrator.step("source").say(&format!(
            "{count} files and directories, {bytes} bytes, in {} ms",
            began.elapsed().as_millis()
        ));
        Ok(work)
    }

    /// Writes the plan as a Dockerfile.
    async fn render(
        &self,
        request: &BuildRequest,
        plan: &Plan,
        files: &Path,
        narrator: &Narrator<'_>,
    ) -> Result<Shape, BuildError> {
        let mut bases = BTreeMap::new();
        for key in super::plan::base_keys(plan) {
            let image = self.bases.ensure(&key, narrator).await?.image;
            bases.insert(key, image);
        }
        let scope = service_text(request);
        let variables = self.key.hashes(&project_text(request), &request.variables);
        let options = render::Options {
            bases: &bases,
            cache_scope: &scope,
            variables: &variables,
            certificates: self
                .options
                .extra_ca_file
                .is_some()
                .then_some(render::Certificates {
                    id: SECRET_ID,
                    path: SECRET_PATH,
                    variables: &VARIABLES,
                }),
        };
        let rendered = render::render(plan, &options).map_err(|error| BuildError {
            report: Report::new("build_failed", error.to_string()).with_hint("deploy again"),
            class: Class::Bug,
        })?;
        let write = || {
            std::fs::create_dir_all(files)?;
            std::fs::write(files.join("Dockerfile"), &rendered.dockerfile)?;
            std::fs::write(files.join("Dockerfile.dockerignore"), &rendered.ignore)
        };
        write().map_err(|error| unusable(files, &error))?;
        Ok(Shape {
            target: Some(render::TARGET.to_owned()),
            contexts: Vec::new(),
            scope,
        })
    }

    /// What the images of a Dockerfile stand for: bases where they do, else what was pinned.
    async fn contexts(
        &self,
        plan: &TreePlan,
        narrator: &Narrator<'_>,
    ) -> Result<Vec<(String, String)>, BuildError> {
        let mut contexts = Vec::new();
        for (image, start) in &plan.starts {
            let Ok(name) = image.parse::<ImageName>() else {
                continue;
            };
            // As BuildKit looks them up: `node:20`, `debian` for `docker.io/library/debian:latest`.
            let familiar = name.to_string().trim_end_matches(":latest").to_owned();
            let stands = match start {
                Start::Base { key, .. } => {
                    let base = self.bases.ensure(key, narrator).await?;
                    narrator.say(&format!("`{image}` is the platform's own `{key}`"));
                    base.image
                }
                // It is pinned already where it stands.
                Start::Pinned { .. } if name.digest.is_some() => continue,
                Start::Pinned { digest } => {
                    format!("{}/{}@{digest}", name.host, name.repository)
                }
                Start::Unknown => continue,
            };
            contexts.push((familiar, format!("docker-image://{stands}")));
        }
        Ok(contexts)
    }

    async fn solve(
        &self,
        request: &BuildRequest,
        source: &Path,
        files: &Path,
        shape: Shape,
        narrator: &Narrator<'_>,
    ) -> Result<Digest, BuildError> {
        let (canary, _canary_grant) = self.bases.canary(narrator).await?;
        let lease = self.kit.acquire(canary).await?;
        let (repository, registry) = (Self::repository(request)?, self.options.registry.to_string());
        let project = format!("apps/{}/", project_text(request));
        let grant = self.parts.access.grant(
            "build",
            Scope::Repositories {
                push: vec![repository.to_string()],
                pull: vec![bases::PREFIX.to_owned(), project.clone()],
            },
        );
        let id = format!(
            "{}-{}",
            request.build_id.uuid().simple(),
            uuid::Uuid::now_v7().simple()
        );
        let mut job = Job::new(id, &shape.scope, source);
        job.dockerfile_directory = files.to_owned();
        job.target = shape.target;
        job.contexts = shape.contexts;
        job.arguments = arguments(request);
        job.secrets = request.variables.clone();
        if let Some(extra) = &self.options.extra_ca_file {
            let place = self.options.run_directory.join("build-ca");
            let bundle = certificates::write_bundle(extra, &place).await;
            let bundle = bundle.map_err(|error| super::unreadable_authority(Some(extra), &error))?;
            job.secret_files = vec![(SECRET_ID.to_owned(), bundle)];
            job.secrets
                .push((PATH_SECRET_ID.to_owned(), Secret::new(SECRET_PATH)));
        }
        job.output = Some(format!(
            "{registry}/{repository}:{}",
            request.build_id.uuid().simple()
        ));
        job.logins = self.options.hosts.logins();
        job.logins.push((registry.clone(), grant.login().clone()));
        job.own_images = Some(OwnImages {
            registry,
            allowed: vec![bases::PREFIX.to_owned(), project],
        });
        job.timeout = self.options.timeout;
        let mask = Mask::new(
            request
                .variables
                .iter()
                .filter(|(name, _)| !request.settings.arguments.contains(name))
                .map(|(_, value)| value),
        );
        let mut sink = |line: Line| narrator.say_in(line.step.as_deref(), &line.text);
        let solved = job.run(&lease, mask, &mut sink).await;
        let solved = solved.map_err(SolveError::into_build_error)?;
        let digest = solved.digest.as_deref().and_then(parse_digest);
        digest.ok_or_else(|| SolveError::Daemon("it gave no digest".to_owned()).into_build_error())
    }
}

/// What was decided before the build began.
fn tell(plan: &TreePlan, narrator: &Narrator<'_>) {
    narrator.say(&plan.detection.summary);
    for note in &plan.detection.notes {
        narrator.say(note);
    }
    for warning in &plan.detection.warnings {
        let hint = warning
            .hint
            .as_ref()
            .map(|hint| format!("; {hint}"))
            .unwrap_or_default();
        narrator.say(&format!("warning: {}{hint}", warning.message));
    }
}

fn service_text(request: &BuildRequest) -> String {
    request.service_id.uuid().simple().to_string()
}

/// BuildKit does not count secrets among what a step depends on, but its control group it does: another value of a
/// variable that a Dockerfile mounts runs its steps again.
fn scope_of(request: &BuildRequest, plan: &TreePlan) -> String {
    let short = short_hash([("variables", plan.variables_hash.as_str())]);
    format!("{}-{short}", service_text(request))
}

fn unreadable_dockerfile(path: &str, error: &std::io::Error) -> BuildError {
    let report = match error.kind() {
        std::io::ErrorKind::NotFound => {
            Report::new("dockerfile_missing", format!("there is no `{path}` in the tree"))
        }
        _ => Report::new("dockerfile_invalid", format!("`{path}` cannot be read: {error}")),
    };
    BuildError {
        report: report.with_hint("check the path of the Dockerfile and the root directory"),
        class: Class::Invalid,
    }
}
