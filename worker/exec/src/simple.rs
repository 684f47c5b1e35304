//! Programs that know nothing of workers: started for each operation, with the parameters on standard
//! input. The exit code says how it ended, the last line is the result.

use std::process::ExitStatus;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use ktrdr_worker::dynamic::{DynEngine, EngineInfo};
use ktrdr_worker::{Context, OperationError, Progress};
use rustix::process::Signal;
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};
use tempfile::TempPath;
use tokio::io::AsyncWriteExt;
use tokio::process::ChildStdout;

use crate::child::{Child, Program, reason};
use crate::conversation::MAX_STEP;
use crate::engine::absolute;
use crate::lines::{Lines, Overlong, char_border};
use crate::message::{MAX_DEPTH, MAX_LINE, is_too_deep};
use crate::options::ExecOptions;
use crate::printed::MAX_LOG_LINE;
use crate::slots::Slots;
use crate::start::Pipes;

/// Exit code of a program that wants another attempt (`EX_TEMPFAIL`), and the pause before it.
const RETRY: i32 = 75;
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// How long a program that has ended may leave its pipe open: what it has started may still hold it.
const LAST_OUTPUT: Duration = Duration::from_secs(1);

/// Beginning of a line that reports progress: `ktrdr-progress 45.5 sorting`.
const PROGRESS: &str = "ktrdr-progress ";

/// Runs a program once per operation.
pub struct SimpleEngine {
    info: EngineInfo,
    program: Program,
    slots: Slots,
}

impl SimpleEngine {
    /// An engine of this worker type.
    ///
    /// # Errors
    /// When the command line or the file with the schema cannot be used.
    pub fn new(
        worker_type: String,
        command: &str,
        options: &ExecOptions,
        slots: u32,
    ) -> anyhow::Result<Self> {
        let program = Program::new(
            command,
            Pipes::Standard,
            options.exec_memory,
            &options.exec_gpus,
        )?;
        let mut info = EngineInfo::new(worker_type)
            .description(format!("Runs the program {}.", program.start.words[0]))
            .never_blocks(true)
            .can_be_killed(true);
        if let Some(path) = &options.exec_schema {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            let schema: Value = serde_json::from_str(&text)
                .with_context(|| format!("{} is no JSON", path.display()))?;
            info = info.request_schema(schema);
        }
        Ok(Self {
            info,
            program,
            slots: Slots::new(usize::try_from(slots).unwrap_or(1).max(1)),
        })
    }

    async fn attempt(
        &self,
        ctx: &Context,
        parameters: &RawValue,
    ) -> Result<Box<RawValue>, OperationError> {
        let taken = self.slots.take()?;
        let file = tempfile::NamedTempFile::new()?.into_temp_path();
        let environment = vec![
            (
                "KTRDR_OPERATION_ID".to_owned(),
                ctx.operation_id().to_string(),
            ),
            ("KTRDR_ATTEMPT".to_owned(), ctx.attempt().to_string()),
            (
                "KTRDR_DATA_DIR".to_owned(),
                absolute(ctx.data_dir().root())?,
            ),
            ("KTRDR_RESULT_FILE".to_owned(), absolute(&file)?),
        ];
        let (mut child, ends) = self.program.start(taken.number, environment).await?;
        child.printed.begins(ctx).await;

        // Beside the reading: a program may write before it has read everything.
        let (mut input, text) = (ends.input, format!("{}\n", parameters.get()));
        tokio::spawn(async move {
            // A program that needs no parameters may close its input.
            let _ = input.write_all(text.as_bytes()).await;
        });

        let mut output = Output {
            lines: Lines::new(ends.output, MAX_LINE, Overlong::Refuse),
            last: None,
        };
        let status = output.follow(&mut child, ctx).await?;
        child.printed.settle().await;
        if status.code() == Some(0) {
            return output.result(file, &child).await;
        }
        output.log_last(&child);
        Err(failure(&mut child, status).await)
    }
}

/// What the program writes to standard output.
struct Output {
    lines: Lines<ChildStdout>,
    last: Option<Bytes>,
}

impl Output {
    /// Takes the lines until the program has ended. Asks it to stop, or kills it, when that is due.
    async fn follow(
        &mut self,
        child: &mut Child,
        ctx: &Context,
    ) -> Result<ExitStatus, OperationError> {
        let (mut is_cancelled, mut is_killed, mut is_open) = (false, false, true);
        let status = loop {
            tokio::select! {
                line = self.lines.next(), if is_open => match line {
                    Ok(Some(line)) => self.take(line, child, ctx),
                    Ok(None) => is_open = false,
                    Err(error) => return Err(OperationError::failed(format!(
                        "the output of the program cannot be read: {error}"
                    ))),
                },
                status = child.wait() => break status?,
                () = ctx.cancelled(), if !is_cancelled => {
                    is_cancelled = true;
                    child.signal(Signal::TERM);
                }
                () = ctx.killed(), if !is_killed => {
                    is_killed = true;
                    child.kill();
                }
            }
        };

        let _ = tokio::time::timeout(LAST_OUTPUT, async {
            while let Ok(Some(line)) = self.lines.next().await {
                self.take(line, child, ctx);
            }
        })
        .await;
        if is_cancelled && status.code() != Some(0) {
            return Err(OperationError::Cancelled);
        }
        Ok(status)
    }

