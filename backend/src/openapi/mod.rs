//! `GET /openapi.json`: the REST interface as an OpenAPI 3.1 document, made from the routes themselves and the worker types
//! that are known at the moment.
//!
//! | module | holds |
//! |---|---|
//! | [`routes`] | a router that takes no route without its description |
//! | [`doc`] | what is said about one route |
//! | [`docs`] | the descriptions |
//! | [`answers`] | the shapes of answers |
//! | [`embed`] | schemas of workers, made part of the document |

mod answers;
mod doc;
pub mod docs;
mod embed;
pub mod routes;

use std::collections::BTreeMap;
use std::sync::Arc;

use ktrdr_protocol::execution::ExecutionOptions;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use self::doc::Doc;
use self::routes::Route;
use crate::catalogue::CatalogueEntry;
use crate::error::Code;

const START_ROUTE: &str = "/api/v1/{domain}/start";

/// The document for these routes and worker types.
pub fn document(routes: &[Route], entries: &[Arc<CatalogueEntry>]) -> Value {
    let mut generator = SchemaSettings::draft2020_12()
        .for_serialize()
        .with(|s| s.definitions_path = "/components/schemas".into());
    generator.meta_schema = None;
    let mut generator = generator.into_generator();
    let problem = generator.subschema_for::<answers::Problem>().to_value();
    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    for route in routes {
        let operation = operation(
            route.path,
            &(route.doc)(),
            route.needs_nats,
            &problem,
            &mut generator,
        );
        if route.path == START_ROUTE {
            for entry in first_of_each_domain(entries) {
                let path = format!("/api/v1/{}/start", entry.published.domain);
                paths
                    .entry(path)
                    .or_default()
                    .insert(route.method.to_owned(), start_of(entry, &operation));
            }
        }
        paths
            .entry(route.path.to_owned())
            .or_default()
            .insert(route.method.to_owned(), operation);
    }
    let mut components = generator.take_definitions(true);
    // It is read, never written: with the defaults that a client may leave out.
    let mut reading = SchemaSettings::draft2020_12()
        .for_deserialize()
        .into_generator();
    embed::embed(
        &mut components,
        "Execution",
        reading.root_schema_for::<ExecutionOptions>().as_value(),
    );
    let mut any_result = Vec::new();
    for entry in entries {
        let worker_type = &entry.published.worker_type;
        embed::embed(
            &mut components,
            &request_name(entry),
            &entry.published.request_schema,
        );
        embed::embed(
            &mut components,
            &result_name(entry),
            &entry.published.result_schema,
        );
        any_result.push(json!({"title": worker_type, "$ref": reference(&result_name(entry))}));
        if let Some(Value::Object(own)) = components.get(&request_name(entry)).cloned() {
            components.insert(start_name(entry), docs::start_body(own));
        }
    }
    if let Some(data) = components
        .get_mut("ResultShown")
        .and_then(|shown| shown.pointer_mut("/properties/data"))
    {
        // Results outlive worker types, and newer versions of them.
        any_result.push(json!({"title": "of a worker type or version that is no longer known"}));
        *data = json!({"description": "What the operation's worker type says its results are.", "anyOf": any_result});
    }
    let tags: Vec<Value> = docs::TAGS
        .iter()
        .map(|(name, description)| json!({"name": name, "description": description}))
        .collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "KTRDR Workers",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Long-running operations over REST, carried by NATS JetStream. Worker types appear here as soon as \
                one of their workers is started.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "servers": [{"url": "/"}],
        "tags": tags,
        "paths": paths,
        "components": {"schemas": components},
    })
}

/// As requests are routed: when two types claim a domain, the first by name has it.
fn first_of_each_domain(entries: &[Arc<CatalogueEntry>]) -> impl Iterator<Item = &CatalogueEntry> {
    let first = |entry: &&Arc<CatalogueEntry>| {
        entries
            .iter()
            .find(|other| other.published.domain == entry.published.domain)
    };
    entries
        .iter()
        .filter(move |entry| first(entry).is_some_and(|first| Arc::ptr_eq(first, entry)))
        .map(Arc::as_ref)
}

fn request_name(entry: &CatalogueEntry) -> String {
    format!("{}_request", entry.published.worker_type)
}

