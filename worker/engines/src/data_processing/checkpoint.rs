//! Checkpoints of a run, and resuming from them.
//!
//! The problem: a run over a large file must not start over when its worker is lost, but its state
//! can be large (every distinct row, every number of a median), and JetStream messages are small.
//! So a checkpoint has three parts, written in this order:
//!
//! 1. the output table so far, synced to disk; the checkpoint names its length;
//! 2. a state file with everything that the operations have learnt and counted; the checkpoint
//!    names its length and SHA-256;
//! 3. the checkpoint itself, less than a kilobyte, in JetStream.
//!
//! No attempt changes a table below a length that a checkpoint names, and each attempt writes only
//! files of its own. An attempt that was lost but still runs can therefore not damage the files of
//! its successor.
//!
//! Others may be able to write checkpoints. So a run uses and removes only files of its own
//! operation and of those that its start request names.
//!
//! A run resumes only when everything fits: the format, the request, the source file, the state and
//! the table. Otherwise it logs the reason and starts from the beginning, which costs time and
//! nothing else. Storing the state in the object store was rejected: it would send hundreds of
//! megabytes over the network for every checkpoint, while the output needs the shared data
//! directory anyway.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::path::Path;

use ktrdr_worker::OperationId;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::DataProcessingRequest;
use super::attempt_files::{AttemptFiles, operation_directory};
use super::error::DataError;
use super::output::OutputTable;
use super::plan::Plan;
use super::progress::Position;
use super::source::{Fingerprint, Source};
use ktrdr_worker::Context;

/// Version of checkpoints and states. Increase it when their form changes or when rows are
/// processed differently: a run never resumes from the checkpoint of another version.
const FORMAT: u32 = 3;

/// The checkpoint that JetStream stores.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Checkpoint {
    format: u32,
    /// SHA-256 of the request.
    request: String,
    source: Fingerprint,
    /// The operation and the attempt that wrote the files.
    operation_id: OperationId,
    attempt: u32,
    position: Position,
    /// Length of the output table of this attempt, in bytes.
    output_len: u64,
    state: StateFile,
    /// Operations that this one was resumed from. Their files stay until this one completes.
    resumed: BTreeSet<OperationId>,
}

/// A state file, and how to recognise that it is intact.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StateFile {
    number: u64,
    len: u64,
    sha256: String,
}

/// Why a checkpoint could not be saved.
enum SaveError {
    /// The output table cannot be written. The run fails.
    Output(DataError),
    /// The state cannot be written. The run continues, and a later checkpoint may succeed.
    State(io::Error),
}

impl From<io::Error> for SaveError {
    fn from(error: io::Error) -> Self {
        Self::State(error)
    }
}

/// Saves the checkpoints of one run and restores the last one of an earlier attempt.
pub(super) struct CheckpointSaver<'a> {
    ctx: &'a Context,
    pub(super) files: AttemptFiles,
    request: String,
    source: Fingerprint,
    last: Option<Checkpoint>,
    resumed: BTreeSet<OperationId>,
    /// False after an error that will not go away.
    enabled: bool,
}

impl<'a> CheckpointSaver<'a> {
    /// Prepares checkpoints for a run of `request` on `source`.
    pub(super) fn new(
        ctx: &'a Context,
        request: &DataProcessingRequest,
        source: &Source,
    ) -> Result<Self, DataError> {
        let request =
            serde_json::to_vec(request).map_err(|error| DataError::Request(error.to_string()))?;
        let last: Option<Checkpoint> = ctx.last_checkpoint();
        let files = AttemptFiles::open(
            ctx.data_dir(),
            ctx.operation_id(),
            ctx.attempt(),
            last.is_some(),
        );
        let mut resumed = BTreeSet::new();

        if let Some(last) = &last {
            resumed.clone_from(&last.resumed);
            resumed.insert(last.operation_id.clone());
            resumed.retain(|id| id != ctx.operation_id() && ctx.resumes().contains(id));
        }

        let (request, source) = (
            format!("{:x}", Sha256::digest(request)),
            source.fingerprint(),
        );

        Ok(Self {
            ctx,
            files,
            request,
            source,
            last,
            resumed,
            enabled: true,
        })
    }

    /// Restores `plan` and `output` from the last checkpoint and returns the position to resume
    /// from.
    ///
    /// Without a checkpoint both stay unchanged and there is no position. When the checkpoint does
    /// not fit, `fresh` makes a new plan, the output is emptied, and there is no position.
    pub(super) fn resume(
        &mut self,
        mut plan: Plan,
        fresh: impl FnOnce() -> Result<Plan, DataError>,
        mut output: Option<&mut OutputTable>,
    ) -> Result<(Plan, Option<Position>), DataError> {
        let Some(last) = self.last.take() else {
            return Ok((plan, None));
        };

        match self
            .check_fits(&last, plan.table.last_pass)
            .and_then(|()| self.restore(&last, &mut plan, output.as_deref_mut()))
        {
            Ok(()) => {
                let (row, pass) = (last.position.rows, last.position.pass + 1);
                tracing::info!(row, pass, from = %last.operation_id, from_attempt = last.attempt, "resuming after a row");
                Ok((plan, Some(last.position)))
            }
            Err(error) => {
                tracing::warn!(%error, "cannot resume from the checkpoint; starting from the beginning");
                output.map_or(Ok(()), OutputTable::truncate)?;
                Ok((fresh()?, None))
            }
        }
    }

