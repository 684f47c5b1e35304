//! What can go wrong with a table, in words that name the file and the line.

use ktrdr_worker::OperationError;

use crate::datetime::InvalidTimeFormat;

/// The longest piece of a cell that a message or a result repeats, in characters.
const SHOWN_CHARS: usize = 200;

/// Why a table could not be worked with.
#[derive(Debug, thiserror::Error)]
pub(super) enum DataError {
    /// The source is not there.
    #[error("source file {file:?} does not exist in the data directory")]
    SourceMissing { file: String },
    /// The source is a directory or a device.
    #[error("source file {file:?} is not a regular file")]
    NotAFile { file: String },
    /// No record at all.
    #[error("{file}: the file is empty, not even a header")]
    Empty { file: String },
    /// Bytes that are not text.
    #[error("{file}, line {line}: the record is not valid UTF-8")]
    NotUtf8 { file: String, line: u64 },
    /// A quote that never closes.
    #[error("{file}, line {line}: a quoted cell in this record is never closed")]
    UnterminatedQuote { file: String, line: u64 },
    /// A record beyond what is held in memory.
    #[error(
        "{file}, line {line}: the record is longer than {limit} bytes; is a closing quote missing?"
    )]
    RecordTooLong {
        file: String,
        line: u64,
        limit: usize,
    },
    /// A record with too few or too many cells.
    #[error("{file}, line {line}: the record has {found} cells, the header has {expected}")]
    CellCount {
        file: String,
        line: u64,
        expected: usize,
        found: usize,
    },
    /// A cell that does not parse, with `on_invalid: "fail"`.
    #[error("{file}, line {line}: {value:?} in column {column:?} is not {expected}")]
    InvalidCell {
        file: String,
        line: u64,
        column: String,
        value: String,
        expected: String,
    },
    /// Two columns of one name.
    #[error("{place}: column name {name:?} occurs more than once, so it names no column")]
    DuplicateColumn { place: String, name: String },
    /// A column the table does not have.
    #[error("{place}: there is no column {name:?}; the columns are {known}")]
    UnknownColumn {
        place: String,
        name: String,
        known: String,
    },
    /// The request asks for something that makes no sense.
    #[error("{0}")]
    Request(String),
    /// The file is another one than it was when the run began.
    #[error("{file} changed while it was being read; start the operation again")]
    SourceChanged { file: String },
    /// The file system said no.
    #[error("cannot {doing} {file:?}: {source}")]
    Io {
        doing: &'static str,
        file: String,
        source: std::io::Error,
    },
    /// Not about the data: cancelled, or a path that leaves the data directory.
    #[error(transparent)]
    Operation(#[from] OperationError),
}

impl DataError {
    /// For `map_err` around file system calls.
    pub(super) fn io(doing: &'static str, file: &str) -> impl FnOnce(std::io::Error) -> Self {
        let file = file.to_owned();
        move |source| Self::Io {
            doing,
            file,
            source,
        }
    }
}

impl From<InvalidTimeFormat> for DataError {
    fn from(error: InvalidTimeFormat) -> Self {
        Self::Request(error.to_string())
    }
}

impl From<DataError> for OperationError {
    fn from(error: DataError) -> Self {
        let message = error.to_string();
        match error {
            DataError::Operation(error) => error,
            DataError::SourceMissing { .. } | DataError::NotAFile { .. } => {
                Self::permanent("source_not_found", message)
            }
            DataError::DuplicateColumn { .. }
            | DataError::UnknownColumn { .. }
            | DataError::Request(_) => Self::invalid(message),
            // Another attempt may find the disk free again or the file at rest.
            DataError::Io { .. } | DataError::SourceChanged { .. } => Self::failed(message),
            _ => Self::permanent("invalid_data", message),
        }
    }
}

/// The text of a cell for a message or a result, cut when it is long.
pub(super) fn shown(cell: &[u8]) -> String {
    let text = String::from_utf8_lossy(cell);
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text.into_owned(),
    }
}
