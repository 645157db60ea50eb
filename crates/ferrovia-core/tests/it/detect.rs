//! Small trees in memory, and what is made of them.

mod builders;
mod compiled;
mod documents;
mod hostile;
mod node;
mod python;
mod sites;

use std::fmt::Write;

use ferrovia_core::bases::{Origin, available};
use ferrovia_core::detect::{Detection, Method, Refusal, Request, SourceView, detect};
use ferrovia_core::error::Report;
use ferrovia_core::plan::{Command, CopyFrom, From, Plan, Secrets};
use ferrovia_core::settings::BuildSettings;

type Tree<'a> = &'a [(&'a str, &'a str)];

/// Detects with the platform's own bases and default settings.
fn detected(tree: Tree<'_>) -> Result<Detection, Box<Refusal>> {
    detected_with(tree, &BuildSettings::default())
}

fn detected_with(tree: Tree<'_>, settings: &BuildSettings) -> Result<Detection, Box<Refusal>> {
    let view = SourceView::from_files(tree.iter().copied());
    let request = Request {
        view: &view,
        settings,
        tools: &available(Origin::Made),
        variables: &["TOKEN".to_owned()],
        allow_no_start: false,
    };
    detect(&request)
}

/// Compares what is made of a tree with what was made of it before.
fn check(name: &str, tree: Tree<'_>) {
    check_with(name, tree, &BuildSettings::default());
}

fn check_with(name: &str, tree: Tree<'_>, settings: &BuildSettings) {
    let result = detected_with(tree, settings);
    if let Ok(detection) = &result {
        let json = serde_json::to_string(detection).unwrap();
        assert_eq!(
            &serde_json::from_str::<Detection>(&json).unwrap(),
            detection,
            "{name}: JSON loses nothing"
        );
        assert_eq!(
            detected_with(tree, settings).as_ref(),
            Ok(detection),
            "{name}: detection is a function"
        );
    }
    insta::with_settings!({ snapshot_path => "snapshots/detect", prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!(name, described(&result));
    });
}

fn plan(tree: Tree<'_>) -> Plan {
    match detected(tree).unwrap().method {
        Method::Auto { plan } => *plan,
        method => panic!("{method:?}"),
    }
}

fn codes(reports: &[Report]) -> Vec<&str> {
    reports.iter().map(|report| report.code.as_str()).collect()
}

fn described(result: &Result<Detection, Box<Refusal>>) -> String {
    let mut text = String::new();
    let report = |kind: &str, report: &Report| {
        let hint = report
            .hint
            .as_ref()
            .map(|hint| format!("\n  hint: {hint}"))
            .unwrap_or_default();
        format!("{kind} {}: {}{hint}\n", report.code, report.message)
    };
    match result {
        Err(refusal) => {
            refusal
                .warnings
                .iter()
                .for_each(|warning| text.push_str(&report("warning", warning)));
            text.push_str(&report("refused", &refusal.report));
        }
        Ok(detection) => {
            writeln!(text, "{}", detection.summary).unwrap();
            detection
                .notes
                .iter()
                .for_each(|note| writeln!(text, "{note}").unwrap());
            detection
                .warnings
                .iter()
                .for_each(|warning| text.push_str(&report("warning", warning)));
            match &detection.method {
                Method::Dockerfile { path, target } => {
                    writeln!(text, "Dockerfile {path} {target:?}").unwrap()
                }
                Method::Auto { plan } => describe_plan(&mut text, plan),
            }
        }
    }
    text
}

fn describe_plan(text: &mut String, plan: &Plan) {
    for step in &plan.steps {
        let from = match &step.from {
            From::Image(key) => key.clone(),
            From::Step(name) => format!("step {name}"),
        };
        writeln!(text, "\nstep {} from {from}", step.name).unwrap();
        for (name, value) in &step.variables {
            writeln!(text, "  {name}={value}").unwrap();
        }
        for cache in &step.caches {
            writeln!(
                text,
                "  cache {} {} {:?}",
                cache.name, cache.directory, cache.sharing
            )
            .unwrap();
        }
        match &step.secrets {
            Secrets::None => {}
            Secrets::All => text.push_str("  secrets: all\n"),
            Secrets::Prefixed(prefixes) => writeln!(text, "  secrets: {}", prefixes.join(" ")).unwrap(),
        }
        for command in &step.commands {
            match command {
                Command::Exec(arguments) => writeln!(text, "  exec {arguments:?}").unwrap(),
                Command::Shell(script) => writeln!(text, "  $ {}", script.replace('\n', "\n    ")).unwrap(),
                Command::Copy {
                    from: CopyFrom::Source,
                    paths,
                    to,
                } => {
                    writeln!(text, "  copy {} to {to}", paths.join(" ")).unwrap();
                }
                Command::Copy {
                    from: CopyFrom::Step(name),
                    paths,
                    to,
                } => {
                    writeln!(text, "  copy from {name} {} to {to}", paths.join(" ")).unwrap();
                }
                Command::Path(directory) => writeln!(text, "  path {directory}").unwrap(),
                Command::File(file) => writeln!(
                    text,
                    "  file {} ({} lines)",
                    file.path,
                    file.content.lines().count()
                )
                .unwrap(),
            }
        }
    }
    let deploy = &plan.deploy;
    writeln!(text, "\ndeploy on {} port {:?}", deploy.base, deploy.port).unwrap();
    if !deploy.packages.is_empty() {
        writeln!(text, "  packages {}", deploy.packages.join(" ")).unwrap();
    }
    for input in &deploy.inputs {
        writeln!(
            text,
            "  from {} {} to {} without {:?}",
            input.step, input.from, input.to, input.exclude
        )
        .unwrap();
    }
    for file in &deploy.files {
        writeln!(text, "  file {}", file.path).unwrap();
    }
    for (name, value) in &deploy.variables {
        writeln!(text, "  {name}={value}").unwrap();
    }
    for path in &deploy.paths {
        writeln!(text, "  path {path}").unwrap();
    }
    for (name, command) in &deploy.processes {
        writeln!(text, "  process {name} {command:?}").unwrap();
    }
    if let Some(signal) = &deploy.stop_signal {
        writeln!(text, "  stop signal {signal}").unwrap();
    }
    writeln!(text, "  start {:?}", deploy.start).unwrap();
}
