//! Children that end with this process, also after `kill -9`.
//!
//! The system can be told so only in the new process, between fork and exec, where only unsafe code could
//! run. So this program starts itself again with [`MARK`], has the system told, and becomes the program.
//! The process id stays the same.

use std::env::ArgsOs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::ExitCode;

use rustix::process::getppid;
use tokio::process::Command;

use crate::text::complain;

/// The first argument of a process that is to become a program.
const MARK: &str = "--become-program";

/// The command that starts a program by way of [`become_program`].
pub fn command(program: &Path) -> Command {
    let own = std::env::current_exe().unwrap_or_else(|_| "ktrdr".into());
    let mut command = Command::new(own);
    command
        .arg(MARK)
        .arg(std::process::id().to_string())
        .arg(program);
    command
}

/// Becomes the program for which this process was started. Returns only when that fails; `None` when this
/// is no such process. Call it first in `main`.
pub fn become_program() -> Option<ExitCode> {
    let mut arguments = std::env::args_os();
    arguments.next();
    if arguments.next()? != MARK {
        return None;
    }
    let error = replace(arguments);
    complain(&format!("cannot become the program: {error}"));
    Some(ExitCode::from(127))
}

/// Returns only an error.
fn replace(mut arguments: ArgsOs) -> io::Error {
    let missing = || io::Error::other("an argument is missing");
    let (Some(parent), Some(program)) = (arguments.next(), arguments.next()) else {
        return missing();
    };
    if let Err(error) = end_with(&parent.to_string_lossy()) {
        return error;
    }
    std::process::Command::new(program).args(arguments).exec()
}

/// Has the system kill this process when its parent ends.
fn end_with(parent: &str) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;

    // It may have ended before.
    let found = getppid().map(|found| found.as_raw_nonzero().get().to_string());
    match found.as_deref() == Some(parent) {
        true => Ok(()),
        false => Err(io::Error::other("ktrdr dev has ended")),
    }
}
