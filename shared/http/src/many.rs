//! Reads the bodies of requests about many operations.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use ktrdr_protocol::rest::Violation;
use ktrdr_protocol::rest::many::{ByFilter, MAX_OPERATIONS};
use ktrdr_protocol::rest::query::OperationFilter;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::query::{FromParams, Params};
use crate::start_body::BodyError;

/// The start bodies of a request for many starts, as the client wrote them. They are parts of `body`.
///
/// # Errors
/// [`BodyError`], when there is not a list of 1 to 1,000 of whatever.
pub fn start_bodies(body: &Bytes) -> Result<Vec<Bytes>, BodyError> {
    #[derive(Deserialize)]
    struct List<'a>(#[serde(borrow)] Vec<&'a RawValue>);

    let not_json = |error: serde_json::Error| BodyError::NotJson(error.to_string());
    let mut members = match serde_json::from_slice::<BTreeMap<Cow<'_, str>, &RawValue>>(body) {
        Ok(members) => members,
        Err(error) if error.is_data() => return Err(BodyError::NotAnObject),
        Err(error) => return Err(not_json(error)),
    };
    let operations = members.remove("operations");
    let mut found: Vec<Violation> = members
        .keys()
        .map(|name| {
            violation(
                &format!("/{}", shown(name)),
                "unknown; the body has only operations",
            )
        })
        .collect();
    let accepted = format!("must be a list of 1 to {MAX_OPERATIONS} start bodies");
    let list = operations.and_then(|list| serde_json::from_str::<List<'_>>(list.get()).ok());
    let items = list.map_or_else(Vec::new, |List(items)| items);
    if !(1..=MAX_OPERATIONS).contains(&items.len()) {
        found.push(violation("/operations", &accepted));
    }
    if !found.is_empty() {
        return Err(BodyError::Violations(found));
    }
    let item = |item: &RawValue| body.slice_ref(item.get().as_bytes());
    Ok(items.into_iter().map(item).collect())
}

/// The body of a cancel or a retry by filter. A filter takes the values of the query parameter of its
/// name: a text, or a list of texts where the parameter may be repeated. An empty value is refused, and
/// so is an empty list: what a program forgot to fill in must not reach every operation.
///
/// # Errors
/// [`BodyError`], with every violation at once.
pub fn by_filter(body: &[u8]) -> Result<ByFilter, BodyError> {
    let whole: Value =
        serde_json::from_slice(body).map_err(|error| BodyError::NotJson(error.to_string()))?;
    let Value::Object(members) = whole else {
        return Err(BodyError::NotAnObject);
    };

    let mut found = Vec::new();
    let (mut filter, mut limit, mut dry_run) = (OperationFilter::default(), None, false);
    for (name, value) in &members {
        match (name.as_str(), value) {
            ("filter", Value::Object(filters)) => filter = read_filter(filters, &mut found),
            ("filter", _) => found.push(violation("/filter", "must be an object")),
            ("limit" | "dry_run", Value::Null) => {}
            ("limit", value) => {
                limit = value.as_u64();
                if !limit.is_some_and(|limit| (1..=MAX_OPERATIONS as u64).contains(&limit)) {
                    let text = format!("must be a whole number from 1 to {MAX_OPERATIONS}");
                    found.push(violation("/limit", &text));
                }
            }
            ("dry_run", Value::Bool(value)) => dry_run = *value,
            ("dry_run", _) => found.push(violation("/dry_run", "must be true or false")),
            (unknown, _) => {
                let text = "unknown; the body has filter, limit and dry_run";
                found.push(violation(&format!("/{}", shown(unknown)), text));
            }
        }
    }
    if found.is_empty() && filter.is_empty() {
        found.push(violation("/filter", "must have at least one filter"));
    }
    match found.is_empty() {
        true => Ok(ByFilter {
            filter,
            limit,
            dry_run,
        }),
        false => Err(BodyError::Violations(found)),
    }
}

/// How a filter is written in JSON.
const TEXTS: [&str; 6] = [
    "worker_id",
    "schedule_id",
    "created_after",
    "created_before",
    "ended_after",
    "search",
];
const LISTS: [&str; 4] = ["operation_type", "status", "error_code", "label"];

fn read_filter(filters: &Map<String, Value>, found: &mut Vec<Violation>) -> OperationFilter {
    let before = found.len();
    let mut pairs = Vec::new();
    for (name, value) in filters {
        let path = format!("/filter/{}", shown(name));
        let is_list = LISTS.contains(&name.as_str());
        if !is_list && !TEXTS.contains(&name.as_str()) {
            let known = [&LISTS[..], &TEXTS[..]].concat().join(", ");
            found.push(violation(
                &path,
                &format!("unknown filter; there are {known}"),
            ));
            continue;
        }
        let values = match value {
            Value::Array(values) if is_list => values.as_slice(),
            one => std::slice::from_ref(one),
        };
        let texts = values.iter().filter_map(Value::as_str);
        let texts: Vec<&str> = texts.filter(|text| !text.trim().is_empty()).collect();
        if texts.is_empty() || texts.len() < values.len() {
            let accepted = match is_list {
                true => "must be a text or a list of texts, none of them empty",
                false => "must be a text that is not empty",
            };
            found.push(violation(&path, accepted));
            continue;
        }
        // Each is read alone, so that every mistake is told.
        let own: Vec<(String, String)> = texts
            .into_iter()
            .map(|text| (name.clone(), text.to_owned()))
            .collect();
        if let Err(error) = OperationFilter::from_params(&Params::new(own.clone())) {
            found.push(violation(&path, &error.problem().error));
        }
        pairs.extend(own);
    }
    if found.len() > before {
        return OperationFilter::default();
    }
    OperationFilter::from_params(&Params::new(pairs)).unwrap_or_default()
}

