//! Output files: where they may be, what they may replace, and how they appear.
//!
//! The problem: the files in the data directory are the user's, and nothing else can bring them
//! back. A request names its output, so a wrong or hostile name must not replace such a file. An
//! operation can run more than once, however, and must be able to replace what it wrote before: an
//! attempt can die between the rename and the end of its operation.
//!
//! So each output carries a mark, which says who wrote it: an extended attribute of the file. The
//! mark is set before the file gets its name, so a file has both or none, also after a crash. A
//! mark holds as long as nobody changes the content or the name of the file. Two alternatives were
//! rejected: a file beside each output, which would outlive it or be renamed apart from it, and a
//! list in the data directory, which a crash could leave behind the files.
//!
//! Some file systems have no extended attributes, and workers of old versions set none. There a
//! repeated run compares: it keeps an existing file that has the same bytes, and refuses another.
//!
//! [`temporary`] says how a late attempt is kept from replacing what its successor wrote.

mod error;
mod mark;
mod temporary;

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use cap_std::fs::{Dir, OpenOptions};
use rustix::fs::{XattrFlags, fsetxattr};
use sha2::{Digest, Sha256};

pub use self::error::OutputError;
pub(crate) use self::mark::Mark;
use self::mark::{MARK, read_mark};
use self::temporary::{Temporary, shut_out_earlier};
use crate::engine::context::Context;
use crate::engine::data_dir::{DataDir, FileError, is_hidden, leads_out, real_path, relative};

/// Bytes compared at a time.
const CHUNK: usize = 64 * 1024;

/// Who chose the name of an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamedBy {
    /// The request gives the name.
    Request,
    /// The engine makes the name from the request, as the table of `a.csv` goes to
    /// `a.processed.csv`. Such an output may be replaced by a later one of the same worker type.
    Engine,
}

impl DataDir {
    /// Where the output that a request calls `name` goes, relative to the data directory. This is
    /// the one place that knows which names outputs may have.
    ///
    /// With `KTRDR_OUTPUT_DIR`, a name that is not below that folder is put below it.
    ///
    /// # Errors
    /// [`OutputError::Name`] and [`OutputError::Path`] when the name cannot be that of an output.
    pub fn place_output(&self, name: &str) -> Result<String, OutputError> {
        let refuse = |why| {
            Err(OutputError::Name {
                name: name.to_owned(),
                why,
            })
        };
        let path = relative(name)?;

        if name.chars().any(char::is_control) {
            return refuse("holds a control character");
        }
        if path.as_os_str().is_empty() || name.ends_with('/') || name.ends_with("/.") {
            return refuse("is a directory");
        }
        if is_hidden(&path) {
            return refuse("is hidden or lies in a hidden directory");
        }

        let path = if path.starts_with(self.outputs()) {
            path
        } else {
            self.outputs().join(path)
        };
        // Only the path changed, so it is still text.
        Ok(path.to_string_lossy().into_owned())
    }
}

/// A file that an operation is to write. Others see the whole file or nothing.
#[derive(Clone)]
pub struct Output {
    ctx: Context,
    name: String,
    named_by: NamedBy,
    overwrite: bool,
    /// The file that had the name when the operation began.
    found: Option<Identity>,
}

/// Which file has a name. Another file, or a change of it, is another identity: inode, length, and
/// time of the last change.
type Identity = (u64, u64, u64, i64, i64);

/// What has the name of an output now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Existing {
    /// Nothing.
    Nothing,
    /// A file that this operation may replace.
    Replaceable,
    /// A file that this operation may have written: nothing says who did.
    Unknown,
    /// A file that this operation may not replace.
    Foreign,
}

impl Context {
    /// Prepares the output file `name`. Fails before the work when the file cannot be written, and
    /// creates nothing.
    ///
    /// A file that exists is replaced only when `overwrite` says so, or when this operation, or one
    /// that it retries or resumes, wrote it. See also [`NamedBy::Engine`].
    ///
    /// # Errors
    /// [`OutputError`] when the name cannot be that of an output, or when a file has it that this
    /// operation may not replace.
    pub fn output(
        &self,
        name: &str,
        named_by: NamedBy,
        overwrite: bool,
    ) -> Result<Output, OutputError> {
        let mut output = Output {
            name: self.data_dir().place_output(name)?,
            ctx: self.clone(),
            named_by,
            overwrite,
            found: None,
        };

        if output.look()? == Existing::Foreign {
            return Err(output.exists());
        }
        output.found = output.identity()?;
        if let Some(folder) = output.open_folder()? {
            shut_out_earlier(self, &folder);
        }
        Ok(output)
    }
}

