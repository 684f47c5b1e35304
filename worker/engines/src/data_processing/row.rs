//! One record: its bytes, and the span of each cell in them.

/// A range of the bytes of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Span {
    /// The empty cell.
    pub(super) const EMPTY: Self = Self { start: 0, end: 0 };
}

/// A record whose cells can be shortened, replaced, reordered and added without moving other bytes:
/// a cell is a span, and new text is appended. A run reuses one row for all records, so that it
/// does not allocate.
///
/// All bytes are valid UTF-8, which the reader checks.
#[derive(Debug, Default)]
pub(super) struct Row {
    pub(super) bytes: Vec<u8>,
    pub(super) cells: Vec<Span>,
    /// The line of the file on which the record began, from 1.
    pub(super) line: u64,
    /// Whether a cell of the record was quoted.
    pub(super) quoted: bool,
    /// Scratch space for reordering.
    spare: Vec<Span>,
}

impl Row {
    /// The number of cells.
    pub(super) fn len(&self) -> usize {
        self.cells.len()
    }

    /// The text of cell `index`. Empty when there is no such cell.
    pub(super) fn cell(&self, index: usize) -> &[u8] {
        match self.cells.get(index) {
            Some(span) => &self.bytes[span.start..span.end],
            None => &[],
        }
    }

    /// All cells in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.cells
            .iter()
            .map(|span| &self.bytes[span.start..span.end])
    }

    /// Sets the text of cell `index`. An index one past the last cell appends a cell.
    pub(super) fn set(&mut self, index: usize, text: &[u8]) {
        let span = self.store(text);
        match self.cells.get_mut(index) {
            Some(cell) => *cell = span,
            None => self.cells.push(span),
        }
    }

    /// Makes cell `index` missing (empty).
    pub(super) fn clear_cell(&mut self, index: usize) {
        if let Some(cell) = self.cells.get_mut(index) {
            *cell = Span::EMPTY;
        }
    }

    /// The text at `span`, such as that of a cell before it was cleared.
    pub(super) fn text(&self, span: Span) -> &[u8] {
        &self.bytes[span.start..span.end]
    }

    /// Keeps the cells with the indexes in `order`, in that order.
    pub(super) fn select(&mut self, order: &[usize]) {
        self.spare.clear();
        self.spare.extend(
            order
                .iter()
                .map(|&index| self.cells.get(index).copied().unwrap_or(Span::EMPTY)),
        );
        std::mem::swap(&mut self.cells, &mut self.spare);
    }

    fn store(&mut self, text: &[u8]) -> Span {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(text);
        Span {
            start,
            end: self.bytes.len(),
        }
    }

    #[cfg(test)]
    pub(super) fn of(cells: &[&str]) -> Self {
        let mut row = Self::default();
        for (index, cell) in cells.iter().enumerate() {
            row.set(index, cell.as_bytes());
        }
        row
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_change_without_disturbing_others() {
        let mut row = Row::of(&["a", "bb", "ccc"]);
        row.set(1, b"longer than before");
        row.set(3, b"new");
        row.clear_cell(0);

        assert_eq!(
            row.iter().collect::<Vec<_>>(),
            [&b""[..], b"longer than before", b"ccc", b"new"]
        );

        row.select(&[3, 2]);

        assert_eq!(row.iter().collect::<Vec<_>>(), [b"new", b"ccc"]);
        assert_eq!((row.len(), row.cell(7)), (2, &b""[..]));
    }
}
