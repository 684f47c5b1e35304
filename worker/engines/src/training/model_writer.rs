//! Writing a model so that there is a whole file or none.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::model::ModelFile;
use ktrdr_worker::{Context, OperationError};

/// Where a model goes.
#[derive(Debug)]
pub(super) struct ModelWriter {
    /// As the request writes it.
    name: String,
    path: PathBuf,
    temporary: PathBuf,
}

impl ModelWriter {
    /// For a name relative to the data directory.
    ///
    /// The temporary file is beside it, and of this attempt alone: an earlier attempt may still be
    /// writing.
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

        // The ending keeps a slip from writing over bars. A name of nothing else would be a hidden
        // file.
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

    /// Writes the file. On an error, or when the operation was cancelled meanwhile, nothing is
    /// left.
    pub(super) fn write(&self, ctx: &Context, model: &ModelFile) -> Result<(), OperationError> {
        let failed = |error: io::Error| {
            OperationError::failed(format!("model_file {:?}: {error}", self.name))
        };
        let folder = self.path.parent().unwrap_or(Path::new("."));

        fs::create_dir_all(folder).map_err(failed)?;

        let _temporary = Temporary(&self.temporary);

        write_synced(&self.temporary, model).map_err(failed)?;

        // An attempt that was taken over must not write over its successor's model.
        ctx.ensure_owner_blocking()?;
        fs::rename(&self.temporary, &self.path).map_err(failed)?;

        // The new name is safe only when the folder is.
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

/// Removes the file when it goes out of scope. After the renaming there is none, which is as well.
struct Temporary<'a>(&'a Path);

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.0);
    }
}
