//! The platform's firewall tables, as the kernel has them: looked at, and taken away by hand.

use std::process::Command;
use std::time::Duration;

use crate::Failure;
use crate::wait::wait_for;

/// Families in which the platform has tables and whose loss opens something.
pub const FAMILIES: [&str; 2] = ["bridge", "ip"];
/// How long the platform may take to load what somebody took away.
const BACK: Duration = Duration::from_secs(30);

/// Takes the platform's tables away, as an administrator's `nft flush ruleset` does.
///
/// # Errors
/// When there are none, or `nft` fails.
pub fn delete() -> Result<(), Failure> {
    for family in FAMILIES {
        let ours = tables(family)?;
        if ours.is_empty() {
            return Err(missing(family).into());
        }
        for name in ours {
            nft(&["delete", "table", family, &name])?;
        }
    }
    Ok(())
}

/// Waits until the tables are back.
///
/// # Errors
/// When they are not.
pub async fn are_back() -> Result<(), Failure> {
    for family in FAMILIES {
        wait_for("the rules' return", BACK, || async {
            match tables(family) {
                Ok(tables) if !tables.is_empty() => Ok(()),
                Ok(_) => Err(missing(family)),
                Err(error) => Err(error.to_string()),
            }
        })
        .await?;
    }
    Ok(())
}

fn missing(family: &str) -> String {
    format!("no table of ours in the family `{family}`")
}

/// The platform's tables of a family.
fn tables(family: &str) -> Result<Vec<String>, Failure> {
    let listed = nft(&["list", "tables", family])?;
    let names = listed.lines().filter_map(|line| line.split(' ').nth(2));
    Ok(names
        .filter(|name| name.starts_with("ferrovia_ft"))
        .map(str::to_owned)
        .collect())
}

fn nft(arguments: &[&str]) -> Result<String, Failure> {
    let output = Command::new("nft").args(arguments).output()?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        return Err(format!("nft {}: {why}", arguments.join(" ")).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}
