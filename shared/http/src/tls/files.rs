//! The files of certificate and key, and whether they have changed.

use std::path::PathBuf;

use ktrdr_bus::file_stamp::FileStamp;

/// Where certificate and key are.
#[derive(Debug, Clone)]
pub(super) struct Files {
    pub(super) cert: PathBuf,
    pub(super) key: PathBuf,
}

/// The state of both files. Two equal ones mean the same contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamp([Option<FileStamp>; 2]);

impl Files {
    /// The state of the files now.
    pub(super) fn stamp(&self) -> Stamp {
        Stamp([&self.cert, &self.key].map(|path| FileStamp::of(path).ok()))
    }
}
