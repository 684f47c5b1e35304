//! An engine without its types: what the runtime, which is the same for all engines, works with.

use futures::FutureExt;
use futures::future::BoxFuture;
use schemars::generate::SchemaSettings;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::context::Context;
use crate::engine::Engine;
use crate::error::OperationError;

/// What an engine says about itself.
#[derive(Debug, Clone)]
pub(crate) struct EngineInfo {
    pub(crate) worker_type: &'static str,
    pub(crate) domain: &'static str,
    pub(crate) short: &'static str,
    pub(crate) description: &'static str,
    pub(crate) uses_gpu: bool,
    pub(crate) request_schema: Value,
    pub(crate) result_schema: Value,
}

/// An engine that takes and gives JSON text.
pub(crate) trait ErasedEngine: Send + Sync + 'static {
    fn info(&self) -> EngineInfo;

    fn run<'a>(
        &'a self,
        ctx: Context,
        parameters: &'a RawValue,
    ) -> BoxFuture<'a, Result<Box<RawValue>, OperationError>>;
}

impl<E: Engine> ErasedEngine for E {
    fn info(&self) -> EngineInfo {
        let schema = |settings: SchemaSettings, request: bool| {
            let generator = settings.into_generator();
            let schema = if request {
                generator.into_root_schema_for::<E::Request>()
            } else {
                generator.into_root_schema_for::<E::Output>()
            };
            Value::from(schema)
        };
        EngineInfo {
            worker_type: E::WORKER_TYPE,
            domain: E::DOMAIN,
            short: E::SHORT,
            description: E::DESCRIPTION,
            uses_gpu: E::USES_GPU,
            request_schema: schema(SchemaSettings::draft2020_12().for_deserialize(), true),
            result_schema: schema(SchemaSettings::draft2020_12().for_serialize(), false),
        }
    }

    fn run<'a>(
        &'a self,
        ctx: Context,
        parameters: &'a RawValue,
    ) -> BoxFuture<'a, Result<Box<RawValue>, OperationError>> {
        async move {
            let request = serde_json::from_str(parameters.get())
                .map_err(|error| OperationError::invalid(format!("the parameters do not fit: {error}")))?;
            let output = Engine::run(self, ctx, request).await?;
            serde_json::value::to_raw_value(&output).map_err(|error| {
                OperationError::permanent("result_not_json", format!("the result cannot be written as JSON: {error}"))
            })
        }
        .boxed()
    }
}
