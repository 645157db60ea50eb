//! One module per group of commands.

mod access;
mod detect;
mod doctor;
mod instance;
mod logs;
mod naming;
mod settings;
mod status;
mod variables;

use ferrovia_api::client::Client;

use crate::args::{Args, Command, Global};
use crate::config::Config;
use crate::connection::connect;
use crate::failure::{Exit, Failure};
use crate::printer::Printer;
use crate::{target, up};

/// What every command has at hand.
struct Session<'a> {
    global: Global,
    config: Config,
    printer: &'a Printer,
}

impl Session<'_> {
    fn client(&self) -> Result<Client, Failure> {
        connect(&self.global, &self.config, *self.printer)
    }

    fn here(&self) -> Result<ferrovia_api::client::InstancePath, Failure> {
        target::here(&self.global, &self.config)
    }

    fn project(&self) -> Result<String, Failure> {
        target::project_here(&self.global, &self.config)
    }

    /// Whether something that deletes goes on: said yes, by flag or in the terminal.
    fn confirmed(&self, yes: bool, question: &str) -> Result<bool, Failure> {
        if yes {
            return Ok(true);
        }
        if !self.printer.is_terminal() {
            return Err(Failure::usage(format!("{question} needs a yes")).hint("add `--yes`"));
        }
        dialoguer::Confirm::new()
            .with_prompt(question)
            .default(false)
            .interact()
            .map_err(|error| Failure::new("terminal_failed", error.to_string()))
    }
}

/// Runs a command.
pub async fn run(args: Args, printer: &Printer) -> Result<Exit, Failure> {
    let Args {
        json: _,
        global,
        command,
    } = args;
    if let Command::Detect { directory } = &command {
        return detect::detect(directory, printer).await;
    }
    let config = Config::load()?;
    let session = Session {
        global: global.without_empty(),
        config,
        printer,
    };
    match command {
        Command::Detect { .. } => Ok(Exit::Done),
        Command::Login { url } => access::login(session, url).await,
        Command::Link { create } => access::link(session, create).await,
        Command::Whoami => access::whoami(&session).await,
        Command::Token { command } => access::token(&session, command).await,
        Command::Up(args) => {
            let path = target::instance(&session.global, &session.config, &args.directory)?;
            up::up(&session.client()?, path, &args, printer).await
        }
        Command::Deploy(args) => up::deploy(&session.client()?, session.here()?, &args, printer).await,
        Command::Redeploy(wait) => up::redeploy(&session.client()?, session.here()?, wait, printer).await,
        Command::Status => status::status(&session).await,
        Command::Open => status::open(&session).await,
        Command::Logs(args) => logs::logs(&session, &args).await,
        Command::Restart => instance::restart(&session).await,
        Command::Cancel => instance::cancel(&session).await,
        Command::Scale { replicas } => instance::scale(&session, replicas).await,
        Command::Hold => instance::hold(&session).await,
        Command::Release => instance::release(&session).await,
        Command::Down => instance::down(&session).await,
        Command::Variables(args) => variables::variables(&session, args).await,
        Command::Service { command } => naming::service(&session, command).await,
        Command::Project { command } => naming::project(&session, command).await,
        Command::Environment { command } => naming::environment(&session, command).await,
        Command::Doctor => doctor::doctor(&session).await,
    }
}
