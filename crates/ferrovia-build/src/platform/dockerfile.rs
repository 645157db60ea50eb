//! The directory that holds the Dockerfile of a build, beside the source: what BuildKit reads, made from what was given.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use ferrovia_core::dockerfile::{neutralise_syntax, with_run_flags};

/// Largest Dockerfile, in bytes.
const MAX_DOCKERFILE_BYTES: u64 = 1024 * 1024;

/// A Dockerfile of somebody's source, ready to be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Prepared {
    /// Frontends that it asked for, which are not used.
    pub(super) neutralised: Vec<String>,
}

/// Takes the Dockerfile out of the source into a directory of its own, without the `syntax` lines that would run another
/// frontend, with these flags in every `RUN`, and its ignore file beside it.
pub(super) fn take(source: &Path, path: &str, run_flags: &str, directory: &Path) -> io::Result<Prepared> {
    let text = read(source, path)?.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    let neutral = neutralise_syntax(&text);
    let content = match run_flags {
        "" => neutral.content,
        flags => with_run_flags(&neutral.content, flags),
    };
    std::fs::create_dir_all(directory)?;
    std::fs::write(directory.join("Dockerfile"), content)?;
    if let Some(ignore) = read(source, &format!("{path}.dockerignore"))? {
        std::fs::write(directory.join("Dockerfile.dockerignore"), ignore)?;
    }
    Ok(Prepared {
        neutralised: neutral.removed,
    })
}

/// A file of the source; `None` when there is none. A link may lead to another file of the source and nowhere else.
fn read(source: &Path, path: &str) -> io::Result<Option<Vec<u8>>> {
    let root = source.canonicalize()?;
    let found: PathBuf = match source.join(path).canonicalize() {
        Ok(found) => found,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    if !found.starts_with(&root) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it leads out of the source",
        ));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(found)?
        .take(MAX_DOCKERFILE_BYTES + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_DOCKERFILE_BYTES {
        let why = format!("it is larger than {MAX_DOCKERFILE_BYTES} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    Ok(Some(bytes))
}

/// Whether a Dockerfile mounts a secret of this id. Read generously: to take a word for an id costs a rebuild at most.
pub(super) fn names_secret(text: &str, id: &str) -> bool {
    if !text.contains("type=secret") {
        return false;
    }
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')));
    let is_dynamic = text.contains("id=$") || text.contains("id=\"$");
    is_dynamic || words.into_iter().any(|word| word == id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_taken_without_frontends_and_with_its_ignore_file() {
        let place = tempfile::tempdir().unwrap();
        let (source, out) = (place.path().join("source"), place.path().join("out"));
        std::fs::create_dir_all(source.join("deploy")).unwrap();
        std::fs::write(
            source.join("deploy/app.Dockerfile"),
            "# syntax=x/y\nFROM scratch\n",
        )
        .unwrap();
        std::fs::write(source.join("deploy/app.Dockerfile.dockerignore"), "*.log\n").unwrap();
        let prepared = take(&source, "deploy/app.Dockerfile", "", &out).unwrap();
        assert_eq!(prepared.neutralised, ["x/y"]);
        let text = std::fs::read_to_string(out.join("Dockerfile")).unwrap();
        assert!(
            text.ends_with("FROM scratch\n") && !text.contains("syntax="),
            "{text}"
        );
        let ignore = std::fs::read_to_string(out.join("Dockerfile.dockerignore")).unwrap();
        assert_eq!(ignore, "*.log\n");
    }

    #[test]
    fn links_stay_in_the_source() {
        let place = tempfile::tempdir().unwrap();
        let source = place.path().join("source");
        std::fs::create_dir(&source).unwrap();
        std::fs::write(source.join("real"), "FROM scratch\n").unwrap();
        std::fs::write(place.path().join("outside"), "FROM scratch\n").unwrap();
        std::os::unix::fs::symlink("real", source.join("inside")).unwrap();
        std::os::unix::fs::symlink("../outside", source.join("out")).unwrap();
        assert!(read(&source, "inside").unwrap().is_some());
        assert!(read(&source, "out").is_err());
        assert!(read(&source, "none").unwrap().is_none());
    }

    #[test]
    fn secrets_are_found_by_their_ids() {
        let text = "FROM a\nRUN --mount=type=secret,id=TOKEN,env=TOKEN make\n";
        assert!(names_secret(text, "TOKEN"));
        assert!(!names_secret(text, "TOKE") && !names_secret(text, "OTHER"));
        assert!(!names_secret("FROM a\nRUN echo TOKEN\n", "TOKEN"));
        assert!(names_secret("ARG N\nRUN --mount=type=secret,id=$N x\n", "ANY"));
    }
}
