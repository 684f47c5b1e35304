//! The files of operations that have not completed: `.unfinished/<operation id>/` in the data directory.
//!
//! `<attempt>.csv` is the table as far as that attempt has written it, `<attempt>.<number>.state` what its operations had learnt
//! and counted at a checkpoint. An attempt writes only its own files and removes only its own and those of earlier attempts:
//! another one may be at work in the same directory, because it has taken over or because it does not know yet that it lost.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use ktrdr_worker::OperationId;

use ktrdr_worker::DataDir;

/// The directory in the data directory.
pub(super) const UNFINISHED: &str = ".unfinished";

/// How long files are kept that nobody comes back for: as long as checkpoints by default (`KTRDR_RETENTION`).
const MAX_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// How often a directory is made again that others remove because it is empty.
const DIRECTORY_TRIES: usize = 100;

/// The files of one attempt. Dropped, it removes those that nobody will ask for.
pub(super) struct AttemptFiles {
    directory: PathBuf,
    attempt: u32,
    directory_made: bool,
    on_drop: OnDrop,
}

/// What shall become of the files.
enum OnDrop {
    /// No checkpoint names them: they go.
    RemoveOwn,
    /// A checkpoint names them: they stay.
    Keep,
    /// The operation is done: those of earlier attempts go, too.
    RemoveAll,
}

impl AttemptFiles {
    /// The files of an attempt that begins. What is left of others goes, unless the operation has a checkpoint
    /// (`has_checkpoint`): they died before they had saved one.
    pub(super) fn open(
        data_dir: &DataDir,
        id: &OperationId,
        attempt: u32,
        has_checkpoint: bool,
    ) -> Self {
        remove_abandoned(
            &data_dir.root().join(UNFINISHED),
            id.as_str(),
            SystemTime::now(),
        );

        let files = Self::of(data_dir, id, attempt);

        files.remove_files(|file| {
            file.attempt == attempt || (file.attempt < attempt && !has_checkpoint)
        });
        files
    }

    fn of(data_dir: &DataDir, id: &OperationId, attempt: u32) -> Self {
        let directory = operation_directory(data_dir, id);
        Self {
            directory,
            attempt,
            directory_made: false,
            on_drop: OnDrop::RemoveOwn,
        }
    }

    /// Where attempt `attempt` writes its table.
    pub(super) fn output_path(directory: &Path, attempt: u32) -> PathBuf {
        directory.join(format!("{attempt}.csv"))
    }

    /// Where attempt `attempt` writes the state of its checkpoint `number`.
    pub(super) fn state_path(directory: &Path, attempt: u32, number: u64) -> PathBuf {
        directory.join(format!("{attempt}.{number}.state"))
    }

    /// Begins the table; also says where it is.
    pub(super) fn create_output(&mut self) -> io::Result<(File, PathBuf)> {
        let path = Self::output_path(&self.directory, self.attempt);
        Ok((self.create(&path)?, path))
    }

    /// Begins the state of checkpoint `number`.
    pub(super) fn create_state(&mut self, number: u64) -> io::Result<File> {
        self.create(&Self::state_path(&self.directory, self.attempt, number))
    }

    /// A checkpoint names these files: from now on they stay.
    pub(super) fn keep(&mut self) {
        self.on_drop = OnDrop::Keep;
    }

    /// Checkpoint `number` could not be made.
    pub(super) fn discard(&self, number: u64) {
        let _ = fs::remove_file(Self::state_path(&self.directory, self.attempt, number));
    }

