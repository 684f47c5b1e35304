//! Requests that the schema (at the backend) and the engine accept or refuse.

use schemars::schema_for;
use serde_json::{Value, json};

use crate::data_processing::{DataProcessing, DataProcessingRequest};
use ktrdr_worker::Engine;
use ktrdr_worker::testing::TestRun;

fn request(operation: Value) -> Value {
    json!({"source_file": "in.csv", "operations": [operation]})
}

fn good() -> Vec<Value> {
    let operations = [
        json!("clean"),
        json!("transform"),
        json!("validate"),
        json!({"op": "clean"}),
        json!({"op": "clean", "trim": false, "null_values": ["NA"], "on_invalid": "drop_row", "decimals": 2,
            "types": {"a": "number", "b": "integer", "c": "datetime", "d": {"type": "datetime", "format": "%Y"}},
            "drop_duplicates": ["a"], "missing": {"a": "mean", "b": {"value": "x"}, "c": "ffill", "d": "drop_row"}}),
        json!({"op": "clean", "drop_duplicates": false}),
        json!({"op": "transform", "decimals": 3, "steps": [
            {"op": "select", "columns": ["a"]}, {"op": "rename", "columns": {"a": "b"}},
            {"op": "filter", "column": "a", "cmp": "<=", "value": 1.5}, {"op": "filter", "column": "a", "cmp": "==", "value": "x"},
            {"op": "sort", "columns": ["a", "b"], "descending": true}, {"op": "dedupe"},
            {"op": "dedupe", "columns": ["a"], "keep": "last"},
            {"op": "zscore", "column": "a"}, {"op": "minmax", "column": "a", "as": "b"}, {"op": "log_return", "column": "a"}]}),
        json!({"op": "clean", "types": {
            "a": {"type": "number", "decimal": ",", "thousands": "."}, "b": {"type": "integer", "thousands": ","},
            "c": {"type": "datetime", "format": ["%d.%m.%Y", "%s"], "zone": "Europe/Berlin", "ambiguous": "later"}}}),
        json!({"op": "validate", "max_errors": 3, "null_values": [], "rules": [
            {"column": "a", "rule": "trimmed"}, {"column": "a", "rule": "not_null"}, {"column": "a", "rule": "number"},
            {"column": "a", "rule": "integer"}, {"column": "a", "rule": "datetime"},
            {"column": "a", "rule": "datetime", "format": "%Y"}, {"column": "a", "rule": "min", "value": 1},
            {"column": "a", "rule": "max", "value": 1.5}, {"column": "a", "rule": "allowed", "values": ["x"]},
            {"column": "a", "rule": "unique"}, {"column": "a", "rule": "increasing"}, {"rule": "ohlc"},
            {"rule": "duplicate_row"}]}),
    ];
    let whole = json!({"source_file": "a", "operations": ["clean"], "output_file": "b", "estimated_rows": 10_000});

    operations.into_iter().map(request).chain([whole]).collect()
}

/// Invalid requests, each with the part of the message that names the mistake.
fn bad() -> Vec<(Value, &'static str)> {
    let operations = [
        (
            json!("cleanse"),
            "unknown variant `cleanse`, expected one of `clean`, `transform`, `validate`",
        ),
        (
            json!(3),
            "3 is not a valid operation: give a name or an object with \"op\"",
        ),
        (json!({}), "missing field `op`"),
        (json!({"op": "sort"}), "unknown variant `sort`"),
        (
            json!({"op": "clean", "trimm": true}),
            "unknown field `trimm`, expected one of `trim`, `null_values`",
        ),
        (
            json!({"op": "clean", "trim": "yes"}),
            "invalid type: string \"yes\", expected a boolean",
        ),
        (
            json!({"op": "clean", "types": {"a": "float"}}),
            "type: unknown variant `float`",
        ),
        (
            json!({"op": "clean", "types": {"a": {"type": "datetime", "fmt": ""}}}),
            "unknown field `fmt`",
        ),
        (
            json!({"op": "clean", "types": {"a": {"type": "number", "format": ""}}}),
            "unknown field `format`",
        ),
        (
            json!({"op": "clean", "on_invalid": "drop"}),
            "unknown variant `drop`",
        ),
        (
            json!({"op": "clean", "drop_duplicates": "all"}),
            "drop_duplicates must be true, false or a list",
        ),
        (
            json!({"op": "clean", "missing": {"a": "average"}}),
            "unknown variant `average`",
        ),
        (
            json!({"op": "clean", "missing": {"a": {"value": 0}}}),
            "expected a string",
        ),
        (
            json!({"op": "transform", "trim": true}),
            "unknown field `trim`",
        ),
        (
            json!({"op": "transform", "steps": [{"op": "shuffle"}]}),
            "unknown variant `shuffle`",
        ),
        (
            json!({"op": "transform", "steps": [{"op": "sort"}]}),
            "missing field `columns`",
        ),
        (
            json!({"op": "transform", "steps": [{"op": "dedupe", "keep": "any"}]}),
            "unknown variant `any`",
        ),
        (
            json!({"op": "clean", "types": {"a": {"type": "datetime", "format": 5}}}),
            "format must be a text or a list",
        ),
        (
            json!({"op": "clean", "types": {"a": {"type": "number", "decimal": ";"}}}),
            "unknown variant `;`",
        ),
        (
            json!({"op": "transform", "steps": [{"op": "zscore", "column": "a", "into": "b"}]}),
            "unknown field `into`",
        ),
        (
            json!({"op": "transform", "steps": [{"op": "select"}]}),
            "missing field `columns`",
        ),
        (
            json!({"op": "transform", "steps": [{"op": "filter", "column": "a", "cmp": "=", "value": 1}]}),
            "unknown variant `=`",
        ),
        (
            json!({"op": "transform", "steps": [{"op": "filter", "column": "a", "cmp": "<", "value": true}]}),
            "value must be a number or a text",
        ),
        (
            json!({"op": "validate", "rules": [{"column": "a", "rule": "positive"}]}),
            "unknown variant `positive`",
        ),
        (
            json!({"op": "validate", "rules": [{"column": "a", "rule": "min"}]}),
            "missing field `value`",
        ),
        (
            json!({"op": "validate", "rules": [{"rule": "unique"}]}),
            "missing field `column`",
        ),
        (
            json!({"op": "validate", "rules": [{"rule": "ohlc", "column": "a"}]}),
            "unknown field `column`",
        ),
        (
            json!({"op": "validate", "rules": [{"column": "a", "rule": "max", "value": "1"}]}),
            "expected f64",
        ),
    ];

    let operations = operations
        .into_iter()
        .map(|(operation, message)| (request(operation), message));

    operations
        .chain([
            (
                json!({"operations": ["clean"]}),
                "missing field `source_file`",
            ),
            (
                json!({"source_file": "in.csv"}),
                "missing field `operations`",
            ),
            (
                json!({"source_file": "in.csv", "operations": "clean"}),
                "expected a sequence",
            ),
            (
                json!({"source_file": "in.csv", "operations": ["clean"], "rows": 1}),
                "unknown field `rows`",
            ),
            (
                json!({"source_file": "in.csv", "operations": ["clean"], "estimated_rows": -1}),
                "expected u64",
            ),
        ])
        .collect()
}

