//! The engine that runs a program: one child per slot, started early and kept.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::FutureExt;
use futures::future::BoxFuture;
use ktrdr_worker::dynamic::{DynEngine, EngineInfo};
use ktrdr_worker::{Context, OperationError};
use serde_json::value::RawValue;
use tokio::sync::OwnedMutexGuard;

use crate::child::{Child, Program, reason};
use crate::conversation::{Speaker, converse};
use crate::lines::{Lines, Overlong};
use crate::message::{self, Describe, MAX_LINE, Message, Start, VERSION, beginning};
use crate::options::ExecOptions;
use crate::slots::Slots;
use crate::start::Pipes;

/// How long a program may take to describe itself: it loads its libraries first.
const DESCRIBE: Duration = Duration::from_secs(120);

/// How long a program that is replaced may take to end by itself.
const RETIRE: Duration = Duration::from_secs(5);

/// Runs a program that speaks the language of `docs/exec.md`.
pub struct ExecEngine {
    info: EngineInfo,
    shared: Arc<Shared>,
}

/// The process of a slot. Whoever starts or uses one holds the lock.
type Place = tokio::sync::Mutex<Option<Speaker>>;

struct Shared {
    program: Program,
    recycle: u64,
    described: Describe,
    slots: Vec<Arc<Place>>,
    free: Slots,
}

impl ExecEngine {
    /// The process ids of the programs that wait for an operation, by slot.
    pub(crate) async fn idle(&self) -> Vec<u32> {
        let mut found = Vec::new();
        for slot in &self.shared.slots {
            found.extend(
                slot.lock()
                    .await
                    .as_ref()
                    .map(|speaker| speaker.child.pid()),
            );
        }
        found
    }

    /// Takes the first idle program out of its slot, and closes its input. Returns whether it ended
    /// within `patience`.
    pub(crate) async fn ends_with_its_input(&self, patience: Duration) -> bool {
        let Some(first) = self.shared.slots.first() else {
            return true;
        };
        let Some(speaker) = first.lock().await.take() else {
            return true;
        };
        let Speaker {
            mut child, input, ..
        } = speaker;
        drop(input);
        tokio::time::timeout(patience, child.wait()).await.is_ok()
    }

    /// Starts the program once per slot. The first one says what the engine is.
    ///
    /// # Errors
    /// When the program cannot be started, or does not describe itself.
    pub async fn start(command: &str, options: &ExecOptions, slots: u32) -> anyhow::Result<Self> {
        let program = Program::new(
            command,
            Pipes::Messages,
            options.exec_memory,
            &options.exec_gpus,
        )?;
        let (described, first) = speaker(&program, 0)
            .await
            .with_context(|| format!("cannot run the program `{command}`"))?;
        let info = info(&described)
            .with_context(|| format!("the program `{command}` describes itself wrongly"))?;

        let slots = usize::try_from(slots).unwrap_or(1).max(1);
        let shared = Arc::new(Shared {
            program,
            recycle: options.exec_recycle,
            described,
            slots: (0..slots).map(|_| Default::default()).collect(),
            free: Slots::new(slots),
        });
        *shared.slots[0].lock().await = Some(first);
        shared.free.set_ready(0, true);
        for slot in 1..slots {
            let place = shared.slots[slot].clone().lock_owned().await;
            shared.clone().prepare(slot, place, None);
        }
        Ok(Self { info, shared })
    }
}

/// Starts a process and reads its description.
async fn speaker(program: &Program, slot: usize) -> anyhow::Result<(Describe, Speaker)> {
    let (mut child, ends) = program.start(slot, Vec::new()).await?;
    let mut lines = Lines::new(ends.output, MAX_LINE, Overlong::Refuse);

    let first = tokio::time::timeout(DESCRIBE, lines.next()).await;
    let told = match first {
        Err(_) => anyhow::bail!("it did not describe itself within {DESCRIBE:?}"),
        Ok(Err(error)) => anyhow::bail!("its first line cannot be read: {error}"),
        Ok(Ok(None)) => {
            let status = tokio::time::timeout(RETIRE, child.wait()).await;
            let reason = match status {
                Ok(Ok(status)) => reason(status),
                _ => "it closed its pipe".to_owned(),
            };
            let last_words = child.printed.last_words().await;
            anyhow::bail!("it ended before it described itself: {reason}{last_words}");
        }
        Ok(Ok(Some(line))) => line,
    };

    let described = match message::read(&told) {
        Ok(Message::Describe(described)) => *described,
        Ok(_) => anyhow::bail!("its first line must have the type \"describe\""),
        Err(error) => {
            let line = String::from_utf8_lossy(&told);
            let start = beginning(&line);
            anyhow::bail!("its first line does not describe it: {error}. It begins: {start:?}");
        }
    };
    anyhow::ensure!(
        described.protocol == VERSION,
        "it speaks version {} of the messages, and this worker version {VERSION}",
        described.protocol
    );
    let speaker = Speaker {
        child,
        input: ends.input,
        lines,
        runs: 0,
    };
    Ok((described, speaker))
}

