//! Compares what the kernel lists with what was loaded.
//!
//! Elements are compared with the wanted ones. Rules are not rendered a second time in the listing's words: the
//! listing right after a load is the standard that later ones are held against.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// A table as it is listed, without handles and counters.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listed {
    /// Rules by chain, each as normalised JSON; the chain's own hook first.
    pub chains: BTreeMap<String, Vec<String>>,
    /// Elements by set or map, as `nft` writes them.
    pub sets: BTreeMap<String, BTreeSet<String>>,
}

impl Listed {
    /// Reads the JSON of `nft -j list table`.
    pub fn new(listing: &Value) -> Self {
        let mut listed = Self::default();
        for object in listing["nftables"].as_array().into_iter().flatten() {
            if let Some(chain) = object.get("chain") {
                let head = format!(
                    "{} {} {} {}",
                    chain["type"], chain["hook"], chain["prio"], chain["policy"]
                );
                listed
                    .chains
                    .entry(text(&chain["name"]))
                    .or_default()
                    .insert(0, head);
            } else if let Some(rule) = object.get("rule") {
                let mut expression = rule["expr"].clone();
                strip_counters(&mut expression);
                listed
                    .chains
                    .entry(text(&rule["chain"]))
                    .or_default()
                    .push(expression.to_string());
            } else if let Some(set) = object.get("set").or_else(|| object.get("map")) {
                let elements = set["elem"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(element)
                    .collect();
                listed.sets.insert(text(&set["name"]), elements);
            }
        }
        listed
    }

    /// Whether the table holds what `standard` held after the load, and these elements.
    pub fn is_as_loaded(&self, standard: &Self, elements: &BTreeMap<&str, &BTreeSet<String>>) -> bool {
        self.chains == standard.chains
            && elements.iter().all(|(name, wanted)| {
                let found = self.sets.get(*name);
                found.map_or(wanted.is_empty(), |found| found == *wanted)
            })
            && standard
                .sets
                .iter()
                .filter(|(name, _)| !elements.contains_key(name.as_str()))
                .all(|(name, elements)| self.sets.get(name) == Some(elements))
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Counters count; everything else of a rule stays.
fn strip_counters(value: &mut Value) {
    match value {
        Value::Array(items) => {
            items.retain(|item| item.get("counter").is_none());
            items.iter_mut().for_each(strip_counters);
        }
        Value::Object(fields) => fields.values_mut().for_each(strip_counters),
        _ => {}
    }
}

/// An element in the words of the rules' text: `a`, `a . b`, `a : b`, `a : goto chain`.
fn element(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(pair) => pair.iter().map(element).collect::<Vec<_>>().join(" : "),
        Value::Object(fields) => {
            if let Some(parts) = fields.get("concat").and_then(Value::as_array) {
                return parts.iter().map(element).collect::<Vec<_>>().join(" . ");
            }
            if let Some(target) = fields.get("goto") {
                return format!("goto {}", text(&target["target"]));
            }
            if let Some(inner) = fields.get("elem") {
                return element(&inner["val"]);
            }
            value.to_string()
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn elements_are_read_in_the_words_of_the_rules() {
        for (listed, wanted) in [
            (json!("fv0"), "fv0"),
            (json!({ "concat": ["10.0.0.1", 7] }), "10.0.0.1 . 7"),
            (json!(["10.0.0.1", 7]), "10.0.0.1 : 7"),
            (
                json!(["10.1.0.1", { "goto": { "target": "service_10_1_0_1" } }]),
                "10.1.0.1 : goto service_10_1_0_1",
            ),
        ] {
            assert_eq!(element(&listed), wanted);
        }
    }

    #[test]
    fn counters_do_not_count_and_rules_do() {
        let listing = |packets: u64, drop: &str| {
            Listed::new(&json!({ "nftables": [
                { "chain": { "name": "same", "handle": packets } },
                { "rule": { "chain": "same", "handle": packets, "expr": [{ "counter": { "packets": packets } }, { drop: null }] } },
                { "set": { "name": "members", "elem": ["a"] } },
            ] }))
        };
        let standard = listing(1, "drop");
        let elements: BTreeSet<String> = ["a".to_owned()].into();
        let wanted = BTreeMap::from([("members", &elements)]);
        assert!(listing(9, "drop").is_as_loaded(&standard, &wanted));
        assert!(!listing(9, "accept").is_as_loaded(&standard, &wanted));
        let other: BTreeSet<String> = ["b".to_owned()].into();
        assert!(!listing(9, "drop").is_as_loaded(&standard, &BTreeMap::from([("members", &other)])));
    }
}
