//! How many files a process of the platform may have open: every connection is one, and every log that is read.
//!
//! Shells and service managers start programs with a low limit, 1,024 mostly, for those that still use `select(2)`;
//! who needs more may raise it up to the hard limit. Each process does so for itself, whoever started it.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that a process of the platform allows itself at most. What builds run inherits it, and some programs close
/// every possible descriptor one by one: the hard limit itself may be a billion.
pub const MOST_FILES: u64 = 131_072;

/// Raises the limit of this process as far as it may and needs.
pub fn raise() {
    let limit = getrlimit(Resource::Nofile);
    let Some(raised) = raised(limit) else { return };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!("the limit of open files stays at {:?}: {error}", limit.current);
    }
}

fn raised(limit: Rlimit) -> Option<Rlimit> {
    let possible = limit.maximum.map_or(MOST_FILES, |hard| hard.min(MOST_FILES));
    limit
        .current
        .is_some_and(|soft| soft < possible)
        .then_some(Rlimit {
            current: Some(possible),
            ..limit
        })
}

/// What this process could raise its limit to; `None`: anything.
pub fn hard() -> Option<u64> {
    getrlimit(Resource::Nofile).maximum
}

/// How many files another process may have open; `None`: any number.
///
/// # Errors
/// When it is gone or the kernel refuses.
pub fn of(pid: u32) -> io::Result<Option<u64>> {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits"))?;
    soft(&limits).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no limit of open files"))
}

/// The soft limit in a file of the kernel's (proc_pid_limits(5)).
fn soft(limits: &str) -> Option<Option<u64>> {
    let values = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    match values.split_whitespace().next()? {
        "unlimited" => Some(None),
        number => number.parse().ok().map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_as_far_as_needed_and_never_lowered() {
        let to = |current, maximum| {
            raised(Rlimit { current, maximum }).map(|limit| (limit.current, limit.maximum))
        };
        let hard = Some(1 << 20);
        assert_eq!(to(Some(1_024), hard), Some((Some(MOST_FILES), hard)));
        assert_eq!(to(Some(1_024), None), Some((Some(MOST_FILES), None)));
        assert_eq!(to(Some(1_024), Some(4_096)), Some((Some(4_096), Some(4_096))));
        for (current, maximum) in [
            (Some(4_096), Some(4_096)),
            (Some(MOST_FILES), hard),
            (Some(MOST_FILES + 1), hard),
            (None, None),
        ] {
            assert_eq!(to(current, maximum), None);
        }
    }

    #[test]
    fn the_kernel_tells_a_process_limit() {
        let own = getrlimit(Resource::Nofile).current;
        assert_eq!(of(std::process::id()).unwrap(), own);
        assert_eq!(
            soft("Max open files            unlimited  unlimited  files \n"),
            Some(None)
        );
        assert_eq!(soft("Max cpu time  unlimited  unlimited  seconds \n"), None);
    }
}
