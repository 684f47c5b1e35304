//! The engine as a whole.

use serde_json::{Value, json};

use super::*;
use crate::testing::TestRun;

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../data");

/// A data directory with the bars of GOOG, for one test to write to.
fn goog() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(format!("{DATA}/GOOG_1d.csv"), dir.path().join("GOOG_1d.csv")).unwrap();
    dir
}

fn request(more: Value) -> Value {
    let mut request = json!({"symbol": "GOOG", "timeframe": "1d"});
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    request
}

fn near(actual: f64, expected: f64, tolerance: f64) {
    assert!((actual - expected).abs() <= tolerance, "{actual} is not {expected}");
}

/// Epoch, train_loss, train_accuracy, val_loss, val_accuracy.
type Line = (u32, f64, f64, f64, f64);

async fn check_fixed(label: &str, lines: &[Line]) -> TrainingOutput {
    let dir = goog();
    let request = request(json!({"label": label, "init": "fixed", "shuffle": false}));
    let output = TestRun::in_dir(dir.path()).run(&Training, request).await.unwrap();
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
    assert_eq!((output.rows, output.train.rows, output.validation.rows), (2127, 1701, 426));
    assert_eq!((output.train.ones, output.validation.ones), (868, 233));
    assert_eq!((&*output.train.first, &*output.train.last), ("2004-09-17", "2011-06-17"));
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
    near(output.baseline.train_loss.unwrap(), 0.6931, 1e-4);
    near(output.baseline.val_loss.unwrap(), 0.6929, 1e-4);
}
