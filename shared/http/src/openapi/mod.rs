//! The OpenAPI 3.1 document of a REST interface.
//!
//! The problem: a document that is written beside the code differs from the code sooner or later.
//! And start routes appear at run time, when a worker publishes a new worker type.
//!
//! How it is solved: the table of routes takes a route only together with its handler, and
//! [`describe`] derives parameters and answers from the handler's argument and return types. Only
//! what types cannot say is written by hand, in a [`Doc`]: operation id, summary, error codes. The
//! document is made from the worker types that are known then. Their schemas may be hostile, so
//! those that are too large here are left out.
//!
//! Rejected: `aide`. Its router replaces axum's and boxes each handler again, while a backend wraps
//! its handlers itself for speed; and it has no place for routes that appear at run time. Also
//! rejected: `utoipa`, because its macros repeat the handlers' return types by name, so the two can
//! differ.
//!
//! | module | holds |
//! |---|---|
//! | [`route`] | one route with its description |
//! | [`describe`] | how argument and return types describe themselves |
//! | [`embed`] | makes the schemas of worker types part of the document |

mod describe;
mod embed;
mod route;

use std::collections::{BTreeMap, HashSet};

use ktrdr_protocol::execution::ExecutionOptions;
use ktrdr_protocol::rest::{ErrorCode, Problem};
use ktrdr_protocol::schema_text::SchemaText;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value, json};

use crate::tokens::Access;

pub use self::describe::{Describe, DescribeHandler, Description};
pub use self::route::{Doc, Header, HeaderValues, Route};

/// The parts of the document that describe the interface as a whole.
#[derive(Debug, Clone, Copy)]
pub struct Interface {
    /// The name of the interface.
    pub title: &'static str,
    /// The purpose of the interface.
    pub description: &'static str,
    /// The groups of routes with their descriptions, in the order in which they are shown.
    pub tags: &'static [(&'static str, &'static str)],
    /// Links from a start's answer to other operations of the interface, as pairs of name and
    /// operation id.
    pub links: &'static [(&'static str, &'static str)],
}

/// A worker type with its own start route.
#[derive(Debug, Clone)]
pub struct StartRoute<'a> {
    /// The worker type.
    pub worker_type: &'a str,
    /// The path of its start route; `None` when another worker type has taken its domain.
    pub path: Option<String>,
    /// What its engine does.
    pub description: &'a str,
    /// JSON Schema of the parameters.
    pub request_schema: SchemaText,
    /// JSON Schema of the result.
    pub result_schema: SchemaText,
}

/// An OpenAPI 3.1 document.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct OpenApiDocument(#[schemars(with = "Map<String, Value>")] Document);

