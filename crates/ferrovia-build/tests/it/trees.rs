//! Source trees on disk.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use ferrovia_build::tree::{MAX_STAGED, MIN_GARBAGE_AGE, TreeError, TreeStore};
use ferrovia_core::error::Class;
use ferrovia_core::id::ProjectId;
use ferrovia_core::tree::{Entry, EntryKind, Manifest, Sha256};
use proptest::prelude::*;
use tempfile::TempDir;

fn project(number: u128) -> ProjectId {
    ProjectId::from_uuid(uuid::Uuid::from_u128(number))
}

/// What a directory holds, as entries, with the contents of its files.
pub fn scan(directory: &Path) -> (Vec<Entry>, BTreeMap<Sha256, Vec<u8>>) {
    let (mut entries, mut contents) = (Vec::new(), BTreeMap::new());
    let mut left = vec![directory.to_owned()];
    while let Some(at) = left.pop() {
        let found: Vec<_> = fs::read_dir(&at)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        if found.is_empty() && at != directory {
            entries.push(Entry {
                path: relative(directory, &at),
                kind: EntryKind::Directory,
            });
        }
        for path in found {
            let metadata = path.symlink_metadata().unwrap();
            let kind = if metadata.is_symlink() {
                let target = fs::read_link(&path).unwrap().to_str().unwrap().to_owned();
                EntryKind::Symlink { target }
            } else if metadata.is_dir() {
                left.push(path);
                continue;
            } else {
                let content = fs::read(&path).unwrap();
                let digest = Sha256::of(&content);
                let size = content.len() as u64;
                contents.insert(digest, content);
                EntryKind::File {
                    executable: metadata.permissions().mode() & 0o100 != 0,
                    digest,
                    size,
                }
            };
            entries.push(Entry {
                path: relative(directory, &path),
                kind,
            });
        }
    }
    (entries, contents)
}

fn relative(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap().to_str().unwrap().to_owned()
}

pub async fn put_all(store: &TreeStore, project: ProjectId, contents: &BTreeMap<Sha256, Vec<u8>>) {
    let mut upload = store.upload(project);
    for (digest, content) in contents {
        upload
            .put(*digest, content.len() as u64, content.as_slice())
            .await
            .unwrap();
    }
    upload.finish().await.unwrap();
}

async fn put(store: &TreeStore, project: ProjectId, content: &[u8]) -> Sha256 {
    let digest = Sha256::of(content);
    put_all(store, project, &BTreeMap::from([(digest, content.to_vec())])).await;
    digest
}

fn manifest_of(files: &[(&str, &[u8])]) -> Manifest {
    let entry = |(path, content): &(&str, &[u8])| {
        let kind = EntryKind::File {
            executable: false,
            digest: Sha256::of(content),
            size: content.len() as u64,
        };
        Entry {
            path: (*path).to_owned(),
            kind,
        }
    };
    Manifest::new(files.iter().map(entry).collect()).unwrap()
}

/// Every file below a directory, with its size.
fn files_below(directory: &Path) -> Vec<String> {
    let (entries, _) = scan(directory);
    entries
        .into_iter()
        .filter(|entry| entry.kind != EntryKind::Directory)
        .map(|entry| entry.path)
        .collect()
}

