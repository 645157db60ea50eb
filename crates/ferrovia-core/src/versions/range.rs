//! Ranges of versions as people write them, for npm (`^20.1 || >=22 <23`) and Python (`>=3.11,<3.14,!=3.12.*`).
//!
//! Every range becomes half-open intervals of `(major, minor, patch)`; prerelease and build parts are cut off. The two
//! grammars differ in what a bare version means (`==3.12` is exactly 3.12.0 in PEP 440): people mean the line, so it
//! is taken as npm takes it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest range that is read, in bytes.
pub const MAX_RANGE_BYTES: usize = 256;

/// A version without its prerelease and build parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Version(pub u64, pub u64, pub u64);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

const LAST: Version = Version(u64::MAX, 0, 0);

/// From the first version (inclusive) to the second (exclusive).
type Interval = (Version, Version);

/// A set of versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range(Vec<Interval>);

impl Range {
    /// Every version.
    pub fn any() -> Self {
        Self(vec![(Version::default(), LAST)])
    }

    /// Reads a range; `None` if the text is not one.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > MAX_RANGE_BYTES {
            return None;
        }
        let mut intervals = Vec::new();
        for alternative in text.split('|').map(str::trim) {
            // `a || b` leaves an empty piece between the bars.
            if alternative.is_empty() && text.contains('|') {
                continue;
            }
            intervals.extend(conjunction(alternative)?);
        }
        intervals.retain(|(from, to)| from < to);
        intervals.sort_unstable();
        Some(Self(intervals))
    }

    /// Whether the version is in the set.
    pub fn contains(&self, version: Version) -> bool {
        self.0.iter().any(|(from, to)| *from <= version && version < *to)
    }

    /// The lowest version of the set; `None` when it is empty.
    pub fn lowest(&self) -> Option<Version> {
        self.0.first().map(|(from, _)| *from)
    }

    /// Whether versions of this major line are in the set.
    pub fn touches_major(&self, major: u64) -> bool {
        self.0
            .iter()
            .any(|(from, to)| *from < Version(major + 1, 0, 0) && Version(major, 0, 0) < *to)
    }
}

/// Reads a version: `v22.1`, `3.12.4rc1`, `1.85`. What is not said is 0.
pub fn version(text: &str) -> Option<Version> {
    Some(partial(text.trim())?.lowest())
}

/// Comparators that all hold.
fn conjunction(text: &str) -> Option<Vec<Interval>> {
    if let Some((from, to)) = text.split_once(" - ") {
        return Some(vec![(partial(from.trim())?.lowest(), partial(to.trim())?.past())]);
    }
    let mut intervals = vec![(Version::default(), LAST)];
    for (operator, version) in comparators(text)? {
        intervals = intersect(&intervals, &comparator(operator, version)?);
    }
    Some(intervals)
}

fn intersect(a: &[Interval], b: &[Interval]) -> Vec<Interval> {
    let pairs = a
        .iter()
        .flat_map(|x| b.iter().map(move |y| (x.0.max(y.0), x.1.min(y.1))));
    pairs.filter(|(from, to)| from < to).collect()
}

/// `>=1.2, <2` and `>= 1.2 <2` as pairs of operator and version.
fn comparators(text: &str) -> Option<Vec<(&str, &str)>> {
    let mut found = Vec::new();
    let mut rest = text.trim_matches([' ', ',']);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !"<>=~^!".contains(c)).unwrap_or(rest.len());
        let (operator, after) = rest.split_at(end);
        let after = after.trim_start();
        let end = after
            .find([' ', ',', '<', '>', '=', '~', '^', '!'])
            .unwrap_or(after.len());
        let (version, after) = after.split_at(end);
        if version.is_empty() && !operator.is_empty() {
            return None;
        }
        found.push((operator, version));
        rest = after.trim_start_matches([' ', ',']);
    }
    Some(found)
}

fn comparator(operator: &str, text: &str) -> Option<Vec<Interval>> {
    let version = partial(text)?;
    let (low, past) = (version.lowest(), version.past());
    Some(match operator {
        "" | "=" | "==" | "===" => vec![(low, past)],
        ">=" => vec![(low, LAST)],
        ">" => vec![(past, LAST)],
        "<" => vec![(Version::default(), low)],
        "<=" => vec![(Version::default(), past)],
        "!=" => vec![(Version::default(), low), (past, LAST)],
        "^" => vec![(low, version.caret())],
        "~" | "~>" => vec![(low, version.tilde())],
        "~=" => vec![(low, version.compatible())],
        _ => return None,
    })
}

/// A version of which parts may be missing or wild.
#[derive(Debug, Clone, Copy)]
struct Partial {
    major: Option<u64>,
    minor: Option<u64>,
    patch: Option<u64>,
}

fn partial(text: &str) -> Option<Partial> {
    let text = text.trim_start_matches(['v', 'V', '=']);
    let text = text.split(['-', '+']).next().unwrap_or_default();
    let mut parts = [None; 3];
    let mut open = true;
    for (index, part) in text.split('.').enumerate() {
        if matches!(part, "x" | "X" | "*") || part.is_empty() && text.is_empty() {
            open = false;
            continue;
        }
        // `3.13.0rc1`: the number before the letters.
        let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        let number = part[..digits].parse().ok()?;
        if digits < part.len() && index < 2 {
            return None;
        }
        if index < 3 && open {
            parts[index] = Some(number);
        }
    }
    let [major, minor, patch] = parts;
    Some(Partial { major, minor, patch })
}

