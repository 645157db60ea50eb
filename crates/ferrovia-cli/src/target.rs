//! What a command is about: flags win over environment, environment over the linked directory, that over the
//! directory's name.

use std::path::{Path, PathBuf};

use ferrovia_api::client::InstancePath;
use ferrovia_core::name::Name;

use crate::args::Global;
use crate::config::Config;
use crate::failure::Failure;

/// The environment when none is named.
pub const DEFAULT_ENVIRONMENT: &str = "production";

/// The instance that is meant in a directory.
pub fn instance(global: &Global, config: &Config, directory: &Path) -> Result<InstancePath, Failure> {
    let directory = absolute(directory)?;
    let link = config.link_of(&directory).cloned().unwrap_or_default();
    let named = directory
        .file_name()
        .and_then(|name| Name::from_text(&name.to_string_lossy()))
        .map(String::from);
    let choose = |given: &Option<String>, linked: Option<String>, word: &str| {
        given.clone().or(linked).or_else(|| named.clone()).ok_or_else(|| {
            Failure::usage(format!(
                "the directory `{}` gives no name for the {word}",
                directory.display()
            ))
            .hint(format!("say which with `--{word} NAME`"))
        })
    };
    let path = InstancePath {
        project: choose(&global.project, link.project, "project")?,
        environment: global
            .environment
            .clone()
            .or(link.environment)
            .unwrap_or_else(|| DEFAULT_ENVIRONMENT.to_owned()),
        service: choose(&global.service, link.service, "service")?,
    };
    check_name(&path.project, "project")?;
    check_name(&path.environment, "environment")?;
    check_name(&path.service, "service")?;
    Ok(path)
}

/// Refuses what would lead elsewhere as a part of a URL: `..` is what is above.
pub fn check_name(text: &str, word: &str) -> Result<(), Failure> {
    if text.chars().all(|letter| letter == '.') {
        return Err(Failure::usage(format!("`{text}` is not the name of a {word}"))
            .hint("names have lower-case letters, digits and hyphens"));
    }
    Ok(())
}

/// The instance that is meant where the command was called.
pub fn here(global: &Global, config: &Config) -> Result<InstancePath, Failure> {
    instance(global, config, Path::new("."))
}

/// The project that is meant where the command was called.
pub fn project_here(global: &Global, config: &Config) -> Result<String, Failure> {
    Ok(here(global, config)?.project)
}

/// The directory without symbolic links and `..`; it must exist.
pub fn absolute(directory: &Path) -> Result<PathBuf, Failure> {
    let found = std::fs::canonicalize(directory).map_err(|error| {
        Failure::usage(format!(
            "the directory `{}` cannot be read: {error}",
            directory.display()
        ))
    })?;
    if !found.is_dir() {
        return Err(Failure::usage(format!(
            "`{}` is not a directory",
            directory.display()
        )));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Link;

    #[test]
    fn dots_are_no_names() {
        for (text, good) in [
            ("", false),
            (".", false),
            ("..", false),
            ("a.b", true),
            ("web", true),
        ] {
            assert_eq!(check_name(text, "service").is_ok(), good, "{text}");
        }
    }

    #[test]
    fn flags_over_link_over_name() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("My App");
        std::fs::create_dir(&directory).unwrap();
        let mut config = Config::default();
        let global = Global::default();
        let path = instance(&global, &config, &directory).unwrap();
        assert_eq!(
            (
                path.project.as_str(),
                path.environment.as_str(),
                path.service.as_str()
            ),
            ("my-app", "production", "my-app")
        );
        let link = Link {
            project: Some("shop".into()),
            environment: Some("staging".into()),
            service: None,
        };
        let key = absolute(&directory).unwrap().to_string_lossy().into_owned();
        config.links.insert(key, link);
        let global = Global {
            environment: Some("test".into()),
            ..Global::default()
        };
        let path = instance(&global, &config, &directory).unwrap();
        assert_eq!(
            (
                path.project.as_str(),
                path.environment.as_str(),
                path.service.as_str()
            ),
            ("shop", "test", "my-app")
        );
    }
}
