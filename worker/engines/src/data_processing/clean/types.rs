//! Checks the types of cells (`docs/engines/data_processing.md`, "clean", step 3).

use super::params::{CellType, CleanParams};
use crate::data_processing::error::DataError;
use crate::data_processing::row::Row;
use crate::data_processing::table::Table;
use crate::data_processing::text::{is_integer, is_number};
use crate::datetime::{TimeFormat, parse_cell};

/// A column that has a type.
pub(super) struct TypedColumn {
    pub(super) index: usize,
    pub(super) name: String,
    check: Check,
}

enum Check {
    Number,
    Integer,
    Time,
    TimeFormat(TimeFormat),
}

impl TypedColumn {
    /// All columns that have a type, in the order of the table.
    pub(super) fn all(params: &CleanParams, table: &Table) -> Result<Vec<Self>, DataError> {
        let mut columns = Vec::with_capacity(params.types.len());
        for (name, cell_type) in &params.types {
            let check = match &cell_type.0 {
                CellType::Number {} => Check::Number,
                CellType::Integer {} => Check::Integer,
                CellType::Datetime { format: None } => Check::Time,
                CellType::Datetime {
                    format: Some(format),
                } => Check::TimeFormat(TimeFormat::new(format)?),
            };

            columns.push(Self {
                index: table.index(name)?,
                name: name.clone(),
                check,
            });
        }

        columns.sort_by_key(|column| column.index);

        Ok(columns)
    }

    /// Whether the cell has the type of the column. Missing cells are accepted. A time in a given
    /// format is rewritten.
    pub(super) fn accept(&self, row: &mut Row, scratch: &mut Vec<u8>) -> bool {
        let cell = row.cell(self.index);
        if cell.is_empty() {
            return true;
        }

        match &self.check {
            Check::Number => is_number(cell),
            Check::Integer => is_integer(cell),
            Check::Time => parse_cell(cell).is_some(),
            Check::TimeFormat(format) => {
                let parsed = format.rewrite(cell, scratch);
                if parsed {
                    row.set(self.index, scratch);
                }
                parsed
            }
        }
    }

    /// The type, for messages.
    pub(super) fn expected(&self) -> &'static str {
        match self.check {
            Check::Number => "a number",
            Check::Integer => "an integer",
            Check::Time => "a time in ISO 8601",
            Check::TimeFormat(_) => "a time in the format given",
        }
    }
}
