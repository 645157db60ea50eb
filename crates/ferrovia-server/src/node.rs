//! `ferroviad node`: the agent of this host.

use crate::command::Failure;
use crate::config::Config;

pub async fn run(config: Config) -> Result<(), Failure> {
    let _ = config;
    Err("wip".into())
}
