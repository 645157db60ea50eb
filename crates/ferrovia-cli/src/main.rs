//! `ferrovia`: the command line of the platform.
//!
//! Data goes to stdout, talk to stderr; `--json` gives one JSON value, or one object a line for streams. Exit codes: 0
//! done, 1 it failed, 2 wrong use, 3 the outcome is unknown because contact was lost.

mod args;
mod command;
mod config;
mod connection;
mod failure;
mod printer;
mod target;
mod up;

use std::process::ExitCode;

use clap::Parser;

use crate::args::Args;
use crate::printer::Printer;

fn main() -> ExitCode {
    let args = Args::parse();
    let printer = Printer::new(args.json);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            printer.say(format!("the runtime does not start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(command::run(args, &printer));
    // A blocking read of the terminal or of a disk must not keep the process.
    runtime.shutdown_background();
    match result {
        Ok(code) => code.into(),
        Err(failure) => {
            printer.failure(&failure);
            failure.exit.into()
        }
    }
}
