//! What is known of a table before any row is read: its columns, and from which pass on their cells are right.
//!
//! The operations of a request are done in one go, row by row, without writing the tables between them to disk. Where a
//! rule needs a figure of a whole column (a median, a standard deviation), the source is read once more: pass `k` learns it, and
//! the cells made with it are right from pass `k + 1` on. Everything else can already be learnt while they are not. The last
//! pass writes.

use super::error::DataError;
use super::row::Row;

/// One column.
#[derive(Debug, Clone)]
pub(super) struct Column {
    pub(super) name: String,
    /// The first pass in which its cells are right.
    pub(super) known_in: usize,
}

/// A table, as one operation leaves it to the next.
#[derive(Debug, Clone)]
pub(super) struct Table {
    pub(super) columns: Vec<Column>,
    /// The first pass in which exactly the right rows are in it.
    pub(super) rows_known_in: usize,
    /// The pass in which everything is known.
    pub(super) last_pass: usize,
    /// Where it came from, for messages.
    place: String,
}

impl Table {
    /// The table that `header` begins.
    pub(super) fn new(file: &str, header: &Row) -> Result<Self, DataError> {
        let column = |cell| Column {
            name: String::from_utf8_lossy(cell).into_owned(),
            known_in: 0,
        };
        let columns = header.iter().map(column).collect();
        let table = Self {
            columns,
            rows_known_in: 0,
            last_pass: 0,
            place: format!("{file}, header"),
        };

        table.check_unique_names()?;

        Ok(table)
    }

    /// Says in messages that it is about operation `index` (from 0), a `name`.
    pub(super) fn set_place(&mut self, index: usize, name: &str) {
        self.place = format!("operation {} ({name})", index + 1);
    }

    /// The position of column `name`.
    pub(super) fn index(&self, name: &str) -> Result<usize, DataError> {
        self.columns
            .iter()
            .position(|column| column.name == name)
            .ok_or_else(|| DataError::UnknownColumn {
                place: self.place.clone(),
                name: name.to_owned(),
                known: self.names().join(", "),
            })
    }

    /// Fails when two columns have one name.
    pub(super) fn check_unique_names(&self) -> Result<(), DataError> {
        let mut names: Vec<&str> = self
            .columns
            .iter()
            .map(|column| column.name.as_str())
            .collect();

        names.sort_unstable();

        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(DataError::DuplicateColumn {
                place: self.place.clone(),
                name: pair[0].to_owned(),
            }),
            None => Ok(()),
        }
    }

    /// The names of all columns.
    pub(super) fn names(&self) -> Vec<String> {
        self.columns
            .iter()
            .map(|column| column.name.clone())
            .collect()
    }

    /// The first pass in which column `index` can be learnt from: its cells are right, and so are the rows.
    pub(super) fn learnable_in(&self, index: usize) -> usize {
        self.columns[index].known_in.max(self.rows_known_in)
    }

    /// The first pass in which every cell is right.
    pub(super) fn all_known_in(&self) -> usize {
        self.columns
            .iter()
            .map(|column| column.known_in)
            .max()
            .unwrap_or(0)
            .max(self.rows_known_in)
    }

    /// Makes sure that pass `pass` is done.
    pub(super) fn require_pass(&mut self, pass: usize) {
        self.last_pass = self.last_pass.max(pass);
    }

    /// A mistake in the request, with its place.
    pub(super) fn request_error(&self, reason: impl std::fmt::Display) -> DataError {
        DataError::Request(format!("{}: {reason}", self.place))
    }
}
