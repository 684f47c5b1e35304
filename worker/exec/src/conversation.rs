//! One operation with one child: the start goes down, messages come up, until one of them is the end.
//!
//! The problem: at any time the program may write, read slowly, crash or hang, while the worker has a
//! cancel or an answer for it. Waiting for one of these must not miss another.
//!
//! How it is solved: [`converse`] waits for all of them at once. What goes down waits in a buffer, so a
//! program that writes without reading blocks nobody but itself.

use std::process::ExitStatus;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use ktrdr_protocol::log_line::{LogLine, printable};
use ktrdr_worker::{Context, LogLevel, OperationError, Progress};
use serde_json::value::RawValue;
use tokio::io::AsyncWriteExt;
use tokio::process::{ChildStdin, ChildStdout};

use crate::child::{Child, reason};
use crate::lines::Lines;
use crate::message::{self, Cancel, Failed, Message, Owner, beginning};

/// Longest step of progress, in characters, and most bytes of its fields.
pub(crate) const MAX_STEP: usize = 1000;
const MAX_FIELDS: usize = 16 * 1024;

/// How many questions of a program may be open at a time.
const MAX_QUESTIONS: usize = 64;

/// What may wait until a process reads it, in bytes, before its questions wait as well.
const MAX_UNREAD: usize = 64 * 1024;

/// How long a program that has ended, or was killed, may leave its pipe open. What it has started may
/// still hold it.
const LAST_MESSAGES: Duration = Duration::from_secs(1);

/// A child that speaks.
pub(crate) struct Speaker {
    pub(crate) child: Child,
    pub(crate) input: ChildStdin,
    pub(crate) lines: Lines<ChildStdout>,
    /// How many runs it has had.
    pub(crate) runs: u64,
}

/// How a conversation ended.
pub(crate) struct End {
    pub(crate) result: Result<Box<RawValue>, OperationError>,
    /// Whether the child can have another run.
    pub(crate) is_reusable: bool,
}

/// What happens next to the conversation.
pub(crate) enum Step {
    Go,
    Ask(u64),
    End(Result<Box<RawValue>, OperationError>),
}

/// Has the run of `start` done.
pub(crate) async fn converse(speaker: &mut Speaker, ctx: &Context, start: Vec<u8>) -> End {
    speaker.runs += 1;
    let run = speaker.runs;
    speaker.child.printed.begins(ctx).await;
    let end = talk(speaker, ctx, run, start).await;
    speaker.child.printed.ends().await;
    end
}

async fn talk(speaker: &mut Speaker, ctx: &Context, run: u64, start: Vec<u8>) -> End {
    let mut outgoing = BytesMut::from(&start[..]);
    let mut answers: FuturesUnordered<BoxFuture<'_, (u64, bool)>> = FuturesUnordered::new();
    let (mut is_cancelled, mut is_killed, mut is_heard) = (false, false, true);

    loop {
        tokio::select! {
            line = speaker.lines.next() => {
                let step = match line {
                    Ok(Some(line)) => take(ctx, run, line).await,
                    Ok(None) => return broken(speaker, is_killed, None).await,
                    Err(error) => Err(format!("its messages cannot be read: {error}")),
                };
                match step {
                    Ok(Step::Go) => {}
                    Ok(Step::Ask(_)) if answers.len() >= MAX_QUESTIONS => {
                        let why = format!("it asked more than {MAX_QUESTIONS} questions at a time");
                        return broken(speaker, is_killed, Some(why)).await;
                    }
                    Ok(Step::Ask(request)) => {
                        answers.push(Box::pin(async move {
                            (request, ctx.ensure_owner().await.is_ok())
                        }));
                    }
                    Ok(Step::End(result)) => {
                        // A message that is still on its way down would be read by the next run.
                        let is_reusable = is_heard && !is_killed && outgoing.is_empty();
                        return End { result, is_reusable };
                    }
                    Err(why) => return broken(speaker, is_killed, Some(why)).await,
                }
            }
            written = speaker.input.write(&outgoing), if is_heard && !outgoing.is_empty() => match written {
                Ok(written) => outgoing.advance(written),
                // It has ended, or it wants to hear nothing more. It may have said its end all the same.
                Err(_) => {
                    is_heard = false;
                    outgoing.clear();
                }
            },
            () = ctx.cancelled(), if !is_cancelled => {
                is_cancelled = true;
                outgoing.extend(message::line("cancel", &Cancel { run }));
            }
            () = ctx.killed(), if !is_killed => {
                is_killed = true;
                speaker.child.kill();
            }
            status = speaker.child.wait() => {
                // It may have said the end before it ended.
                let last = tokio::time::timeout(LAST_MESSAGES, drain(speaker, ctx, run)).await;
                if let Ok(Some(result)) = last {
                    return End { result, is_reusable: false };
                }
                return process_ended(speaker, is_killed, status.ok()).await;
            }
            // One that asks and does not read is not heard further until it has read.
            Some((request, is_owner)) = answers.next(), if !answers.is_empty() && outgoing.len() < MAX_UNREAD => {
                if is_heard {
                    outgoing.extend(message::line("owner", &Owner { run, request, is_owner }));
                }
            }
        }
    }
}

