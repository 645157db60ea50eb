//! Every code that a deployment or a build can end with has a page that says what to do.

use std::path::Path;

/// The codes in a source text: the first argument of `Report::new`.
fn codes(source: &str) -> Vec<&str> {
    let texts = source.split("Report::new(").skip(1);
    texts
        .filter_map(|rest| {
            rest.trim_start()
                .strip_prefix('"')?
                .split_once('"')
                .map(|(code, _)| code)
        })
        .collect()
}

#[test]
fn every_code_has_its_page() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut found = 0;
    for source in [
        "crates/ferrovia-core/src/cutover/failure.rs",
        "crates/ferrovia-core/src/cutover/attempts.rs",
        "crates/ferrovia-control/src/build/mod.rs",
        "crates/ferrovia-store/src/cutover.rs",
    ] {
        let text = std::fs::read_to_string(root.join(source)).unwrap();
        for code in codes(&text) {
            let page = root.join(format!("docs/error-codes/{code}.md"));
            assert!(page.exists(), "`{code}` of `{source}` has no page");
            found += 1;
        }
    }
    assert!(found > 10);
}
