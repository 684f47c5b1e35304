//! A trained model and its file (`docs/engines/training.md`, "Model file").
//!
//! The problem: a backtest, maybe on another worker and much later, must get the same predictions
//! as the training. So the file has everything that a prediction needs (feature names,
//! standardization, layers), and the reader refuses a file that could give other numbers: another
//! version, unknown or missing fields, other features, shapes that do not match, numbers that are
//! not finite.
//!
//! JSON was chosen because people can read it and doubles survive a round trip exactly. ONNX was
//! rejected: it would need a large dependency for a network of a few matrix products, and has no
//! place for the features.

use std::io::{self, BufReader};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::dataset::Dataset;
use super::features::{FEATURES, Row, Scaling};
use super::history::EpochMetrics;
use super::layer::Layer;
use super::loss::probability;
use super::network;
use super::request::{Label, TrainingRequest};
use super::state::TrainingState;
use ktrdr_worker::open_file;
use ktrdr_worker::{Context, OperationError};

/// The format name in the file.
const FORMAT: &str = "ktrdr-dense-network";

/// The format version that this worker writes and reads.
const VERSION: u32 = 1;

/// The largest model file to read, in bytes. Ten million weights take less.
const MAX_BYTES: u64 = 512 * 1024 * 1024;

/// Rows computed at once. Bounds the memory and the time between two checks for cancellation.
const ROWS_AT_ONCE: usize = 4096;

/// The contents of a model file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ModelFile {
    format: String,
    format_version: u32,
    label: Label,
    /// The median that the label compares with, if any.
    label_threshold: Option<f64>,
    feature_names: Vec<String>,
    means: Vec<f64>,
    stds: Vec<f64>,
    layer_sizes: Vec<usize>,
    layers: Vec<LayerFile>,
    /// The measurements of the last epoch.
    metrics: Option<EpochMetrics>,
    /// The request with defaults filled in. For people; the reader ignores it.
    parameters: Value,
}

/// One layer: `weights[output][input]`, `biases[output]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LayerFile {
    weights: Vec<Vec<f64>>,
    biases: Vec<f64>,
}

impl ModelFile {
    pub(super) fn new(
        request: &TrainingRequest,
        data: &Dataset,
        state: &TrainingState,
    ) -> Result<Self, serde_json::Error> {
        let layer = |layer: &Layer| LayerFile {
            weights: layer
                .weights
                .rows()
                .into_iter()
                .map(|row| row.to_vec())
                .collect(),
            biases: layer.biases.to_vec(),
        };

        Ok(Self {
            format: FORMAT.to_owned(),
            format_version: VERSION,
            label: request.label,
            label_threshold: data.label_threshold,
            feature_names: FEATURES.map(str::to_owned).to_vec(),
            means: data.scaling.means.to_vec(),
            stds: data.scaling.deviations.to_vec(),
            layer_sizes: request.layer_sizes(),
            layers: state.layers.iter().map(layer).collect(),
            metrics: state.history.0.last().cloned(),
            parameters: serde_json::to_value(request)?,
        })
    }

    /// The layers. Fails unless their shapes match `layer_sizes` and every number is finite.
    fn layers(&self) -> Result<Vec<Layer>, String> {
        let sizes = &self.layer_sizes;
        if sizes.first() != Some(&FEATURES.len())
            || sizes.last() != Some(&1)
            || sizes.len() != self.layers.len() + 1
        {
            return Err(format!(
                "layer_sizes {sizes:?} do not lead from {} features through the layers to one logit",
                FEATURES.len()
            ));
        }
        (1..)
            .zip(self.layers.iter().zip(sizes.windows(2)))
            .map(|(number, (layer, pair))| {
                layer.checked(pair[0], pair[1]).ok_or_else(|| {
                    format!(
                        "layer {number} is not {} biases and {} times {} finite weights",
                        pair[1], pair[1], pair[0]
                    )
                })
            })
            .collect()
    }

    fn scaling(&self) -> Result<Scaling, String> {
        let row = |values: &[f64]| {
            Row::try_from(values)
                .ok()
                .filter(|row| row.iter().all(|value| value.is_finite()))
        };

        match (row(&self.means), row(&self.stds)) {
            (Some(means), Some(deviations))
                if deviations.iter().all(|deviation| *deviation > 0.0) =>
            {
                Ok(Scaling { means, deviations })
            }
            _ => Err(format!(
                "means and stds are not {} finite numbers each, stds positive",
                FEATURES.len()
            )),
        }
    }
}

impl LayerFile {
    fn checked(&self, inputs: usize, outputs: usize) -> Option<Layer> {
        let shaped =
            self.weights.len() == outputs && self.weights.iter().all(|row| row.len() == inputs);
        let layer = Layer::new(inputs, outputs, self.weights.concat(), self.biases.clone()).ok()?;
        shaped.then_some(layer)
    }
}

/// A model that predicts.
pub struct Model {
    label: Label,
    scaling: Scaling,
    layers: Vec<Layer>,
}

impl Model {
    /// Reads a model file. `file` is relative to the data directory.
    ///
    /// # Errors
    /// A permanent error that names the file when it does not exist or is not a valid model of this
    /// version.
    pub fn load(ctx: &Context, file: &str) -> Result<Self, OperationError> {
        let path = ctx.data_dir().resolve(file)?;
        let refuse =
            |why: String| OperationError::permanent("invalid_model", format!("{file}: {why}"));
        let opened = open_file(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => OperationError::permanent(
                "model_not_found",
                format!("{file}: the file does not exist in the data directory: check model_file"),
            ),
            io::ErrorKind::InvalidInput => refuse(error.to_string()),
            _ => OperationError::failed(format!("{file}: {error}")),
        })?;

