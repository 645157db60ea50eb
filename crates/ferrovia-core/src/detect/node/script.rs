//! From a script of `package.json` to the process that it starts.
//!
//! `npm start` as the first process swallows signals, costs memory and needs npm in the image. So scripts are looked
//! through: `npm run x`, `pnpm --filter app start`, `yarn workspace app start`, `npx next start` become the program that
//! they would run, in its directory. What cannot be looked through says so ([`Start::needs_manager`]).

use crate::detect::shell;

use super::package::Packages;

/// How deep scripts may call scripts.
const MAX_DEPTH: usize = 8;
/// Most scripts that are looked through for one line.
const MAX_CALLS: usize = 64;

/// What starts an application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Start {
    /// The argument list.
    pub(super) command: Vec<String>,
    /// A package manager that must be there at run time, because a script could not be looked through.
    pub(super) needs_manager: Option<String>,
    /// Tools that only development has (`nodemon`), which were replaced or stay.
    pub(super) notes: Vec<String>,
}

/// One command of a line that was looked through.
#[derive(Debug, Clone)]
struct Piece {
    /// Directory of its package; empty: the root's.
    directory: String,
    line: String,
}

/// Looks through a command line in the root's directory.
pub(super) fn resolve(packages: &Packages, line: &str, builds: bool) -> Start {
    let mut resolver = Resolver {
        packages,
        builds,
        calls_left: MAX_CALLS,
        needs_manager: None,
        notes: Vec::new(),
    };
    let pieces = resolver.pieces("", line, 0);
    Start {
        command: joined(pieces),
        needs_manager: resolver.needs_manager,
        notes: resolver.notes,
    }
}

struct Resolver<'a> {
    packages: &'a Packages,
    /// Whether a step of the plan has built already.
    builds: bool,
    calls_left: usize,
    needs_manager: Option<String>,
    notes: Vec<String>,
}

impl Resolver<'_> {
    /// The commands of a line in a package's directory.
    fn pieces(&mut self, directory: &str, line: &str, depth: usize) -> Vec<Piece> {
        let as_it_is = |line: &str| Piece {
            directory: directory.to_owned(),
            line: line.to_owned(),
        };
        let Some(parts) = shell::split_and(line) else {
            return vec![as_it_is(line)];
        };
        let mut found = Vec::new();
        for part in parts {
            let (assignments, command) = shell::split_assignments(&part);
            let prefixed = |line: &str| match assignments {
                "" => line.to_owned(),
                assignments => format!("{assignments} {line}"),
            };
            let words = shell::plain_words(command).unwrap_or_default();
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            match called(self.packages, directory, &words) {
                Call::Script { script, .. } if self.builds && script == "build" => {
                    self.note(
                        "the start script builds again; the build is left out, since it was done before",
                    );
                }
                Call::Script {
                    directory,
                    script,
                    arguments,
                } if depth < MAX_DEPTH && self.calls_left > 0 => {
                    self.calls_left -= 1;
                    let scripts = self.packages.at(&directory).map(|package| &package.scripts);
                    let get = |name: String| scripts.and_then(|scripts| scripts.get(&name)).cloned();
                    let hooks = [
                        get(format!("pre{script}")),
                        get(script).map(|line| line + &arguments),
                    ];
                    for line in hooks.into_iter().flatten() {
                        found.extend(self.pieces(&directory, &prefixed(&line), depth + 1));
                    }
                }
                Call::Program { directory, line } => {
                    found.push(Piece {
                        directory,
                        line: prefixed(&self.without_watching(&line)),
                    });
                }
                Call::Script { .. } | Call::Unknown => {
                    self.needs_manager = words.first().map(|word| (*word).to_owned());
                    found.push(as_it_is(&part));
                }
                Call::Other => found.push(as_it_is(&prefixed(&self.without_watching(command)))),
            }
        }
        found
    }

    fn note(&mut self, note: &str) {
        if !self.notes.iter().any(|known| known == note) {
            self.notes.push(note.to_owned());
        }
    }

    /// `nodemon server.js` watches files that never change in an image: `node server.js`.
    fn without_watching(&mut self, line: &str) -> String {
        let Some(words) = shell::plain_words(line) else {
            return line.to_owned();
        };
        let is_script = |word: &str| [".js", ".mjs", ".cjs"].iter().any(|end| word.ends_with(end));
        match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            ["nodemon" | "node-dev", rest @ ..] if rest.first().is_some_and(|word| is_script(word)) => {
                self.note(&format!(
                    "`{line}` is for development: `node` runs the program instead"
                ));
                rebuilt("node", rest)
            }
            ["node", "--watch", rest @ ..] => {
                self.note(&format!("`{line}` is for development: it runs without `--watch`"));
                rebuilt("node", rest)
            }
            ["next", "dev", rest @ ..] => {
                self.note("`next dev` is for development: `next start` runs instead");
                let rest: Vec<_> = rest
                    .iter()
                    .copied()
                    .filter(|word| !word.starts_with("--turbo"))
                    .collect();
                format!(
                    "next start{}",
                    rest.iter().map(|word| format!(" {word}")).collect::<String>()
                )
            }
            _ => line.to_owned(),
        }
    }
}

