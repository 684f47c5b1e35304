//! Errors of reading bars.

use ktrdr_worker::OperationError;

/// Why bars could not be read. Every message names the file, and the line where there is one.
#[derive(Debug, thiserror::Error)]
pub enum BarsError {
    /// No file exists for this symbol and timeframe.
    #[error(
        "{file}: the file does not exist in the data directory: check symbol and timeframe, or add the file"
    )]
    NotFound {
        /// The path of the file, relative to the data directory.
        file: String,
    },
    /// The data directory refuses the path.
    #[error(transparent)]
    Refused(OperationError),
    /// The file could not be read.
    #[error("{file}: {source}")]
    Io {
        /// The path of the file, relative to the data directory.
        file: String,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// The header does not name a column exactly once.
    #[error(
        "{file}: the header names column {column:?} {times} times; it must name it exactly once"
    )]
    Column {
        /// The path of the file, relative to the data directory.
        file: String,
        /// The name of the column.
        column: &'static str,
        /// How often the header names it.
        times: usize,
    },
    /// A line is not a valid bar.
    #[error("{file}, line {line}: {problem}")]
    Line {
        /// The path of the file, relative to the data directory.
        file: String,
        /// The line number; the header is line 1.
        line: u64,
        /// The problem.
        problem: String,
    },
    /// More bars lie in the range than fit into memory.
    #[error("{file}: more than {most} bars are selected: give a shorter range with start and end")]
    TooMany {
        /// The path of the file, relative to the data directory.
        file: String,
        /// The most bars that are accepted.
        most: usize,
    },
    /// No bar lies in the requested range.
    #[error("{file}: no bars between {start} and {end}; the file holds {held}")]
    NoneInRange {
        /// The path of the file, relative to the data directory.
        file: String,
        /// The start of the requested range.
        start: String,
        /// The end of the requested range.
        end: String,
        /// The range of the bars in the file.
        held: String,
    },
    /// The range has too few bars.
    #[error("{file}: {found} bars in the range are too few: {needed_by} needs at least {needed}")]
    TooFew {
        /// The path of the file, relative to the data directory.
        file: String,
        /// Number of bars in the range.
        found: usize,
        /// Number of bars needed.
        needed: usize,
        /// What needs them.
        needed_by: String,
    },
    /// The operation was cancelled while the file was read.
    #[error("cancelled")]
    Cancelled,
}

impl From<BarsError> for OperationError {
    fn from(error: BarsError) -> Self {
        let code = match error {
            BarsError::Cancelled => return Self::Cancelled,
            BarsError::Refused(refusal) => return refusal,
            // A file system can recover. All other errors stay until somebody changes the file or
            // the request.
            BarsError::Io { .. } => return Self::failed(error.to_string()),
            BarsError::NotFound { .. } => "bars_not_found",
            BarsError::Column { .. } | BarsError::Line { .. } => "invalid_bars",
            BarsError::TooMany { .. } => "too_many_bars",
            BarsError::NoneInRange { .. } | BarsError::TooFew { .. } => "insufficient_data",
        };

        Self::permanent(code, error.to_string())
    }
}
