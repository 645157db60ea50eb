//! Which provider builds a tree.

use serde::{Deserialize, Serialize};

use crate::error::Report;
use crate::plan::Plan;

use super::view::{SourceView, is_foreign};
use super::{Context, go, java, node, python, rust, static_site};

/// A provider that matches a tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Match {
    /// `node`, `python`, …
    pub provider: String,
    /// Because of what.
    pub reasons: Vec<Reason>,
    /// Whether it has a manifest of its dependencies.
    pub manifest: bool,
    /// Whether it is known how to start it.
    pub start: bool,
    /// Whether it builds the tree.
    pub chosen: bool,
}

/// What in a tree speaks for a provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// A path in the tree.
    pub path: String,
    /// What is in it; empty: that it is there.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub what: String,
}

impl Reason {
    pub(super) fn new(path: &str, what: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            what: what.into(),
        }
    }
}

/// What a provider found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) reasons: Vec<Reason>,
    pub(super) manifest: bool,
    pub(super) start: bool,
}

/// A kind of application.
pub(super) struct Provider {
    pub(super) name: &'static str,
    find: fn(&SourceView) -> Option<Found>,
    pub(super) plan: fn(&mut Context<'_>) -> Result<Plan, Report>,
    /// First words of `Procfile` commands that belong to it.
    programs: &'static [&'static str],
}

/// In the order that breaks ties: what is compiled first, and Node after Python, since many Python applications have a
/// `package.json` for their assets.
const PROVIDERS: &[Provider] = &[
    Provider {
        name: "go",
        find: go::find,
        plan: go::plan,
        programs: &["go"],
    },
    Provider {
        name: "java",
        find: java::find,
        plan: java::plan,
        programs: &["java", "mvn", "./mvnw"],
    },
    Provider {
        name: "rust",
        find: rust::find,
        plan: rust::plan,
        programs: &["cargo", "./target"],
    },
    Provider {
        name: "python",
        find: python::find,
        plan: python::plan,
        programs: &[
            "python",
            "python3",
            "gunicorn",
            "uvicorn",
            "flask",
            "celery",
            "hypercorn",
            "daphne",
            "streamlit",
            "uv",
        ],
    },
    Provider {
        name: "node",
        find: node::find,
        plan: node::plan,
        programs: &["node", "npm", "npx", "yarn", "pnpm", "bun", "next"],
    },
    Provider {
        name: "static",
        find: static_site::find,
        plan: static_site::plan,
        programs: &[],
    },
    Provider {
        name: "procfile",
        find: static_site::find_procfile,
        plan: static_site::plan_procfile,
        programs: &[],
    },
];

/// Everything that matches, best first, none chosen.
pub(super) fn matches(view: &SourceView) -> Vec<Match> {
    let found = PROVIDERS.iter().filter_map(|provider| {
        let Found {
            reasons,
            manifest,
            start,
        } = (provider.find)(view)?;
        Some(Match {
            provider: provider.name.to_owned(),
            reasons,
            manifest,
            start,
            chosen: false,
        })
    });
    let mut found: Vec<_> = found.collect();
    // Stable: the fixed order breaks ties.
    found.sort_by_key(|m| std::cmp::Reverse(strength(m)));
    found
}

/// A manifest with a start, a start alone, a manifest alone.
fn strength(found: &Match) -> u8 {
    match (found.manifest, found.start) {
        (true, true) => 3,
        (false, true) => 2,
        (true, false) => 1,
        (false, false) => 0,
    }
}

/// The chosen provider, all matches with it first, and why it was chosen.
pub(super) fn choose(context: &Context<'_>) -> Result<(&'static Provider, Vec<Match>, String), Report> {
    let mut matches = matches(context.view);
    let (name, why) = match &context.settings.provider {
        Some(forced) => {
            if !PROVIDERS.iter().any(|provider| provider.name == forced) {
                return Err(unknown_provider(forced));
            }
            (forced.clone(), "the setting `provider` asks for it".to_owned())
        }
        None => match (by_procfile(context, &matches), matches.first()) {
            (Some(found), _) => found,
            (None, Some(first)) => (first.provider.clone(), String::new()),
            (None, None) => return Err(nothing(context.view)),
        },
    };
    let Some(provider) = PROVIDERS.iter().find(|provider| provider.name == name) else {
        return Err(unknown_provider(&name));
    };
    match matches.iter().position(|m| m.provider == name) {
        Some(at) => {
            let mut chosen = matches.remove(at);
            chosen.chosen = true;
            matches.insert(0, chosen);
        }
        None => matches.insert(
            0,
            Match {
                provider: name,
                reasons: vec![],
                manifest: false,
                start: false,
                chosen: true,
            },
        ),
    }
    Ok((provider, matches, why))
}

