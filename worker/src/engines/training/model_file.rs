//! Writing a model so that there is a whole file or none.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use super::model::ModelFile;
use crate::{Context, OperationError};

/// Where a model goes.
#[derive(Debug)]
pub(super) struct Target {
    path: PathBuf,
    temporary: PathBuf,
}

impl Target {
    /// For a name relative to the data directory.
    ///
    /// The temporary file is beside it, and of this attempt alone: an earlier attempt may still be writing.
    pub(super) fn new(ctx: &Context, name: &str) -> Result<Self, OperationError> {
        let refuse =
            || OperationError::invalid(format!("model_file {name:?}: give the name of a file ending in .json"));
        let path = ctx.data_dir().resolve(name)?;
        let file_name = path.file_name().and_then(|file| file.to_str()).ok_or_else(refuse)?;
        // Not to write over the data by a slip. A name of nothing else would be a hidden file.
        if !file_name.ends_with(".json") || file_name == ".json" || path.is_dir() {
            return Err(refuse());
        }
        let temporary = path.with_file_name(format!(".model-{}-{}.tmp", ctx.operation_id(), ctx.attempt()));
        Ok(Self { path, temporary })
    }

    /// Writes the file. On an error, or when the operation was cancelled meanwhile, nothing is left.
    pub(super) fn write(&self, ctx: &Context, model: &ModelFile) -> Result<(), OperationError> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let temporary = Temporary(&self.temporary);
        let mut file = BufWriter::new(File::create(&self.temporary)?);
        serde_json::to_writer(&mut file, model).map_err(std::io::Error::from)?;
        file.write_all(b"\n")?;
        file.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
        ctx.check_cancelled()?;
        fs::rename(temporary.0, &self.path)?;
        // The new name is safe only when the folder is.
        File::open(folder)?.sync_all()?;
        Ok(())
    }
}

/// Removes the file when it goes out of scope. After the renaming there is none, which is as well.
struct Temporary<'a>(&'a Path);

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.0);
    }
}
