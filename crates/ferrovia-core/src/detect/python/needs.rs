//! What a Python project needs: packages by name, versions of Python, libraries of the system.

use std::collections::BTreeSet;

use toml::{Table, Value};

use crate::detect::unreadable_manifest;
use crate::detect::view::SourceView;
use crate::error::Report;
use crate::versions::VersionRequest;

/// What a project needs.
#[derive(Debug, Clone, Default)]
pub(super) struct Needs {
    /// Names of packages in lower case with `-`, as PyPI normalises them; extras as `NAME[EXTRA]` too.
    packages: BTreeSet<String>,
    pub(super) versions: Vec<VersionRequest>,
    /// Whether the project itself is installed.
    pub(super) is_package: bool,
    /// Whether it has scripts of its own (`project.scripts`), and their names.
    pub(super) has_scripts: bool,
    pub(super) scripts: Vec<String>,
}

/// Debian packages that well-known dependencies need.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Libraries {
    pub(super) build: Vec<String>,
    pub(super) run: Vec<String>,
}

/// Package, what building it needs, what running it needs. Those that have wheels for everyone are not here.
const LIBRARIES: &[(&str, &[&str], &[&str])] = &[
    ("psycopg2", &["libpq-dev"], &["libpq5"]),
    ("psycopg", &[], &["libpq5"]),
    ("mysqlclient", &["default-libmysqlclient-dev"], &["libmariadb3"]),
    ("pycairo", &["libcairo2-dev"], &["libcairo2"]),
    ("cairosvg", &[], &["libcairo2"]),
    ("weasyprint", &[], &["libpango-1.0-0", "libpangoft2-1.0-0"]),
    ("pdf2image", &[], &["poppler-utils"]),
    ("pydub", &[], &["ffmpeg"]),
    ("python-magic", &[], &["libmagic1"]),
    ("python-ldap", &["libldap2-dev", "libsasl2-dev"], &["libldap2"]),
    ("opencv-python", &[], &["libgl1", "libglib2.0-0"]),
    ("uwsgi", &["libpcre2-dev"], &["libpcre2-8-0"]),
];

impl Needs {
    pub(super) fn read(view: &SourceView) -> Result<Self, Report> {
        let mut needs = Self::default();
        for file in super::requirement_files(view) {
            needs.add_requirements(view.text(&file).unwrap_or_default());
        }
        if let Some(text) = view.text("pyproject.toml") {
            let table: Table = text
                .parse()
                .map_err(|error: toml::de::Error| unreadable_manifest("pyproject.toml", error.message()))?;
            needs.add_pyproject(&table);
        }
        if let Some(text) = view.text("Pipfile") {
            let table: Table = text
                .parse()
                .map_err(|error: toml::de::Error| unreadable_manifest("Pipfile", error.message()))?;
            if let Some(packages) = table.get("packages").and_then(Value::as_table) {
                packages.keys().for_each(|name| needs.add(name));
            }
            for key in ["python_full_version", "python_version"] {
                if let Some(version) = table
                    .get("requires")
                    .and_then(|requires| requires.get(key))
                    .and_then(Value::as_str)
                {
                    needs.versions.push(VersionRequest::new(
                        version,
                        format!("Pipfile > requires > {key}"),
                    ));
                }
            }
        }
        Ok(needs)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.packages.contains(name)
    }

    /// `uvicorn[standard]>=0.30; python_version > "3"`.
    fn add(&mut self, requirement: &str) {
        let requirement = requirement.trim();
        let end = requirement
            .find(|c: char| !c.is_ascii_alphanumeric() && !"-_.".contains(c))
            .unwrap_or(requirement.len());
        let name = normalised(&requirement[..end]);
        if name.is_empty() {
            return;
        }
        if let Some(extras) = requirement[end..]
            .trim_start()
            .strip_prefix('[')
            .and_then(|rest| rest.split(']').next())
        {
            for extra in extras.split(',') {
                self.packages.insert(format!("{name}[{}]", extra.trim()));
            }
        }
        self.packages.insert(name);
    }

    fn add_requirements(&mut self, text: &str) {
        for line in text.lines().map(str::trim) {
            if !line.starts_with(['#', '-']) {
                self.add(line);
            }
        }
    }

