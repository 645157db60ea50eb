//! How bases stand, for `doctor`: read from what is kept, so that it can be told while control is dead.

use std::path::Path;

use ferrovia_core::bases::{BASES, Origin};
use jiff::Timestamp;

use super::official::LookedUp;
use super::{Made, file_name, origin, recipe_hash};

/// How bases stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Where they come from; `None` before the first build.
    pub origin: Option<Origin>,
    /// Those that were fetched or made.
    pub bases: Vec<BaseStanding>,
}

/// How one base stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseStanding {
    /// Its key: `node:20`.
    pub key: String,
    /// Its digest.
    pub digest: String,
    /// When it was looked up or made.
    pub at: Timestamp,
    /// Whether the platform would make it otherwise today: the next build makes it anew.
    pub outdated: bool,
}

/// Digests of every base that is in use, of either origin.
pub(super) fn everything(data_directory: &Path) -> Vec<String> {
    let read = |name: String| std::fs::read(data_directory.join(name)).unwrap_or_default();
    let mut digests = Vec::new();
    for base in BASES {
        let looked_up = read(format!("official-{}.json", file_name(base)));
        digests.extend(serde_json::from_slice(&looked_up).map(|known: LookedUp| known.digest.to_string()));
        let made = read(format!("{}.json", file_name(base)));
        digests.extend(serde_json::from_slice(&made).map(|made: Made| made.digest.to_string()));
    }
    digests
}

/// How the bases in a data directory stand. What cannot be read is left out.
pub fn standing(data_directory: &Path) -> Standing {
    let origin = origin::read(data_directory).map(origin::Decided::origin);
    let read = |name: String| std::fs::read(data_directory.join(name)).ok();
    let bases = BASES.iter().filter_map(|base| {
        let (digest, at, outdated) = if origin == Some(Origin::Official) {
            let bytes = read(format!("official-{}.json", file_name(base)))?;
            let known: LookedUp = serde_json::from_slice(&bytes).ok()?;
            (known.digest, known.at, known.image != base.official)
        } else {
            let made: Made = serde_json::from_slice(&read(format!("{}.json", file_name(base)))?).ok()?;
            (made.digest, made.made_at, made.recipe != recipe_hash(base))
        };
        Some(BaseStanding {
            key: base.key(),
            digest: digest.to_string(),
            at,
            outdated,
        })
    });
    Standing {
        origin,
        bases: bases.collect(),
    }
}