/// Reads what a process has left in its pipe; returns the end if it is there.
async fn drain(
    speaker: &mut Speaker,
    ctx: &Context,
    run: u64,
) -> Option<Result<Box<RawValue>, OperationError>> {
    while let Ok(Some(line)) = speaker.lines.next().await {
        match take(ctx, run, line).await {
            Ok(Step::End(result)) => return Some(result),
            Ok(_) => {}
            Err(_) => return None,
        }
    }
    None
}

/// Ends a conversation that cannot go on: kills the program, if it lives, and says why.
async fn broken(speaker: &mut Speaker, is_killed: bool, why: Option<String>) -> End {
    // A program that has just ended is asked for its reason first.
    let patience = if why.is_some() {
        Duration::ZERO
    } else {
        LAST_MESSAGES
    };
    let ended_by_itself = tokio::time::timeout(patience, speaker.child.wait()).await;
    if let (Ok(status), None) = (&ended_by_itself, &why) {
        let status = status.as_ref().ok().copied();
        return process_ended(speaker, is_killed, status).await;
    }

    speaker.child.kill();
    let _ = tokio::time::timeout(LAST_MESSAGES, speaker.child.wait()).await;
    if is_killed {
        return killed();
    }
    let why = why.unwrap_or_else(|| {
        "it closed its pipe to the worker and went on; it was killed".to_owned()
    });
    let last_words = speaker.child.printed.last_words().await;
    failed(
        "protocol_error",
        format!("the program does not follow docs/exec.md: {why}{last_words}"),
    )
}

/// The end of a conversation whose process has ended.
async fn process_ended(speaker: &mut Speaker, is_killed: bool, status: Option<ExitStatus>) -> End {
    if is_killed {
        return killed();
    }
    let reason = status.map_or_else(|| "unknown".to_owned(), reason);
    let last_words = speaker.child.printed.last_words().await;
    tracing::warn!(
        pid = speaker.child.pid(),
        reason,
        "process_ended: the program ended during an operation"
    );
    failed(
        "process_ended",
        format!("the program ended during the operation: {reason}{last_words}"),
    )
}

fn killed() -> End {
    End {
        result: Err(OperationError::Cancelled),
        is_reusable: false,
    }
}

fn failed(code: &'static str, message: String) -> End {
    End {
        result: Err(OperationError::Failed {
            code: code.into(),
            message,
        }),
        is_reusable: false,
    }
}

/// Takes a line. A long one is read on another thread: it takes too long beside leases.
///
/// # Errors
/// When it is no message, with the reason.
async fn take(ctx: &Context, run: u64, line: Bytes) -> Result<Step, String> {
    const LONG: usize = 1024 * 1024;

    if line.len() <= LONG {
        return read(ctx, run, &line);
    }
    let ctx = ctx.clone();
    let read = tokio::task::spawn_blocking(move || read(&ctx, run, &line));
    read.await
        .unwrap_or_else(|_| Err("a line could not be read".to_owned()))
}

