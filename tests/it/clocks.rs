//! Wrong clocks: a worker whose clock is hours off, or is set while it runs, neither looks lost nor
//! loses its operation, and all times shown are stream times.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use ktrdr_protocol::time::Timestamp;
use ktrdr_tests::{Bus, LIMIT, Stack, wait_for};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

const HOUR: i64 = 3_600_000;

/// A simulated worker whose clock the test sets.
struct Skewed {
    bus: Bus,
    id: &'static str,
    /// How far its clock is ahead, in milliseconds.
    ahead: Arc<AtomicI64>,
    beats: Arc<AtomicU64>,
    beating: JoinHandle<()>,
}

fn clock(ahead: i64) -> Timestamp {
    Timestamp::from_millis(Timestamp::now().as_millis() + ahead)
}

impl Skewed {
    /// Starts a worker that sends ten heartbeats a second, all with `operation` running.
    fn start(stack: &Stack, id: &'static str, ahead: i64, operation: &str) -> Self {
        let (bus, ahead, beats) = (
            stack.bus.clone(),
            Arc::new(AtomicI64::new(ahead)),
            Arc::new(AtomicU64::new(0)),
        );
        let running = json!([{"operation_id": operation, "attempt": 1}]);

        let (to, offset, count) = (bus.clone(), ahead.clone(), beats.clone());
        let beating = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_millis(100));
            loop {
                ticks.tick().await;
                let at = clock(offset.load(Ordering::Relaxed));
                let beat = json!({
                    "worker_id": id, "worker_type": "dummy", "instance": "1", "endpoint_url": "http://127.0.0.1:1",
                    "status": "AVAILABLE", "capabilities": {}, "version": "1", "registered_at": at, "at": at,
                    "interval_seconds": 0.2, "slots": 2, "running": running, "last_pull_at": at,
                });
                to.publish(format!("ktrdr.heartbeat.dummy.{id}"), beat.to_string())
                    .await;
                count.fetch_add(1, Ordering::Relaxed);
            }
        });

        Self {
            bus,
            id,
            ahead,
            beats,
            beating,
        }
    }

    fn now(&self) -> Timestamp {
        clock(self.ahead.load(Ordering::Relaxed))
    }

    async fn event(&self, operation: &str, mut event: Value) {
        let more = json!({"operation_id": operation, "attempt": 1, "at": self.now(), "worker_id": self.id, "claim": "c"});
        event
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        self.bus
            .store(format!("ktrdr.op.dummy.{operation}"), event.to_string())
            .await;
    }

    async fn progress(&self, operation: &str, report: u64, percentage: u64) {
        let message = json!({
            "operation_id": operation, "worker_id": self.id, "attempt": 1, "at": self.now(), "report": report,
            "progress": {"percentage": percentage},
        });
        self.bus
            .publish(
                format!("ktrdr.progress.dummy.{operation}"),
                message.to_string(),
            )
            .await;
    }

    /// Waits for enough heartbeats that a backend would have acted, had it believed the worker
    /// lost.
    async fn beats_on(&self) {
        let until = self.beats.load(Ordering::Relaxed) + 30;
        wait_for("heartbeats", LIMIT, async || {
            match self.beats.load(Ordering::Relaxed) {
                count if count >= until => Ok(()),
                count => Err(format!("{count} of {until}")),
            }
        })
        .await;
    }
}

impl Drop for Skewed {
    fn drop(&mut self) {
        self.beating.abort();
    }
}

fn time(value: &Value) -> i64 {
    serde_json::from_value::<Timestamp>(value.clone())
        .unwrap_or_else(|_| panic!("no time: {value}"))
        .as_millis()
}

async fn wait_for_percentage(stack: &Stack, id: &str, percentage: u64) {
    wait_for("the progress", LIMIT, async || {
        let shown = stack
            .api()
            .operation(id)
            .await
            .at("/data/progress/percentage")
            .clone();
        if shown == percentage {
            Ok(())
        } else {
            Err(shown.to_string())
        }
    })
    .await;
}

