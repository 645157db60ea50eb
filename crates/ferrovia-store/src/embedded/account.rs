//! The user that the server runs as: `postgres` when the platform is root, whom PostgreSQL refuses; else our own.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{Error, SERVER_USER};

/// A user of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Account {
    /// Its name, as the kernel's answer about a peer is turned into.
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
    is_own: bool,
}

impl Account {
    /// The user that the server runs as.
    pub(super) fn of_server() -> Result<Self, Error> {
        let passwd_path = Path::new("/etc/passwd");
        let passwd = fs::read_to_string(passwd_path).map_err(|source| Error::files(passwd_path, source))?;
        let own = rustix::process::geteuid();
        if own.is_root() {
            return find(&passwd, |name, _| name == SERVER_USER, false).ok_or_else(|| Error::NoUser {
                name: SERVER_USER.to_owned(),
            });
        }
        find(&passwd, |_, uid| uid == own.as_raw(), true).ok_or_else(|| Error::NoUser {
            name: format!("of number {}", own.as_raw()),
        })
    }

    /// User and group to switch to, unless they are our own.
    pub(super) fn switch_to(&self) -> Option<(u32, u32)> {
        (!self.is_own).then_some((self.uid, self.gid))
    }

    /// Users who may connect: the server's own, and root when it was root who started it.
    pub(super) fn peers(&self) -> Vec<&str> {
        if self.is_own {
            vec![&self.name]
        } else {
            vec![&self.name, "root"]
        }
    }

    /// A command that runs as this user, without anything of our environment.
    pub(super) fn command(&self, program: &Path) -> Command {
        use std::os::unix::process::CommandExt;
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("LC_ALL", "C")
            .env("PATH", "/usr/bin:/bin")
            .current_dir("/")
            .stdin(Stdio::null());
        if let Some((uid, gid)) = self.switch_to() {
            command.uid(uid).gid(gid);
        }
        command
    }

    /// Whether the user can get to a directory. It is tried and not computed: access lists and security modules count.
    pub(super) fn check_reaches(&self, dir: &Path) -> Result<(), Error> {
        if self.can_enter(dir)? {
            return Ok(());
        }
        let mut barrier = dir;
        for above in dir.ancestors().skip(1) {
            if self.can_enter(above)? {
                break;
            }
            barrier = above;
        }
        Err(Error::Unreachable {
            user: self.name.clone(),
            path: dir.to_owned(),
            barrier: barrier.to_owned(),
        })
    }

    fn can_enter(&self, dir: &Path) -> Result<bool, Error> {
        let shell = Path::new("/bin/sh");
        let status = self
            .command(shell)
            .args(["-c", "cd -- \"$1\"", "sh"])
            .arg(dir)
            .stderr(Stdio::null())
            .status();
        status
            .map(|status| status.success())
            .map_err(|source| Error::Program {
                program: shell.to_owned(),
                source,
            })
    }
}

fn find(passwd: &str, is_wanted: impl Fn(&str, u32) -> bool, is_own: bool) -> Option<Account> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _) = (fields.next()?, fields.next()?);
        let (uid, gid) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        is_wanted(name, uid).then(|| Account {
            name: name.to_owned(),
            uid,
            gid,
            is_own,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name_and_number() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\npostgres:x:101:104::/var/lib/postgresql:/bin/bash\n";
        let found = find(passwd, |name, _| name == "postgres", false).unwrap();
        assert_eq!(
            (found.uid, found.gid, found.switch_to()),
            (101, 104, Some((101, 104)))
        );
        assert_eq!(found.peers(), ["postgres", "root"]);
        assert_eq!(find(passwd, |_, uid| uid == 0, true).unwrap().peers(), ["root"]);
        assert_eq!(find(passwd, |name, _| name == "post", false), None);
    }
}
