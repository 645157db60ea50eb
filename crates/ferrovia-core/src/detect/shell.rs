//! Command lines as people write them in scripts and a `Procfile`, made ready to be a container's first process.
//!
//! A signal reaches only the first process. A plain line becomes an argument list; one that needs a shell gets `exec`
//! in front of its last command where that is safe, so that no shell stands between the signal and the application.

/// Words that cannot follow `exec`: builtins and keywords.
const NOT_PROGRAMS: &[&str] = &[
    ".", ":", "[", "case", "cd", "command", "eval", "exec", "exit", "export", "for", "if", "set", "source",
    "test", "trap", "ulimit", "umask", "until", "wait", "while", "{",
];

/// The argument list that runs a line: itself if it is plain, else through a shell.
pub(crate) fn start_command(line: &str) -> Vec<String> {
    match plain_words(line) {
        Some(words)
            if !words.is_empty() && !words[0].contains('=') && !NOT_PROGRAMS.contains(&words[0].as_str()) =>
        {
            words
        }
        _ => shell_command(&with_exec(line)),
    }
}

/// The argument list that runs a line by a shell, as it is.
pub(crate) fn shell_command(line: &str) -> Vec<String> {
    vec!["/bin/sh".to_owned(), "-c".to_owned(), line.to_owned()]
}

/// The words of a line without shell syntax; `None` if it has any.
pub(crate) fn plain_words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.trim().chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' => words.extend(word.take()),
            '\'' => {
                let quoted = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '\'' => break,
                        c => quoted.push(c),
                    }
                }
            }
            '"' => {
                let quoted = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '"' => break,
                        '$' | '`' | '\\' => return None,
                        c => quoted.push(c),
                    }
                }
            }
            '#' if word.is_none() => return None,
            '~' if word.is_none() => return None,
            '$' | '`' | '\\' | ';' | '&' | '|' | '<' | '>' | '(' | ')' | '*' | '?' | '{' | '}' | '\n'
            | '!' => return None,
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Some(words)
}

/// The commands of a line that are joined by `&&` only; `None` if it has another operator.
pub(crate) fn split_and(line: &str) -> Option<Vec<String>> {
    let mut parts = vec![String::new()];
    let mut chars = line.trim().chars().peekable();
    let mut quote = None;
    while let Some(c) = chars.next() {
        match (quote, c) {
            (None, '&') if chars.peek() == Some(&'&') => {
                chars.next();
                parts.push(String::new());
                continue;
            }
            (None, '&' | ';' | '|' | '\n' | '(' | '`') => return None,
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            (Some('\''), _) => {}
            (_, '\\') => {
                parts.last_mut()?.push(c);
                parts.last_mut()?.extend(chars.next());
                continue;
            }
            _ => {}
        }
        parts.last_mut()?.push(c);
    }
    if quote.is_some() {
        return None;
    }
    let parts: Vec<String> = parts.iter().map(|part| part.trim().to_owned()).collect();
    parts.iter().all(|part| !part.is_empty()).then_some(parts)
}

/// The line with `exec` before its last command, where that changes nothing but the process.
pub(crate) fn with_exec(line: &str) -> String {
    let Some(mut parts) = split_and(line) else {
        return line.trim().to_owned();
    };
    let Some(last) = parts.last_mut() else {
        return String::new();
    };
    let (assignments, command) = split_assignments(last);
    let program = command.split_whitespace().next().unwrap_or_default();
    if !program.is_empty() && !NOT_PROGRAMS.contains(&program) {
        *last = match assignments {
            "" => format!("exec {command}"),
            assignments => format!("{assignments} exec {command}"),
        };
    }
    parts.join(" && ")
}

/// `A=1 B=2 command` as its assignments and its command.
pub(crate) fn split_assignments(command: &str) -> (&str, &str) {
    let mut end = 0;
    loop {
        let rest = command[end..].trim_start();
        let start = command.len() - rest.len();
        let word = rest.split_whitespace().next().unwrap_or_default();
        let name = word.split('=').next().unwrap_or_default();
        let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !word.contains('=') || !is_name || word.contains(['"', '\'']) {
            return (command[..end].trim(), rest);
        }
        end = start + word.len();
    }
}

/// A word as a shell reads it back.
pub(crate) fn quoted(word: &str) -> String {
    let safe = |b: u8| b.is_ascii_alphanumeric() || b"-_./:=@%+,".contains(&b);
    if !word.is_empty() && word.bytes().all(safe) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_lines_need_no_shell() {
        assert_eq!(
            start_command("node server.js --port 1"),
            ["node", "server.js", "--port", "1"]
        );
        assert_eq!(
            start_command("gunicorn 'app:create_app()' -w \"2\""),
            ["gunicorn", "app:create_app()", "-w", "2"]
        );
        assert_eq!(start_command("a ''"), ["a", ""]);
    }

    #[test]
    fn others_get_exec_where_it_is_safe() {
        for (line, script) in [
            (
                "uvicorn app:app --port $PORT",
                "exec uvicorn app:app --port $PORT",
            ),
            ("A=1 B=x node server.js", "A=1 B=x exec node server.js"),
            (
                "python manage.py migrate && gunicorn x",
                "python manage.py migrate && exec gunicorn x",
            ),
            ("cd app && node .", "cd app && exec node ."),
            ("a; b", "a; b"),
            ("a & b", "a & b"),
            ("a || b", "a || b"),
            ("a | b", "a | b"),
            ("exec a $B", "exec a $B"),
            ("if true; then a; fi", "if true; then a; fi"),
            ("echo '&& x' $A && cd b", "echo '&& x' $A && cd b"),
            ("a \"it's && $B\"", "exec a \"it's && $B\""),
        ] {
            assert_eq!(start_command(line), ["/bin/sh", "-c", script], "{line}");
        }
    }

    #[test]
    fn quoting_is_undone_by_a_shell() {
        assert_eq!(quoted("a'b c"), r"'a'\''b c'");
        assert_eq!(quoted("./a-b:c"), "./a-b:c");
        assert_eq!(plain_words(&quoted("a b")).unwrap(), ["a b"]);
    }
}
