//! The file a run reads, once or several times.

use std::fs::{File, Metadata};
use std::io::{ErrorKind, Seek};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::error::DataError;
use super::reader::CsvReader;

/// An open source file. It stays the same file when another is put in its place.
pub(super) struct Source {
    file: File,
    name: String,
    metadata: Metadata,
}

impl Source {
    /// Opens `path`, called `name` in the request.
    pub(super) fn open(path: &Path, name: &str) -> Result<Self, DataError> {
        let file = File::open(path).map_err(|error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => DataError::SourceMissing { file: name.to_owned() },
            _ => DataError::io("open", name)(error),
        })?;
        let metadata = file.metadata().map_err(DataError::io("read", name))?;
        if !metadata.is_file() {
            return Err(DataError::NotAFile { file: name.to_owned() });
        }
        Ok(Self { file, name: name.to_owned(), metadata })
    }

    /// Its name in the request.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Its size in bytes.
    pub(super) fn len(&self) -> u64 {
        self.metadata.len()
    }

    /// Whether `path` is this very file, by whatever name.
    pub(super) fn is_at(&self, path: &Path) -> bool {
        path.metadata().is_ok_and(|other| (other.dev(), other.ino()) == (self.metadata.dev(), self.metadata.ino()))
    }

    /// A reader from the first byte on.
    pub(super) fn read(&self) -> Result<CsvReader<&File>, DataError> {
        (&self.file).rewind().map_err(DataError::io("read", &self.name))?;
        Ok(CsvReader::new(&self.file, &self.name))
    }

    /// Fails when the file was written to since it was opened: passes would not agree with each other.
    pub(super) fn check_unchanged(&self) -> Result<(), DataError> {
        let now = self.file.metadata().map_err(DataError::io("read", &self.name))?;
        let state = |metadata: &Metadata| (metadata.len(), metadata.mtime(), metadata.mtime_nsec());
        if state(&now) != state(&self.metadata) {
            return Err(DataError::SourceChanged { file: self.name.clone() });
        }
        Ok(())
    }
}
