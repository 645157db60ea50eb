//! What changes one service in one environment: `restart`, `cancel`, `scale`, `hold`, `release`, `down`.

use ferrovia_api::instance::Instance;

use super::Session;
use crate::failure::{Exit, Failure};

/// What was asked for, or that it has to wait for the end of a hold.
fn done(session: &Session<'_>, instance: &Instance, what: &str) -> Result<Exit, Failure> {
    let held = instance.intent.held;
    let what = match what.split_once("; ") {
        Some((what, _)) if held => format!("{what}, but not yet: it is held until `ferrovia release`"),
        None if held => format!("{what}, but not yet: it is held until `ferrovia release`"),
        _ => what.to_owned(),
    };
    told(session, instance, &what)
}

fn told(session: &Session<'_>, instance: &Instance, what: &str) -> Result<Exit, Failure> {
    let place = format!(
        "{}/{}/{}",
        instance.project.name, instance.environment.name, instance.service.name
    );
    session.printer.value(instance, |_| format!("{place} {what}"));
    Ok(Exit::Done)
}

/// New containers of the same deployment.
pub async fn restart(session: &Session<'_>) -> Result<Exit, Failure> {
    let instance = session.client()?.restart(&session.here()?).await?;
    let what = match instance.intent.replicas {
        0 => "has no replica to restart: it is scaled to 0, and `ferrovia scale 1` starts one",
        _ => "restarts; `ferrovia status` shows it",
    };
    done(session, &instance, what)
}

/// Stops the deployment that is under way.
pub async fn cancel(session: &Session<'_>) -> Result<Exit, Failure> {
    let deployment = session.client()?.cancel(&session.here()?).await?;
    session.printer.value(&deployment, |deployment| {
        format!("v{} is being cancelled", deployment.number)
    });
    Ok(Exit::Done)
}

/// Sets how many copies run.
pub async fn scale(session: &Session<'_>, replicas: u32) -> Result<Exit, Failure> {
    let instance = session.client()?.scale(&session.here()?, replicas).await?;
    let what = format!("goes to {}", counted(replicas));
    if replicas > 0 && instance.intent.target_deployment_id.is_none() {
        // A number of copies of nothing: also where something is under way, it is for that.
        let later = format!("{what} with the next deployment that succeeds; nothing is deployed now");
        return told(session, &instance, &later);
    }
    done(session, &instance, &what)
}

/// Keeps the platform's hands off.
pub async fn hold(session: &Session<'_>) -> Result<Exit, Failure> {
    let instance = session.client()?.hold(&session.here()?).await?;
    told(
        session,
        &instance,
        "is held: nothing changes until `ferrovia release`",
    )
}

/// Ends a hold.
pub async fn release(session: &Session<'_>) -> Result<Exit, Failure> {
    let instance = session.client()?.release(&session.here()?).await?;
    told(session, &instance, "is no longer held")
}

/// Stops every copy.
pub async fn down(session: &Session<'_>) -> Result<Exit, Failure> {
    let instance = session.client()?.down(&session.here()?).await?;
    done(
        session,
        &instance,
        "goes down; `ferrovia redeploy` brings it back",
    )
}

fn counted(replicas: u32) -> String {
    match replicas {
        1 => "1 replica".to_owned(),
        more => format!("{more} replicas"),
    }
}
