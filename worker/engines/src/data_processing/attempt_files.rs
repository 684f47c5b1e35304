//! The files of operations that have not completed: `.unfinished/<operation id>/` in the data
//! directory.
//!
//! `<attempt>.csv` is the output table so far of that attempt. `<attempt>.<number>.state` is the
//! state of the operations at one of its checkpoints.
//!
//! The problem: two attempts of one operation can run at the same time, because an attempt that was
//! lost may not know it yet. They share the directory. So an attempt writes only its own files, and
//! removes only its own files and files of earlier attempts. When an attempt has completed the
//! operation and removed the directory, no other attempt creates it again. Locks were rejected: a
//! data directory may be on a network file system, where the lock of a dead worker can outlive it.
//!
//! Files that no attempt comes back for are removed by the first run that finds them older than
//! seven days.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use cap_std::fs::{Dir, OpenOptions};
use ktrdr_worker::{DataDir, OperationId};

/// Name of the directory, inside the directory of outputs.
const UNFINISHED: &str = ".unfinished";

/// Age after which abandoned files are removed: the default retention of checkpoints
/// (`KTRDR_RETENTION`).
const MAX_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Attempts to create the directory. Other runs may remove it while it is empty.
const DIRECTORY_TRIES: usize = 100;

/// The files of one attempt. Dropping it removes the files that are no longer needed.
pub(super) struct AttemptFiles {
    data_dir: DataDir,
    /// Relative to the data directory, like all paths here.
    directory: PathBuf,
    attempt: u32,
    directory_made: bool,
    on_drop: OnDrop,
}

/// Which files to remove on drop.
enum OnDrop {
    /// No checkpoint names a file of this attempt: remove its files.
    RemoveOwn,
    /// A checkpoint names them: keep all files.
    Keep,
    /// The operation has completed: remove the files of this and of earlier attempts.
    RemoveAll,
}

impl AttemptFiles {
    /// Prepares the files of a new attempt.
    ///
    /// Removes what earlier attempts left, unless the operation has a checkpoint that may name
    /// those files (`has_checkpoint`).
    pub(super) fn open(
        data_dir: &DataDir,
        id: &OperationId,
        attempt: u32,
        has_checkpoint: bool,
    ) -> Self {
        if let Ok(dir) = data_dir.dir() {
            let unfinished = data_dir.outputs().join(UNFINISHED);
            remove_abandoned(dir, &unfinished, id.as_str(), SystemTime::now());
        }

        let files = Self::of(data_dir, id, attempt);

        files.remove_files(|file| {
            file.attempt == attempt || (file.attempt < attempt && !has_checkpoint)
        });
        files
    }

    fn of(data_dir: &DataDir, id: &OperationId, attempt: u32) -> Self {
        let directory = operation_directory(data_dir, id);
        Self {
            data_dir: data_dir.clone(),
            directory,
            attempt,
            directory_made: false,
            on_drop: OnDrop::RemoveOwn,
        }
    }

    /// The path of the table of attempt `attempt`.
    pub(super) fn output_path(directory: &Path, attempt: u32) -> PathBuf {
        directory.join(format!("{attempt}.csv"))
    }

    /// The path of the state of checkpoint `number` of attempt `attempt`.
    pub(super) fn state_path(directory: &Path, attempt: u32, number: u64) -> PathBuf {
        directory.join(format!("{attempt}.{number}.state"))
    }

    /// Creates the table; also returns its path.
    pub(super) fn create_output(&mut self) -> io::Result<(File, PathBuf)> {
        let path = Self::output_path(&self.directory, self.attempt);
        Ok((self.create(&path)?, path))
    }

    /// Creates the state file of checkpoint `number`.
    pub(super) fn create_state(&mut self, number: u64) -> io::Result<File> {
        self.create(&Self::state_path(&self.directory, self.attempt, number))
    }

    /// The data directory.
    pub(super) fn data_dir(&self) -> &DataDir {
        &self.data_dir
    }

