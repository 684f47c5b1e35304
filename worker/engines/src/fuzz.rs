//! Attacks on bars, models, saved trainings and times: files that others may have written.

use std::fs;

use ktrdr_fuzz::Attack;
use ktrdr_worker::testing::TestRun;
use serde_json::json;

use crate::bars::{BarSelection, BarTime, Bars};
use crate::datetime::{Ambiguous, TimeCell, TimeReader, TimesRead, parse_cell, parse_instant};
use crate::training::features::FEATURES;
use crate::training::model::Model;
use crate::training::{TrainingRequest, TrainingState};

/// Buffers of readers, and the weights of a model.
const MEMORY: usize = 8 * 1024 * 1024;

#[test]
fn bars() {
    let dir = tempfile::tempdir().unwrap();
    let run = TestRun::in_dir(dir.path());
    let selection = BarSelection {
        symbol: serde_json::from_value(json!("X")).unwrap(),
        timeframe: serde_json::from_value(json!("1d")).unwrap(),
        start: None,
        end: None,
    };
    let file = dir.path().join(selection.file());
    let seeds = [
        "timestamp,open,high,low,close,volume\n2024-01-02,1,2,0.5,1.5,100\n2024-01-03,1.5,2,1,1.75,0\n",
        "timestamp,open,high,low,close,volume\r\n2024-01-02T00:00:00Z,\"1\",2,0.5,1.5,100\r\n",
    ];
    fs::write(&file, seeds[0]).unwrap();
    assert!(
        Bars::load(run.ctx(), &selection).is_ok(),
        "the seed is read"
    );
    Attack::on("bars").with(seeds).run(|bytes| {
        fs::write(&file, bytes).unwrap();
        if let Ok(bars) = Bars::load(run.ctx(), &selection) {
            for bar in &bars.bars {
                let prices = [bar.open, bar.high, bar.low, bar.close];
                assert!(prices.iter().all(|price| price.is_finite() && *price > 0.0));
                assert!(bar.low <= bar.open.min(bar.close) && bar.high >= bar.open.max(bar.close));
            }
            assert!(bars.bars.is_sorted_by(|one, next| one.time < next.time));
        }
    });
}

#[test]
fn models() {
    let dir = tempfile::tempdir().unwrap();
    let run = TestRun::in_dir(dir.path());
    let seed = json!({
        "format": "ktrdr-dense-network", "format_version": 1, "label": "next_up", "label_threshold": null,
        "feature_names": FEATURES, "means": vec![0.0; 8], "stds": vec![1.0; 8],
        "layer_sizes": [8, 1],
        "layers": [{"weights": [[1.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0]], "biases": [0.5]}],
        "metrics": null, "parameters": {},
    });
    fs::write(dir.path().join("m.json"), seed.to_string()).unwrap();
    assert!(
        Model::load(run.ctx(), "m.json").is_ok(),
        "the seed is a model"
    );
    Attack::on("models")
        .with([seed.to_string()])
        .memory(MEMORY)
        .run(|bytes| {
            fs::write(dir.path().join("m.json"), bytes).unwrap();
            if let Ok(model) = Model::load(run.ctx(), "m.json") {
                let rows = [[0.0; 8], [1e300; 8], [-1.0; 8]];
                if let Ok(probabilities) = model.probabilities(run.ctx(), &rows) {
                    assert!(probabilities.iter().all(|one| !(*one < 0.0 || *one > 1.0)));
                }
            }
        });
}

#[test]
fn saved_trainings() {
    let request = json!({"symbol": "X", "timeframe": "1d", "hidden_layers": [3]});
    let request: TrainingRequest = serde_json::from_value(request).unwrap();
    let seed = serde_json::to_string(&TrainingState::new(&request)).unwrap();
    Attack::on("saved trainings")
        .with([seed])
        .memory(MEMORY)
        .run(|bytes| {
            if let Ok(state) = serde_json::from_slice::<TrainingState>(bytes)
                && state.fits(&request)
            {
                let written = serde_json::to_vec(&state).unwrap();
                let again: TrainingState = serde_json::from_slice(&written).unwrap();
                assert_eq!(again, state);
            }
        });
}

#[test]
fn times_of_cells() {
    let seeds = [
        "2024-01-02",
        "2024-01-02T10:30:00.5+01:30",
        "2024-01-02 10:30:00Z",
    ];
    Attack::on("times of cells").with(seeds).run(|bytes| {
        let _ = (parse_instant(bytes), parse_cell(bytes));
        let Ok(text) = std::str::from_utf8(bytes) else {
            return;
        };
        if let Ok(time) = BarTime::parse(text) {
            assert_eq!(BarTime::parse(&time.to_string()).ok(), Some(time));
        }
    });
}

#[test]
fn time_formats() {
    // The format and a cell.
    let seeds = [
        "%d.%m.%Y %H:%M\n02.01.2024 10:30",
        "%s\n1700000000",
        "%Y-%j\n2024-200",
        "%+\n2024-01-02T00:00:00+00:00",
        "%d/%m/%Y %I:%M %p\n02/01/2024 10:30 PM",
        "%Y-%m-%d %H:%M %Z\n2024-01-02 10:30 CEST",
        "%Q\n1700000000000",
    ];
    Attack::on("time formats").with(seeds).run(|bytes| {
        let mut parts = bytes.splitn(2, |byte| *byte == b'\n');
        let format = parts
            .next()
            .and_then(|format| std::str::from_utf8(format).ok());
        let (Some(format), Some(cell)) = (format, parts.next()) else {
            return;
        };
        let formats = [format.to_owned()];
        for zone in [None, Some("Europe/Berlin")] {
            let Ok(reader) = TimeReader::new(&formats, zone, Ambiguous::Order) else {
                return;
            };
            let (mut seen, mut written) = (TimesRead::default(), Vec::new());
            if reader.read(cell, &mut seen, &mut written) == TimeCell::Rewritten {
                assert!(parse_cell(&written).is_some(), "{}", written.escape_ascii());
            }
            let _ = reader.matches(cell);
        }
    });
}
