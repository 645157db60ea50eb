//! The subcommands of `ferroviad`: each starts a runtime of its size and ends with an exit code.

use std::process::ExitCode;

use clap::builder::Resettable;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::config::{Config, Flags};
use crate::process::child::ChildArgs;
use crate::process::{Unit, child, log, open_files, spawn};
use crate::{control, doctor, edge, fake_engine, node, serve, stop, token};

/// The error of a subcommand, with its sources; printed once, here.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Ferrovia's server: push code, get a URL, on your own machine.
#[derive(Debug, Parser)]
#[command(name = "ferroviad", version, propagate_version = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

impl Arguments {
    /// From the command line and the environment; ends the process when they are wrong. A variable that is set to
    /// nothing counts as not given: unit files and compose files list them all.
    pub fn read() -> Self {
        let matches = without_empty_variables(Self::command()).get_matches();
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }
}

fn without_empty_variables(command: clap::Command) -> clap::Command {
    command
        .mut_args(|argument| {
            let value = argument.get_env().and_then(std::env::var_os);
            match value.is_some_and(|value| value.is_empty()) {
                true => argument.env(Resettable::Reset),
                false => argument,
            }
        })
        .mut_subcommands(without_empty_variables)
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Starts the platform on this machine, or adopts what lives of it
    Serve(Flags),
    /// API, reconcilers, builds and registry
    Control(UnitArgs),
    /// The agent on a Docker host: names, firewall, probes, logs
    Node(UnitArgs),
    /// Public traffic
    Edge(UnitArgs),
    /// The engine of `--engine fake`
    FakeEngine(UnitArgs),
    /// Ends everything of this data directory, applications too; the data stays
    Stop(Flags),
    /// API tokens, made on the host
    Token(token::TokenArgs),
    /// What is wrong with this installation, in sentences
    Doctor(doctor::DoctorArgs),
    /// Sets what a process is born with, then becomes it
    #[command(hide = true)]
    Child(ChildArgs),
}

/// What every process of the platform takes.
#[derive(Debug, Clone, clap::Args)]
pub struct UnitArgs {
    /// Log to the process' own file instead of standard error
    #[arg(long, hide = true)]
    log_to_file: bool,
    #[command(flatten)]
    flags: Flags,
}

/// Threads of control's runtime: it waits far more than it computes.
const CONTROL_THREADS: usize = 2;

/// Runs the subcommand; prints the error and its sources if it fails.
pub fn run(arguments: Arguments) -> ExitCode {
    let result = match arguments.command {
        Command::Serve(flags) => {
            log::to_terminal();
            open_files::raise();
            Config::load(flags)
                .map_err(Into::into)
                .and_then(|config| block_on(1, serve::run(config)))
        }
        Command::Control(args) => unit(Unit::Control, args, |config| {
            block_on(CONTROL_THREADS, control::run(config))
        }),
        Command::Node(args) => unit(Unit::Node, args, |config| block_on(1, node::run(config))),
        Command::Edge(args) => unit(Unit::Edge, args, |config| edge::run(&config)),
        Command::FakeEngine(args) => unit(Unit::FakeEngine, args, |config| {
            block_on(1, fake_engine::run(config))
        }),
        Command::Stop(flags) => Config::load(flags)
            .map_err(Into::into)
            .and_then(|config| block_on(1, stop::run(config))),
        Command::Token(args) => block_on(1, token::run(args)),
        Command::Doctor(args) => return finish(block_on(1, doctor::run(args))),
        Command::Child(args) => Err(child::run(&args).into()),
    };
    finish(result.map(|()| ExitCode::SUCCESS))
}

fn finish(result: Result<ExitCode, Failure>) -> ExitCode {
    result.unwrap_or_else(|error| {
        eprintln!("error: {}", chain(error.as_ref()));
        ExitCode::FAILURE
    })
}

/// An error and its sources in one line. Errors say only their own level; this is where the levels are put together.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn unit(unit: Unit, args: UnitArgs, run: impl FnOnce(Config) -> Result<(), Failure>) -> Result<(), Failure> {
    let config = Config::load(args.flags)?;
    if args.log_to_file {
        log::to_file(&spawn::log_path(&config, unit))?;
    } else {
        log::to_terminal();
    }
    open_files::raise();
    let result = run(config);
    if let Err(error) = &result {
        // The terminal sees it too, but nobody watches a process of its own session.
        tracing::error!("`{unit}` ends: {}", chain(error.as_ref()));
    }
    result
}

fn block_on<T>(threads: usize, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let mut builder = match threads {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    if threads > 1 {
        builder.worker_threads(threads);
    }
    builder.enable_all().build()?.block_on(work)
}
