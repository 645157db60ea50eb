//! Variables and keys in the database, and what must not be in its files.

use std::fs;
use std::path::Path;

use ferrovia_core::id::InstanceId;
use ferrovia_core::secret::Secret;
use ferrovia_store::seal::{self, Keyring, MasterKeys};
use ferrovia_store::variable::{self, NewVariable, Owner};
use ferrovia_store::{Error, Options};

use crate::fixture::{Fixture, NOW_MS};

fn new(owner: Owner, key: &str, value: &str) -> NewVariable {
    NewVariable {
        owner,
        key: key.parse().unwrap(),
        value: Secret::new(value),
        write_only: false,
        public: false,
        updated_ms: NOW_MS,
    }
}

async fn set(f: &Fixture, new: NewVariable) {
    let data_key = f.data_key.clone();
    f.tx(move |tx| Box::pin(async move { variable::set(tx, &data_key, &new).await }))
        .await;
}

#[tokio::test]
async fn variables_come_back_byte_for_byte() {
    let f = Fixture::new().await;
    let own = Owner::Instance(f.environment.id, f.instance.id);
    let shared = Owner::Shared(f.environment.id);
    let long = "100 KB $HOME \"'\n\u{1F680}".repeat(5_000);
    for (owner, key, value) in [
        (own, "LONG", long.as_str()),
        (own, "EMPTY", ""),
        (shared, "LONG", "other"),
    ] {
        set(&f, new(owner, key, "first")).await;
        set(&f, new(owner, key, value)).await;
    }
    let all = variable::of_environment(&mut *f.conn().await, f.environment.id)
        .await
        .unwrap();
    let values: Vec<_> = all
        .iter()
        .map(|variable| {
            (
                variable.owner,
                variable.key.to_string(),
                variable.open(&f.data_key).unwrap(),
            )
        })
        .collect();
    assert_eq!(
        values,
        [
            (shared, "LONG".to_owned(), Secret::new("other")),
            (own, "EMPTY".to_owned(), Secret::new("")),
            (own, "LONG".to_owned(), Secret::new(long))
        ]
    );
    let key = "LONG".parse().unwrap();
    assert!(
        f.tx(move |tx| Box::pin(async move { variable::unset(tx, own, &key).await }))
            .await
    );
    let left = variable::of_owner(&mut *f.conn().await, own).await.unwrap();
    assert_eq!(left.len(), 1);
}

#[tokio::test]
async fn what_was_once_write_only_stays_so() {
    let f = Fixture::new().await;
    let owner = Owner::Shared(f.environment.id);
    set(
        &f,
        NewVariable {
            write_only: true,
            ..new(owner, "KEY", "a")
        },
    )
    .await;
    set(&f, new(owner, "KEY", "b")).await;
    assert!(variable::of_owner(&mut *f.conn().await, owner).await.unwrap()[0].write_only);
}

#[tokio::test]
async fn a_sealed_value_that_was_moved_does_not_open() {
    let f = Fixture::new().await;
    let own = Owner::Instance(f.environment.id, f.instance.id);
    set(&f, new(own, "ADMIN_PASSWORD", "hunter2")).await;
    for change in ["key = 'GREETING'", "instance_id = NULL"] {
        let sql = format!("UPDATE variable SET {change}");
        sqlx::query(sqlx::AssertSqlSafe(sql))
            .execute(&mut *f.conn().await)
            .await
            .unwrap();
        let moved = variable::of_environment(&mut *f.conn().await, f.environment.id)
            .await
            .unwrap();
        let error = moved[0].open(&f.data_key).unwrap_err();
        assert!(
            matches!(error, Error::Seal(seal::Error::Tampered { table: "variable" })),
            "{error:?}"
        );
    }
    let elsewhere = Owner::Instance(f.environment.id, InstanceId::from_uuid(uuid::Uuid::now_v7()));
    let data_key = f.data_key.clone();
    let refused = f
        .test
        .db
        .tx(move |tx| Box::pin(async move { variable::set(tx, &data_key, &new(elsewhere, "A", "b")).await }));
    assert!(matches!(refused.await, Err(Error::Reference { .. })));
}