#[tokio::test]
async fn a_worker_whose_clock_is_an_hour_off_is_like_any_other() {
    let stack = Stack::start().await;

    let began = Timestamp::now().as_millis();

    // Started directly, because a backend closes direct starts when their worker looks lost.
    let ids = ["ahead", "behind"];
    for (id, ahead) in ids.into_iter().zip([HOUR, -HOUR]) {
        let worker = Skewed::start(&stack, id, ahead, id);
        let request = json!({"operation_id": id, "operation_type": "dummy", "parameters": {}, "created_at": worker.now()});
        let start_sequence = stack
            .bus
            .store("ktrdr.start.dummy.direct", request.to_string())
            .await;
        worker
            .event(
                id,
                json!({"event": "started", "start_sequence": start_sequence, "delivery": 1}),
            )
            .await;
        let listed = stack.api().wait_for_worker(id, "AVAILABLE").await;
        for told in ["registered_at", "last_pull_at", "last_health_check"] {
            let off = (time(&listed[told]) - Timestamp::now().as_millis()).abs();
            assert!(off < 60_000, "{told} is off by {off} ms: {listed}");
        }
        stack.api().wait_for_status(id, "running").await;
        worker.progress(id, 1, 20).await;
        wait_for_percentage(&stack, id, 20).await;
        // The clock is set to the other side while the operation runs. The next report is still the
        // newest.
        worker.ahead.store(-ahead, Ordering::Relaxed);
        worker.progress(id, 2, 40).await;
        wait_for_percentage(&stack, id, 40).await;
        worker.beats_on().await;
        let running = stack.api().operation(id).await;
        assert_eq!(running.at("/data/status"), "running", "{running}");
        let ran = running.at("/data/duration_seconds").as_f64().unwrap();
        assert!((2.0..60.0).contains(&ran), "{running}");
        let listed = stack
            .api()
            .get(&format!("/api/v1/workers/{id}"))
            .await
            .expect(200)
            .json;
        assert_eq!(
            (&listed["status"], &listed["health_check_failures"]),
            (&json!("AVAILABLE"), &json!(0))
        );
        worker
            .event(id, json!({"event": "completed", "result": {"steps": 1}}))
            .await;
        let done = stack.api().wait_for_status(id, "completed").await;
        let times = ["created_at", "started_at", "completed_at", "updated_at"]
            .map(|name| time(&done[name]));
        assert!(times.is_sorted(), "{done}");
        assert!(
            times[0] >= began - 1000 && times[3] <= Timestamp::now().as_millis() + 1000,
            "{done}"
        );
        assert!(
            (2.0..60.0).contains(&done["duration_seconds"].as_f64().unwrap()),
            "{done}"
        );
    }

    let all = stack.api().operations("").await.expect(200);
    let listed = all.at("/data/operations").as_array().unwrap();
    assert_eq!(
        (&listed[0]["operation_id"], &listed[1]["operation_id"]),
        (&json!("behind"), &json!("ahead"))
    );
    assert!(
        time(&listed[0]["created_at"]) >= time(&listed[1]["created_at"]),
        "{all}"
    );

    // Counted in the minutes in which they happened, not an hour away.
    let stats = stack.api().get("/api/v1/stats").await.expect(200);
    let minutes = stats
        .at("/data/minutes")
        .as_array()
        .unwrap_or_else(|| panic!("no minutes: {stats}"));
    let last: u64 = minutes
        .iter()
        .rev()
        .take(3)
        .map(|minute| minute["completed"].as_u64().unwrap())
        .sum();
    assert_eq!(last, 2, "{stats}");
}

#[tokio::test]
async fn a_worker_whose_clock_is_an_hour_off_is_noticed_when_it_dies() {
    let stack = Stack::start().await;

    for (id, ahead) in [("ahead", HOUR), ("behind", -HOUR)] {
        let worker = Skewed::start(&stack, id, ahead, id);
        let request = json!({"operation_id": id, "operation_type": "dummy", "parameters": {}, "created_at": worker.now()});
        let start_sequence = stack
            .bus
            .store("ktrdr.start.dummy.direct", request.to_string())
            .await;
        worker
            .event(
                id,
                json!({"event": "started", "start_sequence": start_sequence, "delivery": 1}),
            )
            .await;
        stack.api().wait_for_worker(id, "AVAILABLE").await;
        drop(worker);
        stack
            .api()
            .wait_for_worker(id, "TEMPORARILY_UNAVAILABLE")
            .await;
        let failed = stack.api().wait_for_status(id, "failed").await;
        assert_eq!(failed["error"]["code"], "worker_lost");
        assert!(
            (0.0..60.0).contains(&failed["duration_seconds"].as_f64().unwrap()),
            "{failed}"
        );
    }
}

#[tokio::test]
async fn a_retry_is_due_by_the_streams_clock() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;

    for (id, ahead) in [("ahead", HOUR), ("behind", -HOUR)] {
        // An attempt by a worker whose clock is off, to be retried after two seconds. Its request
        // is delivered again at once.
        let (at, due) = (clock(ahead), clock(ahead).plus(Duration::from_secs(2)));
        let common =
            json!({"operation_id": id, "attempt": 1, "at": at, "worker_id": "gone", "claim": "c"});
        for more in [
            json!({"event": "started", "start_sequence": 1, "delivery": 1}),
            json!({"event": "released", "reason": "retry", "retry_at": due,
                   "error": {"code": "engine_error", "message": "once more"}}),
        ] {
            let mut event = common.clone();
            event
                .as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            stack
                .bus
                .store(format!("ktrdr.op.dummy.{id}"), event.to_string())
                .await;
        }
        let request = json!({"operation_id": id, "operation_type": "dummy", "parameters": {"steps": 0}, "created_at": at});
        stack
            .bus
            .store("ktrdr.start.dummy.any", request.to_string())
            .await;
        stack
            .bus
            .wait_for_events(
                "dummy",
                id,
                &["started", "released", "started", "completed"],
            )
            .await;
        let history = stack
            .api()
            .get(&format!("/api/v1/operations/{id}/history"))
            .await
            .expect(200);
        let times: Vec<i64> = history
            .at("/data/history")
            .as_array()
            .unwrap()
            .iter()
            .map(|one| time(&one["time"]))
            .collect();
        // started, released, the request, started, completed.
        let waited = times[3] - times[1];
        assert!(
            (1900..20_000).contains(&waited),
            "it waited {waited} ms: {history}"
        );
    }

    stack.bus.settled().await;
}
