//! The source file, which a run reads once or several times.

use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;

use serde::{Deserialize, Serialize};

use super::decode::{Coding, Decoded};
use super::error::DataError;
use super::input::InputOptions;
use super::reader::{CsvReader, Dialect};
use ktrdr_worker::{DataDir, FileError};

/// An open source file. It stays the same file when somebody replaces it by name.
pub(super) struct Source {
    file: File,
    name: String,
    metadata: Metadata,
    coding: Coding,
    dialect: Dialect,
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
    /// Opens the file that the request calls `name`, which is written as `input` says.
    pub(super) fn open(
        data_dir: &DataDir,
        name: &str,
        input: &InputOptions,
    ) -> Result<Self, DataError> {
        let dialect = input.dialect()?;
        let file = data_dir.open(name).map_err(|error| match error {
            FileError::NotAFile { name } => DataError::NotAFile { file: name },
            FileError::NotFound { name } => DataError::SourceMissing { file: name },
            other => DataError::File(other),
        })?;
        let metadata = file.metadata().map_err(DataError::io("read", name))?;

        let coding = Coding::of(&file, metadata.len(), input.encoding())
            .map_err(|error| DataError::reading(name, error))?;

        Ok(Self {
            file,
            name: name.to_owned(),
            metadata,
            coding,
            dialect,
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
    pub(super) fn read(&self) -> Result<CsvReader<Decoded<'_>>, DataError> {
        let decoded = self
            .coding
            .open(&self.file, self.len())
            .map_err(|error| DataError::reading(&self.name, error))?;
        Ok(CsvReader::new(decoded, &self.name, self.dialect))
    }

    /// Returns a reader that resumes behind the record that ended at byte `offset` of the text in
    /// line `line`.
    pub(super) fn read_from(
        &self,
        offset: u64,
        line: u64,
    ) -> Result<CsvReader<Decoded<'_>>, DataError> {
        let decoded = self
            .coding
            .open_at(&self.file, self.len(), offset)
            .map_err(|error| DataError::reading(&self.name, error))?;
        Ok(CsvReader::resume(
            decoded,
            &self.name,
            self.dialect,
            offset,
            line,
        ))
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
