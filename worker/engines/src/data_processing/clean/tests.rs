use serde_json::{Value, json};

use crate::data_processing::tests::{fails, one};

fn clean(source: &str, params: Value) -> (String, Value) {
    let mut operation = params;
    operation["op"] = json!("clean");
    one(source, operation)
}

fn figures(result: &Value, names: &[&str]) -> Vec<u64> {
    names
        .iter()
        .map(|name| {
            result[name]
                .as_u64()
                .unwrap_or_else(|| panic!("no {name} in {result}"))
        })
        .collect()
}

#[test]
fn trims_cells_and_column_names() {
    let (text, result) = clean("\u{a0}a, b\n 1 ,\"x \n\"\n\u{3000},y\n", json!({}));

    assert_eq!(text, "a,b\n1,x\n,y\n");
    assert_eq!(
        figures(&result, &["cells_trimmed", "cells_nulled", "rows_out"]),
        [3, 0, 2]
    );
    assert_eq!(result["columns"], json!(["a", "b"]));

    let (text, result) = clean("a, b\n 1 ,x\n", json!({"trim": false}));
    assert_eq!(
        (text.as_str(), &result["cells_trimmed"]),
        ("a, b\n 1 ,x\n", &json!(0))
    );
}

#[test]
fn null_values_become_missing() {
    let source = "a,b\nNA,na\n NA ,-\n,NA2\n";
    let (text, result) = clean(source, json!({"null_values": ["NA", "-", ""]}));

    assert_eq!(
        (text.as_str(), &result["cells_nulled"]),
        ("a,b\n,na\n,\n,NA2\n", &json!(3))
    );

    let (text, result) = clean(source, json!({"null_values": ["NA"], "trim": false}));
    assert_eq!(
        (text.as_str(), &result["cells_nulled"]),
        ("a,b\n,na\n NA ,-\n,NA2\n", &json!(1))
    );
}

#[test]
fn cells_of_another_type_become_missing_or_drop_the_row() {
    let source = "n,i,t\n1.50,07,2020-01-01\n1;5,1.0,2020\n,,\nx,2,2020-01-02 10:00:00+01:00\n";
    let types = json!({"n": "number", "i": "integer", "t": "datetime"});
    let names = ["cells_invalid", "rows_dropped_invalid", "rows_out"];
    let (text, result) = clean(source, json!({"types": types}));

    // The two rows look the same, but were not: the cells of one became missing.
    assert_eq!(
        text,
        "n,i,t\n1.50,07,2020-01-01\n,,\n,,\n,2,2020-01-02 10:00:00+01:00\n"
    );
    assert_eq!(
        (figures(&result, &names), &result["rows_dropped_duplicate"]),
        (vec![4, 0, 4], &json!(0))
    );

    let (text, result) = clean(source, json!({"types": types, "on_invalid": "drop_row"}));
    assert_eq!(text, "n,i,t\n1.50,07,2020-01-01\n,,\n");
    assert_eq!(figures(&result, &names), [4, 2, 2]);

    let error = fails(
        source,
        json!({"op": "clean", "types": types, "on_invalid": "fail"}),
    );

    assert_eq!(
        error,
        "in.csv, line 3: \"1;5\" in column \"n\" is not a number"
    );
}

#[test]
fn times_in_a_format_are_rewritten() {
    let typed = |format| json!({"types": {"t": {"type": "datetime", "format": format}}});
    let (text, result) = clean(
        "t\n31.12.2017 23:00:00.500\n2017/12/31\n2017-12-31\n",
        typed("%d.%m.%Y %H:%M:%S%.3f"),
    );

    // The last one has the written form already.
    assert_eq!(
        (text.as_str(), &result["cells_invalid"]),
        ("t\n2017-12-31T23:00:00\n\"\"\n2017-12-31\n", &json!(1))
    );
    assert_eq!(clean("t\n1/8/90\n", typed("%m/%d/%y")).0, "t\n1990-01-08\n");

    let mut bad = typed("%Y %Q");

    bad["op"] = json!("clean");

    assert!(fails("t\n", bad).contains("\"%Y %Q\" is not a strftime format"));
}

#[test]
fn duplicates_are_dropped_after_trimming_nulls_and_types() {
    let source = "a,b\nx,1\n x,1\nx,2\nx,-\nx,\ny,1\n";
    let (text, result) = clean(source, json!({"null_values": ["-"]}));

    assert_eq!(
        (text.as_str(), &result["rows_dropped_duplicate"]),
        ("a,b\nx,1\nx,2\nx,\ny,1\n", &json!(2))
    );

    let (text, _) = clean(source, json!({"drop_duplicates": ["a"]}));
    assert_eq!(text, "a,b\nx,1\ny,1\n");

    let (text, _) = clean(source, json!({"drop_duplicates": false}));
    assert_eq!(text, "a,b\nx,1\nx,1\nx,2\nx,-\nx,\ny,1\n");

    // A row dropped for its type does not count as an earlier one.
    let (text, _) = clean(
        "a,b\nx,?\nx,1\n",
        json!({"types": {"b": "number"}, "on_invalid": "drop_row", "drop_duplicates": ["a"]}),
    );

    assert_eq!(text, "a,b\nx,1\n");

    // Nor does a row dropped later for a missing cell, but it can be a duplicate.
    let (text, result) = clean(
        "a,b\nx,\nx,1\nx,\n",
        json!({"drop_duplicates": ["a"], "missing": {"b": "drop_row"}}),
    );

    assert_eq!(text, "a,b\nx,1\n");
    assert_eq!(
        figures(&result, &["rows_dropped_duplicate", "rows_dropped_missing"]),
        [1, 1]
    );
}

