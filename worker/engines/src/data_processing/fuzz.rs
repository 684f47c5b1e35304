//! Attacks on CSV files, requests, and the saved state of a run.

use std::fs::{self, File};
use std::io::{Cursor, Write};

use flate2::Compression;
use flate2::write::GzEncoder;

use ktrdr_fuzz::Attack;

use super::decode::Coding;
use super::numbers::{Decimal, NumberFormat, Thousands};
use super::plan::Plan;
use super::reader::{CsvReader, Dialect};
use super::row::Row;
use super::table::Table;
use super::{DataProcessingRequest, NameOrObject, OperationParams};

/// Buffers of the reader, and tables of an operation.
const MEMORY: usize = 8 * 1024 * 1024;

const REQUESTS: &[&str] = &[
    r#"{"source_file":"in.csv","operations":["clean","validate"]}"#,
    r#"{"source_file":"in.csv","output_file":"o.csv","overwrite":true,"operations":[{"op":"clean","null_values":["","NA"],"types":{"a":"number"},"missing":{"a":"median"},"drop_duplicates":true},{"op":"validate","rules":[{"column":"a","rule":"max","value":70}]}]}"#,
    r#"{"source_file":"in.csv","operations":[{"op":"transform","decimals":3,"steps":[{"op":"rename","columns":{"a":"x"}},{"op":"filter","column":"x","cmp":"<=","value":1.5},{"op":"zscore","column":"x"},{"op":"minmax","column":"x","as":"m"},{"op":"log_return","column":"x"},{"op":"select","columns":["x","m"]}]}]}"#,
    r#"{"source_file":"in.csv","input":{"delimiter":",","quote":"\"","decimal":".","thousands":"'","ragged":"pad","comment":"%","skip_rows":0},"operations":[{"op":"clean","types":{"a":{"type":"number","thousands":","},"b":{"type":"datetime","format":["%d.%m.%Y","%Q"],"zone":"Europe/Berlin","ambiguous":"later"}}},{"op":"transform","steps":[{"op":"sort","columns":["a"],"descending":true},{"op":"dedupe","keep":"last"},{"op":"dedupe","columns":["b"]}]}]}"#,
];

const TABLES: &[&str] = &[
    "a,b\n1,x\n2,\"y\"\"z\"\n,\n",
    "a,b\r\n1.5,2024-01-02\r\nNA,\"line\r\nbreak\"\r\n",
    "a;b\n\"1\n2\"\n",
];

fn read_all(bytes: &[u8], dialect: Dialect) -> Vec<Vec<Vec<u8>>> {
    let mut reader = CsvReader::new(Cursor::new(bytes), "in.csv", dialect);
    let (mut row, mut rows) = (Row::default(), Vec::new());
    while let Ok(true) = reader.read(&mut row) {
        rows.push(row.iter().map(<[u8]>::to_vec).collect());
        assert!(reader.bytes_read() <= bytes.len() as u64);
    }
    rows
}

#[test]
fn csv_files() {
    Attack::on("CSV files")
        .with(TABLES)
        .memory(MEMORY)
        .run(|bytes| {
            for cells in read_all(bytes, Dialect::default()) {
                let length: usize = cells.iter().map(Vec::len).sum();
                assert!(!cells.is_empty() && length <= bytes.len());
            }
        });
}

#[test]
fn files_of_other_dialects() {
    let dialect = Dialect {
        delimiter: b';',
        quote: Some(b'\''),
        comment: Some(b'#'),
        skip_lines: 1,
    };
    let seeds = ["no table\na;b\n#c\n'x;''y'';' ; 1\n;\n", TABLES[2]];
    Attack::on("files of other dialects")
        .with(seeds)
        .memory(MEMORY)
        .run(|bytes| {
            for cells in read_all(bytes, dialect) {
                let length: usize = cells.iter().map(Vec::len).sum();
                assert!(!cells.is_empty() && length <= bytes.len());
            }
        });
}

/// Gzip and UTF-16.
#[test]
fn coded_files() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("in.csv");
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(TABLES[0].as_bytes()).unwrap();
    let utf16 = format!("\u{feff}{}", TABLES[1]);
    let utf16: Vec<u8> = utf16.encode_utf16().flat_map(u16::to_le_bytes).collect();

    let read = |bytes: &[u8], encoding| {
        fs::write(&path, bytes).unwrap();
        let (file, len) = (File::open(&path).unwrap(), bytes.len() as u64);
        let coding = Coding::of(&file, len, encoding).unwrap();
        let decoded = coding.open(&file, len).unwrap();
        let mut reader = CsvReader::new(decoded, "in.csv", Dialect::default());
        let (mut row, mut rows) = (Row::default(), 0);
        while let Ok(true) = reader.read(&mut row) {
            assert!(std::str::from_utf8(&row.bytes).is_ok());
            rows += 1;
        }
        rows
    };

    assert!(read(&utf16, None) == 3);
    Attack::on("coded files")
        .with([gzip.finish().unwrap(), utf16])
        .memory(MEMORY)
        .run(|bytes| {
            read(bytes, None);
            read(bytes, Some(encoding_rs::SHIFT_JIS));
        });
}

