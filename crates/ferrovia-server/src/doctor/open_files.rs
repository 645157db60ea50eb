//! Whether the processes may have enough files open, and with them connections and logs.

use ferrovia_api::system::Finding;

use super::{good, warning};
use crate::config::Config;
use crate::process::{Unit, lock, open_files};

/// Open files below which a machine full of replicas, or a few thousand visitors, come to the end of them.
const LOW_FILES: u64 = 16_384;

/// What those that live may have open; when nobody does, what `serve` could give them if it was started from here.
pub fn look(config: &Config) -> Finding {
    let living = [Unit::Control, Unit::Node, Unit::Edge]
        .into_iter()
        .filter_map(|unit| {
            // Whoever cannot be looked at is told of with the processes.
            let living = lock::find_living(&unit.lock_directory(&config.paths), unit.as_str()).ok()??;
            Some((unit, open_files::of(living.holder.pid).ok()?.unwrap_or(u64::MAX)))
        });
    match living.min_by_key(|(_, files)| *files) {
        Some((unit, files)) => judge(&format!("`{unit}`"), files),
        None => judge("`ferroviad serve`", open_files::hard().unwrap_or(u64::MAX)),
    }
}

fn judge(who: &str, files: u64) -> Finding {
    if files >= LOW_FILES {
        return good("open files", "every process may have enough of them");
    }
    let most = open_files::MOST_FILES;
    warning(
        "open files",
        "open_files_low",
        format!("{who} may have {files} files open: connections and logs are refused beyond"),
        format!(
            "Start it again with a higher hard limit: `ulimit -n {most}` in root's shell, `LimitNOFILE={most}` in a unit of systemd, `--ulimit nofile={most}` of a container"
        ),
    )
}

#[cfg(test)]
mod tests {
    use ferrovia_api::system::Level;

    use super::*;

    #[test]
    fn few_files_are_warned_of_with_the_remedy() {
        assert_eq!(judge("`edge`", LOW_FILES).level, Level::Good);
        let low = judge("`edge`", LOW_FILES - 1);
        assert_eq!((low.level, low.code.as_str()), (Level::Warning, "open_files_low"));
        assert!(low.hint.unwrap().contains("LimitNOFILE=131072"));
    }
}
