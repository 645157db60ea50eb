//! The installation's identity: a file beside the data, so that node and `stop` know whose containers are whose
//! without the database.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use uuid::Uuid;

/// The file's name in the data directory.
const FILE: &str = "installation-id";

/// The identity of the installation in this data directory; `None` before its first start.
///
/// # Errors
/// When the file cannot be read or holds something else.
pub fn find(data: &Path) -> io::Result<Option<Uuid>> {
    match std::fs::read_to_string(path(data)) {
        Ok(text) => Uuid::try_parse(text.trim()).map(Some).map_err(|_| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("`{}` does not hold a UUID", path(data).display()),
            )
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The identity, made at the first start.
///
/// # Errors
/// As [`find`], or when the file cannot be written.
pub fn ensure(data: &Path) -> io::Result<Uuid> {
    if let Some(id) = find(data)? {
        return Ok(id);
    }
    let temporary = data.join(format!("{FILE}.new"));
    let mut file = std::fs::File::create(&temporary)?;
    let id = Uuid::now_v7();
    writeln!(file, "{id}")?;
    file.sync_all()?;
    std::fs::rename(&temporary, path(data))?;
    std::fs::File::open(data)?.sync_all()?;
    Ok(id)
}

fn path(data: &Path) -> PathBuf {
    data.join(FILE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(find(dir.path()).unwrap(), None);
        let id = ensure(dir.path()).unwrap();
        assert_eq!(ensure(dir.path()).unwrap(), id);
        std::fs::write(path(dir.path()), "x").unwrap();
        assert!(ensure(dir.path()).is_err());
    }
}
