//! Which build of `ferroviad` this is: a digest of the executable itself, so that two builds never pass as one.

use std::io;
use std::sync::OnceLock;

use aws_lc_rs::digest;

/// Sixteen hexadecimal digits of the running executable's SHA-256, also after the file was replaced on disk.
///
/// # Errors
/// When the executable cannot be read through `/proc`.
pub fn build_id() -> io::Result<&'static str> {
    static BUILD_ID: OnceLock<String> = OnceLock::new();
    if let Some(id) = BUILD_ID.get() {
        return Ok(id);
    }
    let mut file = std::fs::File::open("/proc/self/exe")?;
    let mut context = digest::Context::new(&digest::SHA256);
    let mut chunk = vec![0_u8; 1 << 16];
    loop {
        let read = io::Read::read(&mut file, &mut chunk)?;
        if read == 0 {
            break;
        }
        context.update(&chunk[..read]);
    }
    Ok(BUILD_ID.get_or_init(|| hex::encode(&context.finish().as_ref()[..8])))
}