fn violation(path: &str, message: &str) -> Violation {
    Violation {
        path: path.to_owned(),
        message: message.to_owned(),
    }
}

/// A name from outside, as a part of a JSON pointer.
fn shown(name: &str) -> String {
    let name: String = name.chars().take(64).collect();
    name.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use ktrdr_protocol::state::Status;
    use serde_json::json;

    use super::*;

    fn paths(error: &BodyError) -> Vec<&str> {
        match error {
            BodyError::Violations(found) => found.iter().map(|one| one.path.as_str()).collect(),
            _ => vec![],
        }
    }

    #[test]
    fn start_bodies_are_taken_out_as_they_were_written() {
        let body = Bytes::from(r#" {"operations": [ {"a":1.0}, 7,{"b":[1, 2]}]}"#);

        let items = start_bodies(&body).unwrap();

        assert_eq!(items, [r#"{"a":1.0}"#, "7", r#"{"b":[1, 2]}"#]);
        let many =
            |count: usize| Bytes::from(json!({"operations": vec![json!({}); count]}).to_string());
        assert_eq!(start_bodies(&many(1000)).unwrap().len(), 1000);
        for bad in [
            many(0),
            many(1001),
            Bytes::from("{}"),
            Bytes::from(r#"{"operations":{}}"#),
        ] {
            assert_eq!(paths(&start_bodies(&bad).unwrap_err()), ["/operations"]);
        }
        let other = Bytes::from(r#"{"operations":[{}],"a/b":1}"#);
        assert_eq!(paths(&start_bodies(&other).unwrap_err()), ["/a~1b"]);
        for (bad, expected) in [
            ("[]", "NotAnObject"),
            ("7", "NotAnObject"),
            ("{", "NotJson"),
            ("", "NotJson"),
        ] {
            let error = start_bodies(&Bytes::from(bad)).unwrap_err();
            assert!(
                format!("{error:?}").starts_with(expected),
                "{bad} {error:?}"
            );
        }
    }

    #[test]
    fn a_filter_takes_what_a_list_takes() {
        let body = json!({
            "filter": {"status": ["failed", "Pending"], "label": ["a:x,y", "b:"], "worker_id": "w"},
            "limit": 7, "dry_run": true,
        });

        let read = by_filter(body.to_string().as_bytes()).unwrap();

        assert_eq!(read.filter.status, [Status::Failed, Status::Pending]);
        assert_eq!(read.filter.label[0].to_string(), "a:x,y");
        assert_eq!((read.limit, read.dry_run), (Some(7), true));
        let again = serde_json::to_vec(&read).unwrap();
        assert_eq!(by_filter(&again).unwrap(), read);
        let one = by_filter(br#"{"filter":{"status":"failed"}}"#).unwrap();
        assert_eq!(one.filter.status, [Status::Failed]);
    }

    #[test]
    fn what_could_mean_everything_is_refused_with_its_place() {
        for (body, expected) in [
            (json!({}), vec!["/filter"]),
            (json!({"filter": {}}), vec!["/filter"]),
            (json!({"filter": {"status": null}}), vec!["/filter/status"]),
            (
                json!({"filter": {"status": "failed", "label": null}}),
                vec!["/filter/label"],
            ),
            (json!({"filter": []}), vec!["/filter"]),
            (json!({"filter": {"status": []}}), vec!["/filter/status"]),
            (
                json!({"filter": {"status": ["failed"], "worker_id": ""}}),
                vec!["/filter/worker_id"],
            ),
            (
                json!({"filter": {"status": ["failed"], "worker_id": ["w"]}}),
                vec!["/filter/worker_id"],
            ),
            (
                json!({"filter": {"status": "odd", "stat": 1, "label": [7]}}),
                vec!["/filter/label", "/filter/stat", "/filter/status"],
            ),
            (
                json!({"filter": {"created_after": "x"}, "limit": 0, "dry_run": 1, "more": 1}),
                vec!["/dry_run", "/filter/created_after", "/limit", "/more"],
            ),
            (
                json!({"filter": {"status": "failed"}, "limit": 1001}),
                vec!["/limit"],
            ),
        ] {
            let error = by_filter(body.to_string().as_bytes()).unwrap_err();
            let mut found = paths(&error);
            found.sort_unstable();
            assert_eq!(found, expected, "{body}");
        }
    }

    #[test]
    fn every_filter_of_a_list_is_known_here() {
        let schema = schemars::schema_for!(OperationFilter).to_value();
        let mut names: Vec<&str> = schema["properties"]
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        let mut known = [&LISTS[..], &TEXTS[..]].concat();
        names.sort_unstable();
        known.sort_unstable();

        assert_eq!(names, known);
    }
}
