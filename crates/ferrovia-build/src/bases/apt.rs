//! Where this host gets Debian packages from: read from its apt configuration. Pure.
//!
//! A company's mirror that the host uses is the one that works from here, so bases are made from it too.

/// Debian's own archive.
const ARCHIVE: &str = "http://deb.debian.org/debian";
/// Debian's own archive of security fixes.
const SECURITY: &str = "http://deb.debian.org/debian-security";

/// Archives to make Debian from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archives {
    /// Packages.
    pub archive: String,
    /// Security fixes.
    pub security: String,
}

impl Default for Archives {
    fn default() -> Self {
        Self {
            archive: ARCHIVE.to_owned(),
            security: SECURITY.to_owned(),
        }
    }
}

impl Archives {
    /// From the texts of the host's files of sources, of both formats. What is no Debian archive (Ubuntu's, a vendor's)
    /// is left out; what is missing is Debian's own.
    pub fn of_host<'a>(files: impl IntoIterator<Item = &'a str>) -> Self {
        let mut found = Self::default();
        let (mut has_archive, mut has_security) = (false, false);
        for uri in files.into_iter().flat_map(uris) {
            let bare = uri.trim_end_matches('/');
            if !(bare.starts_with("http://") || bare.starts_with("https://")) || bare.contains('@') {
                continue;
            }
            if bare.ends_with("/debian") && !has_archive {
                has_archive = true;
                found.archive = bare.to_owned();
            } else if bare.ends_with("/debian-security") && !has_security {
                has_security = true;
                found.security = bare.to_owned();
            }
        }
        found
    }

    /// Lines of sources for a suite.
    pub fn lines(&self, suite: &str) -> [String; 3] {
        let Self { archive, security } = self;
        [
            format!("deb {archive} {suite} main"),
            format!("deb {archive} {suite}-updates main"),
            format!("deb {security} {suite}-security main"),
        ]
    }
}

fn uris(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(list) = line.strip_prefix("URIs:") {
            found.extend(list.split_whitespace().map(str::to_owned));
        } else if let Some(rest) = line.strip_prefix("deb ") {
            let rest = match rest.trim_start().strip_prefix('[') {
                Some(options) => options.split_once(']').map_or("", |(_, rest)| rest),
                None => rest,
            };
            found.extend(rest.split_whitespace().next().map(str::to_owned));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_own_mirror_is_used() {
        let deb822 = "Types: deb\nURIs: https://mirror.example.com/debian/\nSuites: bookworm\n\nTypes: deb\n\
                      URIs: https://mirror.example.com/debian-security\n";
        let found = Archives::of_host([deb822]);
        assert_eq!(found.archive, "https://mirror.example.com/debian");
        assert_eq!(
            found.lines("trixie")[2],
            "deb https://mirror.example.com/debian-security trixie-security main"
        );
        let one_line = "# deb http://no.example/debian x main\ndeb [signed-by=/k arch=amd64] http://a.example/debian bookworm main\n";
        assert_eq!(Archives::of_host([one_line]).archive, "http://a.example/debian");
    }

    #[test]
    fn what_is_not_debian_or_has_a_password_is_left_out() {
        let other = "deb http://archive.ubuntu.com/ubuntu noble main\ndeb https://u:p@a.example/debian x main\n\
                     deb file:/srv/debian x main\n";
        assert_eq!(Archives::of_host([other]), Archives::default());
    }
}
