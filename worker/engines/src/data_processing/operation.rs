//! The trait that `clean`, `transform` and `validate` implement.

use std::io::{self, Read, Write};

use super::error::DataError;
use super::row::Row;
use super::table::Table;
use super::text::Places;
use crate::warnings::Warnings;

/// The largest number of decimal places: more than a double has.
const MAX_DECIMALS: u8 = 30;

/// An operation that has been planned and now processes rows, one by one, in every pass.
///
/// Its state (what it has learnt and counted) is separate from its plan. A later attempt makes the
/// same plan from the request and restores only the state.
pub(super) trait Operation {
    /// Begins pass `pass`. Counters start at zero; learnt figures stay. `last` says whether this
    /// pass writes.
    fn begin_pass(&mut self, pass: usize, last: bool);
    /// Processes a row. Returns false when the row is dropped from the table.
    fn process_row(&mut self, row: &mut Row) -> Result<bool, DataError>;
    /// At the end of a pass: puts the next row that the operation has held back into `row`, in its
    /// order, as it leaves the operation. Returns false when there is none.
    fn next_held(&mut self, _row: &mut Row) -> Result<bool, DataError> {
        Ok(false)
    }
    /// Whether the operation holds rows back until the end of a pass.
    fn holds_rows(&self) -> bool {
        false
    }
    /// Adds what a person should know about the data. `place` is the operation.
    fn warn(&self, _place: &str, _warnings: &mut Warnings) {}
    /// Ends a pass in which the operation saw all rows.
    fn end_pass(&mut self);
    /// Whether the operation learns from the rows of pass `pass`.
    fn learns_in(&self, pass: usize) -> bool;
    /// Number of errors found in the data in this pass.
    fn errors(&self) -> u64;
    /// Writes the state, between two rows.
    fn save(&self, output: &mut dyn Write) -> io::Result<()>;
    /// Restores the state that [`Self::save`] wrote. The pass has begun before.
    fn restore(&mut self, input: &mut dyn Read) -> io::Result<()>;
}

/// Checks `decimals` and returns how numbers are written.
pub(super) fn check_decimals(decimals: Option<u8>, table: &Table) -> Result<Places, DataError> {
    if decimals.is_some_and(|decimals| decimals > MAX_DECIMALS) {
        return Err(table.request_error(format_args!("decimals may be at most {MAX_DECIMALS}")));
    }
    Ok(Places::new(decimals))
}