#[test]
fn numbers_of_other_places() {
    let formats = [
        (Decimal::Comma, Some(Thousands::Point)),
        (Decimal::Comma, Some(Thousands::Space)),
        (Decimal::Point, Some(Thousands::Apostrophe)),
        (Decimal::Point, Some(Thousands::Comma)),
    ];
    let seeds = [
        "1.299,99",
        "-1\u{a0}234\u{202f}567,5e-3",
        "1\u{2019}299.5",
        "1,000",
    ];
    Attack::on("numbers of other places")
        .with(seeds)
        .run(|bytes| {
            for (decimal, thousands) in formats {
                let format = NumberFormat::new(decimal, thousands).unwrap();
                let plain = format.plain(bytes);
                assert_eq!(plain.is_some(), format.number(bytes).is_some());
                if let Some(plain) = plain {
                    assert!(NumberFormat::default().is_number(&plain));
                }
            }
        });
}

#[test]
fn requests() {
    for seed in REQUESTS {
        let request: DataProcessingRequest = serde_json::from_str(seed).unwrap();
        assert!(
            run(&request.operations, TABLES[0].as_bytes()).is_some(),
            "{seed}"
        );
    }
    Attack::on("requests")
        .with(REQUESTS)
        .memory(MEMORY)
        .run(|bytes| {
            let Ok(request) = serde_json::from_slice::<DataProcessingRequest>(bytes) else {
                return;
            };
            let written = serde_json::to_vec(&request).unwrap();
            serde_json::from_slice::<DataProcessingRequest>(&written)
                .expect("a written request is read");
            run(&request.operations, TABLES[0].as_bytes());
        });
}

/// Sends the rows of a table through the operations, once, and returns the saved state.
fn run(operations: &[NameOrObject<OperationParams>], table: &[u8]) -> Option<(Plan, Vec<u8>)> {
    let mut reader = CsvReader::new(Cursor::new(table), "in.csv", Dialect::default());
    let mut row = Row::default();
    reader.read(&mut row).ok().filter(|is_there| *is_there)?;
    let columns = row.len();
    let mut plan = Plan::new(
        operations,
        "in.csv",
        Table::new("in.csv", &row, NumberFormat::default()).ok()?,
    )
    .ok()?;

    for pass in 0..=plan.table.last_pass.min(8) {
        plan.begin_pass(pass);
        let needed = plan.operations_needed_in(pass);
        let mut reader = CsvReader::new(Cursor::new(table), "in.csv", Dialect::default());
        reader.read(&mut row).ok()?;
        while let Ok(true) = reader.read(&mut row) {
            if row.len() != columns {
                break;
            }
            plan.process_row(&mut row, needed).ok()?;
        }
        while plan.next_held(&mut row, needed).ok()? {}
    }
    let mut state = Vec::new();
    plan.save(&mut state).ok()?;
    Some((plan, state))
}

/// A state that says that there were more invalid rows than rows is refused, not subtracted.
#[test]
fn a_state_with_impossible_counts_is_refused() {
    let request = r#"{"source_file":"in.csv","operations":["validate"]}"#;
    let request: DataProcessingRequest = serde_json::from_str(request).unwrap();
    let (_, state) = run(&request.operations, b"a\n1\n2\n").expect("a run");
    // No rules, no short rows, two rows, none of them invalid, no errors.
    assert_eq!(state, [0x96, 0x90, 0, 2, 0, 0, 0x90]);
    let restore = |state: &[u8]| {
        let table = Table::new("in.csv", &Row::of(&["a"]), NumberFormat::default()).unwrap();
        let mut plan = Plan::new(&request.operations, "in.csv", table).unwrap();
        plan.restore(plan.table.last_pass, &mut &state[..])
    };

    assert!(restore(&state).is_ok());
    assert!(restore(&[0x96, 0x90, 0, 2, 3, 0, 0x90]).is_err());
    let huge = [0xcf, 255, 255, 255, 255, 255, 255, 255, 255];
    let many_rows = [&[0x96, 0x90, 0][..], &huge, &[0, 0, 0x90]].concat();
    assert!(restore(&many_rows).is_err());
}

#[test]
fn saved_states() {
    let request: DataProcessingRequest = serde_json::from_str(REQUESTS[0]).unwrap();
    let (plan, state) = run(&request.operations, TABLES[0].as_bytes()).expect("a run");
    let pass = plan.table.last_pass;
    Attack::on("saved states")
        .with([state])
        .memory(MEMORY)
        .run(|bytes| {
            let header = Row::of(&["a", "b"]);
            let table = Table::new("in.csv", &header, NumberFormat::default()).unwrap();
            let mut plan = Plan::new(&request.operations, "in.csv", table).unwrap();
            if plan.restore(pass, &mut Cursor::new(bytes)).is_err() {
                return;
            }

            // The run goes on from whatever it has read.
            let needed = plan.operations_needed_in(pass);
            for cells in [["1", "x"], ["", "NA"]] {
                let _ = plan.process_row(&mut Row::of(&cells), needed);
            }
            plan.save(&mut Vec::new()).unwrap();
            let _ = plan.errors();
            for operation in plan.operations {
                serde_json::to_vec(&operation.into_result()).expect("a result");
            }
        });
}
