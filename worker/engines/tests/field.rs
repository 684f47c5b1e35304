//! Files as people have them, through the engines: `tests/field/cases.json` has the request and
//! what must come of it.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests may panic"
)]

use std::path::{Path, PathBuf};

use ktrdr_engines::backtesting::Backtesting;
use ktrdr_engines::data_processing::DataProcessing;
use ktrdr_engines::training::Training;
use ktrdr_worker::testing::TestRun;
use serde::Deserialize;
use serde_json::{Map, Value};

/// One case.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// The name of the case.
    case: String,
    /// What it is about, for people.
    about: String,
    engine: String,
    /// The source file, in `tests/field` or in the samples.
    file: Option<String>,
    /// The text of the source file `in.csv`, instead of a file.
    text: Option<String>,
    request: Value,
    expect: Expect,
}

/// What must come of it. Keys of maps are JSON pointers into the result.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Expect {
    /// A part of the message of the error. Without it, the run must complete.
    error: Option<String>,
    /// The output, byte for byte.
    output: Option<String>,
    /// A part of the output.
    output_has: Option<String>,
    /// Values in the result.
    result: Map<String, Value>,
    /// Values in the model file.
    model: Map<String, Value>,
    /// Numbers in the result that are below a limit.
    below: Map<String, Value>,
    /// Places in the result that are not null.
    not_null: Vec<String>,
    /// Places in the result that are equal.
    equal: Vec<String>,
    /// A part of one of the warnings.
    warning: Option<String>,
    /// The number of warnings.
    warnings: Option<usize>,
}

fn field() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/field")
}

/// A data directory with the file of the case.
fn data_of(case: &Case) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();

    if let Some(text) = &case.text {
        std::fs::write(dir.path().join("in.csv"), text).unwrap();
    }
    if let Some(name) = &case.file {
        let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data");
        let folders = [field(), samples];
        let mut paths = folders.iter().map(|folder| folder.join(name));
        let path = paths.find(|path| path.exists()).expect("the file exists");
        std::fs::copy(path, dir.path().join(name)).unwrap();
    }

    dir
}

async fn run(case: &Case, dir: &Path) -> Result<Value, String> {
    let run = TestRun::in_dir(dir);
    let request = case.request.clone();
    let result = match &*case.engine {
        "data_processing" => run
            .run(&DataProcessing, request)
            .await
            .map(|output| serde_json::to_value(output).unwrap()),
        "backtesting" => run
            .run(&Backtesting, request)
            .await
            .map(|output| serde_json::to_value(output).unwrap()),
        "training" => run
            .run(&Training, request)
            .await
            .map(|output| serde_json::to_value(output).unwrap()),
        other => panic!("no engine is called {other}"),
    };
    result.map_err(|error| error.to_string())
}

/// What is wrong with the outcome of a case. Nothing when all is as expected.
fn problems(case: &Case, dir: &Path, outcome: Result<Value, String>) -> Vec<String> {
    let expect = &case.expect;
    let mut problems = Vec::new();
    let mut check = |holds: bool, problem: String| {
        if !holds {
            problems.push(format!("{} ({}): {problem}", case.case, case.about));
        }
    };

    let result = match (outcome, &expect.error) {
        (Err(error), Some(part)) => {
            check(error.contains(part), format!("error {error}"));
            return problems;
        }
        (Err(error), None) => {
            check(false, format!("error {error}"));
            return problems;
        }
        (Ok(result), Some(part)) => {
            check(false, format!("no error {part:?}, but {result}"));
            return problems;
        }
        (Ok(result), None) => result,
    };
    let at = |pointer: &String| result.pointer(pointer).unwrap_or(&Value::Null).clone();

    for (pointer, value) in &expect.result {
        check(
            at(pointer) == *value,
            format!("{pointer} is {}", at(pointer)),
        );
    }
    for (pointer, limit) in &expect.below {
        let below = at(pointer).as_f64() < limit.as_f64() && !at(pointer).is_null();
        check(below, format!("{pointer} is {}", at(pointer)));
    }
    for pointer in &expect.not_null {
        check(!at(pointer).is_null(), format!("{pointer} is null"));
    }
    for pair in expect.equal.windows(2) {
        let (one, other) = (at(&pair[0]), at(&pair[1]));
        check(
            one == other && !one.is_null(),
            format!("{one} is not {other}"),
        );
    }

    let warnings = at(&"/warnings".to_owned());
    let warnings = warnings.as_array().expect("a list of warnings");
    if let Some(part) = &expect.warning {
        let has = |warning: &Value| warning.as_str().is_some_and(|text| text.contains(part));
        check(warnings.iter().any(has), format!("warnings {warnings:?}"));
    }
    if let Some(count) = expect.warnings {
        check(warnings.len() == count, format!("warnings {warnings:?}"));
    }

    if let Some(name) = at(&"/output_file".to_owned()).as_str() {
        let output = std::fs::read_to_string(dir.join(name)).unwrap();
        if let Some(wanted) = &expect.output {
            check(output == *wanted, format!("output {output:?}"));
        }
        if let Some(part) = &expect.output_has {
            check(output.contains(part), format!("output {output:?}"));
        }
    } else {
        let wanted = expect.output.is_some() || expect.output_has.is_some();
        check(!wanted, "no output".to_owned());
    }

    if let Some(name) = at(&"/model_file".to_owned()).as_str() {
        let model = std::fs::read(dir.join(name)).unwrap();
        let model: Value = serde_json::from_slice(&model).unwrap();
        for (pointer, value) in &expect.model {
            let found = model.pointer(pointer).unwrap_or(&Value::Null);
            check(found == value, format!("{pointer} of the model is {found}"));
        }
    }

    problems
}

#[tokio::test]
async fn files_from_the_field_are_read_as_people_mean_them() {
    let cases = std::fs::read(field().join("cases.json")).unwrap();
    let cases: Vec<Case> = serde_json::from_slice(&cases).unwrap();
    let mut all = Vec::new();

    for case in &cases {
        let dir = data_of(case);
        let outcome = run(case, dir.path()).await;
        all.extend(problems(case, dir.path(), outcome));
    }

    assert!(cases.len() > 50);
    assert!(all.is_empty(), "{}", all.join("\n"));
}
