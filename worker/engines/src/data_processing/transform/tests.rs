use serde_json::{Value, json};

use crate::data_processing::tests::{fails, one};

fn transform(source: &str, steps: Value) -> (String, Value) {
    one(source, json!({"op": "transform", "steps": steps}))
}

fn column(text: &str, index: usize) -> Vec<&str> {
    text.lines()
        .map(|line| line.split(',').nth(index).unwrap())
        .collect()
}

#[test]
fn without_steps_nothing_changes() {
    let source = " a ,b\n 1 ,\"x,y\"\n 1 ,\"x,y\"\n";
    let (text, result) = transform(source, json!([]));
    assert_eq!(text, source);
    assert_eq!(
        result,
        json!({"op": "transform", "rows_in": 2, "rows_out": 2, "columns": [" a ", "b"], "stats": {}})
    );
}

#[test]
fn selects_and_renames() {
    let source = "a,b,c\n1,2,3\n";

    assert_eq!(
        transform(source, json!([{"op": "select", "columns": ["c", "a"]}])).0,
        "c,a\n3,1\n"
    );

    let swap = json!([{"op": "rename", "columns": {"a": "b", "b": "a"}}]);
    assert_eq!(transform(source, swap).0, "b,a,c\n1,2,3\n");

    for step in [
        json!({"op": "rename", "columns": {"a": "b"}}),
        json!({"op": "select", "columns": ["b", "b"]}),
    ] {
        let error = fails(source, json!({"op": "transform", "steps": [step]}));
        assert_eq!(
            error,
            "operation 1 (transform): column name \"b\" occurs more than once: give every column a different name"
        );
    }
}

#[test]
fn filters_by_number_or_text() {
    let source = "v\n10\n9\n1e1\nx\n\n\"\"\n-1\n";
    let kept = |cmp: &str, value: Value| {
        let (text, result) = transform(
            source,
            json!([{"op": "filter", "column": "v", "cmp": cmp, "value": value}]),
        );
        assert_eq!(
            result["rows_out"].as_u64().unwrap() as usize,
            text.lines().count() - 1
        );
        column(&text, 0)[1..].join(" ")
    };

    assert_eq!(kept("==", json!(10)), "10 1e1");
    assert_eq!(kept("!=", json!(10)), "9 -1");
    assert_eq!(kept("<", json!(9.5)), "9 -1");
    assert_eq!(kept("<=", json!(9)), "9 -1");
    assert_eq!(kept(">", json!(9)), "10 1e1");
    assert_eq!(kept(">=", json!(9)), "10 9 1e1");
    assert_eq!(kept("==", json!("10")), "10");
    assert_eq!(kept("!=", json!("10")), "9 1e1 x \"\" -1");
    assert_eq!(kept("<", json!("10")), "\"\" -1");
    assert_eq!(kept(">=", json!("1e1")), "9 1e1 x");
}

#[test]
fn computes_over_the_numbers_of_the_column() {
    let (text, result) = transform(
        "v\n2\n4\n4\n4\n5\n5\n7\n9\nx\n",
        json!([{"op": "zscore", "column": "v"}, {"op": "minmax", "column": "v", "as": "m"}]),
    );

    assert_eq!(
        column(&text, 1),
        [
            "v_zscore", "-1.5", "-0.5", "-0.5", "-0.5", "0", "0", "1", "2", ""
        ]
    );
    assert_eq!(
        column(&text, 2),
        [
            "m", "0", "0.285714", "0.285714", "0.285714", "0.428571", "0.428571", "0.714286", "1",
            ""
        ]
    );
    assert_eq!(
        result["stats"],
        json!({"v_zscore": {"mean": 5.0, "std": 2.0}, "m": {"min": 2.0, "max": 9.0}})
    );
    assert_eq!(result["columns"], json!(["v", "v_zscore", "m"]));
}

#[test]
fn log_returns_need_two_positive_numbers_in_a_row() {
    let (text, result) = transform(
        "v\n1\n2\nx\n2\n0\n1\n-1\n1\n1\n",
        json!([{"op": "log_return", "column": "v"}]),
    );
    assert_eq!(
        column(&text, 1),
        ["v_log_return", "", "0.693147", "", "", "", "", "", "", "0"]
    );
    assert_eq!(result["stats"], json!({}));
}

#[test]
fn undefined_results_are_missing() {
    let both = json!([{"op": "zscore", "column": "v", "as": "z"}, {"op": "minmax", "column": "v", "as": "m"}]);

    assert_eq!(
        transform("v\n0.1\n0.1\n0.1\n", both.clone()).0,
        "v,z,m\n0.1,,\n0.1,,\n0.1,,\n"
    );

    let (text, result) = transform("v\n1e999\n1\n", both);
    assert_eq!(text, "v,z,m\n1e999,,\n1,,0\n");
    assert_eq!(
        result["stats"],
        json!({"z": {"mean": null, "std": null}, "m": {"min": 1.0, "max": null}})
    );
}

#[test]
fn a_column_of_that_name_is_replaced_in_place() {
    let steps = json!([{"op": "log_return", "column": "a", "as": "a"}, {"op": "minmax", "column": "b", "as": "b"}]);
    assert_eq!(
        transform("a,b\n1,5\n2,7\n4,6\n", steps).0,
        "a,b\n,0\n0.693147,1\n0.693147,0.5\n"
    );
}

#[test]
fn a_later_step_reads_the_rounded_text() {
    let steps = json!([{"op": "log_return", "column": "v", "as": "r"}, {"op": "filter", "column": "r", "cmp": "==", "value": 0.69},
        {"op": "minmax", "column": "v", "as": "m"}, {"op": "zscore", "column": "m", "as": "z"}]);
    let (text, _) = one(
        "v\n1\n2\n4\n9\n",
        json!({"op": "transform", "decimals": 2, "steps": steps}),
    );
    assert_eq!(text, "v,r,m,z\n2,0.69,0,-1\n4,0.69,1,1\n");
}

#[test]
fn statistics_are_those_of_the_table_at_that_step() {
    let steps = json!([{"op": "minmax", "column": "v", "as": "all"}, {"op": "filter", "column": "all", "cmp": ">", "value": 0},
        {"op": "minmax", "column": "v", "as": "rest"}, {"op": "select", "columns": ["rest", "all"]}]);
    let (text, result) = transform("v\n0\n10\n20\n", steps);
    assert_eq!(text, "rest,all\n0,0.5\n1,1\n");
    assert_eq!(
        (&result["rows_in"], &result["rows_out"]),
        (&json!(3), &json!(2))
    );
}
