//! Resuming from a checkpoint: the result is the same, and no row is processed twice without need.

use std::fs::{self, File};
use std::path::Path;

use ktrdr_worker::OperationId;
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{dir_with, names};
use crate::data_processing::DataProcessing;
use ktrdr_worker::OperationError;
use ktrdr_worker::testing::TestRun;

/// Save a checkpoint at every opportunity.
const ALL: u64 = u64::MAX;

/// Rows with every kind of cell that operations treat differently. 250 rows lie between two
/// opportunities for a checkpoint.
fn rows(count: usize) -> String {
    let row = |i: usize| {
        let a = if i.is_multiple_of(7) {
            String::new()
        } else {
            format!("{}.{}", i * 31 % 97, i % 10)
        };
        let text = ["x", "", "\"two\nlines\"", " y", "\"a,\"\"b\"\"\"", "ü"][i * i % 6];
        let day = format!(
            "2020-01-{:02}T00:{:02}:00",
            i / 60 % 28 + 1,
            (i + usize::from(i % 50 == 3) * 7) % 60
        );
        format!("{a},{text},{},{day},{}\n", i % 400 + 1, 5000 - i)
    };

    (0..count)
        .map(row)
        .fold("a,b,c,t,down\n".to_owned(), |all, row| all + &row)
}

/// Requests that together use every kind of state.
fn requests() -> Vec<Value> {
    let filled =
        json!({"op": "clean", "types": {"a": "number"}, "missing": {"a": "median", "b": "mode"}});
    let computed = json!({"op": "transform", "steps": [{"op": "zscore", "column": "a"}, {"op": "minmax", "column": "c"},
        {"op": "log_return", "column": "c"}, {"op": "filter", "column": "a_zscore", "cmp": "<", "value": 1.2}]});
    let checked = json!({"op": "validate", "max_errors": 40, "rules": [{"column": "c", "rule": "unique"},
        {"column": "t", "rule": "increasing"}, {"column": "down", "rule": "increasing"}, {"rule": "duplicate_row"},
        {"column": "b", "rule": "trimmed"}, {"column": "a", "rule": "not_null"}, {"column": "c", "rule": "max", "value": 399}]});

    vec![
        json!([{"op": "clean", "drop_duplicates": true, "missing": {"b": "ffill"}}]),
        json!([{"op": "clean", "drop_duplicates": ["c", "b"], "missing": {"a": "mean", "b": "drop_row"}}]),
        json!([filled]),
        json!([computed]),
        json!([checked]),
        json!([filled, checked, computed, {"op": "clean", "missing": {"c_log_return": "median"}, "drop_duplicates": ["a"]}, checked]),
        json!(["transform"]),
        json!([{"op": "clean", "types": {"t": {"type": "datetime", "zone": "Europe/Berlin"}, "c": {"type": "number", "decimal": ","}}},
            {"op": "transform", "steps": [{"op": "dedupe", "columns": ["c"]}]}]),
        json!([{"op": "transform", "steps": [{"op": "dedupe", "columns": ["b", "c"], "keep": "last"}, {"op": "dedupe"}]}, checked]),
    ]
}

fn body(operations: &Value) -> Value {
    json!({"source_file": "in.csv", "output_file": "out.csv", "operations": operations})
}

fn run(run: &TestRun, operations: &Value) -> Result<Value, OperationError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let output = runtime.block_on(run.run(&DataProcessing, body(operations)))?;
    let mut output = serde_json::to_value(output).unwrap();
    output["duration_seconds"].take();
    Ok(output)
}

fn written(dir: &Path) -> Option<Vec<u8>> {
    fs::read(dir.join("out.csv")).ok()
}

/// A run without an interruption: its output and its number of opportunities for a checkpoint.
struct Undisturbed {
    dir: TempDir,
    output: Value,
    text: Option<Vec<u8>>,
    checkpoints: u64,
}

