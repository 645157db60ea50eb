//! What stands in the repository beside the code: pages of codes, and the examples.

use std::fs;
use std::path::{Path, PathBuf};

use ferrovia_core::bases::{Origin, available};
use ferrovia_core::detect::{Method, Request, SourceView, detect};
use ferrovia_core::plan::PortPlan;
use ferrovia_core::settings::BuildSettings;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && !matches!(name, "node_modules" | "target" | "dist" | "__pycache__") {
            found.extend(files(&path));
        } else if path.is_file() {
            found.push(path);
        }
    }
    found
}

#[test]
fn every_code_has_its_page() {
    let source = root().join("crates/ferrovia-core/src");
    let parts = ["detect", "dockerfile", "plan", "tree", "versions"];
    let mut found = 0;
    for path in parts.iter().flat_map(|part| files(&source.join(part))) {
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        for call in ["Report::new(", ".warn("] {
            for argument in text.split(call).skip(1) {
                let Some(rest) = argument.trim_start().strip_prefix('"') else {
                    continue;
                };
                let code = rest.split('"').next().unwrap();
                assert!(
                    root().join(format!("docs/error-codes/{code}.md")).exists(),
                    "`{code}` has no page"
                );
                found += 1;
            }
        }
    }
    assert!(found >= 30, "{found} codes");
}

#[test]
fn examples_are_what_they_say() {
    let examples = root().join("examples");
    let expected: toml::Table = fs::read_to_string(examples.join("expected.toml"))
        .unwrap()
        .parse()
        .unwrap();
    let expected = expected["example"].as_array().unwrap();
    assert_eq!(expected.len(), 10);
    for example in expected {
        let text = |key: &str| example.get(key).map(|value| value.as_str().unwrap());
        let name = text("directory").unwrap();
        let directory = examples.join(name);
        let tree = files(&directory).into_iter().map(|path| {
            let relative = path
                .strip_prefix(&directory)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            (
                relative,
                String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned(),
            )
        });
        let view = SourceView::from_files(tree);
        for origin in [Origin::Official, Origin::Made] {
            let request = Request {
                view: &view,
                settings: &BuildSettings::default(),
                tools: &available(origin),
                variables: &[],
                allow_no_start: false,
            };
            let detection = detect(&request).unwrap_or_else(|refusal| panic!("{name}: {refusal:?}"));
            assert_eq!(detection.warnings, [], "{name}");
            match detection.method {
                Method::Dockerfile { .. } => assert_eq!(text("builder"), Some("dockerfile"), "{name}"),
                Method::Auto { plan } => {
                    assert_eq!(
                        (text("builder"), text("provider")),
                        (Some("auto"), Some(plan.provider.as_str())),
                        "{name}"
                    );
                    assert_eq!(
                        plan.deploy.port == PortPlan::None,
                        text("port") == Some("none"),
                        "{name}"
                    );
                }
            }
        }
        let edit = |key: &str| example["edit"][key].as_str().unwrap();
        let source = fs::read_to_string(directory.join(edit("file"))).unwrap();
        assert_eq!(
            source.matches(edit("find")).count(),
            1,
            "{name}: the edit changes one place"
        );
    }
}
