//! Reads a file of bars.
//!
//! The problem: both market engines compute with every bar, so one broken line gives wrong results
//! without an error. The reader therefore checks the whole file, also the part outside the
//! requested range: the columns, the number of cells, each time and price, and the order of times.
//! The first problem ends the run with a message that names the file and the line.
//!
//! The `csv` crate does the parsing, because a file of bars is read once and fits into memory. Two
//! of its features are not used: its deserialization into structs, whose errors do not name the
//! cell, and its line numbers, which are wrong behind empty lines. On an error the line is counted
//! in a second read of the file.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};

use csv::StringRecord;

use super::{Bar, BarSelection, BarTime, Bars, BarsError};
use crate::bounded::{Bounded, MAX_RECORD, Stopped};
use ktrdr_worker::{Context, FileError};

/// Rows between two checks for cancellation.
const ROWS_PER_CHECK: u64 = 1000;

/// The most bars of one selection. They take about a gigabyte.
const MAX_BARS: usize = 10_000_000;

/// The columns that every file must have, in the order of [`Columns::index`].
const COLUMNS: [&str; 6] = ["timestamp", "open", "high", "low", "close", "volume"];

impl Bars {
    /// Reads `{symbol}_{timeframe}.csv` in the data directory and keeps the selected bars.
    ///
    /// # Errors
    /// [`BarsError`] when the file does not exist, any line of it is invalid, or no bar is in the
    /// range; also when the operation was cancelled.
    pub fn load(ctx: &Context, selection: &BarSelection) -> Result<Bars, BarsError> {
        let file = selection.file();
        let opened = open(ctx, &file)?;

        Ok(FileReader {
            ctx,
            selection,
            opened: &opened,
            file,
            lead: 0,
        }
        .read()?
        .0)
    }

    /// Like [`Self::load`], but also keeps up to `lead` bars before the start of the range. Returns
    /// all bars, and how many of them are before the start.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_with_lead(
        ctx: &Context,
        selection: &BarSelection,
        lead: usize,
    ) -> Result<(Bars, usize), BarsError> {
        let file = selection.file();
        let opened = open(ctx, &file)?;

        FileReader {
            ctx,
            selection,
            opened: &opened,
            file,
            lead,
        }
        .read()
    }

    /// Fails when there are fewer than `needed` bars.
    ///
    /// # Errors
    /// [`BarsError::TooFew`], whose message names `needed_by`.
    pub fn require(
        &self,
        needed: usize,
        needed_by: impl FnOnce() -> String,
    ) -> Result<(), BarsError> {
        if self.len() >= needed {
            return Ok(());
        }

        Err(BarsError::TooFew {
            file: self.file.clone(),
            found: self.len(),
            needed,
            needed_by: needed_by(),
        })
    }
}

fn open(ctx: &Context, file: &str) -> Result<File, BarsError> {
    ctx.data_dir().open(file).map_err(|error| match error {
        FileError::NotFound { name } => BarsError::NotFound { file: name },
        FileError::Io { name, source } => BarsError::Io { file: name, source },
        refused => BarsError::Refused(refused.into()),
    })
}

struct FileReader<'a> {
    ctx: &'a Context,
    selection: &'a BarSelection,
    opened: &'a File,
    file: String,
    /// The most bars to keep that are before the range.
    lead: usize,
}

