//! The command line of `buildctl` and the files that it names. No secret is in it.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

use ferrovia_core::secret::Secret;
use serde_json::{Value, json};

use super::{Compression, Job};
use crate::buildkit::secrets::SecretDirectory;

/// Docker's own key for its registry in configuration files.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// Files of one build.
pub(super) struct Files {
    /// Where `buildctl` writes what it made.
    pub(super) metadata: PathBuf,
    policy: Option<PathBuf>,
    /// Secret ids and their files.
    secrets: Vec<(String, PathBuf)>,
}

impl Files {
    pub(super) fn write(job: &Job, private: &SecretDirectory) -> io::Result<Self> {
        let mut auths = serde_json::Map::new();
        for (registry, login) in &job.logins {
            let key = if registry == "docker.io" {
                DOCKER_HUB_KEY
            } else {
                registry
            };
            auths.insert(key.to_owned(), json!({"auth": login.basic().expose()}));
        }
        let config = json!({"auths": auths}).to_string();
        private.write("config.json", &Secret::new(config))?;
        let mut secrets = Vec::new();
        for (place, (id, value)) in job.secrets.iter().enumerate() {
            secrets.push((id.clone(), private.write(&format!("secret-{place}"), value)?));
        }
        secrets.extend(job.secret_files.iter().cloned());
        let policy = match job.policy() {
            Some(policy) => Some(private.write("policy.json", &Secret::new(policy.to_string()))?),
            None => None,
        };
        Ok(Self {
            metadata: private.path().join("metadata.json"),
            policy,
            secrets,
        })
    }
}

/// A field of a comma-separated value, quoted where it must be (RFC 4180).
fn field(text: &str) -> String {
    match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}

impl Job {
    /// The arguments of `buildctl`, after its global ones.
    pub(super) fn command_line(&self, cgroup_parent: &str, files: &Files) -> Vec<OsString> {
        let mut arguments = Vec::new();
        let mut flag = |name: &str, value: OsString| {
            arguments.push(OsString::from(name));
            arguments.push(value);
        };
        let path = |prefix: &str, path: &std::path::Path| {
            let mut value = OsString::from(prefix);
            value.push(path);
            value
        };
        flag("--progress", "rawjson".into());
        flag("--frontend", "dockerfile.v0".into());
        flag("--metadata-file", files.metadata.clone().into());
        flag("--local", path("context=", &self.context));
        flag("--local", path("dockerfile=", &self.dockerfile_directory));
        flag("--opt", format!("filename={}", self.dockerfile).into());
        flag(
            "--opt",
            format!("cgroup-parent={cgroup_parent}/{}", self.scope).into(),
        );
        if let Some(target) = &self.target {
            flag("--opt", format!("target={target}").into());
        }
        for (name, value) in &self.arguments {
            flag("--opt", format!("build-arg:{name}={value}").into());
        }
        for (name, image) in &self.contexts {
            flag("--opt", format!("context:{name}={image}").into());
        }
        for (id, file) in &files.secrets {
            let source = field(&format!("src={}", file.display()));
            flag(
                "--secret",
                format!("{},{source}", field(&format!("id={id}"))).into(),
            );
        }
        if let Some(policy) = &files.policy {
            flag("--source-policy-file", policy.clone().into());
        }
        if let Some(name) = &self.output {
            // Layers of a base that are compressed otherwise are made anew.
            let compression = match self.compression {
                Compression::Gzip => "compression=gzip,force-compression=true",
                Compression::Zstd => "compression=zstd,compression-level=1",
            };
            let output = "type=image,push=true,oci-mediatypes=true";
            flag(
                "--output",
                format!("{output},{compression},{}", field(&format!("name={name}"))).into(),
            );
        }
        if self.no_cache {
            arguments.push("--no-cache".into());
        }
        arguments.insert(0, "build".into());
        arguments
    }

    /// What a Dockerfile may not start from: images of other projects in the platform's own registry, by digest too,
    /// which the daemon may still hold from another build.
    fn policy(&self) -> Option<Value> {
        let own = self.own_images.as_ref()?;
        let rule = |action: &str, what: &str| {
            let identifier = format!("docker-image://{}/{what}*", own.registry);
            json!({"action": action, "selector": {"identifier": identifier, "matchType": "WILDCARD"}})
        };
        let mut rules = vec![rule("DENY", "")];
        rules.extend(own.allowed.iter().map(|prefix| rule("ALLOW", prefix)));
        Some(json!({"version": 1, "rules": rules}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buildkit::solve::OwnImages;
    use crate::registry::Login;

    #[test]
    fn secrets_are_in_private_files_and_never_in_arguments() {
        let place = tempfile::tempdir().unwrap();
        let private = SecretDirectory::create(place.path(), "b").unwrap();
        let mut job = Job::new("b".into(), "s", "/tree".as_ref());
        job.secrets = vec![("TOKEN".into(), Secret::new("hunter2"))];
        job.arguments = vec![("MODE".into(), "a,b \"c\"".into())];
        job.contexts = vec![(
            "node:20".into(),
            "docker-image://127.0.0.1:7071/bases/node@sha256:0".into(),
        )];
        job.output = Some("127.0.0.1:7071/apps/p/s:t".into());
        job.logins = vec![(
            "docker.io".into(),
            Login {
                user: "u".into(),
                password: Secret::new("passw0rd"),
            },
        )];
        job.own_images = Some(OwnImages {
            registry: "127.0.0.1:7071".into(),
            allowed: vec!["bases/".into()],
        });
        let files = Files::write(&job, &private).unwrap();
        let line = job.command_line("builds", &files);
        let text: Vec<_> = line
            .iter()
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        assert_eq!(text[0], "build");
        assert!(text.contains(&"cgroup-parent=builds/s".into()));
        assert!(text.contains(&"build-arg:MODE=a,b \"c\"".into()));
        assert!(text.iter().any(|word| word.starts_with("id=TOKEN,src=/")));
        assert!(
            text.iter()
                .all(|word| !word.contains("hunter2") && !word.contains("passw0rd"))
        );
        let config = std::fs::read_to_string(private.path().join("config.json")).unwrap();
        assert!(config.contains(DOCKER_HUB_KEY) && !config.contains("passw0rd"));
        let policy = std::fs::read_to_string(files.policy.unwrap()).unwrap();
        assert!(policy.contains("docker-image://127.0.0.1:7071/bases/*"));
    }

    #[test]
    fn fields_are_quoted_where_they_must_be() {
        assert_eq!(field("name=a"), "name=a");
        assert_eq!(field("src=/a,\"b"), "\"src=/a,\"\"b\"");
    }
}
