//! Tests that results have what their schemas promise to show first.

use ktrdr_worker::Engine;
use serde_json::Value;

use crate::backtesting::Backtesting;
use crate::data_processing::DataProcessing;
use crate::dummy::Dummy;
use crate::training::Training;

/// The schema behind a reference, and without `null`.
fn resolved<'a>(schema: &'a Value, root: &'a Value) -> &'a Value {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = root.pointer(reference.trim_start_matches('#'));
        return resolved(target.expect("the target of a reference"), root);
    }
    let some = schema["anyOf"]
        .as_array()
        .and_then(|parts| parts.iter().find(|part| part["type"] != "null"));
    some.map_or(schema, |part| resolved(part, root))
}

fn every_path_exists<E: Engine>() {
    let root = schemars::schema_for!(E::Output).to_value();
    let paths = root["x-ktrdr-verdict"].as_array().expect("a verdict");

    for path in paths {
        let path = path.as_str().expect("a path");
        let found = path.split('.').try_fold(&root, |at, name| {
            resolved(at, &root)["properties"].get(name)
        });
        assert!(found.is_some(), "{}: the result has no {path}", E::NAME);
    }
}

#[test]
fn every_path_of_a_verdict_exists_in_the_result() {
    every_path_exists::<Backtesting>();
    every_path_exists::<DataProcessing>();
    every_path_exists::<Dummy>();
    every_path_exists::<Training>();
}
