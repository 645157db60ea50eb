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

/// What an image that nothing runs is kept for.
#[derive(Debug, Clone, Copy)]
pub struct Kept {
    /// Images that were made since then, or are of a build that was, in milliseconds since 1970: who made one may just
    /// be about to use it.
    pub made_since_ms: i64,
    /// Of instances that were deleted since then, in milliseconds since 1970: they can be brought back.
    pub deleted_since_ms: i64,
    /// How many of an instance's newest successes, for rollbacks.
    pub successes: u32,
}

/// Condemns at most `limit` images that nothing refers to, the oldest first, and gives them. An image is referred to
/// while it is of a deployment that has not ended or that has a replica, of a build that is too young, or, as long as
/// the instance is kept, of its target or one of its newest successes.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn condemn(tx: &mut Tx, now_ms: i64, kept: Kept, limit: u32) -> Result<Vec<ImageReference>, Error> {
    // Looked for without a lock, so that nobody who holds an image waits for a look at all of them.
    let candidates = unneeded(tx, kept, None, limit).await?;
    // Only these are locked, and looked at again by a statement that begins under the lock: whoever held one meanwhile
    // is seen. One that somebody holds now is for a later round.
    let locked = lock(tx, &candidates).await?;
    if locked.is_empty() {
        return Ok(locked);
    }
    let mut condemned = unneeded(tx, kept, Some(&locked), limit).await?;
    condemned.retain(|image| locked.contains(image));
    let (repositories, digests) = columns(&condemned);
    sqlx::query!(
        "UPDATE image SET condemned_ms = $3 WHERE (repository, digest) IN (SELECT * FROM unnest($1::text[], $2::text[]))",
        &repositories,
        &digests,
        now_ms
    )
    .execute(&mut **tx)
    .await?;
    Ok(condemned)
}

/// The oldest images that nothing refers to; of those with the digests of `among` only, if that is given.
async fn unneeded(
    tx: &mut Tx,
    kept: Kept,
    among: Option<&[ImageReference]>,
    limit: u32,
) -> Result<Vec<ImageReference>, Error> {
    let digests = among.map(|images| columns(images).1);
    // From the few that are needed to all images, not the other way round: what it costs grows with the instances and
    // the images, and not with every deployment that ever was.
    let images = sqlx::query_as!(
        ImageReference,
        "WITH needed AS (
             SELECT build_id FROM deployment WHERE outcome IN ('queued', 'building', 'deploying')
             UNION ALL
             SELECT deployment.build_id FROM replica JOIN deployment ON deployment.id = replica.deployment_id
             UNION ALL
             SELECT deployment.build_id FROM instance_life
             JOIN intent ON intent.instance_id = instance_life.instance_id
             JOIN deployment ON deployment.id = intent.target_deployment
             WHERE instance_life.deleted_ms IS NULL OR instance_life.deleted_ms >= $2
             UNION ALL
             SELECT newest.build_id FROM instance_life CROSS JOIN LATERAL (
                 SELECT build_id FROM deployment
                 WHERE deployment.instance_id = instance_life.instance_id AND outcome = 'succeeded'
                 ORDER BY number DESC LIMIT $3) AS newest
             WHERE instance_life.deleted_ms IS NULL OR instance_life.deleted_ms >= $2)
         SELECT repository, digest FROM image
         WHERE condemned_ms IS NULL AND created_ms < $1 AND ($5::text[] IS NULL OR digest = ANY($5))
           AND NOT EXISTS (
               SELECT FROM build WHERE build.repository = image.repository AND build.digest = image.digest
               AND build.created_ms >= $1)
           AND NOT EXISTS (
               SELECT FROM needed JOIN build ON build.id = needed.build_id
               WHERE build.repository = image.repository AND build.digest = image.digest)
         ORDER BY created_ms LIMIT $4",
        kept.made_since_ms,
        kept.deleted_since_ms,
        i64::from(kept.successes),
        i64::from(limit),
        digests.as_deref() as _
    )
    .fetch_all(&mut **tx)
    .await?;
    Ok(images)
}

/// Locks those of these images that nobody holds, until the transaction ends.
async fn lock(tx: &mut Tx, images: &[ImageReference]) -> Result<Vec<ImageReference>, Error> {
    let (repositories, digests) = columns(images);
    let images = sqlx::query_as!(
        ImageReference,
        "SELECT repository, digest FROM image
         WHERE (repository, digest) IN (SELECT * FROM unnest($1::text[], $2::text[])) FOR UPDATE SKIP LOCKED",
        &repositories,
        &digests
    )
    .fetch_all(&mut **tx)
    .await?;
    Ok(images)
}

/// The repositories and the digests of images, as parameters of a statement.
fn columns(images: &[ImageReference]) -> (Vec<String>, Vec<String>) {
    let both = images.iter().cloned();
    both.map(|image| (image.repository, image.digest)).unzip()
}

/// The images that are condemned and still have a row: their deletion is due or was cut short.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn condemned(conn: &mut Conn, limit: u32) -> Result<Vec<ImageReference>, Error> {
    let images = sqlx::query_as!(
        ImageReference,
        "SELECT repository, digest FROM image WHERE condemned_ms IS NOT NULL ORDER BY condemned_ms LIMIT $1",
        i64::from(limit)
    )
    .fetch_all(&mut *conn)
    .await?;
    Ok(images)
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