        if opened.metadata()?.len() > MAX_BYTES {
            return Err(refuse(format!(
                "the file is larger than the {MAX_BYTES} bytes that a model may have"
            )));
        }

        let contents: Value = serde_json::from_reader(BufReader::new(opened)).map_err(|error| {
            match error.io_error_kind() {
                Some(_) => OperationError::failed(format!("{file}: {error}")),
                None => refuse(format!("not JSON: {error}")),
            }
        })?;

        Self::from_json(contents).map_err(refuse)
    }

    /// The model in the contents of a file.
    fn from_json(contents: Value) -> Result<Self, String> {
        // Check the version first: a file of another version may also have unknown fields.
        if contents["format"] != FORMAT || contents["format_version"] != VERSION {
            return Err(format!(
                "this worker reads format {FORMAT:?} version {VERSION}, and the file says {} version {}",
                contents["format"], contents["format_version"]
            ));
        }

        let file: ModelFile =
            serde_json::from_value(contents).map_err(|error| error.to_string())?;
        if file.feature_names != FEATURES {
            return Err(format!(
                "feature_names {:?} are not {FEATURES:?}",
                file.feature_names
            ));
        }

        Ok(Self {
            label: file.label,
            layers: file.layers()?,
            scaling: file.scaling()?,
        })
    }

    /// The label that the model predicts.
    pub fn label(&self) -> Label {
        self.label
    }

    /// The probability of label 1 for each of `rows`.
    ///
    /// # Errors
    /// [`OperationError::Cancelled`] when the operation was cancelled.
    pub fn probabilities(&self, ctx: &Context, rows: &[Row]) -> Result<Vec<f64>, OperationError> {
        let mut answers = Vec::with_capacity(rows.len());
        for rows in rows.chunks(ROWS_AT_ONCE) {
            ctx.check_cancelled()?;
            let (logits, _) = network::forward(&self.layers, self.scaling.apply(rows));
            answers.extend(logits.into_iter().map(probability));
        }
        Ok(answers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A model of one layer.
    fn contents() -> Value {
        json!({
            "format": FORMAT, "format_version": VERSION, "label": "next_up", "label_threshold": null,
            "feature_names": FEATURES, "means": vec![0.0; 8], "stds": vec![1.0; 8], "layer_sizes": [8, 1],
            "layers": [{"weights": [[1.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0]], "biases": [0.5]}],
            "metrics": null, "parameters": {}
        })
    }

    #[test]
    fn a_sound_model_answers() {
        let model = Model::from_json(contents()).ok().unwrap();
        let run = ktrdr_worker::testing::TestRun::new();
        let answers = model
            .probabilities(
                run.ctx(),
                &[[0.25, 0.125, 9.0, 9.0, 9.0, 9.0, 9.0, 1.0], [0.0; 8]],
            )
            .unwrap();
        assert_eq!(answers, [0.5, probability(0.5)]);
    }

    #[test]
    fn invalid_models_are_refused() {
        for (pointer, value, expected) in [
            ("/format", json!("onnx"), "this worker reads format"),
            ("/format_version", json!(2), "version 2"),
            ("/label", json!("price"), "unknown variant"),
            ("/feature_names/0", json!("ret_2"), "feature_names"),
            ("/means", json!(vec![0.0; 7]), "means and stds"),
            ("/means/3", json!(null), "invalid type: null"),
            ("/stds/3", json!(0.0), "means and stds"),
            ("/stds/3", json!(-1.0), "means and stds"),
            ("/layer_sizes", json!([8, 2]), "layer_sizes"),
            ("/layer_sizes", json!([7, 1]), "layer_sizes"),
            ("/layer_sizes", json!([8, 4, 1]), "layer_sizes"),
            ("/layer_sizes", json!([]), "layer_sizes"),
            ("/layers/0/weights/0", json!([1.0]), "layer 1 is not"),
            ("/layers/0/weights", json!([]), "layer 1 is not"),
            ("/layers/0/biases", json!([0.5, 0.5]), "layer 1 is not"),
            ("/layers/0/biases/0", json!("NaN"), "invalid type: string"),
        ] {
            let mut broken = contents();
            *broken.pointer_mut(pointer).unwrap() = value.clone();

            let error = Model::from_json(broken).err().unwrap_or_default();

            assert!(error.contains(expected), "{pointer} {value}: {error}");
        }

        assert!(Model::from_json(json!([])).is_err());

        let mut unknown = contents();

        unknown["extra"] = json!(1);

        assert!(Model::from_json(unknown).is_err());
    }

    #[test]
    fn errors_name_the_file() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("text.json"), "no json").unwrap();
        std::fs::write(
            dir.path().join("huge.json"),
            contents().to_string().replace("2.0", "1e999"),
        )
        .unwrap();
        std::fs::create_dir(dir.path().join("folder.json")).unwrap();

        let run = ktrdr_worker::testing::TestRun::in_dir(dir.path());
        for file in ["text.json", "huge.json", "folder.json", "absent.json"] {
            let error = Model::load(run.ctx(), file).err().unwrap();
            assert!(
                matches!(&error, OperationError::Permanent { message, .. } if message.starts_with(file)),
                "{error:?}"
            );
        }
    }
}
