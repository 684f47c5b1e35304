//! Files, chains of operations, progress, cancellation.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{dir_with, fails, names, run};
use crate::data_processing::DataProcessing;
use ktrdr_worker::testing::TestRun;
use ktrdr_worker::{Engine, OperationError};

fn rows(count: usize) -> String {
    (0..count).fold(String::from("a,b\n"), |text, row| {
        text + &format!("{row},{}\n", row % 7)
    })
}

async fn request(dir: &std::path::Path, request: Value) -> Result<Value, OperationError> {
    TestRun::in_dir(dir)
        .run(&DataProcessing, request)
        .await
        .map(|output| serde_json::to_value(output).unwrap())
}

#[test]
fn files_that_are_no_tables_fail_with_file_and_line() {
    for (source, message) in [
        (
            &b""[..],
            "in.csv: the file is empty; it must have at least a header",
        ),
        (
            b"\n\r\n",
            "in.csv: the file is empty; it must have at least a header",
        ),
        (
            b"\xef\xbb\xbf",
            "in.csv: the file is empty; it must have at least a header",
        ),
        (
            b"a,b,a\n",
            "in.csv, header: column name \"a\" occurs more than once: give every column a different name",
        ),
        (
            b"a,b\n1,2\n\n1,2,3\n",
            "in.csv, line 4: the record has 3 cells, the header has 2",
        ),
        (
            b"a,b\r\n1\r\n",
            "in.csv, line 2: the record has 1 cells, the header has 2",
        ),
        (
            b"a\n\"x\ny\"\n\"z\n",
            "in.csv, line 4: a quoted cell in this record is never closed",
        ),
        (
            b"a\n\xe4\n",
            "in.csv, line 2: the record is not valid UTF-8: set input.encoding, such as windows-1252, if the file has another encoding",
        ),
    ] {
        for operation in ["clean", "transform"] {
            assert_eq!(fails(source, json!(operation)), message);
        }
    }

    assert_eq!(
        fails("a, a\n", json!("clean")),
        "operation 1 (clean): column name \"a\" occurs more than once: give every column a different name"
    );
    assert_eq!(
        run("a, a\n", json!([{"op": "clean", "trim": false}]))
            .unwrap()
            .text,
        "a, a\n"
    );
}

#[test]
fn an_unknown_column_fails_before_any_row_is_read() {
    // The first row would also fail if it were read.
    let source = "a,b\n1\n";
    let message = "there is no column \"x\"; the columns are a, b";

    for operation in [
        json!({"op": "clean", "types": {"x": "number"}}),
        json!({"op": "clean", "missing": {"x": "mean"}}),
        json!({"op": "clean", "drop_duplicates": ["a", "x"]}),
        json!({"op": "transform", "steps": [{"op": "select", "columns": ["x"]}]}),
        json!({"op": "transform", "steps": [{"op": "rename", "columns": {"x": "y"}}]}),
        json!({"op": "transform", "steps": [{"op": "filter", "column": "x", "cmp": "<", "value": 1}]}),
        json!({"op": "transform", "steps": [{"op": "zscore", "column": "x"}]}),
        json!({"op": "validate", "rules": [{"column": "x", "rule": "number"}]}),
    ] {
        let error = fails(source, operation);

        assert!(error.ends_with(message), "{error}");
    }

    let error = fails(
        source,
        json!({"op": "validate", "rules": [{"rule": "ohlc"}]}),
    );

    assert_eq!(
        error,
        "operation 1 (validate): there is no column \"open\"; the columns are a, b"
    );

    let chain = json!(["clean", {"op": "transform", "steps": [
        {"op": "rename", "columns": {"a": "c"}}, {"op": "select", "columns": ["a"]}]}]);
    let error = run(source, chain).err().unwrap();

    assert_eq!(
        error,
        "operation 2 (transform): there is no column \"a\"; the columns are c, b"
    );
}

