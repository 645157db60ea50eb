//! The variables snapshot of a deployment or a build, as it is before sealing: a JSON array of `[key, value]` pairs.
//!
//! Pairs and not an object, so that the order is kept and a key that is there twice is an error that can be seen.

use ferrovia_core::secret::Secret;

/// A snapshot that cannot be read: a mistake in Ferrovia, or the wrong key.
#[derive(Debug, thiserror::Error)]
#[error("the variables snapshot is not an array of pairs of texts")]
pub struct SnapshotError;

/// The snapshot of these variables, in clear: seal it at once.
pub fn encode(variables: &[(String, Secret)]) -> Secret {
    let pairs: Vec<(&str, &str)> = variables
        .iter()
        .map(|(key, value)| (key.as_str(), value.expose()))
        .collect();
    Secret::new(
        serde_json::Value::from_iter(pairs.into_iter().map(|(key, value)| vec![key, value])).to_string(),
    )
}

/// The variables of a snapshot.
///
/// # Errors
/// [`SnapshotError`] when it is not what [`encode`] makes; the text itself is never told.
pub fn decode(snapshot: &Secret) -> Result<Vec<(String, Secret)>, SnapshotError> {
    let pairs: Vec<(String, String)> = serde_json::from_str(snapshot.expose()).map_err(|_| SnapshotError)?;
    Ok(pairs
        .into_iter()
        .map(|(key, value)| (key, Secret::new(value)))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_byte_for_byte() {
        let variables = vec![
            ("A".to_owned(), Secret::new("$HOME \"quoted\"\n\u{1f980} \\")),
            ("B".to_owned(), Secret::new("x".repeat(100_000))),
            ("EMPTY".to_owned(), Secret::new("")),
        ];
        assert_eq!(decode(&encode(&variables)).unwrap(), variables);
        assert!(decode(&Secret::new("{}")).is_err());
    }
}
