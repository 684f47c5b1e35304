//! Valid and invalid files.

use super::*;
use ktrdr_worker::OperationError;
use ktrdr_worker::testing::TestRun;
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
    assert_eq!(
        days(&read(GOOD.as_bytes(), None, None).unwrap()),
        ["2024-01-02", "2024-01-03", "2024-01-05"]
    );
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
    let text = "\u{feff}volume,close,note,low,high,open,timestamp\r\n\r\n10,1.5,\"a,\r\nb\",0.5,2,1,\"2024-01-02\"\r\n";
    let bars = read(text.as_bytes(), None, None).unwrap();
    let bar = &bars.bars[0];
    assert_eq!(
        (bar.open, bar.high, bar.low, bar.close),
        (1.0, 2.0, 0.5, 1.5)
    );
}

#[test]
fn errors_name_the_file_and_the_line() {
    for (from, to, expected) in [
        (
            "2024-01-05,",
            "2024-01-02,",
            "X_1d.csv, line 4: timestamp 2024-01-02 comes after 2024-01-03T00:00:00Z",
        ),
        (
            "2024-01-05,",
            "2024-01-03,",
            "X_1d.csv, line 4: timestamp 2024-01-03 occurs twice",
        ),
        (
            "2024-01-05,",
            "\n\n05.01.24,",
            "X_1d.csv, line 6: column timestamp: \"05.01.24\" is not a date or time",
        ),
        (
            "1e0,0",
            "NaN,0",
            "X_1d.csv, line 3: column close: \"NaN\" is not a finite number",
        ),
        (
            "1e0,0",
            "inf,0",
            "X_1d.csv, line 3: column close: \"inf\" is not a finite number",
        ),
        ("1e0,0", ",0", "X_1d.csv, line 3: column close is empty"),
        (
            "1e0,0",
            "one,0",
            "X_1d.csv, line 3: column close: \"one\" is not a number",
        ),
        (
            "1e0,0",
            "0,0",
            "X_1d.csv, line 3: column close: 0 is not a positive price",
        ),
        (
            ".5,1e0",
            "-.5,1e0",
            "X_1d.csv, line 3: column low: -.5 is not a positive price",
        ),
        (
            "1e0,0",
            "1e0,-1",
            "X_1d.csv, line 3: column volume: -1 is negative",
        ),
        (
            "1e0,0",
            "3,0",
            "X_1d.csv, line 3: high 2 and low 0.5 do not enclose open 1 and close 3",
        ),
        (
            "1,2,.5",
            "1,.4,.5",
            "X_1d.csv, line 3: high 0.4 and low 0.5 do not enclose",
        ),
        (
            "1e0,0",
            "1e0",
            "X_1d.csv, line 3: the row has 5 cells, the header has 6",
        ),
        (
            "volume",
            "vol",
            "X_1d.csv: the header names column \"volume\" 0 times",
        ),
        (
            "volume",
            "volume,open",
            "X_1d.csv: the header names column \"open\" 2 times",
        ),
    ] {
        let text = GOOD.replacen(from, to, 1);
        for text in [text.clone(), text.replace('\n', "\r\n")] {
            let error = read(text.as_bytes(), None, None).unwrap_err();
            assert!(
                error.to_string().starts_with(expected),
                "{text:?} gave {error}"
            );
            assert!(
                matches!(error, OperationError::Permanent { .. }),
                "{error:?}"
            );
        }
    }
}

#[test]
fn bytes_that_are_no_text_are_refused() {
    let error = read(
        b"timestamp,open,high,low,close,volume\n2024-01-02,1,2,1,\xff,3\n",
        None,
        None,
    )
    .unwrap_err();
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
    assert!(
        read(header.as_bytes(), None, None)
            .unwrap_err()
            .to_string()
            .ends_with("the file holds no bar at all")
    );
    assert!(
        read(b"", None, None)
            .unwrap_err()
            .to_string()
            .contains("\"timestamp\" 0 times")
    );
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
        matches!(&error, OperationError::Permanent { code, message } if code == "bars_not_found" && message.starts_with("NOPE_1h.csv"))
    );

    std::fs::write(dir.path().join("NOPE_1h.csv"), GOOD).unwrap();
    run.cancel();

    assert!(matches!(
        Bars::load(run.ctx(), &selection),
        Err(BarsError::Cancelled)
    ));
}
