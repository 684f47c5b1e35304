//! Sorts the rows of a table.
//!
//! The problem: an operation sees one row after the other, and the last row may be the first of the
//! sorted table. So a step `sort` holds all rows back until the end of a pass, and then gives them
//! to the steps behind it in their new order. It does so in every pass that reaches it: a step
//! behind it may learn from the order.
//!
//! The rows are in memory, up to a limit. Sorting on disk was rejected for now: files of bars take
//! some megabytes, and a program that sorts (`sort`, a database) is there for larger ones.

use std::cmp::Ordering;

use chrono::NaiveDateTime;

use crate::data_processing::error::DataError;
use crate::data_processing::numbers::NumberFormat;
use crate::data_processing::row::{Row, Span};
use crate::datetime::parse_cell;

/// The most memory that the rows of one step may take, in bytes.
const MAX_BYTES: usize = 512 * 1024 * 1024;

/// Memory of a row and of a key besides their texts, in bytes.
const OVERHEAD: usize = 96;

/// A column to sort by.
#[derive(Debug, Clone, Copy)]
pub(super) struct SortColumn {
    pub(super) index: usize,
    pub(super) numbers: NumberFormat,
}

/// Holds rows back and sorts them.
#[derive(Debug)]
pub(super) struct Sorter {
    columns: Vec<SortColumn>,
    descending: bool,
    rows: Vec<HeldRow>,
    /// The number of sorted rows that were given on. None before the rows are sorted.
    given: Option<usize>,
    bytes: usize,
}

#[derive(Debug, Default)]
struct HeldRow {
    keys: Box<[SortKey]>,
    line: u64,
    /// The lengths of the cells, and their texts without a gap.
    lengths: Box<[u32]>,
    text: Box<[u8]>,
}

/// A cell to sort by. Numbers come before times, times before other texts.
#[derive(Debug)]
enum SortKey {
    Number(f64),
    Time(NaiveDateTime),
    Text(Box<[u8]>),
    /// Comes last, also in descending order.
    Missing,
}

impl Sorter {
    pub(super) fn new(columns: Vec<SortColumn>, descending: bool) -> Self {
        Self {
            columns,
            descending,
            rows: Vec::new(),
            given: None,
            bytes: 0,
        }
    }

    /// Forgets all rows.
    pub(super) fn begin_pass(&mut self) {
        *self = Self::new(std::mem::take(&mut self.columns), self.descending);
    }

    /// Holds a row back.
    pub(super) fn hold(&mut self, row: &Row) -> Result<(), DataError> {
        let keys: Box<[SortKey]> = self
            .columns
            .iter()
            .map(|column| SortKey::of(row.cell(column.index), column.numbers))
            .collect();
        let held = HeldRow {
            keys,
            line: row.line,
            lengths: row.iter().map(|cell| cell.len() as u32).collect(),
            text: row.iter().flatten().copied().collect(),
        };

        self.bytes += held.bytes();
        if self.bytes > MAX_BYTES {
            return Err(DataError::TooLargeToSort {
                mebibytes: MAX_BYTES / 1024 / 1024,
            });
        }

        self.rows.push(held);
        Ok(())
    }

    /// Puts the next row in order into `row`. Returns false when there is none.
    pub(super) fn next(&mut self, row: &mut Row) -> bool {
        let at = match self.given {
            Some(given) => given,
            None => {
                let descending = self.descending;
                // The sort is stable: rows with equal keys keep their order.
                self.rows
                    .sort_by(|one, other| compare(&one.keys, &other.keys, descending));
                0
            }
        };
        let Some(held) = self.rows.get_mut(at) else {
            return false;
        };

        std::mem::take(held).put_into(row);
        self.given = Some(at + 1);

        true
    }
}

impl HeldRow {
    fn bytes(&self) -> usize {
        let keys: usize = self.keys.iter().map(SortKey::bytes).sum();
        OVERHEAD + keys + 4 * self.lengths.len() + self.text.len()
    }

    fn put_into(self, row: &mut Row) {
        row.bytes = self.text.into_vec();
        row.cells.clear();
        row.line = self.line;

        let mut start = 0;
        for length in self.lengths {
            let end = start + length as usize;
            row.cells.push(Span { start, end });
            start = end;
        }
    }
}

impl SortKey {
    fn of(cell: &[u8], numbers: NumberFormat) -> Self {
        if cell.is_empty() {
            return Self::Missing;
        }
        if let Some(number) = numbers.number(cell) {
            return Self::Number(number);
        }
        match parse_cell(cell) {
            Some(time) => Self::Time(time),
            None => Self::Text(cell.into()),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => size_of::<Self>() + text.len(),
            _ => size_of::<Self>(),
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Number(_) => 0,
            Self::Time(_) => 1,
            Self::Text(_) => 2,
            Self::Missing => 3,
        }
    }

    fn compare(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Number(one), Self::Number(other)) => {
                // Not total_cmp: -0 and 0 are equal. A number of a cell is never NaN.
                one.partial_cmp(other).unwrap_or(Ordering::Equal)
            }
            (Self::Time(one), Self::Time(other)) => one.cmp(other),
            (Self::Text(one), Self::Text(other)) => one.cmp(other),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

fn compare(one: &[SortKey], other: &[SortKey], descending: bool) -> Ordering {
    let mut orders = one.iter().zip(other).map(|(one, other)| {
        let order = one.compare(other);
        let some_missing = matches!(one, SortKey::Missing) || matches!(other, SortKey::Missing);
        if descending && !some_missing {
            order.reverse()
        } else {
            order
        }
    });
    orders
        .find(|order| order.is_ne())
        .unwrap_or(Ordering::Equal)
}
