//! `login`, `link`, `whoami` and `token`.

use std::io::{IsTerminal, Read};
use std::path::Path;

use ferrovia_api::Report;
use ferrovia_api::client::{Client, Endpoint, PageQuery};
use ferrovia_api::project::TargetRequest;
use ferrovia_api::token::{Identity, NewToken, Token};
use ferrovia_core::secret::Secret;

use super::Session;
use crate::args::TokenCommand;
use crate::config::{Context, Link};
use crate::connection::{DEFAULT_URL, is_open, normal};
use crate::failure::{Exit, Failure};
use crate::printer::table;
use crate::target;
use crate::up::NEW_NAME;

/// Longest token that is read, in bytes.
const MAX_TOKEN_BYTES: u64 = 1024;

/// Takes a token, tries it and keeps it.
pub async fn login(mut session: Session<'_>, url: Option<String>) -> Result<Exit, Failure> {
    let given = url.or_else(|| session.global.url.clone());
    let url = normal(given.as_deref().unwrap_or(DEFAULT_URL))?;
    if is_open(&url) {
        let text = format!("the token goes to {url} as everybody on the way can read it");
        session.printer.warning(&Report {
            code: "server_open".to_owned(),
            message: text,
            hint: Some("use `https://`, or a tunnel: `ssh -L 7070:127.0.0.1:7070 HOST`".to_owned()),
            log: Vec::new(),
        });
    }
    let token = match session.global.token.clone() {
        Some(token) => token,
        None => read_token(url.as_str())?,
    };
    let endpoint = Endpoint::Url {
        url: url.clone(),
        token: Some(Secret::new(token.as_str())),
    };
    let identity = Client::new(endpoint)?.whoami().await?;
    session.config.contexts.insert(url.to_string(), Context { token });
    session.config.current = Some(url.to_string());
    session.config.save()?;
    session.printer.say(format!("signed in to {url}"));
    session.printer.value(&identity, described);
    Ok(Exit::Done)
}

fn read_token(url: &str) -> Result<String, Failure> {
    let failed = |error: String| Failure::new("terminal_failed", error);
    let token = if std::io::stdin().is_terminal() {
        dialoguer::Password::new()
            .with_prompt(format!(
                "Token for {url} (from `ferroviad token create --name NAME`)"
            ))
            .interact()
            .map_err(|error| failed(error.to_string()))?
    } else {
        let mut text = String::new();
        let read = std::io::stdin().take(MAX_TOKEN_BYTES).read_to_string(&mut text);
        read.map_err(|error| failed(error.to_string()))?;
        text
    };
    let token = token.trim().to_owned();
    if token.is_empty() {
        return Err(Failure::usage("no token was given")
            .hint("pipe it in, or set `FERROVIA_TOKEN`; `ferroviad token create --name NAME` makes one"));
    }
    Ok(token)
}

fn described(identity: &Identity) -> String {
    format!(
        "{} (scope `{}`, team `{}`)",
        identity.actor, identity.scope, identity.team
    )
}

/// Who the caller is.
pub async fn whoami(session: &Session<'_>) -> Result<Exit, Failure> {
    let identity = session.client()?.whoami().await?;
    session.printer.value(&identity, described);
    Ok(Exit::Done)
}

/// Remembers what the current directory belongs to; everything must exist, or is created when that is asked for.
pub async fn link(mut session: Session<'_>, create: bool) -> Result<Exit, Failure> {
    let path = session.here()?;
    let request = TargetRequest {
        project: path.project.clone(),
        environment: path.environment.clone(),
        service: path.service.clone(),
        create,
    };
    let target = session.client()?.target(&request).await;
    let target = target.map_err(|error| match error.code() {
        Some(code) if NEW_NAME.contains(&code) => Failure::from(error)
            .hint("name what exists with `--project`, `--environment` and `--service`, or add `--create`"),
        _ => Failure::from(error),
    })?;
    if !target.created.is_empty() {
        let described = crate::up::described(&target);
        session.printer.say(format!("new: {described}"));
    }
    let directory = target::absolute(Path::new("."))?;
    let link = Link {
        project: Some(path.project),
        environment: Some(path.environment),
        service: Some(path.service),
    };
    let shown = directory.to_string_lossy().into_owned();
    session.config.links.insert(shown.clone(), link.clone());
    session.config.save()?;
    session.printer.say(format!("linked `{shown}`"));
    session.printer.value(&link, |link| {
        let part = |part: &Option<String>| part.clone().unwrap_or_default();
        format!(
            "{}/{}/{}",
            part(&link.project),
            part(&link.environment),
            part(&link.service)
        )
    });
    Ok(Exit::Done)
}

/// Lists, creates and revokes tokens.
pub async fn token(session: &Session<'_>, command: TokenCommand) -> Result<Exit, Failure> {
    let client = session.client()?;
    match command {
        TokenCommand::List => {
            let mut all = Vec::new();
            let mut page = PageQuery::default();
            loop {
                let list = client.tokens(&page).await?;
                all.extend(list.items);
                page.after = list.next;
                if page.after.is_none() {
                    break;
                }
            }
            session.printer.value(&all, |all| tokens(all));
        }
        TokenCommand::Create { name, scope } => {
            let created = client.create_token(&NewToken { name, scope }).await?;
            session.printer.say("keep it well: it is not shown again");
            session.printer.value(&created, |created| created.secret.clone());
        }
        TokenCommand::Revoke { id } => {
            client.revoke_token(id).await?;
            session
                .printer
                .value(&serde_json::json!({ "revoked": id }), |_| format!("revoked {id}"));
        }
    }
    Ok(Exit::Done)
}

fn tokens(all: &[Token]) -> String {
    let time = |at: Option<jiff::Timestamp>| at.map_or("-".to_owned(), |at| at.strftime("%F %R").to_string());
    let rows = all
        .iter()
        .map(|token| {
            vec![
                token.id.to_string(),
                token.name.clone(),
                token.scope.clone(),
                time(Some(token.created_at)),
                time(token.last_used_at),
            ]
        })
        .collect();
    table(&["id", "name", "scope", "created", "last used"], rows)
}
