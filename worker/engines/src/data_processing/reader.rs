//! Reads CSV (RFC 4180, see `docs/engines/data_processing.md`, "Tables") into a [`Row`].
//!
//! The problem: every byte of a large file passes through here, so a record is read without an
//! allocation. [`CsvReader`] scans a buffer for the ends of cells and copies a record into one
//! reusable [`Row`], whose cells are spans of it. Only cells with escaped quotes are rewritten.
//!
//! The `csv` crate was rejected for three reasons: an unterminated quote must be an error, errors
//! must name the line on which a record begins (also behind empty lines), and operations edit cells
//! as spans of one buffer. A property test checks that both read the same records.

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

/// Reads records from `input`.
pub(super) struct CsvReader<R> {
    input: R,
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
}

impl<R: Read> CsvReader<R> {
    /// Reads `input` from its beginning. `file` is its name in messages.
    pub(super) fn new(input: R, file: &str) -> Self {
        Self {
            input,
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
    pub(super) fn resume(input: R, file: &str, consumed: u64, line: u64) -> Self {
        Self {
            consumed,
            line,
            at_file_start: false,
            ..Self::new(input, file)
        }
    }

    /// Number of bytes consumed so far.
    pub(super) fn bytes_read(&self) -> u64 {
        self.consumed
    }

    /// The line on which the last record ended.
    pub(super) fn line(&self) -> u64 {
        self.line
    }

    /// Reads the next record into `row`. Returns false at the end of the file.
    pub(super) fn read(&mut self, row: &mut Row) -> Result<bool, DataError> {
        if !self.skip_line_ends()? {
            return Ok(false);
        }

        loop {
            row.cells.clear();
            self.raw.clear();

            match scan(
                &self.buffer[self.start..self.end],
                self.at_end,
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

        row.bytes.clear();
        row.bytes.extend_from_slice(record);
        row.line = self.line;

        for &index in &self.raw {
            row.cells[index] = unquote(&mut row.bytes, row.cells[index]);
        }

        if quoted {
            self.line += record.iter().filter(|&&byte| byte == b'\n').count() as u64;
        }

        self.advance(len);

        Ok(())
    }

    /// Skips the end of the last record, empty lines and a BOM. Returns false at the end of the
    /// file.
    fn skip_line_ends(&mut self) -> Result<bool, DataError> {
        if self.at_file_start {
            self.at_file_start = false;
            while self.end - self.start < BOM.len() && !self.at_end {
                self.fill()?;
            }
            if self.buffer[self.start..self.end].starts_with(BOM) {
                self.advance(BOM.len());
            }
        }

        loop {
            // `\r` needs one more byte to distinguish `\r\n` from a single `\r`.
            while self.start == self.end
                || (self.buffer[self.start] == b'\r' && self.end - self.start == 1)
            {
                if self.at_end {
                    self.advance(self.end - self.start);
                    return Ok(false);
                }
                self.fill()?;
            }

            match (self.buffer[self.start], self.buffer.get(self.start + 1)) {
                (b'\r', Some(b'\n')) => self.advance(2),
                (b'\n' | b'\r', _) => self.advance(1),
                _ => return Ok(true),
            }

            self.line += 1;
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
                Err(error) => return Err(DataError::io("read", &self.file)(error)),
            }
            return Ok(());
        }
    }
}

/// Finds the cells of the record at the beginning of `input`. Cells whose text is not a contiguous
/// part of the input are listed in `raw`, with a span that includes their quotes.
fn scan(input: &[u8], at_end: bool, cells: &mut Vec<Span>, raw: &mut Vec<usize>) -> Scan {
    let (mut at, mut quoted) = (0, false);
    loop {
        let start = at;
        let mut closed = None;

        if input.get(at) == Some(&b'"') {
            quoted = true;
            match closing_quote(input, at + 1, at_end) {
                Some((quote, escaped)) => {
                    closed = (!escaped).then_some(quote);
                    at = quote + 1;
                }
                None if at_end => return Scan::Unterminated,
                None => return Scan::Incomplete,
            }
        }

        let Some(end) = cell_end(input, at, at_end) else {
            return Scan::Incomplete;
        };

        match closed {
            Some(quote) if end == at => cells.push(Span {
                start: start + 1,
                end: quote,
            }),
            None if at == start => cells.push(Span { start, end }),
            _ => {
                raw.push(cells.len());
                cells.push(Span { start, end });
            }
        }

        if input.get(end) != Some(&b',') {
            return Scan::Record { len: end, quoted };
        }

        at = end + 1;
    }
}

/// The end of the unquoted text at `from`: a comma, a line end, or the end of the file. None when
/// more input is needed.
fn cell_end(input: &[u8], from: usize, at_end: bool) -> Option<usize> {
    match input[from..]
        .iter()
        .position(|&byte| matches!(byte, b',' | b'\n' | b'\r'))
    {
        Some(offset) => Some(from + offset),
        None => at_end.then_some(input.len()),
    }
}

/// The closing quote of the cell whose text begins at `from`, and whether doubled quotes precede
/// it. None when more input is needed.
fn closing_quote(input: &[u8], from: usize, at_end: bool) -> Option<(usize, bool)> {
    let (mut at, mut escaped) = (from, false);
    loop {
        let quote = at + input[at..].iter().position(|&byte| byte == b'"')?;
        match input.get(quote + 1) {
            Some(b'"') => (at, escaped) = (quote + 2, true),
            None if !at_end => return None,
            _ => return Some((quote, escaped)),
        }
    }
}

/// Appends the text of a raw quoted cell to `bytes`. `""` is one quote. Text behind the closing
/// quote is kept as it is, as most readers do.
fn unquote(bytes: &mut Vec<u8>, raw: Span) -> Span {
    let start = bytes.len();
    let (mut at, mut inside) = (raw.start + 1, true);

    while at < raw.end {
        let byte = bytes[at];
        if inside && byte == b'"' {
            if at + 1 < raw.end && bytes[at + 1] == b'"' {
                bytes.push(b'"');
                at += 1;
            } else {
                inside = false;
            }
        } else {
            bytes.push(byte);
        }

        at += 1;
    }

    Span {
        start,
        end: bytes.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Returns one byte at a time, so that a chunk can end anywhere.
    struct Drip<'a>(&'a [u8]);

    impl Read for Drip<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let Some((first, rest)) = self.0.split_first() else {
                return Ok(0);
            };
            buffer[0] = *first;
            self.0 = rest;
            Ok(1)
        }
    }

    type Records = Vec<(u64, Vec<String>)>;

    fn records(input: impl Read) -> Result<Records, DataError> {
        let (mut reader, mut row, mut all) =
            (CsvReader::new(input, "t.csv"), Row::default(), Vec::new());
        while reader.read(&mut row)? {
            all.push((
                row.line,
                row.iter()
                    .map(|cell| String::from_utf8(cell.to_vec()).unwrap())
                    .collect(),
            ));
        }

        Ok(all)
    }

    fn expect(text: &str, wanted: &[(u64, &[&str])]) {
        let wanted: Records = wanted
            .iter()
            .map(|(line, cells)| (*line, cells.iter().map(ToString::to_string).collect()))
            .collect();

        assert_eq!(records(text.as_bytes()).unwrap(), wanted, "{text:?}");
        assert_eq!(
            records(Drip(text.as_bytes())).unwrap(),
            wanted,
            "{text:?}, byte by byte"
        );
    }

    #[test]
    fn reads_what_rfc_4180_describes() {
        expect("a,b\n1,2\n", &[(1, &["a", "b"]), (2, &["1", "2"])]);
        expect("a,b\r\n1,2", &[(1, &["a", "b"]), (2, &["1", "2"])]);
        expect("\u{feff}\"a\",b\n,\n", &[(1, &["a", "b"]), (2, &["", ""])]);
        expect("a\n\n\r\n\nb", &[(1, &["a"]), (5, &["b"])]);
        expect(
            "\"x\ny\",\"q\"\"q\",\"a,b\"\nz\n",
            &[(1, &["x\ny", "q\"q", "a,b"]), (3, &["z"])],
        );
        expect("\"\"\n\"\"\"\"\n", &[(1, &[""]), (2, &["\""])]);
        expect("a\"b,\"c\"d\n", &[(1, &["a\"b", "cd"])]);
        expect(" \n", &[(1, &[" "])]);
        expect("ä,ö,\n", &[(1, &["ä", "ö", ""])]);
        expect("", &[]);
        expect("\u{feff}\r", &[]);
    }

    #[test]
    fn errors_name_the_line() {
        let error = |text: &[u8]| records(text).unwrap_err().to_string();

        assert_eq!(
            error(b"a\n\n\"b\n"),
            "t.csv, line 3: a quoted cell in this record is never closed"
        );
        assert_eq!(
            error(b"a\r\n\"b\"\"\r\n"),
            "t.csv, line 2: a quoted cell in this record is never closed"
        );
        assert_eq!(
            error(b"\"a\nb\"\n\xff\n"),
            "t.csv, line 3: the record is not valid UTF-8"
        );

        // Two cells that each hold half a character are not valid either.
        assert_eq!(
            error(b"\xc3,\xa4\n"),
            "t.csv, line 1: the record is not valid UTF-8"
        );
    }

    #[test]
    fn a_record_without_end_does_not_fill_the_memory() {
        let endless = (&b"a\n\""[..]).chain(std::io::repeat(b'x'));
        assert!(matches!(
            records(endless).unwrap_err(),
            DataError::RecordTooLong { line: 2, .. }
        ));
    }

    #[test]
    fn every_byte_is_counted() {
        let text = "\u{feff}a,b\r\n\"1\",2\r\n\r\n";
        let (mut reader, mut row) = (CsvReader::new(text.as_bytes(), "t.csv"), Row::default());
        while reader.read(&mut row).unwrap() {}
        assert_eq!(reader.bytes_read(), text.len() as u64);
    }

    #[test]
    fn a_reader_resumes_behind_any_record() {
        let text = "\u{feff}a,\"b\nc\"\r\n\n1,2\r3,4\n\n\"x\n\",\"q\"\"\"\n5,6";
        let all = records(text.as_bytes()).unwrap();
        let (mut reader, mut row) = (CsvReader::new(text.as_bytes(), "t.csv"), Row::default());

        for done in 1..=all.len() {
            assert!(reader.read(&mut row).unwrap());

            let (offset, line) = (reader.bytes_read(), reader.line());
            let mut resumed =
                CsvReader::resume(&text.as_bytes()[offset as usize..], "t.csv", offset, line);
            let mut rest = Vec::new();

            while resumed.read(&mut row).unwrap() {
                rest.push((
                    row.line,
                    row.iter()
                        .map(|cell| String::from_utf8(cell.to_vec()).unwrap())
                        .collect(),
                ));
            }

            assert_eq!(rest, all[done..]);
            assert_eq!(resumed.bytes_read(), text.len() as u64);
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_csv_crate(text in "[ab,\"\r\n ü]{0,40}") {
            let mut theirs = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
            let theirs: Vec<Vec<String>> =
                theirs.records().map(|record| record.unwrap().iter().map(str::to_owned).collect()).collect();
            match records(Drip(text.as_bytes())) {
                Ok(ours) => prop_assert_eq!(ours.into_iter().map(|(_, cells)| cells).collect::<Vec<_>>(), theirs),
                Err(DataError::UnterminatedQuote { .. }) => {}
                Err(other) => return Err(TestCaseError::fail(other.to_string())),
            }
        }
    }
}