/// What the engine is, as the program says.
pub(crate) fn info(described: &Describe) -> anyhow::Result<EngineInfo> {
    let seconds = |name: &str, seconds: f64| {
        Duration::try_from_secs_f64(seconds)
            .with_context(|| format!("{name} is {seconds}, which is no duration"))
    };
    let mut info = EngineInfo::new(described.worker_type.clone())
        .uses_gpu(described.uses_gpu)
        .never_blocks(true)
        .can_be_killed(true);
    if let Some(domain) = &described.domain {
        info = info.domain(domain.clone());
    }
    if let Some(short) = &described.short {
        info = info.short(short.clone());
    }
    if let Some(description) = &described.description {
        info = info.description(description.clone());
    }
    if let Some(version) = &described.version {
        info = info.version(version.clone());
    }
    if let Some(schema) = &described.request_schema {
        info = info.request_schema(schema.clone());
    }
    if let Some(schema) = &described.result_schema {
        info = info.result_schema(schema.clone());
    }
    if let Some(limit) = described.timeout_seconds {
        info = info.timeout(seconds("timeout_seconds", limit)?);
    }
    if let Some(limit) = described.stall_timeout_seconds {
        info = info.stall_timeout(seconds("stall_timeout_seconds", limit)?);
    }
    if let Some(attempts) = described.max_attempts {
        info = info.max_attempts(attempts);
    }
    if let Some(delay) = described.retry_delay_seconds {
        info = info.retry_delay(seconds("retry_delay_seconds", delay)?);
    }
    Ok(info)
}

impl Shared {
    /// Starts a process for a slot that has none, beside everything else. The one before it has ended by
    /// then: two of them may not find room in the memory, or on the GPU, of a slot.
    fn prepare(
        self: Arc<Self>,
        slot: usize,
        mut place: OwnedMutexGuard<Option<Speaker>>,
        before: Option<(Child, Duration)>,
    ) {
        self.free.set_ready(slot, false);
        tokio::spawn(async move {
            if let Some((child, patience)) = before {
                child.retire(patience).await;
            }
            match self.new_speaker(slot).await {
                Ok(speaker) => {
                    *place = Some(speaker);
                    self.free.set_ready(slot, true);
                }
                // The next operation tries it again, and tells its client.
                Err(error) => tracing::warn!(
                    slot,
                    error = format!("{error:#}"),
                    "the program could not be started again"
                ),
            }
        });
    }

    async fn new_speaker(&self, slot: usize) -> anyhow::Result<Speaker> {
        let (described, speaker) = speaker(&self.program, slot).await?;
        anyhow::ensure!(
            described == self.described,
            "it describes itself otherwise than when the worker started; restart the worker"
        );
        Ok(speaker)
    }

    async fn run(
        self: &Arc<Self>,
        slot: usize,
        ctx: &Context,
        parameters: &RawValue,
    ) -> Result<Box<RawValue>, OperationError> {
        // A process that is being started describes itself first, which may take a while.
        let mut place = tokio::select! {
            place = self.slots[slot].clone().lock_owned() => place,
            () = ctx.cancelled() => return Err(OperationError::Cancelled),
        };
        if let Some(idle) = place.as_mut()
            && let Some(status) = idle.child.exit_status()
        {
            let reason = reason(status);
            tracing::warn!(
                slot,
                reason,
                "process_ended: the program ended between two operations"
            );
            *place = None;
        }

        let mut speaker = match place.take() {
            Some(speaker) => speaker,
            None => {
                let started = tokio::select! {
                    started = self.new_speaker(slot) => started,
                    () = ctx.cancelled() => return Err(OperationError::Cancelled),
                };
                started.map_err(|error| OperationError::Failed {
                    code: "program_not_started".into(),
                    message: format!("the program could not be started: {error:#}"),
                })?
            }
        };

        let start = start_line(ctx, parameters, speaker.runs + 1)?;
        let end = converse(&mut speaker, ctx, start).await;

        let is_used_up = self.recycle > 0 && speaker.runs >= self.recycle;
        if end.is_reusable && !is_used_up {
            *place = Some(speaker);
            self.free.set_ready(slot, true);
        } else {
            let Speaker { child, input, .. } = speaker;
            // The end of its input tells it to end.
            drop(input);
            let patience = if end.is_reusable {
                RETIRE
            } else {
                Duration::ZERO
            };
            self.clone().prepare(slot, place, Some((child, patience)));
        }
        end.result
    }
}

fn start_line(ctx: &Context, parameters: &RawValue, run: u64) -> Result<Vec<u8>, OperationError> {
    let checkpoint: Option<Box<RawValue>> = ctx.last_checkpoint();
    let data_dir = absolute(ctx.data_dir().root())?;
    let start = Start {
        run,
        operation_id: ctx.operation_id().as_str(),
        attempt: ctx.attempt(),
        parameters,
        checkpoint: checkpoint.as_deref(),
        data_dir: &data_dir,
    };
    Ok(message::line("start", &start))
}

/// An absolute path as a text.
pub(crate) fn absolute(path: &Path) -> Result<String, OperationError> {
    let path = std::path::absolute(path)?;
    path.into_os_string().into_string().map_err(|path| {
        OperationError::failed(format!(
            "the path {} of the data directory is no UTF-8 text",
            path.display()
        ))
    })
}

impl DynEngine for ExecEngine {
    fn info(&self) -> EngineInfo {
        self.info.clone()
    }

    fn run<'a>(
        &'a self,
        ctx: Context,
        parameters: &'a RawValue,
    ) -> BoxFuture<'a, Result<Box<RawValue>, OperationError>> {
        async move {
            let taken = self.shared.free.take()?;
            self.shared.run(taken.number, &ctx, parameters).await
        }
        .boxed()
    }
}
