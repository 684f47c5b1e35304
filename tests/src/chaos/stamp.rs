//! `stamp`: an engine that writes its attempt into a file, so that a late write by an attempt that
//! was taken over is visible.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ktrdr_worker::{Context, Engine, NamedBy, OperationError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Writes a file that holds the number of its attempt.
#[derive(Debug, Clone, Copy, Default)]
pub struct StampEngine;

/// The length of the operation.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StampRequest {
    /// Steps.
    pub steps: u32,
    /// Milliseconds per step.
    pub step_ms: u64,
}

/// Which attempt wrote the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Stamp {
    /// Counted from 1.
    pub attempt: u32,
}

/// The path of an operation's file.
pub fn path(data_dir: &Path, operation_id: &str) -> PathBuf {
    data_dir.join("stamps").join(operation_id)
}

impl Engine for StampEngine {
    const NAME: &'static str = "stamp";
    const DESCRIPTION: &'static str = "Writes a file with the number of its attempt.";
    type Request = StampRequest;
    type Output = Stamp;

    async fn run(&self, ctx: Context, request: StampRequest) -> Result<Stamp, OperationError> {
        for _ in 0..request.steps {
            ctx.check_cancelled()?;
            tokio::time::sleep(Duration::from_millis(request.step_ms)).await;
        }

        ctx.blocking(|ctx| {
            let stamp = Stamp {
                attempt: ctx.attempt(),
            };
            let name = format!("stamps/{}", ctx.operation_id());
            let output = ctx.output(&name, NamedBy::Engine, false)?;
            output.write(|file| serde_json::to_writer(file, &stamp).map_err(Into::into))?;
            Ok(stamp)
        })
        .await
    }
}
