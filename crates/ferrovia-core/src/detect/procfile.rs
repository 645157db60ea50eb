//! The `Procfile`: `NAME: COMMAND` lines, with comments, as Heroku and Dokku read them.
//!
//! Deliberately not a YAML map: a command may hold `: ` and unbalanced quotes. Every process type is kept; `release` is
//! not a process and never run by a build.

use std::collections::BTreeMap;

use crate::error::Report;

/// The process type that takes requests.
pub(crate) const WEB: &str = "web";
/// The process type that runs before a new version takes requests.
pub(crate) const RELEASE: &str = "release";

/// The process types of a tree, with their command lines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Procfile {
    pub(crate) processes: BTreeMap<String, String>,
}

impl Procfile {
    /// Reads the text of a `Procfile`; lines that are none become warnings.
    pub(crate) fn parse(text: &str) -> (Self, Vec<Report>) {
        let mut processes = BTreeMap::new();
        let mut warnings = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let parsed = line.split_once(':').filter(|(name, _)| is_name(name.trim()));
            let command = parsed.map(|(_, command)| without_comment(command.trim()));
            match (parsed, command) {
                (Some((name, _)), Some(command)) if !command.is_empty() => {
                    processes.insert(name.trim().to_owned(), command.to_owned());
                }
                _ => warnings.push(unreadable(index + 1, line)),
            }
        }
        (Self { processes }, warnings)
    }

    /// The process that starts by itself: `web`, else `worker`, else the first other one but `release`.
    pub(crate) fn start(&self) -> Option<(&str, &str)> {
        let named = |name: &str| self.processes.get_key_value(name);
        let first = || self.processes.iter().find(|(name, _)| *name != RELEASE);
        let (name, command) = named(WEB).or_else(|| named("worker")).or_else(first)?;
        Some((name, command))
    }

    /// Whether nothing of it takes requests.
    pub(crate) fn has_no_port(&self) -> bool {
        self.start().is_some_and(|(name, _)| name != WEB)
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// Cuts ` # comment` off, unless it stands in quotes.
fn without_comment(command: &str) -> &str {
    let mut quote = None;
    let mut before = ' ';
    for (at, c) in command.char_indices() {
        match (quote, c) {
            (None, '#') if before.is_whitespace() => return command[..at].trim_end(),
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            _ => {}
        }
        before = c;
    }
    command
}

fn unreadable(number: usize, line: &str) -> Report {
    let shown: String = line.chars().take(80).collect();
    Report::new(
        "procfile_line",
        format!("`Procfile` line {number} is not `NAME: COMMAND` and is not considered: `{shown}`"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_comments_and_other_things() {
        let (procfile, warnings) = Procfile::parse(
            "# types\n web: gunicorn app:app --log-format '%(h)s # %(l)s: x' # the site\r\nworker:python worker.py\n\
             release: python manage.py migrate\nnot a line\nempty:\n",
        );
        let processes: Vec<_> = procfile
            .processes
            .iter()
            .map(|(a, b)| (a.as_str(), b.as_str()))
            .collect();
        assert_eq!(
            processes,
            [
                ("release", "python manage.py migrate"),
                ("web", "gunicorn app:app --log-format '%(h)s # %(l)s: x'"),
                ("worker", "python worker.py")
            ]
        );
        assert_eq!(warnings.len(), 2);
        assert_eq!(procfile.start().unwrap().0, "web");
        assert!(!procfile.has_no_port());
    }

    #[test]
    fn without_web_nothing_listens() {
        let (procfile, _) = Procfile::parse("release: x\nclock: y\nworker: z");
        assert_eq!(procfile.start(), Some(("worker", "z")));
        assert!(procfile.has_no_port());
        let (procfile, _) = Procfile::parse("release: x");
        assert_eq!(procfile.start(), None);
        assert!(!procfile.has_no_port());
    }
}
