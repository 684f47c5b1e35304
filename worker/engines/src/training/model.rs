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

use std::fmt;
use std::io::{self, BufReader, Read, Seek};

use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
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
use crate::bounded::{Bounded, Stopped};
use ktrdr_worker::{Context, FileError, OperationError};

/// The format name in the file.
const FORMAT: &str = "ktrdr-dense-network";

/// The format version that this worker writes and reads.
const VERSION: u32 = 1;

/// The largest model file to read, in bytes. Ten million weights, the most that a training may
/// have, take less.
const MAX_BYTES: u64 = 256 * 1024 * 1024;

/// The most layers, and the most weights in a row of a layer, as in `TrainingRequest`. They bound
/// the memory that a file takes: at most four times its size.
const MAX_LAYERS: usize = 17;
const MAX_WIDTH: usize = 4096;

/// Characters of a value in a message.
const SHOWN: usize = 100;

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
    #[serde(deserialize_with = "limited::<_, _, MAX_WIDTH>")]
    feature_names: Vec<String>,
    #[serde(deserialize_with = "limited::<_, _, MAX_WIDTH>")]
    means: Vec<f64>,
    #[serde(deserialize_with = "limited::<_, _, MAX_WIDTH>")]
    stds: Vec<f64>,
    #[serde(deserialize_with = "limited::<_, _, MAX_WIDTH>")]
    layer_sizes: Vec<usize>,
    #[serde(deserialize_with = "limited::<_, _, MAX_LAYERS>")]
    layers: Vec<LayerFile>,
    /// The measurements of the epoch that the weights are of.
    metrics: Option<EpochMetrics>,
    /// The request with defaults filled in. For people; the reader ignores it.
    #[serde(deserialize_with = "ignored")]
    parameters: Value,
}

/// What the reader of a model file looks at first.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Head {
    format: Shown,
    format_version: Shown,
}

/// A value as JSON for a message, and to compare with. A long one is cut.
#[derive(Debug, PartialEq, Eq)]
struct Shown(String);

impl Default for Shown {
    fn default() -> Self {
        Self("null".to_owned())
    }
}

/// One layer: `weights[output][input]`, `biases[output]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LayerFile {
    #[serde(deserialize_with = "limited::<_, _, MAX_WIDTH>")]
    weights: Vec<Weights>,
    #[serde(deserialize_with = "limited::<_, _, MAX_WIDTH>")]
    biases: Vec<f64>,
}

