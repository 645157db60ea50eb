//! The variables that the platform gives to every replica, each also under the name that Railway uses.
//!
//! Pure, so that references (`${{Service.FERROVIA_PUBLIC_DOMAIN}}`) resolve to exactly what the replica will see.
//! `FERROVIA_REPLICA_ID` is absent: only the engine knows its name for a replica, and adds it.

use serde::{Deserialize, Serialize};

use crate::workload::Owner;

/// Suffix of the private names: `SERVICE.ferrovia.internal`.
pub const PRIVATE_SUFFIX: &str = "ferrovia.internal";

/// Where the source came from, when known.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct GitSource {
    /// The commit's full hash.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit_sha: Option<String>,
    /// The branch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// Who wrote the commit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// The commit's message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Longest text of a [`GitSource`] that is kept, in bytes; longer ones are cut.
pub const MAX_GIT_TEXT_BYTES: usize = 4096;

impl GitSource {
    /// The same without what no database and no process environment can hold: NULs, and what is too long.
    #[must_use]
    pub fn cleaned(self) -> Self {
        let clean = |text: Option<String>| {
            let mut text = text?.replace('\0', "");
            text.truncate(text.floor_char_boundary(MAX_GIT_TEXT_BYTES));
            (!text.is_empty()).then_some(text)
        };
        Self {
            commit_sha: clean(self.commit_sha),
            branch: clean(self.branch),
            author: clean(self.author),
            message: clean(self.message),
        }
    }
}

/// Where the instance is reached from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicAddress {
    /// Host name without port.
    pub host: String,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// Port; left out of the URL when it is the scheme's own.
    pub port: u16,
}

impl PublicAddress {
    /// The URL with scheme, and with the port where it is not the scheme's own.
    pub fn url(&self) -> String {
        match (self.scheme, self.port) {
            ("http", 80) | ("https", 443) => format!("{}://{}", self.scheme, self.host),
            _ => format!("{}://{}:{}", self.scheme, self.host, self.port),
        }
    }
}

/// The variables of one deployment, in order, without those of the user.
pub fn injected(
    owner: &Owner,
    port: Option<u16>,
    public: Option<&PublicAddress>,
    source: &GitSource,
    railway: bool,
) -> Vec<(String, String)> {
    let mut variables = Vec::new();
    if let Some(port) = port {
        variables.push(("PORT".to_owned(), port.to_string()));
    }
    let mut give = |own: &str, railways: Option<&str>, value: String| {
        if let (true, Some(name)) = (railway, railways) {
            variables.push((format!("RAILWAY_{name}"), value.clone()));
        }
        variables.push((format!("FERROVIA_{own}"), value));
    };
    let same = |give: &mut dyn FnMut(&str, Option<&str>, String), name: &str, value: String| {
        give(name, Some(name), value)
    };

    same(&mut give, "PROJECT_NAME", owner.project.to_string());
    same(&mut give, "PROJECT_ID", owner.project_id.to_string());
    same(&mut give, "ENVIRONMENT_NAME", owner.environment.to_string());
    same(&mut give, "ENVIRONMENT_ID", owner.environment_id.to_string());
    same(&mut give, "SERVICE_NAME", owner.service.to_string());
    same(&mut give, "SERVICE_ID", owner.service_id.to_string());
    same(&mut give, "DEPLOYMENT_ID", owner.deployment_id.to_string());
    give("DEPLOYMENT_NUMBER", None, owner.number.to_string());
    same(
        &mut give,
        "PRIVATE_DOMAIN",
        format!("{}.{PRIVATE_SUFFIX}", owner.service),
    );
    if let Some(public) = public {
        same(&mut give, "PUBLIC_DOMAIN", public.host.clone());
        give("PUBLIC_URL", None, public.url());
    }
    for (name, value) in [
        ("GIT_COMMIT_SHA", &source.commit_sha),
        ("GIT_BRANCH", &source.branch),
        ("GIT_AUTHOR", &source.author),
        ("GIT_COMMIT_MESSAGE", &source.message),
    ] {
        if let Some(value) = value {
            same(&mut give, name, value.clone());
        }
    }
    variables
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::id::Id;

    fn owner() -> Owner {
        Owner {
            project_id: Id::from_uuid(Uuid::nil()),
            project: "shop".parse().unwrap(),
            environment_id: Id::from_uuid(Uuid::nil()),
            environment: "production".parse().unwrap(),
            service_id: Id::from_uuid(Uuid::nil()),
            service: "web".parse().unwrap(),
            instance_id: Id::from_uuid(Uuid::nil()),
            deployment_id: Id::from_uuid(Uuid::nil()),
            number: 12,
        }
    }

    #[test]
    fn a_service_without_a_port_gets_none_and_no_url() {
        let names: Vec<String> = injected(&owner(), None, None, &GitSource::default(), false)
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert!(names.iter().all(|name| name.starts_with("FERROVIA_")));
        assert!(
            !names
                .iter()
                .any(|name| name.contains("PUBLIC") || name.contains("GIT"))
        );
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        let source = GitSource {
            message: Some("\u{fc}".repeat(5_000)),
            author: Some("\0".into()),
            ..GitSource::default()
        };
        let cleaned = source.cleaned();
        assert_eq!(cleaned.message.unwrap().len(), MAX_GIT_TEXT_BYTES);
        assert_eq!(cleaned.author, None);
    }

    #[test]
    fn railways_names_have_the_same_values() {
        let public = PublicAddress {
            host: "web-production.localhost".to_owned(),
            scheme: "http",
            port: 8080,
        };
        let variables = injected(&owner(), Some(3000), Some(&public), &GitSource::default(), true);
        let get = |name: &str| {
            variables
                .iter()
                .find(|(key, _)| key == name)
                .map(|(_, value)| value.as_str())
        };
        assert_eq!(get("PORT"), Some("3000"));
        assert_eq!(
            get("FERROVIA_PUBLIC_URL"),
            Some("http://web-production.localhost:8080")
        );
        assert_eq!(get("RAILWAY_PUBLIC_DOMAIN"), get("FERROVIA_PUBLIC_DOMAIN"));
        assert_eq!(get("RAILWAY_PRIVATE_DOMAIN"), Some("web.ferrovia.internal"));
    }
}