fn result_name(entry: &CatalogueEntry) -> String {
    format!("{}_result", entry.published.worker_type)
}

fn start_name(entry: &CatalogueEntry) -> String {
    format!("{}_start", entry.published.worker_type)
}

fn reference(component: &str) -> String {
    format!("#/components/schemas/{component}")
}

/// The start route of one worker type, from that of all.
fn start_of(entry: &CatalogueEntry, any: &Value) -> Value {
    let mut operation = any.clone();
    let worker_type = entry.published.worker_type.as_str();
    operation["operationId"] = format!("start_{worker_type}").into();
    operation["summary"] = format!("Start: {worker_type}").into();
    operation["description"] = entry.published.description.as_str().into();
    operation["x-ktrdr-worker-type"] = worker_type.into();
    operation["x-ktrdr-result"] = json!({"$ref": reference(&result_name(entry))});
    operation["requestBody"]["content"]["application/json"]["schema"] =
        json!({"$ref": reference(&start_name(entry))});
    if let Some(parameters) = operation["parameters"].as_array_mut() {
        parameters.retain(|parameter| parameter["in"] != "path");
    }
    operation
}

fn operation(
    path: &str,
    doc: &Doc,
    needs_nats: bool,
    problem: &Value,
    generator: &mut SchemaGenerator,
) -> Value {
    let mut parameters: Vec<Value> = path_parameters(path);
    parameters.extend(doc.parameters.iter().cloned());
    let mut errors = doc.errors.clone();
    if !parameters.is_empty() && path.contains('{') {
        // A variable part that is not even text.
        errors.push(Code::UnknownRoute);
    }
    if needs_nats {
        errors.extend([Code::NotReady, Code::NatsUnavailable]);
    }
    let mut responses = Map::new();
    for answer in &doc.answers {
        let mut response = json!({"description": answer.description});
        if let Some((media_type, schema)) = answer.content {
            response["content"][media_type]["schema"] = schema(generator).to_value();
        }
        for (name, description) in &answer.headers {
            response["headers"][*name] =
                json!({"description": description, "schema": {"type": "string"}});
        }
        if answer.status == 202 {
            response["links"] = links();
        }
        responses.insert(answer.status.to_string(), response);
    }
    let mut by_status: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
    for code in &errors {
        let words = by_status.entry(code.status()).or_default();
        if !words.contains(&code.word()) {
            words.push(code.word());
        }
    }
    for (status, words) in by_status {
        let own =
            json!({"properties": {"code": {"enum": words}, "status_code": {"const": status}}});
        let mut response = json!({
            "description": words.join(", "),
            "content": {"application/json": {"schema": {"allOf": [problem, own]}}},
        });
        if status == 503 {
            response["headers"]["Retry-After"] = json!({"description": "Seconds after which to try again.", "schema": {"type": "integer"}});
        }
        responses.insert(status.to_string(), response);
    }
    let mut operation = json!({
        "operationId": doc.id, "tags": [doc.tag], "summary": doc.summary, "parameters": parameters, "responses": responses,
    });
    if !doc.details.is_empty() {
        operation["description"] = doc.details.into();
    }
    if let Some(body) = &doc.body {
        operation["requestBody"] = body.clone();
    }
    operation
}

fn path_parameters(path: &str) -> Vec<Value> {
    let names = path
        .split('{')
        .skip(1)
        .filter_map(|rest| rest.split('}').next());
    let describe = |name: &str| {
        let (schema, description) = match name {
            "file" => (json!({"type": "string"}), "The file's name."),
            "domain" => (
                doc::name(),
                "The worker type's place in paths, for example `data-processing`.",
            ),
            _ => (doc::name(), "The id."),
        };
        json!({"name": name, "in": "path", "required": true, "description": description, "schema": schema})
    };
    names.map(describe).collect()
}

/// What can be done with an operation that was started.
fn links() -> Value {
    let link = |target: &str| json!({"operationId": target, "parameters": {"id": "$response.body#/operation_id"}});
    json!({
        "operation": link("getOperation"), "results": link("getResults"), "metrics": link("getMetrics"),
        "history": link("getHistory"), "cancel": link("cancelOperation"), "retry": link("retryOperation"),
    })
}
