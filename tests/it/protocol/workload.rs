//! What uses all of the protocol: every kind of start, of end, and of control.

use ktrdr_protocol::id::ScheduleId;
use ktrdr_tests::settings::repository;
use ktrdr_tests::{
    BackendProcess, Bus, Client, LIMIT, NatsServer, Scratch, Settings, WorkerProcess, wait_for,
};
use reqwest::Method;
use serde_json::json;

use super::recorder::{Recorded, Recorder};

/// What the workload runs on.
pub struct System {
    pub recorder: Recorder,
    _nats: NatsServer,
    bus: Bus,
    settings: Settings,
    backend: BackendProcess,
    dummy: WorkerProcess,
    training: WorkerProcess,
}

/// A request that no worker understands.
pub const NO_QUESTION: &[u8] = b"no JSON";

const SLOW: u64 = 100_000;

impl System {
    /// The recorder hears everything, from the first message on.
    pub async fn start(data: &Scratch) -> Self {
        let nats = NatsServer::start().await;
        let bus = nats.bus().await;
        let recorder = Recorder::start(&bus).await;
        let bars = repository().join("data/GOOG_1d.csv");
        std::fs::copy(bars, data.join("GOOG_1d.csv")).unwrap();
        let settings = Settings::fast(nats.url())
            .data_dir(data.path())
            .with("KTRDR_CHECKPOINT_INTERVAL", "0s");

        let backend = BackendProcess::start(&settings).await;
        let dummy = WorkerProcess::start(&settings, "dummy", "d1").await;
        let training = WorkerProcess::start(&settings, "training", "t1").await;
        for id in ["d1", "t1"] {
            backend.api.wait_for_worker(id, "AVAILABLE").await;
        }
        Self {
            recorder,
            _nats: nats,
            bus,
            settings,
            backend,
            dummy,
            training,
        }
    }

    pub async fn use_everything(&mut self) {
        self.starts_and_ends().await;
        self.cancels().await;
        self.checkpoints().await;
        self.control().await;
        self.schedule().await;
        self.ask_worker().await;
        self.stop_and_forget().await;
    }

    /// The rings that the server has stored.
    pub async fn rings(&self) -> Vec<Recorded> {
        let stream = self.bus.jetstream.get_stream("KTRDR_SCHEDULES").await;
        let ring = self.bus.names.ring(&ScheduleId::new("tick").unwrap());
        let message = stream.unwrap().get_last_raw_message_by_subject(&ring).await;
        let message = message.unwrap();
        vec![Recorded::new(&ring, &message.headers, message.payload)]
    }

    fn api(&self) -> &Client {
        &self.backend.api
    }

    /// Results of both sizes, failures, a retry, a delay, other priorities and both keys.
    async fn starts_and_ends(&self) {
        let api = self.api();
        let labelled = json!({
            "steps": 3, "step_ms": 10,
            "execution": {"labels": {"symbol": "GOOG"}, "timeout_seconds": 60, "stall_timeout_seconds": 60},
        });
        let first = json!({"steps": 0, "execution": {"priority": 1, "queue_timeout_seconds": 60}});
        let large = json!({"steps": 0, "result_bytes": 600_000});
        let delayed = json!({"steps": 0, "execution": {"delay_seconds": 0.5}});
        let with_keys = json!({"steps": 0, "execution": {
            "unique": {"key": "nightly", "on_conflict": "reject"},
            "concurrency": {"key": "licence", "limit": 2},
        }});
        for body in [labelled, first, large, delayed, with_keys] {
            let id = api.started("dummy", &body).await;
            api.wait_for_status(&id, "completed").await;
        }

        let failing = json!({
            "steps": 1, "step_ms": 0, "fail_at_step": 1,
            "execution": {"max_attempts": 2, "retry_delay": 0.1},
        });
        let id = api.started("dummy", &failing).await;
        api.wait_for_status(&id, "failed").await;
        let path = format!("/api/v1/operations/{id}/retry");
        let again = api.post(&path, &json!({})).await.expect(202);
        let again = again.json["operation_id"].as_str().unwrap();
        api.wait_for_status(again, "failed").await;

        let many = json!({"operations": [{"steps": 0, "task_id": "many-1"}, {"steps": 0, "task_id": "many-2"}]});
        api.post("/api/v1/dummy/start-many", &many)
            .await
            .expect(200);
        for id in ["many-1", "many-2"] {
            api.wait_for_status(id, "completed").await;
        }
    }

