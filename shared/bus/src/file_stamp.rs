//! Whether a file has changed since it was read.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The state of one file behind all links. Two equal ones mean the same contents: the time of
/// change is set by every write, rename and change of the mode, and programs cannot set it back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileStamp {
    device: u64,
    inode: u64,
    length: u64,
    changed: (i64, i64),
}

impl FileStamp {
    /// The state of the file now.
    ///
    /// # Errors
    /// When the file is not there, or cannot be looked at.
    pub fn of(path: &Path) -> std::io::Result<Self> {
        std::fs::metadata(path).map(Self::from)
    }
}

impl From<Metadata> for FileStamp {
    fn from(file: Metadata) -> Self {
        Self {
            device: file.dev(),
            inode: file.ino(),
            length: file.size(),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_the_same_length_and_time_in_its_place_is_another_state() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("keys"), folder.path().join("new"));
        std::fs::write(&path, "one").unwrap();
        let before = FileStamp::of(&path).unwrap();
        assert_eq!(FileStamp::of(&path).unwrap(), before);

        std::fs::write(&other, "two").unwrap();
        let modified = path.metadata().unwrap().modified().unwrap();
        let file = std::fs::File::options().write(true).open(&other).unwrap();
        file.set_modified(modified).unwrap();
        std::fs::rename(&other, &path).unwrap();

        assert_ne!(FileStamp::of(&path).unwrap(), before);
    }
}
