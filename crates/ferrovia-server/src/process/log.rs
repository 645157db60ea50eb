//! Logs of the platform's own processes: to the terminal in the foreground, else to a file of bounded size.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::OFlags;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Size at which a log file is set aside as `NAME.log.1`, in bytes.
const MAX_LOG_BYTES: u64 = 8 * 1024 * 1024;
/// What is logged unless `FERROVIA_LOG` says otherwise.
const DEFAULT_FILTER: &str = "info";

/// Logs to standard error, for a process that somebody watches.
pub fn to_terminal() {
    let colours = io::IsTerminal::is_terminal(&io::stderr());
    tracing_subscriber::fmt()
        .with_env_filter(filter())
        .with_ansi(colours)
        .with_writer(io::stderr)
        .init();
}

/// Logs to `path`, and panics too.
///
/// # Errors
/// When the file cannot be opened.
pub fn to_file(path: &Path) -> io::Result<()> {
    let writer = BoundedFile::open(path)?;
    tracing_subscriber::fmt()
        .with_env_filter(filter())
        .with_ansi(false)
        .with_writer(writer)
        .init();
    std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
    Ok(())
}

/// Opens a file that may lie in a directory of another user of the platform: that user must not lead root elsewhere
/// by a link, nor hold it up by a pipe.
///
/// # Errors
/// When it cannot be opened, or is no ordinary file.
pub fn open_own(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = options
        .mode(0o600)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("`{}` is not an ordinary file", path.display()),
    ))
}

fn filter() -> EnvFilter {
    let given = std::env::var("FERROVIA_LOG")
        .ok()
        .filter(|given| !given.is_empty());
    given
        .and_then(|given| EnvFilter::try_new(given).ok())
        .unwrap_or_else(|| EnvFilter::new(DEFAULT_FILTER))
}

/// A file that is set aside when it is full, so that a platform that runs for years does not fill its disk.
#[derive(Clone)]
struct BoundedFile {
    path: Arc<PathBuf>,
    open: Arc<Mutex<(File, u64)>>,
}

impl BoundedFile {
    fn open(path: &Path) -> io::Result<Self> {
        let open = append(path)?;
        Ok(Self {
            path: Arc::new(path.to_owned()),
            open: Arc::new(Mutex::new(open)),
        })
    }
}

fn append(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().append(true).create(true).open(path)?;
    let size = file.metadata()?.len();
    Ok((file, size))
}

impl Write for BoundedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.1 >= MAX_LOG_BYTES {
            std::fs::rename(&*self.path, self.path.with_extension("log.1"))?;
            *open = append(&self.path)?;
        }
        let written = open.0.write(bytes)?;
        open.1 += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for BoundedFile {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("edge.log");
        let mut file = BoundedFile::open(&path).unwrap();
        let chunk = vec![b'x'; 1 << 20];
        for _ in 0..9 {
            file.write_all(&chunk).unwrap();
        }
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 1 << 20);
        assert_eq!(
            std::fs::metadata(dir.path().join("edge.log.1")).unwrap().len(),
            MAX_LOG_BYTES
        );
    }
}
