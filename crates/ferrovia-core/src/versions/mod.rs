//! Which version of a tool a build uses: requests with their sources, resolved against what is available.
//!
//! The rule: the first request counts, the others are kept for the log. Of the versions that it allows the default is
//! taken, else the newest of a long-term line, else the newest. When it allows none that is available, another version
//! of the same major line is taken **with a visible warning** (never silently); when the major line is not there
//! either, or when an older one could not work, the build is refused with what there is.

mod range;

use serde::{Deserialize, Serialize};

pub use range::{MAX_RANGE_BYTES, Range, Version, version};

use crate::error::Report;

/// A tool and the versions of it that the platform has or can make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AvailableTool {
    /// `node`, `python`, `go`, `rust`, `java`.
    pub tool: String,
    /// The line that is taken when nothing asks for one.
    pub default: String,
    /// From old to new.
    pub versions: Vec<AvailableVersion>,
}

/// A version that is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AvailableVersion {
    /// Its line, by which bases are named: `20`, `3.13`.
    pub line: String,
    /// The full version: `20.19.2`.
    pub version: String,
}

/// That something asks for a version of a tool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionRequest {
    /// What was asked for, as it stands there: `^22.1`, `lts/iron`.
    pub text: String,
    /// Where it stands: `package.json > engines > node`.
    pub source: String,
    /// Whether it is the least that works, so that an older version can never take its place.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub least: bool,
}

impl VersionRequest {
    /// A request for a version or a range.
    pub fn new(text: impl Into<String>, source: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            source: source.into(),
            least: false,
        }
    }

    /// A request for this version or any newer one.
    pub fn at_least(text: impl Into<String>, source: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            source: source.into(),
            least: true,
        }
    }

    fn range(&self) -> Option<Range> {
        let text = self.text.trim();
        let text = text.strip_prefix("node@").unwrap_or(text);
        if let Some(major) = lts_line(text) {
            return Range::parse(major);
        }
        match text {
            "latest" | "current" | "node" | "stable" | "lts" | "lts/*" => Some(Range::any()),
            _ if self.least => Range::parse(&format!(">={text}")),
            _ => Range::parse(text),
        }
    }
}

/// Node's names of long-term lines.
fn lts_line(text: &str) -> Option<&'static str> {
    Some(match text.strip_prefix("lts/")?.to_ascii_lowercase().as_str() {
        "gallium" => "16",
        "hydrogen" => "18",
        "iron" => "20",
        "jod" => "22",
        "krypton" => "24",
        _ => return None,
    })
}

/// The version that a build uses, pinned in its plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedVersion {
    /// The tool.
    pub tool: String,
    /// The line, by which the base is named.
    pub line: String,
    /// The full version that is known to be in the base.
    pub version: String,
    /// The request that counted; none: the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<VersionRequest>,
    /// Requests that did not count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<VersionRequest>,
}

impl ResolvedVersion {
    /// For the log: `node 22.23.3 (package.json > engines > node asks for ^22)`.
    pub fn describe(&self) -> String {
        let Self {
            tool,
            version,
            request,
            ..
        } = self;
        match request {
            Some(VersionRequest { text, source, least }) => {
                let least = if *least { "at least " } else { "" };
                format!("{tool} {version} (`{source}` asks for {least}`{text}`)")
            }
            None => format!("{tool} {version} (the default, since nothing asks for a version)"),
        }
    }
}

/// A version, and what should be told about it.
pub type Resolution = (ResolvedVersion, Vec<Report>);

/// Chooses a version of `tool` for requests in order of precedence.
///
/// # Errors
/// A [`Report`] that names request, source and what is available.
pub fn resolve(tool: &AvailableTool, requests: &[VersionRequest]) -> Result<Resolution, Report> {
    let mut warnings = Vec::new();
    let mut request = None;
    let mut range = Range::any();
    let mut others = Vec::new();
    for candidate in requests {
        if request.is_some() {
            others.push(candidate.clone());
            continue;
        }
        match candidate.range() {
            Some(wanted) => {
                range = wanted;
                request = Some(candidate.clone());
            }
            None => {
                others.push(candidate.clone());
                warnings.push(unreadable(tool, candidate));
            }
        }
    }
    let candidates = candidates(tool);
    let newest = matches!(
        request.as_ref().map(|r| r.text.trim()),
        Some("latest" | "current" | "node" | "lts" | "lts/*")
    );
    let found = choose(tool, &candidates, &range, newest);
    let chosen = match (found, &request) {
        (Some(chosen), _) => chosen,
        (None, Some(request)) => {
            let chosen =
                substitute(&candidates, &range, request.least).ok_or_else(|| missing(tool, request))?;
            warnings.push(substituted(tool, request, chosen));
            chosen
        }
        (None, None) => return Err(none_at_all(tool)),
    };
    let resolved = ResolvedVersion {
        tool: tool.tool.clone(),
        line: chosen.line.clone(),
        version: chosen.version.clone(),
        request,
        others,
    };
    Ok((resolved, warnings))
}

type Candidate<'a> = (Version, &'a AvailableVersion);

fn candidates(tool: &AvailableTool) -> Vec<Candidate<'_>> {
    let parsed = tool
        .versions
        .iter()
        .filter_map(|available| Some((version(&available.version)?, available)));
    let mut candidates: Vec<_> = parsed.collect();
    candidates.sort_by_key(|(version, _)| *version);
    candidates
}

