//! Go, Rust and Java.

use super::{check, codes, detected, plan};

const MAIN: &str = "package main\n\nfunc main() {}\n";

#[test]
fn go() {
    check(
        "go_module",
        &[
            ("go.mod", "module example.com/shop/v2\n\ngo 1.24.0\n"),
            ("go.sum", ""),
            ("main.go", MAIN),
        ],
    );
    check(
        "go_without_module",
        &[
            ("main.go", MAIN),
            ("other.go", "package main"),
            ("main_test.go", "package main"),
        ],
    );
    check(
        "go_vendored",
        &[
            ("go.mod", "module x\ngo 1.22\n"),
            ("vendor/modules.txt", ""),
            ("vendor/a/main.go", MAIN),
            ("main.go", MAIN),
        ],
    );
    check(
        "go_several",
        &[
            ("go.mod", "module x\ngo 1.24\n"),
            ("cmd/web/main.go", MAIN),
            ("cmd/worker/main.go", MAIN),
            ("internal/x/x.go", "package x"),
        ],
    );
    check(
        "go_workspace",
        &[
            ("go.work", "go 1.24\nuse ./a\n"),
            ("a/go.mod", "module a\n"),
            ("a/main.go", MAIN),
            ("b/go.mod", "module b"),
            ("b/b.go", "package b"),
        ],
    );
    check("go_library", &[("go.mod", "module x\n"), ("x.go", "package x")]);
    let c = plan(&[
        ("go.mod", "module x\nrequire github.com/mattn/go-sqlite3 v1\n"),
        ("main.go", MAIN),
    ]);
    assert_eq!(c.steps[0].variables["CGO_ENABLED"], "1");
    let newer = detected(&[("go.mod", "module x\ngo 1.99\n"), ("main.go", MAIN)]).unwrap();
    assert_eq!(codes(&newer.warnings), ["go_toolchain_fetched"]);
    let processes = plan(&[
        ("go.mod", "module x\n"),
        ("cmd/web/main.go", MAIN),
        ("cmd/worker/main.go", MAIN),
        ("Procfile", "web: web\nworker: bin/worker\n"),
    ]);
    assert_eq!(processes.deploy.start.unwrap(), ["web"]);
}

#[test]
fn rust() {
    let package = "[package]\nname = \"shop\"\nedition = \"2024\"\n";
    check(
        "rust_crate",
        &[
            ("Cargo.toml", package),
            ("Cargo.lock", ""),
            ("src/main.rs", "fn main() {}"),
            ("src/lib.rs", ""),
            ("build.rs", ""),
        ],
    );
    check(
        "rust_workspace",
        &[
            (
                "Cargo.toml",
                "[workspace]\nmembers = [\"crates/*\"]\n[workspace.package]\nrust-version = \"1.80\"\n",
            ),
            ("Cargo.lock", "name = \"openssl-sys\"\n"),
            (
                "crates/api/Cargo.toml",
                "[package]\nname = \"api\"\n[[bin]]\nname = \"server\"\npath = \"src/main.rs\"\n[[bench]]\nname = \"speed\"\n",
            ),
            ("crates/api/src/main.rs", ""),
            ("crates/api/benches/speed.rs", ""),
            ("crates/lib/Cargo.toml", "[package]\nname = \"lib\"\n"),
            ("crates/lib/src/lib.rs", ""),
        ],
    );
    let several = [
        ("Cargo.toml", package),
        ("src/bin/a.rs", ""),
        ("src/bin/web/main.rs", ""),
    ];
    let detection = detected(&several).unwrap();
    assert_eq!(
        codes(&detection.warnings),
        ["several_programs", "lock_file_missing"]
    );
    assert_eq!(plan(&several).deploy.start.unwrap(), ["/app/bin/web"]);
    let default_run = "[package]\nname = \"shop\"\ndefault-run = \"a\"\n";
    assert_eq!(
        plan(&[
            ("Cargo.toml", default_run),
            ("src/bin/a.rs", ""),
            ("src/bin/web.rs", "")
        ])
        .deploy
        .start
        .unwrap(),
        ["/app/bin/a"]
    );
    check(
        "rust_too_new",
        &[
            ("Cargo.toml", "[package]\nname = \"x\"\nrust-version = \"1.99\"\n"),
            ("src/main.rs", ""),
        ],
    );
    let pinned = detected(&[
        ("Cargo.toml", package),
        ("Cargo.lock", ""),
        ("src/main.rs", ""),
        ("rust-toolchain.toml", "[toolchain]\nchannel = \"1.80.0\"\n"),
    ]);
    assert_eq!(codes(&pinned.unwrap().warnings), ["version_substituted"]);
    check(
        "rust_library",
        &[("Cargo.toml", "[package]\nname = \"x\"\n"), ("src/lib.rs", "")],
    );
    let heroku = plan(&[
        ("Cargo.toml", package),
        ("Cargo.lock", ""),
        ("src/main.rs", ""),
        ("Procfile", "web: ./target/release/shop --x\n"),
    ]);
    assert_eq!(heroku.deploy.start.unwrap(), ["bin/shop", "--x"]);
}

fn pom(inner: &str) -> String {
    format!("<?xml version=\"1.0\"?>\n<project xmlns=\"http://maven.apache.org/POM/4.0.0\">{inner}</project>")
}

fn plugin(name: &str, configuration: &str) -> String {
    pom(&format!(
        "<properties><maven.compiler.release>17</maven.compiler.release><main>x.Main</main></properties>\
         <build><plugins><plugin><artifactId>{name}</artifactId>{configuration}</plugin></plugins></build>"
    ))
}

#[test]
fn java() {
    check(
        "java_spring",
        &[
            ("pom.xml", &plugin("spring-boot-maven-plugin", "")),
            ("mvnw", ""),
            (".mvn/wrapper/maven-wrapper.properties", ""),
        ],
    );
    let main = "<configuration><archive><manifest><mainClass>${main}</mainClass></manifest></archive></configuration>";
    check(
        "java_plain",
        &[("pom.xml", &plugin("maven-jar-plugin", main)), ("mvnw", "")],
    );
    check("java_shaded", &[("pom.xml", &plugin("maven-shade-plugin", ""))]);
    check(
        "java_quarkus",
        &[("pom.xml", &plugin("quarkus-maven-plugin", ""))],
    );
    check(
        "java_modules",
        &[
            (
                "pom.xml",
                &pom("<packaging>pom</packaging><modules><module>lib</module><module>web</module></modules>"),
            ),
            ("lib/pom.xml", &pom("")),
            ("web/pom.xml", &pom("")),
            (
                "web/src/main/java/shop/Main.java",
                "class Main { public static void main(String[] a) {} }",
            ),
        ],
    );
    check("java_war", &[("pom.xml", &pom("<packaging>war</packaging>"))]);
    check("java_library", &[("pom.xml", &pom(""))]);
    check(
        "java_too_new",
        &[
            ("pom.xml", &plugin("spring-boot-maven-plugin", "")),
            ("system.properties", "java.runtime.version=99"),
        ],
    );
}
