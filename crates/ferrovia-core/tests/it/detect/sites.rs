//! Static sites and trees with a `Procfile` alone.

use super::{check, detected, plan};

#[test]
fn sites() {
    check("static_root", &[("index.html", "x"), ("style.css", "x")]);
    check("static_public", &[("public/index.html", "x"), ("README.md", "x")]);
    check(
        "static_staticfile",
        &[
            ("Staticfile", "root: ./out/\nindex_fallback: true # spa\n"),
            ("out/index.html", "x"),
        ],
    );
    let dist = plan(&[("dist/index.html", "x")]);
    assert_eq!(dist.deploy.inputs[0].from, "/app/dist");
}

#[test]
fn the_configuration_knows_the_fallback() {
    let configuration = |tree: super::Tree<'_>| plan(tree).deploy.files[0].content.clone();
    assert!(configuration(&[("index.html", "x")]).contains("try_files $uri $uri/ $uri.html =404;"));
    let spa = configuration(&[("Staticfile", "pushstate: enabled"), ("index.html", "x")]);
    assert!(spa.contains("$uri.html /index.html;"));
}

#[test]
fn a_procfile_alone_runs_on_debian() {
    check(
        "procfile",
        &[
            ("Procfile", "web: ./serve.sh $PORT\nworker: sh work.sh # later\n"),
            ("serve.sh", "#!/bin/sh"),
            ("work.sh", ""),
        ],
    );
    assert_eq!(
        detected(&[("Procfile", "release: ./x")]).unwrap_err().report.code,
        "nothing_detected"
    );
}