/// What a command calls.
enum Call {
    /// A script of a package.
    Script {
        directory: String,
        script: String,
        arguments: String,
    },
    /// A program of the dependencies.
    Program { directory: String, line: String },
    /// No package manager.
    Other,
    /// A package manager, with something that is not understood.
    Unknown,
}

/// Reads the command line of a package manager.
fn called(packages: &Packages, directory: &str, words: &[&str]) -> Call {
    let Some((&program, mut rest)) = words.split_first() else {
        return Call::Other;
    };
    if !matches!(program, "npm" | "pnpm" | "yarn" | "npx" | "pnpx" | "bunx" | "bun") {
        return Call::Other;
    }
    let mut directory = directory.to_owned();
    let mut executes = matches!(program, "npx" | "pnpx" | "bunx");
    let action = loop {
        let Some((&word, after)) = rest.split_first() else {
            return Call::Unknown;
        };
        rest = after;
        if let Some(value) = directory_flag(program, word, &mut rest) {
            match packages.directory_of(value) {
                Some(found) => directory = found.to_owned(),
                None => return Call::Unknown,
            }
            continue;
        }
        match word {
            "-s" | "--silent" | "--yes" | "-y" | "--no-install" | "--if-present" | "--no" | "--bun"
            | "run" | "run-script" => {}
            "exec" | "x" | "dlx" => executes = true,
            word if word.starts_with('-') => return Call::Unknown,
            word => break word,
        }
    };
    // npm takes the flag behind the script's name too.
    if let (true, Some((&word, after))) = (program == "npm", rest.split_first()) {
        let mut behind = after;
        if let Some(value) = directory_flag(program, word, &mut behind) {
            rest = behind;
            match packages.directory_of(value) {
                Some(found) => directory = found.to_owned(),
                None => return Call::Unknown,
            }
        }
    }
    let rest = rest.strip_prefix(&["--"]).unwrap_or(rest);
    let arguments: String = rest
        .iter()
        .map(|word| format!(" {}", shell::quoted(word)))
        .collect();
    let is_script = packages
        .at(&directory)
        .is_some_and(|package| package.scripts.contains_key(action));
    if is_script && !executes {
        return Call::Script {
            directory,
            script: action.to_owned(),
            arguments,
        };
    }
    if program == "bun" && !executes {
        return Call::Program {
            directory,
            line: format!("bun {action}{arguments}"),
        };
    }
    // `npm NAME` knows no programs, the others do.
    if executes || matches!(program, "pnpm" | "yarn") {
        return Call::Program {
            directory,
            line: format!("{action}{arguments}"),
        };
    }
    Call::Unknown
}

