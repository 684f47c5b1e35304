//! Where a later attempt goes on: saving that now and then, and finding it again.
//!
//! A checkpoint in JetStream is small and names a state file, which may be large, and a length of the table written so far,
//! which no attempt changes below that length. Whatever of this is gone or does not fit means that the run starts from the
//! beginning: then it only takes longer.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};

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

/// Goes up when checkpoints or states are written differently, or rows are worked on differently: no attempt goes on from what
/// another version of the worker left.
const FORMAT: u32 = 2;

/// What JetStream keeps.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Checkpoint {
    format: u32,
    /// SHA-256 of the request.
    request: String,
    source: Fingerprint,
    /// The operation and the attempt whose files these are.
    operation_id: OperationId,
    attempt: u32,
    position: Position,
    /// How much of the attempt's table is written.
    output_len: u64,
    state: StateFile,
    /// Operations that were resumed to get here, whose files are of use until this one completes.
    resumed: BTreeSet<OperationId>,
}

/// A state file and what must be in it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StateFile {
    number: u64,
    len: u64,
    sha256: String,
}

/// Why there is no checkpoint where there should be one.
enum SaveError {
    /// The table cannot be written, so the run cannot go on.
    Output(DataError),
    /// The state cannot be written: a later checkpoint may do better.
    State(io::Error),
}

impl From<io::Error> for SaveError {
    fn from(error: io::Error) -> Self {
        Self::State(error)
    }
}

/// Saves checkpoints of one run, and finds the one to go on from.
pub(super) struct CheckpointSaver<'a> {
    ctx: &'a Context,
    pub(super) files: AttemptFiles,
    request: String,
    source: Fingerprint,
    last: Option<Checkpoint>,
    resumed: BTreeSet<OperationId>,
    /// Whether it is of use to try.
    enabled: bool,
}

impl<'a> CheckpointSaver<'a> {
    /// For a run of `request` on `source`.
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
            resumed.remove(ctx.operation_id());
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

    /// Brings `plan` and `output`, which have seen no row, to where an earlier attempt was. Without one they stay as they are;
    /// when it does not fit, `fresh` makes another plan. Then there is no position.
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
                tracing::info!(row, pass, from = %last.operation_id, from_attempt = last.attempt, "going on behind a row");
                Ok((plan, Some(last.position)))
            }
            Err(error) => {
                tracing::warn!(%error, "the checkpoint cannot be gone on from; starting from the beginning");
                output.map_or(Ok(()), OutputTable::truncate)?;
                Ok((fresh()?, None))
            }
        }
    }

    /// Whether it belongs to this very work.
    fn check_fits(&self, last: &Checkpoint, last_pass: usize) -> io::Result<()> {
        let fits = [
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
                "it is of a pass that there is not",
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
        let state = AttemptFiles::state_path(&directory, last.attempt, last.state.number);
        let mut state = BufReader::new(verify_state(
            File::open(state).map_err(describe("state"))?,
            &last.state,
        )?);

        plan.restore(last.position.pass, &mut state)?;

        if state.read(&mut [0])? > 0 {
            return Err(io::Error::other("the state is that of another plan"));
        }

        match output {
            Some(output) if last.output_len > 0 => output
                .copy_from(
                    &AttemptFiles::output_path(&directory, last.attempt),
                    last.output_len,
                )
                .map_err(describe("the table so far")),
            _ => Ok(()),
        }
    }

    /// Saves a checkpoint when it is time to: `plan` and `output` are as the rows up to `position` left them.
    pub(super) fn save(
        &mut self,
        plan: &Plan,
        position: Position,
        output: Option<&mut OutputTable>,
    ) -> Result<(), DataError> {
        if !self.enabled {
            return Ok(());
        }

        match self
            .ctx
            .try_checkpoint_with(|number| self.build_checkpoint(number, plan, position, output))
        {
            Ok(()) => Ok(()),
            Err(SaveError::Output(error)) => Err(error),
            Err(SaveError::State(error)) => {
                // A full disk may have room again. A directory that cannot be written to stays so; and one that is gone was removed
                // because another attempt has completed the operation.
                use io::ErrorKind::{NotFound, PermissionDenied, ReadOnlyFilesystem};
                self.enabled = !matches!(
                    error.kind(),
                    NotFound | PermissionDenied | ReadOnlyFilesystem
                );
                tracing::warn!(%error, try_again = self.enabled, "no checkpoint: the state cannot be written");
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
        // What is known to be saved is never before what an earlier checkpoint named.
        match self.ctx.saved_checkpoint() {
            0 => {}
            saved => self.files.remove_superseded(saved),
        }

        // The table first: a length that is not on the disk may not be named.
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

    /// The operation is done: no file of it is of use any more, nor of those it went on from.
    pub(super) fn complete(self) {
        for id in &self.resumed {
            let _ = fs::remove_dir_all(operation_directory(self.ctx.data_dir(), id));
        }
        self.files.complete();
    }
}

/// The state file from its beginning, if there is in it what there must be.
fn verify_state(mut file: File, wanted: &StateFile) -> io::Result<File> {
    let mut hash = Sha256::new();
    let len = io::copy(&mut file, &mut hash)?;
    if len != wanted.len || format!("{:x}", hash.finalize()) != wanted.sha256 {
        return Err(io::Error::other("the state is damaged"));
    }
    file.rewind()?;
    Ok(file)
}

/// Says of an error what it is about.
fn describe(what: &'static str) -> impl FnOnce(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{what}: {error}"))
}

/// Writes to a file and hashes what it writes.
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