fn choose<'a>(
    tool: &AvailableTool,
    all: &[Candidate<'a>],
    range: &Range,
    newest: bool,
) -> Option<&'a AvailableVersion> {
    let fitting: Vec<_> = all
        .iter()
        .filter(|(version, _)| range.contains(*version))
        .collect();
    let default = fitting
        .iter()
        .find(|(_, available)| available.line == tool.default && !newest);
    let long_term = || {
        fitting
            .iter()
            .rev()
            .find(|(version, _)| tool.tool != "node" || version.0.is_multiple_of(2))
    };
    default
        .or_else(long_term)
        .or_else(|| fitting.last())
        .map(|(_, available)| *available)
}

/// Of the major lines that the range touches: the next newer one, else (where that may work) the next older one.
fn substitute<'a>(all: &[Candidate<'a>], range: &Range, least: bool) -> Option<&'a AvailableVersion> {
    let lowest = range.lowest()?;
    let same_major = || all.iter().filter(|(version, _)| range.touches_major(version.0));
    let newer = same_major().find(|(version, _)| *version >= lowest);
    let older = same_major()
        .rev()
        .find(|(version, _)| *version < lowest && !least);
    newer.or(older).map(|(_, available)| *available)
}

fn listed(tool: &AvailableTool) -> String {
    let versions: Vec<_> = tool
        .versions
        .iter()
        .map(|available| available.version.as_str())
        .collect();
    versions.join(", ")
}

fn unreadable(tool: &AvailableTool, request: &VersionRequest) -> Report {
    let VersionRequest { text, source, .. } = request;
    Report::new(
        "version_unreadable",
        format!(
            "`{source}` asks for {} `{text}`, which is not a version or a range; it is not considered",
            tool.tool
        ),
    )
    .with_hint(format!("write a version such as `{}`", tool.default))
}

fn substituted(tool: &AvailableTool, request: &VersionRequest, chosen: &AvailableVersion) -> Report {
    let VersionRequest { text, source, .. } = request;
    let (name, version) = (&tool.tool, &chosen.version);
    Report::new(
        "version_substituted",
        format!("`{source}` asks for {name} `{text}`, which is not available here: {name} {version} is used"),
    )
    .with_hint(format!("available are {}", listed(tool)))
}

fn missing(tool: &AvailableTool, request: &VersionRequest) -> Report {
    let VersionRequest { text, source, least } = request;
    let least = if *least { "at least " } else { "" };
    Report::new(
        "version_unavailable",
        format!(
            "`{source}` asks for {} {least}`{text}`, which is not available here",
            tool.tool
        ),
    )
    .with_hint(format!(
        "ask for one of {}, or bring a `Dockerfile`",
        listed(tool)
    ))
}

fn none_at_all(tool: &AvailableTool) -> Report {
    Report::new(
        "version_unavailable",
        format!("no version of {} is available here", tool.tool),
    )
    .with_hint("run `ferrovia doctor`, or bring a `Dockerfile`")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> AvailableTool {
        let versions = [
            ("18", "18.20.8"),
            ("20", "20.19.2"),
            ("22", "22.23.3"),
            ("23", "23.11.0"),
            ("24", "24.21.0"),
        ];
        let versions = versions
            .map(|(line, version)| AvailableVersion {
                line: line.to_owned(),
                version: version.to_owned(),
            })
            .to_vec();
        AvailableTool {
            tool: "node".to_owned(),
            default: "20".to_owned(),
            versions,
        }
    }

    fn chosen(text: &str) -> (String, bool) {
        let (resolved, warnings) = resolve(
            &node(),
            &[VersionRequest::new(text, "package.json > engines > node")],
        )
        .unwrap();
        (resolved.version, !warnings.is_empty())
    }

    #[test]
    fn what_is_asked_for_is_taken() {
        for (text, version) in [
            (">=18", "20.19.2"),
            ("*", "20.19.2"),
            ("22", "22.23.3"),
            ("^22.1", "22.23.3"),
            (">=22 <24", "22.23.3"),
            ("23", "23.11.0"),
            (">=21", "24.21.0"),
            ("18 || 22", "22.23.3"),
            ("lts/iron", "20.19.2"),
            ("lts/Jod", "22.23.3"),
            ("lts/*", "24.21.0"),
            ("latest", "24.21.0"),
            ("stable", "20.19.2"),
        ] {
            assert_eq!(chosen(text), (version.to_owned(), false), "{text}");
        }
    }

    #[test]
    fn another_of_the_same_line_is_taken_with_a_warning() {
        assert_eq!(chosen("20.11.1"), ("20.19.2".to_owned(), true));
        assert_eq!(chosen("22.99.0"), ("22.23.3".to_owned(), true));
        let (_, warnings) = resolve(&node(), &[VersionRequest::new("20.11.1", ".nvmrc")]).unwrap();
        assert_eq!(
            warnings[0].message,
            "`.nvmrc` asks for node `20.11.1`, which is not available here: node 20.19.2 is used"
        );
    }

    #[test]
    fn another_line_is_refused() {
        let error = resolve(&node(), &[VersionRequest::new("16.x", ".nvmrc")]).unwrap_err();
        assert_eq!(error.code, "version_unavailable");
        assert!(error.hint.unwrap().contains("18.20.8, 20.19.2"));
        let least = [VersionRequest::at_least("24.30", "x")];
        assert!(resolve(&node(), &least).is_err());
    }

    #[test]
    fn the_first_readable_request_counts() {
        let requests = [
            VersionRequest::new("banana", "a"),
            VersionRequest::new("22", "b"),
            VersionRequest::new("18", "c"),
        ];
        let (resolved, warnings) = resolve(&node(), &requests).unwrap();
        assert_eq!(
            (resolved.version.as_str(), resolved.others.len(), warnings.len()),
            ("22.23.3", 2, 1)
        );
        assert_eq!(warnings[0].code, "version_unreadable");
    }
}