    fn add_pyproject(&mut self, table: &Table) {
        let at = |path: &[&str]| {
            path.iter().try_fold(table.get(path[0])?, |value, key| {
                if *key == path[0] {
                    Some(value)
                } else {
                    value.get(key)
                }
            })
        };
        for requirement in at(&["project", "dependencies"])
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            requirement.as_str().into_iter().for_each(|text| self.add(text));
        }
        if let Some(version) = at(&["project", "requires-python"]).and_then(Value::as_str) {
            self.versions.push(VersionRequest::new(
                version,
                "pyproject.toml > project > requires-python",
            ));
        }
        let poetry = at(&["tool", "poetry"]);
        if let Some(dependencies) = poetry
            .and_then(|poetry| poetry.get("dependencies"))
            .and_then(Value::as_table)
        {
            for (name, value) in dependencies {
                if name == "python" {
                    let text = value.as_str().unwrap_or_default();
                    self.versions.push(VersionRequest::new(
                        text,
                        "pyproject.toml > tool > poetry > dependencies > python",
                    ));
                    continue;
                }
                self.add(name);
                for extra in value
                    .get("extras")
                    .and_then(Value::as_array)
                    .into_iter()
                    .flatten()
                {
                    extra
                        .as_str()
                        .into_iter()
                        .for_each(|extra| self.add(&format!("{name}[{extra}]")));
                }
            }
        }
        for scripts in [
            at(&["project", "scripts"]),
            poetry.and_then(|poetry| poetry.get("scripts")),
        ]
        .into_iter()
        .flatten()
        {
            self.scripts
                .extend(scripts.as_table().into_iter().flat_map(Table::keys).cloned());
        }
        self.has_scripts = !self.scripts.is_empty();
        let packaged = at(&["tool", "uv", "package"]).and_then(Value::as_bool);
        self.is_package = packaged.unwrap_or(table.contains_key("build-system"));
    }

    /// Debian packages that its dependencies need.
    pub(super) fn libraries(&self) -> Libraries {
        let mut libraries = Libraries::default();
        for (name, build, run) in LIBRARIES {
            let with_wheel =
                *name == "psycopg" && (self.has("psycopg[binary]") || self.has("psycopg-binary"));
            if self.has(name) && !with_wheel {
                libraries
                    .build
                    .extend(build.iter().map(|package| (*package).to_owned()));
                libraries
                    .run
                    .extend(run.iter().map(|package| (*package).to_owned()));
            }
        }
        libraries
    }
}

/// As PyPI compares names (PEP 503).
fn normalised(name: &str) -> String {
    name.trim().to_ascii_lowercase().replace(['_', '.'], "-")
}

/// Whether requirements name something in the tree: then an install needs all of it.
pub(super) fn refers_to_tree(text: &str) -> bool {
    text.lines().map(str::trim).any(|line| {
        let line = line
            .strip_prefix("-e")
            .or(line.strip_prefix("--editable"))
            .map_or(line, str::trim_start);
        line.starts_with('.')
            || line.starts_with("file:")
            || line.contains("@ file:")
            || line.contains("@ ./")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_everywhere() {
        let view = SourceView::from_files([
            (
                "requirements.txt",
                "# x\n-r more/base.txt\nFlask==3.0 # web\nuvicorn[standard]>=0.30 ; python_version>'3'\n--index-url x\n",
            ),
            ("more/base.txt", "-c limits.txt\nZope.Interface\n"),
            ("more/limits.txt", "idna<4"),
            (
                "pyproject.toml",
                "[project]\nrequires-python = \">=3.11\"\ndependencies = [\"fastapi[standard]\"]\n[tool.poetry.dependencies]\npython = \"^3.12\"\nDjango = {version=\"5\", extras=[\"argon2\"]}\n",
            ),
            (
                "Pipfile",
                "[packages]\npsycopg2 = \"*\"\n[requires]\npython_version = \"3.12\"\n",
            ),
        ]);
        let needs = Needs::read(&view).unwrap();
        for name in [
            "flask",
            "uvicorn",
            "uvicorn[standard]",
            "zope-interface",
            "fastapi[standard]",
            "django[argon2]",
            "psycopg2",
        ] {
            assert!(needs.has(name), "{name}: {needs:?}");
        }
        let versions: Vec<_> = needs
            .versions
            .iter()
            .map(|request| request.text.as_str())
            .collect();
        assert_eq!(versions, [">=3.11", "^3.12", "3.12"]);
        assert_eq!(needs.libraries().run, ["libpq5"]);
    }

    #[test]
    fn what_lies_in_the_tree_is_seen() {
        assert!(refers_to_tree("-e .\n") && refers_to_tree("./lib") && refers_to_tree("x @ file:///app/x"));
        assert!(!refers_to_tree(
            "flask\n-r base.txt\nx @ https://example.com/x.whl"
        ));
    }
}