    /// Keeps the files from now on, because a checkpoint names them.
    pub(super) fn keep(&mut self) {
        self.on_drop = OnDrop::Keep;
    }

    /// Removes the state file of checkpoint `number`, which failed.
    pub(super) fn discard(&self, number: u64) {
        self.remove_file(&Self::state_path(&self.directory, self.attempt, number));
    }

    /// Creates a file, and the directory if this is the first file. A directory that is gone later
    /// was removed by an attempt that completed the operation, and is not created again.
    fn create(&mut self, path: &Path) -> io::Result<File> {
        let dir = self.data_dir.dir()?;
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        let mut tries = if self.directory_made {
            1
        } else {
            DIRECTORY_TRIES
        };

        loop {
            if !self.directory_made {
                match dir.create_dir_all(&self.directory) {
                    Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }

            tries -= 1;

            match dir.open_with(path, &options) {
                Err(error) if error.kind() == ErrorKind::NotFound && tries > 0 => {}
                created => {
                    self.directory_made |= created.is_ok();
                    return created.map(cap_std::fs::File::into_std);
                }
            }
        }
    }

    /// Removes the files of earlier attempts and checkpoints, because checkpoint `number` is saved.
    pub(super) fn remove_superseded(&self, number: u64) {
        let own = |file: FileName| {
            file.attempt == self.attempt && file.number.is_some_and(|other| other < number)
        };
        self.remove_files(|file| file.attempt < self.attempt || own(file));
    }

    /// Removes all files on drop, because the operation has completed.
    pub(super) fn complete(mut self) {
        self.on_drop = OnDrop::RemoveAll;
    }

    /// Removes the files that are `unneeded`. A file that cannot be removed now is removed when it
    /// is old.
    fn remove_files(&self, unneeded: impl Fn(FileName) -> bool) {
        let entries = self
            .data_dir
            .dir()
            .and_then(|dir| dir.read_dir(&self.directory));
        for entry in entries.into_iter().flatten().flatten() {
            let name = entry.file_name();
            if name
                .to_str()
                .and_then(FileName::parse)
                .is_some_and(&unneeded)
            {
                self.remove_file(&self.directory.join(name));
            }
        }
    }

    fn remove_file(&self, path: &Path) {
        let _ = self.data_dir.dir().and_then(|dir| dir.remove_file(path));
    }
}

impl Drop for AttemptFiles {
    fn drop(&mut self) {
        match self.on_drop {
            OnDrop::RemoveOwn => self.remove_files(|file| file.attempt == self.attempt),
            OnDrop::Keep => return,
            OnDrop::RemoveAll => self.remove_files(|file| file.attempt <= self.attempt),
        }
        // These fail when the directories still hold files, which somebody needs.
        if let Ok(dir) = self.data_dir.dir() {
            let _ = dir.remove_dir(&self.directory);
            let _ = self.directory.parent().map(|parent| dir.remove_dir(parent));
        }
    }
}

/// The directory of an operation's files, relative to the data directory.
pub(super) fn operation_directory(data_dir: &DataDir, id: &OperationId) -> PathBuf {
    data_dir.outputs().join(UNFINISHED).join(id.as_str())
}

/// The parts of a file name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileName {
    attempt: u32,
    /// The number of the checkpoint; none for a table.
    number: Option<u64>,
}

impl FileName {
    fn parse(name: &str) -> Option<Self> {
        let (attempt, rest) = name.split_once('.')?;
        let number = match rest {
            "csv" => None,
            state => Some(state.strip_suffix(".state")?.parse().ok()?),
        };
        Some(Self {
            attempt: attempt.parse().ok()?,
            number,
        })
    }
}

