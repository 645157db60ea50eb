//! The guide is run as it stands: every command must succeed and print what the page says.

use std::process::Command;

use ferrovia_tests::app::repository;
use ferrovia_tests::platform::{Engine, Platform, binary};

/// A command of a page and what it prints: parts that must follow each other.
struct Step {
    command: String,
    expected: Vec<String>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_of_the_guide_works_as_printed() {
    let platform = Platform::start(Engine::Docker).await.unwrap();
    let home = tempfile::tempdir().unwrap();
    let mut pages: Vec<_> = std::fs::read_dir(repository().join("docs/guide"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(|c: char| c.is_ascii_digit()))
        })
        .collect();
    pages.sort();
    assert!(!pages.is_empty());
    let bin = binary("ferrovia").unwrap();
    let path = format!(
        "{}:{}",
        bin.parent().unwrap().display(),
        std::env::var("PATH").unwrap()
    );
    for page in pages {
        let text = std::fs::read_to_string(&page).unwrap();
        // Where one command changed to, the next one is.
        let mut directory = home.path().to_owned();
        for step in steps(&text) {
            let shell = format!(
                "{}\nstatus=$?\npwd >\"$HOME/.directory\"\nexit $status",
                step.command
            );
            let output = Command::new("bash")
                .args(["-c", &shell])
                .current_dir(&directory)
                .env("HOME", home.path())
                .env("PATH", &path)
                .env("EXAMPLES", repository().join("examples"))
                .env("FERROVIA_URL", format!("http://{}", platform.api))
                .env("FERROVIA_TOKEN", &platform.token)
                .env_remove("XDG_CONFIG_HOME")
                .output()
                .unwrap();
            let printed = format!(
                "{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
            let place = format!("{}: $ {}\n{printed}", page.display(), step.command);
            assert!(output.status.success(), "{place}\n{}", platform.logs());
            let mut rest = printed.as_str();
            for part in &step.expected {
                let found = rest
                    .find(part.as_str())
                    .unwrap_or_else(|| panic!("`{part}` is missing\n{place}"));
                rest = &rest[found + part.len()..];
            }
            directory = std::fs::read_to_string(home.path().join(".directory"))
                .unwrap()
                .trim()
                .into();
        }
    }
}

fn steps(page: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut inside = false;
    for line in page.lines() {
        match (inside, line) {
            (false, "```console") => inside = true,
            (true, "```") => inside = false,
            (true, line) => match (line.strip_prefix("$ "), steps.last_mut()) {
                (Some(command), _) => steps.push(Step {
                    command: command.to_owned(),
                    expected: Vec::new(),
                }),
                (None, Some(step)) => {
                    step.expected
                        .extend(line.split('…').filter(|part| !part.is_empty()).map(str::to_owned));
                }
                (None, None) => panic!("output before the first command: {line}"),
            },
            (false, _) => {}
        }
    }
    steps
}
