//! `ferroviad`: every process of the platform, by subcommand.

use std::process::ExitCode;

use ferrovia_server::command::{Arguments, run};

fn main() -> ExitCode {
    run(Arguments::read())
}
