//! The operation `clean`. Its rules are in `docs/engines/data_processing.md`, "clean".

mod missing;
mod params;
#[cfg(test)]
mod tests;
mod types;

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::missing::{Fill, Missing};
pub(super) use self::params::different_separators;
pub use self::params::{CellType, CleanParams, Duplicates, MissingPolicy, OnInvalid};
use self::types::{TypedCells, TypedColumn};
use super::duplicates::{FoundDuplicates, Key};
use super::error::{DataError, shown};
use super::operation::{Operation, check_decimals};
use super::row::{Row, Span};
use super::state;
use super::table::Table;
use super::text::{Places, trimmed_range};
use crate::warnings::Warnings;

/// The result of `clean`.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct CleanResult {
    /// Rows before the operation.
    pub rows_in: u64,
    /// Rows after the operation.
    pub rows_out: u64,
    /// Data cells changed by `trim`.
    pub cells_trimmed: u64,
    /// Non-empty cells made missing because they were null values.
    pub cells_nulled: u64,
    /// Cells that did not have the type of their column.
    pub cells_invalid: u64,
    /// Rows dropped because of an invalid cell.
    pub rows_dropped_invalid: u64,
    /// Rows dropped because they equal an earlier one.
    pub rows_dropped_duplicate: u64,
    /// Rows dropped because a required cell was missing.
    pub rows_dropped_missing: u64,
    /// Missing cells that were filled.
    pub cells_filled: u64,
    /// The text that filled them, by column. Null when there was nothing to learn it from.
    pub fill_values: BTreeMap<String, Option<String>>,
    /// The columns after the operation.
    pub columns: Vec<String>,
}

/// The planned operation.
pub(super) struct Clean {
    file: String,
    trim: bool,
    null_values: Vec<Vec<u8>>,
    types: Vec<TypedColumn>,
    on_invalid: OnInvalid,
    duplicates: Key,
    missing: Missing,
    places: Places,
    /// The first pass with final rows. The operation learns in it.
    ready_in: usize,
    learns: bool,
    pass: usize,
    scratch: Vec<u8>,
    /// Cells of the row that became missing because they did not have their type.
    invalid: Vec<(usize, Span)>,
    columns: Vec<String>,
    state: CleanState,
}

/// The state: values learnt from the table, and counters.
#[derive(Serialize, Deserialize)]
struct CleanState {
    duplicates: FoundDuplicates,
    /// One for each filled column.
    fills: Vec<Fill>,
    /// One for each column that has a type, in this pass.
    types: Vec<TypedCells>,
    /// The counters. `columns` and `fill_values` are set in the result only.
    figures: CleanResult,
}

impl Clean {
    /// Plans the operation and changes `table` to the table after it.
    pub(super) fn plan(
        params: &CleanParams,
        file: &str,
        table: &mut Table,
    ) -> Result<Self, DataError> {
        if params.trim {
            for column in &mut table.columns {
                column.name = column.name.trim().to_owned();
            }
            table.check_unique_names()?;
        }

        // Types come first: they change how numbers are written.
        let types = TypedColumn::all(params, table)?;
        let (missing, fills) = Missing::new(params, table)?;
        let ready_in = table.all_known_in();
        let typed_cells = types.iter().map(|_| TypedCells::default()).collect();
        let clean = Self {
            file: file.to_owned(),
            trim: params.trim,
            null_values: params
                .null_values
                .iter()
                .filter(|v| !v.is_empty())
                .map(|v| v.clone().into_bytes())
                .collect(),
            types,
            on_invalid: params.on_invalid,
            duplicates: plan_duplicates(&params.drop_duplicates, table)?,
            learns: fills.iter().any(Fill::is_learnt),
            missing,
            places: check_decimals(params.decimals, table)?,
            ready_in,
            pass: 0,
            scratch: Vec::new(),
            invalid: Vec::new(),
            columns: table.names(),
            state: CleanState {
                duplicates: FoundDuplicates::default(),
                fills,
                types: typed_cells,
                figures: CleanResult::default(),
            },
        };

        table.rows_known_in = ready_in;

        for column in &mut table.columns {
            column.known_in = ready_in;
        }

        let learnt = clean
            .missing
            .filled
            .iter()
            .zip(&clean.state.fills)
            .filter(|(_, fill)| fill.is_learnt());

        for (column, _) in learnt {
            table.columns[column.index].known_in = ready_in + 1;
            table.require_pass(ready_in + 1);
        }

        Ok(clean)
    }

