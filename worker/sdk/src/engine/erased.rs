//! An engine without its types: the SDK handles all engines through [`ErasedEngine`].

use futures::FutureExt;
use futures::future::BoxFuture;
use ktrdr_http::start_body::integral_numbers;
use ktrdr_protocol::execution::ExecutionDefaults;
use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::engine::Engine;
use crate::engine::context::Context;
use crate::engine::error::OperationError;

/// The constants and schemas of an engine.
#[derive(Debug, Clone)]
pub(crate) struct EngineInfo {
    pub(crate) worker_type: &'static str,
    pub(crate) domain: String,
    /// Marks ids that the worker makes itself.
    pub(crate) short: String,
    pub(crate) description: &'static str,
    pub(crate) execution_defaults: ExecutionDefaults,
    pub(crate) uses_gpu: bool,
    pub(crate) never_blocks: bool,
    pub(crate) request_schema: Value,
    pub(crate) result_schema: Value,
}

/// An engine that takes and returns JSON text.
pub(crate) trait ErasedEngine: Send + Sync + 'static {
    fn info(&self) -> EngineInfo;

    fn run<'a>(
        &'a self,
        ctx: Context,
        parameters: &'a RawValue,
    ) -> BoxFuture<'a, Result<Box<RawValue>, OperationError>>;
}

/// The initials of a name with several words (`data_processing`: `dp`), or the first two letters.
fn short_of(name: &str) -> String {
    if name.contains('_') {
        name.split('_')
            .filter_map(|word| word.chars().next())
            .collect()
    } else {
        name.chars().take(2).collect()
    }
}

/// Decodes parameters. A number that the schema accepts as an integer, for example `3.0`, is read
/// as one.
fn read<T: DeserializeOwned>(parameters: &str) -> Result<T, serde_json::Error> {
    serde_json::from_str(parameters).or_else(|error| {
        let mut value: Value = serde_json::from_str(parameters)?;
        integral_numbers(&mut value);
        // The first error names line and column of the text that was sent.
        serde_json::from_value(value).map_err(|_| error)
    })
}

/// Adds the bounds of an integer type to its schema: its `format` alone forbids no value.
fn bound_integers(schema: &mut Schema) {
    let (least, most) = match schema.get("format").and_then(Value::as_str) {
        Some("uint8") => (Value::from(0), Value::from(u8::MAX)),
        Some("uint16") => (Value::from(0), Value::from(u16::MAX)),
        Some("uint32") => (Value::from(0), Value::from(u32::MAX)),
        Some("uint64" | "uint") => (Value::from(0), Value::from(u64::MAX)),
        Some("int8") => (Value::from(i8::MIN), Value::from(i8::MAX)),
        Some("int16") => (Value::from(i16::MIN), Value::from(i16::MAX)),
        Some("int32") => (Value::from(i32::MIN), Value::from(i32::MAX)),
        Some("int64" | "int") => (Value::from(i64::MIN), Value::from(i64::MAX)),
        _ => return,
    };
    let bounds = schema.ensure_object();
    if !bounds.contains_key("exclusiveMinimum") {
        bounds.entry("minimum").or_insert(least);
    }
    if !bounds.contains_key("exclusiveMaximum") {
        bounds.entry("maximum").or_insert(most);
    }
}

impl<E: Engine> ErasedEngine for E {
    fn info(&self) -> EngineInfo {
        let schema = |settings: SchemaSettings, request: bool| {
            let generator = settings
                .with_transform(RecursiveTransform(bound_integers))
                .into_generator();
            let schema = if request {
                generator.into_root_schema_for::<E::Request>()
            } else {
                generator.into_root_schema_for::<E::Output>()
            };
            Value::from(schema)
        };
        EngineInfo {
            worker_type: E::NAME,
            domain: E::DOMAIN.map_or_else(|| E::NAME.replace('_', "-"), str::to_owned),
            short: E::SHORT.map_or_else(|| short_of(E::NAME), str::to_owned),
            description: E::DESCRIPTION,
            execution_defaults: ExecutionDefaults {
                timeout_seconds: E::TIMEOUT.map(|limit| limit.as_secs_f64()),
                stall_timeout_seconds: E::STALL_TIMEOUT.map(|limit| limit.as_secs_f64()),
                max_attempts: E::MAX_ATTEMPTS.map(|attempts| attempts.max(1)),
                retry_delay: E::RETRY_DELAY.map(|delay| delay.as_secs_f64()),
            },
            uses_gpu: E::USES_GPU,
            never_blocks: E::NEVER_BLOCKS,
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
            let request = read(parameters.get()).map_err(|error| {
                OperationError::invalid(format!("the parameters do not fit: {error}"))
            })?;
            let output = Engine::run(self, ctx, request).await?;
            serde_json::value::to_raw_value(&output).map_err(|error| {
                OperationError::permanent(
                    "result_not_json",
                    format!("the result cannot be written as JSON: {error}"),
                )
            })
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_mark_is_made_from_the_name() {
        assert_eq!(short_of("data_processing"), "dp");
        assert_eq!(short_of("training"), "tr");
    }
}
