//! Why an output cannot be written.

use std::io;

use crate::engine::data_dir::FileError;
use crate::engine::error::OperationError;

/// Why an output cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The name cannot be that of an output.
    #[error("output file {name:?} {why}: give another name")]
    Name {
        /// The name in the request.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The path leaves the data directory.
    #[error(transparent)]
    Path(#[from] FileError),
    /// Another operation has written the file while this one ran.
    #[error(
        "output file {name:?} was written by {by} while this operation ran: give each operation a name of its own, or run one after the other"
    )]
    Taken {
        /// The name, relative to the data directory.
        name: String,
        /// The operation that wrote it, as far as the file tells.
        by: String,
    },
    /// A file has this name, and this operation may not replace it.
    #[error(
        "output file {name:?} exists, and this operation did not write it: give another name, remove the file, or set overwrite to true"
    )]
    Exists {
        /// The name, relative to the data directory.
        name: String,
    },
    /// The system refuses to write.
    #[error("cannot write {name:?}: {source}")]
    Io {
        /// The name, relative to the data directory.
        name: String,
        /// The error of the system.
        source: io::Error,
    },
    /// The operation was cancelled, or another attempt has taken over.
    #[error(transparent)]
    Stopped(#[from] OperationError),
}

impl From<OutputError> for OperationError {
    fn from(error: OutputError) -> Self {
        let message = error.to_string();
        match error {
            OutputError::Name { .. } => Self::invalid(message),
            OutputError::Path(error) => error.into(),
            OutputError::Exists { .. } => Self::permanent("output_exists", message),
            OutputError::Taken { .. } => Self::permanent("output_taken", message),
            // A disk may have room later.
            OutputError::Io { .. } => Self::failed(message),
            OutputError::Stopped(error) => error,
        }
    }
}