    /// The counts after the last pass.
    pub(super) fn into_result(self) -> CleanResult {
        let CleanState { fills, figures, .. } = self.state;
        let mut result = CleanResult {
            columns: self.columns,
            ..figures
        };

        for (column, fill) in self
            .missing
            .filled
            .iter()
            .zip(fills)
            .filter(|(_, fill)| !fill.is_previous())
        {
            let text = fill
                .text()
                .map(|text| String::from_utf8_lossy(text).into_owned());
            result.fill_values.insert(column.name.clone(), text);
        }
        result
    }

    /// Trims every cell and makes null values missing.
    fn trim_and_null(&mut self, row: &mut Row) {
        for span in &mut row.cells {
            if self.trim {
                let kept = trimmed_range(&row.bytes[span.start..span.end]);
                self.state.figures.cells_trimmed += u64::from(kept.len() != span.end - span.start);
                *span = Span {
                    start: span.start + kept.start,
                    end: span.start + kept.end,
                };
            }

            let cell = &row.bytes[span.start..span.end];
            if !cell.is_empty() && self.null_values.iter().any(|value| value == cell) {
                self.state.figures.cells_nulled += 1;
                *span = Span::EMPTY;
            }
        }
    }

    /// Checks the types. Returns false when the row is dropped.
    fn check_types(&mut self, row: &mut Row) -> Result<bool, DataError> {
        let mut keep = true;
        for (column, seen) in self.types.iter().zip(&mut self.state.types) {
            if column.accept(row, seen, &mut self.scratch) {
                continue;
            }

            self.state.figures.cells_invalid += 1;

            match self.on_invalid {
                OnInvalid::Null => {
                    self.invalid.push((column.index, row.cells[column.index]));
                    row.clear_cell(column.index);
                }
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

/// The cells that make two rows equal.
fn plan_duplicates(params: &Duplicates, table: &Table) -> Result<Key, DataError> {
    match params {
        Duplicates::Whole(false) => Ok(Key::None),
        Duplicates::Whole(true) => Ok(Key::All),
        Duplicates::Columns(names) if names.is_empty() => {
            Err(table
                .request_error("drop_duplicates names no column: use false to keep duplicates"))
        }
        Duplicates::Columns(names) => Ok(Key::Columns(table.indexes(names)?)),
    }
}

impl Operation for Clean {
    fn begin_pass(&mut self, pass: usize, _last: bool) {
        self.pass = pass;
        self.state.duplicates.begin_pass();
        self.state.fills.iter_mut().for_each(Fill::begin_pass);
        self.state.types.fill_with(TypedCells::default);
        self.state.figures = CleanResult::default();
    }

    fn process_row(&mut self, row: &mut Row) -> Result<bool, DataError> {
        if self.pass < self.ready_in {
            return Ok(false);
        }

        self.state.figures.rows_in += 1;
        self.invalid.clear();
        self.trim_and_null(row);

        if !self.types.is_empty() && !self.check_types(row)? {
            self.state.figures.rows_dropped_invalid += 1;
            return Ok(false);
        }

        // A row that step 5 drops must not take a complete one with it.
        let stays = matches!(self.duplicates, Key::All) || !self.missing.drops(row);
        if self
            .state
            .duplicates
            .is_duplicate(&self.duplicates, row, &self.invalid, stays)
        {
            self.state.figures.rows_dropped_duplicate += 1;
            return Ok(false);
        }

        if self.learns_in(self.pass) {
            self.missing.learn(row, &mut self.state.fills);
        }

        if self.missing.drops(row) {
            self.state.figures.rows_dropped_missing += 1;
            return Ok(false);
        }

        self.state.figures.cells_filled += self.missing.fill(row, &mut self.state.fills);
        self.state.figures.rows_out += 1;

        Ok(true)
    }

    fn end_pass(&mut self) {
        if self.pass >= self.ready_in {
            self.state.duplicates.finish();
        }
        if self.learns_in(self.pass) {
            for (fill, column) in self.state.fills.iter_mut().zip(&self.missing.filled) {
                fill.finish_learning(self.places, column.numbers);
            }
        }
    }

    fn learns_in(&self, pass: usize) -> bool {
        self.learns && pass == self.ready_in
    }

    fn errors(&self) -> u64 {
        self.state.figures.cells_invalid
    }

    fn warn(&self, place: &str, warnings: &mut Warnings) {
        for (column, seen) in self.types.iter().zip(&self.state.types) {
            column.warn(seen, place, warnings);
        }
    }

    fn save(&self, output: &mut dyn Write) -> io::Result<()> {
        state::write(&self.state, output)
    }

    fn restore(&mut self, input: &mut dyn Read) -> io::Result<()> {
        let planned = (self.state.fills.len(), self.state.types.len());
        self.state = state::read(input)?;
        state::check_len(self.state.fills.len(), planned.0)?;
        state::check_len(self.state.types.len(), planned.1)?;
        state::check_counts(&self.state.types)?;
        state::check_counts(&self.state.figures)
    }
}
