//! Reading files that settings name: secrets, keys, certificates, tokens.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

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
    pub source: io::Error,
}

/// Opens a file to read it. Never waits: to open a pipe would wait for a writer, and to read a device
/// may never end.
///
/// # Errors
/// When it cannot be opened, or is a directory, a pipe, a socket or a device.
pub fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::options()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;

    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::other("it is not a regular file"))
    }
}

/// The text of a file, of at most 1 MiB.
///
/// # Errors
/// When it cannot be read, is larger, or is no text.
pub fn read(path: &Path) -> Result<String, SecretFileError> {
    let read = || -> io::Result<String> {
        let mut text = String::new();
        let mut file = open(path)?.take(MAX_BYTES + 1);
        if file.read_to_string(&mut text)? as u64 > MAX_BYTES {
            return Err(io::Error::other("it is larger than 1 MiB"));
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
    let mode = std::fs::metadata(path).map(|data| data.permissions().mode());
    if mode.is_ok_and(|mode| mode & 0o077 != 0) {
        tracing::warn!(
            setting,
            path = %path.display(),
            "other users may read a file that holds a secret; run chmod 600 on it"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    /// What reading says, for a test that must not hang.
    fn refusal(path: &Path) -> String {
        let (answer, answered) = mpsc::channel();
        let path = path.to_owned();
        std::thread::spawn(move || answer.send(read(&path)));

        let read = answered.recv_timeout(Duration::from_secs(20));
        let error = read.expect("an answer").expect_err("a refusal");
        error.source.to_string()
    }

    #[test]
    fn what_is_no_regular_file_is_refused_and_nobody_waits_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR, 0).unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("pipe", &link).unwrap();

        for path in [&pipe, &link, folder.path(), Path::new("/dev/zero")] {
            assert_eq!(refusal(path), "it is not a regular file", "{path:?}");
        }
    }

    #[test]
    fn a_link_to_a_file_is_that_file() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("key"), "secret").unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("key", &link).unwrap();

        assert_eq!(read(&link).unwrap(), "secret");
    }
}
