//! Whether the edge has a user of its own.

use ferrovia_api::system::Finding;

use super::{good, warning};
use crate::config::Config;
use crate::process::user::{EDGE_USER, FALLBACK_USER, find};

const SUBJECT: &str = "user of the edge";

/// Who is as the edge may take its listeners and its tables: nobody else of this host should be.
pub fn look(config: &Config) -> Finding {
    let named = config.file.edge.user.as_deref();
    judge(named.unwrap_or(if find(&[EDGE_USER]).is_ok() {
        EDGE_USER
    } else {
        FALLBACK_USER
    }))
}

fn judge(user: &str) -> Finding {
    if user != FALLBACK_USER {
        return good(SUBJECT, format!("`{user}`"));
    }
    warning(
        SUBJECT,
        "edge_user_shared",
        format!(
            "The edge runs as `{user}`, as other programs of this host may: one that is broken into can take its traffic"
        ),
        format!(
            "Run `useradd --system --no-create-home --shell /usr/sbin/nologin {EDGE_USER}`, then `ferroviad stop` and `ferroviad serve`"
        ),
    )
}

#[cfg(test)]
mod tests {
    use ferrovia_api::system::Level;

    use super::*;

    #[test]
    fn a_user_that_others_are_too_is_warned_of() {
        assert_eq!(judge(EDGE_USER).level, Level::Good);
        let shared = judge(FALLBACK_USER);
        assert_eq!(
            (shared.level, shared.code.as_str()),
            (Level::Warning, "edge_user_shared")
        );
        assert!(shared.hint.unwrap().contains("useradd"));
    }
}
