//! The temporary name from which a file gets the name of the output.
//!
//! The problem: a worker can be suspended between its last look at the operation's log and the
//! moment when its file gets the name. Its successor completes the operation meanwhile, and must not
//! lose its file when the worker wakes up.
//!
//! How it is solved: the temporary name belongs to one attempt, and the file has it before that look.
//! A later attempt removes the temporary names of all earlier ones, before its work and again before
//! its own file gets the name. So the late attempt either comes before that, and its file is
//! replaced; or it finds its temporary name gone, and fails.
//!
//! Rejected: a lock. A data directory may be on a network file system, where the lock of a
//! suspended worker stays for ever, or is given to another one while it holds it.

use cap_std::fs::Dir;
use ktrdr_protocol::id::OperationId;

use crate::engine::context::Context;

/// The end of temporary names.
const ENDING: &str = ".tmp";

/// The temporary name of an attempt in the folder of its output. Dropping it removes a file that
/// still has it.
pub(super) struct Temporary<'a> {
    pub(super) folder: &'a Dir,
    pub(super) name: String,
}

impl<'a> Temporary<'a> {
    /// The name for the attempt of `ctx`. Nothing in the folder has it, or that of an earlier attempt.
    pub(super) fn of(ctx: &Context, folder: &'a Dir) -> Self {
        shut_out_earlier(ctx, folder);
        let name = name_of(ctx.operation_id(), ctx.attempt());
        // A process that died left it, and the stream has lost its event.
        let _ = folder.remove_file(&name);
        Self { folder, name }
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        let _ = self.folder.remove_file(&self.name);
    }
}

/// Removes the temporary names of earlier attempts, of this operation and of those that it resumes.
/// They have died, or they are late and must not give their file the name any more.
pub(super) fn shut_out_earlier(ctx: &Context, folder: &Dir) {
    for attempt in 1..ctx.attempt() {
        let _ = folder.remove_file(name_of(ctx.operation_id(), attempt));
    }
    if ctx.resumes().is_empty() {
        return;
    }

    // How many attempts those operations had is not known.
    for entry in folder.entries().into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(owner_of);
        if owner.is_some_and(|owner| ctx.resumes().iter().any(|id| id.as_str() == owner)) {
            let _ = folder.remove_file(&name);
        }
    }
}

fn name_of(id: &OperationId, attempt: u32) -> String {
    format!(".{id}.{attempt}{ENDING}")
}

/// The operation whose temporary name this is, if it is one.
fn owner_of(name: &str) -> Option<&str> {
    let parts = name.strip_prefix('.')?.strip_suffix(ENDING)?;
    let (owner, attempt) = parts.rsplit_once('.')?;
    attempt.parse::<u32>().is_ok().then_some(owner)
}