pub(crate) fn read(ctx: &Context, run: u64, line: &[u8]) -> Result<Step, String> {
    let message = message::read(line).map_err(|error| {
        let line = String::from_utf8_lossy(line);
        let start = beginning(&line);
        format!("a line is no message: {error}. It begins: {start:?}")
    })?;
    // Every message is a sign of life, also a question.
    ctx.alive();
    if message.run() != Some(run) {
        return match message.run() {
            // Something of an earlier run is still at work: a thread, or a process that was forked.
            Some(earlier) if earlier < run => {
                tracing::debug!(earlier, run, "ignored a message about an earlier run");
                Ok(Step::Go)
            }
            Some(other) => Err(format!("a message is about run {other}, and this is {run}")),
            None => Err("it described itself a second time".to_owned()),
        };
    }
    act(ctx, message)
}

fn act(ctx: &Context, message: Message<'_>) -> Result<Step, String> {
    match message {
        Message::Describe(_) | Message::Alive(_) => {}
        Message::Progress(report) => {
            let remaining = report
                .remaining_seconds
                .filter(|seconds| seconds.is_finite() && *seconds >= 0.0)
                .map(|seconds| seconds as u64);
            let mut progress = Progress::new(report.percentage).remaining_seconds(remaining);
            progress.current_step = report.step;
            progress.fields = report.fields;
            progress.shorten(MAX_STEP, MAX_FIELDS);
            ctx.progress(progress);
        }
        Message::Metrics(metrics) => {
            for point in metrics.points {
                let value = point.value.unwrap_or(f64::NAN);
                match point.step {
                    Some(step) => ctx.metric_at(&point.name, step, value),
                    None => ctx.metric(&point.name, value),
                }
            }
        }
        Message::Log(said) => say(ctx, said),
        Message::Checkpoint(checkpoint) => ctx.checkpoint_with(|| checkpoint.state),
        Message::EnsureOwner(question) => return Ok(Step::Ask(question.request)),
        Message::Completed(end) => return Ok(Step::End(Ok(end.result.to_owned()))),
        Message::Failed(end) => return Ok(Step::End(Err(failure(end)))),
        Message::Cancelled(_) => return Ok(Step::End(Err(OperationError::Cancelled))),
    }
    Ok(Step::Go)
}

/// Takes a log line. The worker's log has it, too, as it has what the program prints.
fn say(ctx: &Context, said: message::Log) {
    let message::Log {
        level,
        text,
        fields,
        ..
    } = said;
    if !ctx.log_with(level, &text, fields) {
        return;
    }

    let operation_id = ctx.operation_id().as_str();
    let text = printable(&text, LogLine::MAX_TEXT);
    // Outside of the engine's span: within it, it would become a log line of the operation once more.
    match level {
        LogLevel::Trace => tracing::trace!(parent: None, operation_id, "program: {text}"),
        LogLevel::Debug => tracing::debug!(parent: None, operation_id, "program: {text}"),
        LogLevel::Info => tracing::info!(parent: None, operation_id, "program: {text}"),
        LogLevel::Warn => tracing::warn!(parent: None, operation_id, "program: {text}"),
        LogLevel::Error => tracing::error!(parent: None, operation_id, "program: {text}"),
    }
}

fn failure(end: Failed) -> OperationError {
    let Failed {
        message,
        code,
        permanent,
        retry_after_seconds,
        ..
    } = end;
    let code = code.unwrap_or_else(|| "engine_error".to_owned());
    // The worker makes a day of what is longer.
    let longest = f64::from(u32::MAX);
    let delay = retry_after_seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds.min(longest)).ok());
    match delay {
        _ if permanent => OperationError::permanent(code, message),
        Some(delay) => OperationError::retry_after(code, message, delay),
        None => OperationError::Failed {
            code: code.into(),
            message,
        },
    }
}
