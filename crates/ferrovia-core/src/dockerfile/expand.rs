//! `$NAME`, `${NAME}`, `${NAME:-default}` in image names.

use std::collections::BTreeMap;

/// The text with its variables replaced; `None` if one is unknown or the form is not one of the above.
pub(super) fn expand(text: &str, values: &BTreeMap<String, String>) -> Option<String> {
    let mut expanded = String::new();
    let mut rest = text.trim_matches('"');
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        let (value, after) = match after.strip_prefix('{') {
            Some(inner) => {
                let (inner, after) = split_at_brace(inner)?;
                (braced(inner, values)?, after)
            }
            None => {
                let end = after
                    .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                    .unwrap_or(after.len());
                (values.get(&after[..end])?.clone(), &after[end..])
            }
        };
        expanded.push_str(&value);
        rest = after;
    }
    expanded.push_str(rest);
    Some(expanded)
}

/// What stands before the brace that closes, and what follows.
fn split_at_brace(text: &str) -> Option<(&str, &str)> {
    let mut depth = 1;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some((&text[..at], &text[at + 1..]));
        }
    }
    None
}

fn braced(inner: &str, values: &BTreeMap<String, String>) -> Option<String> {
    let end = inner
        .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .unwrap_or(inner.len());
    let (name, operator) = inner.split_at(end);
    let value = values.get(name);
    let filled = value.filter(|value| !value.is_empty());
    if let Some(default) = operator.strip_prefix(":-") {
        return filled.cloned().or_else(|| expand(default, values));
    }
    if let Some(default) = operator.strip_prefix('-') {
        return value.cloned().or_else(|| expand(default, values));
    }
    if operator.is_empty() { value.cloned() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let values = BTreeMap::from([("A".to_owned(), "1".to_owned()), ("E".to_owned(), String::new())]);
        for (text, expected) in [
            ("x:$A-y", Some("x:1-y")),
            ("x:${A}", Some("x:1")),
            ("${B:-d:${A}}", Some("d:1")),
            ("${E:-d}", Some("d")),
            ("${E-d}", Some("")),
            ("${B}", None),
            ("$B", None),
            ("${A:+x}", None),
            ("${A", None),
        ] {
            assert_eq!(expand(text, &values).as_deref(), expected, "{text}");
        }
    }
}
