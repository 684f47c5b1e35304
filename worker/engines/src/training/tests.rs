//! Tests of the whole engine.

use serde_json::{Value, json};

use super::*;
use ktrdr_worker::testing::TestRun;

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../data");

/// A data directory with the bars of GOOG, for one test to write to.
fn goog() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(
        format!("{DATA}/GOOG_1d.csv"),
        dir.path().join("GOOG_1d.csv"),
    )
    .unwrap();
    dir
}

fn request(more: Value) -> Value {
    let mut request = json!({"symbol": "GOOG", "timeframe": "1d"});
    request
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    request
}

fn near(actual: f64, expected: f64, tolerance: f64) {
    assert!(
        (actual - expected).abs() <= tolerance,
        "{actual} is not {expected}"
    );
}

/// Epoch, `train_loss`, `train_accuracy`, `val_loss`, `val_accuracy`.
type Line = (u32, f64, f64, f64, f64);

async fn check_fixed(label: &str, lines: &[Line]) -> TrainingOutput {
    let dir = goog();
    let request = request(json!({"label": label, "init": "fixed", "shuffle": false}));
    let output = TestRun::in_dir(dir.path())
        .run(&Training, request)
        .await
        .unwrap();

    for (epoch, train_loss, train_accuracy, val_loss, val_accuracy) in lines {
        let metrics = &output.history.0[*epoch as usize - 1];
        assert_eq!(metrics.epoch, *epoch);
        near(metrics.train_loss, *train_loss, 1e-6);
        near(metrics.train_accuracy, *train_accuracy, 1e-6);
        near(metrics.val_loss, *val_loss, 1e-6);
        near(metrics.val_accuracy, *val_accuracy, 1e-6);
    }

    output
}

#[tokio::test]
async fn next_up_from_fixed_weights() {
    let lines = [
        (1, 0.69488814, 0.509700, 0.69308168, 0.521127),
        (2, 0.69135806, 0.528513, 0.69349201, 0.509390),
        (5, 0.68871312, 0.533804, 0.69424670, 0.500000),
        (10, 0.68506977, 0.542622, 0.69552306, 0.514085),
        (20, 0.68029992, 0.557907, 0.69774977, 0.518779),
        (50, 0.66782990, 0.580247, 0.70106106, 0.539906),
    ];
    let output = check_fixed("next_up", &lines).await;

    assert_eq!(
        (output.rows, output.train.rows, output.validation.rows),
        (2127, 1701, 426)
    );
    assert_eq!((output.train.ones, output.validation.ones), (868, 233));
    assert_eq!(
        (&*output.train.first, &*output.train.last),
        ("2004-09-17", "2011-06-17")
    );
    near(output.baseline.train_loss.unwrap(), 0.692935, 1e-6);
    near(output.baseline.val_loss.unwrap(), 0.691427, 1e-6);
}

#[tokio::test]
async fn next_range_high_from_fixed_weights() {
    let lines = [
        (1, 0.63471926, 0.634333, 0.61705008, 0.676056),
        (2, 0.59864847, 0.681952, 0.60745244, 0.673709),
        (5, 0.57333104, 0.701940, 0.59741876, 0.671362),
        (10, 0.55522899, 0.724868, 0.58899718, 0.694836),
        (20, 0.53938874, 0.734862, 0.58625114, 0.699531),
        (50, 0.52232460, 0.743092, 0.59322137, 0.694836),
    ];
    let output = check_fixed("next_range_high", &lines).await;

    // A median divides the training rows into halves.
    near(
        output.baseline.train_loss.unwrap(),
        std::f64::consts::LN_2,
        1e-4,
    );
    near(output.baseline.val_loss.unwrap(), 0.6929, 1e-4);
}

