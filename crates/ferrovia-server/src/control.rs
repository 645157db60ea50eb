//! control

use crate::command::Failure;
use crate::config::Config;

pub async fn run(config: Config) -> Result<(), Failure> {
    let _ = config;
    Err("wip".into())
}
pub async fn answers(_config: &Config) -> bool {
    false
}
