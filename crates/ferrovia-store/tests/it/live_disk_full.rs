//! The embedded PostgreSQL on a file system that is full. Needs root, to mount one.

use std::fs;
use std::process::Command;

use ferrovia_store::embedded::{self, Error};
use ferrovia_store::{Db, Options};

use crate::embedded::Place;

fn mount(place: &Place, size: &str) {
    let data_dir = place.config.dir.parent().unwrap();
    let option = format!("size={size},mode=0711");
    let status = Command::new("mount")
        .args(["-t", "tmpfs", "-o", &option, "tmpfs"])
        .arg(data_dir)
        .status();
    assert!(
        status.unwrap().success(),
        "a tmpfs must be mounted for this test: it needs root"
    );
}

#[tokio::test]
async fn too_little_room_for_a_database_is_told_before_anything_is_made() {
    let place = Place::new();
    mount(&place, "30m");
    let error = embedded::ensure(&place.config).await.unwrap_err();
    assert!(
        matches!(error, Error::DiskFull { free_bytes, .. } if free_bytes <= 30 << 20),
        "{error:?}"
    );
    assert!(error.report().hint.unwrap().contains("free at least"));
    assert!(!place.config.dir.join("data").exists() && !place.config.dir.join("data.new").exists());
}

#[tokio::test]
async fn a_disk_that_fills_up_is_told_and_the_server_comes_back_when_there_is_room() {
    let place = Place::new();
    mount(&place, "260m");
    let server = embedded::ensure(&place.config).await.unwrap();
    let options = Options::new(&server.url);
    let db = Db::connect(&options).await.unwrap();
    db.migrate(&options).await.unwrap();
    let ballast = place.config.dir.join("ballast");
    let status = Command::new("dd")
        .args(["if=/dev/zero", "bs=1M"])
        .arg(format!("of={}", ballast.display()))
        .output();
    assert!(!status.unwrap().status.success(), "it is full now");
    let mut refused = None;
    for n in 0..2_000 {
        let sql = "INSERT INTO team SELECT gen_random_uuid(), repeat('x', 500) || $1 || i, 0 FROM generate_series(1, 200) i";
        let result = sqlx::query(sql)
            .bind(n.to_string())
            .execute(&mut *db.conn().await.unwrap())
            .await;
        if let Err(error) = result {
            refused = Some(ferrovia_store::Error::from(error));
            break;
        }
    }
    let refused = refused.expect("the disk is full");
    assert!(
        matches!(refused, ferrovia_store::Error::Unavailable(_)),
        "{refused:?}"
    );
    db.close().await;
    embedded::stop(&place.config).await.unwrap();
    fs::remove_file(&ballast).unwrap();
    let server = embedded::ensure(&place.config).await.unwrap();
    Db::connect(&Options::new(&server.url))
        .await
        .unwrap()
        .ping()
        .await
        .unwrap();
}