impl Output {
    /// The name, relative to the data directory.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Writes the file: `write` gets a temporary file beside it, which takes the name at the end.
    /// Leaves no file on an error, or when the operation was cancelled. Blocks.
    ///
    /// # Errors
    /// [`OutputError`] when the file cannot be written or may not be replaced, and when this
    /// attempt is lost.
    pub fn write(
        &self,
        write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
    ) -> Result<(), OutputError> {
        let folder = self.create_folder()?;
        self.write_in(&folder, write)
    }

    fn write_in(
        &self,
        folder: &Dir,
        write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
    ) -> Result<(), OutputError> {
        let temporary = Temporary::of(&self.ctx, folder);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        let file = folder
            .open_with(&temporary.name, &options)
            .map_err(self.io())?;
        let mut file = BufWriter::new(file.into_std());

        write(&mut file).map_err(self.io())?;

        let file = file
            .into_inner()
            .map_err(io::IntoInnerError::into_error)
            .map_err(self.io())?;

        self.publish_from(&temporary, &file)
    }

    /// Gives the name to `file`, a complete file that is now called `temporary`, a path relative to
    /// the data directory. `temporary` may remain as a second name. Blocks.
    ///
    /// # Errors
    /// [`OutputError`], as [`Self::write`].
    pub fn publish(&self, file: &File, temporary: &Path) -> Result<(), OutputError> {
        let from = self.ctx.data_dir().dir().map_err(self.io())?;
        let folder = self.create_folder()?;
        let own = Temporary::of(&self.ctx, &folder);

        match from.hard_link(temporary, &folder, &own.name) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::CrossesDevices => {
                return self.publish_copy(temporary);
            }
            // Some file systems have no links; they have renames.
            Err(_) => from
                .rename(temporary, &folder, &own.name)
                .map_err(self.io())?,
        }

