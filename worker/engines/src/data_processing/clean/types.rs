//! Checks the types of cells (`docs/engines/data_processing.md`, "clean", step 3).

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::params::{CellType, CleanParams};
use crate::data_processing::error::DataError;
use crate::data_processing::numbers::NumberFormat;
use crate::data_processing::row::Row;
use crate::data_processing::table::Table;
use crate::data_processing::time_format::TimeFormats;
use crate::datetime::{TimeCell, TimeReader, TimesRead};
use crate::warnings::Warnings;

/// A column that has a type.
pub(super) struct TypedColumn {
    pub(super) index: usize,
    pub(super) name: String,
    check: Check,
}

/// What was seen of a typed column in a pass.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct TypedCells {
    /// Cells that are not missing.
    present: u64,
    invalid: u64,
    times: TimesRead,
}

enum Check {
    Number(NumberFormat),
    Integer(NumberFormat),
    Time(TimeReader),
}

impl TypedColumn {
    /// All columns that have a type, in the order of the table. Numbers in them have the plain form
    /// afterwards.
    pub(super) fn all(params: &CleanParams, table: &mut Table) -> Result<Vec<Self>, DataError> {
        let mut columns = Vec::with_capacity(params.types.len());
        for (name, cell_type) in &params.types {
            let index = table.index(name)?;
            columns.push(Self {
                index,
                name: name.clone(),
                check: Check::new(&cell_type.0, name, index, table)?,
            });
        }

        columns.sort_by_key(|column| column.index);

        for column in &columns {
            table.columns[column.index].numbers = NumberFormat::default();
        }

        Ok(columns)
    }

    /// Whether the cell has the type of the column. Missing cells are accepted. A number with
    /// separators and a time in a given format are rewritten.
    pub(super) fn accept(
        &self,
        row: &mut Row,
        seen: &mut TypedCells,
        scratch: &mut Vec<u8>,
    ) -> bool {
        let cell = row.cell(self.index);
        if cell.is_empty() {
            return true;
        }

        seen.present += 1;

        let accepted = match &self.check {
            Check::Number(numbers) | Check::Integer(numbers) => {
                let whole = matches!(self.check, Check::Integer(_));
                match numbers.plain(cell) {
                    Some(plain) if !whole || numbers.is_integer(cell) => {
                        if let Cow::Owned(plain) = plain {
                            row.set(self.index, &plain);
                        }
                        true
                    }
                    _ => false,
                }
            }
            Check::Time(reader) => match reader.read(cell, &mut seen.times, scratch) {
                TimeCell::Kept => true,
                TimeCell::Rewritten => {
                    row.set(self.index, scratch);
                    true
                }
                TimeCell::Invalid => false,
            },
        };

        seen.invalid += u64::from(!accepted);
        accepted
    }

    /// The type, for messages.
    pub(super) fn expected(&self) -> &'static str {
        match &self.check {
            Check::Number(_) => "a number",
            Check::Integer(_) => "an integer",
            Check::Time(reader) if reader.has_formats() => "a time in the format given",
            Check::Time(_) => "a time in ISO 8601",
        }
    }

    /// Adds what a person should know about the cells.
    pub(super) fn warn(&self, seen: &TypedCells, place: &str, warnings: &mut Warnings) {
        let column = &self.name;

        if seen.present > 0 && seen.invalid == seen.present {
            let (count, expected) = (seen.present, self.expected());
            warnings.add(format!(
                "{place}: none of the {count} cells of column {column:?} is {expected}"
            ));
        }
        if seen.times.ambiguous > 0 {
            let count = seen.times.ambiguous;
            warnings.add(format!(
                "{place}: the clock shows {count} times of column {column:?} twice, because it was set back; `ambiguous` says which one is meant"
            ));
        }
        if seen.times.cut > 0 {
            let count = seen.times.cut;
            warnings.add(format!(
                "{place}: {count} times of column {column:?} lost a fraction of a second"
            ));
        }
    }
}

impl Check {
    fn new(
        cell_type: &CellType,
        name: &str,
        index: usize,
        table: &Table,
    ) -> Result<Self, DataError> {
        let of_file = table.columns[index].numbers;
        let refuse = |error: &dyn std::fmt::Display| {
            table.request_error(format_args!("type of column {name:?}: {error}"))
        };

        Ok(match cell_type {
            CellType::Number { decimal, thousands } => Self::Number(
                of_file
                    .or(*decimal, *thousands)
                    .map_err(|error| refuse(&error))?,
            ),
            CellType::Integer { thousands } => Self::Integer(
                of_file
                    .or(None, *thousands)
                    .map_err(|error| refuse(&error))?,
            ),
            CellType::Datetime {
                format,
                zone,
                ambiguous,
            } => {
                let formats = format.as_ref().map_or(&[][..], TimeFormats::as_slice);
                let reader = TimeReader::new(formats, zone.as_deref(), *ambiguous)
                    .map_err(|error| refuse(&error))?;
                Self::Time(reader)
            }
        })
    }
}
