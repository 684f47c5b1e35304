//! Reading files that hold secrets, keys and certificates.

use std::path::{Path, PathBuf};

/// Largest file that is read. Bundles of authorities have some 200 KiB, and a wrong path may lead to
/// anything.
const MAX_BYTES: u64 = 1 << 20;

/// A file that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}", path.display())]
pub struct SecretFileError {
    /// Its path.
    pub path: PathBuf,
    /// The error of the operating system.
    #[source]
    pub source: std::io::Error,
}

/// The text of a file, of at most 1 MiB.
///
/// # Errors
/// When it cannot be read, is larger, or is no text.
pub fn read(path: &Path) -> Result<String, SecretFileError> {
    use std::io::Read as _;

    let read = || -> std::io::Result<String> {
        let mut text = String::new();
        let mut file = std::fs::File::open(path)?.take(MAX_BYTES + 1);
        if file.read_to_string(&mut text)? as u64 > MAX_BYTES {
            return Err(std::io::Error::other("it is larger than 1 MiB"));
        }
        Ok(text)
    };

    read().map_err(|source| SecretFileError {
        path: path.to_owned(),
        source,
    })
}

/// Warns when other users of the machine may read the file that `setting` names.
pub fn warn_if_open(path: &Path, setting: &str) {
    use std::os::unix::fs::PermissionsExt as _;

    let mode = std::fs::metadata(path).map(|data| data.permissions().mode());
    if mode.is_ok_and(|mode| mode & 0o077 != 0) {
        tracing::warn!(
            setting,
            path = %path.display(),
            "other users may read a file that holds a secret; run chmod 600 on it"
        );
    }
}
