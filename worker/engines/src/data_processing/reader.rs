//! Reads CSV (RFC 4180, see `docs/engines/data_processing.md`, "Tables") into a [`Row`].
//!
//! The problem: every byte of a large file passes through here, so a record is read without an
//! allocation. [`CsvReader`] scans a buffer for the ends of cells and copies a record into one
//! reusable [`Row`], whose cells are spans of it. Only cells with escaped quotes are rewritten.
//!
//! The `csv` crate was rejected for three reasons: a quote that is never closed, or is followed by
//! text, must be an error; errors must name the line on which a record begins (also behind empty
//! lines); and operations edit cells as spans of one buffer. A property test checks that both read
//! the same records.

use std::io::Read;

use super::error::DataError;
use super::row::{Row, Span};
use crate::bounded;

/// Bytes read at a time.
const CHUNK: usize = 256 * 1024;

/// The longest accepted record, in bytes. It bounds the memory used when a closing quote is
/// missing.
pub(super) const MAX_RECORD: usize = bounded::MAX_RECORD as usize;

const BOM: &[u8] = b"\xef\xbb\xbf";

/// How records are written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dialect {
    /// Separates cells. An ASCII character that is no line end and not the quote.
    pub(super) delimiter: u8,
    /// Encloses a cell that holds delimiters, quotes or line ends. None when there is no quoting.
    pub(super) quote: Option<u8>,
    /// Begins a line that is no record.
    pub(super) comment: Option<u8>,
    /// Lines before the header.
    pub(super) skip_lines: u32,
}

impl Default for Dialect {
    fn default() -> Self {
        Self {
            delimiter: b',',
            quote: Some(b'"'),
            comment: None,
            skip_lines: 0,
        }
    }
}

impl Dialect {
    /// Whether the byte is a space beside a quoted cell.
    fn is_space(self, byte: u8) -> bool {
        byte != self.delimiter && matches!(byte, b' ' | b'\t')
    }
}

/// Reads records from `input`.
pub(super) struct CsvReader<R> {
    input: R,
    dialect: Dialect,
    file: String,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    at_end: bool,
    at_file_start: bool,
    line: u64,
    consumed: u64,
    raw: Vec<usize>,
}

/// The result of scanning the buffer.
enum Scan {
    /// A complete record of `len` bytes, without its line end.
    Record { len: usize, quoted: bool },
    /// The buffer ends before the record.
    Incomplete,
    /// The file ends inside quotes.
    Unterminated,
    /// Text follows a closing quote.
    StrayQuote,
}

impl<R: Read> CsvReader<R> {
    /// Reads `input` from its beginning. `file` is its name in messages.
    pub(super) fn new(input: R, file: &str, dialect: Dialect) -> Self {
        Self {
            input,
            dialect,
            file: file.to_owned(),
            buffer: vec![0; CHUNK],
            start: 0,
            end: 0,
            at_end: false,
            at_file_start: true,
            line: 1,
            consumed: 0,
            raw: Vec::new(),
        }
    }

    /// Resumes behind a record, where another reader had consumed `consumed` bytes and was in line
    /// `line`.
    pub(super) fn resume(input: R, file: &str, dialect: Dialect, consumed: u64, line: u64) -> Self {
        Self {
            consumed,
            line,
            at_file_start: false,
            ..Self::new(input, file, dialect)
        }
    }

    /// Number of bytes consumed so far.
    pub(super) fn bytes_read(&self) -> u64 {
        self.consumed
    }

    /// The input, such as to ask how much of a file was read.
    pub(super) fn input(&self) -> &R {
        &self.input
    }

    /// The line on which the last record ended.
    pub(super) fn line(&self) -> u64 {
        self.line
    }

    /// Reads the next record into `row`. Returns false at the end of the file.
    pub(super) fn read(&mut self, row: &mut Row) -> Result<bool, DataError> {
        if self.at_file_start {
            self.at_file_start = false;
            self.skip_file_start()?;
        }
        if !self.skip_to_record()? {
            return Ok(false);
        }

        loop {
            row.cells.clear();
            self.raw.clear();

            match scan(
                &self.buffer[self.start..self.end],
                self.at_end,
                self.dialect,
                &mut row.cells,
                &mut self.raw,
            ) {
                Scan::Record { len, quoted } => {
                    self.take_record(row, len, quoted)?;
                    return Ok(true);
                }
                // The scan starts over. That costs one record per chunk; for long records the
                // buffer doubles.
                Scan::Incomplete => self.fill()?,
                Scan::Unterminated => {
                    return Err(DataError::UnterminatedQuote {
                        file: self.file.clone(),
                        line: self.line,
                    });
                }
                Scan::StrayQuote => {
                    return Err(DataError::StrayQuote {
                        file: self.file.clone(),
                        line: self.line,
                    });
                }
            }
        }
    }

