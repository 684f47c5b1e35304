//! The check of each rule (`docs/engines/data_processing.md`, "validate").

use std::collections::HashSet;

use chrono::NaiveDateTime;
use serde::{Deserialize, Serialize};

use super::params::Rule;
use crate::data_processing::error::DataError;
use crate::data_processing::row::Row;
use crate::data_processing::table::Table;
use crate::data_processing::text::{is_integer, is_number, number, trim};
use crate::data_processing::text_set::TextSet;
use crate::datetime::{TimeFormat, parse_cell};

/// Stands in place of a column in rules about whole rows.
pub(super) const NO_COLUMN: &str = "*";

/// A rule with its columns looked up.
pub(super) struct PlannedRule {
    /// The column's name, or `*`.
    pub(super) column: String,
    /// The rule's name.
    pub(super) name: &'static str,
    subject: Subject,
}

/// The state of a rule. Most rules need only the count.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct RuleState {
    /// Number of violations.
    pub(super) count: u64,
    seen: TextSet,
    last: Last,
}

/// The cells that a rule checks.
enum Subject {
    /// The untrimmed cell.
    RawCell(usize),
    /// The trimmed cell. Null values pass.
    Cell(usize, CellRule),
    /// The trimmed cell must not be a null value.
    NotNull(usize),
    /// Indexes of open, high, low and close.
    Ohlc([usize; 4]),
    /// All cells, untrimmed.
    WholeRow,
}

enum CellRule {
    Number,
    Integer,
    Time,
    TimeFormat(TimeFormat, Vec<u8>),
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
        let cell = |column: &str, name, rule| {
            let subject = Subject::Cell(table.index(column)?, rule);
            Ok(Self {
                column: column.to_owned(),
                name,
                subject,
            })
        };

        let row = |name, subject| {
            Ok(Self {
                column: NO_COLUMN.to_owned(),
                name,
                subject,
            })
        };

        match rule {
            Rule::Trimmed { column } => Ok(Self {
                column: column.clone(),
                name: "trimmed",
                subject: Subject::RawCell(table.index(column)?),
            }),
            Rule::NotNull { column } => Ok(Self {
                column: column.clone(),
                name: "not_null",
                subject: Subject::NotNull(table.index(column)?),
            }),
            Rule::Number { column } => cell(column, "number", CellRule::Number),
            Rule::Integer { column } => cell(column, "integer", CellRule::Integer),
            Rule::Datetime {
                column,
                format: None,
            } => cell(column, "datetime", CellRule::Time),
            Rule::Datetime {
                column,
                format: Some(format),
            } => cell(
                column,
                "datetime",
                CellRule::TimeFormat(TimeFormat::new(format)?, Vec::new()),
            ),
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
                let [open, high, low, close] =
                    ["open", "high", "low", "close"].map(|name| table.index(name));
                row("ohlc", Subject::Ohlc([open?, high?, low?, close?]))
            }
            Rule::DuplicateRow {} => row("duplicate_row", Subject::WholeRow),
        }
    }

    /// Whether `row` satisfies the rule. Updates `state`.
    pub(super) fn holds(
        &mut self,
        row: &Row,
        null_values: &[Vec<u8>],
        state: &mut RuleState,
    ) -> bool {
        let is_null = |cell: &[u8]| null_values.iter().any(|value| value == cell);
        match &mut self.subject {
            Subject::RawCell(index) => trim(row.cell(*index)).len() == row.cell(*index).len(),
            Subject::NotNull(index) => !is_null(trim(row.cell(*index))),
            Subject::Cell(index, rule) => {
                let cell = trim(row.cell(*index));
                is_null(cell) || rule.holds(cell, state)
            }
            Subject::Ohlc(indexes) => {
                ohlc_holds(indexes.map(|index| number(trim(row.cell(index)))))
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
    fn holds(&mut self, cell: &[u8], state: &mut RuleState) -> bool {
        match self {
            Self::Number => is_number(cell),
            Self::Integer => is_integer(cell),
            Self::Time => parse_cell(cell).is_some(),
            Self::TimeFormat(format, scratch) => format.rewrite(cell, scratch),
            Self::Min(least) => number(cell).is_none_or(|x| x >= *least),
            Self::Max(greatest) => number(cell).is_none_or(|x| x <= *greatest),
            Self::Allowed(values) => values.contains(cell),
            Self::Unique => state.seen.insert(std::iter::once(cell)),
            Self::Increasing => state.last.is_passed_by(cell),
        }
    }
}

impl Last {
    /// Whether `cell` is greater than the last number or the last time, and replaces that one in
    /// any case. A cell that is neither a number nor a time passes.
    fn is_passed_by(&mut self, cell: &[u8]) -> bool {
        if let Some(x) = number(cell) {
            return self.number.replace(x).is_none_or(|last| x > last);
        }
        match parse_cell(cell) {
            Some(time) => self.time.replace(time).is_none_or(|last| time > last),
            None => true,
        }
    }
}

fn ohlc_holds(cells: [Option<f64>; 4]) -> bool {
    let [Some(open), Some(high), Some(low), Some(close)] = cells else {
        return true;
    };
    high >= open && high >= close && high >= low && low <= open && low <= close
}
