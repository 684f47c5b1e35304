//! The interface for worker authors: they implement [`Engine`], get [`context`], [`data_dir`] and
//! [`output`], and return an output or an error ([`error`]).

pub(crate) mod context;
pub(crate) mod data_dir;
pub(crate) mod declaration;
pub(crate) mod erased;
pub(crate) mod error;
pub(crate) mod events;
pub(crate) mod output;
pub(crate) mod panics;

use std::future::Future;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::engine::context::Context;
use crate::engine::error::OperationError;

/// The code that does the work of one worker type.
///
/// [`NAME`](Self::NAME), the two types and [`run`](Self::run) are required; everything else has a
/// default. A declaration that cannot work ends the worker at start, with the reason
/// ([`BadDeclaration`](crate::BadDeclaration)).
///
/// An operation can run more than once: its worker may die after the work was done and before the
/// end was recorded. So `run` must give the same outcome when it runs again from the start.
///
/// `TIMEOUT`, `STALL_TIMEOUT`, `MAX_ATTEMPTS` and `RETRY_DELAY` count for a start request that does
/// not set the option itself (`execution.timeout_seconds`, `stall_timeout_seconds`, `max_attempts`,
/// `retry_delay`). Option by option, the request is used first, then the engine's constant, then the protocol's default. The worker
/// that runs an attempt applies the constants of its own version.
pub trait Engine: Send + Sync + 'static {
    /// The worker type, for example `data_processing`: a lower-case name that clients and queues
    /// use. It is a contract, so never make it from a Rust type name.
    const NAME: &'static str;

    /// The path segment of the start route `POST /api/v1/{domain}/start`. Default: the name with
    /// `-` in place of `_`.
    const DOMAIN: Option<&'static str> = None;

    /// A few letters in the ids that the worker makes for direct starts (`worker_dp_…`). Default:
    /// the initials of the name's words, or its first two letters.
    const SHORT: Option<&'static str> = None;

    /// One sentence for people, shown in the catalogue and in the API documentation.
    const DESCRIPTION: &'static str = "";

    /// The version of the engine, shown in the catalogue: `env!("CARGO_PKG_VERSION")` names that of
    /// your crate. Default: the version of the SDK.
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    /// How long one attempt may run. Default: no limit.
    const TIMEOUT: Option<Duration> = None;

    /// How long one attempt may go on without any sign of life: progress, a metric point, a
    /// checkpoint, or [`Context::alive`]. Then it ends as `stalled` and is tried again. Set it
    /// several times longer than the longest quiet step. Default: no limit.
    const STALL_TIMEOUT: Option<Duration> = None;

    /// How many attempts an operation may have in all. Default: 3 when workers are lost, and a
    /// failure is final at once. Setting it also makes failures retry.
    const MAX_ATTEMPTS: Option<u32> = None;

    /// How long a failed attempt waits before the next one; doubled for each further attempt (with
    /// jitter, at most one hour). Default: one second. Setting it also makes failures retry. For a
    /// delay that depends on the failure, return [`OperationError::RetryAfter`].
    const RETRY_DELAY: Option<Duration> = None;

    /// Whether the engine uses a GPU when the machine has one. Without it a worker never claims the
    /// capability.
    const USES_GPU: bool = false;

    /// Whether `run` gives way at least every few milliseconds, for every request: by an `.await`
    /// that really waits, or by `tokio::task::consume_budget`.
    ///
    /// Such an engine runs beside the worker's own tasks, which saves two changes of thread per
    /// operation. If it blocks after all, the worker can lose the leases of its operations. With
    /// the default, engines have threads of their own and may block.
    const NEVER_BLOCKS: bool = false;

    /// The parameters of an operation, a struct with named fields. Two names are taken, because
    /// every start body has them with another meaning: `task_id` and `execution`.
    ///
    /// Backends check start requests against its JSON Schema, so state there what is allowed
    /// (`#[serde(deny_unknown_fields)]`, ranges, `#[schemars(url)]`): a client then learns of a
    /// mistake at once, and not from a failed operation. Formats are checked, too.
    type Request: DeserializeOwned + JsonSchema + Send + 'static;

    /// The result of an operation. JSON has no NaN and no infinity: they become `null`. Return an
    /// error, or an `Option`, where a figure may not exist; [`TestRun`](crate::testing::TestRun)
    /// finds a `null` that the schema does not allow.
    type Output: Serialize + JsonSchema + Send + 'static;

    /// Runs one attempt.
    ///
    /// Engines have threads of their own (except with [`Self::NEVER_BLOCKS`]), so even code that
    /// never awaits cannot delay heartbeats or the lease. Long computations still belong in
    /// [`Context::blocking`]. Call [`Context::check_cancelled`] at least once a second. A panic
    /// fails the attempt, with its place in the error, and the worker stays alive.
    ///
    /// # Errors
    /// [`OperationError`] decides whether the operation is retried.
    fn run(
        &self,
        ctx: Context,
        request: Self::Request,
    ) -> impl Future<Output = Result<Self::Output, OperationError>> + Send;
}
