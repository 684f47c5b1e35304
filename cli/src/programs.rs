//! Finding the other programs of this release, and Python.

use std::path::PathBuf;

use crate::failure::Failure;

/// A program of this release: beside this one, or in PATH.
///
/// # Errors
/// [`Failure::Dev`] when it is nowhere.
pub fn find(name: &str) -> Result<PathBuf, Failure> {
    let beside = std::env::current_exe()?;
    let neighbour = beside.with_file_name(name);
    if neighbour.is_file() {
        return Ok(neighbour);
    }
    in_path(name).ok_or_else(|| {
        Failure::Dev(format!(
            "{name} was not found beside {} or in PATH; build it with `cargo build --release --bins`",
            beside.display()
        ))
    })
}

/// A program in the directories of PATH.
pub fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join(name))
        .find(|program| program.is_file())
}

/// The Python that belongs to this program: that of the environment into which pip installed it, of the active environment, or in
/// PATH.
///
/// # Errors
/// [`Failure::Dev`] when there is none.
pub fn python() -> Result<PathBuf, Failure> {
    let beside = std::env::current_exe()?.with_file_name("python3");
    let active =
        std::env::var_os("VIRTUAL_ENV").map(|path| PathBuf::from(path).join("bin/python3"));
    [Some(beside), active]
        .into_iter()
        .flatten()
        .find(|path| path.is_file())
        .or_else(|| in_path("python3"))
        .ok_or_else(|| Failure::Dev("python3 was not found in PATH".to_owned()))
}