#[tokio::test]
async fn random_weights_end_where_they_should() {
    let run = TestRun::new();
    for (label, train_loss, train_accuracy, val_loss, val_accuracy) in [
        (
            "next_up",
            0.643..=0.665,
            0.587..=0.631,
            0.693..=0.712,
            0.484..=0.552,
        ),
        (
            "next_range_high",
            0.495..=0.525,
            0.731..=0.754,
            0.573..=0.618,
            0.660..=0.718,
        ),
    ] {
        let (request, data) = prepared(&run, json!({"label": label}));
        let state = learn(
            &request,
            &data,
            TrainingState::new(&request),
            &mut ProgressReporter::new(run.ctx(), 50, 0),
        )
        .unwrap();
        let last = state.history.0.last().unwrap();

        assert_eq!(last.epoch, 50);
        assert!(train_loss.contains(&last.train_loss), "{last:?}");
        assert!(train_accuracy.contains(&last.train_accuracy), "{last:?}");
        assert!(val_loss.contains(&last.val_loss), "{last:?}");
        assert!(val_accuracy.contains(&last.val_accuracy), "{last:?}");
        assert!(last.train_loss < data.baseline.train_loss.unwrap());

        if label == "next_range_high" {
            assert!(last.val_loss < data.baseline.val_loss.unwrap());
        }
    }
}

/// A request and its data, for the parts of the engine.
fn prepared(run: &TestRun, more: Value) -> (TrainingRequest, Dataset) {
    let request: TrainingRequest = serde_json::from_value(request(more)).unwrap();
    let bars = Bars::load(TestRun::in_dir(DATA).ctx(), &request.selection()).unwrap();
    let data = Dataset::new(&bars, &request).unwrap();
    assert!(!run.ctx().is_cancelled());
    (request, data)
}

#[test]
fn features_are_scaled_as_expected() {
    let (_, data) = prepared(&TestRun::new(), json!({}));
    let means = [
        0.001104683207,
        0.005736587402,
        0.011892626058,
        0.004359338269,
        0.009596000305,
        0.540588832450,
        0.019707163598,
        0.025457593567,
    ];

    let deviations = [
        0.022605599660,
        0.050893558977,
        0.073219026767,
        0.038181261549,
        0.058005159138,
        0.140526301149,
        0.009816941572,
        0.016306466898,
    ];

    for column in 0..features::FEATURES.len() {
        near(data.scaling.means[column], means[column], 1e-12);
        near(data.scaling.deviations[column], deviations[column], 1e-12);
    }
}

#[test]
fn a_restored_run_ends_as_an_undisturbed_one() {
    let run = TestRun::new();
    let (request, data) = prepared(
        &run,
        json!({"epochs": 6, "early_stopping": {"patience": 5}, "hidden_layers": [9, 5], "seed": 7}),
    );
    let finish = |state: TrainingState| {
        let before = state.epochs_done();
        learn(
            &request,
            &data,
            state,
            &mut ProgressReporter::new(run.ctx(), 6, before),
        )
        .unwrap()
    };
    let undisturbed = finish(TrainingState::new(&request));
    let mut trainer = Trainer::restore(&request, &data, TrainingState::new(&request)).unwrap();

    for _ in 0..5 {
        let saved = serde_json::to_vec(&trainer.state).unwrap();
        let restored: TrainingState = serde_json::from_slice(&saved).unwrap();
        assert_eq!(finish(restored), undisturbed);
        trainer.train_epoch(|_| Ok(())).unwrap();
    }
}

#[test]
fn a_state_of_another_network_is_refused() {
    let (request, data) = prepared(&TestRun::new(), json!({}));
    let (other, _) = prepared(&TestRun::new(), json!({"hidden_layers": [4]}));
    let error = Trainer::restore(&request, &data, TrainingState::new(&other))
        .err()
        .unwrap();

    assert!(matches!(
        error,
        OperationError::Permanent { code, .. } if code == "invalid_checkpoint"
    ));
}

#[test]
fn the_seed_decides_and_nothing_else() {
    let run = TestRun::new();
    let history = |more: Value| {
        let (request, data) = prepared(&run, more);
        learn(
            &request,
            &data,
            TrainingState::new(&request),
            &mut ProgressReporter::new(run.ctx(), 2, 0),
        )
        .unwrap()
        .history
    };
    let first = history(json!({"epochs": 2}));

    assert_eq!(first, history(json!({"epochs": 2, "seed": 42})));
    assert_ne!(first, history(json!({"epochs": 2, "seed": 43})));
    assert_ne!(first, history(json!({"epochs": 2, "shuffle": false})));
}