/// Of several matches, the one whose program the `Procfile` starts.
fn by_procfile(context: &Context<'_>, matches: &[Match]) -> Option<(String, String)> {
    let (process, line) = context.procfile.start()?;
    if matches.len() < 2 {
        return None;
    }
    let (_, command) = super::shell::split_assignments(line);
    let program = command.split_whitespace().next()?;
    let names = |provider: &&Provider| {
        provider.programs.contains(&program) && matches.iter().any(|m| m.provider == provider.name)
    };
    let provider = PROVIDERS.iter().find(names)?;
    Some((
        provider.name.to_owned(),
        format!("`Procfile` starts `{process}` with `{program}`"),
    ))
}

/// `builder: auto, node, because of …; also matches …`.
pub(super) fn summary(matches: &[Match], why: &str) -> String {
    let Some((chosen, others)) = matches.split_first() else {
        return String::new();
    };
    let mut because = reasons(chosen);
    if !why.is_empty() {
        because = match because.as_str() {
            "" => why.to_owned(),
            reasons => format!("{why}, and because of {reasons}"),
        };
    } else {
        because = format!("because of {because}");
    }
    let mut summary = format!("builder: auto, {}, {because}", chosen.provider);
    let others: Vec<_> = others.iter().filter(|m| m.provider != "procfile").collect();
    if !others.is_empty() {
        let others: Vec<_> = others
            .iter()
            .map(|m| format!("{} ({})", m.provider, reasons(m)))
            .collect();
        summary.push_str(&format!(
            "; also matches {}: the setting `provider` forces one",
            others.join(", ")
        ));
    }
    summary
}

fn reasons(found: &Match) -> String {
    let shown = found
        .reasons
        .iter()
        .take(3)
        .map(|Reason { path, what }| match what.as_str() {
            "" => format!("`{path}`"),
            what => format!("`{path}` ({what})"),
        });
    shown.collect::<Vec<_>>().join(", ")
}

fn unknown_provider(name: &str) -> Report {
    let names: Vec<_> = PROVIDERS.iter().map(|provider| provider.name).collect();
    Report::new("provider_unknown", format!("`{name}` is not a provider"))
        .with_hint(format!("use one of {}", names.join(", ")))
}

/// Directories that are looked into for a suggestion.
const MAX_SUGGESTED_FROM: usize = 50;

/// Nothing matches: what is there, and where an application might be.
fn nothing(view: &SourceView) -> Report {
    if view.paths().next().is_none() {
        return Report::new("tree_empty", "the directory is empty")
            .with_hint("deploy a directory with an application in it");
    }
    let inside: Vec<_> = view
        .directories_in("")
        .into_iter()
        .filter(|name| !is_foreign(name) && !name.starts_with('.'))
        .take(MAX_SUGGESTED_FROM)
        .filter_map(|name| {
            let inner = view.narrowed(&name);
            let dockerfile = inner
                .has(crate::dockerfile::DEFAULT_PATH)
                .then(|| "a Dockerfile".to_owned());
            let found = dockerfile.or_else(|| Some(matches(&inner).first()?.provider.clone()))?;
            Some((name, found))
        })
        .collect();
    let hint = match inside.as_slice() {
        [] => "Node, Python, Go, Rust, Java with Maven, static sites and a `Procfile` are detected; bring a `Dockerfile` for others".to_owned(),
        [(name, found)] => format!("`{name}` looks like an application ({found}): set the root directory to `{name}`"),
        several => {
            let listed: Vec<_> = several.iter().take(5).map(|(name, found)| format!("`{name}` ({found})")).collect();
            format!("set the root directory to one of {}, and make a service of each", listed.join(", "))
        }
    };
    let mut top: Vec<_> = view
        .names_in("")
        .take(8)
        .map(|name| format!("`{name}`"))
        .collect();
    top.extend(
        view.directories_in("")
            .iter()
            .take(8)
            .map(|name| format!("`{name}/`")),
    );
    Report::new(
        "nothing_detected",
        format!("nothing says what this application is; it has {}", top.join(", ")),
    )
    .with_hint(hint)
}
