//! Attacks on the data directory through the engines' requests: what is there already stays, and
//! nothing leads out of it.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use ktrdr_engines::backtesting::Backtesting;
use ktrdr_engines::data_processing::DataProcessing;
use ktrdr_engines::training::Training;
use ktrdr_worker::testing::TestRun;
use ktrdr_worker::{Engine, OperationError, OperationId};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A data directory with bars, a table and a model of the user.
fn data() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data");
    fs::copy(samples.join("GOOG_1d.csv"), dir.path().join("GOOG_1d.csv")).unwrap();
    fs::write(dir.path().join("in.csv"), "a\n1\n").unwrap();
    fs::create_dir(dir.path().join("models")).unwrap();
    fs::write(dir.path().join("models/mine.json"), "the user's model").unwrap();
    fs::write(dir.path().join("mine.csv"), "the user's table").unwrap();
    dir
}

fn clean(output: &str) -> Value {
    json!({"source_file": "in.csv", "output_file": output, "operations": ["clean"]})
}

fn train(model: &str) -> Value {
    json!({"symbol": "GOOG", "timeframe": "1d", "end": "2005-06-30", "epochs": 1, "hidden_layers": [1], "model_file": model})
}

fn code(error: &OperationError) -> &str {
    match error {
        OperationError::Permanent { code, .. } => code,
        _ => "not permanent",
    }
}

/// All paths below a directory.
fn all(dir: &Path) -> Vec<String> {
    fn walk(root: &Path, dir: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let path = entry.path();
            found.push(
                path.strip_prefix(root)
                    .unwrap()
                    .to_string_lossy()
                    .into_owned(),
            );
            if entry.file_type().unwrap().is_dir() {
                walk(root, &path, found);
            }
        }
    }
    let mut found = Vec::new();
    walk(dir, dir, &mut found);
    found.sort();
    found
}

