//! The columns of a table before any row is read, and the pass in which each column has its final
//! cells.
//!
//! All operations of a request run in one chain, row by row; no table between two operations is
//! written to disk. Where a rule needs a figure of a whole column (a median, a standard deviation),
//! the source is read once more: pass `k` learns the figure, and the cells computed with it are
//! right from pass `k + 1` on. Operations that do not depend on each other learn in the same pass.
//! The last pass writes the output.

use super::error::DataError;
use super::numbers::NumberFormat;
use super::row::Row;

/// One column.
#[derive(Debug, Clone)]
pub(super) struct Column {
    pub(super) name: String,
    /// The first pass in which the cells have their final text.
    pub(super) known_in: usize,
    /// How its cells write numbers.
    pub(super) numbers: NumberFormat,
}

/// A table between two operations.
#[derive(Debug, Clone)]
pub(super) struct Table {
    pub(super) columns: Vec<Column>,
    /// The first pass in which the table has exactly its final rows.
    pub(super) rows_known_in: usize,
    /// The last pass: everything is known in it.
    pub(super) last_pass: usize,
    /// The place that messages name: the header of a file, or an operation.
    place: String,
}

impl Table {
    /// Creates the table with the columns in `header`, whose cells write numbers as `numbers`.
    pub(super) fn new(file: &str, header: &Row, numbers: NumberFormat) -> Result<Self, DataError> {
        let column = |cell| Column {
            name: String::from_utf8_lossy(cell).into_owned(),
            known_in: 0,
            numbers,
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

    /// Makes messages name operation `index` (from 0), called `name`.
    pub(super) fn set_place(&mut self, index: usize, name: &str) {
        self.place = format!("operation {} ({name})", index + 1);
    }

    /// The index of column `name`.
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

    /// The indexes of the columns in `names`.
    pub(super) fn indexes(&self, names: &[String]) -> Result<Vec<usize>, DataError> {
        names.iter().map(|name| self.index(name)).collect()
    }

    /// Fails when two columns have the same name.
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

    /// The first pass in which an operation can learn from column `index`: its cells and the rows
    /// are final.
    pub(super) fn learnable_in(&self, index: usize) -> usize {
        self.columns[index].known_in.max(self.rows_known_in)
    }

    /// The first pass in which an operation can learn from all columns in `indexes`.
    pub(super) fn learnable_in_all(&self, indexes: &[usize]) -> usize {
        let known = indexes.iter().map(|index| self.columns[*index].known_in);
        known.fold(self.rows_known_in, usize::max)
    }

    /// The first pass in which every cell and the rows are final.
    pub(super) fn all_known_in(&self) -> usize {
        self.columns
            .iter()
            .map(|column| column.known_in)
            .max()
            .unwrap_or(0)
            .max(self.rows_known_in)
    }

    /// Makes the run do at least the passes up to `pass`.
    pub(super) fn require_pass(&mut self, pass: usize) {
        self.last_pass = self.last_pass.max(pass);
    }

    /// The place that messages name.
    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// An error in the request, with the place.
    pub(super) fn request_error(&self, reason: impl std::fmt::Display) -> DataError {
        DataError::Request(format!("{}: {reason}", self.place))
    }
}
