//! `service settings`: `KEY=VALUE` words turned into a change of settings.

use ferrovia_api::settings::SettingsPatch;
use serde_json::{Map, Value};

use super::Session;
use crate::failure::{Exit, Failure};

/// Shows the settings, or changes some and shows all.
pub async fn settings(session: &Session<'_>, changes: &[String]) -> Result<Exit, Failure> {
    let client = session.client()?;
    let path = session.here()?;
    let settings = if changes.is_empty() {
        client.instance(&path).await?.settings
    } else {
        let settings = client.patch_settings(&path, &patch(changes)?).await?;
        session
            .printer
            .say("saved; the next deployment has them: `ferrovia redeploy`");
        settings
    };
    session.printer.value(&settings, |settings| {
        let value = serde_json::to_value(settings).unwrap_or_default();
        let mut lines = Vec::new();
        flatten("", &value, &mut lines);
        lines.join("\n")
    });
    Ok(Exit::Done)
}

fn flatten(prefix: &str, value: &Value, lines: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let dot = if prefix.is_empty() { "" } else { "." };
                flatten(&format!("{prefix}{dot}{key}"), value, lines);
            }
        }
        Value::String(text) => lines.push(format!("{prefix}={text}")),
        other => lines.push(format!("{prefix}={other}")),
    }
}

fn patch(changes: &[String]) -> Result<SettingsPatch, Failure> {
    let mut root = Map::new();
    for change in changes {
        let (key, text) = change
            .split_once('=')
            .ok_or_else(|| Failure::usage(format!("`{change}` has no `=`")).hint("give `KEY=VALUE`"))?;
        // What is no JSON is a text: `start_command=node server.js`.
        let value = serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()));
        put(&mut root, key, value);
    }
    serde_json::from_value(Value::Object(root)).map_err(|error| {
        Failure::usage(format!("this cannot be set: {error}"))
            .hint("`ferrovia service settings` shows what can be")
    })
}

fn put(fields: &mut Map<String, Value>, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            fields.insert(key.to_owned(), value);
        }
        Some((head, rest)) => {
            let inner = fields.entry(head).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(inner) = inner {
                put(inner, rest, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ferrovia_api::settings::{PortSetting, RestartPolicy};

    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn words_become_a_change() {
        let change = words(&[
            "port=3000",
            "health_path=/healthz",
            "resources.memory_bytes=1073741824",
            "start_command=node server.js",
            "build.target=null",
            "restart.policy=on_failure",
            "restart.max_tries=3",
        ]);
        let patch = patch(&change).unwrap();
        assert_eq!(patch.port, Some(Some(PortSetting::Number(3000))));
        assert_eq!(patch.start_command, Some(Some("node server.js".into())));
        assert_eq!(
            patch.restart,
            Some(Some(RestartPolicy::OnFailure { max_tries: 3 }))
        );
        assert_eq!(patch.build.unwrap().target, Some(None));
        assert_eq!(patch.resources.unwrap().memory_bytes, Some(Some(1 << 30)));
    }

    #[test]
    fn what_is_no_setting_is_named() {
        let failure = patch(&words(&["helth_path=/"])).unwrap_err();
        assert!(failure.report.message.contains("helth_path"));
        assert_eq!(failure.exit, Exit::Usage);
    }
}
