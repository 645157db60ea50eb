//! Every code that is told to people has a page that says what to do.

use std::fs;
use std::path::Path;

#[test]
fn every_code_has_its_page() {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = 0;
    for source in ["src/embedded/error.rs", "src/seal/mod.rs"] {
        let text = fs::read_to_string(own.join(source)).unwrap();
        let is_code = |text: &&str| {
            let family = ["postgres_", "master_key_", "secret_", "sealing_"];
            family.iter().any(|family| text.starts_with(family)) && !text.contains(' ')
        };
        for code in text.split('"').filter(is_code) {
            let page = own.join(format!("../../docs/error-codes/{code}.md"));
            assert!(page.exists(), "`{code}` of `{source}` has no page");
            found += 1;
        }
    }
    assert!(found >= 20, "{found} codes");
}