    /// Of a pending operation, of a running one, and of one that ignores it.
    async fn cancels(&self) {
        let api = self.api();
        let waiting = json!({"execution": {"requirements": {"gpu": true}}});
        let id = api.started("dummy", &waiting).await;
        let path = format!("/api/v1/operations/{id}");
        let moved = api
            .request(Method::PATCH, &path)
            .json(&json!({"priority": 5}));
        api.send(moved).await.expect(200);
        api.cancel(&id).await.expect(200);

        let id = api.running("dummy", &json!({"steps": SLOW})).await;
        let path = format!("/api/v1/operations/{id}?force_refresh=true");
        api.get(&path).await.expect(200);
        let path = format!("/api/v1/operations/{id}/cancel?reason=enough");
        api.delete(&path).await.expect(200);
        api.wait_for_status(&id, "cancelled").await;

        let stubborn = json!({"steps": 40, "step_ms": 50, "ignore_cancel": true});
        let id = api.running("dummy", &stubborn).await;
        api.cancel(&id).await.expect(200);
        api.wait_for_status(&id, "cancelled").await;
        api.wait_for_worker("d1", "AVAILABLE").await;

        let body = json!({"steps": SLOW, "task_id": "direct"});
        self.dummy.api.post("/dummy/start", &body).await.expect(200);
        self.dummy.api.cancel("direct").await.expect(200);
        api.wait_for_status("direct", "cancelled").await;
    }

    /// A training that is taken over, one that is resumed.
    async fn checkpoints(&mut self) {
        let training =
            |id: &str| json!({"task_id": id, "symbol": "GOOG", "timeframe": "1d", "epochs": 150});
        let api = self.backend.api.clone();
        api.started("training", &training("taken-over")).await;
        self.wait_for_checkpoint("training.taken-over").await;
        self.training.process.kill();
        self.training.restart().await;
        api.wait_for_status("taken-over", "completed").await;

        api.started("training", &training("first")).await;
        self.wait_for_checkpoint("training.first").await;
        api.cancel("first").await.expect(200);
        api.wait_for_status("first", "cancelled").await;
        let resumed = api
            .post("/api/v1/operations/first/resume", &json!({}))
            .await;
        let resumed = resumed.expect(202).json["operation_id"].clone();
        api.wait_for_status(resumed.as_str().unwrap(), "completed")
            .await;
    }

    async fn wait_for_checkpoint(&self, key: &str) {
        let bucket = self.bus.jetstream.get_key_value("KTRDR_CHECKPOINTS").await;
        let bucket = bucket.unwrap();
        wait_for("a checkpoint", LIMIT, async || {
            match bucket.get(key).await {
                Ok(Some(_)) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }

    /// Paused queues and drained workers.
    async fn control(&self) {
        let api = self.api();
        for verb in ["pause", "resume"] {
            let path = format!("/api/v1/queues/dummy/{verb}");
            api.post(&path, &json!({})).await.expect(200);
        }
        for verb in ["drain", "undrain"] {
            let path = format!("/api/v1/workers/d1/{verb}");
            api.post(&path, &json!({})).await.expect(202);
        }
        api.wait_for_worker("d1", "AVAILABLE").await;
    }

    /// A schedule from its first slot to its end.
    async fn schedule(&self) {
        let api = self.api();
        let every_second = json!({
            "domain": "dummy", "body": {"steps": 0}, "cron": "* * * * * *", "time_zone": "Europe/Berlin",
        });
        let path = "/api/v1/schedules/tick";
        let put = api.request(Method::PUT, path).json(&every_second);
        api.send(put).await.expect(201);
        let ring = self.bus.names.ring(&ScheduleId::new("tick").unwrap());
        wait_for("an operation and a ring", LIMIT, async || {
            let shown = api.get(path).await;
            let rings = self.bus.stored_in("KTRDR_SCHEDULES", &ring).await;
            let has_both = !shown.at("/data/last_run").is_null() && !rings.is_empty();
            has_both.then_some(()).ok_or(shown.to_string())
        })
        .await;
        api.delete(path).await.expect(200);
    }

    /// What people ask with `nats req`.
    async fn ask_worker(&self) {
        for (verb, question) in [("health", &b""[..]), ("operation", NO_QUESTION)] {
            let worker = "d1".parse().unwrap();
            let subject = self.bus.names.worker(&worker, verb);
            let asked = self.bus.client.request(subject, question.into()).await;
            asked.unwrap();
        }
    }

    /// A worker that gives an operation back, and a type that is forgotten.
    async fn stop_and_forget(&mut self) {
        let api = self.backend.api.clone();
        let id = api
            .running("dummy", &json!({"steps": 50, "step_ms": 20}))
            .await;
        self.dummy.process.stop().await;
        let _next = WorkerProcess::start(&self.settings, "dummy", "d2").await;
        api.wait_for_status(&id, "completed").await;

        self.training.process.stop().await;
        wait_for("the type to be forgotten", LIMIT, async || {
            let answer = api.delete("/api/v1/worker-types/training").await;
            match answer.status {
                200 => Ok(()),
                _ => Err(answer.to_string()),
            }
        })
        .await;
    }
}
