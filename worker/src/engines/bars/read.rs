//! Reading a file of bars.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use csv::StringRecord;

use super::{Bar, BarSelection, BarTime, Bars, BarsError};
use crate::Context;

/// A cancel is looked for once in so many rows.
const ROWS_PER_CHECK: u64 = 1000;

/// The columns every file has, in the order of [`Columns::index`].
const COLUMNS: [&str; 6] = ["timestamp", "open", "high", "low", "close", "volume"];

impl Bars {
    /// Reads `{symbol}_{timeframe}.csv` of the data directory and keeps the bars that are asked for.
    ///
    /// The whole file is checked, also the part outside the range: a file that is broken somewhere is not to be trusted
    /// elsewhere.
    ///
    /// # Errors
    /// [`BarsError`]; see there.
    pub fn load(ctx: &Context, selection: &BarSelection) -> Result<Bars, BarsError> {
        let file = selection.file();
        let path = ctx.data_dir().resolve(&file).map_err(BarsError::Refused)?;
        let opened = File::open(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => BarsError::NotFound { file: file.clone() },
            _ => BarsError::Io { file: file.clone(), source },
        })?;
        FileReader { ctx, selection, path: &path, file }.read(opened)
    }

    /// Refuses to go on with fewer than `needed` bars.
    ///
    /// # Errors
    /// [`BarsError::TooFew`], which names `needed_by` as what needs them.
    pub fn require(&self, needed: usize, needed_by: impl FnOnce() -> String) -> Result<(), BarsError> {
        if self.len() >= needed {
            return Ok(());
        }
        Err(BarsError::TooFew { file: self.file.clone(), found: self.len(), needed, needed_by: needed_by() })
    }
}

struct FileReader<'a> {
    ctx: &'a Context,
    selection: &'a BarSelection,
    path: &'a Path,
    file: String,
}

impl FileReader<'_> {
    fn read(self, source: impl Read) -> Result<Bars, BarsError> {
        // Rows of another length are refused here, with the line, and not by the csv crate.
        let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(source);
        let mut record = StringRecord::new();
        self.next(&mut reader, &mut record)?;
        let columns = self.columns(&record)?;
        let mut bars = Vec::new();
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
                bars.push(bar);
            }
        }
        if bars.is_empty() {
            return Err(self.none_in_range(first.zip(last)));
        }
        Ok(Bars { file: self.file, bars })
    }

    fn next<R: Read>(&self, reader: &mut csv::Reader<R>, record: &mut StringRecord) -> Result<bool, BarsError> {
        reader.read_record(record).map_err(|error| {
            let byte = error.position().map(csv::Position::byte);
            match error.into_kind() {
                csv::ErrorKind::Io(source) => BarsError::Io { file: self.file.clone(), source },
                kind => self.at_byte(byte.unwrap_or(0), csv_problem(&kind)),
            }
        })
    }

    fn columns(&self, header: &StringRecord) -> Result<Columns, BarsError> {
        let mut index = [0; COLUMNS.len()];
        for (place, column) in index.iter_mut().zip(COLUMNS) {
            let mut found = header.iter().enumerate().filter(|(_, name)| *name == column);
            match (found.next(), found.count()) {
                (Some((at, _)), 0) => *place = at,
                (first, more) => {
                    let times = more + usize::from(first.is_some());
                    return Err(BarsError::Column { file: self.file.clone(), column, times });
                }
            }
        }
        Ok(Columns { index, cells: header.len() })
    }

    fn none_in_range(&self, held: Option<(BarTime, BarTime)>) -> BarsError {
        let bound = |bound: Option<BarTime>, open: &str| bound.map_or(open.to_owned(), |time| time.to_string());
        BarsError::NoneInRange {
            file: self.file.clone(),
            start: bound(self.selection.start, "its beginning"),
            end: bound(self.selection.end, "its end"),
            held: held.map_or("no bar at all".to_owned(), |(first, last)| format!("{first} to {last}")),
        }
    }

    fn at(&self, record: &StringRecord, problem: String) -> BarsError {
        self.at_byte(record.position().map_or(0, csv::Position::byte), problem)
    }

    fn at_byte(&self, byte: u64, problem: String) -> BarsError {
        match line_of(self.path, byte) {
            Ok(line) => BarsError::Line { file: self.file.clone(), line, problem },
            Err(source) => BarsError::Io { file: self.file.clone(), source },
        }
    }
}

