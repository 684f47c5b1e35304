//! Engines that are known only at run time: for programs that serve other languages, or a type that
//! a file describes.
//!
//! An [`Engine`](crate::Engine) states its name, its types and its limits in the source. A
//! [`DynEngine`] returns them from [`DynEngine::info`], and takes and returns JSON. Everything else is
//! the same: the same declarations are refused ([`BadDeclaration`]), and every
//! `Engine` is a `DynEngine`, too.
//!
//! ```no_run
//! use futures::FutureExt;
//! use futures::future::BoxFuture;
//! use ktrdr_worker::dynamic::{DynEngine, EngineInfo};
//! use ktrdr_worker::{Context, OperationError, Worker};
//! use serde_json::json;
//! use serde_json::value::RawValue;
//!
//! struct Echo {
//!     name: String,
//! }
//!
//! impl DynEngine for Echo {
//!     fn info(&self) -> EngineInfo {
//!         EngineInfo::new(self.name.clone())
//!             .description("Returns what it is given.")
//!             .request_schema(json!({"type": "object"}))
//!     }
//!
//!     fn run<'a>(
//!         &'a self,
//!         _: Context,
//!         parameters: &'a RawValue,
//!     ) -> BoxFuture<'a, Result<Box<RawValue>, OperationError>> {
//!         async move { Ok(parameters.to_owned()) }.boxed()
//!     }
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     let name = std::env::args().nth(1).unwrap_or_else(|| "echo".to_owned());
//!     Worker::builder().dyn_engine(Echo { name }).run()
//! }
//! ```

use std::borrow::Cow;
use std::time::Duration;

use futures::future::BoxFuture;
use ktrdr_protocol::execution::ExecutionDefaults;
use ktrdr_protocol::schema_digest::SchemaDigest;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::engine::context::Context;
use crate::engine::declaration::BadDeclaration;
use crate::engine::erased::{digest, schema_digest, short_of};
use crate::engine::error::OperationError;

/// An engine that takes and returns JSON, and says at run time what it is.
pub trait DynEngine: Send + Sync + 'static {
    /// What the engine is. Asked once, when the worker starts.
    fn info(&self) -> EngineInfo;

    /// Runs one attempt; see [`Engine::run`](crate::Engine::run). `parameters` match the request
    /// schema: backends and direct starts check them. Only a message that somebody published on the bus
    /// by hand may not.
    ///
    /// # Errors
    /// [`OperationError`] decides whether the operation is retried.
    fn run<'a>(
        &'a self,
        ctx: Context,
        parameters: &'a RawValue,
    ) -> BoxFuture<'a, Result<Box<RawValue>, OperationError>>;
}

/// What an engine says about itself: the constants and the schemas of an [`Engine`](crate::Engine).
///
/// [`Self::new`] has the default of each; the methods set them.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EngineInfo {
    pub(crate) worker_type: Cow<'static, str>,
    pub(crate) domain: Cow<'static, str>,
    /// Marks ids that the worker makes itself.
    pub(crate) short: Cow<'static, str>,
    pub(crate) description: Cow<'static, str>,
    pub(crate) version: Cow<'static, str>,
    pub(crate) execution_defaults: ExecutionDefaults,
    pub(crate) uses_gpu: bool,
    pub(crate) never_blocks: bool,
    pub(crate) can_be_killed: bool,
    pub(crate) request_schema: Value,
    pub(crate) result_schema: Value,
    /// Names the version of the request schema.
    pub(crate) schema_digest: SchemaDigest,
}

impl EngineInfo {
    /// An engine of this worker type that takes any object and returns any JSON. It may block, has no
    /// description, and has the version of the SDK.
    pub fn new(worker_type: impl Into<Cow<'static, str>>) -> Self {
        let worker_type = worker_type.into();
        let info = Self {
            domain: worker_type.replace('_', "-").into(),
            short: short_of(&worker_type).into(),
            worker_type,
            description: Cow::Borrowed(""),
            version: Cow::Borrowed(env!("CARGO_PKG_VERSION")),
            execution_defaults: ExecutionDefaults::default(),
            uses_gpu: false,
            never_blocks: false,
            can_be_killed: false,
            request_schema: Value::Null,
            result_schema: Value::Object(Map::new()),
            schema_digest: digest(b""),
        };
        info.request_schema(Value::Object(Map::from_iter([(
            "type".to_owned(),
            Value::from("object"),
        )])))
    }