    /// Makes the directory once: one that is gone later was removed by an attempt that completed the operation.
    fn create(&mut self, path: &Path) -> io::Result<File> {
        let mut tries = if self.directory_made {
            1
        } else {
            DIRECTORY_TRIES
        };

        loop {
            if !self.directory_made {
                match fs::create_dir_all(&self.directory) {
                    Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }

            tries -= 1;

            match File::create_new(path) {
                Err(error) if error.kind() == ErrorKind::NotFound && tries > 0 => {}
                created => {
                    self.directory_made |= created.is_ok();
                    return created;
                }
            }
        }
    }

    /// Checkpoint `number` is saved: what earlier ones named is not needed any more.
    pub(super) fn remove_superseded(&self, number: u64) {
        let own = |file: FileName| {
            file.attempt == self.attempt && file.number.is_some_and(|other| other < number)
        };
        self.remove_files(|file| file.attempt < self.attempt || own(file));
    }

    /// The operation is done.
    pub(super) fn complete(mut self) {
        self.on_drop = OnDrop::RemoveAll;
    }

    /// Removes the files that are `unneeded`. One that cannot be removed goes when it is old.
    fn remove_files(&self, unneeded: impl Fn(FileName) -> bool) {
        for entry in fs::read_dir(&self.directory)
            .into_iter()
            .flatten()
            .flatten()
        {
            let name = entry.file_name();
            if name
                .to_str()
                .and_then(FileName::parse)
                .is_some_and(&unneeded)
            {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

impl Drop for AttemptFiles {
    fn drop(&mut self) {
        match self.on_drop {
            OnDrop::RemoveOwn => self.remove_files(|file| file.attempt == self.attempt),
            OnDrop::Keep => return,
            OnDrop::RemoveAll => self.remove_files(|file| file.attempt <= self.attempt),
        }
        // These fail when something is in them that somebody needs.
        let _ = fs::remove_dir(&self.directory);
        let _ = self.directory.parent().map(fs::remove_dir);
    }
}

/// The directory of an operation's files.
pub(super) fn operation_directory(data_dir: &DataDir, id: &OperationId) -> PathBuf {
    data_dir.root().join(UNFINISHED).join(id.as_str())
}

/// What the name of a file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileName {
    attempt: u32,
    /// Of a state, the number of its checkpoint.
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

/// Removes what was left of operations that nobody went on with, other than `own`. Sweeping must not keep a run from its work:
/// what goes wrong is left to the next one.
fn remove_abandoned(unfinished: &Path, own: &str, now: SystemTime) {
    let is_old = |path: &Path| {
        let modified = path.metadata().and_then(|metadata| metadata.modified());
        modified.is_ok_and(|modified| now.duration_since(modified).is_ok_and(|age| age > MAX_AGE))
    };

    for entry in fs::read_dir(unfinished).into_iter().flatten().flatten() {
        let path = entry.path();
        let files = || fs::read_dir(&path).into_iter().flatten().flatten();
        if entry.file_name() != own && is_old(&path) && files().all(|file| is_old(&file.path())) {
            tracing::info!(path = %path.display(), "removing what is left of an old operation");
            let _ = fs::remove_dir_all(&path);
        }
    }

    let _ = fs::remove_dir(unfinished);
}

#[cfg(test)]
mod tests {
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
        let there = || names(&operation_directory(&data, &id("a")));
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

        // The zombie is done with what is not its own any more.
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
    fn what_attempts_left_that_saved_no_checkpoint_goes() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::new(dir.path());
        let mut first = AttemptFiles::open(&data, &id("a"), 1, false);
        first.create_output().unwrap();
        std::mem::forget(first);
        drop(AttemptFiles::open(&data, &id("a"), 2, false));
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn what_is_old_is_swept_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["old/1.csv", "old/1.1.state", "young/1.csv", "own/1.csv"] {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }

        let soon = SystemTime::now() + MAX_AGE + Duration::from_secs(60);

        fs::File::open(dir.path().join("young/1.csv"))
            .unwrap()
            .set_modified(soon)
            .unwrap();
        remove_abandoned(dir.path(), "own", SystemTime::now());

        assert_eq!(names(dir.path()), ["old", "own", "young"]);

        remove_abandoned(dir.path(), "own", soon);

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
