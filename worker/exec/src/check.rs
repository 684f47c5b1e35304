//! Whether a program follows `docs/exec.md`: starts it as a worker would, without NATS, and tells what
//! it does.

use std::path::Path;
use std::time::Duration;

use ktrdr_worker::OperationError;
use ktrdr_worker::dynamic::DynEngine;
use ktrdr_worker::testing::TestRun;
use serde_json::Value;

use crate::engine::ExecEngine;
use crate::options::ExecOptions;

/// How long a run may take.
const RUN: Duration = Duration::from_secs(60);

/// How long a program may take to notice a cancel, or the end of its input.
const NOTICE: Duration = Duration::from_secs(5);

/// What was found out, line by line.
#[derive(Debug, Default)]
pub struct Report {
    /// One line for each check.
    pub lines: Vec<String>,
    /// Whether all checks passed.
    pub is_good: bool,
}

impl Report {
    fn note(&mut self, what: &str, found: Result<String, String>) {
        let (mark, detail) = match &found {
            Ok(detail) => ("ok    ", detail),
            Err(detail) => ("FAILED", detail),
        };
        self.is_good &= found.is_ok();
        let detail = detail.trim();
        let gap = if detail.is_empty() { "" } else { ": " };
        self.lines.push(format!("{mark} {what}{gap}{detail}"));
    }
}

/// Checks a program with parameters that it should complete. Give it a request that takes about a
/// second, so that a cancel meets it at work.
pub async fn check(
    command: &str,
    options: &ExecOptions,
    data_dir: &Path,
    request: &Value,
) -> Report {
    let mut report = Report {
        is_good: true,
        ..Report::default()
    };
    let engine = match ExecEngine::start(command, options, 1).await {
        Ok(engine) => engine,
        Err(error) => {
            report.note("it describes itself", Err(format!("{error:#}")));
            return report;
        }
    };
    let info = engine.info();
    let described = info.check().await;
    report.note(
        "it describes itself",
        match described {
            Ok(()) => Ok(format!("the worker type {}", info.worker_type())),
            Err(fault) => Err(fault.to_string()),
        },
    );

    let first = engine.idle().await;
    let new_run = || TestRun::in_dir(data_dir);
    let run = new_run();
    let result = completed(&engine, &run, request).await;
    report.note("it completes the request, and the result fits", result);
    report.note(
        "its progress, metrics and log lines are read",
        Ok(told(&run)),
    );
    if run.checkpoints() > 0 {
        let next = run.next_attempt();
        let result = completed(&engine, &next, request).await;
        report.note("it goes on from its checkpoint", result);
    }

    let again = completed(&engine, &new_run(), request).await;
    report.note("it completes the request once more", again);
    report.note(
        "one process did all of this",
        if engine.idle().await == first {
            Ok(String::new())
        } else {
            Err("it ended, or was killed, in between".to_owned())
        },
    );

    report.note(
        "it stops when it is cancelled",
        cancelled(&engine, &new_run(), request).await,
    );
    let after = completed(&engine, &new_run(), request).await;
    report.note("a cancel does not stop the next run", after);

    let lost = ended(&engine, &new_run().taken_over(), request).await;
    report.note(
        "a run whose operation was taken over ends, too",
        lost.and_then(|end| match end {
            Err(error) if is_crash(&error) => Err(error.to_string()),
            _ => Ok(String::new()),
        }),
    );

    let ends = engine.ends_with_its_input(NOTICE).await;
    report.note(
        "it ends when its input ends",
        if ends {
            Ok(String::new())
        } else {
            Err(format!("it still ran after {NOTICE:?}"))
        },
    );
    report
}

fn told(run: &TestRun) -> String {
    let (progress, points) = (run.progress(), run.metrics());
    format!(
        "{} % at the end, metric points: {}, log lines: {}, checkpoints: {}",
        progress.percentage,
        points.len(),
        run.log_lines().len(),
        run.checkpoints()
    )
}

/// Runs the request until its end; kills the program when that takes too long.
async fn ended(
    engine: &ExecEngine,
    run: &TestRun,
    request: &Value,
) -> Result<Result<Value, OperationError>, String> {
    let running = run.run_dyn(engine, request.clone());
    tokio::pin!(running);
    tokio::select! {
        result = &mut running => Ok(result),
        () = tokio::time::sleep(RUN) => {
            run.kill();
            let _ = running.await;
            Err(format!("it did not end within {RUN:?}"))
        }
    }
}

async fn completed(engine: &ExecEngine, run: &TestRun, request: &Value) -> Result<String, String> {
    match ended(engine, run, request).await? {
        Ok(result) => Ok(result.to_string().chars().take(200).collect()),
        Err(error) => Err(error.to_string()),
    }
}

/// Whether the program did not say the end itself.
fn is_crash(error: &OperationError) -> bool {
    matches!(error, OperationError::Failed { code, .. } if ["process_ended", "protocol_error"].contains(&&**code))
}

async fn cancelled(engine: &ExecEngine, run: &TestRun, request: &Value) -> Result<String, String> {
    let running = run.run_dyn(engine, request.clone());
    tokio::pin!(running);
    // It should be at work by then; one that has ended is no worse.
    let early = tokio::time::timeout(Duration::from_millis(200), &mut running).await;
    if early.is_ok() {
        return Ok("it had ended before it was cancelled; try a longer request".to_owned());
    }

    run.cancel();
    match tokio::time::timeout(NOTICE, &mut running).await {
        Ok(Err(OperationError::Cancelled)) => Ok(String::new()),
        Ok(Ok(_)) => Ok("it completed the request instead".to_owned()),
        Ok(Err(error)) if is_crash(&error) => Err(error.to_string()),
        Ok(Err(error)) => Ok(format!("it failed instead: {error}")),
        Err(_) => {
            run.kill();
            let _ = running.await;
            Err(format!("it did not within {NOTICE:?}, so it is killed"))
        }
    }
}