        self.publish_from(&own, file)?;
        let _ = from.remove_file(temporary);
        Ok(())
    }

    /// Publishes to another device, where a file cannot be renamed to: publishes a copy.
    fn publish_copy(&self, temporary: &Path) -> Result<(), OutputError> {
        let folder = self.create_folder()?;
        let mut file = self
            .ctx
            .data_dir()
            .open_path(temporary)
            .map_err(self.io())?;

        self.write_in(&folder, |copy| io::copy(&mut file, copy).map(drop))
    }

    fn publish_from(&self, temporary: &Temporary<'_>, file: &File) -> Result<(), OutputError> {
        self.mark(file).map_err(self.io())?;
        file.sync_all().map_err(self.io())?;

        // The last check before others can see the file: no other attempt has taken over.
        self.ctx.ensure_owner_blocking()?;
        // Opened anew: somebody may have put a link in its place.
        let folder = self.create_folder()?;
        shut_out_earlier(&self.ctx, &folder);

        let named = match self.take_free_name(temporary, &folder) {
            Ok(false) => self.replace(temporary, &folder),
            taken => taken.map(drop),
        };
        if let Err(error) = named {
            // A later attempt has removed the temporary name.
            self.ctx.ensure_owner_blocking()?;
            return Err(error);
        }

        // Sync the directory too, so that the new name survives a power failure. Some file systems
        // cannot; then nothing more can be done.
        let _ = folder
            .try_clone()
            .and_then(|folder| folder.into_std_file().sync_all());

        Ok(())
    }

    /// Gives the name to the file and returns true, when nothing has the name. A link does not
    /// replace a file that appeared a moment ago; a rename would.
    fn take_free_name(&self, temporary: &Temporary<'_>, folder: &Dir) -> Result<bool, OutputError> {
        let (from, target) = (temporary.folder, self.file_name());

        match from.hard_link(&temporary.name, folder, target) {
            Ok(()) => {
                let _ = from.remove_file(&temporary.name);
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
            // Some file systems have no links; they have renames.
            Err(_) => match self.look_in(folder).map_err(self.io())? {
                Existing::Nothing => {
                    self.rename(temporary, folder)?;
                    Ok(true)
                }
                _ => Ok(false),
            },
        }
    }

    /// Gives the name to the file in place of the one that has it, if this is allowed.
    fn replace(&self, temporary: &Temporary<'_>, folder: &Dir) -> Result<(), OutputError> {
        let existing = self.look_in(folder).map_err(self.io())?;

        if existing == Existing::Replaceable {
            self.check_not_taken(folder)?;
        }

        match existing {
            Existing::Nothing | Existing::Replaceable => self.rename(temporary, folder),
            Existing::Unknown if self.holds_the_same(temporary, folder)? => Ok(()),
            Existing::Unknown | Existing::Foreign => Err(self.exists()),
        }
    }

    fn rename(&self, temporary: &Temporary<'_>, folder: &Dir) -> Result<(), OutputError> {
        temporary
            .folder
            .rename(&temporary.name, folder, self.file_name())
            .map_err(self.io())
    }

    /// Fails when another operation has written the file since this one began. Two that write one
    /// output at a time would each replace what the other has just completed.
    fn check_not_taken(&self, folder: &Dir) -> Result<(), OutputError> {
        let target = self.file_name();
        if identity_in(folder, target).map_err(self.io())? == self.found {
            return Ok(());
        }

        let file = folder.open(target).map(cap_std::fs::File::into_std);
        let mark = file.ok().and_then(|file| read_mark(&file).ok().flatten());
        match mark {
            // An earlier attempt, which was believed lost.
            Some(mark)
                if mark.operation_id == *self.ctx.operation_id()
                    || self.ctx.resumes().contains(&mark.operation_id) =>
            {
                Ok(())
            }
            mark => Err(OutputError::Taken {
                name: self.name.clone(),
                by: mark.map_or("another program".to_owned(), |mark| {
                    format!("operation {}", mark.operation_id)
                }),
            }),
        }
    }

    /// The file that has the name now.
    fn identity(&self) -> Result<Option<Identity>, OutputError> {
        match self.open_folder()? {
            Some(folder) => identity_in(&folder, self.file_name()).map_err(self.io()),
            None => Ok(None),
        }
    }

    fn file_name(&self) -> &OsStr {
        Path::new(&self.name).file_name().unwrap_or_default()
    }

    fn exists(&self) -> OutputError {
        OutputError::Exists {
            name: self.name.clone(),
        }
    }

    fn io(&self) -> impl FnOnce(io::Error) -> OutputError {
        |source| self.describe(source)
    }

    fn describe(&self, source: io::Error) -> OutputError {
        let name = self.name.clone();
        match source.kind() {
            _ if leads_out(&source) => OutputError::Path(FileError::Path {
                name,
                why: "leads out of the data directory",
            }),
            ErrorKind::NotADirectory => OutputError::Name {
                name,
                why: "lies in something that is not a directory",
            },
            ErrorKind::IsADirectory => OutputError::Name {
                name,
                why: "is a directory",
            },
            _ => OutputError::Io { name, source },
        }
    }

    /// The real folder of the output, which may not exist yet.
    fn real_folder(&self, dir: &Dir) -> Result<PathBuf, OutputError> {
        let folder = Path::new(&self.name).parent().unwrap_or(Path::new(""));
        let real = real_path(dir, folder).map_err(self.io())?;

        // A link has led to it.
        if is_hidden(&real) {
            return Err(OutputError::Name {
                name: self.name.clone(),
                why: "lies in a hidden directory",
            });
        }
        if !real.starts_with(self.ctx.data_dir().outputs()) {
            return Err(OutputError::Name {
                name: self.name.clone(),
                why: "leads out of the directory of outputs",
            });
        }

        Ok(real)
    }

    fn create_folder(&self) -> Result<Dir, OutputError> {
        let dir = self.ctx.data_dir().create_dir().map_err(self.io())?;
        let real = self.real_folder(dir)?;

        if real.as_os_str().is_empty() {
            return dir.try_clone().map_err(self.io());
        }
        dir.create_dir_all(&real).map_err(self.io())?;
        dir.open_dir(&real).map_err(self.io())
    }

    /// What has the name now.
    fn look(&self) -> Result<Existing, OutputError> {
        match self.open_folder()? {
            Some(folder) => self.look_in(&folder).map_err(self.io()),
            None => Ok(Existing::Nothing),
        }
    }

    /// The folder of the output. None when it does not exist yet.
    fn open_folder(&self) -> Result<Option<Dir>, OutputError> {
        let dir = match self.ctx.data_dir().dir() {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(self.io())?,
        };
        let real = self.real_folder(dir)?;

        if real.as_os_str().is_empty() {
            return dir.try_clone().map(Some).map_err(self.io());
        }
        match dir.open_dir(&real) {
            Ok(folder) => Ok(Some(folder)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.describe(error)),
        }
    }

    fn look_in(&self, folder: &Dir) -> io::Result<Existing> {
        let target = self.file_name();
        let metadata = match folder.symlink_metadata(target) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Existing::Nothing),
            metadata => metadata?,
        };

        if metadata.is_dir() {
            return Err(ErrorKind::IsADirectory.into());
        }
        // A pipe or a device is nobody's output.
        if !metadata.is_file() && !metadata.is_symlink() {
            return Ok(Existing::Foreign);
        }
        if self.overwrite {
            return Ok(Existing::Replaceable);
        }
        if metadata.is_symlink() {
            return Ok(Existing::Foreign);
        }

        // A file that cannot be read tells nothing.
        let Ok(file) = folder.open(target) else {
            return Ok(Existing::Foreign);
        };
        Ok(self.judge(&file.into_std()))
    }

    /// Whether this operation may replace `file`, by its mark.
    fn judge(&self, file: &File) -> Existing {
        let lineage = self.ctx.lineage();
        let repeated = self.ctx.attempt() > 1 || lineage.repeats;
        let (Ok(mark), Ok(metadata)) = (read_mark(file), file.metadata()) else {
            return Existing::Unknown;
        };

        match mark {
            Some(mark) if !mark.holds(&self.name, &metadata) => Existing::Foreign,
            Some(mark) => {
                let own = mark.operation_id == *self.ctx.operation_id();
                let of_type = mark.worker_type == lineage.worker_type;
                let family = lineage.repeats && mark.parameters == self.parameters_digest();
                let derived = self.named_by == NamedBy::Engine && mark.derived;

                if of_type && (own || family || derived) {
                    Existing::Replaceable
                } else {
                    Existing::Foreign
                }
            }
            None if repeated => Existing::Unknown,
            None => Existing::Foreign,
        }
    }

    fn holds_the_same(&self, temporary: &Temporary<'_>, folder: &Dir) -> Result<bool, OutputError> {
        let theirs = folder.open(self.file_name()).map_err(self.io())?;
        let ours = temporary.folder.open(&temporary.name).map_err(self.io())?;
        same_bytes(&theirs.into_std(), &ours.into_std()).map_err(self.io())
    }

    /// Marks a complete file as written by this operation.
    fn mark(&self, file: &File) -> io::Result<()> {
        let metadata = file.metadata()?;
        let lineage = self.ctx.lineage();
        let mark = Mark {
            operation_id: self.ctx.operation_id().clone(),
            worker_type: lineage.worker_type.to_string(),
            parameters: self.parameters_digest(),
            derived: self.named_by == NamedBy::Engine,
            name: self.name.clone(),
            len: metadata.len(),
            modified: metadata.mtime(),
        };

        // Without a mark only the next run of this operation has more work: it compares.
        if let Err(error) = fsetxattr(file, MARK, &serde_json::to_vec(&mark)?, XattrFlags::empty())
        {
            tracing::debug!(%error, output = self.name, "the file system keeps no mark on an output");
        }
        Ok(())
    }

    fn parameters_digest(&self) -> String {
        let digest = Sha256::digest(self.ctx.lineage().parameters.get());
        digest.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

/// The file that is called `name` in `folder`.
fn identity_in(folder: &Dir, name: &OsStr) -> io::Result<Option<Identity>> {
    use cap_std::fs::MetadataExt;

    match folder.symlink_metadata(name) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        metadata => {
            let metadata = metadata?;
            Ok(Some((
                metadata.dev(),
                metadata.ino(),
                metadata.len(),
                metadata.mtime(),
                metadata.mtime_nsec(),
            )))
        }
    }
}

fn same_bytes(mut one: &File, mut other: &File) -> io::Result<bool> {
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }

    let (mut left, mut right) = (vec![0; CHUNK], vec![0; CHUNK]);
    loop {
        let read = one.read(&mut left)?;
        if read == 0 {
            return Ok(true);
        }

        other.read_exact(&mut right[..read])?;
        if left[..read] != right[..read] {
            return Ok(false);
        }
    }
}

#[cfg(test)]
mod tests;
