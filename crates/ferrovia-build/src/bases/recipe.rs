//! A recipe as a Dockerfile, and the hash that says whether a base was made from it. Pure.

use std::collections::BTreeSet;

use ferrovia_core::bases::{self, Base, Recipe};

use crate::certificates::{SECRET_ID, SECRET_PATH, VARIABLES};
use crate::digest::Digest;

/// Grows when the same recipe gives another image.
const FORMAT: u32 = 2;

/// The stage of which only a path is taken.
pub(super) fn copy_stage(place: usize) -> String {
    format!("copied-{place}")
}

/// The Dockerfile of a recipe; the images of the parent and of what is copied are given as they are to be named.
pub(super) fn dockerfile(recipe: &Recipe, parent: &str, copied: &[String]) -> String {
    let mut text = String::new();
    let mut line = |line: String| {
        text.push_str(&line);
        text.push('\n');
    };
    for (place, image) in copied.iter().enumerate() {
        line(format!("FROM {image} AS {}", copy_stage(place)));
    }
    line(format!("FROM {parent}"));
    let certificates: String = VARIABLES
        .iter()
        .map(|name| format!("export {name}={SECRET_PATH}; "))
        .collect();
    let run = |command: &str| {
        // Without the secret the file is not there, and nothing must point to it.
        format!(
            "RUN --mount=type=secret,id={SECRET_ID},target={SECRET_PATH} \
             if [ -e {SECRET_PATH} ]; then {certificates}fi; {command}"
        )
    };
    if !recipe.packages.is_empty() {
        let packages = recipe.packages.join(" ");
        line(run(&format!(
            "export DEBIAN_FRONTEND=noninteractive && apt-get update && \
             apt-get -o Dpkg::Options::=--force-unsafe-io install -y --no-install-recommends {packages} && \
             rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/apt/archives/*.deb /var/log/apt /var/log/dpkg.log"
        )));
    }
    for (place, copy) in recipe.copies.iter().enumerate() {
        line(format!("COPY --from={} {1} {1}", copy_stage(place), copy.path));
    }
    for command in recipe.commands {
        line(run(&format!("set -e; {command}; rm -rf /root/.npm /root/.cache")));
    }
    for (name, value) in recipe.variables {
        line(format!("ENV {name}=\"{value}\""));
    }
    text
}

/// Stands for everything that a base is made of, its ancestors included.
pub fn recipe_hash(base: &Base) -> Digest {
    let mut seen = BTreeSet::new();
    let mut text = format!("{FORMAT}\n");
    describe(base, &mut seen, &mut text);
    Digest::of(text.as_bytes())
}

fn describe(base: &Base, seen: &mut BTreeSet<String>, text: &mut String) {
    if !seen.insert(base.key()) {
        return;
    }
    text.push_str(&format!("{} {:?}\n", base.key(), base.recipe));
    let Some(recipe) = base.recipe else { return };
    let copied = recipe.copies.iter().map(|copy| copy.from);
    for ancestor in recipe.parent.into_iter().chain(copied).filter_map(bases::find) {
        describe(ancestor, seen, text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipe_becomes_a_dockerfile() {
        let base = bases::find("node-runtime:22").unwrap();
        let text = dockerfile(
            &base.recipe.unwrap(),
            "parent@sha256:0",
            &["node@sha256:1".to_owned()],
        );
        insta::assert_snapshot!(text);
        let base = bases::find("node:22").unwrap();
        insta::assert_snapshot!(dockerfile(&base.recipe.unwrap(), "parent@sha256:0", &[]));
    }

    #[test]
    fn the_hash_follows_ancestors() {
        let (debian, node) = (
            bases::find("debian:trixie").unwrap(),
            bases::find("node:20").unwrap(),
        );
        assert_ne!(recipe_hash(debian), recipe_hash(node));
        let mut changed = *node;
        changed.recipe.as_mut().unwrap().commands = &[];
        assert_ne!(recipe_hash(&changed), recipe_hash(node));
    }
}