#[tokio::test]
async fn it_can_be_watched() {
    let dir = goog();
    let run = TestRun::in_dir(dir.path());
    let output = run
        .run(&Training, request(json!({"epochs": 3})))
        .await
        .unwrap();
    let progress = run.progress();

    assert_eq!(
        (progress.percentage, progress.current_step.as_deref()),
        (100.0, Some("Epoch 3/3"))
    );

    let last = output.final_epoch.unwrap();
    assert_eq!(
        (
            progress.fields["epoch"].as_u64(),
            progress.fields["total_epochs"].as_u64()
        ),
        (Some(3), Some(3))
    );
    assert_eq!(progress.fields["val_loss"].as_f64(), Some(last.val_loss));

    let points = run.metrics();
    for (name, value) in last.named() {
        let of: Vec<_> = points.iter().filter(|point| point.name == name).collect();
        assert_eq!((of.len(), of[2].value), (3, Some(value)), "{name}");
    }
}

#[tokio::test]
async fn early_stopping_stops() {
    let dir = goog();
    let more = json!({"epochs": 40, "early_stopping": {"patience": 2, "min_delta": 0.5}});
    let output = TestRun::in_dir(dir.path())
        .run(&Training, request(more))
        .await
        .unwrap();
    // The first epoch always counts as better; no later one is better by half a nat.
    assert_eq!((output.epochs, output.stopped_early), (3, true));
    assert_eq!(output.history.0.len(), 3);
}

#[tokio::test]
async fn saturated_answers_do_not_break_it() {
    let dir = goog();
    let more = json!({"epochs": 2, "learning_rate": 10, "hidden_layers": [8]});
    let output = TestRun::in_dir(dir.path())
        .run(&Training, request(more))
        .await
        .unwrap();
    assert!(output.final_epoch.unwrap().train_loss > 1.0);
}

#[tokio::test]
async fn a_network_without_hidden_layers_and_odd_batches_learn_too() {
    let dir = goog();
    for more in [
        json!({"hidden_layers": []}),
        json!({"hidden_layers": [1, 1]}),
        json!({"batch_size": 1}),
        json!({"batch_size": 5000}),
    ] {
        let mut more = more;
        more["epochs"] = json!(1);

        assert_eq!(
            TestRun::in_dir(dir.path())
                .run(&Training, request(more))
                .await
                .unwrap()
                .epochs,
            1
        );
    }
}

#[tokio::test]
async fn wrong_requests_are_refused_by_the_schema_and_by_the_engine() {
    let schema = schemars::schema_for!(TrainingRequest).to_value();
    let schema = jsonschema::validator_for(&schema).unwrap();

    assert!(schema.is_valid(&request(
        json!({"model_file": "a/b.json", "early_stopping": {"patience": 3}})
    )));

    let dir = goog();
    for wrong in [
        json!({"symbol": "../GOOG"}),
        json!({"timeframe": "1y"}),
        json!({"label": "up"}),
        json!({"train_split": 0}),
        json!({"train_split": 1}),
        json!({"hidden_layers": [0]}),
        json!({"hidden_layers": [5000]}),
        json!({"hidden_layers": vec![1; 17]}),
        json!({"epochs": 0}),
        json!({"batch_size": 0}),
        json!({"learning_rate": 0}),
        json!({"learning_rate": -0.1}),
        json!({"init": "zero"}),
        json!({"seed": -1}),
        json!({"early_stopping": {"patience": 0}}),
        json!({"early_stopping": {"patience": 1, "min_delta": -1}}),
        json!({"model_file": "model.bin"}),
        json!({"dropout": 0.5}),
    ] {
        let request = request(wrong.clone());

        assert!(!schema.is_valid(&request), "the schema lets {wrong} pass");

        let result = TestRun::in_dir(dir.path()).run(&Training, request).await;
        assert!(
            matches!(result, Err(OperationError::Permanent { .. })),
            "{wrong}"
        );
    }

    for wrong in [
        json!({"model_file": "../model.json"}),
        json!({"model_file": "/tmp/model.json"}),
        json!({"model_file": ".json"}),
        json!({"model_file": "GOOG_1d.csv/model.json"}),
        json!({"hidden_layers": [4096, 4096]}),
        json!({"train_split": 0.0001}),
        json!({"start": "2013-01-01"}),
        json!({"symbol": "ABSENT"}),
    ] {
        let result = TestRun::in_dir(dir.path())
            .run(&Training, request(wrong.clone()))
            .await;

        assert!(
            matches!(result, Err(OperationError::Permanent { .. })),
            "{wrong}"
        );
    }

    assert_eq!(files(dir.path()), ["GOOG_1d.csv"]);
}