#[tokio::test]
async fn paths_are_checked() {
    let dir = dir_with("a\n1\n");
    std::fs::create_dir(dir.path().join("sub")).unwrap();
    std::fs::hard_link(dir.path().join("in.csv"), dir.path().join("other.csv")).unwrap();

    for (source, output, message) in [
        (
            "gone.csv",
            "out.csv",
            "source file \"gone.csv\" does not exist in the data directory",
        ),
        (
            "in.csv/x",
            "out.csv",
            "source file \"in.csv/x\" does not exist in the data directory",
        ),
        (
            "sub",
            "out.csv",
            "source file \"sub\" is not a regular file",
        ),
        (
            "../in.csv",
            "out.csv",
            "path \"../in.csv\" leaves the data directory",
        ),
        (
            "in.csv",
            "../out.csv",
            "path \"../out.csv\" leaves the data directory",
        ),
        (
            "in.csv",
            "in.csv",
            "output_file \"in.csv\" is the source file",
        ),
        (
            "in.csv",
            "./in.csv",
            "output_file \"./in.csv\" is the source file",
        ),
        (
            "in.csv",
            "other.csv",
            "output_file \"other.csv\" is the source file",
        ),
        ("in.csv", "sub", "output file \"sub\" is a directory"),
        ("in.csv", ".", "output file \".\" is a directory"),
        (
            "in.csv",
            "./.unfinished/x",
            "output file \"./.unfinished/x\" is hidden or lies in a hidden directory",
        ),
    ] {
        let body = json!({"source_file": source, "output_file": output, "operations": ["clean"]});
        let error = request(dir.path(), body).await.unwrap_err();

        assert!(
            matches!(error, OperationError::Permanent { .. }),
            "{error:?}"
        );
        assert!(error.to_string().contains(message), "{error}");
    }

    assert_eq!(names(dir.path()), ["in.csv", "other.csv", "sub"]);
    assert_eq!(std::fs::read(dir.path().join("in.csv")).unwrap(), b"a\n1\n");
}

#[tokio::test]
async fn the_output_goes_beside_the_source_or_where_it_was_asked_for() {
    let dir = dir_with("");
    std::fs::create_dir(dir.path().join("sub")).unwrap();
    std::fs::write(dir.path().join("sub/my.data.csv"), "a\n1\n").unwrap();

    let source = "sub/my.data.csv";
    let output = request(
        dir.path(),
        json!({"source_file": source, "operations": ["transform"]}),
    )
    .await
    .unwrap();

    assert_eq!(output["output_file"], "sub/my.data.processed.csv");
    assert_eq!(
        std::fs::read(dir.path().join("sub/my.data.processed.csv")).unwrap(),
        b"a\n1\n"
    );

    let body = json!({"source_file": source, "operations": ["transform"], "output_file": "new/deep/x.csv"});
    assert_eq!(
        request(dir.path(), body.clone()).await.unwrap()["output_file"],
        "new/deep/x.csv"
    );

    // Run again, over the first output.
    request(dir.path(), body).await.unwrap();

    assert_eq!(names(&dir.path().join("new/deep")), ["x.csv"]);

    let body =
        json!({"source_file": source, "operations": ["validate"], "output_file": "none.csv"});
    assert_eq!(
        request(dir.path(), body).await.unwrap()["output_file"],
        Value::Null
    );
    assert_eq!(names(dir.path()), ["in.csv", "new", "sub"]);
}

#[tokio::test]
async fn a_compressed_table_stays_compressed() {
    use std::io::{Read, Write};

    let dir = tempfile::tempdir().unwrap();
    let file = std::fs::File::create(dir.path().join("in.csv.gz")).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
    gzip.write_all(rows(3000).as_bytes()).unwrap();
    gzip.finish().unwrap();

    let output = request(
        dir.path(),
        json!({"source_file": "in.csv.gz", "operations": ["clean"]}),
    )
    .await
    .unwrap();

    assert_eq!(output["output_file"], "in.processed.csv.gz");
    assert_eq!(output["rows_processed"], 3000);
    assert_eq!(names(dir.path()), ["in.csv.gz", "in.processed.csv.gz"]);

    let written = std::fs::File::open(dir.path().join("in.processed.csv.gz")).unwrap();
    let mut text = String::new();
    flate2::read::GzDecoder::new(written)
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, rows(3000));
}

