//! What must be known of a user's Dockerfile before it is built: its stages, the images it starts from, its `ARG`s.
//!
//! A reader of instructions, not of a language: continuation lines, comments, here-documents and the `escape` directive
//! as BuildKit reads them, `ARG` defaults expanded in image names. What it does not understand it leaves to BuildKit,
//! which has the last word and the better error message.

mod directive;
mod expand;

use std::collections::{BTreeMap, BTreeSet};

use crate::error::Report;

pub use directive::{Neutralised, neutralise_syntax};

/// Where a Dockerfile is looked for when no setting names another path.
pub const DEFAULT_PATH: &str = "Dockerfile";
/// Most instructions that are read.
const MAX_INSTRUCTIONS: usize = 10_000;

/// A Dockerfile, as far as it is read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dockerfile {
    /// Its stages, in order.
    pub stages: Vec<Stage>,
    /// Every `ARG`, in order.
    pub arguments: Vec<Argument>,
    /// What is copied or mounted from, as it stands there: stage names, indices, images.
    copied_from: Vec<String>,
}

/// A stage of a Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// Its name in lower case, if it has one.
    pub name: Option<String>,
    /// What it starts from, as it stands there.
    pub from: String,
}

/// An `ARG`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argument {
    /// Its name.
    pub name: String,
    /// Its default, as it stands there.
    pub default: Option<String>,
    /// The line that it is on, from 1.
    pub line: usize,
    /// Whether it stands before the first `FROM`, where it serves only `FROM` lines.
    pub global: bool,
}

impl Dockerfile {
    /// Reads the text of a Dockerfile.
    pub fn read(text: &str) -> Self {
        let mut file = Self::default();
        for (line, keyword, rest) in instructions(text) {
            match keyword.as_str() {
                "FROM" => {
                    let words: Vec<_> = rest
                        .split_whitespace()
                        .filter(|word| !word.starts_with("--"))
                        .collect();
                    let Some(from) = words.first() else { continue };
                    let name = match words.as_slice() {
                        [_, word, name, ..] if word.eq_ignore_ascii_case("as") => {
                            Some(name.to_ascii_lowercase())
                        }
                        _ => None,
                    };
                    file.stages.push(Stage {
                        name,
                        from: (*from).to_owned(),
                    });
                }
                "ARG" => {
                    let global = file.stages.is_empty();
                    file.arguments
                        .extend(arguments(&rest).map(|(name, default)| Argument {
                            name,
                            default,
                            line,
                            global,
                        }));
                }
                "COPY" | "ADD" | "RUN" => file.copied_from.extend(sources(&rest)),
                _ => {}
            }
        }
        file
    }

    /// Checks that there is a stage of this name or index.
    ///
    /// # Errors
    /// A [`Report`] that lists the stages there are.
    pub fn check_target(&self, target: &str) -> Result<(), Report> {
        if self.is_stage(target, self.stages.len()) {
            return Ok(());
        }
        let names: Vec<_> = self
            .stages
            .iter()
            .filter_map(|stage| stage.name.as_deref())
            .collect();
        let hint = match names.as_slice() {
            [] => "no stage has a name; name one with `FROM IMAGE AS NAME`".to_owned(),
            names => format!("its stages are `{}`", names.join("`, `")),
        };
        Err(Report::new(
            "target_missing",
            format!("the Dockerfile has no stage `{target}`"),
        )
        .with_hint(hint))
    }

    /// Warnings for every `ARG` that names a variable of the service which is not handed to the build as an argument.
    pub fn unlisted_arguments(&self, listed: &[String], variables: &[String]) -> Vec<Report> {
        let mut told: Vec<&str> = Vec::new();
        let mut warnings = Vec::new();
        for Argument { name, line, .. } in &self.arguments {
            if listed.contains(name) || !variables.contains(name) || told.contains(&name.as_str()) {
                continue;
            }
            told.push(name);
            let message = format!(
                "`ARG {name}` (line {line}) stays without the value of the variable `{name}`: arguments end up in the image's history"
            );
            let hint = format!(
                "if `{name}` is secret, use `RUN --mount=type=secret,id={name},env={name} COMMAND`; if it is not, list it among the build arguments"
            );
            warnings.push(Report::new("argument_unlisted", message).with_hint(hint));
        }
        warnings
    }

