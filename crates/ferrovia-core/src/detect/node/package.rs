//! `package.json`, as far as a build depends on it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::detect::unreadable_manifest;
use crate::detect::view::{SourceView, is_foreign};
use crate::error::Report;

/// Scripts that an install of the project runs.
pub(super) const INSTALL_HOOKS: [&str; 5] = ["preinstall", "install", "postinstall", "prepare", "prepublish"];

/// One `package.json`.
#[derive(Debug, Clone, Default)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) main: Option<String>,
    pub(super) scripts: BTreeMap<String, String>,
    pub(super) dependencies: BTreeMap<String, String>,
    pub(super) dev_dependencies: BTreeMap<String, String>,
    pub(super) engines: BTreeMap<String, String>,
    /// `volta.node`
    pub(super) volta_node: Option<String>,
    /// `packageManager` without its hash: name and version.
    pub(super) package_manager: Option<(String, String)>,
    pub(super) has_workspaces: bool,
    /// Keys of `pnpm`.
    pub(super) pnpm_keys: BTreeSet<String>,
}

impl Package {
    /// Reads `package.json` in a directory of the view (empty: its root); `None` when there is none.
    pub(super) fn read(view: &SourceView, directory: &str) -> Result<Option<Self>, Report> {
        let path = if directory.is_empty() {
            "package.json".to_owned()
        } else {
            format!("{directory}/package.json")
        };
        let Some(text) = view.text(&path) else {
            return Ok(None);
        };
        let value: Value = serde_json::from_str(text).map_err(|error| unreadable_manifest(&path, error))?;
        if !value.is_object() {
            return Err(unreadable_manifest(&path, "it is not a JSON object"));
        }
        Ok(Some(Self::from_json(&value)))
    }

    fn from_json(value: &Value) -> Self {
        let string = |value: &Value| value.as_str().map(str::to_owned);
        let manager = value["packageManager"].as_str().and_then(|text| {
            let (name, version) = text.split_once('@')?;
            Some((name.to_owned(), version.split('+').next()?.to_owned()))
        });
        let mut dependencies = texts(&value["dependencies"]);
        dependencies.extend(texts(&value["optionalDependencies"]));
        Self {
            name: value["name"].as_str().unwrap_or_default().to_owned(),
            main: string(&value["main"]),
            scripts: texts(&value["scripts"]),
            dependencies,
            dev_dependencies: texts(&value["devDependencies"]),
            engines: texts(&value["engines"]),
            volta_node: string(&value["volta"]["node"]),
            package_manager: manager,
            has_workspaces: !value["workspaces"].is_null(),
            pnpm_keys: value["pnpm"]
                .as_object()
                .map(|o| o.keys().cloned().collect())
                .unwrap_or_default(),
        }
    }

    /// Whether it depends on this package, for whatever.
    pub(super) fn has(&self, name: &str) -> bool {
        self.dependencies.contains_key(name) || self.dev_dependencies.contains_key(name)
    }

    /// Whether any of these is among its dependencies.
    pub(super) fn has_any(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.has(name))
    }

    /// Whether it has anything to install.
    pub(super) fn has_dependencies(&self) -> bool {
        !self.dependencies.is_empty() || !self.dev_dependencies.is_empty()
    }

    /// Whether a dependency lies in the tree.
    pub(super) fn has_local_dependency(&self) -> bool {
        let mut all = self.dependencies.values().chain(self.dev_dependencies.values());
        all.any(|version| {
            ["file:", "link:", "portal:", "./", "../"]
                .iter()
                .any(|start| version.starts_with(start))
        })
    }

    /// A script of the install's life cycle that may need the whole source. Those that are known to need manifests only
    /// are not meant.
    pub(super) fn install_script(&self) -> Option<(&str, &str)> {
        let scripts = INSTALL_HOOKS
            .iter()
            .filter_map(|hook| self.scripts.get_key_value(*hook));
        let mut found = scripts.map(|(name, line)| (name.as_str(), line.as_str()));
        found.find(|(_, line)| !line.split("&&").all(|part| is_harmless(part.trim())))
    }
}

/// Scripts of an install that need no source: git hooks (there is no repository), patches and schemas (they are copied
/// with the manifests).
fn is_harmless(command: &str) -> bool {
    let command = command
        .trim_end_matches("|| true")
        .trim_end_matches("|| exit 0")
        .trim();
    [
        "husky",
        "patch-package",
        "prisma generate",
        "npx prisma generate",
        "npx patch-package",
        "simple-git-hooks",
        "lefthook install",
        "npx only-allow",
        "only-allow",
    ]
    .iter()
    .any(|known| {
        command == *known
            || command
                .strip_prefix(known)
                .is_some_and(|rest| rest.starts_with(' '))
    })
}

fn texts(value: &Value) -> BTreeMap<String, String> {
    let Some(object) = value.as_object() else {
        return BTreeMap::new();
    };
    object
        .iter()
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}

/// The root's package and those of its workspaces, by directory.
#[derive(Debug, Clone, Default)]
pub(super) struct Packages {
    pub(super) root: Package,
    /// Directory to package, without the root.
    pub(super) members: BTreeMap<String, Package>,
}

impl Packages {
    /// Reads all packages of a tree. Which members a workspace's patterns leave out does not matter: a manifest too many
    /// changes no install.
    pub(super) fn read(view: &SourceView) -> Result<Option<Self>, Report> {
        let Some(root) = Package::read(view, "")? else {
            return Ok(None);
        };
        let mut members = BTreeMap::new();
        if root.has_workspaces || view.has("pnpm-workspace.yaml") {
            for path in view.paths() {
                let Some(directory) = path.strip_suffix("/package.json") else {
                    continue;
                };
                if !directory.split('/').any(is_foreign)
                    && let Some(package) = Package::read(view, directory)?
                {
                    members.insert(directory.to_owned(), package);
                }
            }
        }
        Ok(Some(Self { root, members }))
    }

    /// Whether there are workspaces.
    pub(super) fn is_workspace(&self) -> bool {
        !self.members.is_empty()
    }

    /// The package in a directory; empty: the root's.
    pub(super) fn at(&self, directory: &str) -> Option<&Package> {
        if directory.is_empty() {
            Some(&self.root)
        } else {
            self.members.get(directory)
        }
    }

    /// The directory of the member with this name, or at this path.
    pub(super) fn directory_of(&self, name: &str) -> Option<&str> {
        let path = name.trim_start_matches("./").trim_matches('/');
        let named = self.members.iter().find(|(_, package)| package.name == name);
        let found = named.or_else(|| self.members.get_key_value(path));
        found.map(|(directory, _)| directory.as_str())
    }

    /// All packages.
    pub(super) fn all(&self) -> impl Iterator<Item = &Package> {
        std::iter::once(&self.root).chain(self.members.values())
    }
}
