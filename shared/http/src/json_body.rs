//! A JSON body with a type of its own.
//!
//! A wrong body is answered like a wrong start body: 422 with every place that does not match.

use ktrdr_protocol::rest::Violation;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::body::{BodyBudget, BodyOf, BodyShare, read_body};
use crate::error::ApiError;
use crate::schema::Schema;
use crate::start_body::BodyError;

impl<T: JsonSchema + DeserializeOwned> BodyOf<T> {
    /// Reads the body, of at most `limit` bytes, and checks it. An empty one counts as `{}`. The share
    /// is to be kept for as long as parts of the body are.
    ///
    /// # Errors
    /// 400, 413 or 422, or 503 when the bodies of other requests take all the room.
    pub async fn read(self, limit: usize, budget: &BodyBudget) -> Result<(T, BodyShare), ApiError> {
        let (bytes, share) = read_body(self.body, limit, budget).await?;
        let text: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        let value: Value =
            serde_json::from_slice(text).map_err(|error| BodyError::NotJson(error.to_string()))?;
        if !value.is_object() {
            return Err(BodyError::NotAnObject.into());
        }

        // Such requests are rare, so the schema is compiled for each.
        let settings = SchemaSettings::draft2020_12().for_deserialize();
        let schema = settings.into_generator().into_root_schema_for::<T>();
        let schema = Schema::compile(&schema.to_value()).map_err(ApiError::internal)?;
        let violations = schema.violations("", &value).map_err(BodyError::from)?;
        if !violations.is_empty() {
            return Err(BodyError::Violations(violations).into());
        }
        // From the text: raw parts of the body stay as the client wrote them.
        let read = serde_json::from_slice(text).map_err(|error| wrong(error.to_string()))?;
        Ok((read, share))
    }
}

fn wrong(message: String) -> BodyError {
    let path = String::new();
    BodyError::Violations(vec![Violation { path, message }])
}
