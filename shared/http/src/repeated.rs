//! Whether a repeated start asks for the same operation as the first one.
//!
//! The problem: an id that is used twice means either that a client repeats its request, which must
//! be answered with the first operation, or that two requests got the same id by mistake, which must
//! not look like a success.
//!
//! How it is solved: parameters and execution options of the request are compared with those that
//! the operation was started with. These are in the operation itself, also in the archive and in
//! operations that an earlier version started. JSON is compared by its values: the order of members,
//! spaces, and `1.0` for `1` make no difference.
//!
//! Rejected: a digest of the body in the start request. Every start would pay for it, and operations
//! that an earlier version started would have none.

use ktrdr_protocol::execution::ExecutionOptions;
use ktrdr_protocol::id::OperationId;
use ktrdr_protocol::rest::ErrorCode;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::error::ApiError;
use crate::start_body::{LARGE, integral_numbers};

/// Names in an answer, at most, and characters of a name.
const SHOWN: (usize, usize) = (8, 64);

/// What a start asks for.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The engine's parameters.
    pub parameters: &'a RawValue,
    /// How to run it.
    pub execution: &'a ExecutionOptions,
}

/// Checks that a request for `now` means the operation `id`, which was started with `first`.
/// `identified_by` is what the client named it by: `task_id` or `Idempotency-Key`.
///
/// # Errors
/// 409 `idempotency_mismatch`, with the names that differ.
pub async fn check_same(
    id: &OperationId,
    identified_by: &str,
    first: Asked<'_>,
    now: Asked<'_>,
) -> Result<(), ApiError> {
    let mut differing = differing_parameters(first.parameters, now.parameters).await?;
    if first.execution != now.execution {
        differing.push("execution".to_owned());
    }
    if differing.is_empty() {
        return Ok(());
    }

    let (most, length) = SHOWN;
    let shown: Vec<String> = differing
        .iter()
        .take(most)
        .map(|name| name.chars().take(length).collect())
        .collect();
    let more = if differing.len() > most { ", …" } else { "" };
    let text = format!(
        "Operation {id} was started with this {identified_by} and another body (different: {}{more}). Nothing was started; choose another {identified_by}, or repeat the first request as it was",
        shown.join(", ")
    );
    Err(ApiError::new(ErrorCode::IdempotencyMismatch, text)
        .with("operation_id", id.as_str())
        .with("differing", shown))
}

/// The names of the parameters that are not the same. Large ones are compared on a thread of their
/// own.
async fn differing_parameters(first: &RawValue, now: &RawValue) -> Result<Vec<String>, ApiError> {
    // A client that repeats its request sends the same text.
    if first.get() == now.get() {
        return Ok(Vec::new());
    }
    if first.get().len().max(now.get().len()) <= LARGE {
        return Ok(differing(first, now));
    }
    let (first, now) = (first.to_owned(), now.to_owned());
    tokio::task::spawn_blocking(move || differing(&first, &now))
        .await
        .map_err(ApiError::internal)
}

fn differing(first: &RawValue, now: &RawValue) -> Vec<String> {
    let (first, now) = (members(first), members(now));
    let changed = first
        .iter()
        .filter(|(name, value)| now.get(*name) != Some(value));
    let added = now.iter().filter(|(name, _)| !first.contains_key(*name));
    changed.chain(added).map(|(name, _)| name.clone()).collect()
}

/// The members of parameters, which are an object everywhere.
fn members(parameters: &RawValue) -> Map<String, Value> {
    let mut value: Value = serde_json::from_str(parameters.get()).unwrap_or_default();
    integral_numbers(&mut value);
    match value {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    async fn compare(first: &str, now: &str) -> Vec<String> {
        differing_parameters(&raw(first), &raw(now)).await.unwrap()
    }

    #[tokio::test]
    async fn what_means_the_same_is_the_same() {
        for (first, now) in [
            ("{}", " { } "),
            (
                r#"{"a":1,"b":[1,{"c":null}]}"#,
                r#"{ "b": [1.0, {"c":null}], "a": 1.0 }"#,
            ),
            (r#"{"a":"é"}"#, r#"{"a":"\u00e9"}"#),
            (r#"{"a":1e2}"#, r#"{"a":100}"#),
        ] {
            assert_eq!(
                compare(first, now).await,
                Vec::<String>::new(),
                "{first} {now}"
            );
        }
    }

    #[tokio::test]
    async fn every_name_that_differs_is_told() {
        for (first, now, names) in [
            (r#"{"a":1,"b":2}"#, r#"{"a":1,"b":3}"#, vec!["b"]),
            (r#"{"a":1}"#, r#"{"a":1,"b":3}"#, vec!["b"]),
            (r#"{"a":1,"b":3}"#, "{}", vec!["a", "b"]),
            (r#"{"a":[1,2]}"#, r#"{"a":[2,1]}"#, vec!["a"]),
            (r#"{"a":null}"#, "{}", vec!["a"]),
            (r#"{"a":0.1}"#, r#"{"a":0.2}"#, vec!["a"]),
        ] {
            assert_eq!(compare(first, now).await, names, "{first} {now}");
        }
    }

    #[tokio::test]
    async fn large_parameters_and_many_names_are_told_briefly() {
        let object = |value: u32| {
            let members = (0..10_000).map(|number| format!(r#""name{number}":{value}"#));
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        };
        let (first, now) = (raw(&object(1)), raw(&object(2)));
        let execution = ExecutionOptions::default();
        let asked = |parameters| Asked {
            parameters,
            execution: &execution,
        };
        let id = OperationId::new("a").unwrap();

        let refused = check_same(&id, "task_id", asked(&first), asked(&now)).await;

        let refused = refused.unwrap_err();
        let problem = refused.problem();
        assert_eq!(problem.code, ErrorCode::IdempotencyMismatch);
        assert_eq!(problem.fields["operation_id"], "a");
        assert_eq!(problem.fields["differing"].as_array().unwrap().len(), 8);
        assert!(problem.error.len() < 1000, "{}", problem.error);
    }

    /// Some JSON, and the same with its members in another order.
    fn object() -> impl Strategy<Value = Map<String, Value>> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,6}".prop_map(Value::from),
        ];
        let value = leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map(".{0,3}", inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        });
        proptest::collection::btree_map(".{0,3}", value, 0..5)
            .prop_map(|members| members.into_iter().collect())
    }

    proptest! {
        #[test]
        fn a_request_differs_exactly_where_a_value_was_changed(
            first in object(),
            change in proptest::option::of((any::<prop::sample::Index>(), any::<i32>())),
        ) {
            let mut now: Map<String, Value> = first.clone().into_iter().rev().collect();
            let mut expected = Vec::new();
            if let Some((which, value)) = change
                && !now.is_empty()
            {
                let name = now.keys().nth(which.index(now.len())).unwrap().clone();
                let other = Value::from(vec![value]);
                if now[&name] != other {
                    now.insert(name.clone(), other);
                    expected.push(name);
                }
            }
            let text = |members: &Map<String, Value>| serde_json::to_string(members).unwrap();

            let found = differing(&raw(&text(&first)), &raw(&text(&now)));

            prop_assert_eq!(found, expected);
        }
    }
}
