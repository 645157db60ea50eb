//! A process that was just started. Until it holds its lock nobody else can find it, so that it goes with its starter.

use std::io;
use std::path::PathBuf;
use std::process::{Child, ExitStatus};

use super::Unit;
use super::lock::{self, Living};
use crate::config::Config;

/// Killed when it is dropped before it has held its lock: it has served nobody yet. One that has lives on, also when it
/// gave the lock up since, as a draining edge does.
#[derive(Debug)]
pub struct Spawned {
    child: Child,
    unit: Unit,
    lock_directory: PathBuf,
    is_up: bool,
}

impl Spawned {
    /// A child that was started as this unit.
    pub fn new(child: Child, unit: Unit, config: &Config) -> Self {
        Self {
            child,
            unit,
            lock_directory: unit.lock_directory(&config.paths),
            is_up: false,
        }
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// The process by its lock, once it holds it.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn come_up(&mut self) -> io::Result<Option<Living>> {
        let living = lock::find_living(&self.lock_directory, self.unit.as_str())?;
        let own = living.filter(|living| living.holder.pid == self.child.id());
        self.is_up |= own.is_some();
        Ok(own)
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        if self.is_up || matches!(self.come_up(), Ok(Some(_))) {
            // Nothing of it stays when it ended.
            let _ = self.child.try_wait();
        } else {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::{Pid, test_kill_process};

    use super::*;

    #[test]
    fn who_is_dropped_without_a_lock_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::load(crate::config::Flags {
            run_dir: Some(dir.path().into()),
            ..crate::config::Flags::default()
        })
        .unwrap();
        let child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = Pid::from_child(&child);
        let mut spawned = Spawned::new(child, Unit::Control, &config);
        assert!(spawned.come_up().unwrap().is_none());
        test_kill_process(pid).unwrap();
        drop(spawned);
        assert!(test_kill_process(pid).is_err());
    }
}