    fn take(&mut self, line: Bytes, child: &Child, ctx: &Context) {
        ctx.alive();
        if let Some(progress) = progress(&line) {
            ctx.progress(progress);
        } else if !line.trim_ascii().is_empty()
            && let Some(before) = self.last.replace(line)
        {
            // Any line may turn out to be the result; only those before it are told.
            log(child, &before);
        }
    }

    /// Logs the last line, which is no result after all.
    fn log_last(&mut self, child: &Child) {
        if let Some(last) = self.last.take() {
            log(child, &last);
        }
    }

    /// The result: the file if the program wrote one, or else the last line.
    async fn result(
        mut self,
        file: TempPath,
        child: &Child,
    ) -> Result<Box<RawValue>, OperationError> {
        let length = std::fs::metadata(&file).map_or(0, |file| file.len());
        if length > MAX_LINE as u64 {
            return Err(OperationError::permanent(
                "result_too_large",
                format!("the result has {length} bytes, and {MAX_LINE} are allowed"),
            ));
        }
        if length > 0 {
            self.log_last(child);
        }

        // A large one takes too long beside leases.
        let read = tokio::task::spawn_blocking(move || {
            if length > 0 {
                to_json(&std::fs::read(file)?)
            } else {
                to_json(&self.last.unwrap_or_default())
            }
        });
        read.await
            .unwrap_or_else(|_| Err(OperationError::failed("the result could not be read")))
    }
}

/// Logs a line of standard output; a long one becomes several, as on standard error.
fn log(child: &Child, mut line: &[u8]) {
    while line.len() > MAX_LOG_LINE {
        let (chunk, rest) = line.split_at(char_border(line, MAX_LOG_LINE));
        child.printed.log().line(chunk);
        line = rest;
    }
    child.printed.log().line(line);
}

/// JSON as it is; anything else as a text; nothing as `null`.
fn to_json(bytes: &[u8]) -> Result<Box<RawValue>, OperationError> {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim();
    if text.is_empty() {
        return Ok(RawValue::NULL.to_owned());
    }
    if is_too_deep(text.as_bytes()) {
        return Err(OperationError::permanent(
            "result_too_deep",
            format!("the result is nested deeper than {MAX_DEPTH} levels"),
        ));
    }
    let json = RawValue::from_string(text.to_owned()).or_else(|_| to_raw_value(text));
    json.map_err(|error| OperationError::failed(format!("the result is no text: {error}")))
}

/// What a line reports, if it reports progress.
fn progress(line: &[u8]) -> Option<Progress> {
    let text = std::str::from_utf8(line).ok()?.strip_prefix(PROGRESS)?;
    let (percentage, step) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
    let mut progress = Progress::new(percentage.parse().ok()?);
    if !step.trim().is_empty() {
        progress = progress.step(step.trim());
        progress.shorten(MAX_STEP, 0);
    }
    Some(progress)
}

async fn failure(child: &mut Child, status: ExitStatus) -> OperationError {
    let last_words = child.printed.last_words().await;
    let message = format!("the program ended: {}{last_words}", reason(status));
    match status.code() {
        Some(RETRY) => OperationError::retry_after("retry", message, RETRY_DELAY),
        Some(_) => OperationError::Failed {
            code: "program_failed".into(),
            message,
        },
        None => OperationError::Failed {
            code: "process_ended".into(),
            message,
        },
    }
}

impl DynEngine for SimpleEngine {
    fn info(&self) -> EngineInfo {
        self.info.clone()
    }

    fn run<'a>(
        &'a self,
        ctx: Context,
        parameters: &'a RawValue,
    ) -> BoxFuture<'a, Result<Box<RawValue>, OperationError>> {
        async move { self.attempt(&ctx, parameters).await }.boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_may_report_progress() {
        let told = progress(b"ktrdr-progress 45.5 sorting rows").unwrap();
        assert_eq!(told.percentage, 45.5);
        assert_eq!(told.current_step.as_deref(), Some("sorting rows"));

        assert_eq!(progress(b"ktrdr-progress 7").unwrap().percentage, 7.0);
        assert!(progress(b"ktrdr-progress soon").is_none());
        assert!(progress(b"{\"rows\":1}").is_none());
    }

    #[test]
    fn a_result_is_json_or_a_text() {
        let json = |text: &str| to_json(text.as_bytes()).unwrap().get().to_owned();

        assert_eq!(json("{\"rows\": 1}\n"), "{\"rows\": 1}");
        assert_eq!(json("all \"good\""), "\"all \\\"good\\\"\"");
        assert_eq!(json(" \n"), "null");
        assert!(to_json("[".repeat(101).as_bytes()).is_err());
    }
}