/// Well-formed requests with values out of range. The engine refuses them at its start; the schema
/// has these limits too.
fn out_of_range() -> Vec<(Value, &'static str)> {
    vec![
        (
            json!({"source_file": "in.csv", "operations": []}),
            "operations is empty",
        ),
        (
            request(json!({"op": "clean", "decimals": 31})),
            "decimals may be at most 30",
        ),
        (
            request(json!({"op": "transform", "decimals": 31})),
            "decimals may be at most 30",
        ),
        (
            request(json!({"op": "clean", "drop_duplicates": []})),
            "drop_duplicates names no column",
        ),
        (
            request(json!({"op": "transform", "steps": [{"op": "select", "columns": []}]})),
            "select names no column",
        ),
        (
            request(json!({"op": "transform", "steps": [{"op": "sort", "columns": []}]})),
            "sort names no column",
        ),
        (
            request(json!({"op": "transform", "steps": [{"op": "dedupe", "columns": []}]})),
            "dedupe names no column",
        ),
        (
            request(
                json!({"op": "clean", "types": {"a": {"type": "number", "decimal": ",", "thousands": ","}}}),
            ),
            "decimal and thousands are the same character",
        ),
        (
            request(json!({"op": "clean", "types": {"a": {"type": "number", "thousands": "."}}})),
            "decimal and thousands are the same character",
        ),
        (
            request(
                json!({"op": "clean", "types": {"a": {"type": "datetime", "format": "%d.%m.%E"}}}),
            ),
            "is not a strftime format",
        ),
        (
            json!({"source_file": "in.csv", "operations": ["clean"], "input": {"delimiter": ";", "comment": ";"}}),
            "delimiter and comment are the same character",
        ),
        (
            json!({"source_file": "in.csv", "operations": ["clean"], "input": {"decimal": ",", "thousands": ","}}),
            "decimal and thousands are the same character",
        ),
    ]
}

#[test]
fn the_schema_and_the_engine_accept_and_refuse_the_same() {
    let schema = schema_for!(DataProcessingRequest).to_value();
    let validator = jsonschema::validator_for(&schema).unwrap();

    for request in good() {
        assert!(
            validator.is_valid(&request),
            "{request}: {:?}",
            validator.iter_errors(&request).next()
        );
        assert!(
            serde_json::from_value::<DataProcessingRequest>(request.clone()).is_ok(),
            "{request}"
        );
    }

    for (request, message) in bad() {
        assert!(!validator.is_valid(&request), "{request}");
        let error = serde_json::from_value::<DataProcessingRequest>(request.clone())
            .unwrap_err()
            .to_string();
        assert!(error.contains(message), "{request}: {error}");
    }

    for (request, _) in out_of_range() {
        assert!(!validator.is_valid(&request), "{request}");
    }
}

#[tokio::test]
async fn the_engine_checks_limits_without_the_schema() {
    let dir = super::dir_with("a\n1\n");
    for (request, message) in out_of_range() {
        let run = TestRun::in_dir(dir.path());
        let parameters = serde_json::from_value(request.clone()).unwrap();
        let error = DataProcessing
            .run(run.ctx().clone(), parameters)
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains(message), "{request}: {error}");
    }
}
