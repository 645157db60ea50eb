//! Package managers: which one, in which version, and what they are told.
//!
//! Versions that a project does not pin are pinned here, so that a build of today is a build of next year.

use crate::detect::shell;
use crate::detect::view::SourceView;
use crate::plan::{Sharing, Step};

use super::package::{INSTALL_HOOKS, Packages};

/// A package manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Npm,
    Pnpm,
    /// Yarn 1.
    Yarn,
    /// Yarn 2 and later.
    Berry,
    Bun,
}

/// The package manager of a project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Manager {
    pub(super) kind: Kind,
    /// The version that is installed; none: what the base has.
    pub(super) version: Option<String>,
    /// A lock file that is there.
    pub(super) lock: Option<&'static str>,
    /// Yarn's own program in the tree.
    release: Option<String>,
    /// For people.
    pub(super) why: String,
}

const PNPM_BY_LOCK: &[(&str, &str)] = &[("5.3", "6.35.1"), ("5.4", "7.33.7"), ("6.", "8.15.9")];
const PNPM_9: &str = "9.15.9";
const PNPM_10: &str = "10.15.1";
const YARN_1: &str = "1.22.22";
const BERRY: &str = "4.9.2";
const BUN: &str = "1.2.21";

/// Says which package manager a project uses: `packageManager`, else its lock file, else `engines`, else npm.
pub(super) fn choose(view: &SourceView, packages: &Packages) -> Manager {
    let root = &packages.root;
    let lock = ["package-lock.json", "npm-shrinkwrap.json"];
    let has = |name: &'static str| view.has(name).then_some(name);
    let yarn_is_berry = view.has(".yarnrc.yml")
        || view
            .text("yarn.lock")
            .is_some_and(|text| text.contains("__metadata:"));
    let yarn = if yarn_is_berry { Kind::Berry } else { Kind::Yarn };
    let bun_lock = has("bun.lock").or_else(|| has("bun.lockb"));
    let lock_of = |kind| match kind {
        Kind::Npm => lock.into_iter().find_map(has),
        Kind::Pnpm => has("pnpm-lock.yaml"),
        Kind::Yarn | Kind::Berry => has("yarn.lock"),
        Kind::Bun => bun_lock,
    };
    let manager = |kind, version: Option<String>, why: String| Manager {
        kind,
        version,
        lock: lock_of(kind),
        release: (kind == Kind::Berry).then(|| berry_release(view)).flatten(),
        why,
    };
    if let Some((name, version)) = &root.package_manager {
        let kind = match name.as_str() {
            "npm" => Some(Kind::Npm),
            "pnpm" => Some(Kind::Pnpm),
            "yarn" if version.starts_with("1.") => Some(Kind::Yarn),
            "yarn" => Some(Kind::Berry),
            "bun" => Some(Kind::Bun),
            _ => None,
        };
        if let Some(kind) = kind {
            return manager(
                kind,
                Some(version.clone()),
                format!("`package.json` > `packageManager` is `{name}@{version}`"),
            );
        }
    }
    let by_lock = |lock: &str| format!("there is `{lock}`");
    if let Some(lock) = has("pnpm-lock.yaml") {
        return manager(Kind::Pnpm, Some(pnpm_version(view, packages)), by_lock(lock));
    }
    if let Some(lock) = bun_lock {
        return manager(Kind::Bun, Some(BUN.to_owned()), by_lock(lock));
    }
    if let Some(lock) = has("yarn.lock") {
        let version = if yarn == Kind::Berry { BERRY } else { YARN_1 };
        return manager(yarn, Some(version.to_owned()), by_lock(lock));
    }
    if lock_of(Kind::Npm).is_none() {
        for (name, kind) in [("pnpm", Kind::Pnpm), ("bun", Kind::Bun), ("yarn", yarn)] {
            if root.engines.contains_key(name) {
                let version = match kind {
                    Kind::Pnpm => pnpm_version(view, packages),
                    Kind::Bun => BUN.to_owned(),
                    Kind::Berry => BERRY.to_owned(),
                    _ => YARN_1.to_owned(),
                };
                return manager(
                    kind,
                    Some(version),
                    format!("`package.json` > `engines` names {name}"),
                );
            }
        }
    }
    let why = lock_of(Kind::Npm).map_or("nothing names another".to_owned(), by_lock);
    manager(Kind::Npm, None, why)
}