#[tokio::test]
async fn keys_survive_a_restart_and_a_change_of_the_master_key() {
    let f = Fixture::new().await;
    let owner = Owner::Shared(f.environment.id);
    set(&f, new(owner, "KEY", "value")).await;
    let id = f.data_key.id();
    let mac = f.data_key.mac("spec", [b"x".as_slice()]);

    let again = Keyring::open(&f.test.db, f.data_dir()).await.unwrap();
    let data_key = again.get(&mut *f.conn().await, id).await.unwrap();
    let read = variable::of_owner(&mut *f.conn().await, owner).await.unwrap();
    assert_eq!(read[0].open(&data_key).unwrap().expose(), "value");
    assert_eq!(data_key.mac("spec", [b"x".as_slice()]), mac);

    // A new key in front; the old one still opens.
    let path = MasterKeys::path(f.data_dir());
    let other = tempfile::tempdir().unwrap();
    MasterKeys::ensure(other.path()).unwrap();
    let old_line = fs::read_to_string(&path).unwrap();
    let new_line = fs::read_to_string(MasterKeys::path(other.path())).unwrap();
    fs::write(&path, format!("{new_line}{old_line}")).unwrap();
    let rotated = Keyring::open(&f.test.db, f.data_dir()).await.unwrap();
    for expected in [1, 0] {
        let ring = rotated.clone();
        let sealed = f
            .tx(move |tx| Box::pin(async move { ring.seal_again(tx, 100).await }))
            .await;
        assert_eq!(sealed, expected);
    }
    fs::write(&path, new_line).unwrap();
    let only_new = Keyring::open(&f.test.db, f.data_dir()).await.unwrap();
    let data_key = only_new.get(&mut *f.conn().await, id).await.unwrap();
    assert_eq!(read[0].open(&data_key).unwrap().expose(), "value");
    fs::write(&path, old_line).unwrap();
    let error = Keyring::open(&f.test.db, f.data_dir()).await.unwrap_err();
    assert!(matches!(error, Error::Seal(seal::Error::UnknownKey { .. })));
}

#[tokio::test]
async fn a_lost_master_key_is_not_replaced() {
    let f = Fixture::new().await;
    fs::remove_file(MasterKeys::path(f.data_dir())).unwrap();
    let error = Keyring::open(&f.test.db, f.data_dir()).await.unwrap_err();
    let Error::Seal(error @ seal::Error::Missing { .. }) = error else {
        panic!("{error:?}")
    };
    assert!(error.report().hint.unwrap().contains("backup"));
    assert!(!MasterKeys::path(f.data_dir()).exists());
}

#[tokio::test]
async fn nothing_secret_lies_in_the_servers_files() {
    let f = Fixture::new().await;
    let owner = Owner::Shared(f.environment.id);
    set(
        &f,
        new(owner, "VISIBLE_MARKER_KEY_8431", "SECRET-MARKER-VALUE-8431"),
    )
    .await;
    let place = seal::Place::new("build", [b"1".as_slice()]);
    let pairs = [("K".to_owned(), Secret::new("SECRET-MARKER-PAIRS-8431"))];
    let sealed = f.data_key.seal_pairs(&pairs, &place).unwrap();
    let token = ferrovia_store::token::generate().unwrap();
    let new_token = ferrovia_store::token::NewToken {
        id: crate::fixture::id(),
        team_id: f.team.id,
        name: "VISIBLE-MARKER-TOKEN-8431".to_owned(),
        scope: ferrovia_core::permission::Scope::Owner,
        created_ms: NOW_MS,
    };
    let text = token.clone();
    f.tx(move |tx| Box::pin(async move { ferrovia_store::token::insert(tx, &new_token, &text).await }))
        .await;
    sqlx::query("UPDATE variable SET sealed = sealed || ''::bytea")
        .execute(&mut *f.conn().await)
        .await
        .unwrap();
    let url = Options::new(&f.test.url).url;
    assert!(!format!("{url:?}").contains("postgres"));
    sqlx::query("CHECKPOINT")
        .execute(&mut *f.conn().await)
        .await
        .unwrap();

    let mut files = 0;
    let mut seen = [false; 5];
    let master = fs::read_to_string(MasterKeys::path(f.data_dir())).unwrap();
    let master = hex::decode(master.trim().split(' ').nth(1).unwrap()).unwrap();
    let texts: [&[u8]; 5] = [
        b"SECRET-MARKER-VALUE-8431",
        token.expose().as_bytes(),
        &master,
        b"VISIBLE_MARKER_KEY_8431",
        b"VISIBLE-MARKER-TOKEN-8431",
    ];
    for_each_file(&f.test.server_data().await, &mut |bytes| {
        files += 1;
        for (seen, text) in seen.iter_mut().zip(texts) {
            *seen |= bytes.windows(text.len()).any(|window| window == text);
        }
    });
    assert!(
        !sealed
            .windows(24)
            .any(|window| window == b"SECRET-MARKER-PAIRS-8431")
    );
    assert!(files > 100);
    assert_eq!(
        seen,
        [false, false, false, true, true],
        "secrets are not found, and what is no secret is"
    );
}

fn for_each_file(dir: &Path, look: &mut impl FnMut(&[u8])) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            for_each_file(&path, look);
        } else if path.is_file() {
            // A file may go while we look.
            look(&fs::read(&path).unwrap_or_default());
        }
    }
}
