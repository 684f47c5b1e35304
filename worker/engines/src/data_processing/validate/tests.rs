use serde_json::{Value, json};

use crate::data_processing::tests::one;

/// The rows (from 1) in which the rule is broken.
fn broken(source: &str, rule: Value) -> Vec<u64> {
    let (text, result) = one(
        source,
        json!({"op": "validate", "rules": [rule], "max_errors": 100, "null_values": ["", "NA"]}),
    );

    assert_eq!(text, "", "nothing is written");

    let rows: Vec<u64> = result["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| error["row"].as_u64().unwrap())
        .collect();

    assert_eq!(result["errors_total"], rows.len());
    assert_eq!(result["valid"], rows.is_empty());

    rows
}

#[test]
fn rules_about_cells() {
    let source = "v\n1\n 2.0 \nNA\n\" \"\nx\n1\n2020-01-01\n";
    let rule = |rule: &str| broken(source, json!({"column": "v", "rule": rule}));

    assert_eq!(rule("trimmed"), [2, 4]);
    assert_eq!(rule("not_null"), [3, 4]);
    assert_eq!(rule("number"), [5, 7]);
    assert_eq!(rule("integer"), [2, 5, 7]);
    assert_eq!(rule("datetime"), [1, 2, 5, 6]);
    assert_eq!(rule("unique"), [6]);

    let with = |mut more: Value| {
        more["column"] = json!("v");
        broken(source, more)
    };

    assert_eq!(
        with(json!({"rule": "datetime", "format": "%Y-%m-%d"})),
        [1, 2, 5, 6]
    );
    assert_eq!(with(json!({"rule": "min", "value": 2})), [1, 6]);
    assert_eq!(with(json!({"rule": "max", "value": 1})), [2]);
    assert_eq!(
        with(json!({"rule": "allowed", "values": ["1", "2.0", "x"]})),
        [7]
    );
}

#[test]
fn increasing_compares_with_the_last_cell_of_its_kind() {
    let broken = |source| broken(source, json!({"column": "v", "rule": "increasing"}));
    assert_eq!(broken("v\n9\n10\n10\n\"\"\nx\n10.5\n3\n4\n"), [3, 7]);
    assert_eq!(
        broken("v\n2020-01-01\n2020-01-01T00:00:01\n2020-01-01 01:00:00+02:00\n2021-01-01\n"),
        [3]
    );
}

#[test]
fn rules_about_rows() {
    let source =
        "open,high,low,close\n2,4,1,3\n2,4,1, 5\n5,4,1,3\n2,4,3,3\n2,4,x,9\n2,2,2,2\n1,0,3,2\n";

    assert_eq!(broken(source, json!({"rule": "ohlc"})), [2, 3, 4, 7]);
    assert_eq!(
        broken(
            "a,b\nx,y\nx, y\nx,y\n\"x,\",y\nx,y\n",
            json!({"rule": "duplicate_row"})
        ),
        [3, 5]
    );
}

#[test]
fn counts_by_rule_and_lists_the_first() {
    let (_, result) = one(
        "a,b\nx,1\n1,2,3\nx,1\n1,y\nz,\n",
        json!({"op": "validate", "max_errors": 3, "rules": [
            {"rule": "duplicate_row"}, {"column": "b", "rule": "number"}, {"column": "a", "rule": "number"}]}),
    );

    assert_eq!(
        result,
        json!({
            "op": "validate", "valid": false, "rows_total": 5, "rows_valid": 0, "rows_invalid": 5, "errors_total": 6,
            "errors_by_rule": {"*:field_count": 1, "*:duplicate_row": 1, "a:number": 3, "b:number": 1},
            "errors": [
                {"row": 1, "column": "a", "rule": "number", "value": "x"},
                {"row": 2, "column": "*", "rule": "field_count", "value": "3"},
                {"row": 3, "column": "*", "rule": "duplicate_row", "value": null},
            ],
        })
    );
}

#[test]
fn a_wrong_number_of_cells_is_looked_at_by_no_other_rule() {
    let rules = json!([{"column": "a", "rule": "unique"}, {"rule": "duplicate_row"}, {"column": "b", "rule": "not_null"}]);
    let (_, result) = one(
        "a,b\nx\nx\nx,1\n",
        json!({"op": "validate", "rules": rules}),
    );

    assert_eq!(result["errors_by_rule"], json!({"*:field_count": 2}));
    assert_eq!(
        (&result["rows_valid"], &result["rows_invalid"]),
        (&json!(1), &json!(2))
    );
}

#[test]
fn without_rules_only_cells_are_counted() {
    let (_, result) = one("a,b\n1,2\n,\n", json!("validate"));
    assert_eq!(
        (&result["valid"], &result["rows_valid"], &result["errors"]),
        (&json!(true), &json!(2), &json!([]))
    );
}

#[test]
fn long_values_are_shortened() {
    let source = format!("a\n{}\n", "ü".repeat(1000));
    let (_, result) = one(
        &source,
        json!({"op": "validate", "rules": [{"column": "a", "rule": "number"}]}),
    );
    let value = result["errors"][0]["value"].as_str().unwrap();
    assert_eq!((value.chars().count(), value.ends_with('…')), (201, true));
}
