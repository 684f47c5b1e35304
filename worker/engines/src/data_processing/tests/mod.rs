//! Tests of whole runs of the engine.

mod request;
mod resume;
mod runs;
mod self_check;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{DataProcessing, OperationResult};
use ktrdr_worker::testing::TestRun;

/// The sample data in the repository.
pub(super) fn samples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data")
}

/// A data directory with a file `in.csv`.
pub(super) fn dir_with(text: impl AsRef<[u8]>) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("in.csv"), text).unwrap();
    dir
}

/// The names in the directory, sorted.
pub(super) fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// The outcome of a run on a file `in.csv` with the given text: the result and the text of the
/// output.
pub(super) struct Outcome {
    pub(super) result: Value,
    pub(super) text: String,
}

/// Runs `operations` on a file with the text `source`.
pub(super) fn run(source: impl AsRef<[u8]>, operations: Value) -> Result<Outcome, String> {
    let dir = dir_with(source);
    let run = TestRun::in_dir(dir.path());
    let request =
        json!({"source_file": "in.csv", "output_file": "out.csv", "operations": operations});
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();

    match runtime.block_on(run.run(&DataProcessing, request)) {
        Ok(output) => {
            let text = std::fs::read_to_string(dir.path().join("out.csv")).unwrap_or_default();
            let left = names(dir.path());
            let wanted = if output.output_file.is_some() {
                &["in.csv", "out.csv"][..]
            } else {
                &["in.csv"]
            };
            assert_eq!(left, wanted);
            Ok(Outcome {
                result: serde_json::to_value(output).unwrap(),
                text,
            })
        }
        Err(error) => {
            assert_eq!(names(dir.path()), ["in.csv"], "a failed run leaves nothing");
            Err(error.to_string())
        }
    }
}

/// Runs one operation. Returns the output text and the result of the operation.
pub(super) fn one(source: &str, operation: Value) -> (String, Value) {
    let mut outcome = run(source, json!([operation])).unwrap();
    (outcome.text, outcome.result["operations"][0].take())
}

/// Runs one operation that must fail. Returns the message.
pub(super) fn fails(source: impl AsRef<[u8]>, operation: Value) -> String {
    match run(source, json!([operation])) {
        Ok(outcome) => panic!("it should fail, but gave {}", outcome.result),
        Err(message) => message,
    }
}

/// A result as clients receive it.
pub(super) fn figures(result: &OperationResult) -> Value {
    serde_json::to_value(result).unwrap()
}
