//! The directory that requests may read from and write to.

use std::fs::File;
use std::path::{Component, Path, PathBuf};

use crate::engine::error::OperationError;

/// The data directory (`KTRDR_DATA_DIR`). Paths in requests are relative to it and cannot leave it.
#[derive(Debug, Clone)]
pub struct DataDir {
    root: PathBuf,
}

impl DataDir {
    /// A data directory at `root`, which may not exist yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The full path of `relative`, which may not exist yet.
    ///
    /// # Errors
    /// A permanent error when the path is empty, is absolute, contains `..`, or leaves the
    /// directory through a symbolic link.
    pub fn resolve(&self, relative: &str) -> Result<PathBuf, OperationError> {
        let refuse = |why: &str| {
            Err(OperationError::invalid(format!(
                "path {relative:?} {why}: give a path relative to the data directory that stays inside it"
            )))
        };
        let path = Path::new(relative);
        if relative.is_empty() || relative.contains('\0') {
            return refuse("names no file");
        }
        if !path
            .components()
            .all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
        {
            return refuse("leaves the data directory");
        }
        let full = self.root.join(path);
        // A link inside the directory may point outside, so the existing part of the path decides.
        let mut existing = full.as_path();
        while !existing.exists() && existing.symlink_metadata().is_err() {
            match existing.parent() {
                Some(parent) if parent.starts_with(&self.root) => existing = parent,
                _ => return Ok(full),
            }
        }
        let root = self.root.canonicalize();
        match (existing.canonicalize(), root) {
            (Ok(real), Ok(root)) if !real.starts_with(&root) => {
                refuse("leads out of the data directory")
            }
            (Err(_), Ok(_)) => refuse("is a link that leads nowhere"),
            _ => Ok(full),
        }
    }
}

/// Opens a regular file for reading. Anything else is refused: opening a pipe, for example, would
/// wait for a writer forever.
///
/// # Errors
/// [`InvalidInput`](std::io::ErrorKind::InvalidInput) when `path` is not a regular file; otherwise
/// the error of the system.
pub fn open_file(path: &Path) -> std::io::Result<File> {
    if std::fs::metadata(path)?.is_file() {
        return File::open(path);
    }
    Err(std::io::Error::new(
        std::io::ErrorKind::InvalidInput,
        "it is not a regular file",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_are_opened() {
        let temp = tempfile::tempdir().unwrap();
        let pipe = temp.path().join("pipe");
        assert!(
            std::process::Command::new("mkfifo")
                .arg(&pipe)
                .status()
                .unwrap()
                .success()
        );
        for path in [pipe.as_path(), temp.path()] {
            assert_eq!(
                open_file(path).unwrap_err().kind(),
                std::io::ErrorKind::InvalidInput
            );
        }
        assert_eq!(
            open_file(&temp.path().join("no")).unwrap_err().kind(),
            std::io::ErrorKind::NotFound
        );
    }

    #[test]
    fn paths_stay_inside() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::new(temp.path().join("data"));
        std::fs::create_dir_all(dir.root().join("sub")).unwrap();
        std::fs::write(temp.path().join("secret"), "").unwrap();
        std::os::unix::fs::symlink("../secret", dir.root().join("link")).unwrap();
        std::os::unix::fs::symlink("..", dir.root().join("up")).unwrap();
        std::os::unix::fs::symlink("gone", dir.root().join("dangling")).unwrap();
        for good in [
            "a.csv",
            "sub/a.csv",
            "./a.csv",
            "new/deep/a.csv",
            "a..b",
            "ü.csv",
        ] {
            assert!(dir.resolve(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "/etc/passwd",
            "../secret",
            "sub/../../secret",
            "link",
            "up/secret",
            "up/new",
            "dangling",
            "a\0b",
        ] {
            assert!(dir.resolve(bad).is_err(), "{bad}");
        }
    }
}
