//! `variables`: list, set, unset, import.

use std::io::Read;
use std::path::Path;

use ferrovia_api::variable::{VariableList, VariablePatch, VariableSetting};
use ferrovia_core::variable::{Key, dotenv};

use super::Session;
use crate::args::{Variables, VariablesCommand};
use crate::failure::{Exit, Failure};

/// Lists or changes variables, of the service or shared.
pub async fn variables(session: &Session<'_>, args: Variables) -> Result<Exit, Failure> {
    let patch = match args.command {
        None | Some(VariablesCommand::List) => None,
        Some(VariablesCommand::Set {
            pairs,
            sealed,
            public,
        }) => {
            let set: Result<_, _> = pairs.iter().map(|pair| setting(pair, sealed, public)).collect();
            Some(VariablePatch {
                set: set?,
                unset: Vec::new(),
            })
        }
        Some(VariablesCommand::Unset { keys }) => Some(VariablePatch {
            set: Vec::new(),
            unset: keys,
        }),
        Some(VariablesCommand::Import { file, sealed }) => Some(VariablePatch {
            set: import(&file, sealed)?,
            unset: Vec::new(),
        }),
    };
    let client = session.client()?;
    let path = session.here()?;
    let (project, environment) = (&path.project, &path.environment);
    let listed = || async {
        match args.shared {
            false => client.variables(&path).await,
            true => client.shared_variables(project, environment).await,
        }
    };
    if let Some(patch) = patch.as_ref().filter(|patch| !patch.unset.is_empty()) {
        let whose = if args.shared { environment } else { &path.service };
        check_unset(&listed().await?, &patch.unset, whose)?;
    }
    let list = match (&patch, args.shared) {
        (None, _) => listed().await?,
        (Some(patch), false) => client.patch_variables(&path, patch).await?,
        (Some(patch), true) => client.patch_shared_variables(project, environment, patch).await?,
    };
    if session.printer.is_json() {
        session.printer.json(&list);
    } else if patch.is_none() && !list.items.is_empty() {
        session.printer.line(listing(&list));
    }
    if patch.is_some() {
        session
            .printer
            .say("saved; the next deployment has them: `ferrovia redeploy`");
    }
    Ok(Exit::Done)
}

/// Refuses to take away what is not there: the name is a mistake.
fn check_unset(list: &VariableList, keys: &[String], whose: &str) -> Result<(), Failure> {
    let is_there = |key: &String| list.items.iter().any(|variable| variable.key == *key);
    let missing: Vec<String> = keys
        .iter()
        .filter(|key| !is_there(key))
        .map(|key| format!("`{key}`"))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Failure::new(
        "variable_not_found",
        format!(
            "there is no variable {} of `{whose}`; nothing was changed",
            missing.join(", ")
        ),
    )
    .hint(
        "`ferrovia variables` lists what there is, `ferrovia variables --shared` what the environment shares",
    ))
}

fn listing(list: &VariableList) -> String {
    let lines: Vec<String> = list
        .items
        .iter()
        .map(|variable| match (&variable.value, variable.key.parse::<Key>()) {
            (Some(value), Ok(key)) => dotenv::line(&key, value),
            _ => format!("# {} is sealed", variable.key),
        })
        .collect();
    lines.join("\n")
}

fn setting(pair: &str, sealed: bool, public: bool) -> Result<VariableSetting, Failure> {
    let (key, value) = pair.split_once('=').ok_or_else(|| {
        let shown: String = pair.chars().take(40).collect();
        Failure::usage(format!("`{shown}` has no `=`")).hint("give `KEY=VALUE`")
    })?;
    Ok(VariableSetting {
        key: key.to_owned(),
        value: value.to_owned(),
        sealed,
        public,
    })
}

/// Largest file that is imported, in bytes.
const MAX_FILE_BYTES: u64 = 8 * 1024 * 1024;

fn import(file: &Path, sealed: bool) -> Result<Vec<VariableSetting>, Failure> {
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin().take(MAX_FILE_BYTES).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(MAX_FILE_BYTES).read_to_string(&mut text))
    };
    read.map_err(|error| Failure::usage(format!("`{}` cannot be read: {error}", file.display())))?;
    let pairs =
        dotenv::parse(&text).map_err(|error| Failure::usage(format!("`{}` {error}", file.display())))?;
    let setting = |(key, value): (Key, String)| VariableSetting {
        key: key.to_string(),
        value,
        sealed,
        public: false,
    };
    Ok(pairs.into_iter().map(setting).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_everything_after_the_first_equals() {
        let setting = setting("A=b=c $d\n", false, false).unwrap();
        assert_eq!((setting.key.as_str(), setting.value.as_str()), ("A", "b=c $d\n"));
        assert!(super::setting("A", false, false).is_err());
    }
}