#[tokio::test]
async fn a_directory_goes_through_and_comes_out_the_same() {
    let place = TempDir::new().unwrap();
    let source = place.path().join("source");
    fs::create_dir_all(source.join("a/b")).unwrap();
    fs::create_dir_all(source.join("empty/deep")).unwrap();
    fs::write(source.join("a/b/tool"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(source.join("a/b/tool"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(source.join("a/secret"), "x").unwrap();
    fs::set_permissions(source.join("a/secret"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(source.join("größe 1.txt"), vec![7; 300_000]).unwrap();
    symlink("../a/b/tool", source.join("a/link")).unwrap();
    symlink("nowhere", source.join("dangling")).unwrap();
    let (entries, contents) = scan(&source);
    let manifest = Manifest::new(entries).unwrap();

    let store = TreeStore::new(place.path().join("store"));
    assert_eq!(
        store.missing(project(1), &manifest).await.unwrap().len(),
        contents.len()
    );
    put_all(&store, project(1), &contents).await;
    assert!(store.missing(project(1), &manifest).await.unwrap().is_empty());
    assert_eq!(
        store.missing(project(2), &manifest).await.unwrap().len(),
        contents.len(),
        "nothing is shared"
    );

    let out = place.path().join("out");
    store.unpack(project(1), &manifest, &out).await.unwrap();
    assert_eq!(Manifest::new(scan(&out).0).unwrap(), manifest);
    let mode = |path: &str| out.join(path).symlink_metadata().unwrap().mode() & 0o7777;
    assert_eq!(
        (mode("a/b/tool"), mode("a/secret"), mode("a"), mode("")),
        (0o755, 0o644, 0o755, 0o755)
    );

    let again = place.path().join("again");
    store.unpack(project(1), &manifest, &again).await.unwrap();
    for path in files_below(&out) {
        let time = |root: &Path| root.join(&path).symlink_metadata().unwrap().modified().unwrap();
        assert_eq!(time(&out), time(&again), "{path}");
    }
    let error = store.unpack(project(1), &manifest, &out).await.unwrap_err();
    assert!(
        matches!(error, TreeError::Disk { .. }),
        "what is there is never written into: {error:?}"
    );
    assert!(out.join("a/secret").exists());
}

#[tokio::test]
async fn equal_size_and_other_content_is_another_time() {
    let place = TempDir::new().unwrap();
    let store = TreeStore::new(place.path().join("store"));
    let mut times = HashSet::new();
    for content in [b"1", b"2", b"3"] {
        put(&store, project(1), content).await;
        let out = place.path().join(format!("{content:?}"));
        store
            .unpack(project(1), &manifest_of(&[("f", content)]), &out)
            .await
            .unwrap();
        times.insert(out.join("f").metadata().unwrap().mtime());
    }
    assert_eq!(times.len(), 3);
}

#[tokio::test]
async fn what_is_not_what_was_announced_leaves_nothing() {
    let place = TempDir::new().unwrap();
    let store = TreeStore::new(place.path());
    let digest = Sha256::of(b"hello");
    for (size, content, expected) in [
        (5, &b"hullo"[..], "WrongDigest"),
        (5, b"hello!", "WrongSize"),
        (5, b"hell", "WrongSize"),
        (0, b"", "WrongDigest"),
        (u64::MAX, b"hello", "TooLarge"),
    ] {
        let mut upload = store.upload(project(1));
        let error = upload.put(digest, size, content).await.unwrap_err();
        assert!(format!("{error:?}").starts_with(expected), "{error:?}");
        assert!(!error.class().is_retryable());
        upload.finish().await.unwrap();
    }
    let mut upload = store.upload(project(1));
    let broken = tokio_util::io::StreamReader::new(futures_util::stream::iter([
        Ok(bytes::Bytes::from_static(b"he")),
        Err(std::io::Error::other("gone")),
    ]));
    let error = upload.put(digest, 5, broken).await.unwrap_err();
    assert_eq!(error.class(), Class::Transient);
    drop(upload);
    assert_eq!(files_below(place.path()), Vec::<String>::new());
}

#[tokio::test]
async fn an_upload_that_is_not_finished_names_nothing() {
    let place = TempDir::new().unwrap();
    let store = TreeStore::new(place.path());
    let mut upload = store.upload(project(1));
    upload.put(Sha256::of(b"a"), 1, &b"a"[..]).await.unwrap();
    upload.put(Sha256::of(b"b"), 1, &b"b"[..]).await.unwrap();
    assert_eq!(
        store
            .missing(project(1), &manifest_of(&[("a", b"a")]))
            .await
            .unwrap()
            .len(),
        1
    );
    drop(upload);
    assert_eq!(files_below(place.path()), Vec::<String>::new());
}

#[tokio::test]
async fn many_contents_are_named_in_between() {
    let place = TempDir::new().unwrap();
    let store = TreeStore::new(place.path());
    let mut upload = store.upload(project(1));
    for number in 0..MAX_STAGED {
        let content = number.to_string();
        upload
            .put(
                Sha256::of(content.as_bytes()),
                content.len() as u64,
                content.as_bytes(),
            )
            .await
            .unwrap();
    }
    assert!(
        store
            .missing(project(1), &manifest_of(&[("a", b"17")]))
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn a_missing_content_is_told_and_nothing_stays() {
    let place = TempDir::new().unwrap();
    let store = TreeStore::new(place.path().join("store"));
    put(&store, project(1), b"a").await;
    let manifest = manifest_of(&[("d/a", b"a"), ("d/b", b"b")]);
    let out = place.path().join("out");
    let error = store.unpack(project(1), &manifest, &out).await.unwrap_err();
    assert!(matches!(error, TreeError::Missing(digest) if digest == Sha256::of(b"b")));
    assert!(!out.exists());
    assert_eq!(error.report().code, "source_incomplete");
}

#[tokio::test]
async fn a_link_in_the_way_is_not_followed() {
    let place = TempDir::new().unwrap();
    let store = TreeStore::new(place.path().join("store"));
    put(&store, project(1), b"a").await;
    let out = place.path().join("out");
    symlink("/tmp", &out).unwrap();
    assert!(
        store
            .unpack(project(1), &manifest_of(&[("f", b"a")]), &out)
            .await
            .is_err()
    );
    assert!(out.is_symlink(), "what was there stays");
}

#[tokio::test]
async fn garbage_goes_when_it_is_old_and_nothing_needs_it() {
    let place = TempDir::new().unwrap();
    let store = TreeStore::new(place.path());
    let kept = put(&store, project(1), b"kept").await;
    put(&store, project(1), b"garbage").await;
    put(&store, project(2), b"of another project").await;
    let mut unfinished = store.upload(project(1));
    unfinished.put(Sha256::of(b"x"), 1, &b"x"[..]).await.unwrap();
    std::mem::forget(unfinished);
    let now = SystemTime::now();
    let early = store
        .collect_garbage(project(1), HashSet::from([kept]), now)
        .await
        .unwrap();
    assert_eq!(early.count, 0);
    let later = now + MIN_GARBAGE_AGE + Duration::from_secs(1);
    let collected = store
        .collect_garbage(project(1), HashSet::from([kept]), later)
        .await
        .unwrap();
    assert_eq!((collected.count, collected.bytes), (2, 8));
    let manifest = manifest_of(&[("a", b"kept"), ("b", b"garbage")]);
    let missing = store.missing(project(1), &manifest).await.unwrap();
    assert_eq!(missing, [(Sha256::of(b"garbage"), 7)]);
    store.remove_project(project(1)).await.unwrap();
    store.remove_project(project(1)).await.unwrap();
    assert_eq!(files_below(place.path()).len(), 1);
}

#[tokio::test]
async fn a_content_that_is_asked_for_is_not_garbage_soon() {
    let place = TempDir::new().unwrap();
    let store = TreeStore::new(place.path());
    let digest = put(&store, project(1), b"a").await;
    let hex = digest.hex();
    let path = place.path().join(format!(
        "{}/{}/{}",
        project(1).uuid().simple(),
        &hex[..2],
        &hex[2..]
    ));
    let old = SystemTime::now() - MIN_GARBAGE_AGE * 2;
    fs::File::open(&path).unwrap().set_modified(old).unwrap();
    store
        .missing(project(1), &manifest_of(&[("a", b"a")]))
        .await
        .unwrap();
    store
        .collect_garbage(project(1), HashSet::new(), SystemTime::now())
        .await
        .unwrap();
    assert!(path.exists());
}

#[tokio::test]
async fn detection_sees_the_tree() {
    let place = TempDir::new().unwrap();
    let store = TreeStore::new(place.path());
    put(&store, project(1), b"{}").await;
    put(&store, project(1), b"text").await;
    let manifest = manifest_of(&[
        ("web/package.json", b"{}"),
        ("web/note.txt", b"text"),
        ("x", b"text"),
    ]);
    let view = store.view(project(1), &manifest, "web").await.unwrap();
    assert_eq!(view.text("package.json"), Some("{}"));
    assert!(view.has("note.txt") && view.text("note.txt").is_none() && !view.has("x"));
}

/// Small trees: few names, so that paths meet.
fn trees() -> impl Strategy<Value = BTreeMap<String, EntryPlan>> {
    let path = "[ab.]{1,2}(/[ab.]{1,2}){0,2}";
    prop::collection::btree_map(path, plan(), 0..8)
}

#[derive(Debug, Clone)]
enum EntryPlan {
    File(bool, Vec<u8>),
    Link(String),
    Directory,
}

fn plan() -> impl Strategy<Value = EntryPlan> {
    prop_oneof![
        4 => (any::<bool>(), prop::collection::vec(any::<u8>(), 0..20)).prop_map(|(x, c)| EntryPlan::File(x, c)),
        2 => "(/|(\\.\\./){0,3})[ab]{1,2}(/\\.\\.){0,2}".prop_map(EntryPlan::Link),
        1 => Just(EntryPlan::Directory),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever a manifest says: either it is refused, or unpacking gives exactly it and touches nothing else.
    #[test]
    fn unpacking_is_the_inverse_of_scanning_and_never_escapes(tree in trees()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let place = TempDir::new().unwrap();
        let mut contents = BTreeMap::new();
        let entries = tree.into_iter().map(|(path, plan)| {
            let kind = match plan {
                EntryPlan::File(executable, content) => {
                    let (digest, size) = (Sha256::of(&content), content.len() as u64);
                    contents.insert(digest, content);
                    EntryKind::File { executable, digest, size }
                }
                EntryPlan::Link(target) => EntryKind::Symlink { target },
                EntryPlan::Directory => EntryKind::Directory,
            };
            Entry { path, kind }
        });
        if let Ok(manifest) = Manifest::new(entries.collect()) {
            let store = TreeStore::new(place.path().join("store"));
            let inner = place.path().join("inner");
            fs::create_dir(&inner).unwrap();
            let out = inner.join("out");
            runtime.block_on(async {
                put_all(&store, project(1), &contents).await;
                store.unpack(project(1), &manifest, &out).await.unwrap();
            });
            prop_assert_eq!(Manifest::new(scan(&out).0).unwrap(), manifest);
            let beside: Vec<_> = fs::read_dir(&inner).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            prop_assert_eq!(beside, ["out"]);
        }
    }
}
