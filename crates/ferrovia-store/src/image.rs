//! Images in the platform's registry, and how they end.
//!
//! Clean-up first condemns an image in a transaction that proves that nothing refers to it, then deletes its blobs,
//! then its row. Whoever wants to run an image takes its row `FOR SHARE` and refuses a condemned one: so an image is
//! never deleted under a deployment, whichever of the two comes first.

use ferrovia_core::plan::PORT_LABEL;
use ferrovia_core::settings::PortSetting;
use ferrovia_core::workload::ImageReference;
use serde_json::Value;

use crate::{Conn, Error, Tx};

/// An image.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// Where it is.
    pub reference: ImageReference,
    /// Sum of its layers, compressed, in bytes.
    pub size_bytes: i64,
    /// Its OCI configuration.
    pub config: Value,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: i64,
    /// When it was condemned, in milliseconds since 1970.
    pub condemned_ms: Option<i64>,
}

/// Notes an image that the registry holds.
///
/// # Errors
/// [`Error::Taken`] when it is condemned: its deletion is on its way, and it must be made again after that.
pub async fn ensure(tx: &mut Tx, image: &Image) -> Result<(), Error> {
    let Image {
        reference,
        size_bytes,
        config,
        created_ms,
        condemned_ms: _,
    } = image;
    sqlx::query!(
        "INSERT INTO image (repository, digest, size_bytes, config, created_ms) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (repository, digest) DO NOTHING",
        reference.repository,
        reference.digest,
        size_bytes,
        config,
        created_ms
    )
    .execute(&mut **tx)
    .await?;
    if hold(tx, reference).await? {
        Ok(())
    } else {
        Err(Error::Taken {
            what: "image",
            key: reference.to_string(),
        })
    }
}

/// Keeps an image from being condemned until the transaction ends. Whether it may be used.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn hold(tx: &mut Tx, image: &ImageReference) -> Result<bool, Error> {
    let found = sqlx::query_scalar!(
        r#"SELECT condemned_ms IS NULL AS "usable!" FROM image WHERE repository = $1 AND digest = $2 FOR SHARE"#,
        image.repository,
        image.digest
    )
    .fetch_optional(&mut **tx)
    .await?;
    Ok(found.unwrap_or(false))
}

/// An image by its reference.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn find(conn: &mut Conn, image: &ImageReference) -> Result<Option<Image>, Error> {
    let row = sqlx::query!(
        "SELECT size_bytes, config, created_ms, condemned_ms FROM image WHERE repository = $1 AND digest = $2",
        image.repository,
        image.digest
    )
    .fetch_optional(&mut *conn)
    .await?;
    Ok(row.map(|row| Image {
        reference: image.clone(),
        size_bytes: row.size_bytes,
        config: row.config,
        created_ms: row.created_ms,
        condemned_ms: row.condemned_ms,
    }))
}

/// Condemns at most `limit` images that nothing refers to, and gives them. An image is referred to while it is of
/// an instance's target, of a deployment that has not ended, of a deployment that has a replica, of one of the `keep`
/// newest successes of a living instance (for rollbacks), or of a build that is younger than `older_than_ms`.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn condemn(
    tx: &mut Tx,
    now_ms: i64,
    older_than_ms: i64,
    keep: u32,
    limit: u32,
) -> Result<Vec<ImageReference>, Error> {
    // The rows are locked one by one and looked at again under the lock: whoever held one meanwhile is seen.
    let candidates = sqlx::query!(
        "SELECT repository, digest FROM image
         WHERE condemned_ms IS NULL AND created_ms < $1
         ORDER BY created_ms FOR UPDATE SKIP LOCKED",
        older_than_ms
    )
    .fetch_all(&mut **tx)
    .await?;
    let mut condemned = Vec::new();
    for candidate in candidates {
        if condemned.len() >= limit as usize {
            break;
        }
        let ended = sqlx::query!(
            r#"UPDATE image SET condemned_ms = $3 WHERE repository = $1 AND digest = $2 AND NOT EXISTS (
                   SELECT FROM build JOIN deployment ON deployment.build_id = build.id
                   JOIN instance ON instance.id = deployment.instance_id
                   LEFT JOIN intent ON intent.instance_id = instance.id
                   WHERE build.repository = $1 AND build.digest = $2 AND (
                       intent.target_deployment = deployment.id
                       OR deployment.outcome IN ('queued', 'building', 'deploying')
                       OR EXISTS (SELECT FROM replica WHERE replica.deployment_id = deployment.id)
                       OR instance.deleted_ms IS NULL AND deployment.outcome = 'succeeded' AND (
                           SELECT count(*) FROM deployment AS newer
                           WHERE newer.instance_id = deployment.instance_id AND newer.outcome = 'succeeded'
                             AND newer.number > deployment.number) < $4))
               AND NOT EXISTS (
                   SELECT FROM build WHERE build.repository = $1 AND build.digest = $2 AND build.created_ms >= $5)"#,
            candidate.repository,
            candidate.digest,
            now_ms,
            i64::from(keep),
            older_than_ms
        )
        .execute(&mut **tx)
        .await?;
        if ended.rows_affected() == 1 {
            condemned.push(ImageReference {
                repository: candidate.repository,
                digest: candidate.digest,
            });
        }
    }
    Ok(condemned)
}