#[test]
fn operations_work_on_the_table_the_one_before_left() {
    let outcome = run(
        " a ,b\n 1,x\n3,x\n,y\n3,x\n",
        json!([
            {"op": "clean", "missing": {"a": "mean"}},
            {"op": "validate", "rules": [{"column": "a", "rule": "max", "value": 2}]},
            {"op": "transform", "steps": [
                {"op": "filter", "column": "b", "cmp": "==", "value": "x"},
                {"op": "zscore", "column": "a"}, {"op": "minmax", "column": "a_zscore", "as": "m"}]},
            {"op": "clean", "missing": {"m": "mode"}, "drop_duplicates": ["b"]},
            {"op": "validate", "rules": [{"column": "m", "rule": "allowed", "values": ["0"]}]},
        ]),
    )
    .unwrap();

    assert_eq!(outcome.text, "a,b,a_zscore,m\n1,x,-1,0\n");

    let results = outcome.result["operations"].as_array().unwrap();
    assert_eq!(
        (&results[0]["rows_in"], &results[0]["rows_out"]),
        (&json!(4), &json!(3))
    );
    assert_eq!(results[0]["fill_values"], json!({"a": "2"}));
    assert_eq!(
        (&results[1]["rows_total"], &results[1]["errors_by_rule"]),
        (&json!(3), &json!({"a:max": 1}))
    );
    assert_eq!(
        results[1]["errors"],
        json!([{"row": 2, "column": "a", "rule": "max", "value": "3"}])
    );
    assert_eq!(
        (&results[2]["rows_in"], &results[2]["rows_out"]),
        (&json!(3), &json!(2))
    );
    assert_eq!(
        results[2]["stats"]["a_zscore"],
        json!({"mean": 2.0, "std": 1.0})
    );
    assert_eq!(results[2]["stats"]["m"], json!({"min": -1.0, "max": 1.0}));
    assert_eq!(
        (
            &results[3]["rows_dropped_duplicate"],
            &results[3]["rows_out"]
        ),
        (&json!(1), &json!(1))
    );
    assert_eq!(
        (&results[4]["valid"], &results[4]["rows_total"]),
        (&json!(true), &json!(1))
    );
    assert_eq!(outcome.result["rows_processed"], 4);
}

/// Learning several statistics in one pass gives the same as learning them one by one.
#[test]
fn a_chain_gives_what_its_operations_give_one_by_one() {
    let operations = [
        json!({"op": "clean", "missing": {"b": "median", "c": "mode"}}),
        json!({"op": "transform", "steps": [{"op": "zscore", "column": "b"}, {"op": "minmax", "column": "a"},
            {"op": "filter", "column": "b_zscore", "cmp": "<", "value": 1}, {"op": "log_return", "column": "a"}]}),
        json!({"op": "transform", "steps": [{"op": "minmax", "column": "a_log_return", "as": "a"},
            {"op": "zscore", "column": "b_zscore", "as": "b"}, {"op": "select", "columns": ["c", "b", "a"]}]}),
    ];

    let source = (0..200).fold(String::from("a,b,c\n"), |text, i| {
        let b = if i % 5 == 0 {
            String::new()
        } else {
            (i * i % 31).to_string()
        };
        text + &format!("{},{b},{}\n", i % 17 + 1, ["x", "", "y"][i % 3])
    });
    let mut text = source.clone();

    for operation in &operations {
        text = run(&text, json!([operation])).unwrap().text;
    }

    let at_once = run(&source, json!(operations)).unwrap();

    assert_eq!(at_once.text, text);
    assert_eq!(at_once.result["rows_processed"], 200);
    assert!(text.lines().count() > 100);
}

/// Also when a later operation learns nothing and its rows are final before the last pass.
#[test]
fn duplicates_are_found_behind_a_learnt_column_that_is_no_longer_there() {
    let source = "a,b\n1,x\n2,x\n,y\n4,y\n";
    for steps in [
        json!([{"op": "select", "columns": ["b"]}]),
        json!([{"op": "zscore", "column": "a", "as": "z"}, {"op": "select", "columns": ["b"]}]),
    ] {
        for first in [
            json!({"op": "clean", "missing": {"a": "median"}}),
            json!({"op": "clean", "missing": {"a": {"value": "0"}}}),
        ] {
            let outcome = run(
                source,
                json!([first, {"op": "transform", "steps": steps}, "clean"]),
            )
            .unwrap();

            assert_eq!(outcome.text, "b\nx\ny\n", "{first} {steps}");
            assert_eq!(outcome.result["operations"][2]["rows_dropped_duplicate"], 2);
        }
    }
}

