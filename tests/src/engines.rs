//! Engines for tests: one that waits at a gate, one that blocks its thread, one that fails a number
//! of times.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ktrdr_protocol::id::OperationId;
use ktrdr_worker::{Context, Engine, OperationError, Progress};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, Semaphore, mpsc};

use crate::wait::LIMIT;

/// Which attempt finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Finished {
    /// Counted from 1.
    pub attempt: u32,
}

/// `gate`: says that it has started, and finishes when the test opens the gate.
#[derive(Debug, Clone)]
pub struct GateEngine {
    started: mpsc::UnboundedSender<(OperationId, u32)>,
    open: Arc<Semaphore>,
}

/// The test's side of a [`GateEngine`], which may run in several workers.
#[derive(Debug)]
pub struct Gate {
    started: Mutex<mpsc::UnboundedReceiver<(OperationId, u32)>>,
    open: Arc<Semaphore>,
}

/// The parameters of a [`GateEngine`].
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GateRequest {
    /// Keeps waiting at the gate when it is cancelled.
    pub ignore_cancel: bool,
    /// Any text; the engine does not read it.
    pub note: String,
}

impl GateEngine {
    /// An engine and its gate, closed.
    pub fn new() -> (Self, Gate) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let open = Arc::new(Semaphore::new(0));

        (
            Self {
                started: sender,
                open: open.clone(),
            },
            Gate {
                started: Mutex::new(receiver),
                open,
            },
        )
    }
}

impl Gate {
    /// Waits for the next attempt that reaches the gate.
    ///
    /// # Panics
    /// When none does within [`LIMIT`].
    pub async fn started(&self) -> (OperationId, u32) {
        let next =
            tokio::time::timeout(LIMIT, async { self.started.lock().await.recv().await }).await;
        next.expect("an attempt that reaches the gate in time")
            .expect("a living engine")
    }

    /// The attempts that reached the gate and were not asked for with [`Self::started`].
    pub async fn unseen(&self) -> Vec<(OperationId, u32)> {
        let mut started = self.started.lock().await;
        std::iter::from_fn(|| started.try_recv().ok()).collect()
    }

    /// Lets `count` attempts through.
    pub fn open(&self, count: usize) {
        self.open.add_permits(count);
    }

    /// Lets every attempt through from now on.
    pub fn open_for_all(&self) {
        self.open.add_permits(Semaphore::MAX_PERMITS / 2);
    }
}

impl Engine for GateEngine {
    const NAME: &'static str = "gate";
    const SHORT: Option<&'static str> = Some("gt");
    const DESCRIPTION: &'static str = "Waits until the test opens the gate.";
    type Request = GateRequest;
    type Output = Finished;

    async fn run(&self, ctx: Context, request: GateRequest) -> Result<Finished, OperationError> {
        ctx.progress(Progress::new(50.0).step("at the gate"));
        let _ = self
            .started
            .send((ctx.operation_id().clone(), ctx.attempt()));

        // Both arms are cancel safe: a permit that was not given is still there.
        tokio::select! {
            permit = self.open.acquire() => permit.map_err(|_| OperationError::failed("the gate is gone"))?.forget(),
            () = ctx.cancelled(), if !request.ignore_cancel => return Err(OperationError::Cancelled),
        }
        Ok(Finished {
            attempt: ctx.attempt(),
        })
    }
}

/// `blocking`: computes without ever awaiting, like a badly written engine.
#[derive(Debug, Clone, Copy, Default)]
pub struct BlockingEngine;

/// The parameters of a [`BlockingEngine`].
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BlockingRequest {
    /// How long to compute.
    pub millis: u64,
    /// Keeps computing when it is cancelled.
    pub ignore_cancel: bool,
}

impl Engine for BlockingEngine {
    const NAME: &'static str = "blocking";
    const DESCRIPTION: &'static str = "Computes on the thread it is called on.";
    type Request = BlockingRequest;
    type Output = Finished;

    async fn run(
        &self,
        ctx: Context,
        request: BlockingRequest,
    ) -> Result<Finished, OperationError> {
        let (begin, length) = (Instant::now(), Duration::from_millis(request.millis));
        let mut value = 1_u64;
        while begin.elapsed() < length {
            for _ in 0..10_000 {
                value = std::hint::black_box(
                    value
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1),
                );
            }
            if !request.ignore_cancel {
                ctx.check_cancelled()?;
            }
        }

        Ok(Finished {
            attempt: ctx.attempt(),
        })
    }
}

/// `flaky`: fails in its first attempts.
#[derive(Debug, Clone, Copy, Default)]
pub struct FlakyEngine;

/// How a [`FlakyEngine`] fails.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Failing {
    /// An error that may go away.
    #[default]
    Error,
    /// An error that will not.
    Permanent,
    /// A panic.
    Panic,
    /// An error with the engine's own delay before the retry.
    RetryAfter,
}

/// The parameters of a [`FlakyEngine`].
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FlakyRequest {
    /// How many attempts fail.
    pub failures: u32,
    /// How.
    pub how: Failing,
}

impl Engine for FlakyEngine {
    const NAME: &'static str = "flaky";
    const DESCRIPTION: &'static str = "Fails in its first attempts.";
    type Request = FlakyRequest;
    type Output = Finished;

    async fn run(&self, ctx: Context, request: FlakyRequest) -> Result<Finished, OperationError> {
        let attempt = ctx.attempt();
        if attempt > request.failures {
            return Ok(Finished { attempt });
        }
        let message = format!("attempt {attempt} of {} that fail", request.failures);

        Err(match request.how {
            Failing::Error => OperationError::failed(message),
            Failing::Permanent => OperationError::permanent("flaky", message),
            Failing::RetryAfter => {
                OperationError::retry_after("engine_error", message, Duration::from_millis(100))
            }
            Failing::Panic => panic!("{message}"),
        })
    }
}

/// `limited`: has a time limit of 0.2 s and two attempts, unless a request sets its own.
#[derive(Debug, Clone, Copy, Default)]
pub struct LimitedEngine;

/// The parameters of a [`LimitedEngine`].
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitedRequest {
    /// How long an attempt takes. Without it, every attempt fails at once.
    pub millis: Option<u64>,
}

impl Engine for LimitedEngine {
    const NAME: &'static str = "limited";
    const DESCRIPTION: &'static str = "Has limits of its own.";
    const TIMEOUT: Option<Duration> = Some(Duration::from_millis(200));
    const MAX_ATTEMPTS: Option<u32> = Some(2);
    const RETRY_DELAY: Option<Duration> = Some(Duration::from_millis(10));
    type Request = LimitedRequest;
    type Output = Finished;

    async fn run(&self, ctx: Context, request: LimitedRequest) -> Result<Finished, OperationError> {
        let Some(millis) = request.millis else {
            return Err(OperationError::failed("every attempt fails"));
        };

        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(millis)) => {}
            () = ctx.cancelled() => return Err(OperationError::Cancelled),
        }
        Ok(Finished {
            attempt: ctx.attempt(),
        })
    }
}