    /// Every image that a build of it may start or copy from, once, `ARG`s expanded with `given` before their defaults.
    /// What cannot be expanded is left out.
    pub fn images(&self, given: &BTreeMap<String, String>) -> Vec<String> {
        let mut values = BTreeMap::new();
        for argument in self.arguments.iter().filter(|argument| argument.global) {
            let default = argument
                .default
                .as_ref()
                .and_then(|default| expand::expand(default, &values));
            if let Some(value) = given.get(&argument.name).cloned().or(default) {
                values.insert(argument.name.clone(), value);
            }
        }
        let mut images = Vec::new();
        let mut add = |text: &str, stages: usize| {
            let Some(image) = expand::expand(text, &values) else {
                return;
            };
            if !image.is_empty()
                && image != "scratch"
                && !self.is_stage(&image, stages)
                && !images.contains(&image)
            {
                images.push(image);
            }
        };
        for (index, stage) in self.stages.iter().enumerate() {
            add(&stage.from, index);
        }
        for from in &self.copied_from {
            add(from, self.stages.len());
        }
        images
    }

    /// Whether `name` is one of the first `count` stages, by name or index.
    fn is_stage(&self, name: &str, count: usize) -> bool {
        let name = name.to_ascii_lowercase();
        let stages = &self.stages[..count.min(self.stages.len())];
        let by_index = || name.parse::<usize>().is_ok_and(|index| index < stages.len());
        stages.iter().any(|stage| stage.name.as_ref() == Some(&name)) || by_index()
    }
}

/// The same Dockerfile with flags put behind the keyword of every `RUN`; line numbers stay. One that is not UTF-8 stays
/// as it is.
pub fn with_run_flags(dockerfile: &[u8], flags: &str) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(dockerfile) else {
        return dockerfile.to_vec();
    };
    let runs: BTreeSet<usize> = instructions(text)
        .into_iter()
        .filter(|(_, keyword, _)| keyword == "RUN")
        .map(|(line, ..)| line)
        .collect();
    let mut out = String::with_capacity(text.len() + runs.len() * flags.len());
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let bare = line.trim_start_matches(|c: char| c == '\u{feff}' || c.is_whitespace());
        match runs
            .contains(&(index + 1))
            .then(|| bare.split_at_checked("RUN".len()))
        {
            Some(Some((keyword, rest))) => {
                out.push_str(&line[..line.len() - bare.len()]);
                out.push_str(keyword);
                out.push(' ');
                out.push_str(flags);
                out.push_str(rest);
            }
            _ => out.push_str(line),
        }
    }
    out.into_bytes()
}

/// Line number, keyword in upper case, and the rest of every instruction.
fn instructions(text: &str) -> Vec<(usize, String, String)> {
    let escape = directive::escape_character(text.as_bytes());
    let mut found = Vec::new();
    let mut lines = text.strip_prefix('\u{feff}').unwrap_or(text).lines().enumerate();
    while let Some((index, line)) = lines.next() {
        if found.len() >= MAX_INSTRUCTIONS {
            break;
        }
        let mut whole = line.trim().to_owned();
        if whole.is_empty() || whole.starts_with('#') {
            continue;
        }
        while whole.ends_with(escape) {
            whole.pop();
            // Comments and empty lines inside a continued instruction are skipped.
            let next = lines
                .by_ref()
                .map(|(_, line)| line.trim())
                .find(|line| !line.is_empty() && !line.starts_with('#'));
            let Some(next) = next else { break };
            whole.push_str(next);
        }
        let (keyword, rest) = whole.split_once(char::is_whitespace).unwrap_or((&whole, ""));
        let keyword = keyword.to_ascii_uppercase();
        if matches!(keyword.as_str(), "RUN" | "COPY" | "ADD") {
            for delimiter in here_documents(rest) {
                lines
                    .by_ref()
                    .find(|(_, line)| line.trim_start_matches('\t') == delimiter);
            }
        }
        found.push((index + 1, keyword, rest.trim().to_owned()));
    }
    found
}

/// The delimiters of the here-documents that begin on a line.
fn here_documents(rest: &str) -> Vec<String> {
    let mut found = Vec::new();
    for word in rest.split_whitespace() {
        let word = word.trim_start_matches(|c: char| c.is_ascii_digit());
        let Some(word) = word.strip_prefix("<<") else {
            continue;
        };
        let word = word.strip_prefix('-').unwrap_or(word).trim_matches(['"', '\'']);
        let word = word.split([';', '|', '>', '&', ')']).next().unwrap_or_default();
        if word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
            found.push(word.to_owned());
        }
    }
    found
}

/// Names and defaults of an `ARG` instruction.
fn arguments(rest: &str) -> impl Iterator<Item = (String, Option<String>)> {
    words(rest).into_iter().map(|word| match word.split_once('=') {
        Some((name, default)) => (name.to_owned(), Some(default.to_owned())),
        None => (word, None),
    })
}

