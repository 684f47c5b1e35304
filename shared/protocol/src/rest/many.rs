//! Many operations in one request: starts, and cancels and retries by filter.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::ErrorCode;
use super::query::OperationFilter;
use crate::id::OperationId;
use crate::state::Status;

/// Operations of one request, at most.
pub const MAX_OPERATIONS: usize = 1000;

/// The body of `POST /api/v1/{domain}/start-many`.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct StartMany {
    /// Start bodies, as `POST /api/v1/{domain}/start` takes each of them.
    #[schemars(length(min = 1, max = 1000), schema_with = "start_bodies")]
    pub operations: Vec<Map<String, Value>>,
}

/// The document has one schema of start bodies, which is made there.
fn start_bodies(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "items": {"$ref": "#/components/schemas/StartBody"}})
}

/// The answer to many starts.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct StartManyResponse {
    /// Always true, also when starts were refused.
    pub success: bool,
    /// What became of each start.
    pub data: ManyStarted,
}

/// What became of many starts.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
pub struct ManyStarted {
    /// How many operations are stored now, or were before.
    pub accepted: u64,
    /// How many starts were refused.
    pub refused: u64,
    /// One for each start body, in the same order.
    pub results: Vec<OneStarted>,
}

/// What became of one start.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct OneStarted {
    /// The id of the operation; null when a start without an id was refused.
    pub operation_id: Option<OperationId>,
    /// The status of the operation now; null when the start was refused.
    pub status: Option<Status>,
    /// The HTTP status of a start of its own: 202 for a new operation, 200 for one that was started
    /// before.
    pub status_code: u16,
    /// Why it was refused, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Why it was refused, for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<ErrorCode>,
    /// A warning for the user, for example that no worker could run it now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// The body of `POST /api/v1/operations/cancel` and `…/retry`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ByFilter {
    /// Which operations; at least one filter.
    #[schemars(schema_with = "filter_of_a_body")]
    pub filter: OperationFilter,
    /// For how many operations at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000), extend("default" = 1000))]
    pub limit: Option<u64>,
    /// Whether only to say what would happen.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub dry_run: bool,
}

/// As the filter of a list, without what stands for "any": what a program forgot to fill in must not
/// reach every operation. So there is no null, no empty list and no empty text.
fn filter_of_a_body(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = OperationFilter::json_schema(generator);
    schema.insert("minProperties".to_owned(), json!(1));

    let properties = schema.get_mut("properties").and_then(Value::as_object_mut);
    for property in properties.into_iter().flat_map(Map::values_mut) {
        let Some(property) = property.as_object_mut() else {
            continue;
        };
        property.remove("default");
        if let Some(Value::Array(choices)) = property.remove("anyOf") {
            let other = choices.into_iter().find(|choice| choice["type"] != "null");
            property.extend(
                other
                    .as_ref()
                    .and_then(Value::as_object)
                    .cloned()
                    .unwrap_or_default(),
            );
        }
        if let Some(Value::Array(types)) = property.get("type") {
            let other = types.iter().find(|kind| *kind != "null").cloned();
            property.extend(other.map(|kind| ("type".to_owned(), kind)));
        }
        match property.get("type").and_then(Value::as_str) {
            Some("array") => property.insert("minItems".to_owned(), json!(1)),
            Some("string") => property.insert("minLength".to_owned(), json!(1)),
            _ => None,
        };
        if let Some(items) = property.get_mut("items").and_then(Value::as_object_mut)
            && items.get("type").is_some_and(|kind| kind == "string")
        {
            items.insert("minLength".to_owned(), json!(1));
        }
    }
    schema
}

/// The answer to a cancel or a retry by filter.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ByFilterResponse {
    /// Always true, also when operations were refused.
    pub success: bool,
    /// What became of the operations.
    pub data: DoneByFilter,
    /// A warning for the user: operations of the archive are missing, or an error ended the walk before
    /// all operations had their turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// What became of the operations that match a filter.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
pub struct DoneByFilter {
    /// How many operations match.
    pub matched: u64,
    /// For how many of them it was done by this request; 0 in a dry run.
    pub done: u64,
    /// Whether operations match that have no result here, because of the limit, of the time that a request
    /// may take, or of an error.
    pub has_more: bool,
    /// One for each operation up to the limit: those first that it can be done for, and those last for which
    /// it was done before. In a dry run: what would become of it.
    pub results: Vec<OneByFilter>,
}

/// What became of one operation.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct OneByFilter {
    /// The id of the operation.
    pub operation_id: OperationId,
    /// The HTTP status of the same request for this operation alone.
    pub status_code: u16,
    /// Why it was refused, for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<ErrorCode>,
    /// Of a retry: the operation that was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retried_as: Option<OperationId>,
    /// Of a cancel: whether it was asked to stop before this request and still runs, or another request has
    /// cancelled it meanwhile. It does not count as `done`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub asked_before: bool,
    /// Of a retry that is refused: whether it was cancelled because another operation replaced it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replaced: bool,
}
