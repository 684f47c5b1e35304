//! Writes a model file, whole or not at all.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::model::ModelFile;
use ktrdr_worker::{Context, OperationError};

/// Writes one model file.
#[derive(Debug)]
pub(super) struct ModelWriter {
    /// The name in the request.
    name: String,
    path: PathBuf,
    temporary: PathBuf,
}

impl ModelWriter {
    /// Prepares to write `name`, which is relative to the data directory.
    ///
    /// The temporary file is beside the model and belongs to this attempt alone, because an earlier
    /// attempt may still be writing.
    pub(super) fn new(ctx: &Context, name: &str) -> Result<Self, OperationError> {
        let refuse = || {
            OperationError::invalid(format!(
                "model_file {name:?}: give the name of a file ending in .json"
            ))
        };
        let path = ctx.data_dir().resolve(name)?;
        let file_name = path
            .file_name()
            .and_then(|file| file.to_str())
            .ok_or_else(refuse)?;
        let in_folder = path
            .ancestors()
            .skip(1)
            .find(|folder| folder.exists())
            .is_some_and(Path::is_dir);

        // The required ending prevents overwriting a file of bars by mistake. The name `.json`
        // alone would be a hidden file.
        if !file_name.ends_with(".json") || file_name == ".json" || path.is_dir() || !in_folder {
            return Err(refuse());
        }

        let temporary = path.with_file_name(format!(
            ".model-{}-{}.tmp",
            ctx.operation_id(),
            ctx.attempt()
        ));

        Ok(Self {
            name: name.to_owned(),
            path,
            temporary,
        })
    }

    /// Writes the file. Leaves no file on an error or when the operation was cancelled.
    pub(super) fn write(&self, ctx: &Context, model: &ModelFile) -> Result<(), OperationError> {
        let failed = |error: io::Error| {
            OperationError::failed(format!("model_file {:?}: {error}", self.name))
        };
        let folder = self.path.parent().unwrap_or(Path::new("."));

        fs::create_dir_all(folder).map_err(failed)?;

        let _temporary = Temporary(&self.temporary);

        write_synced(&self.temporary, model).map_err(failed)?;

        // An attempt that was lost must not overwrite the model of its successor.
        ctx.ensure_owner_blocking()?;
        fs::rename(&self.temporary, &self.path).map_err(failed)?;

        // Sync the directory, so that the new name survives a power failure.
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(failed)
    }
}

fn write_synced(path: &Path, model: &ModelFile) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    serde_json::to_writer(&mut file, model)?;
    file.write_all(b"\n")?;
    file.into_inner()?.sync_all()
}

/// Removes the temporary file on drop. After the rename the file does not exist, and nothing
/// happens.
struct Temporary<'a>(&'a Path);

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.0);
    }
}
