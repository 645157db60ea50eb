//! References between variables, and resolving them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::name::Name;
use crate::secret::Secret;

use super::{Key, MAX_ENTRY_BYTES, MAX_TOTAL_BYTES};

/// Most references in a row, one leading to the next.
pub const MAX_DEPTH: usize = 64;

const OPEN: &str = "${{";
const CLOSE: &str = "}}";

/// What stands between `${{` and `}}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reference {
    /// A shared variable of the environment.
    Shared(Key),
    /// A variable of another service in the environment.
    Service(Name, Key),
    /// A variable of the same service (or, in a shared variable, of the environment).
    Own(Key),
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shared(key) => write!(f, "${{{{shared.{key}}}}}"),
            Self::Service(service, key) => write!(f, "${{{{{service}.{key}}}}}"),
            Self::Own(key) => write!(f, "${{{{{key}}}}}"),
        }
    }
}

impl Reference {
    /// The reference that a text between the braces is; `None` when it is none and thus literal.
    fn from_inner(inner: &str) -> Option<Self> {
        let inner = inner.trim_matches(' ');
        let Some((scope, key)) = inner.split_once('.') else {
            return inner.parse().ok().map(Self::Own);
        };
        let key = key.parse().ok()?;
        if scope == "shared" {
            return Some(Self::Shared(key));
        }
        // Names are lower case; applications written for Railway say `${{Postgres.PGHOST}}`.
        let service = scope.to_ascii_lowercase().parse().ok()?;
        Some(Self::Service(service, key))
    }
}

/// A piece of a value.
#[derive(Debug, PartialEq, Eq)]
enum Part<'a> {
    Literal(&'a str),
    /// A reference, and how it is written.
    Reference(Reference, &'a str),
}

fn parts(value: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let (mut literal_from, mut at) = (0, 0);
    while let Some(open) = value[at..].find(OPEN).map(|offset| at + offset) {
        let inner_from = open + OPEN.len();
        let Some(close) = value[inner_from..].find(CLOSE).map(|offset| inner_from + offset) else {
            break;
        };
        match Reference::from_inner(&value[inner_from..close]) {
            Some(reference) => {
                if literal_from < open {
                    parts.push(Part::Literal(&value[literal_from..open]));
                }
                at = close + CLOSE.len();
                parts.push(Part::Reference(reference, &value[open..at]));
                literal_from = at;
            }
            // `${{ ${{KEY}}` has a reference inside what is none.
            None => at = inner_from,
        }
    }
    if literal_from < value.len() {
        parts.push(Part::Literal(&value[literal_from..]));
    }
    parts
}

/// The references in a value, in order.
pub fn references(value: &str) -> Vec<Reference> {
    parts(value)
        .into_iter()
        .filter_map(|part| match part {
            Part::Reference(reference, _) => Some(reference),
            Part::Literal(_) => None,
        })
        .collect()
}

/// The variables of one environment, as they were given.
#[derive(Debug, Clone, Default)]
pub struct Universe {
    /// Shared ones.
    pub shared: BTreeMap<Key, Secret>,
    /// Those of each service, the ones that the platform gives included.
    pub services: BTreeMap<Name, BTreeMap<Key, Secret>>,
}

/// Whose variable: one of a service, or a shared one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The service; `None` for shared variables.
    pub service: Option<Name>,
    /// The key.
    pub key: Key,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.service {
            Some(service) => write!(f, "{service}.{}", self.key),
            None => write!(f, "shared.{}", self.key),
        }
    }
}

/// Why the variables of a service cannot be resolved. Names places, never values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// A reference leads nowhere.
    #[error("`{place}` refers to `{written}`, which does not exist")]
    Unresolved {
        /// The variable that holds the reference.
        place: Place,
        /// The reference.
        reference: Reference,
        /// The same as somebody wrote it.
        written: String,
    },
    /// References lead in a circle.
    #[error("`{}` refers to itself through `{}`", path[0], join(path))]
    Cycle {
        /// The variables on the circle, each referring to the next, the last to the first.
        path: Vec<Place>,
    },
    /// More than [`MAX_DEPTH`] references in a row.
    #[error("`{place}` is more than {MAX_DEPTH} references away from where it is used")]
    TooDeep {
        /// The variable at that depth.
        place: Place,
    },
    /// Longer than Linux takes.
    #[error("`{place}` has more than {MAX_ENTRY_BYTES} bytes once its references are filled in")]
    TooLong {
        /// The variable.
        place: Place,
    },
    /// Together longer than Linux takes.
    #[error(
        "the variables of `{service}` have {bytes} bytes together, at most {MAX_TOTAL_BYTES} are possible"
    )]
    TotalTooLong {
        /// The service.
        service: Name,
        /// All keys and values, in bytes.
        bytes: usize,
    },
}

fn join(path: &[Place]) -> String {
    let words: Vec<String> = path.iter().map(Place::to_string).collect();
    words.join("` -> `")
}