/// By `engines.pnpm`, the lock file's version, or settings that only pnpm 10 reads.
fn pnpm_version(view: &SourceView, packages: &Packages) -> String {
    let asked = packages.root.engines.get("pnpm").and_then(|text| {
        let digits = text.trim_start_matches(|c: char| !c.is_ascii_digit());
        digits
            .split(|c: char| !c.is_ascii_digit())
            .next()
            .map(str::to_owned)
    });
    match asked.as_deref() {
        Some("8") => return "8.15.9".to_owned(),
        Some("9") => return PNPM_9.to_owned(),
        Some("10") => return PNPM_10.to_owned(),
        _ => {}
    }
    let lock = view.text("pnpm-lock.yaml").unwrap_or_default();
    let version = lock
        .lines()
        .find_map(|line| line.strip_prefix("lockfileVersion:"));
    let version = version.unwrap_or_default().trim().trim_matches(['"', '\'']);
    if let Some((_, pnpm)) = PNPM_BY_LOCK.iter().find(|(start, _)| version.starts_with(start)) {
        return (*pnpm).to_owned();
    }
    let workspace = view.text("pnpm-workspace.yaml").unwrap_or_default();
    let settings = workspace.lines().any(|line| {
        let key = line.split(':').next().unwrap_or_default();
        line.contains(':') && !line.starts_with([' ', '#', '-']) && key != "packages"
    });
    let of_10 = settings || packages.root.pnpm_keys.contains("onlyBuiltDependencies");
    (if of_10 { PNPM_10 } else { PNPM_9 }).to_owned()
}

/// `yarnPath` of `.yarnrc.yml`, if the file is there.
fn berry_release(view: &SourceView) -> Option<String> {
    let text = view.text(".yarnrc.yml")?;
    let path = text.lines().find_map(|line| line.strip_prefix("yarnPath:"))?;
    let path = path.trim().trim_matches(['"', '\'']).to_owned();
    view.has(&path).then_some(path)
}

