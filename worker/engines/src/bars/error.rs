//! What can be wrong with a file of bars.

use ktrdr_worker::OperationError;

/// Why bars could not be read. Every message names the file, and the line where there is one.
#[derive(Debug, thiserror::Error)]
pub enum BarsError {
    /// There is no file for this symbol and timeframe.
    #[error(
        "{file}: no such file in the data directory: check symbol and timeframe, or add the file"
    )]
    NotFound {
        /// The file.
        file: String,
    },
    /// The name leads out of the data directory, or another reason not to look at it.
    #[error(transparent)]
    Refused(OperationError),
    /// The file could not be read.
    #[error("{file}: {source}")]
    Io {
        /// The file.
        file: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A column is missing from the header, or is there twice.
    #[error("{file}: the header names column {column:?} {times} times, and must name it once")]
    Column {
        /// The file.
        file: String,
        /// The column.
        column: &'static str,
        /// How often it is there.
        times: usize,
    },
    /// A line that is no bar.
    #[error("{file}, line {line}: {problem}")]
    Line {
        /// The file.
        file: String,
        /// The line, from 1 for the header.
        line: u64,
        /// What is wrong with it.
        problem: String,
    },
    /// No bar lies in the range asked for.
    #[error("{file}: no bars between {start} and {end}; the file holds {held}")]
    NoneInRange {
        /// The file.
        file: String,
        /// The first moment asked for.
        start: String,
        /// The last moment asked for.
        end: String,
        /// What the file has.
        held: String,
    },
    /// There are bars, and too few of them.
    #[error("{file}: {found} bars in the range are too few: {needed_by} needs at least {needed}")]
    TooFew {
        /// The file.
        file: String,
        /// How many there are.
        found: usize,
        /// How many it takes.
        needed: usize,
        /// What takes so many.
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
            // A file system that fails may recover; all else stays wrong until somebody changes the file or the request.
            BarsError::Io { .. } => return Self::failed(error.to_string()),
            BarsError::NotFound { .. } => "bars_not_found",
            BarsError::Column { .. } | BarsError::Line { .. } => "invalid_bars",
            BarsError::NoneInRange { .. } | BarsError::TooFew { .. } => "insufficient_data",
        };

        Self::permanent(code, error.to_string())
    }
}