/// The value of a flag that names a package or its directory; its value may be the next word.
fn directory_flag<'a>(program: &str, word: &'a str, rest: &mut &[&'a str]) -> Option<&'a str> {
    let (flag, inline) = match word.split_once('=') {
        Some((flag, value)) if flag.starts_with('-') => (flag, Some(value)),
        _ => (word, None),
    };
    let is_one = match program {
        "npm" => matches!(flag, "-w" | "--workspace" | "--prefix"),
        "pnpm" => matches!(flag, "-F" | "--filter" | "-C" | "--dir"),
        "yarn" => matches!(flag, "--cwd" | "workspace"),
        "bun" => matches!(flag, "--cwd" | "--filter"),
        _ => false,
    };
    if !is_one {
        return None;
    }
    if inline.is_some() {
        return inline;
    }
    let (&value, after) = rest.split_first()?;
    *rest = after;
    Some(value)
}

fn rebuilt(program: &str, rest: &[&str]) -> String {
    std::iter::once(program.to_owned())
        .chain(rest.iter().map(|word| shell::quoted(word)))
        .collect::<Vec<_>>()
        .join(" ")
}

/// The argument list of pieces that run one after the other.
fn joined(pieces: Vec<Piece>) -> Vec<String> {
    if let [Piece { directory, line }] = pieces.as_slice()
        && directory.is_empty()
    {
        return shell::start_command(line);
    }
    let mut lines = Vec::new();
    let mut current = String::new();
    for Piece { directory, line } in pieces {
        if directory != current {
            let path = format!("/app/{directory}");
            let path = path.trim_end_matches('/');
            lines.push(format!("cd {}", shell::quoted(path)));
            let bin = format!("{path}/node_modules/.bin");
            lines.push(format!("PATH={}:$PATH", shell::quoted(&bin)));
            current = directory;
        }
        lines.push(line);
    }
    if lines.is_empty() {
        return Vec::new();
    }
    shell::shell_command(&shell::with_exec(&lines.join(" && ")))
}

#[cfg(test)]
mod tests {
    use super::super::super::view::SourceView;
    use super::*;

    fn packages() -> Packages {
        let view = SourceView::from_files([
            (
                "package.json",
                r#"{"workspaces":["apps/*"],"scripts":{"start":"npm run serve","serve":"NODE_ENV=production node server.js",
                "both":"npm run build && node dist/x.js","build":"tsc","prehook":"echo hi","hook":"node .",
                "deep":"npm run deep"}}"#,
            ),
            (
                "apps/api/package.json",
                r#"{"name":"@x/api","scripts":{"start":"next start -p $PORT"}}"#,
            ),
        ]);
        Packages::read(&view).unwrap().unwrap()
    }

    fn command(line: &str) -> Vec<String> {
        let start = resolve(&packages(), line, true);
        assert_eq!(start.needs_manager, None, "{line}");
        start.command
    }

    #[test]
    fn scripts_are_looked_through() {
        assert_eq!(command("node server.js"), ["node", "server.js"]);
        let through = |script: &str| vec!["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()];
        assert_eq!(
            command("npm start"),
            through("NODE_ENV=production exec node server.js")
        );
        assert_eq!(
            command("A=1 npm run serve"),
            through("A=1 NODE_ENV=production exec node server.js")
        );
        assert_eq!(command("npm run both"), ["node", "dist/x.js"]);
        assert_eq!(
            command("npm run hook -- --flag"),
            through("echo hi && exec node . --flag")
        );
        assert_eq!(command("npx next start"), ["next", "start"]);
        assert_eq!(command("pnpm exec next start"), ["next", "start"]);
        assert_eq!(command("yarn next start"), ["next", "start"]);
        let api = through(
            "cd /app/apps/api && PATH=/app/apps/api/node_modules/.bin:$PATH && exec next start -p $PORT",
        );
        for line in [
            "npm start -w @x/api",
            "npm run start --workspace=apps/api",
            "npm --prefix apps/api start",
            "pnpm --filter @x/api start",
            "pnpm -C apps/api run start",
            "yarn workspace @x/api start",
        ] {
            assert_eq!(command(line), api, "{line}");
        }
    }

    #[test]
    fn what_is_for_development_is_replaced() {
        assert_eq!(command("nodemon server.js"), ["node", "server.js"]);
        assert_eq!(command("node --watch server.js"), ["node", "server.js"]);
        assert_eq!(command("next dev --turbopack"), ["next", "start"]);
        assert_eq!(resolve(&packages(), "nodemon x.js", false).notes.len(), 1);
    }

    #[test]
    fn what_cannot_be_looked_through_says_so() {
        for line in [
            "npm run missing",
            "npm --workspaces start",
            "pnpm -r start",
            "npm run deep",
        ] {
            assert!(
                resolve(&packages(), line, false).needs_manager.is_some(),
                "{line}"
            );
        }
    }
}
