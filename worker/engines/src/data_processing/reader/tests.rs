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
    records_in(Dialect::default(), input)
}

fn records_in(dialect: Dialect, input: impl Read) -> Result<Records, DataError> {
    let mut reader = CsvReader::new(input, "t.csv", dialect);
    let (mut row, mut all) = (Row::default(), Vec::new());
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
    expect_in(Dialect::default(), text, wanted);
}

fn expect_in(dialect: Dialect, text: &str, wanted: &[(u64, &[&str])]) {
    let wanted: Records = wanted
        .iter()
        .map(|(line, cells)| (*line, cells.iter().map(ToString::to_string).collect()))
        .collect();

    assert_eq!(
        records_in(dialect, text.as_bytes()).unwrap(),
        wanted,
        "{text:?}"
    );
    assert_eq!(
        records_in(dialect, Drip(text.as_bytes())).unwrap(),
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
    expect("a\"b,c\n", &[(1, &["a\"b", "c"])]);
    expect(" \"a\"\t, \"b\"\"\" ,c \n", &[(1, &["a", "b\"", "c "])]);
    expect("a, \n", &[(1, &["a", " "])]);
    expect(" \n", &[(1, &[" "])]);
    expect("ä,ö,\n", &[(1, &["ä", "ö", ""])]);
    expect("", &[]);
    expect("\u{feff}\r", &[]);
}

#[test]
fn other_dialects() {
    let semicolons = Dialect {
        delimiter: b';',
        quote: Some(b'\''),
        comment: Some(b'#'),
        skip_lines: 2,
    };
    expect_in(
        semicolons,
        "a;b\r\n\n#no\n\n'x;''y';1,2\n# \"no\r\n;#3\n#",
        &[(5, &["x;'y", "1,2"]), (7, &["", "#3"])],
    );
    expect_in(semicolons, "\u{feff}only one line", &[]);

    let tabs = Dialect {
        delimiter: b'\t',
        quote: None,
        ..Dialect::default()
    };
    expect_in(tabs, "\"a\t\t 'b\n", &[(1, &["\"a", "", " 'b"])]);

    let spaces = Dialect {
        delimiter: b' ',
        ..Dialect::default()
    };
    expect_in(spaces, "a  \"b c\"\n", &[(1, &["a", "", "b c"])]);
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
        "t.csv, line 3: the record is not valid UTF-8: set input.encoding, such as windows-1252, if the file has another encoding"
    );

    // Two cells that each hold half a character are not valid either.
    assert!(error(b"\xc3,\xa4\n").starts_with("t.csv, line 1: the record is not valid UTF-8"));
    assert!(error(b"a\0\n").starts_with("t.csv, line 1: the record holds a NUL byte"),);
    assert!(
        error(b"a\n1,\"abc\n2,\"def\n")
            .starts_with("t.csv, line 2: text follows the closing quote"),
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

fn has_spaced_quote(text: &str) -> bool {
    text.contains(" \"") || text.contains("\" ")
}

#[test]
fn every_byte_is_counted() {
    let text = "\u{feff}a,b\r\n\"1\",2\r\n\r\n";
    let (mut reader, mut row) = (
        CsvReader::new(text.as_bytes(), "t.csv", Dialect::default()),
        Row::default(),
    );
    while reader.read(&mut row).unwrap() {}
    assert_eq!(reader.bytes_read(), text.len() as u64);
}

#[test]
fn a_reader_resumes_behind_any_record() {
    let text = "\u{feff}a,\"b\nc\"\r\n\n1,2\r3,4\n\n\"x\n\",\"q\"\"\"\n5,6";
    let all = records(text.as_bytes()).unwrap();
    let (mut reader, mut row) = (
        CsvReader::new(text.as_bytes(), "t.csv", Dialect::default()),
        Row::default(),
    );

    for done in 1..=all.len() {
        assert!(reader.read(&mut row).unwrap());

        let (offset, line) = (reader.bytes_read(), reader.line());
        let mut resumed = CsvReader::resume(
            &text.as_bytes()[offset as usize..],
            "t.csv",
            Dialect::default(),
            offset,
            line,
        );
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
        // The csv crate keeps the spaces and quotes of ` "a"`.
        if has_spaced_quote(&text) {
            return Ok(());
        }

        let mut theirs = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
        let theirs: Vec<Vec<String>> =
            theirs.records().map(|record| record.unwrap().iter().map(str::to_owned).collect()).collect();
        match records(Drip(text.as_bytes())) {
            Ok(ours) => prop_assert_eq!(ours.into_iter().map(|(_, cells)| cells).collect::<Vec<_>>(), theirs),
            // The csv crate accepts both.
            Err(DataError::UnterminatedQuote { .. } | DataError::StrayQuote { .. }) => {}
            _ if has_spaced_quote(&text) => {}
            Err(other) => return Err(TestCaseError::fail(other.to_string())),
        }
    }
}
