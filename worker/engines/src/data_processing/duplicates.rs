//! Finds rows that equal another one (`docs/engines/data_processing.md`, "clean", step 4, and the
//! step `dedupe`).

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::row::{Row, Span};
use super::text_set::{TextHasher, TextSet};

/// Stands before the text of a cell that became missing because it did not have its type. The byte
/// never occurs in UTF-8.
const INVALID: &[u8] = b"\xfe";

/// Cells that became missing because they did not have their type: their index and their text. Two
/// of them are equal when their texts are.
pub(super) type InvalidCells = [(usize, Span)];

/// The cells that make two rows equal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    /// No cells: no row is a duplicate.
    None,
    /// All cells.
    All,
    /// Those of some columns. A row without any of them has no key, and is no duplicate.
    Columns(Vec<usize>),
}

impl Key {
    /// Whether the row has a key.
    pub(super) fn is_in(&self, row: &Row, invalid: &InvalidCells) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Columns(indexes) => indexes.iter().any(|index| {
                !row.cell(*index).is_empty() || invalid.iter().any(|(at, _)| at == index)
            }),
        }
    }

    /// Calls `with` with the parts of the key of a row.
    fn parts<T>(
        &self,
        row: &Row,
        invalid: &InvalidCells,
        with: impl FnOnce(&mut dyn Iterator<Item = &[u8]>) -> T,
    ) -> T {
        let parts_of = |index: usize| {
            let text = invalid.iter().find(|(at, _)| *at == index);
            let parts = match text {
                Some((_, span)) => [Some(INVALID), Some(row.text(*span))],
                None => [Some(row.cell(index)), None],
            };
            parts.into_iter().flatten()
        };

        match self {
            Self::None => with(&mut std::iter::empty()),
            Self::All if invalid.is_empty() => with(&mut row.iter()),
            Self::All => with(&mut (0..row.len()).flat_map(parts_of)),
            Self::Columns(indexes) => with(&mut indexes.iter().copied().flat_map(parts_of)),
        }
    }
}

/// The duplicates of earlier rows found so far.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct FoundDuplicates {
    seen: TextSet,
    /// Whether each row is a duplicate. Later passes read it, because hashing every row again would
    /// cost more than the rest of the pass.
    found: RowFlags,
    known: bool,
    next_row: usize,
}

impl FoundDuplicates {
    /// Whether the next row, `row`, equals an earlier one. With `remember` false, later rows are not
    /// duplicates of this one.
    pub(super) fn is_duplicate(
        &mut self,
        key: &Key,
        row: &Row,
        invalid: &InvalidCells,
        remember: bool,
    ) -> bool {
        if *key == Key::None {
            return false;
        }

        let at = self.next_row;
        self.next_row = at.wrapping_add(1);

        if self.known {
            return self.found.get(at);
        }

        let seen = &mut self.seen;
        let duplicate = key.is_in(row, invalid)
            && key.parts(row, invalid, |parts| {
                if remember {
                    !seen.insert(parts)
                } else {
                    seen.contains(parts)
                }
            });

        self.found.set(at, duplicate);
        duplicate
    }

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

/// The last row with each key.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct LastRows {
    hasher: TextHasher,
    /// The last row of each key, by the two halves of its hash.
    last: HashMap<(u64, u64), usize>,
    /// Rows that stay.
    kept: RowFlags,
    next_row: usize,
}

impl LastRows {
    /// Learns from the next row.
    pub(super) fn learn(&mut self, key: &Key, row: &Row) {
        let at = self.next_row;
        self.next_row = at.wrapping_add(1);

        let has_key = key.is_in(row, &[]);
        self.kept.set(at, !has_key);

        if !has_key {
            return;
        }

        let hasher = &mut self.hasher;
        let hash = key.parts(row, &[], |parts| hasher.hash(parts));
        self.last.insert(((hash >> 64) as u64, hash as u64), at);
    }

    /// Ends learning.
    pub(super) fn finish(&mut self) {
        for at in std::mem::take(&mut self.last).into_values() {
            self.kept.set(at, true);
        }
    }

    /// Whether the next row stays.
    pub(super) fn keeps_next(&mut self) -> bool {
        let at = self.next_row;
        self.next_row = at.wrapping_add(1);
        self.kept.get(at)
    }

    /// Starts again at the first row.
    pub(super) fn begin_pass(&mut self) {
        self.next_row = 0;
    }
}

/// One bit per row. Rows are added one after the other.
#[derive(Default, Serialize, Deserialize)]
struct RowFlags(Vec<u64>);

impl RowFlags {
    fn get(&self, row: usize) -> bool {
        let bits = self.0.get(row / 64);
        bits.is_some_and(|bits| bits >> (row % 64) & 1 == 1)
    }

    fn set(&mut self, row: usize, flag: bool) {
        if row / 64 == self.0.len() {
            self.0.push(0);
        }
        // A state that others wrote may name a row that is not there.
        if let Some(bits) = self.0.get_mut(row / 64) {
            *bits |= u64::from(flag) << (row % 64);
        }
    }
}