impl FileReader<'_> {
    /// Returns the bars, and how many of them are before the range.
    fn read(self) -> Result<(Bars, usize), BarsError> {
        let source = Bounded::new(self.ctx, self.opened, MAX_RECORD);
        // `flexible`: rows of another length are refused below, with the right line.
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .from_reader(source);
        let mut record = StringRecord::new();

        self.next(&mut reader, &mut record)?;

        let columns = self.columns(&record)?;
        let (mut before, mut bars) = (VecDeque::new(), Vec::new());
        let (mut first, mut last): (Option<BarTime>, Option<BarTime>) = (None, None);
        let mut rows: u64 = 0;

        while self.next(&mut reader, &mut record)? {
            if rows.is_multiple_of(ROWS_PER_CHECK) && self.ctx.is_cancelled() {
                return Err(BarsError::Cancelled);
            }

            rows += 1;

            let bar = columns
                .bar(&record)
                .and_then(|bar| follows(last, &bar).map(|()| bar))
                .map_err(|problem| self.at(&record, problem))?;

            first = first.or(Some(bar.time));
            last = Some(bar.time);

            if self.selection.contains(bar.time) {
                if bars.len() == MAX_BARS {
                    return Err(BarsError::TooMany {
                        file: self.file,
                        most: MAX_BARS,
                    });
                }
                bars.push(bar);
            } else if self.lead > 0 && bars.is_empty() {
                // A bar behind the range is kept too, but then the range has no bar.
                if before.len() == self.lead {
                    before.pop_front();
                }
                before.push_back(bar);
            }
        }

        if bars.is_empty() {
            return Err(self.none_in_range(first.zip(last)));
        }

        let lead = before.len();
        if lead > 0 {
            before.extend(bars);
            bars = before.into();
        }

        Ok((
            Bars {
                file: self.file,
                bars,
            },
            lead,
        ))
    }

    fn next<R: Read>(
        &self,
        reader: &mut csv::Reader<Bounded<'_, R>>,
        record: &mut StringRecord,
    ) -> Result<bool, BarsError> {
        let begin = reader.position().byte();
        reader.get_mut().allow(MAX_RECORD);

        reader.read_record(record).map_err(|error| {
            let byte = error.position().map(csv::Position::byte);
            match error.into_kind() {
                csv::ErrorKind::Io(source) => match Stopped::cause_of(&source) {
                    Some(Stopped::Cancelled) => BarsError::Cancelled,
                    Some(Stopped::TooLong) => self.at_byte(
                        begin,
                        format!("the record is longer than {MAX_RECORD} bytes; is a closing quote missing?"),
                    ),
                    None => BarsError::Io {
                        file: self.file.clone(),
                        source,
                    },
                },
                kind => self.at_byte(byte.unwrap_or(0), csv_problem(&kind)),
            }
        })
    }

    fn columns(&self, header: &StringRecord) -> Result<Columns, BarsError> {
        let mut index = [0; COLUMNS.len()];
        for (place, column) in index.iter_mut().zip(COLUMNS) {
            let mut found = header
                .iter()
                .enumerate()
                .filter(|(_, name)| *name == column);

            match (found.next(), found.count()) {
                (Some((at, _)), 0) => *place = at,
                (first, more) => {
                    let times = more + usize::from(first.is_some());
                    return Err(BarsError::Column {
                        file: self.file.clone(),
                        column,
                        times,
                    });
                }
            }
        }

        Ok(Columns {
            index,
            cells: header.len(),
        })
    }

    fn none_in_range(&self, held: Option<(BarTime, BarTime)>) -> BarsError {
        let bound = |bound: Option<BarTime>, open: &str| {
            bound.map_or(open.to_owned(), |time| time.to_string())
        };

        BarsError::NoneInRange {
            file: self.file.clone(),
            start: bound(self.selection.start, "its beginning"),
            end: bound(self.selection.end, "its end"),
            held: held.map_or("no bar at all".to_owned(), |(first, last)| {
                format!("{first} to {last}")
            }),
        }
    }

    fn at(&self, record: &StringRecord, problem: String) -> BarsError {
        self.at_byte(record.position().map_or(0, csv::Position::byte), problem)
    }

    fn at_byte(&self, byte: u64, problem: String) -> BarsError {
        match self.line_of(byte) {
            Ok(line) => BarsError::Line {
                file: self.file.clone(),
                line,
                problem,
            },
            Err(source) if Stopped::cause_of(&source).is_some() => BarsError::Cancelled,
            Err(source) => BarsError::Io {
                file: self.file.clone(),
                source,
            },
        }
    }

    /// The line of the record that begins at `byte`, or behind empty lines there.
    ///
    /// The csv crate counts those empty lines as part of the record. Counting again costs a second
    /// read of the file, only on an error.
    fn line_of(&self, byte: u64) -> io::Result<u64> {
        let mut file = self.opened;
        file.rewind()?;
        let mut source = BufReader::new(Bounded::new(self.ctx, file, u64::MAX));
        let (mut line, mut at) = (1, 0);

        loop {
            let buffer = source.fill_buf()?;
            if buffer.is_empty() {
                return Ok(line);
            }

            for &read in buffer {
                if at >= byte && !matches!(read, b'\r' | b'\n') {
                    return Ok(line);
                }
                line += u64::from(read == b'\n');
                at += 1;
            }

            let length = buffer.len();

            source.consume(length);
        }
    }
}

fn csv_problem(kind: &csv::ErrorKind) -> String {
    match kind {
        csv::ErrorKind::Utf8 { err, .. } => format!("column {} is not UTF-8", err.field() + 1),
        other => format!("{other:?}"),
    }
}

/// The positions of the columns in a record.
struct Columns {
    index: [usize; COLUMNS.len()],
    cells: usize,
}

impl Columns {
    fn bar(&self, record: &StringRecord) -> Result<Bar, String> {
        if record.len() != self.cells {
            return Err(format!(
                "the row has {} cells, the header has {}",
                record.len(),
                self.cells
            ));
        }

        let cell = |column: usize| record.get(self.index[column]).unwrap_or_default();
        let timestamp = cell(0);
        let time =
            BarTime::parse(timestamp).map_err(|error| format!("column timestamp: {error}"))?;
        let mut prices = [0.0; 4];

        for (price, column) in prices.iter_mut().zip(1..) {
            *price = number(COLUMNS[column], cell(column))?;
            if *price <= 0.0 {
                return Err(format!(
                    "column {}: {} is not a positive price",
                    COLUMNS[column],
                    cell(column)
                ));
            }
        }

        let volume = number("volume", cell(5))?;
        if volume < 0.0 {
            return Err(format!("column volume: {volume} is negative"));
        }

        let [open, high, low, close] = prices;
        if high < open.max(close).max(low) || low > open.min(close) {
            return Err(format!(
                "high {high} and low {low} do not enclose open {open} and close {close}"
            ));
        }

        Ok(Bar {
            timestamp: timestamp.into(),
            time,
            open,
            high,
            low,
            close,
        })
    }
}

fn number(column: &str, text: &str) -> Result<f64, String> {
    if text.is_empty() {
        return Err(format!("column {column} is empty"));
    }
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(value),
        Ok(_) => Err(format!("column {column}: {text:?} is not a finite number")),
        Err(_) => Err(format!("column {column}: {text:?} is not a number")),
    }
}

/// Fails unless `bar` is later than `last`.
fn follows(last: Option<BarTime>, bar: &Bar) -> Result<(), String> {
    match last {
        Some(last) if last == bar.time => Err(format!("timestamp {} occurs twice", bar.timestamp)),
        Some(last) if last > bar.time => Err(format!(
            "timestamp {} comes after {last}: timestamps must increase",
            bar.timestamp
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
