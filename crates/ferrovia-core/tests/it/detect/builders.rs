//! Which builder and which provider.

use ferrovia_core::settings::{BuildSettings, BuilderKind};

use super::{check, check_with, codes, detected, detected_with};

const NODE: (&str, &str) = ("package.json", r#"{"scripts":{"start":"node server.js"}}"#);
const DOCKERFILE: (&str, &str) = (
    "Dockerfile",
    "FROM debian:trixie AS base\nARG TOKEN\nFROM base AS final\n",
);

#[test]
fn a_dockerfile_comes_before_detection() {
    check("dockerfile", &[DOCKERFILE, NODE]);
}

#[test]
fn a_setting_comes_before_a_dockerfile() {
    let auto = BuildSettings {
        builder: Some(BuilderKind::Auto),
        ..BuildSettings::default()
    };
    check_with("dockerfile_but_auto", &[DOCKERFILE, NODE], &auto);
    let provider = BuildSettings {
        provider: Some("node".to_owned()),
        ..BuildSettings::default()
    };
    let summary = detected_with(&[DOCKERFILE, NODE], &provider).unwrap().summary;
    assert!(
        summary.starts_with("builder: auto, node, the setting `provider` asks for it"),
        "{summary}"
    );
}

#[test]
fn a_dockerfile_that_is_asked_for_must_be_there() {
    let asked = BuildSettings {
        builder: Some(BuilderKind::Dockerfile),
        ..BuildSettings::default()
    };
    check_with(
        "dockerfile_missing",
        &[NODE, ("deploy/Dockerfile.web", "FROM scratch")],
        &asked,
    );
    let named = BuildSettings {
        dockerfile: Some("./deploy/Dockerfile.web".to_owned()),
        ..BuildSettings::default()
    };
    check_with(
        "dockerfile_named",
        &[NODE, ("deploy/Dockerfile.web", "FROM scratch")],
        &named,
    );
}

#[test]
fn a_target_must_be_there() {
    let target = |name: &str| BuildSettings {
        target: Some(name.to_owned()),
        ..BuildSettings::default()
    };
    check_with("dockerfile_target", &[DOCKERFILE], &target("base"));
    assert_eq!(
        detected_with(&[DOCKERFILE], &target("other"))
            .unwrap_err()
            .report
            .code,
        "target_missing"
    );
}

#[test]
fn an_argument_that_names_a_variable_is_told_unless_it_is_listed() {
    assert_eq!(
        codes(&detected(&[DOCKERFILE]).unwrap().warnings),
        ["argument_unlisted"]
    );
    let listed = BuildSettings {
        arguments: vec!["TOKEN".to_owned()],
        ..BuildSettings::default()
    };
    assert!(detected_with(&[DOCKERFILE], &listed).unwrap().warnings.is_empty());
}

#[test]
fn nothing_is_told_with_what_to_do() {
    check("empty", &[]);
    check("nothing", &[("README.md", "x"), ("notes/a.txt", "x")]);
    check(
        "nested",
        &[
            ("README.md", "x"),
            ("web/package.json", r#"{"scripts":{"start":"node ."}}"#),
        ],
    );
    check(
        "several_nested",
        &[
            ("web/package.json", "{}"),
            ("api/go.mod", "module api"),
            ("api/main.go", "package main"),
            ("old/Dockerfile", "FROM x"),
        ],
    );
}

#[test]
fn all_matches_are_told_and_one_is_forced() {
    let tree = [
        NODE,
        ("requirements.txt", "flask\ngunicorn\n"),
        ("app.py", "from flask import Flask\napp = Flask(__name__)\n"),
        ("index.html", "<h1>x</h1>"),
    ];
    check("several_providers", &tree);
    let forced = BuildSettings {
        provider: Some("static".to_owned()),
        ..BuildSettings::default()
    };
    check_with("forced_provider", &tree, &forced);
    let unknown = BuildSettings {
        provider: Some("cobol".to_owned()),
        ..BuildSettings::default()
    };
    assert_eq!(
        detected_with(&tree, &unknown).unwrap_err().report.code,
        "provider_unknown"
    );
}

#[test]
fn a_start_outweighs_a_manifest_alone() {
    let chosen = |tree: super::Tree<'_>| detected(tree).unwrap().matches[0].provider.clone();
    let assets = (
        "package.json",
        r#"{"scripts":{"build":"tailwindcss"},"devDependencies":{"tailwindcss":"4"}}"#,
    );
    let django = (
        "manage.py",
        "os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'shop.settings')\nimport django",
    );
    assert_eq!(
        chosen(&[
            assets,
            django,
            ("requirements.txt", "django"),
            ("shop/wsgi.py", "")
        ]),
        "python"
    );
    assert_eq!(chosen(&[NODE, ("requirements.txt", "pytest")]), "node");
    assert_eq!(
        chosen(&[
            ("package.json", r#"{"devDependencies":{"prettier":"3"}}"#),
            ("index.html", "")
        ]),
        "static"
    );
    assert_eq!(
        chosen(&[
            ("go.mod", "module x"),
            ("main.go", "package main"),
            ("index.html", ""),
            NODE
        ]),
        "go"
    );
}

#[test]
fn the_procfile_says_which_of_several() {
    let tree = [
        NODE,
        ("requirements.txt", "flask\ngunicorn\n"),
        ("app.py", "from flask import Flask\napp = Flask(__name__)\n"),
        ("Procfile", "web: PORT=1 node server.js"),
    ];
    let detection = detected(&tree).unwrap();
    assert_eq!(detection.matches[0].provider, "node");
    assert!(
        detection.summary.contains("`Procfile` starts `web` with `node`"),
        "{}",
        detection.summary
    );
}

#[test]
fn manifests_with_mistakes_are_named() {
    check("broken_package_json", &[("package.json", "{\"name\": }")]);
    check(
        "broken_pyproject",
        &[("pyproject.toml", "[project\n"), ("main.py", "")],
    );
    check(
        "broken_cargo_toml",
        &[("Cargo.toml", "[package]\nname = x\n"), ("src/main.rs", "")],
    );
    check("broken_pom", &[("pom.xml", "<project><a></project>")]);
}

#[test]
fn an_environment_file_in_the_tree_is_told() {
    assert_eq!(
        codes(&detected(&[NODE, (".env", "A=1")]).unwrap().warnings),
        ["env_file_in_tree"]
    );
}
