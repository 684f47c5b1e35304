//! Drained workers: they finish what they run, take nothing more, and can be told to go on.

use ktrdr_tests::process::Signal;
use ktrdr_tests::{Stack, WorkerProcess};
use serde_json::json;

#[tokio::test]
async fn a_drained_worker_finishes_takes_nothing_and_goes_on_when_it_is_told_to() {
    let stack = Stack::start().await;
    let (worker, gate) = stack.gate_worker("w1").await;
    let first = stack.api().started("gate", &json!({})).await;
    gate.started().await;

    let answer = stack
        .api()
        .post("/api/v1/workers/w1/drain", &json!({}))
        .await;
    let answer = answer.expect(202);
    assert_eq!(
        answer.at("/data"),
        &json!({"worker_id": "w1", "draining": true, "running": 1})
    );
    stack.api().wait_for_worker("w1", "DRAINING").await;
    let second = stack.api().start("gate", &json!({})).await.expect(202);
    assert!(
        second.json["warning"].is_string(),
        "nobody takes it: {second}"
    );
    gate.open(1);
    stack.api().wait_for_status(&first, "completed").await;

    // It has a free slot now. Another worker takes what waits, and it takes nothing directly either.
    let direct = worker.api.post("/gate/start", &json!({})).await;
    direct.expect_problem(503, "worker_busy");
    assert!(gate.unseen().await.is_empty(), "it took nothing");
    let stats = stack.api().get("/api/v1/stats").await.expect(200);
    assert_eq!(stats.at("/data/workers/DRAINING"), 1);

    gate.open_for_all();
    stack
        .api()
        .post("/api/v1/workers/w1/undrain", &json!({}))
        .await
        .expect(202);

    let id = second.json["operation_id"].as_str().unwrap();
    stack.api().wait_for_status(id, "completed").await;
    stack.api().wait_for_worker("w1", "AVAILABLE").await;
}

#[tokio::test]
async fn others_take_the_work_of_a_drained_worker() {
    let stack = Stack::start().await;
    let _drained = stack.worker("dummy", "w1").await;
    let drain = stack
        .api()
        .post("/api/v1/workers/w1/drain", &json!({}))
        .await;
    drain.expect(202);
    stack.api().wait_for_worker("w1", "DRAINING").await;

    let _other = stack.worker("dummy", "w2").await;

    for _ in 0..5 {
        let id = stack.api().started("dummy", &json!({"steps": 0})).await;
        let done = stack.api().wait_for_status(&id, "completed").await;
        assert_eq!(done["worker_id"], "w2");
    }
}

#[tokio::test]
async fn a_worker_that_is_unknown_or_does_not_answer_is_not_drained() {
    let stack = Stack::start().await;
    let mut worker: WorkerProcess = stack.worker("dummy", "w1").await;

    let unknown = stack
        .api()
        .post("/api/v1/workers/w2/drain", &json!({}))
        .await;
    unknown.expect_problem(404, "worker_not_found");
    worker.process.signal(Signal::Stop);
    let frozen = stack
        .api()
        .post("/api/v1/workers/w1/drain", &json!({}))
        .await;
    let frozen = frozen.expect_problem(503, "worker_not_answering");
    assert_eq!(frozen.at("/worker_id"), "w1");
    worker.process.signal(Signal::Cont);
}
