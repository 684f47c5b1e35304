//! `talk`: an engine that says much, in every way that an engine can.

use std::time::{Duration, Instant};

use ktrdr_worker::{Context, Engine, LogLevel, OperationError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, json};

/// Says lines.
#[derive(Debug, Clone, Copy, Default)]
pub struct TalkEngine;

/// The parameters of a [`TalkEngine`].
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TalkRequest {
    /// How many lines it says with `ctx.log`.
    pub lines: u64,
    /// Pause after each of these lines.
    pub pause_ms: u64,
    /// What follows the number in each line.
    pub text: String,
    /// Whether it first says one line in each other way: with fields, by an event, by an event of a thread,
    /// and one of a task.
    pub ways: bool,
    /// Whether it goes through the lines without saying them.
    pub silent: bool,
    /// Whether it fails at the end.
    pub fail: bool,
}

/// What a [`TalkEngine`] did.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Talked {
    /// Lines that were kept.
    pub kept: u64,
    /// How long the lines took.
    pub seconds: f64,
}

impl Engine for TalkEngine {
    const NAME: &'static str = "talk";
    const DESCRIPTION: &'static str = "Says what it is told to say.";
    type Request = TalkRequest;
    type Output = Talked;

    async fn run(&self, ctx: Context, request: TalkRequest) -> Result<Talked, OperationError> {
        if request.ways {
            every_way(&ctx).await?;
        }

        let (mut kept, begun) = (0, Instant::now());
        for n in 0..request.lines {
            ctx.check_cancelled()?;
            let text = format!("line {n}{}", request.text);
            if !request.silent {
                kept += u64::from(ctx.log(LogLevel::Info, text));
            }
            if request.pause_ms > 0 {
                tokio::time::sleep(Duration::from_millis(request.pause_ms)).await;
            } else if n % 64 == 0 {
                tokio::task::yield_now().await;
            }
        }
        if request.fail {
            return Err(OperationError::failed("it was told to fail"));
        }
        Ok(Talked {
            kept,
            seconds: begun.elapsed().as_secs_f64(),
        })
    }
}

/// Says one line in each way. The collector of events is up to the program.
async fn every_way(ctx: &Context) -> Result<(), OperationError> {
    let mut fields = Map::new();
    fields.insert("rows".to_owned(), json!(7));
    ctx.log_with(LogLevel::Warn, "\u{1b}[31mwith fields\u{1b}[0m", fields);
    ctx.log(LogLevel::Debug, "below the level");
    tracing::info!(rows = 8, "an event");

    ctx.blocking(|_| {
        tracing::warn!("an event of a blocking thread");
        Ok(())
    })
    .await?;
    let span = ctx.span().clone();
    let thread = std::thread::spawn(move || {
        span.in_scope(|| tracing::error!("an event of a thread of its own"));
    });
    thread
        .join()
        .map_err(|_| OperationError::failed("the thread panicked"))
}
