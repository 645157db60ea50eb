//! `variables`: list, set, unset, import.

use std::io::{self, Read};
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
            let set: Result<_, _> = (1..)
                .zip(&pairs)
                .map(|(position, pair)| setting(position, pair, sealed, public))
                .collect();
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

fn setting(position: usize, pair: &str, sealed: bool, public: bool) -> Result<VariableSetting, Failure> {
    let (key, value) = pair.split_once('=').ok_or_else(|| {
        // The shell splits a value without quotes: what follows another argument may be the rest of a secret.
        let shown = match pair.parse::<Key>() {
            Ok(key) if position == 1 => format!("`{key}`"),
            _ => format!("argument {position}"),
        };
        Failure::usage(format!("{shown} has no `=`")).hint("give `KEY=VALUE`, in quotes when it has spaces")
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
    let read = if file == Path::new("-") {
        whole(std::io::stdin())
    } else {
        std::fs::File::open(file).and_then(whole)
    };
    let text =
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

/// The text of a file; one that is too large is refused and not cut.
fn whole(file: impl Read) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        let mib = MAX_FILE_BYTES / (1024 * 1024);
        return Err(io::Error::other(format!("it is larger than {mib} MiB")));
    }
    String::from_utf8(bytes).map_err(|_| io::Error::other("it is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_everything_after_the_first_equals() {
        let setting = setting(1, "A=b=c $d\n", false, false).unwrap();
        assert_eq!((setting.key.as_str(), setting.value.as_str()), ("A", "b=c $d\n"));
    }

    #[test]
    fn what_may_be_of_a_value_is_not_shown() {
        let told = |position, pair| setting(position, pair, false, false).unwrap_err().report.message;
        assert_eq!(told(1, "A"), "`A` has no `=`");
        assert_eq!(told(1, "hunter-2"), "argument 1 has no `=`");
        assert_eq!(told(2, "hunter2"), "argument 2 has no `=`");
    }

    #[test]
    fn a_file_is_read_whole_or_not_at_all() {
        let text = |bytes| whole(io::repeat(b'a').take(bytes));
        assert_eq!(text(MAX_FILE_BYTES).unwrap().len() as u64, MAX_FILE_BYTES);
        let error = text(MAX_FILE_BYTES + 1).unwrap_err().to_string();
        assert_eq!(error, "it is larger than 8 MiB");
        assert!(whole(&b"A=\xff"[..]).is_err());
    }
}
