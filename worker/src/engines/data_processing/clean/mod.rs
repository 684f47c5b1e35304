//! `clean`: the rules are in `docs/engines/data_processing.md`, "clean".

mod duplicates;
mod missing;
mod params;
#[cfg(test)]
mod tests;
mod types;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use self::duplicates::DuplicateFinder;
use self::missing::Missing;
pub use self::params::{CellType, CleanParams, Duplicates, MissingPolicy, OnInvalid};
use self::types::TypedColumn;
use super::error::{DataError, shown};
use super::operation::{Operation, OperationResult, check_decimals};
use super::row::{Row, Span};
use super::table::Table;
use super::text::trimmed_range;

/// What cleaning did.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub struct CleanResult {
    /// Rows of the table before.
    pub rows_in: u64,
    /// Rows of the table after.
    pub rows_out: u64,
    /// Data cells that lost white space.
    pub cells_trimmed: u64,
    /// Cells that were null values other than the empty text.
    pub cells_nulled: u64,
    /// Cells that were not of their column's type.
    pub cells_invalid: u64,
    /// Rows dropped for such a cell.
    pub rows_dropped_invalid: u64,
    /// Rows dropped because they equal an earlier one.
    pub rows_dropped_duplicate: u64,
    /// Rows dropped for a missing cell.
    pub rows_dropped_missing: u64,
    /// Missing cells that were given a text.
    pub cells_filled: u64,
    /// That text, by column; null when there was nothing to learn it from.
    pub fill_values: BTreeMap<String, Option<String>>,
    /// The columns of the table after.
    pub columns: Vec<String>,
}

/// The operation, ready to run.
pub(super) struct Clean {
    file: String,
    trim: bool,
    null_values: Vec<Vec<u8>>,
    types: Vec<TypedColumn>,
    on_invalid: OnInvalid,
    duplicates: DuplicateFinder,
    missing: Missing,
    decimals: usize,
    /// The first pass whose rows are right: the one that learns.
    ready_in: usize,
    learns: bool,
    pass: usize,
    scratch: Vec<u8>,
    result: CleanResult,
}

impl Clean {
    /// Plans the operation on `table`, and makes of `table` what it will leave.
    pub(super) fn plan(params: &CleanParams, file: &str, table: &mut Table) -> Result<Self, DataError> {
        if params.trim {
            for column in &mut table.columns {
                column.name = column.name.trim().to_owned();
            }
            table.check_names()?;
        }
        let missing = Missing::new(params, table)?;
        let ready_in = table.all_known_in();
        let clean = Self {
            file: file.to_owned(),
            trim: params.trim,
            null_values: params.null_values.iter().filter(|v| !v.is_empty()).map(|v| v.clone().into_bytes()).collect(),
            types: TypedColumn::all(params, table)?,
            on_invalid: params.on_invalid,
            duplicates: DuplicateFinder::new(&params.drop_duplicates, table)?,
            learns: missing.filled.iter().any(|column| column.is_learnt()),
            missing,
            decimals: check_decimals(params.decimals, table)?,
            ready_in,
            pass: 0,
            scratch: Vec::new(),
            result: CleanResult { columns: table.names(), ..CleanResult::default() },
        };
        table.rows_known_in = ready_in;
        for column in &mut table.columns {
            column.known_in = ready_in;
        }
        for column in clean.missing.filled.iter().filter(|column| column.is_learnt()) {
            table.columns[column.index].known_in = ready_in + 1;
            table.require_pass(ready_in + 1);
        }
        Ok(clean)
    }

    /// Trims every cell and empties null values.
    fn trim_and_null(&mut self, row: &mut Row) {
        for span in &mut row.cells {
            if self.trim {
                let kept = trimmed_range(&row.bytes[span.start..span.end]);
                self.result.cells_trimmed += u64::from(kept.len() != span.end - span.start);
                *span = Span { start: span.start + kept.start, end: span.start + kept.end };
            }
            let cell = &row.bytes[span.start..span.end];
            if !cell.is_empty() && self.null_values.iter().any(|value| value == cell) {
                self.result.cells_nulled += 1;
                *span = Span::EMPTY;
            }
        }
    }

    /// Checks the types; false when the row is dropped.
    fn check_types(&mut self, row: &mut Row) -> Result<bool, DataError> {
        let mut keep = true;
        for column in &self.types {
            if column.accept(row, &mut self.scratch) {
                continue;
            }
            self.result.cells_invalid += 1;
            match self.on_invalid {
                OnInvalid::Null => row.clear_cell(column.index),
                OnInvalid::DropRow => keep = false,
                OnInvalid::Fail => {
                    return Err(DataError::InvalidCell {
                        file: self.file.clone(),
                        line: row.line,
                        column: column.name.clone(),
                        value: shown(row.cell(column.index)),
                        expected: column.expected().to_owned(),
                    });
                }
            }
        }
        Ok(keep)
    }
}

impl Operation for Clean {
    fn begin_pass(&mut self, pass: usize, _last: bool) {
        self.pass = pass;
        self.duplicates.begin_pass();
        self.missing.begin_pass();
        self.result = CleanResult { columns: std::mem::take(&mut self.result.columns), ..CleanResult::default() };
    }

    fn row(&mut self, row: &mut Row) -> Result<bool, DataError> {
        if self.pass < self.ready_in {
            return Ok(false);
        }
        self.result.rows_in += 1;
        self.trim_and_null(row);
        if !self.types.is_empty() && !self.check_types(row)? {
            self.result.rows_dropped_invalid += 1;
            return Ok(false);
        }
        if self.duplicates.is_duplicate(row) {
            self.result.rows_dropped_duplicate += 1;
            return Ok(false);
        }
        if self.learns_in(self.pass) {
            self.missing.learn(row);
        }
        if self.missing.drops(row) {
            self.result.rows_dropped_missing += 1;
            return Ok(false);
        }
        self.result.cells_filled += self.missing.fill(row);
        self.result.rows_out += 1;
        Ok(true)
    }

    fn end_pass(&mut self) {
        if self.pass >= self.ready_in {
            self.duplicates.finish();
        }
        if self.learns_in(self.pass) {
            self.missing.finish_learning(self.decimals);
        }
    }

    fn learns_in(&self, pass: usize) -> bool {
        self.learns && pass == self.ready_in
    }

    fn errors(&self) -> u64 {
        self.result.cells_invalid
    }

    fn result(self: Box<Self>) -> OperationResult {
        let mut result = self.result;
        for column in self.missing.filled.iter().filter(|column| !column.is_previous()) {
            let text = column.text().map(|text| String::from_utf8_lossy(text).into_owned());
            result.fill_values.insert(column.name.clone(), text);
        }
        OperationResult::Clean(result)
    }
}