/// The variables of one service with every reference filled in.
///
/// # Errors
/// [`ResolveError`] for the first variable, in order of keys, that cannot be resolved. Variables of other services
/// are looked at only where they are referred to.
pub fn resolve(universe: &Universe, service: &Name) -> Result<BTreeMap<Key, Secret>, ResolveError> {
    let mut resolver = Resolver {
        universe,
        done: BTreeMap::new(),
        path: Vec::new(),
        on_path: BTreeSet::new(),
    };
    let mut resolved = BTreeMap::new();
    let mut bytes = 0;
    for key in universe
        .services
        .get(service)
        .into_iter()
        .flatten()
        .map(|(key, _)| key)
    {
        let place = Place {
            service: Some(service.clone()),
            key: key.clone(),
        };
        let value = resolver.value(&place)?;
        bytes += key.as_str().len() + value.expose().len() + 2;
        resolved.insert(key.clone(), value);
    }
    if bytes > MAX_TOTAL_BYTES {
        let service = service.clone();
        return Err(ResolveError::TotalTooLong { service, bytes });
    }
    Ok(resolved)
}

struct Resolver<'a> {
    universe: &'a Universe,
    /// Each variable is resolved once, so that doubling references cost no more than their length.
    done: BTreeMap<Place, Secret>,
    path: Vec<Place>,
    on_path: BTreeSet<Place>,
}

impl Resolver<'_> {
    fn raw(&self, place: &Place) -> Option<&Secret> {
        match &place.service {
            Some(service) => self.universe.services.get(service)?.get(&place.key),
            None => self.universe.shared.get(&place.key),
        }
    }

    /// The value of a place that exists.
    fn value(&mut self, place: &Place) -> Result<Secret, ResolveError> {
        if let Some(value) = self.done.get(place) {
            return Ok(value.clone());
        }
        if self.on_path.contains(place) {
            let from = self.path.iter().position(|on_path| on_path == place).unwrap_or(0);
            let path = self.path[from..].to_vec();
            return Err(ResolveError::Cycle { path });
        }
        if self.path.len() > MAX_DEPTH {
            let place = place.clone();
            return Err(ResolveError::TooDeep { place });
        }
        let raw = self.raw(place).cloned().unwrap_or_else(|| Secret::new(""));
        self.path.push(place.clone());
        self.on_path.insert(place.clone());
        let value = self.filled(place, &raw);
        self.path.pop();
        self.on_path.remove(place);
        let value = value?;
        self.done.insert(place.clone(), value.clone());
        Ok(value)
    }

    fn filled(&mut self, place: &Place, raw: &Secret) -> Result<Secret, ResolveError> {
        let mut text = zeroize::Zeroizing::new(String::with_capacity(raw.expose().len()));
        for part in parts(raw.expose()) {
            match part {
                Part::Literal(literal) => text.push_str(literal),
                Part::Reference(reference, written) => {
                    let target = target_of(place, &reference);
                    if self.raw(&target).is_none() {
                        let place = place.clone();
                        let written = written.to_owned();
                        return Err(ResolveError::Unresolved {
                            place,
                            reference,
                            written,
                        });
                    }
                    text.push_str(self.value(&target)?.expose());
                }
            }
            if place.key.as_str().len() + 1 + text.len() > MAX_ENTRY_BYTES {
                let place = place.clone();
                return Err(ResolveError::TooLong { place });
            }
        }
        Ok(Secret::new(text.as_str()))
    }
}

