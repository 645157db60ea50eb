//! How child processes are born: in control groups, with a priority, with a clean environment.
//!
//! Groups and priorities must be set in the child before its program runs, and a hook between fork and exec needs
//! unsafe code. So the program is started by another that sets them and then becomes it: `ferroviad child` in the
//! product, a fixed shell line elsewhere. Values are arguments, never text of a shell.

use std::ffi::OsString;
use std::path::PathBuf;

use tokio::process::Command;

/// What a child is born with.
#[derive(Debug, Clone, Default)]
pub struct ChildSpec {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Its whole environment: nothing is inherited.
    pub env: Vec<(String, OsString)>,
    /// Control groups that it enters: directories with a `cgroup.procs` file.
    pub cgroups: Vec<PathBuf>,
    /// Lower priority of the processor: 0 to 19.
    pub nice: Option<i32>,
    /// Preference of the kernel when memory is out: -1000 to 1000.
    pub oom_score_adj: Option<i32>,
}

impl ChildSpec {
    /// A program with its arguments and nothing else.
    pub fn new<I, S>(program: impl Into<PathBuf>, args: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: Into<OsString>,
    {
        Self {
            program: program.into(),
            args: args.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }

    /// The same with one more variable.
    #[must_use]
    pub fn with_env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }
}

/// Makes the command that starts a child. Who starts it sets its streams and its process group.
pub trait Launcher: Send + Sync {
    /// The command for this child.
    fn command(&self, spec: &ChildSpec) -> Command;
}

/// Through `ferroviad child`.
#[derive(Debug, Clone)]
pub struct ReexecLauncher {
    /// The `ferroviad` executable.
    pub executable: PathBuf,
}

impl Launcher for ReexecLauncher {
    fn command(&self, spec: &ChildSpec) -> Command {
        let mut command = Command::new(&self.executable);
        command.arg("child");
        for group in &spec.cgroups {
            command.arg("--cgroup").arg(group);
        }
        if let Some(nice) = spec.nice {
            command.arg("--nice").arg(nice.to_string());
        }
        if let Some(score) = spec.oom_score_adj {
            command.arg("--oom-score-adj").arg(score.to_string());
        }
        command.arg("--").arg(&spec.program).args(&spec.args);
        finish(command, spec)
    }
}

/// Through a shell that does the same: for tools and tests that are not `ferroviad`.
#[derive(Debug, Clone, Copy, Default)]
pub struct ShellLauncher;

/// `$1`: groups, one a line; `$2`: nice; `$3`: score; then the program.
const SHELL_LINE: &str = r#"
set -e
printf '%s' "$1" | while IFS= read -r group; do echo $$ > "$group/cgroup.procs"; done
[ -z "$3" ] || echo "$3" > /proc/self/oom_score_adj
nice=$2; shift 3
exec nice -n "$nice" "$@"
"#;

impl Launcher for ShellLauncher {
    fn command(&self, spec: &ChildSpec) -> Command {
        let mut groups = OsString::new();
        for group in &spec.cgroups {
            groups.push(group);
            groups.push("\n");
        }
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", SHELL_LINE, "launch"])
            .arg(groups)
            .arg(spec.nice.unwrap_or(0).to_string())
            .arg(
                spec.oom_score_adj
                    .map(|score| score.to_string())
                    .unwrap_or_default(),
            )
            .arg(&spec.program)
            .args(&spec.args);
        finish(command, spec)
    }
}

fn finish(mut command: Command, spec: &ChildSpec) -> Command {
    command
        .env_clear()
        .envs(spec.env.iter().map(|(name, value)| (name, value)));
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_shell_born_child_gets_its_arguments_as_they_are() {
        let mut spec = ChildSpec::new(
            "/bin/sh",
            ["-c", r#"printf '%s|' "$@" "$A"; nice"#, "x", "$HOME 'q'", "\n"],
        );
        spec.nice = Some(7);
        let spec = spec.with_env("A", "b c").with_env("PATH", "/usr/bin:/bin");
        let output = ShellLauncher.command(&spec).output().await.unwrap();
        // What the test itself was born with is added to.
        let own = std::process::Command::new("nice").output().unwrap();
        let own: i32 = String::from_utf8_lossy(&own.stdout).trim().parse().unwrap();
        let nice = (own + 7).min(19);
        let expected = format!("$HOME 'q'|\n|b c|{nice}\n");
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
    }

    #[test]
    fn a_child_of_ferroviad_is_told_all() {
        let mut spec = ChildSpec::new("/usr/bin/true", ["--flag"]);
        spec.cgroups = vec!["/sys/fs/cgroup/a".into()];
        spec.oom_score_adj = Some(-1);
        let launcher = ReexecLauncher {
            executable: "/usr/bin/ferroviad".into(),
        };
        let command = launcher.command(&spec);
        let args: Vec<_> = command
            .as_std()
            .get_args()
            .map(|arg| arg.to_string_lossy().into_owned())
            .collect();
        let expected = [
            "child",
            "--cgroup",
            "/sys/fs/cgroup/a",
            "--oom-score-adj",
            "-1",
            "--",
            "/usr/bin/true",
            "--flag",
        ];
        assert_eq!(args, expected);
    }
}
