//! An engine without its types: the SDK handles all engines through [`DynEngine`].

use std::borrow::Cow;

use futures::FutureExt;
use futures::future::BoxFuture;
use ktrdr_http::schema::integer_limits;
use ktrdr_http::start_body::integral_numbers;
use ktrdr_protocol::execution::ExecutionDefaults;
use ktrdr_protocol::schema_digest::SchemaDigest;
use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::dynamic::{DynEngine, EngineInfo};
use crate::engine::Engine;
use crate::engine::context::Context;
use crate::engine::error::OperationError;

/// The initials of a name with several words (`data_processing`: `dp`), or the first two letters.
pub(crate) fn short_of(name: &str) -> String {
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

/// Decodes the parameters of a start request.
///
/// # Errors
/// `invalid_request`.
pub(crate) fn decode<T: DeserializeOwned>(parameters: &RawValue) -> Result<T, OperationError> {
    read(parameters.get())
        .map_err(|error| OperationError::invalid(format!("the parameters do not fit: {error}")))
}

/// The digest of a request schema. The order of members says nothing, so it counts for nothing: they are
/// sorted by name, as in builds in which all JSON was.
pub(crate) fn schema_digest(schema: &Value) -> SchemaDigest {
    let mut sorted = schema.clone();
    sorted.sort_all_objects();
    digest(sorted.to_string().as_bytes())
}

/// A digest of a text. Only compared with digests that workers make.
pub(crate) fn digest(text: &[u8]) -> SchemaDigest {
    let digest = Sha256::digest(text);
    SchemaDigest::from_bytes(digest.first_chunk().copied().unwrap_or_default())
}

impl<E: Engine> DynEngine for E {
    fn info(&self) -> EngineInfo {
        let schema = |settings: SchemaSettings, request: bool| {
            let generator = settings
                .with_transform(RecursiveTransform(integer_limits::add))
                .into_generator();
            let schema = if request {
                generator.into_root_schema_for::<E::Request>()
            } else {
                generator.into_root_schema_for::<E::Output>()
            };
            Value::from(schema)
        };
        let request_schema = schema(SchemaSettings::draft2020_12().for_deserialize(), true);
        EngineInfo {
            schema_digest: schema_digest(&request_schema),
            worker_type: Cow::Borrowed(E::NAME),
            domain: E::DOMAIN.map_or_else(|| E::NAME.replace('_', "-").into(), Cow::Borrowed),
            short: E::SHORT.map_or_else(|| short_of(E::NAME).into(), Cow::Borrowed),
            description: Cow::Borrowed(E::DESCRIPTION),
            version: Cow::Borrowed(E::VERSION),
            execution_defaults: ExecutionDefaults {
                timeout_seconds: E::TIMEOUT.map(|limit| limit.as_secs_f64()),
                stall_timeout_seconds: E::STALL_TIMEOUT.map(|limit| limit.as_secs_f64()),
                max_attempts: E::MAX_ATTEMPTS,
                retry_delay: E::RETRY_DELAY.map(|delay| delay.as_secs_f64()),
            },
            uses_gpu: E::USES_GPU,
            never_blocks: E::NEVER_BLOCKS,
            can_be_killed: false,
            request_schema,
            result_schema: schema(SchemaSettings::draft2020_12().for_serialize(), false),
        }
    }

    fn run<'a>(
        &'a self,
        ctx: Context,
        parameters: &'a RawValue,
    ) -> BoxFuture<'a, Result<Box<RawValue>, OperationError>> {
        async move {
            let request = decode(parameters)?;
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
    fn the_order_of_a_schema_does_not_change_its_digest() {
        let written =
            r#"{"type":"object","properties":{"steps":{"type":"integer","minimum":0},"also":{}}}"#;
        let sorted =
            r#"{"properties":{"also":{},"steps":{"minimum":0,"type":"integer"}},"type":"object"}"#;
        let schema: Value = serde_json::from_str(written).unwrap();

        assert_eq!(schema.to_string(), written, "the order is kept");
        assert_eq!(schema_digest(&schema), digest(sorted.as_bytes()));
    }

    #[test]
    fn a_short_mark_is_made_from_the_name() {
        assert_eq!(short_of("data_processing"), "dp");
        assert_eq!(short_of("training"), "tr");
    }
}