    /// Fails unless the checkpoint belongs to this request, source and version.
    fn check_fits(&self, last: &Checkpoint, last_pass: usize) -> io::Result<()> {
        let own = self.ctx.operation_id();
        let fits = [
            (
                last.operation_id == *own || self.ctx.resumes().contains(&last.operation_id),
                "it belongs to an operation that the start request does not name",
            ),
            (
                last.format == FORMAT,
                "it was made by another version of the worker",
            ),
            (
                last.request == self.request,
                "it belongs to another request",
            ),
            (last.source == self.source, "the source file has changed"),
            (
                last.position.pass <= last_pass,
                "its pass does not exist in this plan",
            ),
        ];

        fits.into_iter().try_for_each(|(fits, reason)| {
            if fits {
                Ok(())
            } else {
                Err(io::Error::other(reason))
            }
        })
    }

    fn restore(
        &self,
        last: &Checkpoint,
        plan: &mut Plan,
        output: Option<&mut OutputTable>,
    ) -> io::Result<()> {
        let directory = operation_directory(self.ctx.data_dir(), &last.operation_id);
        let open = |path: &Path| self.ctx.data_dir().open_path(path);
        let state = AttemptFiles::state_path(&directory, last.attempt, last.state.number);
        let mut state = BufReader::new(verify_state(
            open(&state).map_err(describe("state"))?,
            &last.state,
        )?);

        plan.restore(last.position.pass, &mut state)?;

        if state.read(&mut [0])? > 0 {
            return Err(io::Error::other("the state belongs to another plan"));
        }

        match output {
            Some(output) if last.output_len > 0 => {
                open(&AttemptFiles::output_path(&directory, last.attempt))
                    .and_then(|table| output.copy_from(table, last.output_len))
                    .map_err(describe("the table so far"))
            }
            _ => Ok(()),
        }
    }

    /// Saves a checkpoint when one is due. `plan` and `output` reflect all rows up to `position`.
    pub(super) fn save(
        &mut self,
        plan: &Plan,
        position: Position,
        output: Option<&mut OutputTable>,
    ) -> Result<(), DataError> {
        // Rows that an operation holds back are in no state.
        if !self.enabled || plan.holds_rows() {
            return Ok(());
        }

        match self
            .ctx
            .try_checkpoint_with(|number| self.build_checkpoint(number, plan, position, output))
        {
            Ok(()) => Ok(()),
            Err(SaveError::Output(error)) => Err(error),
            Err(SaveError::State(error)) => {
                // A full disk may have room later. A directory without write permission stays so. A
                // directory that is gone was removed by another attempt, which has completed the
                // operation.
                use io::ErrorKind::{NotFound, PermissionDenied, ReadOnlyFilesystem};
                self.enabled = !matches!(
                    error.kind(),
                    NotFound | PermissionDenied | ReadOnlyFilesystem
                );
                tracing::warn!(%error, try_again = self.enabled, "no checkpoint saved: the state cannot be written");
                Ok(())
            }
        }
    }

    fn build_checkpoint(
        &mut self,
        number: u64,
        plan: &Plan,
        position: Position,
        output: Option<&mut OutputTable>,
    ) -> Result<Checkpoint, SaveError> {
        // JetStream has a checkpoint of this attempt: files of older ones are no longer needed.
        match self.ctx.saved_checkpoint() {
            0 => {}
            saved => self.files.remove_superseded(saved),
        }

        // The table comes first: a checkpoint may only name a length that is on the disk.
        let output_len = output
            .map_or(Ok(0), OutputTable::sync)
            .map_err(SaveError::Output)?;
        let state = self
            .write_state(number, plan)
            .inspect_err(|_| self.files.discard(number))?;

        self.files.keep();

        Ok(Checkpoint {
            format: FORMAT,
            request: self.request.clone(),
            source: self.source,
            operation_id: self.ctx.operation_id().clone(),
            attempt: self.ctx.attempt(),
            position,
            output_len,
            state,
            resumed: self.resumed.clone(),
        })
    }

    fn write_state(&mut self, number: u64, plan: &Plan) -> io::Result<StateFile> {
        let hashing = HashingWriter {
            file: self.files.create_state(number)?,
            hash: Sha256::new(),
            len: 0,
        };
        let mut writer = BufWriter::with_capacity(64 * 1024, hashing);

        plan.save(&mut writer)?;

        let HashingWriter { file, hash, len } = writer
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?;

        file.sync_data()?;

        Ok(StateFile {
            number,
            len,
            sha256: format!("{:x}", hash.finalize()),
        })
    }

    /// Removes the files of the completed operation and of the operations it was resumed from.
    pub(super) fn complete(self) {
        for id in &self.resumed {
            let directory = operation_directory(self.ctx.data_dir(), id);
            let _ = self
                .ctx
                .data_dir()
                .dir()
                .and_then(|dir| dir.remove_dir_all(directory));
        }
        self.files.complete();
    }
}

/// Checks the length and hash of a state file and returns it, rewound.
fn verify_state(mut file: File, wanted: &StateFile) -> io::Result<File> {
    let mut hash = Sha256::new();
    let len = io::copy(&mut file, &mut hash)?;
    if len != wanted.len || format!("{:x}", hash.finalize()) != wanted.sha256 {
        return Err(io::Error::other("the state is damaged"));
    }
    file.rewind()?;
    Ok(file)
}

/// Puts the name of the object before the message of an error.
fn describe(what: &'static str) -> impl FnOnce(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{what}: {error}"))
}

/// Writes to a file, counts the bytes and hashes them.
struct HashingWriter {
    file: File,
    hash: Sha256,
    len: u64,
}

impl Write for HashingWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.len += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