/// Words, with quotes taken off.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in text.chars() {
        match (quote, c) {
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (Some(open), c) if c == open => quote = None,
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// What `--from=` and `--mount=…,from=` name in a COPY or RUN.
fn sources(rest: &str) -> Vec<String> {
    let flags = rest.split_whitespace().take_while(|word| word.starts_with("--"));
    flags
        .filter_map(|flag| match flag.strip_prefix("--from=") {
            Some(from) => Some(from),
            None => flag
                .strip_prefix("--mount=")?
                .split(',')
                .find_map(|part| part.strip_prefix("from=")),
        })
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"# syntax=docker/dockerfile:1
ARG VERSION=20
ARG VARIANT
FROM --platform=$BUILDPLATFORM node:${VERSION}-slim AS Deps
ARG TOKEN
ARG A=1 B="two words"
RUN --mount=type=cache,target=/x --mount=type=bind,from=tools:1,target=/t \
    # a comment
    npm ci \

    && echo FROM nothing
COPY <<EOF /x
FROM hidden
ARG HIDDEN
EOF
FROM deps as build
COPY --from=deps /a /b
COPY --from=0 /a /b
COPY --from=busybox:1.36 /a /b
FROM ${VARIANT:-debian:trixie}
FROM $UNKNOWN
FROM scratch
"#;

    #[test]
    fn flags_stand_behind_every_run_and_nowhere_else() {
        let text = "\u{feff}from a\n  run make \\\n  RUN=1 \\\n# RUN x\n  all\nRUN <<EOF\nRUN inside\nEOF\nRUN [\"a\"]\r\nCOPY <<E /x\nRUN y\nE\nONBUILD RUN z\n# RUN c\nRUN";
        let expected = text
            .replace("run make", "run --m make")
            .replace("RUN <<EOF", "RUN --m <<EOF")
            .replace("RUN [", "RUN --m [");
        let expected = format!("{} --m", expected);
        let found = with_run_flags(text.as_bytes(), "--m");
        assert_eq!(String::from_utf8(found).unwrap(), expected);
        assert_eq!(with_run_flags(b"RUN \xff", "--m"), b"RUN \xff");
        let other = "# escape=`\nRUN a `\n  RUN b\nRUN c\n";
        let found = String::from_utf8(with_run_flags(other.as_bytes(), "--m")).unwrap();
        assert_eq!(found, "# escape=`\nRUN --m a `\n  RUN b\nRUN --m c\n");
    }

    #[test]
    fn stages_images_and_arguments_are_read() {
        let file = Dockerfile::read(FILE);
        let names: Vec<_> = file.stages.iter().map(|stage| stage.name.as_deref()).collect();
        assert_eq!(names, [Some("deps"), Some("build"), None, None, None]);
        assert_eq!(
            file.images(&BTreeMap::new()),
            ["node:20-slim", "debian:trixie", "tools:1", "busybox:1.36"]
        );
        let given = BTreeMap::from([
            ("VERSION".to_owned(), "22".to_owned()),
            ("VARIANT".to_owned(), "x".to_owned()),
        ]);
        assert_eq!(file.images(&given)[..2], ["node:22-slim", "x"]);
        let arguments: Vec<_> = file
            .arguments
            .iter()
            .map(|a| (a.name.as_str(), a.default.as_deref(), a.line))
            .collect();
        assert_eq!(
            arguments,
            [
                ("VERSION", Some("20"), 2),
                ("VARIANT", None, 3),
                ("TOKEN", None, 5),
                ("A", Some("1"), 6),
                ("B", Some("two words"), 6)
            ]
        );
    }

    #[test]
    fn a_target_must_be_there() {
        let file = Dockerfile::read(FILE);
        file.check_target("BUILD").unwrap();
        file.check_target("1").unwrap();
        let error = file.check_target("prod").unwrap_err();
        assert_eq!(error.hint.unwrap(), "its stages are `deps`, `build`");
        assert!(file.check_target("9").is_err());
    }

    #[test]
    fn an_argument_that_is_a_variable_is_told() {
        let file = Dockerfile::read(FILE);
        let variables = ["TOKEN".to_owned(), "A".to_owned(), "OTHER".to_owned()];
        let warnings = file.unlisted_arguments(&["A".to_owned()], &variables);
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].message.starts_with("`ARG TOKEN` (line 5)"));
        assert!(file.unlisted_arguments(&[], &[]).is_empty());
    }

    #[test]
    fn the_escape_directive_counts() {
        let file = Dockerfile::read("# escape=`\nFROM a `\n AS b\nRUN dir c:\\\nFROM c");
        assert_eq!(file.stages.len(), 2);
        assert_eq!(file.stages[0].name.as_deref(), Some("b"));
    }
}
