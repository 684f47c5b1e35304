//! Writes a model file, whole or not at all.

use std::io::Write;
use std::path::Path;

use super::model::ModelFile;
use ktrdr_worker::{Context, NamedBy, OperationError, Output};

/// Writes one model file.
pub(super) struct ModelWriter {
    output: Output,
}

impl ModelWriter {
    /// Prepares to write the model that the request calls `name`. Without a name it goes to
    /// `models/{operation_id}.json`.
    pub(super) fn new(
        ctx: &Context,
        name: Option<&str>,
        overwrite: bool,
    ) -> Result<Self, OperationError> {
        let output = match name {
            Some(name) => ctx.output(name, NamedBy::Request, overwrite)?,
            None => {
                let name = format!("models/{}.json", ctx.operation_id());
                ctx.output(&name, NamedBy::Engine, overwrite)?
            }
        };

        // The required ending prevents overwriting a file of bars by mistake.
        if Path::new(output.name()).extension() != Some("json".as_ref()) {
            return Err(OperationError::invalid(format!(
                "model_file {:?}: give the name of a file ending in .json",
                output.name()
            )));
        }

        Ok(Self { output })
    }

    /// The name of the file, relative to the data directory.
    pub(super) fn name(&self) -> &str {
        self.output.name()
    }

    /// Writes the file. Leaves no file on an error or when the operation was cancelled.
    pub(super) fn write(&self, model: &ModelFile) -> Result<(), OperationError> {
        self.output.write(|file| {
            serde_json::to_writer(&mut *file, model)?;
            file.write_all(b"\n")
        })?;
        Ok(())
    }
}
