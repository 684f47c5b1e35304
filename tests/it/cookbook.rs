//! The recipes of docs/cookbook.md, run as they are printed. Only the address is replaced.

use std::process::Command;
use std::time::Duration;

use ktrdr_tests::process::Process;
use ktrdr_tests::settings::{blocks, repository};
use ktrdr_tests::{Scratch, Stack};

/// How long one part of the page may take.
const LIMIT: Duration = Duration::from_secs(90);

/// The address on the page.
const ADDRESS: &str = "http://localhost:8000";

/// Runs a text with a program that reads it from a file, against a system with a worker of each
/// type. Returns what it printed.
async fn run(program: &str, text: &str) -> String {
    let scratch = Scratch::new("cookbook");
    let data = scratch.join("data");
    std::fs::create_dir_all(data.join("messy")).unwrap();
    for file in ["messy/titanic.csv", "IBM_1d.csv", "GOOG_1d.csv"] {
        std::fs::copy(repository().join("data").join(file), data.join(file)).unwrap();
    }
    let stack = Stack::start_with(|settings| settings.data_dir(&data)).await;
    let mut workers = Vec::new();
    for worker_type in ["dummy", "data_processing", "backtesting", "training"] {
        let id = format!("{worker_type}-1");
        workers.push(stack.worker(worker_type, &id).await);
    }

    let file = scratch.join("recipes");
    std::fs::write(&file, text.replace(ADDRESS, stack.api().base())).unwrap();

    let mut command = Command::new(program);
    command.arg(&file).current_dir(scratch.path());
    let mut process = Process::spawn("the recipes", command, &scratch.join("log"));
    let status = process.wait(LIMIT).await;

    let log = process.log();
    assert!(status.success(), "{log}");
    log
}

#[tokio::test]
async fn the_recipes_with_curl_work_as_printed() {
    let page = std::fs::read_to_string(repository().join("docs/cookbook.md")).unwrap();
    let recipes = blocks(&page, "sh").join("\n");

    let printed = run("bash", &format!("set -euo pipefail\n{recipes}")).await;

    for expected in ["completed\n", "cancelled\n", "failed\n", "rows_processed"] {
        assert!(printed.contains(expected), "no {expected:?} in\n{printed}");
    }
    assert!(!printed.contains("\"success\":false"), "{printed}");
    let lines: Vec<&str> = printed.lines().collect();
    assert!(
        lines
            .windows(2)
            .any(|pair| pair[0] == pair[1] && pair[0].len() > 20),
        "a repeated start has the same id:\n{printed}"
    );
}

#[tokio::test]
async fn the_recipes_with_python_work_as_printed() {
    let page = std::fs::read_to_string(repository().join("docs/cookbook.md")).unwrap();
    let (python, pandas) = page.split_once("\n## With pandas").unwrap();
    let mut recipes = blocks(python, "python").join("\n");

    // CI has Python, but not pandas.
    let has_pandas = Command::new("python3")
        .args(["-c", "import pandas"])
        .output()
        .is_ok_and(|output| output.status.success());
    if has_pandas {
        recipes.push_str(&blocks(pandas, "python").join("\n"));
    } else {
        eprintln!("SKIPPED: the recipes with pandas, because pandas is not installed");
    }

    let printed = run("python3", &recipes).await;

    assert!(printed.contains("invalid_request"), "{printed}");
    assert!(printed.contains("stepps"), "{printed}");
}
