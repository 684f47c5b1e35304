//! Start requests that were made for another version of this worker type.
//!
//! The problem: while workers are replaced by those of a newer version, both pull from the same
//! queue. A parameter or an execution option that only the newer version knows would make an
//! operation fail for good on an older worker, or would be ignored.
//!
//! How it is solved: a backend writes into a request which request schema it was checked against
//! ([`ktrdr_protocol::schema_digest`]). When it is not the schema of this worker, the parameters are
//! checked here, once more. What does not fit is handed back, for a worker that it fits. It
//! costs no attempt. Backends warn about an operation that no living worker has the version for.
//!
//! Rejected: to hand back everything that was checked against another schema. The first new worker
//! would then have to do the work of all others, and after a step back to the older version nothing
//! would be done.

use std::time::Duration;

use ktrdr_bus::telemetry::{Repeated, beginning};
use ktrdr_http::schema::check_apart;
use ktrdr_protocol::claim::DeliveryInfo;
use ktrdr_protocol::start_request::StartRequest;
use serde_json::Value;

use crate::pulling::lease::Lease;
use crate::worker::core::Core;

/// Lines about requests that are handed back.
static HANDED_BACK: Repeated = Repeated::new();

/// First time between two deliveries; doubled each time.
const FIRST_DELAY: Duration = Duration::from_millis(250);

/// Longest time between two deliveries. Only every few deliveries reach a worker of the right
/// version, and a delivery costs little.
const MAX_DELAY: Duration = Duration::from_secs(5);

/// Most characters of the reason in a log line.
const MAX_REASON: usize = 300;

/// Keywords of a schema's root after which its `properties` are not all members that it knows.
const OPEN: [&str; 10] = [
    "$ref",
    "$dynamicRef",
    "allOf",
    "anyOf",
    "oneOf",
    "if",
    "not",
    "dependentSchemas",
    "patternProperties",
    "additionalProperties",
];

/// Whether a request may hold something that this version of the worker does not know.
pub(crate) fn may_misfit(core: &Core, request: &StartRequest) -> bool {
    !request.execution.unknown.is_empty() || is_of_another_schema(core, request)
}

fn is_of_another_schema(core: &Core, request: &StartRequest) -> bool {
    request
        .schema_digest
        .is_some_and(|checked| checked != core.info.schema_digest)
}

/// Why this version of the worker cannot run a request; `None` when it can.
async fn misfit(core: &Core, request: &StartRequest) -> Option<String> {
    if !request.execution.unknown.is_empty() {
        let unknown = request.execution.unknown.join(", ");
        return Some(format!("it has unknown execution options: {unknown}"));
    }
    if !is_of_another_schema(core, request) {
        return None;
    }

    let Ok(parameters) = serde_json::from_str::<Value>(request.parameters.get()) else {
        // The engine says what is wrong with it.
        return None;
    };
    if let Some(name) = unknown_member(&core.info.request_schema, &parameters) {
        return Some(format!("it has an unknown parameter: {name}"));
    }
    let Ok(schema) = core.compiled_schema().await else {
        return Some("the request schema of this worker took too long to compile".to_owned());
    };
    let checking = schema.clone();
    let checked = check_apart(Some(schema), move || checking.violations("", &parameters)).await;
    match checked.flatten() {
        Ok(violations) => violations
            .first()
            .map(|first| format!("{}: {}", first.path, first.message)),
        Err(too_costly) => Some(too_costly.to_string()),
    }
}

/// A parameter that the schema does not name, although it would let it pass. An engine that ignores
/// what it does not know must not ignore a parameter of its own newer version.
fn unknown_member<'a>(schema: &Value, parameters: &'a Value) -> Option<&'a str> {
    let schema = schema.as_object()?;
    if OPEN.iter().any(|keyword| schema.contains_key(*keyword)) {
        return None;
    }
    let known = schema.get("properties")?.as_object()?;
    let names = parameters.as_object()?.keys();
    names
        .map(String::as_str)
        .find(|name| !known.contains_key(*name))
}

/// Hands back a request that this version cannot run; returns whether it did.
pub(crate) async fn hand_back_misfit(
    core: &Core,
    request: &StartRequest,
    delivery: DeliveryInfo,
    lease: &Lease,
) -> bool {
    match misfit(core, request).await {
        Some(why) => {
            hand_back(core, request, delivery, lease, why).await;
            true
        }
        None => false,
    }
}

/// Answers a request that this version cannot run: it is handed back, unless its operation has
/// ended.
async fn hand_back(
    core: &Core,
    request: &StartRequest,
    delivery: DeliveryInfo,
    lease: &Lease,
    why: String,
) {
    let id = &request.operation_id;
    if let Some(count) = HANDED_BACK.note() {
        tracing::warn!(
            operation_id = %id,
            why = beginning(why, MAX_REASON),
            count,
            "handed back a start request that was made for another version of this worker type; a worker of that version runs it"
        );
    }

    // Without an answer it is handed back, as if nothing had happened.
    if let Ok(log) = core.oplog.read(&core.worker_type, id).await
        && log.state.status.is_terminal()
    {
        return lease.ack().await;
    }
    lease.nak(Some(delay(delivery.count))).await;
}

fn delay(deliveries: u64) -> Duration {
    let doublings = u32::try_from(deliveries.saturating_sub(1)).unwrap_or(u32::MAX);
    let factor = 2_u32.saturating_pow(doublings);
    FIRST_DELAY.saturating_mul(factor).min(MAX_DELAY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_member_is_unknown_only_when_the_schema_names_all_members() {
        let parameters = json!({"steps": 1, "turbo": true});
        let mut schema = json!({"type": "object", "properties": {"steps": {}}});
        assert_eq!(unknown_member(&schema, &parameters), Some("turbo"));

        schema["properties"]["turbo"] = json!({});
        assert_eq!(unknown_member(&schema, &parameters), None);

        let open = json!({"properties": {"steps": {}}, "additionalProperties": true});
        assert_eq!(unknown_member(&open, &parameters), None);
        assert_eq!(unknown_member(&json!({}), &parameters), None);
    }

    #[test]
    fn a_request_comes_back_soon_and_then_more_rarely() {
        let millis = |deliveries| delay(deliveries).as_millis();
        assert_eq!([millis(1), millis(2), millis(3)], [250, 500, 1000]);
        assert_eq!([millis(6), millis(u64::MAX)], [5000, 5000]);
    }
}
