use std::collections::BTreeSet;

use super::*;

fn made() -> Value {
    document(&SubjectNames::new("ktrdr").unwrap()).unwrap()
}

/// Every `$ref` below a value.
fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(members) => {
            found.extend(members.get("$ref").and_then(Value::as_str));
            members
                .values()
                .for_each(|member| references(member, found));
        }
        Value::Array(members) => members.iter().for_each(|member| references(member, found)),
        _ => {}
    }
}

#[test]
fn the_document_of_the_repository_is_the_generated_one() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/asyncapi.json");
    let wanted = format!("{}\n", serde_json::to_string_pretty(&made()).unwrap());
    if std::env::var_os("KTRDR_TEST_WRITE").is_some() {
        std::fs::write(path, &wanted).unwrap();
    }

    let stored = std::fs::read_to_string(path).unwrap();

    assert!(
        stored == wanted,
        "docs/asyncapi.json is not the generated one; write it with KTRDR_TEST_WRITE=1"
    );
}

#[test]
fn every_reference_leads_somewhere_and_everything_is_referred_to() {
    let document = made();
    let mut found = Vec::new();
    references(&document, &mut found);

    for reference in &found {
        let target = document.pointer(reference.trim_start_matches('#'));
        assert!(target.is_some(), "{reference} leads nowhere");
    }
    let found: BTreeSet<&str> = found.into_iter().collect();
    for part in ["messages", "schemas"] {
        for name in document["components"][part].as_object().unwrap().keys() {
            let reference = format!("#/components/{part}/{name}");
            assert!(found.contains(&*reference), "nothing refers to {reference}");
        }
    }
}

#[test]
fn addresses_have_their_parameters_and_nothing_that_stands_for_them() {
    for (id, channel) in made()["channels"].as_object().unwrap() {
        let address = channel["address"].as_str().unwrap_or_default();
        let named: BTreeSet<&str> = address
            .split('{')
            .skip(1)
            .filter_map(|rest| rest.split('}').next())
            .collect();
        let parameters = channel["parameters"].as_object();
        let described: BTreeSet<&str> = parameters
            .into_iter()
            .flat_map(|parameters| parameters.keys().map(String::as_str))
            .collect();

        assert_eq!(named, described, "{id}: {address}");
        assert!(
            !address.contains("0-") && !address.contains("-0"),
            "{id}: {address}"
        );
        assert!(!channel["messages"].as_object().unwrap().is_empty(), "{id}");
    }
}

#[test]
fn no_field_of_an_event_is_without_its_description() {
    let document = made();
    for name in [
        "started",
        "released",
        "moved",
        "completed",
        "failed",
        "cancelled",
    ] {
        let payload = &document["components"]["messages"][name]["payload"];
        for (field, schema) in payload["properties"].as_object().unwrap() {
            let is_told = schema["const"].is_string() || schema["description"].is_string();
            assert!(is_told, "{name}.{field}: {schema}");
        }
    }
}

#[test]
fn the_page_names_every_channel_every_header_and_every_event() {
    let page = include_str!("../../../../docs/protocol.md");
    let document = made();
    let of_server = [
        "KV-Operation",
        "Nats-Rollup",
        "Nats-Scheduler",
        "Nats-Schedule-Next",
    ];

    for (id, channel) in document["channels"].as_object().unwrap() {
        let address = channel["address"].as_str().unwrap_or_default();
        assert!(
            page.contains(&format!("`{address}`")) || address.is_empty(),
            "{id}: {address}"
        );
    }
    for (name, message) in document["components"]["messages"].as_object().unwrap() {
        let headers = message["headers"]["properties"].as_object();
        for header in headers.into_iter().flat_map(Map::keys) {
            let is_told = page.contains(header) || of_server.contains(&header.as_str());
            assert!(
                is_told || header.starts_with("Nats-Service"),
                "{name}: {header}"
            );
        }
    }
    for message in document["channels"]["events"]["messages"]
        .as_object()
        .unwrap()
        .keys()
    {
        assert!(page.contains(&format!("`{message}`")), "{message}");
    }
}
