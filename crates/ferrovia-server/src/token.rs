//! `ferroviad token create`: who has the host, has the platform. It asks the API over the host's own socket, so that
//! authorisation and audit are those of every other way.

use ferrovia_api::client::{Client, Endpoint};
use ferrovia_api::token::NewToken;

use crate::command::Failure;
use crate::config::{Config, Flags};

/// Arguments of `ferroviad token`.
#[derive(Debug, Clone, clap::Args)]
pub struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum TokenCommand {
    /// Makes a token and prints it; it is shown once
    Create {
        /// What you call it
        #[arg(long)]
        name: String,
        /// `owner`, or `deploy:PROJECT`
        #[arg(long, default_value = "owner")]
        scope: String,
        #[command(flatten)]
        flags: Box<Flags>,
    },
}

/// Makes the token.
///
/// # Errors
/// When the API does not answer or refuses.
pub async fn run(args: TokenArgs) -> Result<(), Failure> {
    let TokenCommand::Create { name, scope, flags } = args.command;
    let config = Config::load(*flags)?;
    let client = Client::new(Endpoint::Socket(config.paths.api_socket()))?;
    let created = client.create_token(&NewToken { name, scope }).await?;
    println!("{}", created.secret);
    Ok(())
}
