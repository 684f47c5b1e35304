//! Whether a program follows `docs/exec.md`: starts it as a worker would, without NATS, and tells what
//! it does.

use std::path::Path;
use std::time::Duration;

use ktrdr_worker::OperationError;
use ktrdr_worker::dynamic::DynEngine;
use ktrdr_worker::testing::TestRun;
use serde_json::Value;
use tokio::time::Instant;

use crate::engine::ExecEngine;
use crate::message::beginning;
use crate::options::ExecOptions;

/// How long a run may take.
const RUN: Duration = Duration::from_secs(60);

/// How long a program may take to notice a cancel, or the end of its input.
const NOTICE: Duration = Duration::from_secs(5);

/// How soon after a cancel the end of a run says nothing: a program that looks once a second may not have
/// looked yet.
const LOOK: Duration = Duration::from_secs(1);

/// What one check has found.
enum Found {
    Good(String),
    /// The program did not come to what the check looks at.
    NotTested(String),
    Bad(String),
}

impl From<Result<String, String>> for Found {
    fn from(found: Result<String, String>) -> Self {
        found.map_or_else(Self::Bad, Self::Good)
    }
}

/// What was found out, line by line.
#[derive(Debug, Default)]
pub struct Report {
    /// One line for each check.
    pub lines: Vec<String>,
    /// Whether no check failed.
    pub is_good: bool,
}

impl Report {
    fn note(&mut self, what: &str, found: impl Into<Found>) {
        let (mark, detail) = match found.into() {
            Found::Good(detail) => ("ok    ", detail),
            Found::NotTested(detail) => ("not tested:", detail),
            Found::Bad(detail) => {
                self.is_good = false;
                ("FAILED", detail)
            }
        };
        let detail = detail.trim();
        let gap = if detail.is_empty() { "" } else { ": " };
        self.lines.push(format!("{mark} {what}{gap}{detail}"));
    }
}

/// Checks a program with parameters that it should complete. Give it a request that takes about two
/// seconds, so that a cancel meets it at work.
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
    let is_completed = result.is_ok();
    report.note("it completes the request, and the result fits", result);
    if !is_completed {
        let why = "they need a request that it completes".to_owned();
        report.note("the other checks", Found::NotTested(why));
        return report;
    }
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

    let lost = run_to_end(&engine, &new_run().taken_over(), request).await;
    report.note(
        "a run whose operation was taken over ends, too",
        match lost {
            Ok(Err(OperationError::Cancelled)) => Found::Good(String::new()),
            Ok(Ok(_)) => Found::NotTested(
                "it completed; a program without ensure_owner does not learn of it".to_owned(),
            ),
            Ok(Err(error)) => Found::Bad(error.to_string()),
            Err(why) => Found::Bad(why),
        },
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
async fn run_to_end(
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
    match run_to_end(engine, run, request).await? {
        Ok(result) => Ok(beginning(&result.to_string())),
        Err(error) => Err(error.to_string()),
    }
}

async fn cancelled(engine: &ExecEngine, run: &TestRun, request: &Value) -> Found {
    let running = run.run_dyn(engine, request.clone());
    tokio::pin!(running);
    // It should be at work by then.
    let early = tokio::time::timeout(Duration::from_millis(200), &mut running).await;
    if early.is_ok() {
        return Found::NotTested(
            "it had ended before it was cancelled; try a longer request".to_owned(),
        );
    }

    run.cancel();
    let since = Instant::now();
    match tokio::time::timeout(NOTICE, &mut running).await {
        Ok(Err(OperationError::Cancelled)) => Found::Good(String::new()),
        Ok(Ok(_)) if since.elapsed() < LOOK => Found::NotTested(
            "it completed within a second of the cancel; try a longer request".to_owned(),
        ),
        Ok(Ok(_)) => Found::Bad(
            "it completed the request instead; it should look for a cancel at least once a second"
                .to_owned(),
        ),
        Ok(Err(error)) => Found::Bad(format!("it failed instead: {error}")),
        Err(_) => {
            run.kill();
            let _ = running.await;
            Found::Bad(format!("it did not within {NOTICE:?}, so it is killed"))
        }
    }
}
