//! The errors of this engine. Their messages name the file and the line.

use super::decode::is_bad_data;
use ktrdr_worker::{FileError, OperationError, OutputError};

/// Longest text of a cell in a message or a result, in characters.
const SHOWN_CHARS: usize = 200;

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum DataError {
    /// The source file does not exist.
    #[error("source file {file:?} does not exist in the data directory")]
    SourceMissing { file: String },
    /// The source is a directory or a device.
    #[error("source file {file:?} is not a regular file")]
    NotAFile { file: String },
    /// The source has no record.
    #[error("{file}: the file is empty; it must have at least a header")]
    Empty { file: String },
    /// A record is not valid UTF-8.
    #[error(
        "{file}, line {line}: the record is not valid UTF-8: set input.encoding, such as windows-1252, if the file has another encoding"
    )]
    NotUtf8 { file: String, line: u64 },
    /// The source cannot be decoded.
    #[error("{file}: {problem}")]
    NotDecoded { file: String, problem: String },
    /// A record holds a NUL byte, which no text has.
    #[error(
        "{file}, line {line}: the record holds a NUL byte, so the file is no text in UTF-8: if it is UTF-16, set input.encoding to utf-16le or utf-16be"
    )]
    NulByte { file: String, line: u64 },
    /// Text follows the closing quote of a cell.
    #[error(
        "{file}, line {line}: text follows the closing quote of a cell in this record: is a quote missing or not doubled? Set input.quote to null if quotes have no meaning"
    )]
    StrayQuote { file: String, line: u64 },
    /// A quoted cell is not closed.
    #[error("{file}, line {line}: a quoted cell in this record is never closed")]
    UnterminatedQuote { file: String, line: u64 },
    /// A record is longer than the reader accepts.
    #[error(
        "{file}, line {line}: the record is longer than {limit} bytes; is a closing quote missing?"
    )]
    RecordTooLong {
        file: String,
        line: u64,
        limit: usize,
    },
    /// A record has too few or too many cells.
    #[error("{file}, line {line}: the record has {found} cells, the header has {expected}")]
    CellCount {
        file: String,
        line: u64,
        expected: usize,
        found: usize,
    },
    /// A cell does not have the type of its column, with `on_invalid: "fail"`.
    #[error("{file}, line {line}: {value:?} in column {column:?} is not {expected}")]
    InvalidCell {
        file: String,
        line: u64,
        column: String,
        value: String,
        expected: String,
    },
    /// The rows to sort do not fit into memory.
    #[error(
        "sort: the rows take more than {mebibytes} MiB: filter or select first, or sort the file with another program"
    )]
    TooLargeToSort { mebibytes: usize },
    /// Two columns have the same name.
    #[error(
        "{place}: column name {name:?} occurs more than once: give every column a different name"
    )]
    DuplicateColumn { place: String, name: String },
    /// The table has no column of this name.
    #[error("{place}: there is no column {name:?}; the columns are {known}")]
    UnknownColumn {
        place: String,
        name: String,
        known: String,
    },
    /// The request is invalid.
    #[error("{0}")]
    Request(String),
    /// The source file changed during the run.
    #[error("{file} changed while it was being read; start the operation again")]
    SourceChanged { file: String },
    /// A file system call failed.
    #[error("cannot {doing} {file:?}: {source}")]
    Io {
        doing: &'static str,
        file: String,
        source: std::io::Error,
    },
    /// The output cannot be written, or may not.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// The source cannot be opened.
    #[error(transparent)]
    File(FileError),
    /// The operation was cancelled.
    #[error(transparent)]
    Operation(#[from] OperationError),
}

impl DataError {
    /// The error of reading a source. Bad content stays bad; a file system can recover.
    pub(super) fn reading(file: &str, source: std::io::Error) -> Self {
        let file = file.to_owned();
        match source.kind() {
            std::io::ErrorKind::UnexpectedEof => Self::NotDecoded {
                file,
                problem: "the file ends too early: it is not complete".to_owned(),
            },
            _ if is_bad_data(&source) => Self::NotDecoded {
                file,
                problem: source.to_string(),
            },
            _ => Self::Io {
                doing: "read",
                file,
                source,
            },
        }
    }

    /// Returns a function for `map_err` after file system calls.
    pub(super) fn io(doing: &'static str, file: &str) -> impl FnOnce(std::io::Error) -> Self {
        let file = file.to_owned();
        move |source| Self::Io {
            doing,
            file,
            source,
        }
    }
}

impl From<DataError> for OperationError {
    fn from(error: DataError) -> Self {
        let message = error.to_string();
        match error {
            DataError::Operation(error) => error,
            DataError::Output(error) => error.into(),
            DataError::File(error) => error.into(),
            DataError::SourceMissing { .. } | DataError::NotAFile { .. } => {
                Self::permanent("source_not_found", message)
            }
            DataError::DuplicateColumn { .. }
            | DataError::UnknownColumn { .. }
            | DataError::Request(_) => Self::invalid(message),
            // Not permanent: a later attempt may find free disk space or an unchanged file.
            DataError::Io { .. } | DataError::SourceChanged { .. } => Self::failed(message),
            _ => Self::permanent("invalid_data", message),
        }
    }
}

/// The text of a cell for a message or a result, shortened when it is long.
pub(super) fn shown(cell: &[u8]) -> String {
    let text = String::from_utf8_lossy(cell);
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text.into_owned(),
    }
}
