//! Texts as a Dockerfile takes them.

/// A value of `ENV` or `LABEL`: nothing in it is expanded.
pub(super) fn quoted(value: &str) -> String {
    let mut text = String::from("\"");
    for c in value.chars() {
        if matches!(c, '"' | '\\' | '$') {
            text.push('\\');
        }
        text.push(c);
    }
    text.push('"');
    text
}

/// An argument list as JSON; nothing in it is expanded by a shell.
pub(super) fn exec_form<S: AsRef<str>>(arguments: &[S]) -> String {
    let words: Vec<_> = arguments
        .iter()
        .map(|word| serde_json::Value::from(word.as_ref()).to_string())
        .collect();
    format!("[{}]", words.join(","))
}

/// A word as a shell reads it back.
pub(super) fn shell_word(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// The text as a here-document, with a delimiter that it does not hold.
pub(super) fn here_document(text: &str) -> String {
    let (begin, body) = here_document_parts(text);
    format!("{begin}\n{body}")
}

/// `<<'DELIMITER'`, and the lines that follow, the last without its line feed.
pub(super) fn here_document_parts(text: &str) -> (String, String) {
    let mut delimiter = "FERROVIA".to_owned();
    while text.lines().any(|line| line.trim() == delimiter) {
        delimiter.push('_');
    }
    let end = if text.is_empty() || text.ends_with('\n') {
        ""
    } else {
        "\n"
    };
    (format!("<<'{delimiter}'"), format!("{text}{end}{delimiter}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_expanded() {
        assert_eq!(quoted(r#"a"$B\"#), r#""a\"\$B\\""#);
        assert_eq!(exec_form(&["sh", "-c", "a \"$B\""]), r#"["sh","-c","a \"$B\""]"#);
        assert_eq!(shell_word("it's"), r"'it'\''s'");
    }

    #[test]
    fn the_delimiter_is_not_in_the_text() {
        assert_eq!(here_document("a"), "<<'FERROVIA'\na\nFERROVIA");
        assert_eq!(here_document("FERROVIA\n"), "<<'FERROVIA_'\nFERROVIA\nFERROVIA_");
    }
}
