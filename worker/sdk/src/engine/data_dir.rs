//! The directory that requests may read from and write to.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, OnceLock};

use cap_std::ambient_authority;
use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt};
use rustix::fs::OFlags;

use crate::engine::error::OperationError;

/// The data directory (`KTRDR_DATA_DIR`). Paths in requests are relative to it and cannot leave it.
///
/// The directory is opened once for an attempt, and every file is reached from that descriptor. The
/// kernel refuses a path that leads out of the directory, also when somebody puts a symbolic link
/// in place of a folder while the attempt runs. Links inside the directory may be relative only.
#[derive(Debug, Clone)]
pub struct DataDir {
    root: PathBuf,
    /// Where outputs go, relative to the root; empty for everywhere (`KTRDR_OUTPUT_DIR`).
    outputs: PathBuf,
    held: Arc<OnceLock<Dir>>,
}

/// Why a file of the data directory cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The path is empty, is absolute, contains `..`, or leaves the directory through a link.
    #[error("path {name:?} {why}: give a path relative to the data directory that stays inside it")]
    Path {
        /// The path in the request.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// No file has this name.
    #[error("{name}: the file does not exist in the data directory")]
    NotFound {
        /// The path in the request.
        name: String,
    },
    /// It is a directory, a pipe or a device.
    #[error("{name}: it is not a regular file")]
    NotAFile {
        /// The path in the request.
        name: String,
    },
    /// The system refuses to open or to read it.
    #[error("{name}: {source}")]
    Io {
        /// The path in the request.
        name: String,
        /// The error of the system.
        source: io::Error,
    },
}

impl From<FileError> for OperationError {
    fn from(error: FileError) -> Self {
        let message = error.to_string();
        match error {
            FileError::Path { .. } | FileError::NotAFile { .. } => Self::invalid(message),
            FileError::NotFound { .. } => Self::permanent("file_not_found", message),
            // A file system can recover.
            FileError::Io { .. } => Self::failed(message),
        }
    }
}

impl DataDir {
    /// A data directory at `root`, which may not exist yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            outputs: PathBuf::new(),
            held: Arc::default(),
        }
    }

    /// The same directory, in which outputs go only below `folder`, a relative path.
    ///
    /// # Errors
    /// [`FileError::Path`] when `folder` cannot hold outputs.
    pub fn with_outputs_below(self, folder: &str) -> Result<Self, FileError> {
        let outputs = relative(folder)?;
        if outputs.as_os_str().is_empty() {
            return Err(refuse(folder, "names no folder"));
        }
        if is_hidden(&outputs) {
            return Err(refuse(folder, "is hidden"));
        }
        Ok(Self { outputs, ..self })
    }

    /// The same directory, opened anew when it is used.
    pub(crate) fn reopened(&self) -> Self {
        Self {
            held: Arc::default(),
            ..self.clone()
        }
    }

    /// The path of the directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of outputs, relative to the directory: empty, or `KTRDR_OUTPUT_DIR`.
    pub fn outputs(&self) -> &Path {
        &self.outputs
    }

    /// The open directory. Paths given to it cannot leave it.
    ///
    /// # Errors
    /// The error of the system when it cannot be opened, such as
    /// [`NotFound`](io::ErrorKind::NotFound).
    pub fn dir(&self) -> io::Result<&Dir> {
        if let Some(dir) = self.held.get() {
            return Ok(dir);
        }
        let dir = Dir::open_ambient_dir(&self.root, ambient_authority())?;
        Ok(self.held.get_or_init(|| dir))
    }

    /// [`Self::dir`], which is created when it does not exist.
    pub(crate) fn create_dir(&self) -> io::Result<&Dir> {
        match self.dir() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                std::fs::create_dir_all(&self.root)?;
                self.dir()
            }
            opened => opened,
        }
    }

    /// Opens the file that a request calls `name`, for reading.
    ///
    /// # Errors
    /// [`FileError`] when the path leaves the directory, when the file does not exist or is not a
    /// regular file, or when the system refuses it.
    pub fn open(&self, name: &str) -> Result<File, FileError> {
        let path = relative(name)?;
        let name = || name.to_owned();

        // The directory itself.
        if path.as_os_str().is_empty() {
            return Err(FileError::NotAFile { name: name() });
        }

        self.open_path(&path).map_err(|source| match source.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => FileError::NotFound { name: name() },
            ErrorKind::InvalidInput => FileError::NotAFile { name: name() },
            _ if leads_out(&source) => refuse(&name(), "leads out of the data directory"),
            _ => FileError::Io {
                name: name(),
                source,
            },
        })
    }

    /// Opens a regular file for reading. `path` is relative to the directory.
    ///
    /// # Errors
    /// [`InvalidInput`](std::io::ErrorKind::InvalidInput) when it is not a regular file; otherwise
    /// the error of the system.
    pub fn open_path(&self, path: &Path) -> io::Result<File> {
        // Without the flags, to open a pipe would wait for a writer forever.
        let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(flags.bits().cast_signed());

        let file = self.dir()?.open_with(path, &options)?.into_std();

        if file.metadata()?.is_file() {
            Ok(file)
        } else {
            Err(io::Error::new(
                ErrorKind::InvalidInput,
                "it is not a regular file",
            ))
        }
    }

    /// The full path of `relative`, which may not exist yet; for programs that an engine starts.
    ///
    /// It is checked now and may lead elsewhere later. [`Self::open`] and
    /// [`Context::output`](crate::Context::output) do not have this gap.
    ///
    /// # Errors
    /// A permanent error when the path is empty, is absolute, contains `..`, or leaves the directory
    /// through a symbolic link.
    pub fn resolve(&self, relative_path: &str) -> Result<PathBuf, OperationError> {
        let path = relative(relative_path)?;
        let full = self.root.join(&path);
        let Ok(dir) = self.dir() else {
            return Ok(full);
        };

        // A link inside the directory may point outside, so the existing part of the path decides.
        match real_path(dir, &path) {
            Ok(_) => Ok(full),
            Err(error) if leads_out(&error) => {
                Err(refuse(relative_path, "leads out of the data directory").into())
            }
            Err(_) => Err(refuse(relative_path, "is a link that leads nowhere").into()),
        }
    }
}

