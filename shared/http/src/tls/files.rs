//! The files of certificate and key, and whether they have changed.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where certificate and key are.
#[derive(Debug, Clone)]
pub(super) struct Files {
    pub(super) cert: PathBuf,
    pub(super) key: PathBuf,
}

/// The state of both files. Two equal ones mean the same contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamp([Option<FileStamp>; 2]);

/// The state of one file behind all links. The time of change is set by every write, rename and
/// change of the mode, and programs cannot set it back.
#[derive(Debug, Clone, PartialEq, Eq)]
struct FileStamp {
    device: u64,
    inode: u64,
    length: u64,
    changed: (i64, i64),
}

impl From<Metadata> for FileStamp {
    fn from(file: Metadata) -> Self {
        Self {
            device: file.dev(),
            inode: file.ino(),
            length: file.size(),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }
}

impl Files {
    /// The state of the files now.
    pub(super) fn stamp(&self) -> Stamp {
        let stamp = |path: &Path| std::fs::metadata(path).ok().map(FileStamp::from);
        Stamp([stamp(&self.cert), stamp(&self.key)])
    }
}