impl Manager {
    /// The word that runs it.
    pub(super) fn program(&self) -> &'static str {
        match self.kind {
            Kind::Npm => "npm",
            Kind::Pnpm => "pnpm",
            Kind::Yarn | Kind::Berry => "yarn",
            Kind::Bun => "bun",
        }
    }

    /// For people: `pnpm 9.15.9`.
    pub(super) fn describe(&self) -> String {
        match &self.version {
            Some(version) => format!("{} {version}, since {}", self.program(), self.why),
            None => format!("{}, since {}", self.program(), self.why),
        }
    }

    /// The step with the package manager itself installed.
    pub(super) fn installed(&self, step: Step) -> Step {
        let Some(version) = &self.version else { return step };
        match (self.kind, &self.release) {
            // Yarn runs the release in the tree by itself when any yarn is started.
            (Kind::Berry, Some(_)) => step.shell(format!("npm install --global --force yarn@{YARN_1}")),
            (Kind::Berry, None) => step.shell(format!(
                "npm install --global --force @yarnpkg/cli-dist@{version}"
            )),
            (kind, _) => {
                let name = match kind {
                    Kind::Npm => "npm",
                    Kind::Pnpm => "pnpm",
                    Kind::Yarn | Kind::Berry => "yarn",
                    Kind::Bun => "bun",
                };
                step.shell(format!("npm install --global --force {name}@{version}"))
            }
        }
    }

    /// The step with the caches and the environment of installs.
    pub(super) fn prepared(&self, step: Step) -> Step {
        let step = step.cache("npm", "/root/.npm", Sharing::Shared).variables(&[
            ("CI", "true"),
            ("HUSKY", "0"),
            ("npm_config_audit", "false"),
            ("npm_config_fund", "false"),
            ("npm_config_update_notifier", "false"),
            ("npm_config_fetch_retries", "5"),
        ]);
        match self.kind {
            Kind::Npm => step,
            Kind::Pnpm => step
                .cache("pnpm", "/opt/pnpm-store", Sharing::Shared)
                .variables(&[
                    ("npm_config_store_dir", "/opt/pnpm-store"),
                    ("npm_config_package_import_method", "copy"),
                ]),
            Kind::Yarn => step
                .cache("yarn", "/opt/yarn-cache", Sharing::Locked)
                .variables(&[("YARN_CACHE_FOLDER", "/opt/yarn-cache")]),
            Kind::Berry => step
                .cache("yarn", "/opt/yarn-cache", Sharing::Locked)
                .variables(&[
                    ("YARN_CACHE_FOLDER", "/opt/yarn-cache"),
                    ("YARN_ENABLE_GLOBAL_CACHE", "false"),
                    ("YARN_ENABLE_TELEMETRY", "false"),
                    ("YARN_NODE_LINKER", "node-modules"),
                ]),
            Kind::Bun => step
                .cache("bun", "/opt/bun-cache", Sharing::Shared)
                .variables(&[("BUN_INSTALL_CACHE_DIR", "/opt/bun-cache")]),
        }
    }

    /// The script that installs all dependencies, those for development too, since builds need them.
    pub(super) fn install(&self) -> String {
        match (self.kind, self.lock) {
            (Kind::Npm, Some(lock)) => NPM_CI.replace("@LOCK@", lock),
            (Kind::Npm, None) => "npm install --include=dev".to_owned(),
            (Kind::Pnpm, Some(_)) => {
                "pnpm install --frozen-lockfile --prefer-offline --prod=false".to_owned()
            }
            (Kind::Pnpm, None) => "pnpm install --no-frozen-lockfile --prod=false".to_owned(),
            (Kind::Yarn, Some(_)) => {
                "yarn install --frozen-lockfile --production=false --non-interactive".to_owned()
            }
            (Kind::Yarn, None) => "yarn install --production=false --non-interactive".to_owned(),
            (Kind::Berry, Some(_)) => "yarn install --immutable".to_owned(),
            (Kind::Berry, None) => "yarn install --no-immutable".to_owned(),
            (Kind::Bun, Some(_)) => "bun install --frozen-lockfile".to_owned(),
            (Kind::Bun, None) => "bun install".to_owned(),
        }
    }

    /// The script that takes the dependencies for development away.
    pub(super) fn prune(&self, packages: &Packages) -> String {
        let anew = |install: &str| {
            format!("find . -name node_modules -type d -prune -exec rm -rf {{}} +\n{install}")
        };
        match self.kind {
            Kind::Npm => "npm prune --omit=dev --ignore-scripts".to_owned(),
            Kind::Pnpm if packages.is_workspace() => {
                // Scripts of dependencies must run again, those of the project need what is taken away.
                let members = packages.members.keys().map(|directory| shell::quoted(directory));
                let directories: Vec<_> = std::iter::once(".".to_owned()).chain(members).collect();
                let scripts = INSTALL_HOOKS.map(|hook| format!("scripts.{hook}"));
                let (directories, scripts) = (directories.join(" "), scripts.join(" "));
                anew(&format!(
                    "for directory in {directories}; do (cd \"$directory\" && npm pkg delete {scripts}); done\n\
                     pnpm install --prod --frozen-lockfile --prefer-offline"
                ))
            }
            Kind::Pnpm => "pnpm prune --prod --ignore-scripts".to_owned(),
            Kind::Yarn => "yarn install --production --frozen-lockfile --ignore-scripts --prefer-offline --non-interactive"
                .to_owned(),
            Kind::Berry => "yarn workspaces focus --all --production".to_owned(),
            Kind::Bun => anew("bun install --production --frozen-lockfile --ignore-scripts"),
        }
    }

    /// The script that runs a script of the project.
    pub(super) fn run(&self, script: &str) -> String {
        format!("{} run {script}", self.program())
    }

    /// Files of the root that an install reads, apart from manifests: those that are there.
    pub(super) fn files(&self, view: &SourceView) -> Vec<String> {
        const FILES: &[&str] = &[
            "package-lock.json",
            "npm-shrinkwrap.json",
            "pnpm-lock.yaml",
            "pnpm-workspace.yaml",
            ".pnpmfile.cjs",
            "yarn.lock",
            "bun.lock",
            "bun.lockb",
            "bunfig.toml",
            ".npmrc",
            ".yarnrc",
            ".yarnrc.yml",
            ".nvmrc",
            ".node-version",
        ];
        const DIRECTORIES: &[&str] = &[
            "patches",
            "prisma",
            ".yarn/releases",
            ".yarn/plugins",
            ".yarn/patches",
            ".yarn/cache",
        ];
        let files = FILES.iter().filter(|path| view.has(path));
        let directories = DIRECTORIES.iter().filter(|path| view.has_directory(path));
        files.chain(directories).map(|path| (*path).to_owned()).collect()
    }
}

/// `npm ci` refuses a lock that does not fit its manifest; then, and only then, and visibly, `npm install`.
const NPM_CI: &str = r#"# npm ci, or npm install when the lock file does not fit
status=0
{ npm ci --include=dev || echo $? > /tmp/npm-status; } 2>&1 | tee /tmp/npm-log
[ -f /tmp/npm-status ] && status=$(cat /tmp/npm-status)
if [ "$status" != 0 ] && grep -q "in sync" /tmp/npm-log; then
  echo "WARNING: @LOCK@ does not fit package.json, so \`npm install\` runs instead of \`npm ci\`; run \`npm install\` and commit the lock file"
  status=0
  npm install --include=dev || status=$?
fi
rm -f /tmp/npm-status /tmp/npm-log
exit "$status""#;