fn refuse(name: &str, why: &'static str) -> FileError {
    FileError::Path {
        name: name.to_owned(),
        why,
    }
}

/// `name` as a path without `.` and `..`. It is empty for the directory itself.
pub(crate) fn relative(name: &str) -> Result<PathBuf, FileError> {
    if name.is_empty() || name.contains('\0') {
        return Err(refuse(name, "names no file"));
    }

    Path::new(name)
        .components()
        .filter(|part| *part != Component::CurDir)
        .map(|part| match part {
            Component::Normal(part) => Ok(part),
            _ => Err(refuse(name, "leaves the data directory")),
        })
        .collect()
}

/// Whether a part of the path is hidden. `.unfinished` is.
pub(crate) fn is_hidden(path: &Path) -> bool {
    let starts_with_dot = |part: &OsStr| part.as_encoded_bytes().starts_with(b".");
    path.iter().any(starts_with_dot)
}

/// Whether the path leads out of the directory. The error comes from the library, not the system.
pub(crate) fn leads_out(error: &io::Error) -> bool {
    error.kind() == ErrorKind::PermissionDenied && error.raw_os_error().is_none()
}

/// `path` without links, relative to `dir`. The last parts of it may not exist yet.
pub(crate) fn real_path(dir: &Dir, path: &Path) -> io::Result<PathBuf> {
    for existing in path.ancestors() {
        if existing.as_os_str().is_empty() {
            break;
        }

        match dir.canonicalize(existing) {
            Ok(real) => {
                let missing = path.strip_prefix(existing).unwrap_or(Path::new(""));
                return Ok(real.join(missing));
            }
            Err(error)
                if error.kind() == ErrorKind::NotFound
                    && dir.symlink_metadata(existing).is_err() => {}
            Err(error) => return Err(error),
        }
    }

    Ok(path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_are_opened() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::new(temp.path());
        let pipe = temp.path().join("pipe");
        assert!(
            std::process::Command::new("mkfifo")
                .arg(&pipe)
                .status()
                .unwrap()
                .success()
        );

        for name in ["pipe", "."] {
            let error = dir.open(name).unwrap_err();
            assert!(matches!(error, FileError::NotAFile { .. }), "{error:?}");
        }
        assert!(matches!(
            dir.open("no").unwrap_err(),
            FileError::NotFound { .. }
        ));
    }

    #[test]
    fn paths_stay_inside() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::new(temp.path().join("data"));
        std::fs::create_dir_all(dir.root().join("sub")).unwrap();
        std::fs::write(temp.path().join("secret"), "").unwrap();
        std::fs::write(dir.root().join("sub/there"), "").unwrap();
        std::os::unix::fs::symlink("../secret", dir.root().join("link")).unwrap();
        std::os::unix::fs::symlink("..", dir.root().join("up")).unwrap();
        std::os::unix::fs::symlink("gone", dir.root().join("dangling")).unwrap();
        std::os::unix::fs::symlink("sub", dir.root().join("inside")).unwrap();

        for good in [
            "a.csv",
            "sub/a.csv",
            "./a.csv",
            "new/deep/a.csv",
            "a..b",
            "ü.csv",
        ] {
            assert!(dir.resolve(good).is_ok(), "{good}");
            assert!(
                matches!(dir.open(good), Err(FileError::NotFound { .. })),
                "{good}"
            );
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
            assert!(dir.open(bad).is_err(), "{bad}");
        }

        assert!(matches!(dir.open("link"), Err(FileError::Path { .. })));
        assert!(dir.open("inside/there").is_ok());
    }

    #[test]
    fn a_folder_that_becomes_a_link_leads_nowhere() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::new(temp.path().join("data"));
        std::fs::create_dir_all(dir.root().join("sub")).unwrap();
        std::fs::create_dir(temp.path().join("outside")).unwrap();
        std::fs::write(temp.path().join("outside/a"), "secret").unwrap();
        assert!(dir.resolve("sub/a").is_ok());

        std::fs::remove_dir(dir.root().join("sub")).unwrap();
        std::os::unix::fs::symlink("../outside", dir.root().join("sub")).unwrap();

        assert!(matches!(dir.open("sub/a"), Err(FileError::Path { .. })));
    }
}
