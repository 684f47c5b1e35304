//! What all operations have in common.

use std::io::{self, Read, Write};

use super::error::DataError;
use super::row::Row;
use super::table::Table;

/// Places that are more than any double has.
const MAX_DECIMALS: u8 = 30;

/// An operation at work. It sees the rows of every pass, one by one. What it has learnt and counted is a part of its own,
/// apart from what was planned, so that a later attempt can plan the same and go on with that part.
pub(super) trait Operation {
    /// Pass `pass` begins, the `last` one or not: figures start over, what was learnt stays.
    fn begin_pass(&mut self, pass: usize, last: bool);
    /// Does its work on a row; false when the row is not in the table it leaves.
    fn process_row(&mut self, row: &mut Row) -> Result<bool, DataError>;
    /// All rows were seen.
    fn end_pass(&mut self);
    /// Whether it needs to see the rows of this pass to learn from them.
    fn learns_in(&self, pass: usize) -> bool;
    /// Mistakes in the data met so far.
    fn errors(&self) -> u64;
    /// Writes what it has learnt and counted so far, between two rows.
    fn save(&self, output: &mut dyn Write) -> io::Result<()>;
    /// Goes on where [`Self::save`] was called, in the pass that has begun.
    fn restore(&mut self, input: &mut dyn Read) -> io::Result<()>;
}

/// `decimals` as a number of places.
pub(super) fn check_decimals(decimals: u8, table: &Table) -> Result<usize, DataError> {
    if decimals > MAX_DECIMALS {
        return Err(table.request_error(format_args!("decimals may be at most {MAX_DECIMALS}")));
    }
    Ok(usize::from(decimals))
}
