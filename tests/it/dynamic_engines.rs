//! Engines whose type is known only at run time: they are workers like any other, and can be killed.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use ktrdr_tests::{LIMIT, LocalWorker, Stack, wait_for};
use ktrdr_worker::dynamic::{DynEngine, EngineInfo};
use ktrdr_worker::{Context, OperationError, Worker};
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};
use tokio::sync::mpsc;

/// What an [`Odd`] engine does.
#[derive(Debug, Clone, Copy)]
enum Work {
    /// Asks on a thread of its own whether it owns the operation.
    AskOnForeignThread,
    /// Fails with a code made at run time.
    Fail,
    /// Returns only when it is killed.
    Hang,
}

struct Odd {
    info: EngineInfo,
    work: Work,
    ended: mpsc::UnboundedSender<()>,
}

impl DynEngine for Odd {
    fn info(&self) -> EngineInfo {
        self.info.clone()
    }

    fn run<'a>(
        &'a self,
        ctx: Context,
        _: &'a RawValue,
    ) -> BoxFuture<'a, Result<Box<RawValue>, OperationError>> {
        let (watched, ended) = (ctx.clone(), self.ended.clone());
        tokio::spawn(async move {
            watched.ended().await;
            let _ = ended.send(());
        });

        async move {
            match self.work {
                Work::AskOnForeignThread => {
                    let (sender, answer) = tokio::sync::oneshot::channel();
                    std::thread::spawn(move || sender.send(ctx.ensure_owner_blocking()));
                    let is_owner = answer.await.expect("a thread that answers").is_ok();
                    Ok(to_raw_value(&json!({"is_owner": is_owner})).expect("JSON"))
                }
                Work::Fail => Err(OperationError::permanent(
                    format!("{}_failed", self.info.worker_type()),
                    "as asked",
                )),
                Work::Hang => {
                    ctx.progress(ktrdr_worker::Progress::new(1.0));
                    ctx.killed().await;
                    Err(OperationError::Cancelled)
                }
            }
        }
        .boxed()
    }
}

/// A worker of this engine, which ends with the returned value, and a channel that says when an
/// attempt is over.
async fn worker(
    stack: &Stack,
    info: EngineInfo,
    work: Work,
) -> (Worker, mpsc::UnboundedReceiver<()>) {
    let (ended, receiver) = mpsc::unbounded_channel();
    let engine = Odd { info, work, ended };
    let arguments = ["--stop-grace", "100ms"];
    let worker = Worker::builder()
        .dyn_engine(engine)
        .config(LocalWorker::config(&stack.settings, "d1", &arguments))
        .mounted_at("http://here")
        .start()
        .await
        .unwrap();
    stack.api().wait_for_worker("d1", "AVAILABLE").await;
    (worker, receiver)
}

#[tokio::test]
async fn a_type_that_is_known_at_run_time_is_served_and_described() {
    let stack = Stack::start().await;
    let info = EngineInfo::new(String::from("odd_one"))
        .description(String::from("Asks."))
        .version(String::from("7.1"))
        .request_schema(json!({"type": "object", "properties": {"n": {"type": "integer"}}}))
        .max_attempts(2);
    let (mut worker, mut ended) = worker(&stack, info, Work::AskOnForeignThread).await;

    let answer = stack.api().get("/api/v1/worker-types").await;
    let described = &answer.json["data"]["worker_types"][0];
    assert_eq!(described["worker_type"], "odd_one");
    assert_eq!(described["domain"], "odd-one");
    assert_eq!(described["description"], "Asks.");
    assert_eq!(described["version"], "7.1");
    assert_eq!(described["execution_defaults"]["max_attempts"], 2);
    let refused = stack
        .api()
        .post("/api/v1/odd-one/start", &json!({"n": "x"}))
        .await;
    refused.expect(422);

    let id = stack.api().started("odd-one", &json!({"n": 1})).await;
    stack.api().wait_for_status(&id, "completed").await;

    let path = format!("/api/v1/operations/{id}/results");
    let result = stack.api().get(&path).await.expect(200);
    assert!(result.text.contains("\"is_owner\":true"), "{result}");
    tokio::time::timeout(LIMIT, ended.recv())
        .await
        .expect("the attempt is over for its tasks, too");
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn a_code_made_at_run_time_is_recorded() {
    let stack = Stack::start().await;
    let (mut worker, _) = worker(&stack, EngineInfo::new("odd"), Work::Fail).await;

    let id = stack.api().started("odd", &json!({})).await;

    let failed = stack.api().wait_for_status(&id, "failed").await;
    assert_eq!(failed["error"]["code"], "odd_failed");
    worker.stop().await.unwrap();
}

#[tokio::test]
async fn an_engine_that_can_be_killed_is_killed_after_a_cancel_that_it_ignores() {
    // A backend would end the operation by force much later.
    let stack = Stack::start_with(|mut settings| {
        settings.cancel_grace = Duration::from_secs(600);
        settings
    })
    .await;
    let info = EngineInfo::new("odd").can_be_killed(true);
    let (mut worker, _) = worker(&stack, info, Work::Hang).await;
    let id = stack.api().running("odd", &json!({})).await;

    stack.api().cancel(&id).await.expect(200);

    let cancelled = stack.api().wait_for_status(&id, "cancelled").await;
    assert_eq!(cancelled["attempts"][0]["outcome"], "cancelled");
    stack.api().wait_for_worker("d1", "AVAILABLE").await;
    wait_for("an answered request", LIMIT, async || {
        stack.bus.settled().await;
        Ok(())
    })
    .await;
    worker.stop().await.unwrap();
}