#[test]
fn missing_cells_are_filled() {
    let source = "k,v\na,\nb,4\nc,x\nd,1\ne,\nf,3\ng,2\n";
    let fill = |policy: Value| {
        let (text, result) = clean(source, json!({"missing": {"v": policy}}));
        let cells: Vec<String> = text
            .lines()
            .skip(1)
            .map(|line| line[2..].to_owned())
            .collect();
        (
            cells.join(" "),
            result["cells_filled"].as_u64().unwrap(),
            result["fill_values"].clone(),
        )
    };

    assert_eq!(
        fill(json!("mean")),
        ("2.5 4 x 1 2.5 3 2".into(), 2, json!({"v": "2.5"}))
    );
    assert_eq!(
        fill(json!("median")),
        ("2.5 4 x 1 2.5 3 2".into(), 2, json!({"v": "2.5"}))
    );
    assert_eq!(
        fill(json!("mode")),
        ("4 4 x 1 4 3 2".into(), 2, json!({"v": "4"}))
    );
    assert_eq!(
        fill(json!({"value": "n/a"})),
        ("n/a 4 x 1 n/a 3 2".into(), 2, json!({"v": "n/a"}))
    );

    // Nothing comes before the first row.
    assert_eq!(fill(json!("ffill")), (" 4 x 1 1 3 2".into(), 1, json!({})));
    assert_eq!(
        fill(json!({"value": ""})),
        (" 4 x 1  3 2".into(), 0, json!({"v": ""}))
    );
}

#[test]
fn there_may_be_nothing_to_learn_from() {
    let (text, result) = clean("k,v\na,\nb,\n", json!({"missing": {"v": "median"}}));
    assert_eq!(
        (text.as_str(), &result["cells_filled"]),
        ("k,v\na,\nb,\n", &json!(0))
    );
    assert_eq!(result["fill_values"], json!({"v": null}));
}

#[test]
fn ffill_takes_the_previous_written_row() {
    // The row with 9 is not written, so it fills nothing. A filled cell fills the next one.
    let source = "k,v,w\na,1,x\nb,9,\nc,,x\nd,,y\n";
    let (text, result) = clean(source, json!({"missing": {"v": "ffill", "w": "drop_row"}}));

    assert_eq!(text, "k,v,w\na,1,x\nc,1,x\nd,1,y\n");
    assert_eq!(
        figures(
            &result,
            &["cells_filled", "rows_dropped_missing", "rows_out"]
        ),
        [2, 1, 3]
    );
}

#[test]
fn figures_are_learnt_before_rows_are_dropped_for_missing_cells() {
    // 100 is in a row that is dropped later and counts; the duplicate of 1 does not count.
    let source = "k,v\na,1\na,1\n,100\nb,\n";
    let (text, result) = clean(source, json!({"missing": {"k": "drop_row", "v": "mean"}}));
    assert_eq!(
        (text.as_str(), &result["fill_values"]),
        ("k,v\na,1\nb,50.5\n", &json!({"v": "50.5"}))
    );
}

#[test]
fn computed_text_has_the_decimals_asked_for() {
    let source = "k,v\na,1\nb,1\nc,2\nd,\n";
    let mean = |decimals: u8| {
        clean(
            source,
            json!({"missing": {"v": "mean"}, "decimals": decimals}),
        )
        .1["fill_values"]["v"]
            .clone()
    };

    assert_eq!(
        (mean(6), mean(2), mean(0)),
        (json!("1.333333"), json!("1.33"), json!("1"))
    );
}

#[test]
fn cells_keep_their_characters() {
    let source = "a,b\n29.0,+1e3\n-0,\"a \"\"quoted\"\" cell\"\n";
    let (text, _) = clean(source, json!({"types": {"a": "number"}}));
    assert_eq!(text, source);
}

/// The second pass reads the duplicates of the first. The rows fill several words of bits, with
/// duplicates at their ends.
#[test]
fn duplicates_are_the_same_in_every_pass() {
    let keys: Vec<usize> = (0..200)
        .map(|row| {
            if matches!(row, 1 | 63 | 64 | 127 | 199) {
                0
            } else {
                row
            }
        })
        .collect();

    let source = keys.iter().fold(String::from("k,v\n"), |text, key| {
        text + &format!("{key},\n")
    });
    let (once, _) = clean(&source, json!({}));
    let (twice, result) = clean(&source, json!({"missing": {"v": "mean"}}));

    assert_eq!(once, twice);
    assert_eq!(
        figures(&result, &["rows_dropped_duplicate", "rows_out"]),
        [5, 195]
    );
}