/// The weights of one output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
struct Weights(#[serde(deserialize_with = "limited::<_, _, MAX_WIDTH>")] Vec<f64>);

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
                .map(|row| Weights(row.to_vec()))
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
            layers: state.model_layers().iter().map(layer).collect(),
            metrics: state.model_epoch().cloned(),
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
            self.weights.len() == outputs && self.weights.iter().all(|row| row.0.len() == inputs);
        let weights = self
            .weights
            .iter()
            .flat_map(|row| &row.0)
            .copied()
            .collect();
        let layer = Layer::new(inputs, outputs, weights, self.biases.clone()).ok()?;
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
        let refuse =
            |why: String| OperationError::permanent("invalid_model", format!("{file}: {why}"));
        let opened = ctx.data_dir().open(file).map_err(|error| match error {
            FileError::NotFound { .. } => OperationError::permanent(
                "model_not_found",
                format!("{file}: the file does not exist in the data directory: check model_file"),
            ),
            FileError::NotAFile { .. } => refuse("it is not a regular file".to_owned()),
            other => other.into(),
        })?;

        Self::read(ctx, &opened).map_err(|error| match error {
            ReadError::Invalid(why) => refuse(why),
            ReadError::Io(error) => match Stopped::cause_of(&error) {
                Some(Stopped::Cancelled) => OperationError::Cancelled,
                Some(Stopped::TooLong) => refuse(format!(
                    "the file is larger than the {MAX_BYTES} bytes that a model may have"
                )),
                None => OperationError::failed(format!("{file}: {error}")),
            },
        })
    }

    /// Reads a model from its file, which it reads twice.
    fn read<R: Read + Seek>(ctx: &Context, mut input: R) -> Result<Self, ReadError> {
        // Check the version first: a file of another version may also have unknown fields.
        let head: Head = from_reader(ctx, &mut input)?;
        let wanted = (Shown(format!("{FORMAT:?}")), Shown(VERSION.to_string()));
        if (&head.format, &head.format_version) != (&wanted.0, &wanted.1) {
            return Err(ReadError::Invalid(format!(
                "this worker reads format {FORMAT:?} version {VERSION}, and the file says {} version {}",
                head.format.0, head.format_version.0
            )));
        }

        input.rewind().map_err(ReadError::Io)?;
        let file: ModelFile = from_reader(ctx, &mut input)?;
        Self::new(file).map_err(ReadError::Invalid)
    }

    /// The model in the contents of a file.
    fn new(file: ModelFile) -> Result<Self, String> {
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

/// Why a model could not be read.
enum ReadError {
    /// The contents are not a model.
    Invalid(String),
    /// The file could not be read, or not to its end.
    Io(io::Error),
}

fn from_reader<T: for<'de> Deserialize<'de>>(
    ctx: &Context,
    input: impl Read,
) -> Result<T, ReadError> {
    let input = BufReader::new(Bounded::new(ctx, input, MAX_BYTES));
    serde_json::from_reader(input).map_err(|error| {
        if error.is_io() {
            ReadError::Io(error.into())
        } else {
            ReadError::Invalid(error.to_string())
        }
    })
}

/// Reads a list of at most `MAX` items.
fn limited<'de, D, T, const MAX: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct Items<T, const MAX: usize>(Vec<T>);

    impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Items<T, MAX> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {MAX} items")
        }

        fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Vec<T>, A::Error> {
            while let Some(item) = items.next_element()? {
                if self.0.len() == MAX {
                    return Err(serde::de::Error::invalid_length(MAX + 1, &self));
                }
                self.0.push(item);
            }
            Ok(self.0)
        }
    }

    deserializer.deserialize_seq(Items::<T, MAX>(Vec::new()))
}

fn ignored<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
    deserializer.deserialize_ignored_any(IgnoredAny)?;
    Ok(Value::Null)
}

impl<'de> Deserialize<'de> for Shown {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Shown;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_str<E>(self, text: &str) -> Result<Shown, E> {
                let text: String = text.chars().take(SHOWN).collect();
                Ok(Shown(format!("{text:?}")))
            }

            fn visit_bool<E>(self, value: bool) -> Result<Shown, E> {
                Ok(Shown(value.to_string()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Shown, E> {
                Ok(Shown(value.to_string()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Shown, E> {
                Ok(Shown(value.to_string()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Shown, E> {
                Ok(Shown(value.to_string()))
            }

            fn visit_unit<E>(self) -> Result<Shown, E> {
                Ok(Shown::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Shown, A::Error> {
                while items.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Shown("[…]".to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut items: A) -> Result<Shown, A::Error> {
                while items.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Shown("{…}".to_owned()))
            }
        }

        deserializer.deserialize_any(Any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn from_json(contents: Value) -> Result<Model, String> {
        let run = ktrdr_worker::testing::TestRun::new();
        let text = io::Cursor::new(contents.to_string());
        Model::read(run.ctx(), text).map_err(|error| match error {
            ReadError::Invalid(why) => why,
            ReadError::Io(error) => error.to_string(),
        })
    }

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
        let model = from_json(contents()).ok().unwrap();
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

            let error = from_json(broken).err().unwrap_or_default();

            assert!(error.contains(expected), "{pointer} {value}: {error}");
        }

        assert!(from_json(json!([])).is_err());

        let mut wide = contents();
        wide["layers"][0]["weights"] = json!(vec![vec![0.0]; MAX_WIDTH + 1]);
        assert!(
            from_json(wide)
                .err()
                .unwrap()
                .contains("at most 4096 items")
        );

        let mut unknown = contents();

        unknown["extra"] = json!(1);

        assert!(from_json(unknown).is_err());
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