impl Undisturbed {
    fn run(source: &(impl AsRef<[u8]> + ?Sized), operations: &Value) -> Self {
        let dir = dir_with(source);
        let whole = TestRun::in_dir(dir.path()).saves_checkpoints(ALL);
        let output = run(&whole, operations).unwrap();
        let text = written(dir.path());
        let undisturbed = Self {
            dir,
            output,
            text,
            checkpoints: whole.checkpoints(),
        };

        undisturbed.forget();
        undisturbed
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Checks that only the output is left, and removes it.
    fn forget(&self) {
        let wanted = if self.text.is_some() {
            &["in.csv", "out.csv"][..]
        } else {
            &["in.csv"]
        };
        assert_eq!(names(self.path()), wanted);
        let _ = fs::remove_file(self.path().join("out.csv"));
    }

    fn assert_same(&self, output: &Value) {
        assert_eq!(output, &self.output);
        assert!(written(self.path()) == self.text, "another table");
        self.forget();
    }
}

/// Each attempt gets from one opportunity to the next. If one processed a row again, one more
/// attempt would be needed.
#[test]
fn every_attempt_resumes_where_the_last_one_stopped() {
    let source = rows(1600);
    for operations in requests() {
        let whole = Undisturbed::run(&source, &operations);

        assert!(whole.checkpoints >= 6, "{operations}");

        let (mut attempt, mut percentage) = (TestRun::in_dir(whole.path()), 0.0);
        for interruption in 1..=whole.checkpoints {
            attempt = attempt.cancelled_at_checkpoint(1);
            assert_eq!(
                run(&attempt, &operations),
                Err(OperationError::Cancelled),
                "{interruption}"
            );
            assert!(attempt.progress().percentage >= percentage);
            percentage = attempt.progress().percentage;
            attempt = attempt.next_attempt();
        }

        whole.assert_same(&run(&attempt, &operations).unwrap());
    }
}

/// Their bytes cannot be entered in the middle: the next attempt decodes them from the beginning.
#[test]
fn compressed_and_decoded_files_are_resumed_too() {
    use std::io::Write;

    let text = rows(1100);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(text.as_bytes()).unwrap();
    let utf16: Vec<u8> = std::iter::once(0xfeff)
        .chain(text.encode_utf16())
        .flat_map(u16::to_le_bytes)
        .collect();
    let operations = &requests()[0];
    let plain = Undisturbed::run(&text, operations);

    for source in [gzip.finish().unwrap(), utf16] {
        let whole = Undisturbed::run(&source, operations);
        assert!(whole.text == plain.text && whole.checkpoints >= 4);

        let first = TestRun::in_dir(whole.path()).cancelled_at_checkpoint(3);
        assert_eq!(run(&first, operations), Err(OperationError::Cancelled));

        whole.assert_same(&run(&first.next_attempt(), operations).unwrap());
    }
}

/// The rows that a sort holds back are in no checkpoint.
#[test]
fn a_request_that_sorts_starts_over() {
    let operations =
        json!([{"op": "transform", "steps": [{"op": "sort", "columns": ["down"]}]}, "clean"]);
    let whole = Undisturbed::run(&rows(1100), &operations);

    assert_eq!(whole.checkpoints, 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Attempts are lost behind their last checkpoint, even at the end of the table.
    #[test]
    fn what_came_after_a_checkpoint_is_done_again(
        which in 0..requests().len(), count in 0_usize..1300, saved in proptest::collection::vec(0_u64..12, 1..4),
    ) {
        let operations = &requests()[which];
        let whole = Undisturbed::run(&rows(count), operations);
        let mut attempt = TestRun::in_dir(whole.path());

        for saved in saved.into_iter().filter(|_| whole.text.is_some()) {
            attempt = attempt.saves_checkpoints(saved).taken_over();
            prop_assert_eq!(run(&attempt, operations), Err(OperationError::Cancelled));
            prop_assert!(written(whole.path()).is_none(), "nothing is published after the operation is lost");
            attempt = attempt.next_attempt();
        }

        whole.assert_same(&run(&attempt, operations).unwrap());
    }
}

/// Changes the source with `change`, but keeps its size and modification time.
fn change_unnoticed(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let modified = path.metadata().unwrap().modified().unwrap();
    let mut text = fs::read(path).unwrap();

    change(&mut text);
    fs::write(path, text).unwrap();
    File::options()
        .write(true)
        .open(path)
        .unwrap()
        .set_modified(modified)
        .unwrap();
}

#[test]
fn rows_before_the_checkpoint_are_not_even_read() {
    let operations = json!([{"op": "clean", "missing": {"b": "ffill"}}, {"op": "validate", "rules": [{"rule": "duplicate_row"}]}]);
    let whole = Undisturbed::run(&rows(1600), &operations);
    let first = TestRun::in_dir(whole.path()).cancelled_at_checkpoint(3);

    run(&first, &operations).unwrap_err();

    let source = whole.path().join("in.csv");

    change_unnoticed(&source, |text| {
        let header = text.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        // Most of 750 rows.
        text[header..header + 14_000].fill(0xff);
    });

    let output = run(&first.next_attempt(), &operations).unwrap();

    assert_eq!(output["rows_processed"], 1600);

    whole.assert_same(&output);
}

/// Interrupts a run, damages something, and checks that the next attempt starts over with the right
/// result.
fn starts_over(spoil: impl FnOnce(&Path)) {
    let operations = &requests()[1];
    let whole = Undisturbed::run(&rows(1600), operations);
    let first = TestRun::in_dir(whole.path()).cancelled_at_checkpoint(whole.checkpoints - 2);

    run(&first, operations).unwrap_err();
    spoil(whole.path());

    let second = first.next_attempt().saves_checkpoints(ALL);
    let output = run(&second, operations).unwrap();

    assert_eq!(
        second.checkpoints(),
        whole.checkpoints,
        "it did not start over"
    );

    let again = Undisturbed::run(
        &fs::read_to_string(whole.path().join("in.csv")).unwrap(),
        operations,
    );

    assert_eq!(output, again.output);
    assert!(written(whole.path()) == again.text);
    assert_eq!(names(whole.path()), ["in.csv", "out.csv"]);
}

/// The newest file of the interrupted attempt with this ending.
fn left(dir: &Path, end: &str) -> std::path::PathBuf {
    let directory = dir.join(".unfinished/test");
    let mut found = names(&directory);
    found.retain(|name| name.ends_with(end));
    // `1.9.state` is older than `1.10.state`.
    found.sort_by_key(String::len);
    directory.join(found.pop().unwrap())
}

#[test]
fn a_source_that_changed_is_read_from_the_beginning() {
    starts_over(|dir| {
        fs::write(
            dir.join("in.csv"),
            rows(1600).replace("2020-01-05", "2020-01-06"),
        )
        .unwrap();
    });
    starts_over(|dir| {
        let source = File::options()
            .write(true)
            .open(dir.join("in.csv"))
            .unwrap();
        source
            .set_modified(std::time::SystemTime::now() + std::time::Duration::from_nanos(1))
            .unwrap();
    });
}

#[test]
fn files_that_are_gone_or_damaged_are_not_resumed_from() {
    starts_over(|dir| fs::remove_file(left(dir, ".state")).unwrap());
    starts_over(|dir| fs::remove_file(left(dir, ".csv")).unwrap());
    starts_over(|dir| fs::remove_dir_all(dir.join(".unfinished")).unwrap());
    starts_over(|dir| {
        File::options()
            .write(true)
            .open(left(dir, ".csv"))
            .unwrap()
            .set_len(5000)
            .unwrap();
    });

    // At least one of three adjacent bytes belongs to a hash, which stays a valid hash with another
    // bit.
    for byte in 0..3 {
        starts_over(|dir| {
            let mut state = fs::read(left(dir, ".state")).unwrap();
            let middle = state.len() / 2;
            state[middle + byte] ^= 1;
            fs::write(left(dir, ".state"), state).unwrap();
        });
    }

    starts_over(|dir| {
        let state = fs::read(left(dir, ".state")).unwrap();
        fs::write(left(dir, ".state"), &state[..state.len() - 1]).unwrap();
    });
}

#[test]
fn another_request_does_not_resume_from_this_one() {
    let operations = [&requests()[0], &requests()[1]];
    let whole = Undisturbed::run(&rows(1600), operations[1]);
    let first = TestRun::in_dir(whole.path()).cancelled_at_checkpoint(2);
    run(&first, operations[0]).unwrap_err();
    let second = first.next_attempt().saves_checkpoints(ALL);
    whole.assert_same(&run(&second, operations[1]).unwrap());
    assert_eq!(second.checkpoints(), whole.checkpoints);
}

#[test]
fn a_resumed_operation_takes_the_files_of_the_old_one_and_removes_them_when_it_is_done() {
    let operations = &requests()[1];
    let whole = Undisturbed::run(&rows(1600), operations);
    let unfinished = || names(&whole.path().join(".unfinished"));
    let id = |name: &str| OperationId::new(name).unwrap();
    let first = TestRun::in_dir(whole.path()).cancelled_at_checkpoint(3);

    run(&first, operations).unwrap_err();

    assert_eq!(unfinished(), ["test"]);

    // Cancelled before the first checkpoint.
    let second = first.resumed_as(id("second")).saves_checkpoints(0);

    second.cancel();
    run(&second, operations).unwrap_err();

    assert_eq!(unfinished(), ["test"]);

    let third = second.resumed_as(id("third")).cancelled_at_checkpoint(1);

    run(&third, operations).unwrap_err();

    assert_eq!(unfinished(), ["test", "third"]);

    let fourth = third.resumed_as(id("fourth")).saves_checkpoints(ALL);

    whole.assert_same(&run(&fourth, operations).unwrap());

    assert_eq!(fourth.checkpoints(), whole.checkpoints - 4);
}

#[test]
fn only_the_files_that_are_needed_are_kept() {
    let operations = &requests()[1];
    let dir = dir_with(rows(1600));
    let there = || names(&dir.path().join(".unfinished/test"));
    let first = TestRun::in_dir(dir.path()).cancelled_at_checkpoint(5);

    run(&first, operations).unwrap_err();

    // When the fifth checkpoint was written, the fourth was known to be saved.
    assert_eq!(there(), ["1.4.state", "1.5.state", "1.csv"]);

    let second = first.next_attempt().cancelled_at_checkpoint(1);

    run(&second, operations).unwrap_err();

    assert_eq!(
        there(),
        ["1.4.state", "1.5.state", "1.csv", "2.1.state", "2.csv"]
    );

    let third = second.next_attempt().cancelled_at_checkpoint(2);

    run(&third, operations).unwrap_err();

    assert_eq!(there(), ["3.1.state", "3.2.state", "3.csv"]);

    // The state of the newest saved checkpoint stays, although later ones were not saved.
    let fourth = third.next_attempt().saves_checkpoints(1).taken_over();

    run(&fourth, operations).unwrap_err();

    assert!(there().contains(&"4.1.state".to_owned()), "{:?}", there());

    run(&fourth.next_attempt(), operations).unwrap();

    assert_eq!(names(dir.path()), ["in.csv", "out.csv"]);
}

#[test]
fn what_nobody_came_back_for_is_swept_by_the_next_run() {
    let dir = dir_with("a\n1\n");
    let old = dir.path().join(".unfinished/old");

    fs::create_dir_all(&old).unwrap();
    fs::write(old.join("1.csv"), "x").unwrap();

    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(8 * 24 * 3600);
    for path in [old.join("1.csv"), old] {
        File::open(path).unwrap().set_modified(long_ago).unwrap();
    }

    run(&TestRun::in_dir(dir.path()), &json!(["validate"])).unwrap();

    assert_eq!(names(dir.path()), ["in.csv"]);
}
