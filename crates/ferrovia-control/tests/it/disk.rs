//! What lies on disk follows the rows.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ferrovia_build::Builder;
use ferrovia_build::buildkit::cgroup::BuildLimits;
use ferrovia_build::digest::Digest;
use ferrovia_build::fetch::Hosts;
use ferrovia_build::launch::ShellLauncher;
use ferrovia_build::platform::{Manifests, Options, Parts, PlatformBuilder};
use ferrovia_build::registry::{Access, Limits, MediaType, Reference, Repository, Store};
use ferrovia_build::tree::TreeStore;
use ferrovia_control::Sweep;
use ferrovia_control::disk::{RegistrySweep, StoredManifests, TreeSweep};
use ferrovia_core::id::{Id, ProjectId};
use ferrovia_core::network::AddressPlan;
use ferrovia_core::tree::{Entry, EntryKind, Manifest, Sha256};
use ferrovia_core::workload::ImageReference;
use ferrovia_store::image::Image;
use ferrovia_store::seal::{Keyring, MasterKeys};
use ferrovia_store::{Clock, Db, Error, image, source_tree};
use ferrovia_testkit::database;
use serde_json::json;
use uuid::Uuid;

use crate::harness::REGISTRY;
use crate::harness::rows::Rows;

const TWO_DAYS: Duration = Duration::from_hours(48);

/// Makes everything below a directory old.
fn age(directory: &Path) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            age(&path);
        } else {
            let file = std::fs::File::options().write(true).open(path).unwrap();
            file.set_modified(SystemTime::now() - TWO_DAYS).unwrap();
        }
    }
}

fn file(path: &str, content: &str) -> Entry {
    Entry {
        path: path.to_owned(),
        kind: EntryKind::File {
            executable: false,
            digest: Sha256::of(content.as_bytes()),
            size: content.len() as u64,
        },
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn contents_that_no_tree_needs_go() {
    let test = database().await;
    let directory = tempfile::tempdir().unwrap();
    let keyring = Keyring::new(MasterKeys::ensure(directory.path()).unwrap());
    let rows = Rows::make(&test.db, &keyring, &Clock::system()).await;
    let trees = TreeStore::new(directory.path().join("trees"));
    let other: ProjectId = Id::from_uuid(Uuid::now_v7());
    for (project, content) in [(rows.project, "kept"), (rows.project, "not"), (other, "kept")] {
        let mut upload = trees.upload(project);
        let digest = Sha256::of(content.as_bytes());
        upload
            .put(digest, content.len() as u64, content.as_bytes())
            .await
            .unwrap();
        upload.finish().await.unwrap();
    }
    let manifest = Manifest::new(vec![file("a", "kept")]).unwrap();
    let digest = manifest.digest().to_string();
    let (project, kept, name) = (rows.project, manifest.clone(), digest.clone());
    test.db
        .tx::<_, Error>(move |tx| {
            Box::pin(async move { source_tree::ensure(tx, project, &name, &kept, 4, 1).await })
        })
        .await
        .unwrap();
    let manifests = StoredManifests(test.db.clone());
    assert_eq!(
        manifests.find(project, &digest).await.unwrap(),
        Some(manifest.clone())
    );
    assert_eq!(manifests.find(other, &digest).await.unwrap(), None);

    let sweep = TreeSweep {
        db: test.db.clone(),
        trees: trees.clone(),
    };
    let told = sweep.sweep().await.unwrap();
    assert!(told.starts_with("0 contents"), "what is young stays: {told}");
    age(&directory.path().join("trees"));
    let told = sweep.sweep().await.unwrap();
    assert!(told.starts_with("2 contents"), "{told}");
    trees
        .unpack(project, &manifest, &directory.path().join("out"))
        .await
        .unwrap();
}

async fn push(store: &Store, repository: &str, content: &str) -> ImageReference {
    let place: Repository = repository.parse().unwrap();
    let config = json!({"architecture": "amd64", "config": {"Cmd": [content]}}).to_string();
    let mut upload = store.begin_upload(&place, None).await.unwrap();
    upload.write(config.as_bytes()).await.unwrap();
    let config_digest = Digest::of(config.as_bytes());
    store.finish_upload(upload, config_digest).await.unwrap();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MediaType::OciManifest.as_str(),
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config_digest, "size": config.len()},
        "layers": [],
    });
    let tag: Reference = "v1".parse().unwrap();
    let bytes = manifest.to_string();
    let digest = store.put_manifest(&place, &tag, MediaType::OciManifest, bytes.as_bytes());
    ImageReference {
        repository: format!("{REGISTRY}/{repository}"),
        digest: digest.await.unwrap().to_string(),
    }
}

async fn keep_row(db: &Db, reference: &ImageReference) {
    let row = Image {
        reference: reference.clone(),
        size_bytes: 1,
        config: json!({}),
        created_ms: 1,
        condemned_ms: None,
    };
    db.tx::<_, Error>(move |tx| Box::pin(async move { image::ensure(tx, &row).await.map(drop) }))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn images_that_no_row_names_go() {
    let test = database().await;
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path().join("registry"), Limits::default());
    let store = store.await.unwrap();
    let parts = Parts {
        store: Arc::clone(&store),
        access: Access::default(),
        trees: TreeStore::new(directory.path().join("trees")),
        manifests: Arc::new(StoredManifests(test.db.clone())),
        launcher: Arc::new(ShellLauncher),
        serve: Arc::new(|_, _| Box::pin(std::future::pending())),
    };
    let options = Options {
        data_directory: directory.path().join("builds"),
        run_directory: directory.path().join("run"),
        registry: REGISTRY.parse().unwrap(),
        hosts: Hosts::default(),
        extra_ca_file: None,
        group: "ferrovia-disk-test".into(),
        limits: BuildLimits::for_host(1 << 30),
        addresses: AddressPlan::default(),
        dns: Vec::new(),
        tool_directories: Vec::new(),
        cni_directory: "/usr/lib/cni".into(),
        cache_bytes: 1 << 30,
        parallel_steps: 1,
        timeout: Duration::from_secs(60),
        origin: None,
        seed_directory: None,
    };
    let builder = PlatformBuilder::new(parts, options).unwrap();
    let kept = push(&store, "apps/p/kept", "kept").await;
    let orphan = push(&store, "apps/p/orphan", "orphan").await;
    let old_base = push(&store, "bases/debian", "old").await;
    keep_row(&test.db, &kept).await;
    let sweep = RegistrySweep {
        db: test.db.clone(),
        store: Arc::clone(&store),
        builder: Arc::clone(&builder),
        registry_host: REGISTRY.to_owned(),
    };
    let told = sweep.sweep().await.unwrap();
    assert!(
        told.starts_with("0 images without a row, 0 old bases and 0 blobs"),
        "{told}"
    );
    age(&directory.path().join("registry"));
    let told = sweep.sweep().await.unwrap();
    assert!(
        told.starts_with("1 images without a row, 1 old bases and 4 blobs"),
        "{told}"
    );
    assert!(builder.has_image(&kept).await.unwrap());
    for gone in [orphan, old_base] {
        assert!(!builder.has_image(&gone).await.unwrap());
    }
}
