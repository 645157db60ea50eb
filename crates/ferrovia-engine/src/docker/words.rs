//! Docker's sentences, made readable: why something cannot start, in words that say what to change.

/// Why the container cannot be started as asked, for people; `None` when the failure has nothing to do with what was
/// asked, and may pass.
pub(super) fn cannot_start(message: &str) -> Option<String> {
    let inner = innermost(message);
    if message.contains("docker-init") && message.contains("not found") {
        return Some(
            "Docker's `docker-init` is missing on the host; install the package `tini` or `docker-ce`".into(),
        );
    }
    if message.contains("No command specified") || message.contains("no command specified") {
        return Some("the image has no command; set a start command".into());
    }
    if let Some(path) = after(message, "bind source path does not exist: ") {
        return Some(format!(
            "the directory `{path}` that should be mounted does not exist on the host"
        ));
    }
    if let Some(user) = after(message, "unable to find user ").and_then(|rest| rest.split(':').next()) {
        return Some(format!(
            "the image runs as user `{user}`, who is not in its `/etc/passwd`"
        ));
    }
    if let Some(rest) = after(inner, "chdir to cwd (\"") {
        let directory = rest.split('"').next().unwrap_or(rest);
        return Some(format!(
            "the working directory `{directory}` cannot be entered: {}",
            reason(inner)
        ));
    }
    if inner.starts_with("exec:") || inner.starts_with("exec ") {
        let command = inner.trim_start_matches("exec").trim_start_matches(':').trim();
        let command = command
            .trim_start_matches('"')
            .split(['"', ':'])
            .next()
            .unwrap_or(command);
        return Some(format!(
            "the command `{command}` cannot be run: {}",
            reason(inner)
        ));
    }
    // Not every failure of the runtime: most others are the host's, and may pass.
    let asked_for = ["invalid mount config", "mount a directory onto a file"];
    let asked = asked_for.iter().any(|words| message.contains(words));
    asked.then(|| inner.to_owned())
}

/// What a command's early end with this code means, as shells and `docker-init` use it.
pub(super) fn early_exit(code: i32, command: &str) -> Option<String> {
    let shell = matches!(command.rsplit('/').next(), Some("sh" | "bash" | "ash" | "dash"));
    match code {
        127 if shell => Some("a command was not found in the image".into()),
        127 => Some(format!(
            "the command `{command}` or its interpreter was not found in the image"
        )),
        126 if !shell => Some(format!("the command `{command}` may not be executed")),
        _ => None,
    }
}

/// What is left when the engine's layers are taken off.
fn innermost(message: &str) -> &str {
    let message = message.trim().trim_end_matches(": unknown");
    let message = message.rsplit("caused: ").next().unwrap_or(message);
    let message = message.rsplit("container init: ").next().unwrap_or(message);
    message
        .trim_start_matches("OCI runtime create failed: ")
        .trim_start_matches("runc create failed: ")
        .trim()
}

/// The last part of a chain of reasons.
fn reason(message: &str) -> &str {
    message.rsplit(": ").next().unwrap_or(message)
}

fn after<'a>(text: &'a str, words: &str) -> Option<&'a str> {
    text.split_once(words).map(|(_, rest)| rest.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_say_what_to_change() {
        let cases = [
            (
                "OCI runtime create failed: container_linux.go:380: starting container process caused: exec: \"nope\": \
                 executable file not found in $PATH: unknown",
                Some("the command `nope` cannot be run: executable file not found in $PATH"),
            ),
            (
                "failed to create shim task: OCI runtime create failed: runc create failed: unable to start container \
                 process: error during container init: exec: \"/a b\": permission denied: unknown",
                Some("the command `/a b` cannot be run: permission denied"),
            ),
            (
                "OCI runtime create failed: container_linux.go:380: starting container process caused: chdir to cwd \
                 (\"/nope\") set in config.json failed: no such file or directory: unknown",
                Some("the working directory `/nope` cannot be entered: no such file or directory"),
            ),
            (
                "unable to find user app: no matching entries in passwd file",
                Some("the image runs as user `app`, who is not in its `/etc/passwd`"),
            ),
            (
                "invalid mount config for type \"bind\": bind source path does not exist: /nope",
                Some("the directory `/nope` that should be mounted does not exist on the host"),
            ),
            (
                "No command specified",
                Some("the image has no command; set a start command"),
            ),
            (
                "failed to create task: OCI runtime create failed: runc create failed: cannot allocate memory: unknown",
                None,
            ),
            ("Address already in use", None),
            ("network fv0 not found", None),
        ];
        for (message, words) in cases {
            assert_eq!(cannot_start(message).as_deref(), words, "{message}");
        }
    }

    #[test]
    fn early_exits_are_explained() {
        assert_eq!(
            early_exit(127, "/app/run").as_deref(),
            Some("the command `/app/run` or its interpreter was not found in the image")
        );
        assert_eq!(early_exit(1, "/app/run"), None);
    }
}