    /// Copies the scanned record into `row`.
    fn take_record(&mut self, row: &mut Row, len: usize, quoted: bool) -> Result<(), DataError> {
        let record = &self.buffer[self.start..self.start + len];
        if !record.is_ascii() && std::str::from_utf8(record).is_err() {
            return Err(DataError::NotUtf8 {
                file: self.file.clone(),
                line: self.line,
            });
        }

        // Text in UTF-16 without a mark is also valid UTF-8.
        if memchr::memchr(0, record).is_some() {
            return Err(DataError::NulByte {
                file: self.file.clone(),
                line: self.line,
            });
        }

        row.bytes.clear();
        row.bytes.extend_from_slice(record);
        row.line = self.line;
        row.quoted = quoted;

        for &index in &self.raw {
            row.cells[index] = undouble(&mut row.bytes, row.cells[index], self.dialect.quote);
        }

        if quoted {
            self.line += record.iter().filter(|&&byte| byte == b'\n').count() as u64;
        }

        self.advance(len);

        Ok(())
    }

    /// Skips a BOM and the lines before the header.
    fn skip_file_start(&mut self) -> Result<(), DataError> {
        while self.end - self.start < BOM.len() && !self.at_end {
            self.fill()?;
        }
        if self.buffer[self.start..self.end].starts_with(BOM) {
            self.advance(BOM.len());
        }

        for _ in 0..self.dialect.skip_lines {
            self.skip_text()?;
            if !self.skip_line_end()? {
                break;
            }
        }
        Ok(())
    }

    /// Skips to the end of the line, or of the file.
    fn skip_text(&mut self) -> Result<(), DataError> {
        loop {
            let text = &self.buffer[self.start..self.end];
            let line_end = memchr::memchr2(b'\n', b'\r', text);
            let length = line_end.unwrap_or(text.len());

            self.advance(length);

            if line_end.is_some() || self.at_end {
                return Ok(());
            }
            self.fill()?;
        }
    }

    /// Skips one line end. Returns false when there is none here.
    fn skip_line_end(&mut self) -> Result<bool, DataError> {
        // `\r` needs one more byte to distinguish `\r\n` from a single `\r`.
        while !self.at_end
            && (self.start == self.end
                || (self.buffer[self.start] == b'\r' && self.end - self.start == 1))
        {
            self.fill()?;
        }

        match self.buffer[self.start..self.end] {
            [b'\r', b'\n', ..] => self.advance(2),
            [b'\n' | b'\r', ..] => self.advance(1),
            _ => return Ok(false),
        }

        self.line += 1;
        Ok(true)
    }

    /// Skips the end of the last record, empty lines and comments. Returns false at the end of the
    /// file.
    fn skip_to_record(&mut self) -> Result<bool, DataError> {
        loop {
            while self.skip_line_end()? {}

            if self.start == self.end {
                return Ok(false);
            }
            if self.dialect.comment != Some(self.buffer[self.start]) {
                return Ok(true);
            }
            self.skip_text()?;
        }
    }

    fn advance(&mut self, bytes: usize) {
        self.start += bytes;
        self.consumed += bytes as u64;
    }

    /// Reads more input behind the unconsumed bytes, or sets `at_end`.
    fn fill(&mut self) -> Result<(), DataError> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;

        if self.end == self.buffer.len() {
            if self.end >= MAX_RECORD {
                return Err(DataError::RecordTooLong {
                    file: self.file.clone(),
                    line: self.line,
                    limit: MAX_RECORD,
                });
            }
            self.buffer.resize(self.end * 2, 0);
        }

        loop {
            match self.input.read(&mut self.buffer[self.end..]) {
                Ok(0) => self.at_end = true,
                Ok(read) => self.end += read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(DataError::reading(&self.file, error)),
            }
            return Ok(());
        }
    }
}

