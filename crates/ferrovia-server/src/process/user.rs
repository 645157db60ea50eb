//! Users of this host by name, from `/etc/passwd`: the platform's own are local ones.

use std::io;

use ferrovia_table::Peers;

use crate::config::Config;

/// The user that the edge runs as when there is one.
pub const EDGE_USER: &str = "ferrovia";
/// The user that the edge runs as otherwise.
pub const FALLBACK_USER: &str = "nobody";

/// User and group id of the first of these users that exists.
///
/// # Errors
/// When none exists or `/etc/passwd` cannot be read.
pub fn find(names: &[&str]) -> io::Result<(u32, u32)> {
    let passwd = std::fs::read_to_string("/etc/passwd")?;
    names
        .iter()
        .find_map(|name| in_passwd(&passwd, name))
        .ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                format!("none of the users `{}` exists", names.join("`, `")),
            )
        })
}

/// User and group id of the edge.
///
/// # Errors
/// As [`find`].
pub fn edge(config: &Config) -> io::Result<(u32, u32)> {
    match &config.file.edge.user {
        Some(name) => find(&[name]),
        None => find(&[EDGE_USER, FALLBACK_USER]),
    }
}

/// Who may be at the other end of the platform's sockets: root, and whom the edge runs as.
///
/// # Errors
/// As [`find`].
pub fn peers(config: &Config) -> io::Result<Peers> {
    if rustix::process::geteuid().is_root() {
        let (uid, _) = edge(config)?;
        return Ok(Peers { uid });
    }
    Ok(Peers::same_user())
}

fn in_passwd(passwd: &str, name: &str) -> Option<(u32, u32)> {
    let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut fields = line.split(':').skip(2);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_gives_user_and_group() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65533:nobody:/:/usr/sbin/nologin\n";
        assert_eq!(in_passwd(passwd, "nobody"), Some((65534, 65533)));
        assert_eq!(in_passwd(passwd, "nob"), None);
    }
}
