//! Where a registry is asked: its mirrors first, then itself. Pure.

use std::collections::BTreeMap;

use url::Url;

use super::reference::DOCKER_HUB;
use crate::buildkit::config::Upstream;
use crate::registry::Login;

/// Where Docker Hub really answers.
const DOCKER_HUB_ENDPOINT: &str = "https://registry-1.docker.io";

/// What the settings say about a registry.
#[derive(Debug, Clone, Default)]
pub struct RegistryHost {
    /// Asked first, in order: `https://mirror.example.com/path`.
    pub mirrors: Vec<String>,
    /// How to sign in.
    pub login: Option<Login>,
    /// Whether it speaks HTTP without TLS.
    pub plain_http: bool,
}

/// The registries that the settings name, by host.
#[derive(Debug, Clone, Default)]
pub struct Hosts(pub BTreeMap<String, RegistryHost>);

/// A place to ask.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Up to and with `/v2`.
    pub base: Url,
    /// How to sign in.
    pub login: Option<Login>,
    /// Whether a setting names it: it may be in a private network.
    pub is_trusted: bool,
}

impl Hosts {
    /// What BuildKit must know of them. It takes mirrors without a scheme, and each with settings of its own.
    pub fn upstreams(&self) -> Vec<Upstream> {
        let mut upstreams: BTreeMap<String, Upstream> = BTreeMap::new();
        let new = |host: &str| Upstream {
            host: host.to_owned(),
            mirrors: Vec::new(),
            plain_http: false,
        };
        for (host, settings) in &self.0 {
            for mirror in &settings.mirrors {
                let (plain, bare) = match mirror.split_once("://") {
                    Some((scheme, bare)) => (scheme == "http", bare),
                    None => (false, mirror.as_str()),
                };
                let bare = bare.trim_end_matches('/');
                let name = bare.split('/').next().unwrap_or(bare);
                upstreams
                    .entry(name.to_owned())
                    .or_insert_with(|| new(name))
                    .plain_http |= plain;
                let upstream = upstreams.entry(host.clone()).or_insert_with(|| new(host));
                upstream.mirrors.push(bare.to_owned());
            }
            upstreams
                .entry(host.clone())
                .or_insert_with(|| new(host))
                .plain_http |= settings.plain_http;
        }
        upstreams.into_values().collect()
    }

    /// The logins that the settings give: registry and login.
    pub fn logins(&self) -> Vec<(String, Login)> {
        let logins = self.0.iter();
        logins
            .filter_map(|(host, settings)| Some((host.clone(), settings.login.clone()?)))
            .collect()
    }

    /// Places to ask for a repository of this host, in order.
    pub fn endpoints(&self, host: &str) -> Vec<Endpoint> {
        let settings = self.0.get(host);
        let mut endpoints = Vec::new();
        for mirror in settings
            .map(|settings| settings.mirrors.as_slice())
            .unwrap_or_default()
        {
            let mirror = if mirror.contains("://") {
                mirror.clone()
            } else {
                format!("https://{mirror}")
            };
            if let Ok(url) = Url::parse(&mirror) {
                let path = format!("/v2{}", url.path().trim_end_matches('/'));
                let named = url
                    .host_str()
                    .and_then(|name| self.0.get(&authority(name, url.port())));
                let mut base = url.clone();
                base.set_path(&path);
                endpoints.push(Endpoint {
                    base,
                    login: named.and_then(|settings| settings.login.clone()),
                    is_trusted: true,
                });
            }
        }
        let own = match (host, settings.is_some_and(|settings| settings.plain_http)) {
            (DOCKER_HUB, _) => format!("{DOCKER_HUB_ENDPOINT}/v2"),
            (_, true) => format!("http://{host}/v2"),
            (_, false) => format!("https://{host}/v2"),
        };
        if let Ok(base) = Url::parse(&own) {
            endpoints.push(Endpoint {
                base,
                login: settings.and_then(|settings| settings.login.clone()),
                is_trusted: settings.is_some() && host != DOCKER_HUB,
            });
        }
        endpoints
    }
}

fn authority(name: &str, port: Option<u16>) -> String {
    port.map_or_else(|| name.to_owned(), |port| format!("{name}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_come_first() {
        let settings = RegistryHost {
            mirrors: vec![
                "https://mirror.example.com/hub/".into(),
                "http://10.0.0.5:5000".into(),
            ],
            ..RegistryHost::default()
        };
        let hosts = Hosts(BTreeMap::from([("docker.io".to_owned(), settings)]));
        let bases: Vec<String> = hosts
            .endpoints("docker.io")
            .iter()
            .map(|endpoint| format!("{} {}", endpoint.base, endpoint.is_trusted))
            .collect();
        let expected = [
            "https://mirror.example.com/v2/hub true",
            "http://10.0.0.5:5000/v2 true",
            "https://registry-1.docker.io/v2 false",
        ];
        assert_eq!(bases, expected);
    }

    #[test]
    fn buildkit_knows_mirrors_without_their_scheme() {
        let settings = RegistryHost {
            mirrors: vec!["http://10.0.0.5:5000/hub/".into(), "mirror.example.com".into()],
            ..RegistryHost::default()
        };
        let hosts = Hosts(BTreeMap::from([("docker.io".to_owned(), settings)]));
        let told: Vec<_> = hosts
            .upstreams()
            .into_iter()
            .map(|upstream| (upstream.host, upstream.mirrors.join(" "), upstream.plain_http))
            .collect();
        let expected = [
            ("10.0.0.5:5000", "", true),
            ("docker.io", "10.0.0.5:5000/hub mirror.example.com", false),
            ("mirror.example.com", "", false),
        ];
        assert_eq!(told, expected.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c)));
    }

    #[test]
    fn plain_http_is_only_for_hosts_that_are_named() {
        let plain = RegistryHost {
            plain_http: true,
            ..RegistryHost::default()
        };
        let hosts = Hosts(BTreeMap::from([("registry.local:5000".to_owned(), plain)]));
        assert_eq!(hosts.endpoints("registry.local:5000")[0].base.scheme(), "http");
        let other = &hosts.endpoints("127.0.0.1:5000")[0];
        assert_eq!((other.base.scheme(), other.is_trusted), ("https", false));
    }
}