#[tokio::test]
async fn tells_how_far_it_is() {
    let dir = dir_with(rows(5_000));
    let run = TestRun::in_dir(dir.path());
    let operations = json!([{"op": "clean", "types": {"b": "datetime"}, "missing": {"a": "median"}}, "validate"]);

    run.run(
        &DataProcessing,
        json!({"source_file": "in.csv", "operations": operations}),
    )
    .await
    .unwrap();

    let progress = run.progress();

    assert_eq!(
        (progress.percentage, progress.estimated_remaining_seconds),
        (100.0, Some(0))
    );
    assert_eq!(
        progress.current_step.unwrap(),
        "Cleaning, validating: 5000/5000 rows (pass 2 of 2)"
    );
    assert_eq!(progress.fields["rows_processed"], 5_000);

    let metrics = run.metrics();
    let last = |name| {
        metrics
            .iter()
            .rfind(|point| point.name == name)
            .unwrap()
            .value
    };

    assert_eq!(
        (last("rows_processed"), last("errors")),
        (Some(5_000.0), Some(5_000.0))
    );
}

#[tokio::test]
async fn a_cancelled_run_leaves_nothing() {
    // This would take seconds in a test build; the cancel comes first.
    let dir = dir_with(format!("a,b\n{}", "1,2\n".repeat(2_000_000)));
    for operations in [
        json!(["clean"]),
        json!([{"op": "clean", "missing": {"a": "median"}}]),
    ] {
        // The run has no checkpoint yet.
        let run = TestRun::in_dir(dir.path()).checkpoint_interval(Duration::from_secs(3600));
        let request =
            json!({"source_file": "in.csv", "operations": operations, "output_file": "out.csv"});
        let request = serde_json::from_value(request).unwrap();
        let task = tokio::spawn(DataProcessing.run(run.ctx().clone(), request));

        // The run works as soon as its directory exists.
        while names(dir.path()).len() < 2 && !task.is_finished() {
            tokio::task::yield_now().await;
        }

        assert_eq!(names(dir.path()), [".unfinished", "in.csv"]);

        run.cancel();

        assert_eq!(task.await.unwrap().unwrap_err(), OperationError::Cancelled);
        assert_eq!(names(dir.path()), ["in.csv"]);
        assert!(run.progress().percentage < 100.0);
    }
}

#[test]
fn what_makes_no_records_makes_no_records() {
    assert_eq!(
        run("\u{feff}a,b\r\n", json!(["clean"])).unwrap().text,
        "a,b\n"
    );

    let outcome = run(
        "a,b",
        json!([{"op": "clean", "missing": {"a": "mean"}},
        {"op": "transform", "steps": [{"op": "zscore", "column": "a"}, {"op": "minmax", "column": "b"}]}, "validate"]),
    );
    let outcome = outcome.unwrap();

    assert_eq!(
        (outcome.text.as_str(), &outcome.result["rows_processed"]),
        ("a,b,a_zscore,b_minmax\n", &json!(0))
    );

    let results = &outcome.result["operations"];
    assert_eq!(results[0]["fill_values"], json!({"a": null}));
    assert_eq!(
        results[1]["stats"]["a_zscore"],
        json!({"mean": null, "std": null})
    );
    assert_eq!(
        results[1]["stats"]["b_minmax"],
        json!({"min": null, "max": null})
    );
    assert_eq!(results[2]["valid"], true);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Cells written by the csv crate, read and written by the engine, and read by the csv crate
    /// stay the same.
    #[test]
    fn cleaning_with_everything_off_changes_nothing(
        (columns, cells) in (1_usize..5).prop_flat_map(|columns| {
            (Just(columns), proptest::collection::vec("[ab 0.,\"\r\n\tü\u{a0}-]{0,6}", columns * 8))
        })
    ) {
        let mut writer = csv::Writer::from_writer(Vec::new());
        let header: Vec<String> = (0..columns).map(|column| format!(" c{column} ")).collect();

        writer.write_record(&header).unwrap();

        for record in cells.chunks(columns) {
            writer.write_record(record).unwrap();
        }

        let source = writer.into_inner().unwrap();
        let off = json!([{"op": "clean", "trim": false, "null_values": [], "drop_duplicates": false}]);
        let outcome = run(&source, off).unwrap();
        let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(outcome.text.as_bytes());
        let read: Vec<Vec<String>> =
            reader.records().map(|record| record.unwrap().iter().map(str::to_owned).collect()).collect();
        let wanted: Vec<Vec<String>> =
            std::iter::once(header).chain(cells.chunks(columns).map(<[String]>::to_vec)).collect();

        prop_assert_eq!(read, wanted);
    }
}