#[derive(Debug, Serialize)]
struct Document {
    #[serde(flatten)]
    frame: Map<String, Value>,
    components: Components,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Components {
    schemas: Schemas,
    security_schemes: Value,
}

/// Schemas by name, as text: as values, hostile ones would take a hundred times as much memory.
type Schemas = BTreeMap<String, Box<RawValue>>;

/// Bytes of the schemas of one worker type. The text of a schema grows here: the start body repeats
/// it, and references become longer.
const MAX_OF_TYPE: usize = 512 * 1024;

/// Bytes of the schemas of all worker types.
const MAX_OF_ALL: usize = 24 * 1024 * 1024;

/// Bytes that a document of such an interface has at most, about.
pub const MAX_DOCUMENT: usize = 32 * 1024 * 1024;

/// The name of the security scheme.
const SCHEME: &str = "token";

/// The document for these routes and worker types. `base` is the path below which the routes are
/// served, `/` for none. `tokens_needed` says whether requests need a token.
pub fn document(
    interface: &Interface,
    base: &str,
    tokens_needed: bool,
    routes: &[Route],
    types: &[StartRoute<'_>],
) -> OpenApiDocument {
    let mut generator = SchemaSettings::draft2020_12()
        .for_serialize()
        .with(|settings| settings.definitions_path = "/components/schemas".into());
    generator.meta_schema = None;
    let mut generator = generator.into_generator();
    let problem = generator.subschema_for::<Problem>().to_value();

    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    let mut has_start = false;
    for route in routes {
        let (mut operation, is_start) = operation(interface, route, &problem, &mut generator);
        if let (true, Access::Needs(scope)) = (tokens_needed, route.access) {
            operation["security"] = json!([{ SCHEME: [scope.as_str()] }]);
        }
        let mut add = |path: &str, operation| {
            paths
                .entry(path.to_owned())
                .or_default()
                .entry(route.method)
                .or_insert(operation);
        };
        has_start |= is_start;
        if is_start {
            for one in types {
                if let Some(path) = &one.path {
                    add(path, start_of(one, &operation));
                }
            }
        }
        add(&route.path, operation);
    }

    let mut components = generator.take_definitions(true);
    components
        .values_mut()
        .filter_map(Value::as_object_mut)
        .for_each(describe::make_plain_enum);
    let mut schemas = if has_start {
        add_types(&mut components, types)
    } else {
        Schemas::new()
    };
    schemas.extend(as_text(components));
    let tags: Vec<Value> = interface
        .tags
        .iter()
        .map(|(name, description)| json!({"name": name, "description": description}))
        .collect();
    let frame = [
        ("openapi", json!("3.1.0")),
        (
            "info",
            json!({
                "title": interface.title,
                "version": env!("CARGO_PKG_VERSION"),
                "description": interface.description,
                "license": {"name": "MIT", "identifier": "MIT"},
            }),
        ),
        (
            "jsonSchemaDialect",
            json!("https://json-schema.org/draft/2020-12/schema"),
        ),
        ("servers", json!([{"url": base}])),
        ("tags", json!(tags)),
        ("paths", json!(paths)),
    ];
    let security_schemes = json!({SCHEME: {
        "type": "http", "scheme": "bearer",
        "description": "A token of the server's file of tokens. Needed when the server has one.",
    }});
    OpenApiDocument(Document {
        frame: frame
            .map(|(name, value)| (name.to_owned(), value))
            .into_iter()
            .collect(),
        components: Components {
            schemas,
            security_schemes,
        },
    })
}

/// Adds the schemas of start bodies, and returns those of worker types.
fn add_types(components: &mut Map<String, Value>, types: &[StartRoute<'_>]) -> Schemas {
    // Clients write it and never read it: the fields that have defaults are optional.
    let mut for_reading = SchemaSettings::draft2020_12()
        .for_deserialize()
        .into_generator();
    let execution = for_reading.root_schema_for::<ExecutionOptions>();
    embed::embed(components, "Execution", execution.as_value(), |_| false);
    components.insert("StartBody".to_owned(), start_body(Map::new()));

    let names_of = |one| [request_name(one), result_name(one), start_name(one)];
    let reserved: HashSet<String> = types.iter().flat_map(names_of).collect();
    let mut schemas = Schemas::new();
    let mut results = Vec::new();
    let mut room = MAX_OF_ALL;
    for one in types {
        let is_taken = |place: &str| {
            reserved.contains(place)
                || components.contains_key(place)
                || schemas.contains_key(place)
        };
        let mut own = as_text(schemas_of(one, is_taken));
        let bytes = size(&own);
        if bytes > MAX_OF_TYPE || bytes > room {
            own = as_text(left_out(one));
        }
        room = room.saturating_sub(size(&own));
        schemas.append(&mut own);
        results.push(json!({"title": one.worker_type, "$ref": reference(&result_name(one))}));
    }

    let data = components
        .get_mut("ResultResponse")
        .and_then(|response| response.pointer_mut("/properties/data"));
    if let Some(data) = data {
        // A result may be older than the newest version of its worker type, or of a type that is
        // gone.
        results.push(json!({"title": "of a worker type or version that is no longer known"}));
        *data = json!({
            "description": "The result, as the worker type's result schema describes it.",
            "anyOf": results,
        });
    }
    schemas
}

fn as_text(components: Map<String, Value>) -> Schemas {
    let text = |(name, schema)| {
        // A value can always be written.
        let text = to_raw_value::<Value>(&schema).unwrap_or_else(|_| RawValue::TRUE.to_owned());
        (name, text)
    };
    components.into_iter().map(text).collect()
}

/// The schemas of one worker type with their definitions, by name.
fn schemas_of(one: &StartRoute<'_>, is_taken: impl Fn(&str) -> bool) -> Map<String, Value> {
    let mut own = Map::new();
    for (name, schema) in [
        (request_name(one), &one.request_schema),
        (result_name(one), &one.result_schema),
    ] {
        // What cannot be read is no schema, and restricts nothing.
        let schema = schema.value().unwrap_or_default();
        embed::embed(&mut own, &name, &schema, &is_taken);
    }
    let request = own.get(&request_name(one)).and_then(Value::as_object);
    let start = start_body(request.cloned().unwrap_or_default());
    own.insert(start_name(one), start);
    own
}

/// What stands for schemas that are too large here.
fn left_out(one: &StartRoute<'_>) -> Map<String, Value> {
    let text = "The schema is too large for this document; the list of worker types has it.";
    let schema = json!({"description": text});
    let start = start_body(schema.as_object().cloned().unwrap_or_default());
    Map::from_iter([
        (request_name(one), schema.clone()),
        (result_name(one), schema),
        (start_name(one), start),
    ])
}

/// Bytes of schemas.
fn size(schemas: &Schemas) -> usize {
    let sizes = schemas
        .iter()
        .map(|(name, schema)| name.len() + schema.get().len());
    sizes.sum()
}

fn request_name(one: &StartRoute<'_>) -> String {
    format!("{}_request", one.worker_type)
}

fn result_name(one: &StartRoute<'_>) -> String {
    format!("{}_result", one.worker_type)
}

fn start_name(one: &StartRoute<'_>) -> String {
    format!("{}_start", one.worker_type)
}

fn reference(component: &str) -> String {
    format!("#/components/schemas/{component}")
}

/// The schema of a start body: the worker type's own parameters, `task_id` and `execution`.
fn start_body(own: Map<String, Value>) -> Value {
    let mut schema = own;
    schema.entry("type").or_insert_with(|| "object".into());
    let properties = schema.entry("properties").or_insert_with(|| json!({}));
    if let Some(properties) = properties.as_object_mut() {
        let id = json!({
            "type": ["string", "null"], "pattern": NAME,
            "description": "The id of the operation, chosen by the client: a second start with the same id starts nothing.",
        });
        let execution = json!({
            "description": "How to run the operation.",
            "anyOf": [{"$ref": reference("Execution")}, {"type": "null"}],
        });
        properties.insert("task_id".to_owned(), id);
        properties.insert("execution".to_owned(), execution);
    }
    Value::Object(schema)
}

/// The start route of one worker type, made from the route of all.
fn start_of(one: &StartRoute<'_>, any: &Value) -> Value {
    let mut operation = any.clone();
    operation["operationId"] = format!("start_{}", one.worker_type).into();
    operation["summary"] = format!("Start an operation of the type {}", one.worker_type).into();
    operation["description"] = one.description.into();
    operation["x-ktrdr-worker-type"] = one.worker_type.into();
    operation["x-ktrdr-result"] = json!({"$ref": reference(&result_name(one))});
    operation["requestBody"]["content"]["application/json"]["schema"] =
        json!({"$ref": reference(&start_name(one))});
    if let Some(parameters) = operation["parameters"].as_array_mut() {
        parameters.retain(|parameter| parameter["in"] != "path");
    }
    operation
}

/// The description of one route, and whether it takes a start body.
fn operation(
    interface: &Interface,
    route: &Route,
    problem: &Value,
    generator: &mut SchemaGenerator,
) -> (Value, bool) {
    let doc = &route.doc;
    let mut description = Description::new(generator, doc.answer);
    (route.describe)(&mut description);
    let Description {
        parameters: query,
        mut responses,
        errors: mut codes,
        takes_start_body,
        body,
        ..
    } = description;

    let mut parameters = path_parameters(&route.path);
    codes.extend([
        ErrorCode::Internal,
        ErrorCode::InvalidHeader,
        ErrorCode::HostNotAllowed,
    ]);
    if route.method != "get" {
        codes.extend([ErrorCode::OriginNotAllowed, ErrorCode::UnsupportedMediaType]);
    }
    if route.access != Access::Open {
        codes.extend([
            ErrorCode::Unauthorized,
            ErrorCode::Forbidden,
            ErrorCode::UnknownParameter,
        ]);
    }
    codes.extend(doc.errors);
    if !parameters.is_empty() {
        // A variable part that is not UTF-8.
        codes.push(ErrorCode::UnknownRoute);
    }
    if route.needs_projection {
        codes.extend([ErrorCode::NotReady, ErrorCode::NatsUnavailable]);
    }
    parameters.extend(query);
    parameters.extend(doc.headers.iter().map(header_parameter));
    if !interface.links.is_empty()
        && let Some(accepted) = responses.get_mut(&202)
    {
        accepted["links"] = links(interface);
    }
    responses.extend(refusals(codes, problem));

    let responses: Map<String, Value> = responses
        .into_iter()
        .map(|(status, response)| (status.to_string(), response))
        .collect();
    let mut operation = json!({
        "operationId": doc.id, "tags": [doc.tag], "summary": doc.summary,
        "parameters": parameters, "responses": responses,
    });
    if !doc.details.is_empty() {
        operation["description"] = doc.details.into();
    }
    if takes_start_body {
        operation["requestBody"] = json!({
            "description": "The worker type's own parameters; `task_id` and `execution` are for this interface.",
            "required": true,
            "content": {"application/json": {"schema": {"$ref": reference("StartBody")}}},
        });
    }
    if let Some(schema) = body {
        let required = schema.get("required").is_some();
        operation["requestBody"] =
            json!({"required": required, "content": {"application/json": {"schema": schema}}});
    }
    (operation, takes_start_body)
}

/// The error answers by status. The codes that are possible with a status stand in `x-ktrdr-codes`.
fn refusals(codes: Vec<ErrorCode>, problem: &Value) -> BTreeMap<u16, Value> {
    let mut by_status: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
    for code in codes {
        let words = by_status.entry(code.status()).or_default();
        if !words.contains(&code.as_str()) {
            words.push(code.as_str());
        }
    }

    let refusal = |(status, words): (u16, Vec<&str>)| {
        let mut response = json!({
            "description": words.join(", "),
            "content": {"application/json": {"schema": problem}},
            "x-ktrdr-codes": words,
        });
        if status == 503 {
            response["headers"]["Retry-After"] = json!({
                "description": "Seconds after which to try again.", "schema": {"type": "integer"},
            });
        }
        if status == 401 {
            response["headers"]["WWW-Authenticate"] = json!({
                "description": "`Bearer`, and what is wrong with the token (RFC 6750).", "schema": {"type": "string"},
            });
        }
        (status, response)
    };
    by_status.into_iter().map(refusal).collect()
}

/// A name: one token of a subject.
const NAME: &str = "^[A-Za-z0-9_-]{1,128}$";

fn path_parameters(path: &str) -> Vec<Value> {
    let names = path
        .split('{')
        .skip(1)
        .filter_map(|rest| rest.split('}').next());
    let describe = |name: &str| {
        let (schema, description) = match name {
            "file" => (json!({"type": "string"}), "The name of the file."),
            "domain" => (
                json!({"type": "string", "pattern": NAME}),
                "The domain of the worker type, for example `data-processing`.",
            ),
            _ => (json!({"type": "string", "pattern": NAME}), "The id."),
        };
        json!({"name": name, "in": "path", "required": true, "description": description, "schema": schema})
    };
    names.map(describe).collect()
}

fn header_parameter(header: &Header) -> Value {
    let schema = match header.values {
        HeaderValues::Text => json!({"type": "string"}),
        HeaderValues::Matching(pattern) => json!({"type": "string", "pattern": pattern}),
        HeaderValues::Number => json!({"type": "integer", "minimum": 0}),
    };
    json!({
        "name": header.name, "in": "header", "required": false,
        "description": header.description, "schema": schema,
    })
}

/// Links from the answer to a start to the routes of the new operation.
fn links(interface: &Interface) -> Value {
    let link = |(name, target): &(&str, &str)| {
        let parameters = json!({"id": "$response.body#/operation_id"});
        (
            (*name).to_owned(),
            json!({"operationId": target, "parameters": parameters}),
        )
    };
    Value::Object(interface.links.iter().map(link).collect())
}

#[cfg(test)]
mod tests;