impl Partial {
    fn lowest(self) -> Version {
        Version(
            self.major.unwrap_or(0),
            self.minor.unwrap_or(0),
            self.patch.unwrap_or(0),
        )
    }

    /// The first version after everything that this could mean.
    fn past(self) -> Version {
        match (self.major, self.minor, self.patch) {
            (None, ..) => LAST,
            (Some(major), None, _) => Version(major + 1, 0, 0),
            (Some(major), Some(minor), None) => Version(major, minor + 1, 0),
            (Some(major), Some(minor), Some(patch)) => Version(major, minor, patch + 1),
        }
    }

    /// The leftmost part that is not 0 stays.
    fn caret(self) -> Version {
        match (self.major, self.minor, self.patch) {
            (Some(0), Some(0), Some(patch)) => Version(0, 0, patch + 1),
            (Some(0), Some(minor), _) => Version(0, minor + 1, 0),
            (Some(major), ..) => Version(major + 1, 0, 0),
            (None, ..) => LAST,
        }
    }

    /// npm's `~`: the minor stays, if there is one.
    fn tilde(self) -> Version {
        match (self.major, self.minor) {
            (Some(major), Some(minor)) => Version(major, minor + 1, 0),
            (Some(major), None) => Version(major + 1, 0, 0),
            (None, _) => LAST,
        }
    }

    /// PEP 440's `~=`: all parts but the last stay.
    fn compatible(self) -> Version {
        match (self.major, self.minor, self.patch) {
            (Some(major), Some(minor), Some(_)) => Version(major, minor + 1, 0),
            (Some(major), ..) => Version(major + 1, 0, 0),
            (None, ..) => LAST,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_contain_what_they_say() {
        for (range, inside, outside) in [
            ("", "1.0.0 99.0.0", ""),
            ("*", "1.0.0 99.0.0", ""),
            ("22", "22.0.0 22.99.1", "21.9.9 23.0.0"),
            ("v22.1.3", "22.1.3", "22.1.4 22.1.2"),
            ("22.x", "22.0.0 22.9.0", "23.0.0"),
            ("22.*.*", "22.0.0 22.9.0", "23.0.0"),
            ("^22.1", "22.1.0 22.99.0", "22.0.9 23.0.0"),
            ("~22.1", "22.1.9", "22.2.0"),
            ("^0.2.3", "0.2.9", "0.3.0 0.2.2"),
            (">=22 <23", "22.0.0 22.5.0", "23.0.0 21.0.0"),
            (">= 18", "18.0.0 24.0.0", "17.9.9"),
            ("18 || 20", "18.2.0 20.1.0", "19.0.0 21.0.0"),
            (
                "^18.17 || >=20.5.0",
                "18.17.0 20.5.0 24.0.0",
                "18.16.0 19.0.0 20.4.9",
            ),
            (">20", "21.0.0", "20.9.9"),
            ("<=20", "20.9.9 1.0.0", "21.0.0"),
            ("18 - 20", "18.0.0 20.9.9", "21.0.0"),
            (">=3.11,<3.14", "3.11.0 3.13.9", "3.14.0 3.10.0"),
            (">=3.9,!=3.12.*", "3.11.0 3.13.0", "3.12.4"),
            ("~=3.11", "3.11.0 3.13.0", "4.0.0 3.10.0"),
            ("~=3.11.2", "3.11.9", "3.12.0 3.11.1"),
            ("==3.12.*", "3.12.7", "3.13.0"),
            ("3.13.0rc1", "3.13.0", "3.13.1"),
            (">=22.0.0-rc.1", "22.0.0", "21.0.0"),
        ] {
            let parsed = Range::parse(range).unwrap_or_else(|| panic!("{range}"));
            for text in inside.split_whitespace() {
                assert!(parsed.contains(version(text).unwrap()), "{range} has {text}");
            }
            for text in outside.split_whitespace() {
                assert!(!parsed.contains(version(text).unwrap()), "{range} has not {text}");
            }
        }
    }

    #[test]
    fn what_is_no_range() {
        for text in [
            "lts/iron",
            "latest",
            ">=",
            "a.b",
            "1.b",
            ">=x.y.z.q!",
            &"1".repeat(300),
        ] {
            assert_eq!(Range::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,40}") {
            let _ = Range::parse(&text);
        }

        #[test]
        fn a_version_is_in_its_own_ranges(a in 0_u64..50, b in 0_u64..50, c in 0_u64..50) {
            let own = Version(a, b, c);
            for range in [format!("{own}"), format!("^{own}"), format!("~{own}"), format!(">={own}"), format!("<={own}"), format!("{a}.x")] {
                prop_assert!(Range::parse(&range).unwrap().contains(own), "{}", range);
            }
            for range in [format!(">{own}"), format!("<{own}"), format!("!={own}")] {
                prop_assert!(!Range::parse(&range).unwrap().contains(own), "{}", range);
            }
        }
    }
}
