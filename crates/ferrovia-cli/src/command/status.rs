//! `status` and `open`.

use ferrovia_api::Report;
use ferrovia_api::client::PageQuery;
use ferrovia_api::deployment::{Deployment, Outcome};
use ferrovia_api::instance::{Instance, InstanceList, State};

use super::Session;
use crate::failure::{Exit, Failure};
use crate::printer::{span, table};

/// What runs in the environment: what is wanted, what was seen and when.
pub async fn status(session: &Session<'_>) -> Result<Exit, Failure> {
    let path = session.here()?;
    let client = session.client()?;
    let mut all = InstanceList {
        items: Vec::new(),
        next: None,
    };
    let mut page = PageQuery::default();
    loop {
        let list = client.instances(&path.project, &path.environment, &page).await?;
        all.items.extend(list.items);
        page.after = list.next;
        if page.after.is_none() {
            break;
        }
    }
    if let Some(name) = &session.global.service {
        all.items.retain(|instance| instance.service.name == *name);
        if all.items.is_empty() {
            let text = format!(
                "there is no service `{name}` in {}/{}",
                path.project, path.environment
            );
            return Err(Failure::new("service_not_found", text).hint("`ferrovia status` lists all of them"));
        }
    }
    session.printer.value(&all, |all| {
        if all.items.is_empty() {
            format!("nothing is deployed in {}/{}", path.project, path.environment)
        } else {
            described(&all.items)
        }
    });
    if !session.printer.is_json() {
        for instance in &all.items {
            for note in &instance.notes {
                session.printer.warning(note);
            }
        }
    }
    Ok(Exit::Done)
}

fn described(instances: &[Instance]) -> String {
    let rows = instances
        .iter()
        .map(|instance| {
            let healthy = instance
                .observed
                .replicas
                .iter()
                .filter(|replica| replica.state == State::Healthy);
            vec![
                instance.service.name.clone(),
                state(instance),
                format!("{}/{}", healthy.count(), instance.intent.replicas),
                instance
                    .running
                    .as_ref()
                    .or(instance.latest.as_ref())
                    .map_or("-".into(), deployment),
                instance.url.clone().unwrap_or_else(|| "-".into()),
            ]
        })
        .collect();
    let mut text = table(&["service", "state", "replicas", "deployment", "url"], rows);
    for line in instances.iter().flat_map(why) {
        text.push('\n');
        text.push_str(&line);
    }
    text
}

/// What is not as it should be with a service: each replica that is not healthy, and the newest deployment when it does
/// not run.
fn why(instance: &Instance) -> Vec<String> {
    let name = &instance.service.name;
    let with_hint = |text: String, hint: Option<&String>| match hint {
        Some(hint) => format!("{text} ({hint})"),
        None => text,
    };
    let mut lines = Vec::new();
    for replica in &instance.observed.replicas {
        let Some(why) = &replica.why else {
            continue;
        };
        let text = format!(
            "{name} v{} replica {} is {}: {why}",
            replica.deployment_number,
            replica.ordinal,
            state_word(replica.state)
        );
        lines.push(with_hint(text, replica.hint.as_ref()));
    }
    let Some(latest) = &instance.latest else {
        return lines;
    };
    let of_replica = |report: &Report| {
        let mut whys = instance
            .observed
            .replicas
            .iter()
            .filter_map(|replica| replica.why.as_ref());
        whys.any(|why| *why == report.message)
    };
    let reason = latest
        .reason
        .as_ref()
        .or(latest.error.as_ref())
        .filter(|report| !of_replica(report));
    let waits = latest
        .waits_for
        .as_ref()
        .map_or(String::new(), |what| format!(" ({what})"));
    match (latest.outcome, reason) {
        (Outcome::Succeeded | Outcome::Cancelled | Outcome::Superseded, None) => {}
        (_, None) => lines.push(format!("{name} {}{waits}", deployment(latest))),
        (_, Some(report)) => lines.push(with_hint(
            format!("{name} {}: {}", deployment(latest), report.message),
            report.hint.as_ref(),
        )),
    }
    lines
}

fn state_word(state: State) -> &'static str {
    match state {
        State::Starting => "starting",
        State::Healthy => "healthy",
        State::Unhealthy => "unhealthy",
        State::CrashLooping => "crash looping",
        State::Sleeping => "sleeping",
        State::Stopped => "stopped",
        State::Unknown => "unknown",
    }
}

fn state(instance: &Instance) -> String {
    let word = state_word(instance.observed.state);
    match instance.observed.age_ms {
        Some(age_ms) => format!("{word} ({} ago)", span(age_ms)),
        None => word.to_owned(),
    }
}

fn deployment(deployment: &Deployment) -> String {
    let outcome = match deployment.outcome {
        Outcome::Queued => "queued",
        Outcome::Building => "building",
        Outcome::Deploying => "deploying",
        Outcome::Succeeded => "succeeded",
        Outcome::Failed => "failed",
        Outcome::Cancelled => "cancelled",
        Outcome::Superseded => "superseded",
    };
    format!("v{} {outcome}", deployment.number)
}

/// Opens the URL in a browser where there is one; always says it.
pub async fn open(session: &Session<'_>) -> Result<Exit, Failure> {
    let instance = session.client()?.instance(&session.here()?).await?;
    let Some(url) = instance.url else {
        return Err(Failure::new(
            "no_url",
            format!("`{}` has no URL: it has no port", instance.service.name),
        )
        .hint("give it one with `ferrovia up --port N`"));
    };
    session
        .printer
        .value(&serde_json::json!({ "url": url }), |_| url.clone());
    let opener = if cfg!(target_os = "macos") {
        "open"
    } else {
        "xdg-open"
    };
    if session.printer.is_terminal() {
        let quiet = std::process::Stdio::null;
        // No browser is no failure: the URL was said.
        let _ = std::process::Command::new(opener)
            .arg(&url)
            .stdin(quiet())
            .stdout(quiet())
            .stderr(quiet())
            .spawn();
    }
    Ok(Exit::Done)
}