/// Finds the cells of the record at the beginning of `input`. Cells with doubled quotes are listed
/// in `raw`.
fn scan(
    input: &[u8],
    at_end: bool,
    dialect: Dialect,
    cells: &mut Vec<Span>,
    raw: &mut Vec<usize>,
) -> Scan {
    let (mut at, mut has_quotes) = (0, false);
    loop {
        let start = at;
        let end = match opening_quote(input, at, dialect) {
            Quote::None => {
                let Some(end) = cell_end(input, at, at_end, dialect) else {
                    return Scan::Incomplete;
                };
                cells.push(Span { start, end });
                end
            }
            Quote::Incomplete if !at_end => return Scan::Incomplete,
            Quote::Incomplete => {
                let end = input.len();
                cells.push(Span { start, end });
                end
            }
            Quote::At(open, quote) => {
                has_quotes = true;
                match closing_quote(input, open + 1, quote, at_end) {
                    Some((close, doubled)) => {
                        if doubled {
                            raw.push(cells.len());
                        }
                        cells.push(Span {
                            start: open + 1,
                            end: close,
                        });
                        at = close + 1;
                    }
                    None if at_end => return Scan::Unterminated,
                    None => return Scan::Incomplete,
                }

                at += count_spaces(&input[at..], dialect);
                match input.get(at) {
                    None if !at_end => return Scan::Incomplete,
                    Some(&byte) if byte != dialect.delimiter && !matches!(byte, b'\n' | b'\r') => {
                        return Scan::StrayQuote;
                    }
                    _ => at,
                }
            }
        };

        if input.get(end) != Some(&dialect.delimiter) {
            return Scan::Record {
                len: end,
                quoted: has_quotes,
            };
        }

        at = end + 1;
    }
}

/// The quote that opens a cell.
enum Quote {
    /// There is none.
    None,
    /// More input is needed to know.
    Incomplete,
    /// Its position, and the quote.
    At(usize, u8),
}

/// Looks for the quote that opens the cell at `at`. Spaces may precede it: many programs write a
/// space behind the delimiter.
fn opening_quote(input: &[u8], at: usize, dialect: Dialect) -> Quote {
    let Some(quote) = dialect.quote else {
        return Quote::None;
    };
    let open = at + count_spaces(&input[at..], dialect);
    match input.get(open) {
        Some(byte) if *byte == quote => Quote::At(open, quote),
        None if open > at => Quote::Incomplete,
        _ => Quote::None,
    }
}

fn count_spaces(input: &[u8], dialect: Dialect) -> usize {
    input
        .iter()
        .take_while(|byte| dialect.is_space(**byte))
        .count()
}

/// The end of the unquoted text at `from`: a delimiter, a line end, or the end of the file. None
/// when more input is needed.
fn cell_end(input: &[u8], from: usize, at_end: bool, dialect: Dialect) -> Option<usize> {
    let delimiter = dialect.delimiter;
    match input[from..]
        .iter()
        .position(|&byte| byte == delimiter || matches!(byte, b'\n' | b'\r'))
    {
        Some(offset) => Some(from + offset),
        None => at_end.then_some(input.len()),
    }
}

/// The closing quote of the cell whose text begins at `from`, and whether doubled quotes precede
/// it. None when more input is needed.
fn closing_quote(input: &[u8], from: usize, mark: u8, at_end: bool) -> Option<(usize, bool)> {
    let (mut at, mut doubled) = (from, false);
    loop {
        let quote = at + input[at..].iter().position(|&byte| byte == mark)?;
        match input.get(quote + 1) {
            Some(next) if *next == mark => (at, doubled) = (quote + 2, true),
            None if !at_end => return None,
            _ => return Some((quote, doubled)),
        }
    }
}

/// Appends the text of a quoted cell to `bytes`, with one quote for two.
fn undouble(bytes: &mut Vec<u8>, cell: Span, quote: Option<u8>) -> Span {
    let start = bytes.len();
    let mut at = cell.start;

    while at < cell.end {
        let byte = bytes[at];
        bytes.push(byte);
        // The other half of a doubled quote.
        at += if Some(byte) == quote { 2 } else { 1 };
    }

    Span {
        start,
        end: bytes.len(),
    }
}

#[cfg(test)]
mod tests;
