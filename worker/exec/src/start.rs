//! What happens in the new process before the program begins.
//!
//! The problem: a program of a worker must end with the worker, also after `kill -9`; its memory is to
//! be limited; and its messages must not mix with what it prints. All three are set in the new process,
//! between fork and exec, where only unsafe code could run.
//!
//! How it is solved: the worker starts itself again with [`MARK`]. [`become_program`] sets up its own
//! process and then becomes the program. The process id stays the same.

use std::env::ArgsOs;
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::process::{Resource, Rlimit, getppid, setrlimit};

use crate::guard;

/// The first argument of a process that is to become a program.
const MARK: &str = "--become-program";

/// Exit code of a program that is there and cannot be started, as in a shell.
pub(crate) const NOT_STARTED: u8 = 126;

/// Exit code when there is no such program, as in a shell.
pub(crate) const NOT_FOUND: u8 = 127;

/// How the program and the worker are connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pipes {
    /// Messages have descriptors of their own. Standard input is empty, and standard output is
    /// standard error.
    Messages,
    /// Standard input and output are the worker's.
    Standard,
}

/// A program, as the worker starts it.
#[derive(Debug, Clone)]
pub(crate) struct Start {
    pub(crate) words: Vec<String>,
    pub(crate) pipes: Pipes,
    /// Bytes of address space.
    pub(crate) memory: Option<u64>,
}

impl Start {
    /// The command that starts the program by way of [`become_program`].
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(own_program());
        command
            .arg0("ktrdr-worker")
            .arg(MARK)
            .arg(std::process::id().to_string())
            .arg(self.memory.unwrap_or(0).to_string())
            .arg(match self.pipes {
                Pipes::Messages => "messages",
                Pipes::Standard => "standard",
            })
            .args(&self.words);
        command
    }
}

/// This program. The link is still right when the file was replaced meanwhile.
pub(crate) fn own_program() -> PathBuf {
    let link = PathBuf::from("/proc/self/exe");
    if link.exists() {
        return link;
    }
    std::env::current_exe().unwrap_or_else(|_| PathBuf::from("ktrdr-worker"))
}

/// Does what a worker has started this process for: becomes its program, or guards its programs. Returns
/// how that ended; `None` when this is no such process. Call it first in `main`.
pub fn helper_process() -> Option<ExitCode> {
    let mut arguments = std::env::args_os();
    arguments.next();
    let mark = arguments.next()?;
    if mark == MARK {
        Some(become_program(arguments))
    } else if mark == guard::MARK {
        Some(guard::stand())
    } else {
        None
    }
}

/// Returns only when the program could not be started.
fn become_program(arguments: ArgsOs) -> ExitCode {
    let (error, code) = match prepare(arguments) {
        Ok((mut command, _inherited)) => {
            let error = command.exec();
            not_started(&command.get_program().to_string_lossy(), &error)
        }
        Err(error) => (
            format!("cannot prepare the process of the program: {error}"),
            NOT_STARTED,
        ),
    };
    // The worker reads it, while there is one.
    let _ = writeln!(io::stderr(), "{error}");
    ExitCode::from(code)
}

/// Why a program could not be started, for people, and the exit code that says so.
fn not_started(program: &str, error: &io::Error) -> (String, u8) {
    match error.kind() {
        io::ErrorKind::NotFound => (format!("cannot start {program}: {error}"), NOT_FOUND),
        io::ErrorKind::PermissionDenied => (
            format!(
                "cannot start {program}: it is not executable: chmod +x {program}, or give its interpreter, as in `python3 {program}`"
            ),
            NOT_STARTED,
        ),
        _ => (format!("cannot start {program}: {error}"), NOT_STARTED),
    }
}

/// Sets up this process. Returns the program, and what it inherits.
fn prepare(mut arguments: ArgsOs) -> io::Result<(Command, Vec<OwnedFd>)> {
    let mut next = || {
        arguments
            .next()
            .ok_or_else(|| io::Error::other("an argument is missing"))
    };
    let parent = number(&next()?)?;
    let memory = number(&next()?)?;
    let pipes = next()?;
    let mut command = Command::new(next()?);
    command.args(arguments);

    end_with(parent)?;
    if memory > 0 {
        let limit = Rlimit {
            current: Some(memory),
            maximum: Some(memory),
        };
        setrlimit(Resource::As, limit)?;
    }

    let mut inherited = Vec::new();
    if pipes == "messages" {
        let input = inheritable(io::stdin())?;
        let output = inheritable(io::stdout())?;
        rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
        rustix::stdio::dup2_stdout(io::stderr())?;
        command
            .env("KTRDR_EXEC_IN", input.as_raw_fd().to_string())
            .env("KTRDR_EXEC_OUT", output.as_raw_fd().to_string());
        inherited.extend([input, output]);
    }
    Ok((command, inherited))
}

fn number(text: &OsString) -> io::Result<u64> {
    let text = text.to_string_lossy();
    text.parse()
        .map_err(|_| io::Error::other(format!("{text:?} is no number")))
}

/// Another descriptor of the same file, not one of the standard ones, that the program has, too.
fn inheritable(file: impl AsFd) -> io::Result<OwnedFd> {
    let copy = fcntl_dupfd_cloexec(file, 3)?;
    fcntl_setfd(&copy, FdFlags::empty())?;
    Ok(copy)
}

/// Has the system kill this process when the worker ends.
fn end_with(parent: u64) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;

    // The worker may have ended before.
    let is_alive =
        getppid().is_some_and(|found| u64::try_from(found.as_raw_nonzero().get()) == Ok(parent));
    if is_alive {
        Ok(())
    } else {
        Err(io::Error::other("the worker has ended"))
    }
}