fn target_of(place: &Place, reference: &Reference) -> Place {
    let (service, key) = match reference {
        Reference::Shared(key) => (None, key),
        Reference::Service(service, key) => (Some(service.clone()), key),
        Reference::Own(key) => (place.service.clone(), key),
    };
    let key = key.clone();
    Place { service, key }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(text: &str) -> Key {
        text.parse().unwrap()
    }

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn variables(pairs: &[(&str, &str)]) -> BTreeMap<Key, Secret> {
        pairs.iter().map(|(k, v)| (key(k), Secret::new(*v))).collect()
    }

    fn universe(shared: &[(&str, &str)], services: &[(&str, &[(&str, &str)])]) -> Universe {
        Universe {
            shared: variables(shared),
            services: services.iter().map(|(s, v)| (name(s), variables(v))).collect(),
        }
    }

    #[test]
    fn the_three_forms() {
        let universe = universe(
            &[("REGION", "eu"), ("SELF", "<${{REGION}}>")],
            &[
                (
                    "web",
                    &[
                        ("A", "${{ B }}-${{shared.SELF}}"),
                        ("B", "b"),
                        ("URL", "postgres://${{Db.USER}}@h"),
                    ],
                ),
                ("db", &[("USER", "u${{shared.REGION}}")]),
            ],
        );
        let resolved = resolve(&universe, &name("web")).unwrap();
        assert_eq!(resolved[&key("A")].expose(), "b-<eu>");
        assert_eq!(resolved[&key("URL")].expose(), "postgres://ueu@h");
    }

    #[test]
    fn what_is_no_reference_is_literal() {
        for text in [
            "${{",
            "${{}}",
            "${{ secret(32) }}",
            "${{a.b.c}}",
            "${A} $A $$",
            "}}${{",
            "${{9}}",
            "${{\nA}}",
            "{{A}}",
        ] {
            assert_eq!(references(text), vec![], "{text}");
            let universe = universe(&[], &[("web", &[("A", text)])]);
            assert_eq!(
                resolve(&universe, &name("web")).unwrap()[&key("A")].expose(),
                text
            );
        }
        assert_eq!(references("${{ ${{A}}"), vec![Reference::Own(key("A"))]);
    }

    #[test]
    fn a_reference_that_leads_nowhere_is_named() {
        let universe = universe(&[], &[("web", &[("A", "x${{Db.URL}}")])]);
        let error = resolve(&universe, &name("web")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`web.A` refers to `${{Db.URL}}`, which does not exist"
        );
    }

    #[test]
    fn circles_are_found_and_named() {
        let universe = universe(
            &[],
            &[
                ("web", &[("A", "${{api.B}}")]),
                ("api", &[("B", "${{C}}"), ("C", "${{web.A}}")]),
            ],
        );
        let error = resolve(&universe, &name("web")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`web.A` refers to itself through `web.A` -> `api.B` -> `api.C`"
        );
    }

    #[test]
    fn doubling_references_end_at_the_bound() {
        let mut own = variables(&[("K0", "0123456789")]);
        for n in 1..60 {
            let previous = format!("${{{{K{}}}}}", n - 1);
            own.insert(key(&format!("K{n}")), Secret::new(previous.repeat(2)));
        }
        let mut universe = Universe::default();
        universe.services.insert(name("web"), own);
        assert!(matches!(
            resolve(&universe, &name("web")),
            Err(ResolveError::TooLong { .. })
        ));
    }

    #[test]
    fn long_chains_end_at_the_bound() {
        let mut own = variables(&[("K00000", "x")]);
        for n in 1..5_000 {
            own.insert(
                key(&format!("K{:05}", 5_000 - n)),
                Secret::new(format!("${{{{K{:05}}}}}", 5_000 - n + 1)),
            );
        }
        own.insert(key("K05000"), Secret::new("end"));
        let mut universe = Universe::default();
        universe.services.insert(name("web"), own);
        assert!(matches!(
            resolve(&universe, &name("web")),
            Err(ResolveError::TooDeep { .. })
        ));
    }

    proptest! {
        #[test]
        fn literal_values_arrive_byte_for_byte(value in "[^\0]{0,200}") {
            prop_assume!(references(&value).is_empty());
            let universe = universe(&[], &[("web", &[("A", value.as_str())])]);
            let resolved = resolve(&universe, &name("web")).unwrap();
            prop_assert_eq!(resolved[&key("A")].expose(), value.as_str());
        }

        #[test]
        fn text_around_a_reference_stays(before in "[^\0${]{0,40}", value in "[^\0$]{0,40}", after in "[^\0]{0,40}") {
            prop_assume!(references(&after).is_empty());
            let text = format!("{before}${{{{B}}}}{after}");
            let universe = universe(&[], &[("web", &[("A", text.as_str()), ("B", value.as_str())])]);
            let resolved = resolve(&universe, &name("web")).unwrap();
            prop_assert_eq!(resolved[&key("A")].expose(), format!("{before}{value}{after}"));
        }

        /// Whatever refers to whatever: it ends, and with every reference filled in or with an error.
        #[test]
        fn any_graph_ends(edges in proptest::collection::vec((0_usize..8, 0_usize..9), 0..20)) {
            let mut own: BTreeMap<Key, String> = (0..8).map(|n| (key(&format!("K{n}")), format!("v{n};"))).collect();
            for (from, to) in &edges {
                own.entry(key(&format!("K{from}"))).or_default().push_str(&format!("${{{{K{to}}}}}"));
            }
            let mut universe = Universe::default();
            universe.services.insert(name("web"), own.into_iter().map(|(k, v)| (k, Secret::new(v))).collect());
            match resolve(&universe, &name("web")) {
                Ok(resolved) => prop_assert!(resolved.values().all(|value| references(value.expose()).is_empty())),
                Err(ResolveError::Cycle { path }) => {
                    let numbers: Vec<usize> = path.iter().map(|p| p.key.as_str()[1..].parse().unwrap()).collect();
                    for (n, from) in numbers.iter().enumerate() {
                        let to = numbers[(n + 1) % numbers.len()];
                        prop_assert!(edges.contains(&(*from, to)));
                    }
                }
                Err(ResolveError::Unresolved { reference, .. }) => {
                    prop_assert_eq!(reference, Reference::Own(key("K8")));
                }
                Err(other) => prop_assert!(false, "{other}"),
            }
        }
    }
}
