//! Finds rows that equal an earlier one (`docs/engines/data_processing.md`, "clean", step 4).

use serde::{Deserialize, Serialize};

use super::params::Duplicates;
use crate::data_processing::error::DataError;
use crate::data_processing::row::Row;
use crate::data_processing::table::Table;
use crate::data_processing::text_set::TextSet;

/// Finds duplicates in one pass and remembers them for all later passes.
pub(super) struct DuplicateFinder {
    key: Key,
}

/// The duplicates found so far.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct FoundDuplicates {
    seen: TextSet,
    /// One bit per row: whether it is a duplicate. Later passes read it, because hashing every row
    /// again would cost more than the rest of the pass.
    found: Vec<u64>,
    known: bool,
    next_row: usize,
}

/// The cells that make two rows equal.
enum Key {
    /// No cells: no row is a duplicate.
    None,
    All,
    Columns(Vec<usize>),
}

impl DuplicateFinder {
    /// Looks up the columns named in `params`.
    pub(super) fn new(params: &Duplicates, table: &Table) -> Result<Self, DataError> {
        let key = match params {
            Duplicates::Whole(false) => Key::None,
            Duplicates::Whole(true) => Key::All,
            Duplicates::Columns(names) if names.is_empty() => {
                return Err(table.request_error(
                    "drop_duplicates names no column: use false to keep duplicates",
                ));
            }
            Duplicates::Columns(names) => Key::Columns(
                names
                    .iter()
                    .map(|name| table.index(name))
                    .collect::<Result<_, _>>()?,
            ),
        };

        Ok(Self { key })
    }

    /// Whether the next row, `row`, is a duplicate.
    pub(super) fn is_duplicate(&self, row: &Row, state: &mut FoundDuplicates) -> bool {
        let (word, bit) = (state.next_row / 64, state.next_row % 64);
        state.next_row += 1;

        if state.known {
            return state
                .found
                .get(word)
                .is_some_and(|bits| bits >> bit & 1 == 1);
        }

        let duplicate = match &self.key {
            Key::None => return false,
            Key::All => !state.seen.insert(row.iter()),
            Key::Columns(indexes) => !state
                .seen
                .insert(indexes.iter().map(|&index| row.cell(index))),
        };

        if word == state.found.len() {
            state.found.push(0);
        }

        state.found[word] |= u64::from(duplicate) << bit;
        duplicate
    }
}

impl FoundDuplicates {
    /// Starts again at the first row.
    pub(super) fn begin_pass(&mut self) {
        self.next_row = 0;
    }

    /// Ends the pass that saw all final rows: from now on the duplicates are known.
    pub(super) fn finish(&mut self) {
        self.known = true;
        self.seen = TextSet::default();
    }
}