/// Removes old files of all operations except `own`. Errors are ignored: they must not stop this
/// run, and the next run tries again.
fn remove_abandoned(dir: &Dir, unfinished: &Path, own: &str, now: SystemTime) {
    let is_old = |path: &Path| {
        let modified = dir
            .symlink_metadata(path)
            .and_then(|metadata| metadata.modified());
        modified.is_ok_and(|modified| {
            now.duration_since(modified.into_std())
                .is_ok_and(|age| age > MAX_AGE)
        })
    };
    let names = |path: &Path| {
        let entries = dir.read_dir(path).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name()).collect::<Vec<_>>()
    };

    for name in names(unfinished) {
        let path = unfinished.join(&name);
        let files_are_old = || names(&path).iter().all(|file| is_old(&path.join(file)));
        if name != own && is_old(&path) && files_are_old() {
            tracing::info!(path = %path.display(), "removing the files of an abandoned operation");
            let _ = dir.remove_dir_all(&path);
        }
    }

    let _ = dir.remove_dir(unfinished);
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn id(name: &str) -> OperationId {
        OperationId::new(name).unwrap()
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn an_attempt_removes_its_own_files_and_those_of_earlier_ones() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::new(dir.path());
        let there = || names(&dir.path().join(operation_directory(&data, &id("a"))));
        let mut first = AttemptFiles::open(&data, &id("a"), 1, false);

        first.create_output().unwrap();
        (1..=4).for_each(|number| drop(first.create_state(number).unwrap()));
        first.discard(4);

        let mut second = AttemptFiles::open(&data, &id("a"), 2, true);

        second.create_output().unwrap();
        first.remove_superseded(2);

        assert_eq!(there(), ["1.2.state", "1.3.state", "1.csv", "2.csv"]);

        drop(second);

        assert_eq!(there(), ["1.2.state", "1.3.state", "1.csv"]);

        let mut third = AttemptFiles::open(&data, &id("a"), 3, true);

        third.create_output().unwrap();
        third.create_state(1).unwrap();
        third.keep();

        // The lost attempt completes late: it does not touch the files of its successor.
        first.complete();

        assert_eq!(there(), ["3.1.state", "3.csv"]);

        drop(third);

        assert_eq!(there(), ["3.1.state", "3.csv"]);

        AttemptFiles::open(&data, &id("a"), 4, true).complete();

        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn a_directory_that_was_removed_is_not_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::new(dir.path());
        let mut zombie = AttemptFiles::open(&data, &id("a"), 1, false);

        zombie.create_output().unwrap();
        AttemptFiles::open(&data, &id("a"), 2, true).complete();

        assert_eq!(
            zombie.create_state(1).unwrap_err().kind(),
            ErrorKind::NotFound
        );

        drop(zombie);

        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn files_of_attempts_without_a_checkpoint_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::new(dir.path());
        let mut first = AttemptFiles::open(&data, &id("a"), 1, false);
        first.create_output().unwrap();
        std::mem::forget(first);
        drop(AttemptFiles::open(&data, &id("a"), 2, false));
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn only_old_files_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["old/1.csv", "old/1.1.state", "young/1.csv", "own/1.csv"] {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }

        let soon = SystemTime::now() + MAX_AGE + Duration::from_secs(60);

        File::open(dir.path().join("young/1.csv"))
            .unwrap()
            .set_modified(soon)
            .unwrap();
        let data = DataDir::new(dir.path());
        let sweep = |now| remove_abandoned(data.dir().unwrap(), Path::new("."), "own", now);

        sweep(SystemTime::now());

        assert_eq!(names(dir.path()), ["old", "own", "young"]);

        sweep(soon);

        assert_eq!(names(dir.path()), ["own", "young"]);
    }

    #[test]
    fn names_of_files() {
        let name = |attempt, number| Some(FileName { attempt, number });
        assert_eq!(FileName::parse("12.csv"), name(12, None));
        assert_eq!(FileName::parse("3.45.state"), name(3, Some(45)));
        for other in ["x.csv", "1.state", "1.x.state", "1", "1.csv.tmp", ""] {
            assert_eq!(FileName::parse(other), None, "{other}");
        }
    }
}
