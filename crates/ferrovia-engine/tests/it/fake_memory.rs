//! The fake engine in the test's process keeps the contract.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use ferrovia_core::workload::ImageReference;
use ferrovia_engine::Engine;
use ferrovia_engine::fake::{Memory, Options};

use crate::contract::{Subject, holds};

struct InMemory {
    engine: Memory,
    addresses: AtomicU32,
}

impl Subject for InMemory {
    fn engine(&self) -> &dyn Engine {
        &self.engine
    }

    fn image(&self) -> ImageReference {
        ImageReference {
            repository: "127.0.0.1:7071/apps/fvtest/web".into(),
            digest: format!("sha256:{}", "a".repeat(64)),
        }
    }

    fn command(&self) -> Option<Vec<String>> {
        None
    }

    fn address(&self) -> Ipv4Addr {
        Ipv4Addr::from(0x0ad2_0002 + self.addresses.fetch_add(1, Ordering::Relaxed))
    }
}

#[tokio::test]
async fn keeps_the_contract() {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
    let engine = Memory::new(Options::default(), Arc::new(now));
    holds(&InMemory {
        engine,
        addresses: AtomicU32::new(0),
    })
    .await;
}