/// All files under a directory, except directories.
fn files(dir: &std::path::Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.file_name().into_string().unwrap());
        }
    }

    found.sort();
    found
}

#[tokio::test]
async fn a_cancel_leaves_no_file() {
    let dir = goog();
    let run = std::sync::Arc::new(TestRun::in_dir(dir.path()));
    let other = run.clone();
    let cancel = tokio::spawn(async move {
        while other.progress().fields.get("epoch").is_none() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        other.cancel();
    });

    let result = run
        .run(&Training, request(json!({"epochs": 100_000})))
        .await;

    cancel.await.unwrap();

    assert_eq!(result.unwrap_err(), OperationError::Cancelled);
    assert_eq!(files(dir.path()), ["GOOG_1d.csv"]);
}

#[test]
fn a_cancel_before_the_renaming_leaves_the_earlier_model() {
    let dir = goog();
    let run = TestRun::in_dir(dir.path());
    let (request, data) = prepared(&run, json!({}));
    let model = ModelFile::new(&request, &data, &TrainingState::new(&request)).unwrap();

    std::fs::write(dir.path().join("model.json"), "earlier").unwrap();

    let target = ModelWriter::new(run.ctx(), Some("model.json"), true).unwrap();

    run.cancel();

    assert_eq!(target.write(&model), Err(OperationError::Cancelled));
    assert_eq!(
        std::fs::read_to_string(dir.path().join("model.json")).unwrap(),
        "earlier"
    );
    assert_eq!(files(dir.path()), ["GOOG_1d.csv", "model.json"]);
}

#[tokio::test]
async fn a_model_answers_as_the_training_did() {
    let dir = goog();
    let run = TestRun::in_dir(dir.path());
    let output = run
        .run(
            &Training,
            request(json!({"epochs": 2, "label": "next_range_high"})),
        )
        .await
        .unwrap();

    assert_eq!(output.model_file, "models/test.json");
    assert_eq!(files(dir.path()), ["GOOG_1d.csv", "test.json"]);

    let model = model::Model::load(run.ctx(), &output.model_file).unwrap();
    assert_eq!(model.label(), Label::NextRangeHigh);

    let (request, data) = prepared(&run, json!({"label": "next_range_high"}));
    let bars = Bars::load(run.ctx(), &request.selection()).unwrap();
    let answers = model
        .probabilities(run.ctx(), &features::features(&bars))
        .unwrap();
    let answers = &answers[output.train.rows..output.rows];
    let right = answers
        .iter()
        .zip(&data.validation.labels)
        .filter(|(p, y)| (**p > 0.5) == (**y == 1.0))
        .count();

    assert_eq!(
        right as f64 / answers.len() as f64,
        output.accuracy.unwrap()
    );
}

/// A worker is lost in the middle. The next attempt resumes from its checkpoint and ends with the
/// same numbers.
#[test]
fn a_takeover_resumes_from_the_checkpoint_with_the_same_numbers() {
    let dir = goog();
    let request: TrainingRequest = serde_json::from_value(json!({
        "symbol": "GOOG", "timeframe": "1d", "epochs": 6, "end": "2006-12-31",
    }))
    .unwrap();
    let undisturbed = TestRun::in_dir(&dir);
    let whole = train(undisturbed.ctx(), &request).unwrap();
    let first = TestRun::in_dir(&dir);
    let half = TrainingRequest {
        epochs: 3,
        ..request.clone()
    };

    train(first.ctx(), &half).unwrap();

    // The only saved checkpoint is the one after epoch 1.
    let second = first.next_attempt();
    let resumed = train(second.ctx(), &request).unwrap();
    let epochs: Vec<_> = second
        .metrics()
        .iter()
        .filter(|point| point.name == "val_loss")
        .map(|p| p.value)
        .collect();

    assert_eq!(epochs.len(), 5, "epochs 2 to 6 were left");

    let whole = serde_json::to_value(&whole).unwrap();
    let resumed = serde_json::to_value(&resumed).unwrap();

    assert_eq!(whole["history"], resumed["history"]);
    assert_eq!(whole["final"], resumed["final"]);
}
