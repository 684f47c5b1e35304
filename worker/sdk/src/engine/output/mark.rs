//! The mark of an output: who wrote it.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;

use ktrdr_protocol::id::OperationId;
use rustix::fs::fgetxattr;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// The extended attribute of an output.
pub(super) const MARK: &str = "user.ktrdr.output";

/// Bytes that a mark may have. An operation id and a name are much shorter.
const MAX_MARK: usize = 4096;

/// Who wrote a file. It holds as long as the file has this name, length and time.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    pub(super) operation_id: OperationId,
    pub(super) worker_type: String,
    /// SHA-256 of the parameters. Retries and resumes of an operation have the same.
    pub(super) parameters: String,
    /// Whether the engine made the name.
    pub(super) derived: bool,
    pub(super) name: String,
    pub(super) len: u64,
    pub(super) modified: i64,
}

impl Mark {
    /// Whether the mark is that of the file with this name.
    pub(super) fn holds(&self, name: &str, metadata: &Metadata) -> bool {
        self.name == name && self.len == metadata.len() && self.modified == metadata.mtime()
    }
}

/// The mark of a file; none when it has none that can be read.
pub(super) fn read_mark(file: &File) -> io::Result<Option<Mark>> {
    let mut bytes = [0; MAX_MARK];
    match fgetxattr(file, MARK, &mut bytes[..]) {
        Ok(len) => Ok(serde_json::from_slice(&bytes[..len]).ok()),
        Err(Errno::NOTSUP) => Err(Errno::NOTSUP.into()),
        Err(_) => Ok(None),
    }
}
