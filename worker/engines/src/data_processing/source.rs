//! The source file, which a run reads once or several times.

use std::fs::{File, Metadata};
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;

use serde::{Deserialize, Serialize};

use super::error::DataError;
use super::reader::CsvReader;
use ktrdr_worker::{DataDir, FileError};

/// An open source file. It stays the same file when somebody replaces it by name.
pub(super) struct Source {
    file: File,
    name: String,
    metadata: Metadata,
}

/// Size and modification time of a file. Writing to the file changes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Fingerprint {
    len: u64,
    modified: i64,
    modified_ns: i64,
}

impl Fingerprint {
    fn of(metadata: &Metadata) -> Self {
        Self {
            len: metadata.len(),
            modified: metadata.mtime(),
            modified_ns: metadata.mtime_nsec(),
        }
    }
}

impl Source {
    /// Opens the file that the request calls `name`.
    pub(super) fn open(data_dir: &DataDir, name: &str) -> Result<Self, DataError> {
        let file = data_dir.open(name).map_err(|error| match error {
            FileError::NotAFile { name } => DataError::NotAFile { file: name },
            FileError::NotFound { name } => DataError::SourceMissing { file: name },
            other => DataError::File(other),
        })?;
        let metadata = file.metadata().map_err(DataError::io("read", name))?;

        Ok(Self {
            file,
            name: name.to_owned(),
            metadata,
        })
    }

    /// The name in the request.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The size in bytes.
    pub(super) fn len(&self) -> u64 {
        self.metadata.len()
    }

    /// Whether `name` in the data directory is this file, also through a link.
    pub(super) fn is_at(&self, data_dir: &DataDir, name: &str) -> bool {
        let other = data_dir
            .open(name)
            .ok()
            .and_then(|file| file.metadata().ok());
        other.is_some_and(|other| {
            (other.dev(), other.ino()) == (self.metadata.dev(), self.metadata.ino())
        })
    }

    /// Returns a reader from the first byte on.
    pub(super) fn read(&self) -> Result<CsvReader<&File>, DataError> {
        (&self.file)
            .rewind()
            .map_err(DataError::io("read", &self.name))?;
        Ok(CsvReader::new(&self.file, &self.name))
    }

    /// Returns a reader that resumes behind the record that ended at byte `offset` in line `line`.
    pub(super) fn read_from(&self, offset: u64, line: u64) -> Result<CsvReader<&File>, DataError> {
        (&self.file)
            .seek(SeekFrom::Start(offset))
            .map_err(DataError::io("read", &self.name))?;
        Ok(CsvReader::resume(&self.file, &self.name, offset, line))
    }

    /// The fingerprint when the file was opened.
    pub(super) fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.metadata)
    }

    /// Fails when the file changed since it was opened, because passes would read different rows.
    pub(super) fn check_unchanged(&self) -> Result<(), DataError> {
        let now = self
            .file
            .metadata()
            .map_err(DataError::io("read", &self.name))?;

        if Fingerprint::of(&now) != self.fingerprint() {
            return Err(DataError::SourceChanged {
                file: self.name.clone(),
            });
        }

        Ok(())
    }
}