/// The images that are condemned and still have a row: their deletion is due or was cut short.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn condemned(conn: &mut Conn, limit: u32) -> Result<Vec<ImageReference>, Error> {
    let rows = sqlx::query!(
        "SELECT repository, digest FROM image WHERE condemned_ms IS NOT NULL ORDER BY condemned_ms LIMIT $1",
        i64::from(limit)
    )
    .fetch_all(&mut *conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| ImageReference {
            repository: row.repository,
            digest: row.digest,
        })
        .collect())
}

/// Whether the platform knows an image and has not condemned it.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn is_usable(conn: &mut Conn, image: &ImageReference) -> Result<bool, Error> {
    let found = sqlx::query_scalar!(
        r#"SELECT condemned_ms IS NULL AS "usable!" FROM image WHERE repository = $1 AND digest = $2"#,
        image.repository,
        image.digest
    )
    .fetch_optional(&mut *conn)
    .await?;
    Ok(found.unwrap_or(false))
}

/// Takes the row of a condemned image away once its blobs are gone. Builds forget it.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn remove(tx: &mut Tx, image: &ImageReference) -> Result<(), Error> {
    sqlx::query!(
        "UPDATE build SET repository = NULL, digest = NULL WHERE repository = $1 AND digest = $2",
        image.repository,
        image.digest
    )
    .execute(&mut **tx)
    .await?;
    sqlx::query!(
        "DELETE FROM image WHERE repository = $1 AND digest = $2 AND condemned_ms IS NOT NULL",
        image.repository,
        image.digest
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Where an application of this image listens, by its OCI configuration: nowhere if the image's label says so and no
/// setting says where.
pub fn port(config: &Value, setting: PortSetting) -> Option<u16> {
    let says_none = config
        .get("Labels")
        .and_then(|labels| labels.get(PORT_LABEL))
        .is_some_and(|label| label == "none");
    match setting {
        PortSetting::Auto if says_none => None,
        setting => setting.resolve(&exposed_ports(config)),
    }
}

/// The TCP ports in an OCI image's configuration: `{"ExposedPorts": {"8080/tcp": {}}}`.
fn exposed_ports(config: &Value) -> Vec<u16> {
    let Some(ports) = config.get("ExposedPorts").and_then(Value::as_object) else {
        return Vec::new();
    };
    ports
        .keys()
        .filter_map(|key| match key.split_once('/') {
            Some((port, "tcp")) => port.parse().ok(),
            Some(_) => None,
            None => key.parse().ok(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_tcp_ports_count() {
        let config = json!({"ExposedPorts": {"8080/tcp": {}, "53/udp": {}, "3000": {}}});
        let mut ports = exposed_ports(&config);
        ports.sort_unstable();
        assert_eq!(ports, [3000, 8080]);
        assert!(exposed_ports(&json!({})).is_empty());
    }

    #[test]
    fn a_worker_listens_nowhere_unless_a_setting_says_where() {
        let worker = json!({"Labels": {"ferrovia.port": "none"}, "ExposedPorts": {"8080/tcp": {}}});
        assert_eq!(port(&worker, PortSetting::Auto), None);
        assert_eq!(port(&worker, PortSetting::Number(3000)), Some(3000));
        let other = json!({"Labels": {"a": "none"}});
        assert_eq!(port(&other, PortSetting::Auto), Some(8080));
        assert_eq!(port(&other, PortSetting::None), None);
    }
}
