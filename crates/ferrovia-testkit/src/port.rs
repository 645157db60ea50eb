//! TCP ports that nobody else uses: below the range that the kernel gives to outgoing connections, and locked by a
//! file, so that tests of other processes do not choose the same.

use std::fs::{File, OpenOptions};
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicU16, Ordering};

/// First port that is tried.
const FIRST: u16 = 20_000;
/// Ports that are tried; the kernel's own begin at 32,768.
const COUNT: u16 = 12_000;

/// A port that is this process' until it is dropped.
#[derive(Debug)]
pub struct FreePort {
    /// Its number; nothing listens there yet.
    pub number: u16,
    _lock: File,
}

/// A port of 127.0.0.1 where nothing listens and that no other caller has.
pub fn free_port() -> FreePort {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let offset = u16::try_from(std::process::id() % u32::from(COUNT)).expect("it is below COUNT");
    for _ in 0..COUNT {
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        // 7 and COUNT have no common divisor: every port comes once.
        let number = FIRST + ((u32::from(offset) + u32::from(next) * 7) % u32::from(COUNT)) as u16;
        let path = std::env::temp_dir().join(format!("ferrovia-test-port-{number}"));
        let Ok(file) = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o666)
            .open(path)
        else {
            continue;
        };
        if file.try_lock().is_ok() && TcpListener::bind(("127.0.0.1", number)).is_ok() {
            return FreePort { number, _lock: file };
        }
    }
    panic!("no free port from {FIRST} to {}", FIRST + COUNT);
}