fn csv_problem(kind: &csv::ErrorKind) -> String {
    match kind {
        csv::ErrorKind::Utf8 { err, .. } => format!("column {} is not UTF-8", err.field() + 1),
        other => format!("{other:?}"),
    }
}

/// The line of the record that begins at `byte` or after empty lines there.
///
/// The csv crate's own count takes those empty lines for the record. Counting again costs a second read, once, on an error.
fn line_of(path: &Path, byte: u64) -> io::Result<u64> {
    let mut source = BufReader::new(File::open(path)?);
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

/// Where the columns stand in a record.
struct Columns {
    index: [usize; COLUMNS.len()],
    cells: usize,
}

impl Columns {
    fn bar(&self, record: &StringRecord) -> Result<Bar, String> {
        if record.len() != self.cells {
            return Err(format!("{} cells where the header has {}", record.len(), self.cells));
        }
        let cell = |column: usize| record.get(self.index[column]).unwrap_or_default();
        let timestamp = cell(0);
        let time = BarTime::parse(timestamp).map_err(|error| format!("column timestamp: {error}"))?;
        let mut prices = [0.0; 4];
        for (price, column) in prices.iter_mut().zip(1..) {
            *price = number(COLUMNS[column], cell(column))?;
            if *price <= 0.0 {
                return Err(format!("column {}: {} is not a positive price", COLUMNS[column], cell(column)));
            }
        }
        let volume = number("volume", cell(5))?;
        if volume < 0.0 {
            return Err(format!("column volume: {volume} is negative"));
        }
        let [open, high, low, close] = prices;
        if high < open.max(close).max(low) || low > open.min(close) {
            return Err(format!("high {high} and low {low} do not enclose open {open} and close {close}"));
        }
        Ok(Bar { timestamp: timestamp.into(), time, open, high, low, close })
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

/// Whether `bar` may come after one of time `last`.
fn follows(last: Option<BarTime>, bar: &Bar) -> Result<(), String> {
    match last {
        Some(last) if last == bar.time => Err(format!("timestamp {} is there twice", bar.timestamp)),
        Some(last) if last > bar.time => {
            Err(format!("timestamp {} comes after {last}: timestamps must increase", bar.timestamp))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::OperationError;
    use crate::testing::TestRun;
    use serde_json::json;

    fn read(text: &[u8], start: Option<&str>, end: Option<&str>) -> Result<Bars, OperationError> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("X_1d.csv"), text).unwrap();
        let bound = |text: Option<&str>| text.map(|text| BarTime::parse(text).unwrap());
        let selection = BarSelection {
            symbol: "X".to_owned().try_into().unwrap(),
            timeframe: serde_json::from_value(json!("1d")).unwrap(),
            start: bound(start),
            end: bound(end),
        };
        Ok(Bars::load(TestRun::in_dir(dir.path()).ctx(), &selection)?)
    }

    fn days(bars: &Bars) -> Vec<&str> {
        bars.bars.iter().map(|bar| &*bar.timestamp).collect()
    }

    const GOOD: &str = "timestamp,open,high,low,close,volume\n2024-01-02,1,2,0.5,1.5,10\n2024-01-03,1,2,.5,1e0,0\n2024-01-05,2,2,2,2,7.5\n";

    #[test]
    fn bounds_include_their_own_moment() {
        assert_eq!(days(&read(GOOD.as_bytes(), None, None).unwrap()), ["2024-01-02", "2024-01-03", "2024-01-05"]);
        assert_eq!(
            days(&read(GOOD.as_bytes(), Some("2024-01-03"), Some("2024-01-05")).unwrap()),
            ["2024-01-03", "2024-01-05"]
        );
        assert_eq!(
            days(&read(GOOD.as_bytes(), None, Some("2024-01-04T23:59:59")).unwrap()),
            ["2024-01-02", "2024-01-03"]
        );
    }

    #[test]
    fn order_of_columns_quotes_bom_and_line_ends_do_not_matter() {
        let text =
            "\u{feff}volume,close,note,low,high,open,timestamp\r\n\r\n10,1.5,\"a,\r\nb\",0.5,2,1,\"2024-01-02\"\r\n";
        let bars = read(text.as_bytes(), None, None).unwrap();
        let bar = &bars.bars[0];
        assert_eq!((bar.open, bar.high, bar.low, bar.close), (1.0, 2.0, 0.5, 1.5));
    }

    #[test]
    fn what_is_wrong_is_named_with_file_and_line() {
        for (from, to, expected) in [
            ("2024-01-05,", "2024-01-02,", "X_1d.csv, line 4: timestamp 2024-01-02 comes after 2024-01-03T00:00:00Z"),
            ("2024-01-05,", "2024-01-03,", "X_1d.csv, line 4: timestamp 2024-01-03 is there twice"),
            ("2024-01-05,", "\n\n05.01.24,", "X_1d.csv, line 6: column timestamp: \"05.01.24\" is no time"),
            ("1e0,0", "NaN,0", "X_1d.csv, line 3: column close: \"NaN\" is not a finite number"),
            ("1e0,0", "inf,0", "X_1d.csv, line 3: column close: \"inf\" is not a finite number"),
            ("1e0,0", ",0", "X_1d.csv, line 3: column close is empty"),
            ("1e0,0", "one,0", "X_1d.csv, line 3: column close: \"one\" is not a number"),
            ("1e0,0", "0,0", "X_1d.csv, line 3: column close: 0 is not a positive price"),
            (".5,1e0", "-.5,1e0", "X_1d.csv, line 3: column low: -.5 is not a positive price"),
            ("1e0,0", "1e0,-1", "X_1d.csv, line 3: column volume: -1 is negative"),
            ("1e0,0", "3,0", "X_1d.csv, line 3: high 2 and low 0.5 do not enclose open 1 and close 3"),
            ("1,2,.5", "1,.4,.5", "X_1d.csv, line 3: high 0.4 and low 0.5 do not enclose"),
            ("1e0,0", "1e0", "X_1d.csv, line 3: 5 cells where the header has 6"),
            ("volume", "vol", "X_1d.csv: the header names column \"volume\" 0 times"),
            ("volume", "volume,open", "X_1d.csv: the header names column \"open\" 2 times"),
        ] {
            let text = GOOD.replacen(from, to, 1);
            for text in [text.clone(), text.replace('\n', "\r\n")] {
                let error = read(text.as_bytes(), None, None).unwrap_err();
                assert!(error.to_string().starts_with(expected), "{text:?} gave {error}");
                assert!(matches!(error, OperationError::Permanent { .. }), "{error:?}");
            }
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_refused() {
        let error = read(b"timestamp,open,high,low,close,volume\n2024-01-02,1,2,1,\xff,3\n", None, None).unwrap_err();
        assert_eq!(error.to_string(), "X_1d.csv, line 2: column 5 is not UTF-8");
    }

    #[test]
    fn an_empty_range_says_what_there_is() {
        let error = read(GOOD.as_bytes(), Some("2025-01-01"), None).unwrap_err();
        assert_eq!(
            error.to_string(),
            "X_1d.csv: no bars between 2025-01-01T00:00:00Z and its end; the file holds 2024-01-02T00:00:00Z to 2024-01-05T00:00:00Z"
        );
        let header = "timestamp,open,high,low,close,volume\n";
        assert!(read(header.as_bytes(), None, None).unwrap_err().to_string().ends_with("the file holds no bar at all"));
        assert!(read(b"", None, None).unwrap_err().to_string().contains("\"timestamp\" 0 times"));
    }

    #[test]
    fn a_missing_file_and_a_cancel() {
        let dir = tempfile::tempdir().unwrap();
        let run = TestRun::in_dir(dir.path());
        let selection = BarSelection {
            symbol: "NOPE".to_owned().try_into().unwrap(),
            timeframe: serde_json::from_value(json!("1h")).unwrap(),
            start: None,
            end: None,
        };
        let error = OperationError::from(Bars::load(run.ctx(), &selection).unwrap_err());
        assert!(
            matches!(&error, OperationError::Permanent { code: "bars_not_found", message } if message.starts_with("NOPE_1h.csv"))
        );
        std::fs::write(dir.path().join("NOPE_1h.csv"), GOOD).unwrap();
        run.cancel();
        assert!(matches!(Bars::load(run.ctx(), &selection), Err(BarsError::Cancelled)));
    }
}
