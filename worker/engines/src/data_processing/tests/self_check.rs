//! Results of another implementation of the rules, on the sample data.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{figures, names, samples};
use crate::data_processing::{DataProcessing, DataProcessingOutput};
use ktrdr_worker::testing::TestRun;

/// Runs `operations` on a copy of the sample `file`. Returns the output and the bytes of the output
/// file.
async fn run(file: &str, operations: Value) -> (DataProcessingOutput, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(samples().join(file), dir.path().join("in.csv")).unwrap();

    let run = TestRun::in_dir(dir.path());
    let request =
        json!({"source_file": "in.csv", "operations": operations, "estimated_rows": 10_000});
    let output = run.run(&DataProcessing, request).await.unwrap();

    assert_eq!(run.progress().percentage, 100.0);

    let bytes = match &output.output_file {
        Some(name) => {
            assert_eq!(name, "in.processed.csv");
            std::fs::read(dir.path().join(name)).unwrap()
        }
        None => {
            assert_eq!(names(dir.path()), ["in.csv"]);
            Vec::new()
        }
    };

    (output, bytes)
}

fn sha256(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

#[tokio::test]
async fn cleans_titanic() {
    let (output, bytes) = run(
        "messy/titanic.csv",
        json!([{
            "op": "clean", "null_values": ["", "*"], "types": {"age": "number", "survived": "integer"}, "drop_duplicates": true,
            "missing": {"class": "drop_row", "age": "median"},
        }]),
    )
    .await;

    assert_eq!(output.rows_processed, 1313);
    assert_eq!(
        figures(&output.operations[0]),
        json!({
            "op": "clean", "rows_in": 1313, "rows_out": 1312, "cells_trimmed": 3, "cells_nulled": 1, "cells_invalid": 0,
            "rows_dropped_invalid": 0, "rows_dropped_duplicate": 0, "rows_dropped_missing": 1, "cells_filled": 556,
            "fill_values": {"age": "28"}, "columns": ["name", "class", "age", "sex", "survived"],
        })
    );
    assert_eq!(bytes.len(), 55_837);
    assert_eq!(
        sha256(&bytes),
        "85b71f1bb3d80da36e75500ef301bdb5dd3cdc14a96c63f2d36ba09cc1462362"
    );
}

#[tokio::test]
async fn cleaning_the_raw_prices_gives_the_prices() {
    let (output, bytes) = run(
        "raw/FOREX_EURUSD_1H_ASK.csv",
        json!([
            {"op": "clean", "types": {
                "Time": {"type": "datetime", "format": "%d.%m.%Y %H:%M:%S%.3f"},
                "Open": "number", "High": "number", "Low": "number", "Close": "number", "Volume": "number",
            }},
            {"op": "transform", "steps": [{"op": "rename", "columns": {
                "Time": "timestamp", "Open": "open", "High": "high", "Low": "low", "Close": "close", "Volume": "volume",
            }}]},
        ]),
    )
    .await;

    assert_eq!(output.rows_processed, 6225);
    assert!(bytes == std::fs::read(samples().join("EURUSD_1h.csv")).unwrap());
}

#[tokio::test]
async fn computes_columns_of_google() {
    let (output, bytes) = run(
        "GOOG_1d.csv",
        json!([{"op": "transform", "steps": [
            {"op": "log_return", "column": "close", "as": "ret"},
            {"op": "zscore", "column": "volume", "as": "volume_z"},
            {"op": "minmax", "column": "close", "as": "close_01"},
        ]}]),
    )
    .await;
    let text = String::from_utf8(bytes).unwrap();

    assert!(
        text.lines()
            .nth(2)
            .unwrap()
            .ends_with(",0.076483,1.325568,0.011742")
    );
    assert_eq!(
        sha256(text.as_bytes()),
        "2299be14dbb6780d867da4254950d32b77e4b9188f5b378893c8da88abbae4a7"
    );

    let stats = &figures(&output.operations[0])["stats"];
    assert_eq!(stats["close_01"], json!({"min": 100.01, "max": 806.85}));
    assert_eq!(stats.as_object().unwrap().len(), 2);
}

#[tokio::test]
async fn validates_titanic() {
    let (output, _) = run(
        "messy/titanic.csv",
        json!([{"op": "validate", "rules": [
            {"column": "name", "rule": "trimmed"},
            {"column": "name", "rule": "unique"},
            {"column": "class", "rule": "allowed", "values": ["1st", "2nd", "3rd"]},
            {"column": "age", "rule": "not_null"},
            {"column": "age", "rule": "number"},
            {"column": "age", "rule": "max", "value": 70},
            {"column": "survived", "rule": "allowed", "values": ["0", "1"]},
        ]}]),
    )
    .await;
    let result = figures(&output.operations[0]);

    assert_eq!(
        (
            &result["valid"],
            &result["rows_total"],
            &result["rows_valid"],
            &result["rows_invalid"],
            &result["errors_total"]
        ),
        (
            &json!(false),
            &json!(1313),
            &json!(750),
            &json!(563),
            &json!(567)
        )
    );
    assert_eq!(
        result["errors_by_rule"],
        json!({"name:trimmed": 3, "name:unique": 3, "class:allowed": 1, "age:not_null": 557, "age:max": 3})
    );

    let first = json!({"row": 10, "column": "age", "rule": "max", "value": "71.0"});
    assert_eq!(
        (
            &result["errors"][0],
            result["errors"].as_array().unwrap().len()
        ),
        (&first, 10)
    );
}

#[tokio::test]
async fn finds_the_duplicates_among_bird_strikes() {
    let (output, _) = run("messy/birdstrikes_8000.csv", json!(["clean"])).await;
    let result = figures(&output.operations[0]);
    assert_eq!(
        (&result["rows_in"], &result["rows_dropped_duplicate"]),
        (&json!(8000), &json!(19))
    );
}
