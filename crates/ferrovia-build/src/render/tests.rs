//! Plans of small trees as Dockerfiles.

use std::collections::BTreeMap;

use ferrovia_core::bases::{BASES, Origin, available};
use ferrovia_core::detect::{Method, Request, SourceView, detect};
use ferrovia_core::plan::{Cache, Command, Deploy, From, Plan, Secrets, Sharing, Step};
use ferrovia_core::settings::BuildSettings;

use super::{Certificates, Options, Rendered, TARGET, UnknownBase, render};

const CERTIFICATES: Certificates<'_> = Certificates {
    id: "authority",
    path: "/run/secrets/authority",
    variables: &["SSL_CERT_FILE"],
};

fn bases() -> BTreeMap<String, String> {
    let image = |key: String| format!("127.0.0.1:7071/bases/{}@sha256:00", key.replace(':', "/"));
    BASES.iter().map(|base| (base.key(), image(base.key()))).collect()
}

fn plan_of(tree: &[(&str, &str)]) -> Plan {
    let view = SourceView::from_files(tree.iter().copied());
    let settings = BuildSettings::default();
    let tools = available(Origin::Made);
    let request = Request {
        view: &view,
        settings: &settings,
        tools: &tools,
        variables: &[],
        allow_no_start: false,
    };
    match detect(&request).unwrap().method {
        Method::Auto { plan } => *plan,
        method => panic!("{method:?}"),
    }
}

fn rendered(plan: &Plan, variables: &[(&str, &str)], certificates: Option<Certificates<'_>>) -> Rendered {
    let variables = variables
        .iter()
        .map(|(name, hash)| ((*name).to_owned(), (*hash).to_owned()))
        .collect();
    let options = Options {
        bases: &bases(),
        cache_scope: "project/service",
        variables: &variables,
        certificates,
    };
    render(plan, &options).unwrap()
}

const NODE: &[(&str, &str)] = &[
    (
        "package.json",
        r#"{"scripts":{"build":"tsc","start":"node dist/x.js"},"dependencies":{"a":"1"},"devDependencies":{"b":"1"}}"#,
    ),
    ("package-lock.json", "{}"),
];

#[test]
fn node() {
    let variables = [("NPM_TOKEN", "11"), ("DATABASE_URL", "22"), ("PATH", "33")];
    insta::assert_snapshot!(rendered(&plan_of(NODE), &variables, None).dockerfile);
}

#[test]
fn java_with_an_extra_authority() {
    let pom = "<project><build><plugins><plugin><artifactId>spring-boot-maven-plugin</artifactId></plugin></plugins></build></project>";
    insta::assert_snapshot!(rendered(&plan_of(&[("pom.xml", pom)]), &[], Some(CERTIFICATES)).dockerfile);
}

#[test]
fn a_worker_and_a_site() {
    let worker = plan_of(&[
        ("worker.py", ""),
        ("Procfile", "worker: python worker.py \"a $B\""),
    ]);
    insta::assert_snapshot!(rendered(&worker, &[], Some(CERTIFICATES)).dockerfile);
    let site = rendered(&plan_of(&[("public/index.html", "")]), &[], None);
    assert!(
        site.dockerfile
            .contains("COPY --parents [\"public\",\"/app/\"]\n"),
        "{}",
        site.dockerfile
    );
    assert!(site.dockerfile.contains("\nSTOPSIGNAL SIGQUIT\n"));
    assert!(site.ignore.lines().any(|line| line == "**/node_modules"));
}

#[test]
fn a_changed_value_runs_only_the_steps_that_see_it_again() {
    let plan = plan_of(NODE);
    let stages = |variables: &[(&str, &str)]| {
        let text = rendered(&plan, variables, None).dockerfile;
        text.split("\nFROM ").map(str::to_owned).collect::<Vec<_>>()
    };
    let before = stages(&[("NPM_TOKEN", "1"), ("URL", "1")]);
    let after = stages(&[("NPM_TOKEN", "1"), ("URL", "2")]);
    let changed: Vec<_> = before.iter().zip(&after).map(|(a, b)| a != b).collect();
    assert_eq!(
        changed,
        [false, false, true, false, false],
        "head, install, build, production, image"
    );
    assert_ne!(stages(&[("NPM_TOKEN", "2"), ("URL", "1")])[1], before[1]);
}

#[test]
fn every_cache_belongs_to_the_service() {
    let text = rendered(&plan_of(NODE), &[], None).dockerfile;
    for cache in text.split("type=cache,").skip(1) {
        assert!(cache.starts_with("id=project/service/"), "{cache}");
    }
}

#[test]
fn nothing_is_an_argument_and_the_image_has_no_trace_of_variables() {
    let text = rendered(
        &plan_of(NODE),
        &[("NPM_TOKEN", "1"), ("URL", "1")],
        Some(CERTIFICATES),
    )
    .dockerfile;
    assert!(!text.contains("\nARG "));
    let image = text.split(&format!(" AS {TARGET}")).nth(1).unwrap();
    for word in [
        "NPM_TOKEN",
        "URL",
        "authority",
        "SSL_CERT_FILE",
        "FERROVIA_BUILD_VARIABLES",
    ] {
        assert!(!image.contains(word), "{word}: {image}");
    }
}

#[test]
fn scripts_of_every_shape_stay_what_they_are() {
    let mut step = Step::new("build", From::Image("go:1.24".to_owned())).secrets(Secrets::All);
    step.caches.push(Cache {
        name: "c".to_owned(),
        directory: "/c".to_owned(),
        sharing: Sharing::Locked,
    });
    for script in [
        "make",
        "cat <<X\n$A\nX",
        "[ -e x ]",
        "--x",
        "a \\",
        "FERROVIA\nb",
        "# c",
    ] {
        step.commands.push(Command::Shell(script.to_owned()));
    }
    step.commands
        .push(Command::Exec(vec!["a b".to_owned(), "$C \"d\"".to_owned()]));
    let mut deploy = Deploy::new("debian:trixie".to_owned())
        .input("build", "/etc/x", &[])
        .variables(&[("A", "\"$B\\")]);
    deploy.packages.push("libpq5".to_owned());
    let plan = Plan {
        format: ferrovia_core::plan::FORMAT,
        provider: "go".to_owned(),
        versions: vec![],
        ignore: vec![],
        steps: vec![step],
        deploy,
    };
    insta::assert_snapshot!(rendered(&plan, &[], None).dockerfile);
    let options = Options {
        bases: &BTreeMap::new(),
        cache_scope: "x",
        variables: &BTreeMap::new(),
        certificates: None,
    };
    assert_eq!(render(&plan, &options), Err(UnknownBase("go:1.24".to_owned())));
}
