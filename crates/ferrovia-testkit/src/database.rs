//! A fresh database with the schema for each test, on one server per process.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use ferrovia_store::{Db, Options, admin};
use tokio::sync::OnceCell;

use crate::postgres::Server;

/// Name of the database that has the schema and nothing else.
const TEMPLATE: &str = "ferrovia_template";
/// Connections of a test's pool.
const CONNECTIONS: u32 = 16;

/// Databases whose tests are over; dropped when the next is made.
static USED: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// A database of one test.
#[derive(Debug)]
pub struct TestDb {
    /// Open connections to it.
    pub db: Db,
    /// Its address, for a second pool.
    pub url: String,
    name: String,
}

impl TestDb {
    /// The server's directory of data, for tests that look for what must not be in it.
    pub async fn server_data(&self) -> std::path::PathBuf {
        server().await.data()
    }
}

impl Drop for TestDb {
    fn drop(&mut self) {
        USED.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(std::mem::take(&mut self.name));
    }
}

/// A fresh database with the schema.
pub async fn database() -> TestDb {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let server = server().await;
    let admin_options = Options::new(server.url("postgres"));
    let over = std::mem::take(&mut *USED.lock().unwrap_or_else(PoisonError::into_inner));
    for used in over {
        admin::drop_database(&admin_options, &used)
            .await
            .expect("a test's database is dropped");
    }
    let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    admin::ensure_database(&admin_options, &name, Some(TEMPLATE))
        .await
        .expect("a database is made");
    let url = server.url(&name);
    let options = Options::new(&url).max_connections(CONNECTIONS);
    let db = Db::connect(&options).await.expect("the database answers");
    TestDb { db, url, name }
}

async fn server() -> &'static Server {
    static SERVER: OnceCell<Server> = OnceCell::const_new();
    SERVER
        .get_or_init(|| async {
            let server = tokio::task::spawn_blocking(Server::start)
                .await
                .expect("the server starts");
            let admin_options = Options::new(server.url("postgres"));
            admin::ensure_database(&admin_options, TEMPLATE, None)
                .await
                .expect("a database is made");
            let options = Options::new(server.url(TEMPLATE));
            let db = Db::connect(&options).await.expect("the template answers");
            db.migrate(&options).await.expect("the schema is made");
            db.close().await;
            server
        })
        .await
}
