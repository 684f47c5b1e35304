//! The check of each rule (`docs/engines/data_processing.md`, "validate").

use std::collections::HashSet;

use chrono::NaiveDateTime;
use serde::{Deserialize, Serialize};

use super::params::Rule;
use crate::data_processing::error::DataError;
use crate::data_processing::numbers::NumberFormat;
use crate::data_processing::row::Row;
use crate::data_processing::table::Table;
use crate::data_processing::text::trim;
use crate::data_processing::text_set::TextSet;
use crate::data_processing::time_format::TimeFormats;
use crate::datetime::{Ambiguous, TimeReader, parse_cell};

/// Stands in place of a column in rules about whole rows.
pub(super) const NO_COLUMN: &str = "*";

/// A rule with its columns looked up.
pub(super) struct PlannedRule {
    /// The column's name, or `*`.
    pub(super) column: String,
    /// The rule's name.
    pub(super) name: &'static str,
    subject: Subject,
    /// How the column writes numbers.
    numbers: NumberFormat,
}

/// The state of a rule. Most rules need only the count.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct RuleState {
    /// Number of violations.
    pub(super) count: u64,
    /// Number of cells, or of rows, that the rule could not compare.
    pub(super) not_compared: u64,
    seen: TextSet,
    last: Last,
}

/// The cells that a rule checks.
enum Subject {
    /// The untrimmed cell.
    RawCell(usize),
    /// The trimmed cell. Missing cells pass.
    Cell(usize, CellRule),
    /// The trimmed cell must not be missing.
    NotNull(usize),
    /// Indexes of open, high, low and close, and how they write numbers.
    Ohlc([(usize, NumberFormat); 4]),
    /// All cells, untrimmed.
    WholeRow,
}

enum CellRule {
    Number,
    Integer,
    Time(TimeReader),
    Min(f64),
    Max(f64),
    Allowed(HashSet<Vec<u8>>),
    Unique,
    Increasing,
}

/// The last number and the last time of a column.
#[derive(Default, Serialize, Deserialize)]
struct Last {
    number: Option<f64>,
    time: Option<NaiveDateTime>,
}

impl PlannedRule {
    /// Looks up the columns of `rule`.
    pub(super) fn new(rule: &Rule, table: &Table) -> Result<Self, DataError> {
        let of_column = |column: &str, name, subject: fn(usize) -> Subject| {
            let index = table.index(column)?;
            Ok(Self {
                column: column.to_owned(),
                name,
                subject: subject(index),
                numbers: table.columns[index].numbers,
            })
        };
        let cell = |column: &str, name, rule| {
            let index = table.index(column)?;
            Ok(Self {
                column: column.to_owned(),
                name,
                subject: Subject::Cell(index, rule),
                numbers: table.columns[index].numbers,
            })
        };

        let row = |name, subject| {
            Ok(Self {
                column: NO_COLUMN.to_owned(),
                name,
                subject,
                numbers: NumberFormat::default(),
            })
        };

        match rule {
            Rule::Trimmed { column } => of_column(column, "trimmed", Subject::RawCell),
            Rule::NotNull { column } => of_column(column, "not_null", Subject::NotNull),
            Rule::Number { column } => cell(column, "number", CellRule::Number),
            Rule::Integer { column } => cell(column, "integer", CellRule::Integer),
            Rule::Datetime { column, format } => {
                let formats = format.as_ref().map_or(&[][..], TimeFormats::as_slice);
                let reader =
                    TimeReader::new(formats, None, Ambiguous::default()).map_err(|error| {
                        table.request_error(format_args!("rule for column {column:?}: {error}"))
                    })?;
                cell(column, "datetime", CellRule::Time(reader))
            }
            Rule::Min { column, value } => cell(column, "min", CellRule::Min(*value)),
            Rule::Max { column, value } => cell(column, "max", CellRule::Max(*value)),
            Rule::Allowed { column, values } => {
                let values = values
                    .iter()
                    .map(|value| value.clone().into_bytes())
                    .collect();
                cell(column, "allowed", CellRule::Allowed(values))
            }
            Rule::Unique { column } => cell(column, "unique", CellRule::Unique),
            Rule::Increasing { column } => cell(column, "increasing", CellRule::Increasing),
            Rule::Ohlc {} => {
                let [open, high, low, close] = ["open", "high", "low", "close"].map(|name| {
                    let index = table.index(name)?;
                    Ok::<_, DataError>((index, table.columns[index].numbers))
                });
                row("ohlc", Subject::Ohlc([open?, high?, low?, close?]))
            }
            Rule::DuplicateRow {} => row("duplicate_row", Subject::WholeRow),
        }
    }

    /// Whether `row` satisfies the rule. Updates `state`.
    pub(super) fn holds(&self, row: &Row, null_values: &[Vec<u8>], state: &mut RuleState) -> bool {
        let is_null =
            |cell: &[u8]| cell.is_empty() || null_values.iter().any(|value| value == cell);
        let numbers = self.numbers;
        match &self.subject {
            Subject::RawCell(index) => trim(row.cell(*index)).len() == row.cell(*index).len(),
            Subject::NotNull(index) => !is_null(trim(row.cell(*index))),
            Subject::Cell(index, rule) => {
                let cell = trim(row.cell(*index));
                is_null(cell) || rule.holds(cell, numbers, state)
            }
            Subject::Ohlc(columns) => {
                let prices = columns.map(|(index, numbers)| numbers.number(trim(row.cell(index))));
                ohlc_holds(prices, state)
            }
            Subject::WholeRow => state.seen.insert(row.iter()),
        }
    }

    /// The text that violates the rule. None when the rule is not about one cell.
    pub(super) fn value<'a>(&self, row: &'a Row) -> Option<&'a [u8]> {
        match self.subject {
            Subject::RawCell(index) => Some(row.cell(index)),
            Subject::Cell(index, _) | Subject::NotNull(index) => Some(trim(row.cell(index))),
            Subject::Ohlc(_) | Subject::WholeRow => None,
        }
    }
}

impl CellRule {
    fn holds(&self, cell: &[u8], numbers: NumberFormat, state: &mut RuleState) -> bool {
        let holds = match self {
            Self::Number => Some(numbers.is_number(cell)),
            Self::Integer => Some(numbers.is_integer(cell)),
            Self::Time(reader) => Some(reader.matches(cell)),
            Self::Min(least) => numbers.number(cell).map(|x| x >= *least),
            Self::Max(greatest) => numbers.number(cell).map(|x| x <= *greatest),
            Self::Allowed(values) => Some(values.contains(cell)),
            Self::Unique => Some(state.seen.insert(std::iter::once(cell))),
            Self::Increasing => state.last.is_passed_by(cell, numbers),
        };

        state.not_compared += u64::from(holds.is_none());
        holds.unwrap_or(true)
    }
}

impl Last {
    /// Whether `cell` is greater than the last number or the last time, and replaces that one in
    /// any case. None for a cell that is neither a number nor a time.
    fn is_passed_by(&mut self, cell: &[u8], numbers: NumberFormat) -> Option<bool> {
        if let Some(x) = numbers.number(cell) {
            return Some(self.number.replace(x).is_none_or(|last| x > last));
        }
        let time = parse_cell(cell)?;
        Some(self.time.replace(time).is_none_or(|last| time > last))
    }
}

fn ohlc_holds(cells: [Option<f64>; 4], state: &mut RuleState) -> bool {
    let [Some(open), Some(high), Some(low), Some(close)] = cells else {
        state.not_compared += 1;
        return true;
    };
    high >= open && high >= close && high >= low && low <= open && low <= close
}
