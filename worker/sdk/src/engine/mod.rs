//! The trait a worker author implements: what the work is, and how it is done. Everything else is the SDK's.

pub(crate) mod context;
pub(crate) mod data_dir;
pub(crate) mod erased;
pub(crate) mod error;

use std::future::Future;

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::engine::context::Context;
use crate::engine::error::OperationError;

/// One kind of long work.
///
/// The worker type is a contract with everybody who starts operations: a lower-case string, never a Rust type name.
///
/// An operation can run more than once (its worker may die after the work was done and before that was recorded), so `run`
/// must give the same outcome when it is run again from the start.
pub trait Engine: Send + Sync + 'static {
    /// The worker type, for example `data_processing`.
    const WORKER_TYPE: &'static str;
    /// Its place in REST paths, for example `data-processing`: operations start at `POST /api/v1/{domain}/start`.
    const DOMAIN: &'static str;
    /// Two letters that mark ids made by the worker itself: `worker_dp_…`.
    const SHORT: &'static str;
    /// One sentence for people, shown in the catalogue and the API documentation.
    const DESCRIPTION: &'static str;
    /// Whether this engine computes on a GPU when the machine has one. Without it a worker never claims the capability.
    const USES_GPU: bool = false;
    /// Whether `run` gives way, by an `.await` that really waits or by `tokio::task::consume_budget`, at least every few
    /// milliseconds, whatever the request. Then it runs beside the worker's own tasks, which saves each operation two changes of
    /// thread: worth it for thousands of short operations a second. An engine that says so and does not keep it can lose its
    /// leases.
    const NEVER_BLOCKS: bool = false;

    /// The parameters. Its JSON Schema is what backends check start requests against, so say there what is allowed
    /// (`#[serde(deny_unknown_fields)]`, ranges): a user then hears of a mistake at once and not from a failed operation.
    type Request: DeserializeOwned + JsonSchema + Send + 'static;
    /// The result.
    type Output: Serialize + JsonSchema + Send + 'static;

    /// Does the work.
    ///
    /// Called on a runtime of its own (but see [`Self::NEVER_BLOCKS`]), so that even code that never awaits cannot starve
    /// heartbeats or the lease; work that computes for long still belongs in [`Context::blocking`]. Look at [`Context::check_cancelled`] often enough that a
    /// cancel takes effect within a second. A panic fails the operation and leaves the worker alive.
    ///
    /// # Errors
    /// [`OperationError`] decides what becomes of the operation.
    fn run(
        &self,
        ctx: Context,
        request: Self::Request,
    ) -> impl Future<Output = Result<Self::Output, OperationError>> + Send;
}
