//! Which server, and with what: flags win over environment, environment over the remembered server, that over the
//! socket of a server on this host.

use std::path::PathBuf;
use std::sync::Arc;

use ferrovia_api::client::{Client, Endpoint};
use ferrovia_core::secret::Secret;
use url::{Host, Url};

use crate::args::Global;
use crate::config::Config;
use crate::failure::Failure;
use crate::printer::Printer;

/// Where a server on this host listens unless told otherwise.
pub const DEFAULT_URL: &str = "http://127.0.0.1:7070";
/// Where a server on this host has its sockets unless told otherwise.
const DEFAULT_RUN_DIR: &str = "/run/ferrovia";

/// A client of the server that is meant.
pub fn connect(global: &Global, config: &Config, printer: Printer) -> Result<Client, Failure> {
    let client = Client::new(choose(global, config, &socket_path())?)?;
    Ok(client.with_notice(Arc::new(move |text| printer.murmur(text))))
}

/// The URL as it is remembered: without a trailing slash.
pub fn normal(text: &str) -> Result<Url, Failure> {
    let text = if text.contains("://") {
        text.to_owned()
    } else {
        format!("http://{text}")
    };
    let wrong = |why: String| Failure::usage(format!("`{text}` is not the URL of a server: {why}"));
    let url = Url::parse(&text).map_err(|error| wrong(error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(wrong("it must begin with `http://` or `https://`".to_owned()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(
            Failure::usage("the URL of a server holds no user and no password")
                .hint("`ferrovia login` asks for a token"),
        );
    }
    Ok(url)
}

/// Whether what goes to this server can be read on the way.
pub fn is_open(url: &Url) -> bool {
    let here = match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    url.scheme() == "http" && !here
}

fn socket_path() -> PathBuf {
    let directory = std::env::var_os("FERROVIA_RUN_DIR").filter(|value| !value.is_empty());
    PathBuf::from(directory.unwrap_or_else(|| DEFAULT_RUN_DIR.into())).join("api.sock")
}

fn choose(global: &Global, config: &Config, socket: &std::path::Path) -> Result<Endpoint, Failure> {
    let token = global.token.clone();
    let url = match (&global.url, &config.current) {
        (Some(url), _) => normal(url)?,
        (None, Some(current)) => normal(current)?,
        (None, None) if token.is_none() && socket.exists() => return Ok(Endpoint::Socket(socket.to_owned())),
        (None, None) => normal(DEFAULT_URL)?,
    };
    let remembered = || {
        config
            .contexts
            .get(url.as_str())
            .map(|context| context.token.clone())
    };
    let token = token.or_else(remembered).map(Secret::new);
    Ok(Endpoint::Url { url, token })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Context;

    fn remembered() -> Config {
        let mut config = Config {
            current: Some("https://a.example/".into()),
            ..Config::default()
        };
        let context = |token: &str| Context { token: token.into() };
        config.contexts.insert("https://a.example/".into(), context("ta"));
        config.contexts.insert("https://b.example/".into(), context("tb"));
        config
    }

    fn chosen(url: Option<&str>, token: Option<&str>, config: &Config, socket: &Path) -> String {
        let global = Global {
            url: url.map(str::to_owned),
            token: token.map(str::to_owned),
            ..Global::default()
        };
        match choose(&global, config, socket).unwrap() {
            Endpoint::Url { url, token } => {
                format!(
                    "{url} {}",
                    token.map_or(String::new(), |token| token.expose().to_owned())
                )
            }
            Endpoint::Socket(path) => path.display().to_string(),
        }
    }

    #[test]
    fn urls_of_servers() {
        assert!(
            normal("http://me:secret@a.example")
                .is_err_and(|failure| !failure.report.message.contains("secret"))
        );
        assert!(normal("ftp://a.example").is_err() && normal("http://").is_err());
        let open = |text| is_open(&normal(text).unwrap());
        assert!(open("a.example") && open("http://10.0.0.1:7070"));
        assert!(
            !open("https://a.example")
                && !open("127.0.0.1:7070")
                && !open("http://[::1]")
                && !open("localhost")
        );
    }

    #[test]
    fn precedence() {
        let (here, nowhere) = (Path::new("/"), Path::new("/does/not/exist"));
        let empty = Config::default();
        assert_eq!(chosen(None, None, &empty, here), "/");
        assert_eq!(chosen(None, None, &empty, nowhere), "http://127.0.0.1:7070/ ");
        assert_eq!(chosen(None, Some("t"), &empty, here), "http://127.0.0.1:7070/ t");
        assert_eq!(chosen(None, None, &remembered(), here), "https://a.example/ ta");
        assert_eq!(
            chosen(Some("b.example:443"), None, &remembered(), here),
            "http://b.example:443/ "
        );
        assert_eq!(
            chosen(Some("https://b.example"), None, &remembered(), here),
            "https://b.example/ tb"
        );
        assert_eq!(
            chosen(Some("https://b.example"), Some("t"), &remembered(), here),
            "https://b.example/ t"
        );
    }
}