async fn refused<E: Engine>(engine: &E, dir: &Path, request: Value) -> OperationError
where
    E::Output: Send,
{
    let shown = request.to_string();
    match TestRun::in_dir(dir).run(engine, request).await {
        Ok(_) => panic!("accepted: {shown}"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn a_file_of_the_user_is_not_replaced() {
    let dir = data();
    let before = all(dir.path());

    for output in ["GOOG_1d.csv", "models/mine.json", "mine.csv", "./mine.csv"] {
        let error = refused(&DataProcessing, dir.path(), clean(output)).await;
        assert_eq!(code(&error), "output_exists", "{output}: {error}");
    }

    let error = refused(&Training, dir.path(), train("models/mine.json")).await;
    assert_eq!(code(&error), "output_exists", "{error}");
    assert!(error.to_string().contains("overwrite"), "{error}");

    assert_eq!(all(dir.path()), before);
    assert_eq!(
        fs::read_to_string(dir.path().join("mine.csv")).unwrap(),
        "the user's table"
    );
    assert_eq!(
        fs::read_to_string(dir.path().join("models/mine.json")).unwrap(),
        "the user's model"
    );
}

#[tokio::test]
async fn the_request_can_allow_it() {
    let dir = data();
    let mut table = clean("mine.csv");
    table["overwrite"] = json!(true);
    let mut model = train("models/mine.json");
    model["overwrite"] = json!(true);

    TestRun::in_dir(dir.path())
        .run(&DataProcessing, table)
        .await
        .unwrap();
    TestRun::in_dir(dir.path())
        .run(&Training, model)
        .await
        .unwrap();

    assert_eq!(
        fs::read_to_string(dir.path().join("mine.csv")).unwrap(),
        "a\n1\n"
    );
    assert!(
        fs::read_to_string(dir.path().join("models/mine.json"))
            .unwrap()
            .contains("ktrdr-dense-network")
    );
}

#[tokio::test]
async fn a_family_replaces_its_own_output_and_others_do_not() {
    let dir = data();
    let id = |name: &str| OperationId::new(name).unwrap();
    let first = TestRun::in_dir(dir.path());
    first.run(&DataProcessing, clean("out.csv")).await.unwrap();
    first.run(&Training, train("out.json")).await.unwrap();
    fs::write(dir.path().join("in.csv"), "a\n2\n").unwrap();

    // A later attempt, a retry or resume, and one of that.
    let retry = first.resumed_as(id("retry"));
    for run in [
        &first.next_attempt(),
        &retry,
        &retry.next_attempt(),
        &retry.resumed_as(id("retry-again")),
    ] {
        run.run(&DataProcessing, clean("out.csv")).await.unwrap();
        run.run(&Training, train("out.json")).await.unwrap();
    }

    let other = first.another(id("other"));
    let error = other
        .run(&DataProcessing, clean("out.csv"))
        .await
        .unwrap_err();
    assert_eq!(code(&error), "output_exists");
    let error = other.run(&Training, train("out.json")).await.unwrap_err();
    assert_eq!(code(&error), "output_exists");
    // Not even the same operation id of another worker type.
    let error = refused(&DataProcessing, dir.path(), clean("GOOG_1d.csv")).await;
    assert_eq!(code(&error), "output_exists");

    // What the user changed or moved is the user's.
    fs::write(dir.path().join("out.csv"), "edited\n").unwrap();
    let error = first
        .next_attempt()
        .run(&DataProcessing, clean("out.csv"))
        .await
        .unwrap_err();
    assert_eq!(code(&error), "output_exists");
    assert_eq!(
        fs::read_to_string(dir.path().join("out.csv")).unwrap(),
        "edited\n"
    );

    fs::rename(dir.path().join("out.json"), dir.path().join("kept.json")).unwrap();
    let error = first.run(&Training, train("kept.json")).await.unwrap_err();
    assert_eq!(code(&error), "output_exists");
}

/// The request of the guide names no output. It must work again, also with other operations and
/// another source.
#[tokio::test]
async fn an_output_named_by_the_engine_is_replaced_by_the_next() {
    let dir = data();
    let first = TestRun::in_dir(dir.path());
    let request = |operations: Value| json!({"source_file": "in.csv", "operations": operations});
    let id = |name: &str| OperationId::new(name).unwrap();
    first
        .run(&DataProcessing, request(json!(["clean", "transform"])))
        .await
        .unwrap();

    fs::write(dir.path().join("in.csv"), "a\n22\n").unwrap();
    first
        .another(id("second"))
        .run(&DataProcessing, request(json!(["clean"])))
        .await
        .unwrap();
    let output = dir.path().join("in.processed.csv");
    assert_eq!(fs::read_to_string(&output).unwrap(), "a\n22\n");

    // A file of the user with this name is the user's.
    fs::write(&output, "mine").unwrap();
    let error = first
        .another(id("third"))
        .run(&DataProcessing, request(json!(["clean"])))
        .await
        .unwrap_err();
    assert_eq!(code(&error), "output_exists");
    assert_eq!(fs::read_to_string(&output).unwrap(), "mine");
}

#[tokio::test]
async fn a_file_that_appears_during_the_run_is_not_replaced() {
    let dir = data();
    for (file, request) in [
        ("late.csv", clean("late.csv")),
        ("late.json", train("late.json")),
    ] {
        let path = dir.path().join(file);
        let run = TestRun::in_dir(dir.path()).before_publishing({
            let path = path.clone();
            move || fs::write(&path, "the user's").unwrap()
        });

        let result = if file == "late.csv" {
            run.run(&DataProcessing, request).await.map(drop)
        } else {
            run.run(&Training, request).await.map(drop)
        };

        assert_eq!(result.as_ref().map_err(code), Err("output_exists"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "the user's");
    }
    assert!(all(dir.path()).iter().all(|path| !path.contains("tmp")));
}

#[tokio::test]
async fn a_folder_that_becomes_a_link_during_the_run_leads_nowhere() {
    for outside in ["../outside", "/absolute"] {
        let temp = tempfile::tempdir().unwrap();
        let dir = data();
        let data = temp.path().join("data");
        fs::rename(dir.keep(), &data).unwrap();
        fs::create_dir(temp.path().join("outside")).unwrap();
        fs::create_dir(data.join("sw")).unwrap();
        let target = if outside == "/absolute" {
            temp.path().join("outside")
        } else {
            "../outside".into()
        };
        let swap = {
            let data = data.clone();
            move || {
                let _ = fs::remove_dir_all(data.join("sw"));
                let _ = symlink(&target, data.join("sw"));
            }
        };

        let run = TestRun::in_dir(&data).before_publishing(swap.clone());
        let table = run.run(&DataProcessing, clean("sw/o.csv")).await;
        assert_eq!(
            table.as_ref().map(drop).map_err(code),
            Err("invalid_request")
        );

        fs::remove_file(data.join("sw")).unwrap();
        fs::create_dir(data.join("sw")).unwrap();
        let model = TestRun::in_dir(&data)
            .before_publishing(swap)
            .run(&Training, train("sw/m.json"))
            .await;
        assert!(model.is_err());

        assert_eq!(all(&temp.path().join("outside")), Vec::<String>::new());
    }
}

#[tokio::test]
async fn outputs_have_plain_names_in_plain_folders() {
    let dir = data();
    fs::create_dir_all(dir.path().join(".unfinished/zz")).unwrap();
    symlink(".unfinished", dir.path().join("unflink")).unwrap();
    symlink("unflink/zz", dir.path().join("second")).unwrap();
    assert!(
        std::process::Command::new("mkfifo")
            .arg(dir.path().join("pipe.json"))
            .status()
            .unwrap()
            .success()
    );
    let before = all(dir.path());
    let deep = "d/".repeat(200);

    for name in [
        ".unfinished/zz/m.json",
        "./.unfinished/m.json",
        "unflink/zz/m.json",
        "unflink/m.json",
        "second/m.json",
        ".hidden.json",
        ".folder/m.json",
        "a/.folder/m.json",
        "line\nbreak.json",
        "escape\u{1b}.json",
        "pipe.json",
        "models/mine.json/m.json",
    ] {
        for error in [
            refused(&Training, dir.path(), train(name)).await,
            refused(&DataProcessing, dir.path(), clean(name)).await,
        ] {
            assert!(
                matches!(error, OperationError::Permanent { .. }),
                "{name}: {error}"
            );
        }
    }

    // Requests that fail later leave no folders either.
    let mut request = train(&format!("{deep}m.json"));
    request["symbol"] = json!("ABSENT");
    refused(&Training, dir.path(), request).await;
    fs::write(dir.path().join("bad.csv"), "a,b\n1\n").unwrap();
    let mut request = clean(&format!("{deep}o.csv"));
    request["source_file"] = json!("bad.csv");
    refused(&DataProcessing, dir.path(), request).await;
    fs::remove_file(dir.path().join("bad.csv")).unwrap();

    let mut after = all(dir.path());
    after.retain(|path| !path.starts_with(".unfinished"));
    let mut before = before;
    before.retain(|path| !path.starts_with(".unfinished"));
    assert_eq!(after, before);
}

#[tokio::test]
async fn outputs_stay_below_their_directory() {
    let dir = data();
    let run = || TestRun::in_dir(dir.path()).outputs_below("out").unwrap();

    let output = run().run(&DataProcessing, clean("a/o.csv")).await.unwrap();
    assert_eq!(output.output_file.as_deref(), Some("out/a/o.csv"));
    let output = run()
        .run(&DataProcessing, clean("out/p.csv"))
        .await
        .unwrap();
    assert_eq!(output.output_file.as_deref(), Some("out/p.csv"));
    let output = run().run(&Training, train("mine.csv.json")).await.unwrap();
    assert_eq!(output.model_file, "out/mine.csv.json");
    assert!(run().run(&DataProcessing, clean("../o.csv")).await.is_err());

    fs::create_dir(dir.path().join("out/x")).unwrap();
    symlink("..", dir.path().join("out/up")).unwrap();
    assert!(run().run(&DataProcessing, clean("up/o.csv")).await.is_err());

    assert_eq!(
        all(dir.path()),
        [
            "GOOG_1d.csv",
            "in.csv",
            "mine.csv",
            "models",
            "models/mine.json",
            "out",
            "out/a",
            "out/a/o.csv",
            "out/mine.csv.json",
            "out/p.csv",
            "out/up",
            "out/x"
        ]
    );

    for wrong in ["", ".", "/tmp", "../out", ".out", "a/../b"] {
        assert!(
            TestRun::in_dir(dir.path()).outputs_below(wrong).is_err(),
            "{wrong}"
        );
    }
}

fn sparse(path: &Path, header: &str, len: u64) {
    fs::write(path, header).unwrap();
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_len(len).unwrap();
}

const HEADER: &str = "timestamp,open,high,low,close,volume\n";

/// 64 MiB of zeros are one record.
#[tokio::test]
async fn a_record_without_end_is_refused() {
    let dir = data();
    sparse(&dir.path().join("ZERO_1d.csv"), HEADER, 64 << 20);

    let backtest = json!({"symbol": "ZERO", "timeframe": "1d", "strategy": {"type": "sma_cross", "fast": 1, "slow": 2}});
    let mut training = train("m.json");
    training["symbol"] = json!("ZERO");
    for error in [
        refused(&Backtesting, dir.path(), backtest).await,
        refused(&Training, dir.path(), training).await,
    ] {
        assert_eq!(code(&error), "invalid_bars");
        assert!(error.to_string().contains("16777216 bytes"), "{error}");
        assert!(error.to_string().contains("ZERO_1d.csv, line 2"), "{error}");
    }
}

#[tokio::test]
async fn a_model_that_is_too_large_is_refused() {
    let dir = data();
    sparse(&dir.path().join("huge.json"), "{", 3 << 30);
    sparse(&dir.path().join("zeros.json"), "{", 64 << 20);

    for file in ["huge.json", "zeros.json"] {
        let request = json!({"symbol": "GOOG", "timeframe": "1d", "strategy": {"type": "model", "model_file": file}});
        let error = refused(&Backtesting, dir.path(), request).await;
        assert_eq!(code(&error), "invalid_model", "{error}");
    }
}