    /// Checks everything that the engine says, as a worker does before it starts.
    ///
    /// # Errors
    /// [`BadDeclaration`], the first fault.
    pub async fn check(&self) -> Result<(), BadDeclaration> {
        crate::engine::declaration::validate(self).await
    }

    /// The worker type.
    pub fn worker_type(&self) -> &str {
        &self.worker_type
    }

    /// The path segment of the start route; see [`Engine::DOMAIN`](crate::Engine::DOMAIN).
    #[must_use]
    pub fn domain(mut self, domain: impl Into<Cow<'static, str>>) -> Self {
        self.domain = domain.into();
        self
    }

    /// The letters in ids of direct starts; see [`Engine::SHORT`](crate::Engine::SHORT).
    #[must_use]
    pub fn short(mut self, short: impl Into<Cow<'static, str>>) -> Self {
        self.short = short.into();
        self
    }

    /// One sentence for people.
    #[must_use]
    pub fn description(mut self, description: impl Into<Cow<'static, str>>) -> Self {
        self.description = description.into();
        self
    }

    /// The version of the engine; see [`Engine::VERSION`](crate::Engine::VERSION).
    #[must_use]
    pub fn version(mut self, version: impl Into<Cow<'static, str>>) -> Self {
        self.version = version.into();
        self
    }

    /// The JSON Schema (2020-12) of the parameters. Backends check start requests against it.
    #[must_use]
    pub fn request_schema(mut self, schema: Value) -> Self {
        self.schema_digest = schema_digest(&schema);
        self.request_schema = schema;
        self
    }

    /// The JSON Schema (2020-12) of the result. It describes; results are not checked against it.
    #[must_use]
    pub fn result_schema(mut self, schema: Value) -> Self {
        self.result_schema = schema;
        self
    }

    /// How long one attempt may run; see [`Engine::TIMEOUT`](crate::Engine::TIMEOUT).
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.execution_defaults.timeout_seconds = Some(limit.as_secs_f64());
        self
    }

    /// How long one attempt may go on without a sign of life; see
    /// [`Engine::STALL_TIMEOUT`](crate::Engine::STALL_TIMEOUT).
    #[must_use]
    pub fn stall_timeout(mut self, limit: Duration) -> Self {
        self.execution_defaults.stall_timeout_seconds = Some(limit.as_secs_f64());
        self
    }

    /// How many attempts there may be; see [`Engine::MAX_ATTEMPTS`](crate::Engine::MAX_ATTEMPTS).
    #[must_use]
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.execution_defaults.max_attempts = Some(attempts);
        self
    }

    /// How long a failed attempt waits; see [`Engine::RETRY_DELAY`](crate::Engine::RETRY_DELAY).
    #[must_use]
    pub fn retry_delay(mut self, delay: Duration) -> Self {
        self.execution_defaults.retry_delay = Some(delay.as_secs_f64());
        self
    }

    /// Whether it uses a GPU where there is one; see [`Engine::USES_GPU`](crate::Engine::USES_GPU).
    #[must_use]
    pub fn uses_gpu(mut self, uses_gpu: bool) -> Self {
        self.uses_gpu = uses_gpu;
        self
    }

    /// Whether it never keeps its thread for long; see
    /// [`Engine::NEVER_BLOCKS`](crate::Engine::NEVER_BLOCKS).
    #[must_use]
    pub fn never_blocks(mut self, never_blocks: bool) -> Self {
        self.never_blocks = never_blocks;
        self
    }

    /// Whether it returns soon after [`Context::killed`], whatever it does. Such an engine has
    /// `WORKER_STOP_GRACE` to stop after a user's cancel, too. Any other engine has all the time it
    /// wants then, because nothing could end it.
    #[must_use]
    pub fn can_be_killed(mut self, can_be_killed: bool) -> Self {
        self.can_be_killed = can_be_killed;
        self
    }
}
