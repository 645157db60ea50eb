//! `up`: from a directory to an answer at a URL.

mod content;
pub mod detection;
pub mod follow;
pub mod scan;
mod steps;
mod upload;

use std::path::Path;
use std::time::Instant;

use ferrovia_api::client::{Client, InstancePath};
use ferrovia_api::deployment::{Deployment, DeploymentSource, GitInfo, NewDeployment};
use ferrovia_api::project::{Target, TargetRequest};
use ferrovia_api::settings::{PortSetting, PortWord, SettingsPatch};
use ferrovia_core::image_reference::{ReferenceError, check_reference};
use serde_json::json;

use crate::args::{Deploy, Port, Up, Wait};
use crate::failure::{Exit, Failure};
use crate::printer::Printer;
use crate::target;

/// Codes that say that a name is new.
pub const NEW_NAME: [&str; 3] = ["project_not_found", "environment_not_found", "service_not_found"];

/// Uploads, builds and deploys a directory.
pub async fn up(client: &Client, path: InstancePath, args: &Up, printer: &Printer) -> Result<Exit, Failure> {
    let told = Told::new(&path);
    let run = async {
        let directory = target::absolute(&args.directory)?;
        let shown = format!("`{}`", directory.display());
        say_target(client, &path, &shown, printer);
        let begun = Instant::now();
        let scan = scan::scan_told(&directory, printer).await?;
        let check = || detection::check(&directory, &scan.manifest);
        let target = ensure_target(client, &path, args.create, check, printer).await?;
        let project = target.project.id.to_string();
        let digest = upload::upload(client, &project, &directory, scan, printer).await?;
        let upload_ms = u32::try_from(begun.elapsed().as_millis()).unwrap_or(u32::MAX);
        let new = NewDeployment {
            source: DeploymentSource::Tree { digest },
            settings: settings_for(args.port),
            git: git_info(&directory),
            upload_ms: Some(upload_ms),
            rebuild: args.rebuild,
        };
        client.deploy(&path, &new).await.map_err(Failure::from)
    };
    finish(client, run.await, told, args.wait, printer).await
}

/// Deploys an image.
pub async fn deploy(
    client: &Client,
    path: InstancePath,
    args: &Deploy,
    printer: &Printer,
) -> Result<Exit, Failure> {
    let told = Told::new(&path);
    let run = async {
        say_target(client, &path, &format!("the image `{}`", args.image), printer);
        check_reference(&args.image).map_err(|error| image_invalid(&args.image, error))?;
        ensure_target(client, &path, args.create, || Ok(()), printer).await?;
        let new = NewDeployment {
            source: DeploymentSource::Image {
                reference: args.image.clone(),
            },
            settings: settings_for(args.port),
            git: GitInfo::default(),
            upload_ms: None,
            rebuild: false,
        };
        client.deploy(&path, &new).await.map_err(Failure::from)
    };
    finish(client, run.await, told, args.wait, printer).await
}

/// Deploys the newest build again.
pub async fn redeploy(
    client: &Client,
    path: InstancePath,
    wait: Wait,
    printer: &Printer,
) -> Result<Exit, Failure> {
    let told = Told::new(&path);
    let result = client.redeploy(&path).await.map_err(Failure::from);
    finish(client, result, told, wait, printer).await
}

/// What a result line names when there is no deployment.
pub struct Told {
    path: InstancePath,
    begun: Instant,
}

impl Told {
    fn new(path: &InstancePath) -> Self {
        Self {
            path: path.clone(),
            begun: Instant::now(),
        }
    }
}

async fn finish(
    client: &Client,
    result: Result<Deployment, Failure>,
    told: Told,
    wait: Wait,
    printer: &Printer,
) -> Result<Exit, Failure> {
    match result {
        Ok(deployment) if wait.detach => {
            printer.say(format!(
                "v{} is queued; {}",
                deployment.number,
                follow::come_back(&deployment)
            ));
            if let Some(reason) = &deployment.reason {
                printer.say(follow::not_yet(deployment.number, reason));
            }
            follow::print_result(&deployment, told.begun, printer);
            Ok(Exit::Done)
        }
        Ok(deployment) => follow::follow(client, deployment, told.begun, wait.verbose, printer).await,
        Err(mut failure) => {
            if printer.is_json() {
                follow::print_refusal(&told.path, told.begun, &failure, printer);
                failure.told = true;
            }
            Err(failure)
        }
    }
}

/// Wrong use, as the server would say it.
fn image_invalid(image: &str, error: ReferenceError) -> Failure {
    let mut failure = Failure::usage(format!("`{image}`: {error}")).hint(ReferenceError::HINT);
    failure.report.code = "image_invalid".to_owned();
    failure
}

/// Says where it goes.
fn say_target(client: &Client, path: &InstancePath, what: &str, printer: &Printer) {
    let InstancePath {
        project,
        environment,
        service,
    } = path;
    printer.say(format!(
        "{what} to service {} in {project}/{environment} at {}",
        Printer::bold(service),
        client.address()
    ));
}

/// Makes sure that what it goes to exists. `check` is asked before anything is made.
async fn ensure_target(
    client: &Client,
    path: &InstancePath,
    create: bool,
    check: impl Fn() -> Result<(), Failure>,
    printer: &Printer,
) -> Result<Target, Failure> {
    let InstancePath {
        project,
        environment,
        service,
    } = path;
    let request = |create| TargetRequest {
        project: project.clone(),
        environment: environment.clone(),
        service: service.clone(),
        create,
    };
    let target = match client.target(&request(false)).await {
        Ok(target) => {
            if target.instance_id.is_none() {
                check()?;
            }
            target
        }
        Err(error) if error.code().is_some_and(|code| NEW_NAME.contains(&code)) => {
            if !create && !printer.is_terminal() {
                return Err(
                    Failure::from(error).hint("add `--create` to create what is new, or check the name")
                );
            }
            check()?;
            let target = client.target(&request(true)).await?;
            printer.say(format!("new: {}", described(&target)));
            target
        }
        Err(error) => return Err(error.into()),
    };
    if printer.is_json() {
        printer.json(&json!({
            "event": "target", "project": target.project.name, "environment": target.environment.name,
            "service": target.service.name, "created": target.created,
        }));
    }
    Ok(target)
}

/// What was created of a target.
pub fn described(target: &Target) -> String {
    let name = |word: &str| match word {
        "project" => &target.project.name,
        "environment" => &target.environment.name,
        _ => &target.service.name,
    };
    let words: Vec<String> = target
        .created
        .iter()
        .map(|word| format!("{word} `{}`", name(word)))
        .collect();
    words.join(", ")
}

fn settings_for(port: Option<Port>) -> Option<SettingsPatch> {
    let port = match port? {
        Port::Number(number) => PortSetting::Number(number),
        Port::None => PortSetting::Word(PortWord::None),
    };
    Some(SettingsPatch {
        port: Some(Some(port)),
        ..SettingsPatch::default()
    })
}

/// The commit of the directory, as far as `git` knows it.
fn git_info(directory: &Path) -> GitInfo {
    let ask = |args: &[&str]| {
        let output = std::process::Command::new("git")
            .arg("-C")
            .arg(directory)
            .args(args)
            .stdin(std::process::Stdio::null())
            .output()
            .ok()?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        (output.status.success() && !text.is_empty()).then_some(text)
    };
    GitInfo {
        commit_sha: ask(&["rev-parse", "HEAD"]),
        branch: ask(&["symbolic-ref", "--short", "HEAD"]),
        author: ask(&["log", "-1", "--format=%an"]),
        message: ask(&["log", "-1", "--format=%B"]),
    }
}
